//! Which jobs of a batch system run on which GPU: a directory with a file for each GPU (`<index>`) or
//! GPU instance (`<index>.<instance id>`), one job a line.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest file that is read, in bytes.
const FILE_MAX: u64 = 64 << 10;
/// Jobs that are told of one device.
const JOBS_MAX: usize = 64;

/// Jobs by GPU index and, on a GPU with MIG on, the id of the GPU instance.
pub type Jobs = BTreeMap<(u32, Option<u32>), Vec<Arc<str>>>;

/// A directory of jobs, and what it said last.
#[derive(Debug)]
pub struct JobDirectory {
    path: PathBuf,
    jobs: Jobs,
    in_trouble: bool,
}

impl JobDirectory {
    /// A directory that has not been read yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, jobs: Jobs::new(), in_trouble: false }
    }

    /// The jobs as of now; none while it cannot be read.
    pub fn read(&mut self) -> &Jobs {
        match read(&self.path) {
            Ok(jobs) => {
                if std::mem::take(&mut self.in_trouble) {
                    tracing::info!(path = %self.path.display(), "jobs can be read again");
                }
                self.jobs = jobs;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.in_trouble, true) {
                    tracing::warn!("{error}; no series names a job");
                }
                self.jobs.clear();
            }
        }
        &self.jobs
    }

    /// Whether it could be read.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.in_trouble
    }
}

/// Why a job mapping cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("--hpc-job-mapping-dir: {path}: {error}", path = path.display())]
pub struct JobsError {
    path: PathBuf,
    error: io::Error,
}

/// Reads every file of `directory` whose name is that of a device. A file that goes away meanwhile
/// belongs to a job that has ended.
///
/// # Errors
/// The directory or one of its files cannot be read.
pub fn read(directory: &Path) -> Result<Jobs, JobsError> {
    let failed = |path: &Path, error| JobsError { path: path.to_owned(), error };
    let mut jobs = Jobs::new();
    for entry in fs::read_dir(directory).map_err(|error| failed(directory, error))? {
        let entry = entry.map_err(|error| failed(directory, error))?;
        let Some(device) = entry.file_name().to_str().and_then(device) else { continue };
        match read_file(&entry.path()) {
            Ok(text) => {
                let found = parse(&text);
                if !found.is_empty() {
                    jobs.insert(device, found);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&entry.path(), error)),
        }
    }
    Ok(jobs)
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The device that a file is named after.
fn device(name: &str) -> Option<(u32, Option<u32>)> {
    match name.split_once('.') {
        Some((gpu, instance)) => Some((number(gpu)?, Some(number(instance)?))),
        None => Some((number(name)?, None)),
    }
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|n: &u32| n.to_string() == text)
}

/// The jobs of one file: each once, or two series would be the same.
fn parse(text: &str) -> Vec<Arc<str>> {
    let mut jobs: Vec<Arc<str>> = Vec::new();
    for job in text.lines().map(str::trim).filter(|job| !job.is_empty()) {
        if jobs.len() < JOBS_MAX && !jobs.iter().any(|known| **known == *job) {
            jobs.push(job.into());
        }
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_maps_devices_to_jobs() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("0", "job-1\njob-2\n job-1 \n\n"),
            ("1.3", "job-3"),
            ("2", "\n"),
            ("01", "x"),
            ("a", "x"),
        ] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let jobs = read(directory.path()).unwrap();
        let expected: Jobs = [
            ((0, None), vec!["job-1".into(), "job-2".into()]),
            ((1, Some(3)), vec!["job-3".into()]),
        ]
        .into();
        assert_eq!(jobs, expected);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("0")).unwrap();
        let error = read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("/0: Is a directory"), "{error}");
        let error = read(Path::new("/no/such")).unwrap_err().to_string();
        assert!(error.starts_with("--hpc-job-mapping-dir: /no/such: No such file"), "{error}");
    }
}
