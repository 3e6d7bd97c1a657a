//! The listening sockets.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};

use crate::model::Problem;

/// Binds the first of the addresses that can be bound.
///
/// # Errors
/// None of them can be bound.
pub fn listen(addresses: &[SocketAddr]) -> Result<TcpListener, Problem> {
    TcpListener::bind(addresses)
        .and_then(nonblocking)
        .map_err(|error| bind_problem(&error).at(subject(addresses)))
}

/// The flag with its addresses, as errors name it.
#[must_use]
pub fn subject(addresses: &[SocketAddr]) -> String {
    let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!("--address {}", all.join(", "))
}

fn nonblocking(listener: TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Reason and remedy of errors of `bind(2)`.
const BIND_ERRORS: [(ErrorKind, &str, &str); 3] = [
    (
        ErrorKind::AddrInUse,
        "another program listens on this port",
        "stop it, or give another --address",
    ),
    (
        ErrorKind::PermissionDenied,
        "a port below 1024 needs the capability CAP_NET_BIND_SERVICE",
        "add it, or give a higher port",
    ),
    (
        ErrorKind::AddrNotAvailable,
        "the address is not one of this host",
        "give an address of a local interface, or :PORT for all",
    ),
];

/// Why an address cannot be bound.
#[must_use]
pub fn bind_problem(error: &io::Error) -> Problem {
    match BIND_ERRORS.iter().find(|(kind, ..)| *kind == error.kind()) {
        Some((_, reason, remedy)) => Problem::new(format!("cannot listen: {reason}"), *remedy),
        None => Problem::new(format!("cannot listen: {error}"), "give another --address"),
    }
}

/// The listening sockets that systemd passes.
///
/// # Errors
/// There is none, or one is not a listening TCP socket.
pub fn systemd_listeners() -> Result<Vec<TcpListener>, Problem> {
    let unusable = |reason: String| {
        let message = format!("--web-systemd-socket: {reason}");
        Problem::new(message, "set each ListenStream= of the socket unit to a port")
    };
    let mut passed = listenfd::ListenFd::from_env();
    let count = passed.len();
    let mut take = |index: usize| {
        let listener = passed.take_tcp_listener(index);
        let listener = listener.and_then(|listener| listener.map(nonblocking).transpose());
        listener.map_err(|error| {
            unusable(format!("socket {} of the unit cannot be used ({error})", index + 1))
        })
    };
    let listeners: Vec<_> =
        (0..count).filter_map(|index| take(index).transpose()).collect::<Result<_, _>>()?;
    if listeners.is_empty() {
        return Err(unusable("systemd passed no listening TCP socket".to_owned()));
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bind_errors_name_their_reason() {
        for (kind, expected) in [
            (ErrorKind::AddrInUse, "another program listens"),
            (ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
            (ErrorKind::AddrNotAvailable, "not one of this host"),
            (ErrorKind::OutOfMemory, "out of memory; give another --address"),
        ] {
            let text = bind_problem(&kind.into()).to_string();
            assert!(text.starts_with("cannot listen: ") && text.contains(expected), "{text}");
        }
    }
}
