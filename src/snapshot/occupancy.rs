//! Who is on a GPU and what it was given to, beside the series that are made of that: for people.

use std::sync::Arc;

use crate::model::{
    AllocateMode, Grant, Limits, MigDevice, Missing, PodRef, ProcessKind, Reading, Usage,
};
use crate::nvml::raw::memory::Memory;

/// A GPU, or what it is divided into.
#[derive(Clone, Debug)]
pub struct Occupancy {
    /// What its readings are measured by.
    pub limits: Limits,
    /// Why it could not be found out what it is divided into.
    pub division: Result<(), Missing>,
    /// Itself, or its MIG devices while MIG is on.
    pub parts: Vec<Part>,
}

/// A GPU as a whole, or a MIG device.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which MIG device; none for a GPU as a whole.
    pub mig: Option<Arc<MigDevice>>,
    /// Its framebuffer.
    pub framebuffer: Result<Memory, Missing>,
    /// Its readings, one per family of the instance slice; none where another MIG device of the same
    /// GPU instance has them.
    pub readings: Vec<Reading>,
    /// Containers that it was given to, or that use it all the same.
    pub tenants: Vec<Tenant>,
    /// Everybody who is listed on it.
    ///
    /// # Errors
    /// Why nobody knows.
    pub residents: Result<Vec<Resident>, Missing>,
}

/// A container on a part.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Which one.
    pub container: ContainerRef,
    /// How it was given the part; none, where it uses it all the same.
    pub mode: AllocateMode,
    /// What it was given.
    pub grant: Option<Grant>,
    /// What all of its processes use.
    pub usage: Usage,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerRef {
    /// The pod.
    pub pod: PodRef,
    /// The container's name.
    pub name: Arc<str>,
}

/// Something that the driver lists on a part.
#[derive(Clone, Debug)]
pub struct Resident {
    /// Which process; none for what is no process any more.
    pub process: Option<Listed>,
    /// Whose it is.
    pub whose: Whose,
    /// What it uses.
    pub usage: Usage,
}

/// A process that the driver lists.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: Arc<str>,
    /// How it uses the part.
    pub kind: ProcessKind,
}

/// Whose a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A container's of a pod.
    Container(ContainerRef),
    /// The host's.
    Host,
    /// A container's that belongs to no pod.
    Stray,
    /// That is not known, and why not.
    Unknown(&'static str),
}

impl Whose {
    /// The container, if it is a pod's.
    #[must_use]
    pub fn container(&self) -> Option<&ContainerRef> {
        match self {
            Self::Container(container) => Some(container),
            Self::Host | Self::Stray | Self::Unknown(_) => None,
        }
    }
}
