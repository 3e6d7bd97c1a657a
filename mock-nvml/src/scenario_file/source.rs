//! Loading of scenarios, built-in or from a file, and reloading of changed files.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    scenario::Scenario,
    scenario_file::error::{ScenarioError, suggestion},
};

/// The built-in scenarios: name and text.
pub(crate) static BUILT_IN: &[(&str, &str)] = &[
    ("demo", include_str!("../../scenarios/demo.toml")),
    ("idle-t4", include_str!("../../scenarios/idle-t4.toml")),
    ("shared-l20", include_str!("../../scenarios/shared-l20.toml")),
    ("consumer-4090", include_str!("../../scenarios/consumer-4090.toml")),
    ("faulty", include_str!("../../scenarios/faulty.toml")),
    ("blackwell", include_str!("../../scenarios/blackwell.toml")),
    ("old-driver", include_str!("../../scenarios/old-driver.toml")),
    ("mig-a100", include_str!("../../scenarios/mig-a100.toml")),
    ("mig-h100", include_str!("../../scenarios/mig-h100.toml")),
    ("bert-hpa", include_str!("../../scenarios/bert-hpa.toml")),
    ("abi-535", include_str!("../../scenarios/abi-535.toml")),
    ("huge", include_str!("../../scenarios/huge.toml")),
    ("hami", include_str!("../../scenarios/hami.toml")),
    ("hami-mig", include_str!("../../scenarios/hami-mig.toml")),
    ("kai", include_str!("../../scenarios/kai.toml")),
    ("dra", include_str!("../../scenarios/dra.toml")),
    ("dra-sharing", include_str!("../../scenarios/dra-sharing.toml")),
    ("lifecycle", include_str!("../../scenarios/lifecycle.toml")),
    ("gke", include_str!("../../scenarios/gke.toml")),
    ("gvisor", include_str!("../../scenarios/gvisor.toml")),
    ("jetson", include_str!("../../scenarios/jetson.toml")),
    ("no-gpu", include_str!("../../scenarios/no-gpu.toml")),
];

/// Why a scenario cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Neither a built-in scenario nor a file.
    #[error(
        "no scenario \"{name}\"{hint}: it is neither a file nor one of {known}; give one of them"
    )]
    Unknown { name: String, hint: String, known: String },
    /// The file cannot be read.
    #[error("scenario {path}: the file cannot be read ({error}); check its permissions", path = .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    /// The text is invalid.
    #[error("scenario {name}:{error}")]
    Invalid { name: String, error: ScenarioError },
}

/// Name or path of a scenario that is not loaded yet.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A built-in scenario.
    BuiltIn { name: &'static str, text: &'static str },
    /// The absolute path of a file.
    File(PathBuf),
}

impl Source {
    /// Finds a scenario by the name of a built-in one or by the path of a file.
    ///
    /// # Errors
    /// `name` is neither, or the path cannot be resolved.
    pub(crate) fn find(name: &str) -> Result<Self, Error> {
        let wanted = name.trim();
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == wanted) {
            return Ok(Self::BuiltIn { name, text });
        }
        let path = Path::new(wanted);
        if path.is_file() {
            // Absolute, since the process that loads the library may have another working directory.
            let path = fs::canonicalize(path)
                .map_err(|error| Error::Unreadable { path: path.to_owned(), error })?;
            return Ok(Self::File(path));
        }
        let names = || BUILT_IN.iter().map(|(name, _)| *name);
        let hint = suggestion(wanted, names());
        let known = names().collect::<Vec<_>>().join(", ");
        let hint = hint.trim_end_matches('?').to_owned();
        Err(Error::Unknown { name: wanted.to_owned(), hint, known })
    }

    /// Its name or path, in the format of [`Source::find`].
    pub(crate) fn name_or_path(&self) -> String {
        match self {
            Self::BuiltIn { name, .. } => (*name).to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// Reads and validates the scenario.
    ///
    /// # Errors
    /// The file cannot be read, or its text is invalid.
    pub(crate) fn load(&self) -> Result<Scenario, Error> {
        let (seed, text) = match self {
            Self::BuiltIn { name, text } => ((*name).to_owned(), (*text).to_owned()),
            Self::File(path) => {
                let text = fs::read_to_string(path)
                    .map_err(|error| Error::Unreadable { path: path.clone(), error })?;
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                (stem.into_owned(), text)
            }
        };
        Scenario::parse(&seed, &text)
            .map_err(|error| Error::Invalid { name: self.name_or_path(), error })
    }
}

/// Modification time (s, ns), size and inode of a file.
type FileStamp = (i64, i64, u64, u64);

/// A scenario that is loaded again when its file changes.
#[derive(Debug)]
pub(crate) struct ScenarioFile {
    source: Source,
    loaded: Option<FileStamp>,
}

impl ScenarioFile {
    /// Loads the scenario for the first time.
    ///
    /// # Errors
    /// The scenario cannot be loaded.
    pub(crate) fn open(source: Source) -> Result<(Self, Scenario), Error> {
        let loaded = file_stamp(&source);
        let scenario = source.load()?;
        Ok((Self { source, loaded }, scenario))
    }

    /// Whether the scenario is a file, which can change.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    /// Loads the scenario again if its file has changed since the last call.
    pub(crate) fn reload_if_changed(&mut self) -> Option<Result<Scenario, Error>> {
        let now = file_stamp(&self.source);
        if now == self.loaded {
            return None;
        }
        self.loaded = now;
        Some(self.source.load())
    }
}

fn file_stamp(source: &Source) -> Option<FileStamp> {
    let Source::File(path) = source else { return None };
    let found = fs::metadata(path).ok()?;
    Some((found.mtime(), found.mtime_nsec(), found.size(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_scenarios_are_valid() {
        for (name, _) in BUILT_IN {
            Source::find(name).unwrap().load().unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn error_of_an_unknown_name_lists_the_known_names() {
        assert_eq!(
            Source::find("dmeo").unwrap_err().to_string(),
            "no scenario \"dmeo\", did you mean \"demo\": it is neither a file nor one of \
             demo, idle-t4, shared-l20, consumer-4090, faulty, blackwell, old-driver, mig-a100, \
             mig-h100, bert-hpa, abi-535, huge, hami, hami-mig, kai, dra, dra-sharing, lifecycle, \
              gke, gvisor, jetson, no-gpu; give one of them"
        );
    }
}
