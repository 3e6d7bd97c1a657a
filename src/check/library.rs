//! The driver's library: where it was looked for, and which one was taken.

use std::path::{Path, PathBuf};

use super::{Finding, Topic};
use crate::nvml::{self, LibraryError, mapped};
use crate::sample::DriverState;

/// What to do where there is no library.
const NOT_FOUND: &str = "install the NVIDIA driver on the node; in a pod have NVIDIA's container runtime \
     lay its library in (runtimeClassName: nvidia and NVIDIA_VISIBLE_DEVICES=all), or mount it and name \
     it with --nvml-library";

/// What became of one path.
enum Tried {
    /// No library could be loaded from there, in the loader's words.
    Nothing(String),
    /// It was loaded, and the file that it is.
    Loaded(Option<PathBuf>),
    /// It was loaded and is no NVML, or did not start.
    Refused(String),
}

/// Looks at `paths`, of which one was loaded if the driver is up. `proc_root` is where the kernel tells
/// of a driver.
#[must_use]
pub fn look(paths: &[PathBuf], driver: &DriverState, proc_root: &Path) -> Vec<Finding> {
    match driver {
        DriverState::Up(driver) => {
            let loaded = paths.iter().position(|path| path.display().to_string() == driver.library);
            let (before, _) = paths.split_at(loaded.unwrap_or_default());
            let file = mapped::file(Path::new(&driver.library));
            let path = PathBuf::from(&driver.library);
            let nothing = |path: &PathBuf| (path.clone(), Tried::Nothing(absence(path)));
            let tried = before.iter().map(nothing).chain([(path, Tried::Loaded(file))]);
            findings(tried.collect(), &driver.nvml_version)
        }
        DriverState::Down { reason: "library_not_found" | "not_nvml", .. } => {
            findings(tried_one_by_one(paths, proc_root), "")
        }
        DriverState::Down { reason, detail } => not_started(paths, reason, detail),
    }
}

/// No session, though there may be a library.
fn not_started(paths: &[PathBuf], reason: &str, detail: &str) -> Vec<Finding> {
    // The error of a library that says no begins with where it was loaded from. One that does not
    // answer is loaded still.
    let says_no = |path: &&PathBuf| detail.starts_with(&format!("{}: nvmlInit_v2", path.display()));
    let loaded = paths.iter().find(says_no).cloned();
    let loaded = loaded.or_else(|| paths.iter().find_map(|path| mapped::file(path)));
    let Some(loaded) = loaded else {
        return paths.iter().map(|path| skipped(path, reason)).collect();
    };
    let before = paths.iter().take_while(|path| **path != loaded && paths.contains(&loaded));
    let absent = |path: &PathBuf| {
        Finding::skipped(Topic::Library, path.display().to_string(), absence(path))
    };
    let said = format!("loaded; it does not start ({reason}), see the driver below");
    let loaded = Finding::ok(Topic::Library, loaded.display().to_string(), said);
    before.map(absent).chain([loaded]).collect()
}

fn skipped(path: &Path, reason: &str) -> Finding {
    let said = format!("it is not known whether it can be loaded: the driver is down ({reason})");
    Finding::skipped(Topic::Library, path.display().to_string(), said)
}

fn tried_one_by_one(paths: &[PathBuf], proc_root: &Path) -> Vec<(PathBuf, Tried)> {
    let tried = |(path, outcome): (PathBuf, Result<(), LibraryError>)| {
        let tried = match outcome {
            Ok(()) => Tried::Loaded(mapped::file(&path)),
            Err(LibraryError::NotFound { detail, .. }) if has_folder(&path) && path.exists() => {
                Tried::Refused(without(&path, &detail))
            }
            Err(LibraryError::NotFound { detail, .. }) => Tried::Nothing(without(&path, &detail)),
            Err(error) => Tried::Refused(without(&path, &error.to_string())),
        };
        (path, tried)
    };
    nvml::explain(paths, proc_root).into_iter().map(tried).collect()
}

/// The loader begins with the path, which is told anyhow.
fn without(path: &Path, detail: &str) -> String {
    let path = format!("{}: ", path.display());
    detail.strip_prefix(&path).unwrap_or(detail).to_owned()
}

fn has_folder(path: &Path) -> bool {
    path.parent().is_some_and(|parent| parent != Path::new(""))
}

