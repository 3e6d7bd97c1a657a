//! A `libnvidia-ml` that simulates a node of NVIDIA GPUs.
//!
//! A client loads it like the real library. The state of the simulated node is a function of a
//! scenario and of time. A module imports only modules of the same or an earlier item:
//!
//! - [`clock`] is the only module that reads clocks. [`numeric`] converts numbers, [`stderr`] prints
//!   errors, [`return_code`] has NVML's return codes.
//! - [`exported_functions`] lists the exported symbols, [`driver_branches`] those that older drivers
//!   lack, [`field_ids`] the fields that they have. [`call_counter`] counts NVML calls.
//! - [`recording`] is what a driver returned, to be played in place of a node's GPUs.
//! - [`scenario`] is the node and its timeline, with time windows ([`window`]), GPU [`models`], load
//!   curves ([`curve`]) and injected faults ([`fault`]).
//! - [`cluster`] has the kubelet, the API server and the pods of the node as functions of time.
//! - [`scenario_file`] parses and validates the TOML description of a scenario.
//! - [`environment_dir`] is the directory of a mock environment, [`procfs`] the proc tree in it.
//! - [`world`] is the simulated node: session, devices, samples and events.
//! - [`cluster_servers`] serves the cluster.
//! - [`environment`] sets up a mock environment: a directory with the library and a proc tree.
//! - [`abi`] is NVML's C ABI: it decodes, calls the world and encodes. Only it is unsafe.

mod abi;
mod call_counter;
mod cgroup_tree;
mod clock;
mod cluster;
mod cluster_servers;
mod curve;
mod driver_branches;
mod environment;
mod environment_dir;
mod exported_functions;
mod fault;
mod field_ids;
mod models;
mod numeric;
mod procfs;
mod recording;
mod return_code;
mod scenario;
mod scenario_file;
mod stderr;
mod sysfs;
mod window;
mod world;

/// The kubelet's `PodResources` service, for tests with responses that no scenario has.
pub mod pod_resources {
    pub use crate::{
        cluster::kubelet::{
            GrpcStatus,
            messages::{
                AllocatableResponse, ClaimResource, ContainerDevices, ContainerResources,
                DynamicResource, ListResponse, NumaNode, PodResources, TopologyInfo,
            },
        },
        cluster_servers::grpc::serve_connection,
    };
}

/// What is compared with NVIDIA's headers.
pub mod header {
    pub use crate::{
        abi::newer::{FabricClique, FabricInfo, MemoryLimits, UnrepairableMemoryStatus},
        field_ids::canonical,
    };
    use crate::{driver_branches::missing_symbols, exported_functions::FUNCTIONS};

    /// The exported functions, and whether a driver of this branch has each.
    pub fn functions(branch: u32) -> impl Iterator<Item = (&'static str, bool)> {
        let missing: Vec<&str> = missing_symbols(branch, FUNCTIONS).collect();
        FUNCTIONS.iter().map(move |name| (*name, !missing.contains(name)))
    }
}

/// Validates the text of a scenario. `name` seeds the UUIDs and serial numbers of its GPUs.
///
/// # Errors
/// A message with the line, the first error in it and how to correct it.
pub fn check(name: &str, text: &str) -> Result<(), String> {
    scenario::Scenario::parse(name, text).map(drop).map_err(|error| error.to_string())
}
