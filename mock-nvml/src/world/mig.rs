//! Calls about partitioned GPUs and their parts.

use super::{Board, Part, Seat, World, handles::Held, state::State};
use crate::code::{Answer, Code};

/// The functions that take a MIG device for a GPU. The others do not support it.
const ON_MIG_DEVICES: &[&str] = &[
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetIndex",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetBrand",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetBAR1MemoryInfo",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses_v2",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses_v2",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    "nvmlDeviceGetRunningProcessDetailList",
    "nvmlDeviceIsMigDeviceHandle",
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceGetAttributes",
    "nvmlDeviceGetAttributes_v2",
];

/// The functions that a GPU does not support while MIG mode is on.
const NOT_ON_PARTITIONED: &[&str] = &[
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetEncoderUtilization",
    "nvmlDeviceGetDecoderUtilization",
    "nvmlDeviceGetJpgUtilization",
    "nvmlDeviceGetOfaUtilization",
    "nvmlDeviceGetProcessUtilization",
    "nvmlDeviceGetProcessesUtilizationInfo",
];

/// Whether a function that takes a device takes this one.
pub(super) fn allows(function: &str, board: &Board) -> Answer<()> {
    let fine = match board.seat() {
        Seat::Board => board.layout().is_none() || !NOT_ON_PARTITIONED.contains(&function),
        Seat::MigDevice(..) => ON_MIG_DEVICES.contains(&function),
        Seat::GpuInstance(_) | Seat::ComputeInstance(..) => return Err(Code::INVALID_ARGUMENT),
    };
    if fine { Ok(()) } else { Err(Code::NOT_SUPPORTED) }
}

impl World {
    /// A call with any handle. `read` runs without the lock, as it may be long.
    pub(crate) fn part<T>(
        &self,
        function: &str,
        handle: usize,
        read: impl FnOnce(&Board) -> Answer<T>,
    ) -> Answer<T> {
        let target = |state: &State| state.held(handle).map(|held| Some(held.gpu));
        read(&self.enter(function, target, |state, now| state.board(handle, now))?)
    }

    /// A call with any handle that gives handles of parts of the same GPU, and something with them.
    pub(crate) fn parts<T>(
        &self,
        function: &str,
        handle: usize,
        pick: impl FnOnce(&Board) -> Answer<(T, Vec<Part>)>,
    ) -> Answer<(T, Vec<usize>)> {
        let target = |state: &State| state.held(handle).map(|held| Some(held.gpu));
        self.enter(function, target, |state, now| {
            let (with, parts) = pick(&state.board(handle, now)?)?;
            let held = state.held(handle)?;
            let give = |part| state.handles.get(Held { part, ..held });
            Ok((with, parts.into_iter().map(give).collect()))
        })
    }

    /// The same for one part.
    pub(crate) fn one_part<T>(
        &self,
        function: &str,
        handle: usize,
        pick: impl FnOnce(&Board) -> Answer<(Part, T)>,
    ) -> Answer<(usize, T)> {
        let one = |board: &Board| pick(board).map(|(part, with)| (with, vec![part]));
        let (with, handles) = self.parts(function, handle, one)?;
        handles.first().map(|handle| (*handle, with)).ok_or(Code::UNKNOWN)
    }
}
