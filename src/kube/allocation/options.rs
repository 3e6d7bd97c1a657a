//! What the configuration states of allocations.

use std::sync::Arc;

/// What the configuration states of allocations.
#[derive(Clone, Debug)]
pub struct AllocationOptions {
    /// Unit of `aliyun.com/gpu-mem`.
    pub memory_unit: MemoryUnit,
    /// Namespaces of the pods that reserve GPUs for GPU groups. Who may create pods there can
    /// reserve a GPU for any group.
    pub reservation_namespaces: Arc<[Box<str>]>,
}

impl Default for AllocationOptions {
    fn default() -> Self {
        let namespaces = RESERVATION_NAMESPACES.split(',').map(Box::from);
        Self { memory_unit: MemoryUnit::Auto, reservation_namespaces: namespaces.collect() }
    }
}

impl AllocationOptions {
    /// Whether pods of this namespace may reserve GPUs.
    #[must_use]
    pub fn is_reservation_namespace(&self, namespace: &str) -> bool {
        self.reservation_namespaces.iter().any(|reserved| **reserved == *namespace)
    }
}

/// The namespaces of KAI Scheduler, and of Run:ai and KAI Scheduler before 0.6.
pub const RESERVATION_NAMESPACES: &str = "kai-resource-reservation,runai-reservation";

/// Unit of `aliyun.com/gpu-mem`, for when neither annotations nor device ids contain the number of
/// units of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryUnit {
    /// GiB, or MiB if more units are allocated than the GPU has GiB.
    #[default]
    Auto,
    /// GiB.
    Gib,
    /// MiB.
    Mib,
}
