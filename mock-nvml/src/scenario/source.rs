//! Where scenarios come from, and noticing that one has changed.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Complaint, Scenario, complaint::suggestion};

/// The scenarios inside the library: name and text.
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
    ("dra", include_str!("../../scenarios/dra.toml")),
];

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Neither a file nor a built-in.
    #[error("no scenario \"{name}\"{near}: it is neither a file nor one of {known}")]
    Nowhere { name: String, near: String, known: String },
    /// The file cannot be read.
    #[error("scenario {path}: {error}", path = .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    /// It makes no sense.
    #[error("scenario {name}:{complaint}")]
    Wrong { name: String, complaint: Complaint },
}

/// One scenario, not read yet.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Built in.
    Inside { name: &'static str, text: &'static str },
    /// A file.
    File(PathBuf),
}

impl Source {
    /// The scenario that `said` means: the name of one inside the library, or the path of a file.
    ///
    /// # Errors
    /// When it is neither.
    pub(crate) fn find(said: &str) -> Result<Self, Error> {
        let said = said.trim();
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == said) {
            return Ok(Self::Inside { name, text });
        }
        let path = Path::new(said);
        if path.is_file() {
            // Absolute, as the stage is read from another directory.
            let path = fs::canonicalize(path)
                .map_err(|error| Error::Unreadable { path: path.to_owned(), error })?;
            return Ok(Self::File(path));
        }
        let names = || BUILT_IN.iter().map(|(name, _)| *name);
        let near = suggestion(said, names());
        let known = names().collect::<Vec<_>>().join(", ");
        let near = near.trim_end_matches('?').to_owned();
        Err(Error::Nowhere { name: said.to_owned(), near, known })
    }

    /// Its name or path, as [`Source::find`] understands it.
    pub(crate) fn said(&self) -> String {
        match self {
            Self::Inside { name, .. } => (*name).to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// Reads and validates it.
    ///
    /// # Errors
    /// With the file, the line and the mend.
    pub(crate) fn load(&self) -> Result<Scenario, Error> {
        let (seed, text) = match self {
            Self::Inside { name, text } => ((*name).to_owned(), (*text).to_owned()),
            Self::File(path) => {
                let text = fs::read_to_string(path)
                    .map_err(|error| Error::Unreadable { path: path.clone(), error })?;
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                (stem.into_owned(), text)
            }
        };
        Scenario::parse(&seed, &text)
            .map_err(|complaint| Error::Wrong { name: self.said(), complaint })
    }
}

/// Modification time (s, ns), size and inode of a file.
type Mark = (i64, i64, u64, u64);

/// Looks whether a scenario's file has changed.
#[derive(Debug)]
pub(crate) struct Watch {
    source: Source,
    seen: Option<Mark>,
}

impl Watch {
    /// Begins to watch, and reads what there is now.
    ///
    /// # Errors
    /// If that is no good.
    pub(crate) fn begin(source: Source) -> Result<(Self, Scenario), Error> {
        let seen = mark(&source);
        let scenario = source.load()?;
        Ok((Self { source, seen }, scenario))
    }

    /// Whether it can change at all.
    pub(crate) fn follows_file(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    /// The new scenario, if it has changed since the last look.
    pub(crate) fn look(&mut self) -> Option<Result<Scenario, Error>> {
        let now = mark(&self.source);
        if now == self.seen {
            return None;
        }
        self.seen = now;
        Some(self.source.load())
    }
}

fn mark(source: &Source) -> Option<Mark> {
    let Source::File(path) = source else { return None };
    let found = fs::metadata(path).ok()?;
    Some((found.mtime(), found.mtime_nsec(), found.size(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_is_valid() {
        for (name, _) in BUILT_IN {
            Source::find(name).unwrap().load().unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        assert_eq!(
            Source::find("dmeo").unwrap_err().to_string(),
            "no scenario \"dmeo\", did you mean \"demo\": it is neither a file nor one of \
             demo, idle-t4, shared-l20, consumer-4090, faulty, blackwell, old-driver, mig-a100, \
             mig-h100, bert-hpa, abi-535, huge, hami, dra"
        );
    }
}
