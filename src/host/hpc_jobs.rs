//! Maps GPUs to jobs of a batch system: a directory with one file per GPU (`<index>`) or GPU
//! instance (`<index>.<instance id>`), one job id per line (DCGM's job mapping format).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::file_reader::FileReader;

/// Maximum number of bytes read of one file.
const FILE_MAX: u64 = 64 << 10;
/// Maximum number of jobs of one device.
const JOBS_MAX: usize = 64;

/// Jobs by GPU index and, if MIG is enabled, GPU instance id.
pub type Jobs = BTreeMap<(u32, Option<u32>), Vec<Arc<str>>>;

/// A job mapping directory and the jobs of its last read.
pub struct JobDirectory {
    reader: FileReader<Result<Jobs, JobsError>>,
    path: PathBuf,
    unreadable: bool,
}

impl JobDirectory {
    /// Starts the thread that reads `path`.
    ///
    /// # Errors
    /// Returns the OS error if the thread cannot be created.
    pub fn start(path: PathBuf) -> io::Result<Self> {
        let subject = format!("--hpc-job-mapping-dir: {}", path.display());
        let directory = path.clone();
        let reader = FileReader::start("jobs", subject, move || read(&directory))?;
        Ok(Self { reader, path, unreadable: false })
    }

    /// Reads the directory at `now` (monotonic) and returns its jobs; none if it cannot be read, and the
    /// last ones while the file system does not respond.
    pub fn read(&mut self, now: Duration) -> Jobs {
        match self.reader.read(now) {
            Some(Ok(jobs)) => {
                if std::mem::take(&mut self.unreadable) {
                    tracing::info!(path = %self.path.display(), "job mapping is readable again");
                }
                jobs.clone()
            }
            Some(Err(error)) => {
                if !std::mem::replace(&mut self.unreadable, true) {
                    tracing::warn!("{error}; until then no series has a job label");
                }
                Jobs::new()
            }
            None => Jobs::new(),
        }
    }

    /// Whether the directory is readable and its file system responds.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.unreadable && !self.reader.is_hung()
    }

    /// Age of the last read at `now` (monotonic); `None` before the first.
    #[must_use]
    pub fn age(&self, now: Duration) -> Option<Duration> {
        self.reader.age(now)
    }
}

/// A job mapping directory, or a file in it, that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "--hpc-job-mapping-dir: {path}: {error}; give a readable directory with one file per GPU",
    path = path.display()
)]
pub struct JobsError {
    path: PathBuf,
    error: io::Error,
}

/// Reads all files of `directory` that are named after a device. A file that is removed during the
/// read belongs to a job that has ended, and is skipped.
///
/// # Errors
/// Returns the path and the OS error if the directory or one of its files cannot be read.
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

/// Parses the device (GPU index, GPU instance id) from a file name.
fn device(name: &str) -> Option<(u32, Option<u32>)> {
    match name.split_once('.') {
        Some((gpu, instance)) => Some((number(gpu)?, Some(number(instance)?))),
        None => Some((number(name)?, None)),
    }
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|n: &u32| n.to_string() == text)
}

/// Parses the jobs of one file, without duplicates: those would become duplicate series.
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
    fn directory_maps_devices_to_jobs() {
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
    fn error_contains_the_unreadable_path() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("0")).unwrap();
        let error = read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("/0: Is a directory"), "{error}");
        let error = read(Path::new("/no/such")).unwrap_err().to_string();
        assert!(error.starts_with("--hpc-job-mapping-dir: /no/such: No such file"), "{error}");
    }
}
