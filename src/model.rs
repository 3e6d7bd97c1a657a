//! Shared data types: readings, devices, processes, pods and allocations.

mod allocation;
mod cgroup_location;
mod claim;
mod container;
mod discard;
mod down_reason;
mod events;
mod gpu;
mod health;
mod health_status;
mod memory_account;
mod moment;
mod owner;
mod problem;
mod process;
mod reading;
mod recovery_action;
mod zero_doubt;

pub use allocation::{AllocateMode, AllocatedFraction, ContainerAllocation, DeviceAllocation};
pub use cgroup_location::{CgroupLocation, ContainerId, PodPath, PodUid};
pub use claim::{Claim, NO_CLAIM};
pub use container::{ContainerIdentity, PodRef};
pub use discard::{Discard, Discards};
pub use down_reason::DownReason;
pub use events::{ALWAYS_REPORTED, CLOCK_EVENTS, ClockEventCounts, Windows, XidState};
pub use gpu::{Gpu, Limits, MigDevice, MigPlacement, NodeSample};
pub use health::{FabricHealth, HealthCounters, HealthSample, HealthState, LinkFields, LinkStates};
pub use health_status::HealthStatus;
pub use memory_account::MemoryAccount;
pub use moment::{Moment, micros};
pub use owner::{Owner, OwnerClass, OwnerEvidence, OwnerKind, Unresolved};
pub use problem::Problem;
pub use process::{
    DeviceProcesses, EngineUtilization, ProcessId, ProcessKind, ProcessSample, StaleProcessEntry,
    Usage,
};
pub use reading::{Missing, Reading};
pub use recovery_action::RecoveryAction;
pub use zero_doubt::ZeroDoubt;
