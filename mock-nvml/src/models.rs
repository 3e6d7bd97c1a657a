//! GPU models as data: [`MODELS`] has one entry for each.

pub(crate) mod mig;
mod table;

pub(crate) use self::table::{BLACKWELL, HOPPER, MODELS};

/// 1 MiB in bytes.
pub(crate) const MIB: u64 = 1 << 20;

/// Clock domains of one P-state, in MHz.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    /// Graphics and SM, which these boards run together.
    pub(crate) sm: u32,
    /// Memory.
    pub(crate) mem: u32,
    /// Video engines.
    pub(crate) video: u32,
}

/// How warm the board is at an ambient temperature of 25 °C, in °C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thermals {
    /// Doing nothing.
    pub(crate) idle: f64,
    /// After long at the power limit.
    pub(crate) full: f64,
    /// From here on the driver slows the clocks.
    pub(crate) slowdown: f64,
    /// From here on the board shuts itself down.
    pub(crate) shutdown: f64,
    /// The highest temperature at which the core is meant to work.
    pub(crate) core_max: f64,
    /// Of the memory, where the board tells.
    pub(crate) memory: Option<MemoryThermals>,
    /// Time constant of the heat sink in seconds.
    pub(crate) lag: f64,
}

/// How warm the memory is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryThermals {
    /// How much warmer than the core, in °C.
    pub(crate) above: f64,
    /// The highest temperature at which it is meant to work, in °C.
    pub(crate) max: f64,
}

/// A PCIe slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Generation of the link.
    pub(crate) generation: u32,
    /// Lanes.
    pub(crate) width: u32,
}

/// The NVLinks of a board. All of them go to switches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NvLinks {
    /// How many.
    pub(crate) count: u32,
    /// `nvmlNvlinkVersion_t`.
    pub(crate) version: u32,
    /// What one carries in one direction, in MB/s.
    pub(crate) speed: u32,
}

/// What a board does about memory that errs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Nothing.
    Nothing,
    /// The driver retires pages.
    Pages,
    /// The board remaps rows; it has spare ones in so many banks.
    Rows {
        /// Banks.
        banks: u32,
    },
}

/// What is the same for all boards of a kind.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with one another")]
pub(crate) struct Model {
    /// How scenarios call it.
    pub(crate) key: &'static str,
    /// `nvmlDeviceGetName`.
    pub(crate) name: &'static str,
    /// `nvmlBrandType_t`.
    pub(crate) brand: u32,
    /// `nvmlDeviceArchitecture_t`.
    pub(crate) architecture: u32,
    /// CUDA compute capability, major and minor.
    pub(crate) cuda: (i32, i32),
    /// PCI device id (high half) and vendor id.
    pub(crate) pci_device: u32,
    /// PCI subsystem device id (high half) and vendor id.
    pub(crate) pci_subsystem: u32,
    /// Framebuffer in MiB.
    pub(crate) total_mib: u64,
    /// Framebuffer the driver keeps to itself, in MiB.
    pub(crate) reserved_mib: u64,
    /// Framebuffer counted as used with no process there, in MiB.
    pub(crate) base_mib: u64,
    /// BAR1 aperture in MiB.
    pub(crate) bar1_mib: u64,
    /// Clocks doing nothing.
    pub(crate) idle: Clocks,
    /// Clocks under load.
    pub(crate) boost: Clocks,
    /// Largest clocks that the board names.
    pub(crate) max: Clocks,
    /// Clocks that applications get by default, where the board lets them be set.
    pub(crate) applications: Option<Clocks>,
    /// The SM clock that the board promises under full load, in MHz.
    pub(crate) base_sm: u32,
    /// `nvmlPstates_t` doing nothing.
    pub(crate) idle_pstate: u32,
    /// Power doing nothing, in W.
    pub(crate) idle_watts: f64,
    /// Power limit, in W.
    pub(crate) limit_watts: f64,
    /// The least and the most that the power limit can be set to, in W.
    pub(crate) limits_watts: (f64, f64),
    /// See [`Thermals`].
    pub(crate) thermals: Thermals,
    /// Seconds between two samples of the utilization ring.
    pub(crate) sample_period: f64,
    /// Number of fans that the driver governs.
    pub(crate) fans: u32,
    /// Its PCIe link at its best.
    pub(crate) pcie: Slot,
    /// Its NVLinks, if any.
    pub(crate) nvlinks: Option<NvLinks>,
    /// CUDA cores.
    pub(crate) cores: u32,
    /// Width of the memory bus in bits.
    pub(crate) bus_width: u32,
    /// Whether it has engines for JPEG and for optical flow.
    pub(crate) jpg_ofa: bool,
    /// Whether the driver counts the time for which it held the clocks down.
    pub(crate) violations: bool,
    /// What it does about memory that errs.
    pub(crate) repair: Repair,
    /// Whether a GSP runs the driver's firmware.
    pub(crate) gsp: bool,
    /// Board part number, where it tells.
    pub(crate) part: Option<&'static str>,
    /// VBIOS version.
    pub(crate) vbios: &'static str,
    /// InfoROM image version, where there is an InfoROM.
    pub(crate) inforom: Option<&'static str>,
    /// Whether ECC is on; `None` where the board has none.
    pub(crate) ecc: Option<bool>,
    /// Whether persistence mode is on.
    pub(crate) persistence: bool,
    /// Whether the board tells its serial number.
    pub(crate) serial: bool,
}

impl Model {
    /// The model that scenarios call `key`.
    pub(crate) fn find(key: &str) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.key == key)
    }

    /// Whether it counts memory errors: it has ECC, and ECC is on.
    pub(crate) fn counts_errors(&self) -> bool {
        self.ecc == Some(true)
    }

    /// Framebuffer that processes can have, in bytes.
    pub(crate) fn room(&self) -> u64 {
        (self.total_mib - self.reserved_mib - self.base_mib) * MIB
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_sane() {
        for model in MODELS {
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
            assert!(model.limits_watts.0 < model.limit_watts, "{key}");
            assert!(model.limit_watts <= model.limits_watts.1, "{key}");
            assert!(model.base_sm < model.boost.sm, "{key}");
            assert!(model.repair == Repair::Nothing || model.counts_errors(), "{key}");
            assert!(model.applications.is_none_or(|clocks| clocks.sm <= model.max.sm), "{key}");
            assert!(model.sample_period > 0.0, "{key}");
            assert_eq!(MODELS.iter().filter(|other| other.key == key).count(), 1, "{key}");
        }
    }
}
