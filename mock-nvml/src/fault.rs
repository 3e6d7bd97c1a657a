//! Injected faults: NVML calls that fail, hang, are delayed, return invalid values or no rows.

use std::{cell::Cell, time::Duration};

use crate::{return_code::ReturnCode, window::Window};

/// One fault of a scenario.
#[derive(Clone, Debug)]
pub(crate) struct InjectedFault {
    /// The NVML function; `None` for every function that takes a device.
    pub(crate) function: Option<&'static str>,
    /// The index of the GPU; `None` for all.
    pub(crate) gpu: Option<usize>,
    /// The field id of `nvmlDeviceGetFieldValues`: the fault is in the field's own return code.
    pub(crate) field: Option<u32>,
    /// When it is in effect, in world time.
    pub(crate) during: Window,
    pub(crate) effect: Effect,
}

/// The effect of a fault on a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Effect {
    /// The call returns this code.
    Code(ReturnCode),
    /// The call succeeds after a delay.
    Delay(Duration),
    /// The call does not return while the fault is in effect.
    Hang,
    /// The library does not have the symbol.
    Missing,
    /// The call succeeds and does not return the state of the node.
    Substitute(Substitute),
}

/// What a call returns in place of the state of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Substitute {
    /// A number with all bits set, as drivers return for unknown values.
    AllBitsSet,
    /// No rows of processes, as drivers return that cannot see processes.
    NoRows,
    /// This number: an enumeration value of a newer driver, or a GPM metric out of range.
    Number(u32),
}

thread_local! {
    /// The substitute of the current call of this thread.
    static SUBSTITUTE: Cell<Option<Substitute>> = const { Cell::new(None) };
}

/// Sets what the current call of this thread returns in place of the state of the node.
pub(crate) fn set_substitute(substitute: Option<Substitute>) {
    SUBSTITUTE.set(substitute);
}

/// What the current call of this thread returns in place of the state of the node.
pub(crate) fn substitute() -> Option<Substitute> {
    SUBSTITUTE.get()
}

impl InjectedFault {
    /// A fault that removes the function for all time.
    pub(crate) fn missing(function: &'static str) -> Self {
        let during = Window { from: 0.0, to: f64::INFINITY };
        let effect = Effect::Missing;
        Self { function: Some(function), gpu: None, field: None, during, effect }
    }

    /// Whether it affects a call of `function` for `gpu` (`None` if for no GPU) at world time
    /// `time`.
    pub(crate) fn matches(&self, function: &str, gpu: Option<usize>, time: f64) -> bool {
        let function_matches = match self.function {
            Some(name) => name == function,
            None => takes_device(function),
        };
        function_matches
            && self.field.is_none()
            && self.gpu.is_none_or(|only| gpu == Some(only))
            && self.during.contains(time)
    }
}

/// The fault of one field of one GPU: a return code or all bits set.
pub(crate) fn field_fault(
    faults: &[InjectedFault],
    field: u32,
    gpu: usize,
    time: f64,
) -> Option<Effect> {
    faults
        .iter()
        .filter(|fault| fault.field == Some(field))
        .filter(|fault| fault.gpu.is_none_or(|only| only == gpu) && fault.during.contains(time))
        .map(|fault| fault.effect)
        .find(|effect| matches!(effect, Effect::Code(_) | Effect::Substitute(_)))
}

/// The fault that applies to a call: a hang takes precedence over a delay, a delay over the others.
pub(crate) fn effective_fault(
    faults: &[InjectedFault],
    function: &str,
    gpu: Option<usize>,
    time: f64,
    delayed: bool,
) -> Option<Effect> {
    let rank = |effect: &Effect| match effect {
        Effect::Hang => 0,
        Effect::Delay(_) => 1,
        Effect::Missing => 2,
        Effect::Code(_) => 3,
        Effect::Substitute(_) => 4,
    };
    faults
        .iter()
        .filter(|fault| fault.matches(function, gpu, time))
        .map(|fault| fault.effect)
        .filter(|effect| !(delayed && matches!(effect, Effect::Delay(_))))
        .min_by_key(rank)
}

