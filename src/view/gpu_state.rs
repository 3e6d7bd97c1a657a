//! State of a GPU in the view of the node.

use serde::{Deserialize, Serialize};

/// Whether a GPU can be read. In JSON a text: `ok`, or the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum GpuState {
    /// It can be read.
    Ok,
    /// It cannot be read, with the reason, such as `lost` or `hung`.
    Unreadable(String),
}

const OK: &str = "ok";

impl From<String> for GpuState {
    fn from(text: String) -> Self {
        if text == OK { Self::Ok } else { Self::Unreadable(text) }
    }
}

impl From<GpuState> for String {
    fn from(state: GpuState) -> Self {
        match state {
            GpuState::Ok => OK.to_owned(),
            GpuState::Unreadable(reason) => reason,
        }
    }
}
