//! Faults: what a call answers, or how it delays, in place of the truth.

use std::{cell::Cell, time::Duration};

use crate::{code::Code, scenario::Window};

/// One fault of a scenario.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// The C symbol it strikes; `None` for every call that takes a device.
    pub(crate) function: Option<&'static str>,
    /// Only calls about this GPU; `None` for all.
    pub(crate) gpu: Option<usize>,
    /// Only this field of `nvmlDeviceGetFieldValues`, in the field's own return code.
    pub(crate) field: Option<u32>,
    /// When it is in force.
    pub(crate) during: Window,
    /// What it does.
    pub(crate) effect: Effect,
}

/// What a fault does to a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Effect {
    /// It answers this.
    Code(Code),
    /// It answers the truth, but late.
    Delay(Duration),
    /// It does not answer while the fault is in force.
    Hang,
    /// The library does not have the symbol.
    Missing,
    /// It succeeds, and all bits of the number that it answers are set: what drivers write where they
    /// know nothing.
    Ones,
}

thread_local! {
    /// The call that this thread is in answers with ones.
    static ONES: Cell<bool> = const { Cell::new(false) };
}

/// Says whether the call that this thread is in is to answer with ones.
pub(crate) fn set_ones(on: bool) {
    ONES.set(on);
}

/// Whether it is.
pub(crate) fn answers_ones() -> bool {
    ONES.get()
}

impl Fault {
    /// The library does not have the function.
    pub(crate) fn missing(function: &'static str) -> Self {
        let during = Window { from: 0.0, to: f64::INFINITY };
        let effect = Effect::Missing;
        Self { function: Some(function), gpu: None, field: None, during, effect }
    }

    /// Whether it strikes a call of `function` about `gpu` (if about one) at world time `time`.
    pub(crate) fn strikes(&self, function: &str, gpu: Option<usize>, time: f64) -> bool {
        let called = match self.function {
            Some(name) => name == function,
            None => takes_device(function),
        };
        called
            && self.field.is_none()
            && self.gpu.is_none_or(|only| gpu == Some(only))
            && self.during.contains(time)
    }
}

/// What a fault does to one field of one GPU: a code, or ones.
pub(crate) fn on_field(faults: &[Fault], field: u32, gpu: usize, time: f64) -> Option<Effect> {
    faults
        .iter()
        .filter(|fault| fault.field == Some(field))
        .filter(|fault| fault.gpu.is_none_or(|only| only == gpu) && fault.during.contains(time))
        .map(|fault| fault.effect)
        .find(|effect| matches!(effect, Effect::Code(_) | Effect::Ones))
}

/// What becomes of a call: a hang comes before a delay, and a delay before an answer.
pub(crate) fn verdict(
    faults: &[Fault],
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
        Effect::Ones => 4,
    };
    faults
        .iter()
        .filter(|fault| fault.strikes(function, gpu, time))
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

/// Whether a call of the C function is about one GPU.
pub(crate) fn concerns_gpu(function: &str) -> bool {
    takes_device(function) || function.starts_with("nvmlDeviceGetHandleBy")
}

#[cfg(test)]
mod tests {
    use super::*;

    const POWER: &str = "nvmlDeviceGetPowerUsage";
    const COUNT: &str = "nvmlDeviceGetCount_v2";

    fn fault(function: Option<&'static str>, gpu: Option<usize>, effect: Effect) -> Fault {
        Fault { function, gpu, field: None, during: Window { from: 10.0, to: 20.0 }, effect }
    }

    #[test]
    fn a_fault_strikes_its_function_gpu_and_time_only() {
        let lost = fault(Some(POWER), Some(1), Effect::Code(Code::GPU_IS_LOST));
        assert!(lost.strikes(POWER, Some(1), 10.0));
        assert!(!lost.strikes(POWER, Some(0), 10.0));
        assert!(!lost.strikes("nvmlDeviceGetName", Some(1), 10.0));
        assert!(!lost.strikes(POWER, Some(1), 9.9) && !lost.strikes(POWER, Some(1), 20.0));
    }

    #[test]
    fn a_star_spares_what_takes_no_device() {
        let hang = fault(None, None, Effect::Hang);
        for struck in [POWER, "nvmlGpuInstanceGetInfo", "nvmlGpmMigSampleGet"] {
            assert!(hang.strikes(struck, Some(0), 15.0), "{struck}");
        }
        for spared in [
            "nvmlInit_v2",
            "nvmlShutdown",
            COUNT,
            "nvmlDeviceGetHandleByIndex_v2",
            "nvmlGpmSampleAlloc",
        ] {
            assert!(!hang.strikes(spared, None, 15.0), "{spared}");
        }
    }

    #[test]
    fn effects_come_in_order_and_a_delay_once() {
        let delay = Effect::Delay(Duration::from_secs(1));
        let faults = [
            fault(Some(POWER), None, Effect::Code(Code::UNKNOWN)),
            fault(Some(POWER), None, delay),
            fault(None, Some(3), Effect::Hang),
        ];
        assert_eq!(verdict(&faults, POWER, Some(3), 15.0, false), Some(Effect::Hang));
        assert_eq!(verdict(&faults, POWER, Some(0), 15.0, false), Some(delay));
        let after = verdict(&faults, POWER, Some(0), 15.0, true);
        assert_eq!(after, Some(Effect::Code(Code::UNKNOWN)));
        assert_eq!(verdict(&faults, POWER, Some(0), 25.0, false), None);
    }

    #[test]
    fn a_field_fault_leaves_the_call_alone() {
        let mut only =
            fault(Some("nvmlDeviceGetFieldValues"), Some(0), Effect::Code(Code::UNKNOWN));
        only.field = Some(82);
        assert!(!only.strikes("nvmlDeviceGetFieldValues", Some(0), 15.0));
        let faults = [only];
        assert_eq!(on_field(&faults, 82, 0, 15.0), Some(Effect::Code(Code::UNKNOWN)));
        assert_eq!(on_field(&faults, 83, 0, 15.0), None);
        assert_eq!(on_field(&faults, 82, 1, 15.0), None);
    }
}
