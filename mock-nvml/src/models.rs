//! GPU models as data. A new model is one more entry of [`MODELS`].
//!
//! Names, framebuffer, power limits, PCI device ids, CUDA capability and top clocks are meant to be those
//! of the real boards. Reserved and base memory, subsystem ids, idle clocks and power, the thermal figures
//! and the sample period are plausible, not measured: no test of a client may lean on them as facts.

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
    /// How much warmer the memory is than the core, where the board tells.
    pub(crate) memory_above: Option<f64>,
    /// Time constant of the heat sink in seconds.
    pub(crate) lag: f64,
}

/// What is the same for all boards of a kind.
#[derive(Debug)]
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
    /// `nvmlPstates_t` doing nothing.
    pub(crate) idle_pstate: u32,
    /// Power doing nothing, in W.
    pub(crate) idle_watts: f64,
    /// Power limit, in W.
    pub(crate) limit_watts: f64,
    /// See [`Thermals`].
    pub(crate) thermals: Thermals,
    /// Seconds between two samples of the utilization ring.
    pub(crate) sample_period: f64,
    /// Number of fans that the driver governs.
    pub(crate) fans: u32,
    /// Whether ECC is on; `None` where the board has none.
    pub(crate) ecc: Option<bool>,
    /// Whether persistence mode is on.
    pub(crate) persistence: bool,
    /// Whether the board tells its serial number.
    pub(crate) serial: bool,
}

const BRAND_GEFORCE: u32 = 5;
const BRAND_NVIDIA: u32 = 14;
const TURING: u32 = 6;
const ADA: u32 = 8;
const HOPPER: u32 = 9;

/// All models.
pub(crate) static MODELS: &[Model] = &[
    Model {
        key: "T4",
        name: "Tesla T4",
        brand: BRAND_NVIDIA,
        architecture: TURING,
        cuda: (7, 5),
        pci_device: 0x1EB8_10DE,
        pci_subsystem: 0x12A2_10DE,
        total_mib: 15_360,
        reserved_mib: 426,
        base_mib: 2,
        bar1_mib: 256,
        idle: Clocks { sm: 300, mem: 405, video: 540 },
        boost: Clocks { sm: 1_590, mem: 5_000, video: 1_470 },
        max: Clocks { sm: 1_590, mem: 5_001, video: 1_470 },
        idle_pstate: 8,
        idle_watts: 9.5,
        limit_watts: 70.0,
        thermals: Thermals {
            idle: 33.0,
            full: 78.0,
            slowdown: 93.0,
            memory_above: None,
            lag: 40.0,
        },
        sample_period: 1.0 / 6.0,
        fans: 0,
        ecc: Some(true),
        persistence: true,
        serial: true,
    },
    Model {
        key: "L20",
        name: "NVIDIA L20",
        brand: BRAND_NVIDIA,
        architecture: ADA,
        cuda: (8, 9),
        pci_device: 0x26BA_10DE,
        pci_subsystem: 0x1957_10DE,
        total_mib: 46_068,
        reserved_mib: 598,
        base_mib: 4,
        bar1_mib: 65_536,
        idle: Clocks { sm: 210, mem: 405, video: 1_185 },
        boost: Clocks { sm: 2_520, mem: 9_001, video: 1_965 },
        max: Clocks { sm: 2_520, mem: 9_001, video: 1_965 },
        idle_pstate: 8,
        idle_watts: 33.0,
        limit_watts: 275.0,
        thermals: Thermals {
            idle: 31.0,
            full: 71.0,
            slowdown: 92.0,
            memory_above: None,
            lag: 35.0,
        },
        sample_period: 1.0 / 6.0,
        fans: 0,
        ecc: Some(true),
        persistence: true,
        serial: true,
    },
    Model {
        key: "H100",
        name: "NVIDIA H100 80GB HBM3",
        brand: BRAND_NVIDIA,
        architecture: HOPPER,
        cuda: (9, 0),
        pci_device: 0x2330_10DE,
        pci_subsystem: 0x16C1_10DE,
        total_mib: 81_559,
        reserved_mib: 551,
        base_mib: 4,
        bar1_mib: 131_072,
        idle: Clocks { sm: 345, mem: 2_619, video: 765 },
        boost: Clocks { sm: 1_980, mem: 2_619, video: 1_545 },
        max: Clocks { sm: 1_980, mem: 2_619, video: 1_545 },
        idle_pstate: 0,
        idle_watts: 70.0,
        limit_watts: 700.0,
        thermals: Thermals {
            idle: 29.0,
            full: 66.0,
            slowdown: 87.0,
            memory_above: Some(9.0),
            lag: 25.0,
        },
        sample_period: 1.0 / 6.0,
        fans: 0,
        ecc: Some(true),
        persistence: true,
        serial: true,
    },
    Model {
        key: "RTX 4090",
        name: "NVIDIA GeForce RTX 4090",
        brand: BRAND_GEFORCE,
        architecture: ADA,
        cuda: (8, 9),
        pci_device: 0x2684_10DE,
        pci_subsystem: 0x889D_1043,
        total_mib: 24_564,
        reserved_mib: 347,
        base_mib: 2,
        bar1_mib: 32_768,
        idle: Clocks { sm: 210, mem: 405, video: 1_185 },
        boost: Clocks { sm: 2_745, mem: 10_501, video: 2_145 },
        max: Clocks { sm: 3_105, mem: 10_501, video: 2_415 },
        idle_pstate: 8,
        idle_watts: 18.0,
        limit_watts: 450.0,
        thermals: Thermals {
            idle: 34.0,
            full: 68.0,
            slowdown: 90.0,
            memory_above: None,
            lag: 30.0,
        },
        sample_period: 1.0 / 6.0,
        fans: 2,
        ecc: Some(false),
        persistence: false,
        serial: false,
    },
];

impl Model {
    /// The model that scenarios call `key`.
    pub(crate) fn find(key: &str) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.key == key)
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
            assert!(model.sample_period > 0.0, "{key}");
            assert_eq!(MODELS.iter().filter(|other| other.key == key).count(), 1, "{key}");
        }
    }
}
