//! What happened on a device in one cycle, for whoever reckons it up over many.

use std::sync::Arc;
use std::time::Duration;

use super::owner::{Holder, Owner};
use crate::labels::Labels;
use crate::model::{Missing, ProcessId, Reading, Usage};
use crate::sample::ring::Watched;

/// One cycle of a GPU, or of a MIG device, whose processes are listed.
#[derive(Clone, Debug)]
pub struct Activity {
    /// UUID of the device.
    pub device: Arc<str>,
    /// When it was asked (monotonic).
    pub at: Duration,
    /// The time that shares are means over, and the share of those who are not listed.
    pub watched: Result<Watched, Missing>,
    /// Energy since the driver was loaded, joules; of whole GPUs only.
    pub energy: Reading,
    /// Whether nobody can have been on the device but those who are told of.
    pub complete: bool,
    /// The processes.
    pub processes: Vec<ProcessActivity>,
    /// The containers that hold the device, or have a process on it.
    pub containers: Vec<ContainerActivity>,
    /// The labels of what is told of the device by who did it.
    pub doers: Vec<(Doer, Labels)>,
}

/// What a process did.
#[derive(Clone, Debug)]
pub struct ProcessActivity {
    /// Which one.
    pub id: ProcessId,
    /// Whose it is.
    pub owner: Owner,
    /// What it uses.
    pub usage: Usage,
    /// Labels of its series; none where it has no series of its own.
    pub labels: Option<Labels>,
}

/// What all processes of a container did.
#[derive(Clone, Debug)]
pub struct ContainerActivity {
    /// Which one.
    pub holder: Holder,
    /// What it uses.
    pub usage: Usage,
    /// Labels of its series.
    pub labels: Labels,
}

/// Who used a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doer {
    /// Containers of pods.
    Container,
    /// Whoever is no container of a pod.
    Host,
    /// Nobody.
    Nobody,
    /// Somebody, or nobody: that is not known.
    Unknown,
}

impl Doer {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Container, Self::Host, Self::Nobody, Self::Unknown];

    /// The fixed label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Host => "host",
            Self::Nobody => "nobody",
            Self::Unknown => "unknown",
        }
    }
}

impl From<&Owner> for Doer {
    fn from(owner: &Owner) -> Self {
        match owner {
            Owner::Container(_) => Self::Container,
            Owner::Host | Owner::Stray => Self::Host,
            Owner::Unknown(_) => Self::Unknown,
        }
    }
}
