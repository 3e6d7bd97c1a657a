//! A stage: a directory with all that a client needs to meet a scenario.
//!
//! - `libnvidia-ml.so.1`: a copy of this library without the symbols that the scenario has missing;
//! - `scenario`: the name of a scenario inside the library, or the absolute path of a file;
//! - `proc/`: a proc root, kept in step with world time by the library that runs from the stage;
//! - what [`cluster`] serves there, if the scenario has one.

mod library;
mod proc;

use std::{
    collections::BTreeSet,
    env, fs, io,
    path::{Path, PathBuf},
};

pub(crate) use self::proc::Tree;
use crate::{
    clock, cluster,
    fault::Effect,
    scenario::{self, Source},
};

const LIBRARY: &str = "libnvidia-ml.so.1";
const SCENARIO: &str = "scenario";
const PROC: &str = "proc";
const VARIABLE: &str = "MOCK_NVML_SCENARIO";
const DEFAULT: &str = "demo";

/// Why there is no stage.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The scenario is no good.
    #[error(transparent)]
    Scenario(#[from] scenario::Error),
    /// A file cannot be read or written.
    #[error("{path}: {error}", path = .path.display())]
    File { path: PathBuf, error: io::Error },
    /// The copy of the library cannot be made.
    #[error("{path}: {error}", path = .path.display())]
    Library { path: PathBuf, error: library::Error },
    /// There is nowhere to put it.
    #[error("no directory {path} for the stage: create it first", path = .0.display())]
    NoDirectory(PathBuf),
    /// The library does not know where it stands.
    #[error("the file of this library cannot be found: load it from a file by its path")]
    Homeless,
}

/// The scenario of a library whose file stands in `home`: of its stage, else of the environment,
/// else the default.
///
/// # Errors
/// When what is named there is no scenario.
pub(crate) fn source(home: Option<&Path>) -> Result<Source, scenario::Error> {
    let staged = home.and_then(|home| fs::read_to_string(home.join(SCENARIO)).ok());
    let said = staged.or_else(|| env::var(VARIABLE).ok());
    Source::find(said.as_deref().unwrap_or(DEFAULT))
}

/// Whether the stage `home` is there, or was taken away.
pub(crate) fn stands(home: &Path) -> bool {
    home.join(SCENARIO).is_file() && home.join(PROC).is_dir()
}

/// Sets a stage up for the scenario `said` in the directory `dir`; `image` is this library's file.
///
/// # Errors
/// With all that its reader needs to mend it.
pub(crate) fn set(said: &str, dir: &Path, image: Option<&Path>) -> Result<(), Error> {
    let source = Source::find(said)?;
    let scenario = source.load()?;
    let image = image.ok_or(Error::Homeless)?;
    if !dir.is_dir() {
        return Err(Error::NoDirectory(dir.to_owned()));
    }
    let missing: BTreeSet<_> = scenario
        .faults
        .iter()
        .filter(|fault| fault.effect == Effect::Missing)
        .filter_map(|fault| fault.function)
        .collect();
    let mut bytes = fs::read(image).map_err(at(image))?;
    library::strike(&mut bytes, &Vec::from_iter(missing))
        .map_err(|error| Error::Library { path: image.to_owned(), error })?;
    replace(&dir.join(LIBRARY), &bytes)?;
    replace(&dir.join(SCENARIO), source.said().as_bytes())?;
    cluster::clear(dir).map_err(at(dir))?;
    if let Some(cluster) = &scenario.cluster {
        announce(&cluster.node, dir)?;
    }
    let root = dir.join(PROC);
    fs::create_dir_all(&root).map_err(at(&root))?;
    let now = clock::now(Some(scenario.hold.unwrap_or(0.0)));
    Tree::new(root).sync(&scenario.into(), now)
}

/// What a client has to know of the cluster before it is served: how the node is called, and that
/// there will be a socket.
fn announce(node: &str, dir: &Path) -> Result<(), Error> {
    let sockets = dir.join("pod-resources");
    fs::create_dir_all(&sockets).map_err(at(&sockets))?;
    replace(&dir.join("node"), node.as_bytes())
}

/// Writes a file in one step, so that no reader meets half of it: a library may be mapped.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    fs::write(&fresh, bytes).map_err(at(&fresh))?;
    fs::rename(&fresh, path).map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::File { path, error }
}
