//! Counts NVML calls by function, to measure the cost of a client.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The environment variable with the path of the file of counts.
const VARIABLE: &str = "MOCK_NVML_CALLS";

/// Counts of calls; `None` if counting is disabled.
#[derive(Debug)]
pub(crate) struct CallCounter(Option<CallCounts>);

#[derive(Debug)]
struct CallCounts {
    file: PathBuf,
    by_function: Mutex<BTreeMap<String, u64>>,
}

impl CallCounter {
    /// Counting is enabled if the environment variable is set.
    pub(crate) fn from_env() -> Self {
        Self::to_file(env::var_os(VARIABLE).map(PathBuf::from))
    }

    fn to_file(file: Option<PathBuf>) -> Self {
        Self(file.map(|file| CallCounts { file, by_function: Mutex::default() }))
    }

    pub(crate) fn count(&self, function: &str) {
        let Some(CallCounts { by_function, .. }) = &self.0 else { return };
        let mut counts = by_function.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(function) {
            Some(count) => *count += 1,
            None => drop(counts.insert(function.to_owned(), 1)),
        }
    }

    /// Writes a line `COUNT FUNCTION` for each function. A failure to write is ignored: it must not
    /// affect the client.
    pub(crate) fn write(&self) {
        let Some(CallCounts { file, by_function }) = &self.0 else { return };
        let counts = by_function.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |(function, count): (&String, &u64)| format!("{count} {function}\n");
        let _ = replace(file, &counts.iter().map(line).collect::<String>());
    }
}

/// Replaces the file atomically.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let draft = file.with_extension("draft");
    fs::write(&draft, text)?;
    fs::rename(draft, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_function_if_enabled() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("calls");
        let calls = CallCounter::to_file(Some(file.clone()));
        for function in ["nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlInit_v2"] {
            calls.count(function);
        }
        calls.write();
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, "1 nvmlDeviceGetCount_v2\n2 nvmlInit_v2\n");
        calls.count("nvmlInit_v2");
        calls.write();
        assert!(fs::read_to_string(&file).unwrap().contains("3 nvmlInit_v2"));

        let disabled = CallCounter::to_file(None);
        disabled.count("nvmlInit_v2");
        disabled.write();
    }
}
