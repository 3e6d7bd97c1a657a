//! An error as data: what is wrong, and what to do about it.

use std::fmt::{self, Display};

/// What is wrong, and what the operator can do about it. The text is `message; remedy`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to do about it, if there is something to do.
    pub remedy: Option<String>,
}

impl Problem {
    /// A problem with a remedy.
    #[must_use]
    pub fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: Some(remedy.into()) }
    }

    /// A problem without a known remedy.
    #[must_use]
    pub fn without_remedy(message: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: None }
    }

    /// The same problem; the message begins with `location`, such as a flag or a file.
    #[must_use]
    pub fn at(self, location: impl Display) -> Self {
        Self { message: format!("{location}: {}", self.message), ..self }
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "; {remedy}"))
    }
}
