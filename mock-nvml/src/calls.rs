//! Which functions were called, and how often: for those who want to know what a client costs.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The variable that names the file to write the counts to.
const VARIABLE: &str = "MOCK_NVML_CALLS";

/// Counts of calls, if anybody wants them.
#[derive(Debug)]
pub(crate) struct Calls(Option<Counted>);

#[derive(Debug)]
struct Counted {
    file: PathBuf,
    counts: Mutex<BTreeMap<String, u64>>,
}

impl Calls {
    /// None so far; counted if the environment names a file.
    pub(crate) fn of_environment() -> Self {
        Self::to(env::var_os(VARIABLE).map(PathBuf::from))
    }

    fn to(file: Option<PathBuf>) -> Self {
        Self(file.map(|file| Counted { file, counts: Mutex::default() }))
    }

    /// Counts a call.
    pub(crate) fn count(&self, function: &str) {
        let Some(Counted { counts, .. }) = &self.0 else { return };
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(function) {
            Some(count) => *count += 1,
            None => drop(counts.insert(function.to_owned(), 1)),
        }
    }

    /// Writes a line `COUNT FUNCTION` for each function. A file that cannot be written stays away: the
    /// client is served all the same.
    pub(crate) fn write(&self) {
        let Some(Counted { file, counts }) = &self.0 else { return };
        let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |(function, count): (&String, &u64)| format!("{count} {function}\n");
        let _ = replace(file, &counts.iter().map(line).collect::<String>());
    }
}

/// A reader sees the old text or the new one.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let draft = file.with_extension("draft");
    fs::write(&draft, text)?;
    fs::rename(draft, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_function_if_anybody_wants_to_know() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("calls");
        let calls = Calls::to(Some(file.clone()));
        for function in ["nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlInit_v2"] {
            calls.count(function);
        }
        calls.write();
        let told = fs::read_to_string(&file).unwrap();
        assert_eq!(told, "1 nvmlDeviceGetCount_v2\n2 nvmlInit_v2\n");
        calls.count("nvmlInit_v2");
        calls.write();
        assert!(fs::read_to_string(&file).unwrap().contains("3 nvmlInit_v2"));

        let unwanted = Calls::to(None);
        unwanted.count("nvmlInit_v2");
        unwanted.write();
    }
}
