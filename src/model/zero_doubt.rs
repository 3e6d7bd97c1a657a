//! Reasons why an idle container has no 0.

/// Why an idle container has no 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ZeroDoubt {
    /// The process list of the device cannot be read.
    NoProcessList,
    /// The driver hides processes from the exporter's PID namespace.
    HiddenProcesses,
    /// A process on the device has an unknown owner.
    UnresolvedProcess,
    /// The device is busy, and no listed process accounts for it.
    UnlistedUtilization,
    /// Framebuffer of the device is in use, and no listed process accounts for it.
    UnlistedFramebuffer,
    /// An MPS server works on the device, and its clients are not listed.
    MpsClients,
    /// The pod may no longer exist.
    UnconfirmedPod,
    /// The container is not running, or an init container of its pod is.
    NotRunning,
    /// The process list is older than the allocation or the start of the container.
    StaleProcessList,
    /// The container has a process on a device that it was not allocated.
    OtherDevice,
}

impl ZeroDoubt {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::NoProcessList,
        Self::HiddenProcesses,
        Self::UnresolvedProcess,
        Self::UnlistedUtilization,
        Self::UnlistedFramebuffer,
        Self::MpsClients,
        Self::UnconfirmedPod,
        Self::NotRunning,
        Self::StaleProcessList,
        Self::OtherDevice,
    ];

    /// Value of the `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoProcessList => "no_process_list",
            Self::HiddenProcesses => "hidden_processes",
            Self::UnresolvedProcess => "unresolved_process",
            Self::UnlistedUtilization => "unlisted_utilization",
            Self::UnlistedFramebuffer => "unlisted_framebuffer",
            Self::MpsClients => "mps_clients",
            Self::UnconfirmedPod => "unconfirmed_pod",
            Self::NotRunning => "not_running",
            Self::StaleProcessList => "stale_process_list",
            Self::OtherDevice => "other_device",
        }
    }
}
