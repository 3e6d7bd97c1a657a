//! The mock environment: a directory with everything that a client of a scenario needs.
//!
//! - `libnvidia-ml.so.1`: a copy of this library without the symbols that are missing in the scenario;
//! - `scenario`: the name of a built-in scenario, or the absolute path of a scenario file;
//! - `sys/`: the PCI bus, written when the environment is created;
//! - `proc/`: a proc root, which the loaded library updates with world time;
//! - `cgroup/`: the cgroups of the node, version 2, as far as clients look for them;
//! - the files of [`cluster_servers`], if the scenario has a cluster.

mod library;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use crate::{
    clock, cluster_servers,
    environment_dir::{
        FileError, PROC, RECORDED_LIBRARY, SCENARIO, file_error, replace_atomically,
    },
    fault::Effect,
    procfs::ProcTree,
    scenario_file::source::{self, Source},
    sysfs,
};

const LIBRARY: &str = "libnvidia-ml.so.1";
const SCENARIO_VARIABLE: &str = "MOCK_NVML_SCENARIO";
const DEFAULT_SCENARIO: &str = "demo";

/// Why a mock environment cannot be created or updated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The scenario is unknown or invalid.
    #[error(transparent)]
    Scenario(#[from] source::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A missing symbol cannot be removed from the copy of the library.
    #[error("cannot copy the library {path}: {error}", path = .path.display())]
    Library { path: PathBuf, error: library::Error },
    /// The directory does not exist.
    #[error("the directory {path} of the mock environment does not exist: create it first", path = .0.display())]
    NoDirectory(PathBuf),
    /// The path of this library is unknown.
    #[error("the file of the mock library is unknown: load the library by its path")]
    UnknownLibraryFile,
}

/// The scenario of the library in the directory `home`: the one named in the file `scenario` there, else
/// in the environment variable `MOCK_NVML_SCENARIO`, else the default one.
///
/// # Errors
/// The name is neither a built-in scenario nor a file.
pub(crate) fn scenario_source(home: Option<&Path>) -> Result<Source, source::Error> {
    let from_file = home.and_then(|home| fs::read_to_string(home.join(SCENARIO)).ok());
    let name = from_file.or_else(|| env::var(SCENARIO_VARIABLE).ok());
    Source::find(name.as_deref().unwrap_or(DEFAULT_SCENARIO))
}

/// Creates a mock environment in the existing directory `dir`. `name` is a built-in scenario or the path
/// of a scenario file; `image` is the file of this library.
///
/// # Errors
/// The scenario is invalid, the directory does not exist, or a file cannot be written.
pub(crate) fn create(name: &str, dir: &Path, image: Option<&Path>) -> Result<(), Error> {
    let source = Source::find(name)?;
    let scenario = source.load()?;
    if !dir.is_dir() {
        return Err(Error::NoDirectory(dir.to_owned()));
    }
    let missing: BTreeSet<_> = scenario
        .faults
        .iter()
        .filter(|fault| fault.effect == Effect::Missing)
        .filter_map(|fault| fault.function)
        .collect();
    write_library(&Vec::from_iter(missing), dir, image)?;
    replace_atomically(&dir.join(SCENARIO), source.name_or_path().as_bytes())?;
    cluster_servers::remove_files(dir).map_err(file_error(dir))?;
    if let Some(cluster) = &scenario.cluster {
        prepare_cluster(&cluster.node, dir)?;
    }
    sysfs::write(&scenario, dir)?;
    let root = dir.join(PROC);
    fs::create_dir_all(&root).map_err(file_error(&root))?;
    let now = clock::now(Some(scenario.held_at.unwrap_or(0.0)));
    Ok(ProcTree::new(dir).sync(&scenario.into(), now)?)
}

/// Makes the existing directory `dir` one in which a copy of this library records `library`, which lacks the
/// functions `missing`. `image` is the file of this library.
///
/// # Errors
/// The directory does not exist, or a file cannot be written.
pub(crate) fn create_recorder(
    library: &str,
    missing: &[&str],
    dir: &Path,
    image: Option<&Path>,
) -> Result<(), Error> {
    if !dir.is_dir() {
        return Err(Error::NoDirectory(dir.to_owned()));
    }
    write_library(missing, dir, image)?;
    Ok(replace_atomically(&dir.join(RECORDED_LIBRARY), library.as_bytes())?)
}

/// Copies this library to `dir`, without some symbols.
fn write_library(missing: &[&str], dir: &Path, image: Option<&Path>) -> Result<(), Error> {
    let image = image.ok_or(Error::UnknownLibraryFile)?;
    let mut bytes = fs::read(image).map_err(file_error(image))?;
    library::remove_symbols(&mut bytes, missing)
        .map_err(|error| Error::Library { path: image.to_owned(), error })?;
    Ok(replace_atomically(&dir.join(LIBRARY), &bytes)?)
}

/// Writes what clients need before the cluster is served: the node name and the socket directory.
fn prepare_cluster(node: &str, dir: &Path) -> Result<(), Error> {
    for sockets in ["pod-resources", "pods-api"] {
        let sockets = dir.join(sockets);
        fs::create_dir_all(&sockets).map_err(file_error(&sockets))?;
    }
    Ok(replace_atomically(&dir.join("node"), node.as_bytes())?)
}