/// Why nothing was loaded from a path before the one that was.
fn absence(path: &Path) -> String {
    match (has_folder(path), path.exists()) {
        (false, _) => "not where the loader looks (ld.so.cache, LD_LIBRARY_PATH)".to_owned(),
        (true, false) => "no such file".to_owned(),
        (true, true) => "it is there and was not loaded".to_owned(),
    }
}

/// Without a library every path is told, and then that there is none.
fn findings(tried: Vec<(PathBuf, Tried)>, version: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut loaded, mut only) = (false, None);
    let alone = tried.len() == 1;
    for (path, tried) in tried {
        let subject = path.display().to_string();
        findings.push(match tried {
            Tried::Loaded(file) => {
                loaded = true;
                let file = file.filter(|file| *file != path);
                let from = file.map(|file| format!(" from {}", file.display()));
                let of =
                    if version.is_empty() { String::new() } else { format!("; NVML {version}") };
                let said = format!("loaded{}{of}", from.unwrap_or_default());
                Finding::ok(Topic::Library, subject, said)
            }
            Tried::Nothing(detail) if alone => {
                only = Some(());
                Finding::failure(Topic::Library, subject, detail).mended_by(NOT_FOUND)
            }
            Tried::Nothing(detail) => Finding::skipped(Topic::Library, subject, detail),
            Tried::Refused(detail) => {
                only = Some(());
                Finding::failure(Topic::Library, subject, detail)
                    .mended_by("name the driver's own library with --nvml-library")
            }
        });
    }
    if !loaded && only.is_none() {
        let said = format!("in none of the {} places", findings.len());
        let none = Finding::failure(Topic::Library, "libnvidia-ml.so.1", said);
        findings.push(none.mended_by(NOT_FOUND));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn verdicts(tried: Vec<(&str, Tried)>) -> Vec<(Verdict, String)> {
        let tried = tried.into_iter().map(|(path, tried)| (path.into(), tried)).collect();
        let findings = findings(tried, "12.550.54.15").into_iter();
        findings.map(|f| (f.verdict, format!("{}: {}", f.subject, f.said))).collect()
    }

    fn nothing() -> Tried {
        Tried::Nothing("no such file".to_owned())
    }

    #[test]
    fn the_library_that_was_loaded_is_told_with_its_file() {
        let file = Some("/b/libnvidia-ml.so.550".into());
        let tried = vec![("/a", nothing()), ("/b/libnvidia-ml.so.1", Tried::Loaded(file))];
        assert_eq!(
            verdicts(tried),
            [
                (Verdict::Skipped, "/a: no such file".to_owned()),
                (
                    Verdict::Ok,
                    "/b/libnvidia-ml.so.1: loaded from /b/libnvidia-ml.so.550; NVML 12.550.54.15"
                        .to_owned()
                ),
            ]
        );
    }

    #[test]
    fn a_library_that_says_no_was_loaded() {
        let paths: Vec<PathBuf> = ["/a", "/b", "/c"].map(Into::into).to_vec();
        let told = |detail| {
            let findings = not_started(&paths, "driver_not_loaded", detail).into_iter();
            findings.map(|f| (f.subject, f.verdict)).collect::<Vec<_>>()
        };
        assert_eq!(
            told("/b: nvmlInit_v2: NVIDIA driver is not loaded; load it"),
            [("/a".to_owned(), Verdict::Skipped), ("/b".to_owned(), Verdict::Ok)]
        );
        let unknown = told("no answer");
        assert!(unknown.len() == 3 && unknown.iter().all(|(_, v)| *v == Verdict::Skipped));
    }

    #[test]
    fn without_a_library_every_place_is_told_and_one_failure() {
        let told = verdicts(vec![("/a", nothing()), ("/b", nothing())]);
        assert_eq!(told.len(), 3);
        let (verdict, said) = told.last().unwrap();
        assert_eq!(
            (*verdict, &**said),
            (Verdict::Failure, "libnvidia-ml.so.1: in none of the 2 places")
        );
        let told = verdicts(vec![("/a", nothing())]);
        assert_eq!(told, [(Verdict::Failure, "/a: no such file".to_owned())]);
        let told = verdicts(vec![("/a", nothing()), ("/b", Tried::Refused("no NVML".to_owned()))]);
        assert_eq!(told.len(), 2);
        assert_eq!(told[1].0, Verdict::Failure);
    }
}