/// Whether the C function takes a handle of a device or of an instance.
pub(crate) fn takes_device(function: &str) -> bool {
    const OTHERS: [&str; 5] = [
        "nvmlGpuInstance",
        "nvmlComputeInstance",
        "nvmlGpmQueryDeviceSupport",
        "nvmlGpmSampleGet",
        "nvmlGpmMigSampleGet",
    ];
    OTHERS.iter().any(|other| function.starts_with(other))
        || function.starts_with("nvmlDevice")
            && !function.starts_with("nvmlDeviceGetCount")
            && !function.starts_with("nvmlDeviceGetHandleBy")
}

/// Whether the C function returns rows of processes.
pub(crate) fn lists_processes(function: &str) -> bool {
    ["RunningProcesses", "RunningProcessDetailList", "ProcessUtilization", "ProcessesUtilization"]
        .iter()
        .any(|part| function.contains(part))
}

/// Whether the C function is called for one GPU: by handle, index, UUID, PCI bus id or serial
/// number.
pub(crate) fn takes_gpu(function: &str) -> bool {
    takes_device(function) || function.starts_with("nvmlDeviceGetHandleBy")
}

#[cfg(test)]
mod tests {
    use super::*;

    const POWER: &str = "nvmlDeviceGetPowerUsage";
    const COUNT: &str = "nvmlDeviceGetCount_v2";

    fn fault(function: Option<&'static str>, gpu: Option<usize>, effect: Effect) -> InjectedFault {
        InjectedFault {
            function,
            gpu,
            field: None,
            during: Window { from: 10.0, to: 20.0 },
            effect,
        }
    }

    #[test]
    fn fault_affects_only_its_function_gpu_and_time() {
        let lost = fault(Some(POWER), Some(1), Effect::Code(ReturnCode::GPU_IS_LOST));
        assert!(lost.matches(POWER, Some(1), 10.0));
        assert!(!lost.matches(POWER, Some(0), 10.0));
        assert!(!lost.matches("nvmlDeviceGetName", Some(1), 10.0));
        assert!(!lost.matches(POWER, Some(1), 9.9) && !lost.matches(POWER, Some(1), 20.0));
    }

    #[test]
    fn star_affects_only_functions_that_take_a_device() {
        let hang = fault(None, None, Effect::Hang);
        for affected in [POWER, "nvmlGpuInstanceGetInfo", "nvmlGpmMigSampleGet"] {
            assert!(hang.matches(affected, Some(0), 15.0), "{affected}");
        }
        for unaffected in [
            "nvmlInit_v2",
            "nvmlShutdown",
            COUNT,
            "nvmlDeviceGetHandleByIndex_v2",
            "nvmlGpmSampleAlloc",
        ] {
            assert!(!hang.matches(unaffected, None, 15.0), "{unaffected}");
        }
    }

    #[test]
    fn effects_have_precedence_and_delays_apply_once() {
        let delay = Effect::Delay(Duration::from_secs(1));
        let faults = [
            fault(Some(POWER), None, Effect::Code(ReturnCode::UNKNOWN)),
            fault(Some(POWER), None, delay),
            fault(None, Some(3), Effect::Hang),
        ];
        assert_eq!(effective_fault(&faults, POWER, Some(3), 15.0, false), Some(Effect::Hang));
        assert_eq!(effective_fault(&faults, POWER, Some(0), 15.0, false), Some(delay));
        let after = effective_fault(&faults, POWER, Some(0), 15.0, true);
        assert_eq!(after, Some(Effect::Code(ReturnCode::UNKNOWN)));
        assert_eq!(effective_fault(&faults, POWER, Some(0), 25.0, false), None);
    }

    #[test]
    fn field_fault_does_not_affect_the_call() {
        let mut only =
            fault(Some("nvmlDeviceGetFieldValues"), Some(0), Effect::Code(ReturnCode::UNKNOWN));
        only.field = Some(82);
        assert!(!only.matches("nvmlDeviceGetFieldValues", Some(0), 15.0));
        let faults = [only];
        assert_eq!(field_fault(&faults, 82, 0, 15.0), Some(Effect::Code(ReturnCode::UNKNOWN)));
        assert_eq!(field_fault(&faults, 83, 0, 15.0), None);
        assert_eq!(field_fault(&faults, 82, 1, 15.0), None);
    }
}
