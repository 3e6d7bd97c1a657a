//! The NVML library: the paths that were tried, and the one that was loaded.

use std::path::{Path, PathBuf};

use super::{Finding, Topic};
use crate::model::DownReason;
use crate::nvml::{self, LibraryError, mapped_library};
use crate::sample::{DriverDown, DriverState};

/// The remedy if no library was found.
const INSTALL: &str = "install the NVIDIA driver on the node; in a pod let NVIDIA's container runtime mount \
     its library (runtimeClassName: nvidia and NVIDIA_VISIBLE_DEVICES=all), or mount the library and set \
     --nvml-library";

/// The remedy if a file cannot be loaded.
const SET_LIBRARY: &str = "set --nvml-library to the library of the driver";

/// The result of loading one path.
enum LoadResult {
    /// No library was found; the message of the loader.
    NotFound(String),
    /// Loaded; the file, if it is known.
    Loaded(Option<PathBuf>),
    /// Found, but not an NVML library, or it failed to initialize.
    Rejected { message: String, remedy: &'static str },
}

/// Findings about `paths`, one of which is loaded if the driver is up. `proc_root` shows whether a kernel
/// driver is loaded.
#[must_use]
pub fn findings(paths: &[PathBuf], driver: &DriverState, proc_root: &Path) -> Vec<Finding> {
    match driver {
        DriverState::Up(driver) => {
            let loaded = paths.iter().position(|path| path.display().to_string() == driver.library);
            let (before, _) = paths.split_at(loaded.unwrap_or_default());
            let file = mapped_library::mapped_file(Path::new(&driver.library));
            let path = PathBuf::from(&driver.library);
            let not_found = |path: &PathBuf| (path.clone(), LoadResult::NotFound(absence(path)));
            let results = before.iter().map(not_found).chain([(path, LoadResult::Loaded(file))]);
            load_findings(results.collect(), &driver.nvml_version)
        }
        DriverState::Down(_) if driver.no_gpu().is_some() => {
            let message = "not loaded: this node has no NVIDIA GPU";
            vec![Finding::skipped(Topic::Library, "libnvidia-ml.so.1", message)]
        }
        DriverState::Down(down) if down.lacks_library() => {
            load_findings(load_each(paths, proc_root), "")
        }
        DriverState::Down(down) => not_initialized(paths, down),
    }
}

/// No session, but a library may be loaded.
fn not_initialized(paths: &[PathBuf], down: &DriverDown) -> Vec<Finding> {
    let reason = down.reason();
    let loaded = match down {
        DriverDown::OpenFailed(LibraryError::Init { library, .. }) => Some(library.clone()),
        // A library that hangs is mapped.
        DriverDown::OpenFailed(_) | DriverDown::Closed { .. } => {
            paths.iter().find_map(|path| mapped_library::mapped_file(path))
        }
    };
    let Some(loaded) = loaded else {
        return paths.iter().map(|path| skipped(path, reason)).collect();
    };
    let before = paths.iter().take_while(|path| **path != loaded && paths.contains(&loaded));
    let absent = |path: &PathBuf| {
        Finding::skipped(Topic::Library, path.display().to_string(), absence(path))
    };
    let message = format!("loaded, but not initialized ({reason}): see driver below");
    let loaded = Finding::ok(Topic::Library, loaded.display().to_string(), message);
    before.map(absent).chain([loaded]).collect()
}

fn skipped(path: &Path, reason: DownReason) -> Finding {
    let message = format!("unknown whether it can be loaded: the driver is down ({reason})");
    Finding::skipped(Topic::Library, path.display().to_string(), message)
}

fn load_each(paths: &[PathBuf], proc_root: &Path) -> Vec<(PathBuf, LoadResult)> {
    let load = |(path, outcome): (PathBuf, Result<(), LibraryError>)| {
        let result = match outcome {
            Ok(()) => LoadResult::Loaded(mapped_library::mapped_file(&path)),
            Err(LibraryError::NotFound { detail, .. }) if has_directory(&path) && path.exists() => {
                let message = strip_path(&path, &detail);
                LoadResult::Rejected { message, remedy: SET_LIBRARY }
            }
            Err(LibraryError::NotFound { detail, .. }) => {
                LoadResult::NotFound(strip_path(&path, &detail))
            }
            Err(LibraryError::Refused { error, .. }) => {
                LoadResult::Rejected { message: error.to_string(), remedy: SET_LIBRARY }
            }
            Err(LibraryError::Init { error, remedy, .. }) => {
                LoadResult::Rejected { message: format!("nvmlInit_v2: {error}"), remedy }
            }
        };
        (path, result)
    };
    nvml::try_paths(paths, proc_root).into_iter().map(load).collect()
}

/// Removes the path at the start of an error of the loader: it is the subject of the finding already.
fn strip_path(path: &Path, detail: &str) -> String {
    let path = format!("{}: ", path.display());
    detail.strip_prefix(&path).unwrap_or(detail).to_owned()
}

fn has_directory(path: &Path) -> bool {
    path.parent().is_some_and(|parent| parent != Path::new(""))
}

/// Why a path that precedes the loaded one was not loaded.
fn absence(path: &Path) -> String {
    match (has_directory(path), path.exists()) {
        (false, _) => {
            "not in the search path of the loader (ld.so.cache, LD_LIBRARY_PATH)".to_owned()
        }
        (true, false) => "no such file".to_owned(),
        (true, true) => "the file exists, but was not loaded".to_owned(),
    }
}

/// One finding for each path. If several paths were tried and none has a library, one failure follows.
fn load_findings(results: Vec<(PathBuf, LoadResult)>, version: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut loaded, mut failure) = (false, None);
    let single = results.len() == 1;
    for (path, result) in results {
        let subject = path.display().to_string();
        findings.push(match result {
            LoadResult::Loaded(file) => {
                loaded = true;
                let file = file.filter(|file| *file != path);
                let from = file.map(|file| format!(" from {}", file.display()));
                let version =
                    if version.is_empty() { String::new() } else { format!("; NVML {version}") };
                let message = format!("loaded{}{version}", from.unwrap_or_default());
                Finding::ok(Topic::Library, subject, message)
            }
            LoadResult::NotFound(detail) if single => {
                failure = Some(());
                Finding::failure(Topic::Library, subject, detail).with_remedy(INSTALL)
            }
            LoadResult::NotFound(detail) => Finding::skipped(Topic::Library, subject, detail),
            LoadResult::Rejected { message, remedy } => {
                failure = Some(());
                Finding::failure(Topic::Library, subject, message).with_remedy(remedy)
            }
        });
    }
    if !loaded && failure.is_none() {
        let message = format!("not found in any of {} locations", findings.len());
        let none = Finding::failure(Topic::Library, "libnvidia-ml.so.1", message);
        findings.push(none.with_remedy(INSTALL));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::model::Problem;

    fn verdicts(results: Vec<(&str, LoadResult)>) -> Vec<(Outcome, String)> {
        let results = results.into_iter().map(|(path, result)| (path.into(), result)).collect();
        let findings = load_findings(results, "12.550.54.15").into_iter();
        findings.map(|f| (f.verdict, format!("{}: {}", f.subject, f.message))).collect()
    }

    fn not_found() -> LoadResult {
        LoadResult::NotFound("no such file".to_owned())
    }

    #[test]
    fn loaded_library_is_reported_with_its_file() {
        let file = Some("/b/libnvidia-ml.so.550".into());
        let results = vec![("/a", not_found()), ("/b/libnvidia-ml.so.1", LoadResult::Loaded(file))];
        assert_eq!(
            verdicts(results),
            [
                (Outcome::Skipped, "/a: no such file".to_owned()),
                (
                    Outcome::Ok,
                    "/b/libnvidia-ml.so.1: loaded from /b/libnvidia-ml.so.550; NVML 12.550.54.15"
                        .to_owned()
                ),
            ]
        );
    }

    #[test]
    fn library_that_fails_to_initialize_was_loaded() {
        let paths: Vec<PathBuf> = ["/a", "/b", "/c"].map(Into::into).to_vec();
        let found = |down| {
            let findings = not_initialized(&paths, &down).into_iter();
            findings.map(|f| (f.subject, f.verdict)).collect::<Vec<_>>()
        };
        assert_eq!(
            found(DriverDown::OpenFailed(LibraryError::Init {
                library: "/b".into(),
                error: "NVIDIA driver is not loaded".to_owned(),
                reason: DownReason::DriverNotLoaded,
                remedy: "load it",
            })),
            [("/a".to_owned(), Outcome::Skipped), ("/b".to_owned(), Outcome::Ok)]
        );
        let problem = Problem::without_remedy("no response");
        let unknown = found(DriverDown::Closed { reason: DownReason::Hung, problem });
        assert!(unknown.len() == 3 && unknown.iter().all(|(_, v)| *v == Outcome::Skipped));
    }

    #[test]
    fn missing_library_is_one_failure() {
        let found = verdicts(vec![("/a", not_found()), ("/b", not_found())]);
        assert_eq!(found.len(), 3);
        let (verdict, message) = found.last().unwrap();
        assert_eq!(
            (*verdict, &**message),
            (Outcome::Failure, "libnvidia-ml.so.1: not found in any of 2 locations")
        );
        let found = verdicts(vec![("/a", not_found())]);
        assert_eq!(found, [(Outcome::Failure, "/a: no such file".to_owned())]);
        let rejected = LoadResult::Rejected { message: "no NVML".to_owned(), remedy: SET_LIBRARY };
        let found = verdicts(vec![("/a", not_found()), ("/b", rejected)]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].0, Outcome::Failure);
    }
}
