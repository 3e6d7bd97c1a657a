//! Resource claims of dynamic resource allocation (DRA).

/// A resource claim and its allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResourceClaim {
    pub(crate) name: String,
    /// The DRA driver.
    pub(crate) driver: String,
    pub(crate) devices: Vec<ClaimedDevice>,
    /// Whether it is an administrative access, which allocates nothing.
    pub(crate) admin: bool,
    /// Memory of its shares of the devices, MiB; 0 is no limit. `None` if the devices are whole.
    pub(crate) share_mib: Option<u32>,
    /// How its containers share the devices.
    pub(crate) sharing: Option<ClaimSharing>,
    /// Whether the scheduler made it for containers that request GPUs as an extended resource.
    pub(crate) extended: bool,
}

/// Configuration of NVIDIA's driver in a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimSharing {
    TimeSlicing,
    /// Percentage of the threads and MiB of memory that each client may use.
    Mps {
        threads: Option<u32>,
        mib: Option<u32>,
    },
}

/// A device of a resource claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimedDevice {
    /// Index of the GPU; `None` for a MIG device, or a device of another driver.
    pub(crate) gpu: Option<usize>,
    /// Device name in the pool of the DRA driver.
    pub(crate) name: String,
    /// Share id, if the claim has a share of the device.
    pub(crate) share: Option<String>,
}

/// How the DRA driver publishes its devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DraFormat {
    /// MIG devices are created for claims: the slices have no UUIDs of them.
    pub(crate) dynamic_mig: bool,
    /// The slices are for all nodes.
    pub(crate) all_nodes: bool,
}
