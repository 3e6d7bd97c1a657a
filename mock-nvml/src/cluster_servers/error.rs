//! Why the cluster is not served.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the cluster is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// I/O error of a file or a Unix socket.
    #[error("cluster: cannot access {path}: {error}; {remedy}", path = .path.display(), remedy = remedy(.path))]
    File { path: PathBuf, error: io::Error },
    /// No TCP port.
    #[error("cluster: the API server cannot listen on 127.0.0.1: {0}")]
    Port(io::Error),
    /// No thread, or no async runtime on it.
    #[error("cluster: the server thread cannot start: {0}")]
    Thread(io::Error),
    /// A panic on the server thread.
    #[error("cluster: the servers have stopped: the mock library panicked, which is a bug in it")]
    Panic,
}

/// The path of a Unix socket has at most 107 bytes.
fn remedy(path: &Path) -> &'static str {
    if path.as_os_str().len() < 108 {
        "make its directory writable"
    } else {
        "create the mock environment in a directory with a shorter path"
    }
}

pub(super) fn file_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::File { path, error }
}
