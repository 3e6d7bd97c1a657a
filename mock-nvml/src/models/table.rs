//! The table of models. A new model is one more entry.
//!
//! Names, framebuffer, power limits, PCI device ids, CUDA capability, maximum clocks, cores, bus
//! widths and links are those of the real boards as far as known. Reserved and base memory,
//! subsystem ids, idle and base clocks, idle power, temperatures, banks, firmware versions and the
//! sample period are plausible, not measured: tests of clients must not rely on them.
//!
//! What T4, L40S, H100, B200, GB200 and GB300 report, and what they do not, is that of the `nvidia-smi -q -x`
//! captures of real nodes in `NVIDIA/k8s-test-infra` (drivers 570.148.08 to 595.91.07); banks, reserved memory,
//! clocks and limits of GB200 and GB300 are theirs. No capture was available of A10, H20, RTX PRO 6000, RTX
//! 5090, GB10, Thor and VR200: they are approximate.

mod ada;
mod blackwell;
mod hopper;

use crate::models::Model;

const BRAND_GEFORCE: u32 = 5;
const BRAND_NVIDIA: u32 = 14;
const TURING: u32 = 6;
const AMPERE: u32 = 7;
const ADA: u32 = 8;
/// `NVML_DEVICE_ARCH_HOPPER`.
pub(crate) const HOPPER: u32 = 9;
/// `NVML_DEVICE_ARCH_BLACKWELL`.
pub(crate) const BLACKWELL: u32 = 10;
const RUBIN: u32 = 13;

/// All models.
pub(crate) fn models() -> impl Iterator<Item = &'static Model> {
    [ada::MODELS, hopper::MODELS, blackwell::MODELS].into_iter().flatten()
}

impl Model {
    /// The model with this name in scenarios.
    pub(crate) fn find(key: &str) -> Option<&'static Self> {
        models().find(|model| model.key == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Repair;

    #[test]
    fn models_are_consistent() {
        for model in models() {
            let key = model.key;
            assert!(model.reserved_mib + model.base_mib < model.total_mib, "{key}");
            assert!(model.idle_watts < model.limit_watts, "{key}");
            assert!(model.idle.sm < model.boost.sm && model.boost.sm <= model.max.sm, "{key}");
            assert!(
                model.boost.mem <= model.max.mem && model.boost.video <= model.max.video,
                "{key}"
            );
            assert!(model.thermals.idle < model.thermals.full, "{key}");
            assert!(model.thermals.full < model.thermals.slowdown, "{key}");
            assert!(model.thermals.slowdown < model.thermals.shutdown, "{key}");
            assert!(model.limit_range_watts.0 < model.limit_watts, "{key}");
            assert!(model.limit_watts <= model.limit_range_watts.1, "{key}");
            assert!(model.base_sm < model.boost.sm, "{key}");
            assert!(model.repair == Repair::Unsupported || model.counts_errors(), "{key}");
            assert!(model.applications.is_none_or(|clocks| clocks.sm <= model.max.sm), "{key}");
            assert!(model.sample_period > 0.0, "{key}");
            assert_eq!(models().filter(|other| other.key == key).count(), 1, "{key}");
        }
    }
}
