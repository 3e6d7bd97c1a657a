//! The driver's account of the memory of a container.

use std::sync::Arc;

use super::{CgroupLocation, Missing};

/// What the driver accounts to the cgroup of a container on a GPU, beside its process list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryAccount {
    /// Location of the container in the cgroup hierarchy.
    pub location: Arc<CgroupLocation>,
    /// Framebuffer that the container can use at most, bytes; `None` without a limit. An error if there was one
    /// and it cannot be read now.
    pub hard_limit: Result<Option<u64>, Missing>,
    /// Framebuffer that it uses, bytes.
    pub charged: Result<u64, Missing>,
}
