//! Why a request to a source failed.
//!
//! The text of an error may come from a server. It is cleaned here, so that whatever logs an error
//! writes one line of limited length.

use std::error::Error;

use hyper_util::client::legacy;

use super::source::FailureReason;
use crate::model::Problem;
use crate::sanitize::truncate_for_log;

/// Longest message of a [`RequestError`], in characters.
const MESSAGE_MAX: usize = 1000;
/// Longest part of it that is the message of a server, in characters.
const SERVER_MESSAGE_MAX: usize = 300;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct RequestError {
    /// Reason, of a fixed set.
    pub reason: FailureReason,
    /// HTTP status, if the server sent one.
    pub status: Option<u16>,
    /// What is wrong, and what to do about it if the configuration is the cause.
    pub problem: Problem,
}

impl RequestError {
    /// An error without an HTTP status. `message` may contain text of the server.
    #[must_use]
    pub fn new(failure: FailureReason, message: impl AsRef<str>) -> Self {
        let message = truncate_for_log(message.as_ref(), MESSAGE_MAX);
        Self { reason: failure, status: None, problem: Problem::without_remedy(message) }
    }

    /// The HTTP status `status` of a server, with the server's `message`. `event` is what happened,
    /// such as `/version: HTTP status`.
    pub(super) fn of_status(event: &str, status: u16, message: &str) -> Self {
        let message = truncate_for_log(message, SERVER_MESSAGE_MAX);
        let failure = FailureReason::from_status(status);
        Self { status: Some(status), ..Self::new(failure, format!("{event} {status}: {message}")) }
    }

    /// An `ERROR` event, with which a server ends a watch.
    pub(super) fn of_error_event(status: u16, message: &str) -> Self {
        Self::of_status("the server ended the watch with status", status, message)
    }

    /// A configuration that cannot be used.
    pub(super) fn config(message: impl AsRef<str>, remedy: impl Into<String>) -> Self {
        let mut error = Self::new(FailureReason::Config, message);
        error.problem.remedy = Some(remedy.into());
        error
    }
}

/// The texts of an error's causes, outermost first. The wrappers of the client libraries are left
/// out: their texts are names of Rust types.
pub(super) fn causes(error: &kube::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        let repeated = texts.iter().any(|known| known.contains(&text));
        if !error.is::<legacy::Error>() && !repeated {
            texts.push(text);
        }
        cause = error.source();
    }
    if texts.is_empty() { error.to_string() } else { texts.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_server_is_one_short_line() {
        let text = "\u{1b}[31mdenied\r\n".repeat(100_000);
        for error in [
            RequestError::new(FailureReason::Refused, &text),
            RequestError::of_status("/pods: HTTP status", 403, &text),
            RequestError::of_error_event(500, &text),
            RequestError::config(&text, "use a file that kubectl accepts"),
        ] {
            let logged = error.to_string();
            assert!(logged.contains("\u{fffd}[31mdenied\u{fffd}\u{fffd}"), "{logged}");
            assert!(!logged.contains(char::is_control), "{logged}");
            assert!(logged.chars().count() < MESSAGE_MAX + 100, "{}", logged.len());
        }
    }

    #[test]
    fn status_has_a_reason_and_the_message_of_the_server() {
        let error = RequestError::of_status("/pods: HTTP status", 429, "later");
        assert_eq!((error.reason, error.status), (FailureReason::Throttled, Some(429)));
        assert_eq!(error.to_string(), "/pods: HTTP status 429: later");
    }
}
