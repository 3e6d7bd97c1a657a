//! HPC job mapping files, which list the jobs of a GPU.

use std::fs;

use nvml_exporter::host::hpc_jobs::read;
use tempfile::TempDir;

/// At most 64 jobs, without duplicates, each trimmed and contained in the file.
pub(crate) fn check(bytes: &[u8]) {
    thread_local! {
        // In memory where possible: disk writes would dominate the run time.
        static DIRECTORY: TempDir =
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    }
    DIRECTORY.with(|directory| {
        fs::write(directory.path().join("0"), bytes).unwrap();
        let jobs = read(directory.path()).unwrap();
        let jobs = jobs.get(&(0, None)).cloned().unwrap_or_default();
        assert!(jobs.len() <= 64);
        let text = String::from_utf8_lossy(bytes);
        for (n, job) in jobs.iter().enumerate() {
            assert!(!job.is_empty() && **job == *job.trim());
            assert!(text.contains(&**job));
            assert!(!jobs.iter().take(n).any(|other| other == job), "{job:?} is duplicated");
        }
    });
}
