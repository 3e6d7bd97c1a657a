//! GPU models as data. [`table`] has one entry per model.

pub(crate) mod mig;
pub(crate) mod table;

/// 1 MiB in bytes.
pub(crate) const MIB: u64 = 1 << 20;

/// Clock domains of one P-state, in MHz.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    /// Graphics and SM, which have the same clock on these boards.
    pub(crate) sm: u32,
    /// Memory.
    pub(crate) mem: u32,
    /// Video engines.
    pub(crate) video: u32,
}

/// Temperatures of the board in °C at an ambient temperature of 25 °C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thermals {
    /// When idle.
    pub(crate) idle: f64,
    /// In steady state at the power limit.
    pub(crate) full: f64,
    /// The driver slows the clocks from this temperature on.
    pub(crate) slowdown: f64,
    /// The board shuts down from this temperature on.
    pub(crate) shutdown: f64,
    /// Maximum operating temperature of the core.
    pub(crate) core_max: f64,
    /// Of the memory, if the board reports it.
    pub(crate) memory: Option<MemoryThermals>,
    /// Time constant of the heat sink in seconds.
    pub(crate) time_constant: f64,
}

/// Memory temperatures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryThermals {
    /// Difference to the core temperature, in °C.
    pub(crate) above_core: f64,
    /// Maximum operating temperature, in °C.
    pub(crate) max: f64,
}

/// A PCIe slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PcieLink {
    /// PCIe generation of the link.
    pub(crate) generation: u32,
    /// Number of lanes.
    pub(crate) width: u32,
}

/// The NVLinks of a board. All of them are connected to NVLink switches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NvLinks {
    /// Number of links.
    pub(crate) count: u32,
    /// `nvmlNvlinkVersion_t`.
    pub(crate) version: u32,
    /// Bandwidth of one link in one direction, in MB/s.
    pub(crate) speed: u32,
}

/// How a board repairs memory with ECC errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// It does not.
    Unsupported,
    /// The driver retires pages.
    Pages,
    /// The board remaps rows; this many banks have spare rows.
    Rows {
        /// Number of banks.
        banks: u32,
    },
}

/// Properties that only some models have.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent properties")]
pub(crate) struct Extras {
    /// Whether it reports the distance to the slowdown temperature.
    pub(crate) margin: bool,
    /// Number of C2C links to a CPU.
    pub(crate) c2c_links: u32,
    /// Whether it shares the memory of the CPU, so that it reports no framebuffer.
    pub(crate) unified_memory: bool,
    /// Whether it is in a rack that reports chassis, slot and tray.
    pub(crate) platform: bool,
    /// Whether it has power smoothing and power profiles.
    pub(crate) power_smoothing: bool,
    /// Whether it remaps banks of memory, in addition to rows.
    pub(crate) bank_remapping: bool,
}

impl Extras {
    /// None of them.
    pub(crate) const NONE: Self = Self {
        margin: false,
        c2c_links: 0,
        unified_memory: false,
        platform: false,
        power_smoothing: false,
        bank_remapping: false,
    };
}

/// Properties of a GPU model.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent properties")]
pub(crate) struct Model {
    /// Its name in scenarios.
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
    /// Framebuffer reserved by the driver, in MiB.
    pub(crate) reserved_mib: u64,
    /// Framebuffer counted as used without any process, in MiB.
    pub(crate) base_mib: u64,
    /// BAR1 aperture in MiB.
    pub(crate) bar1_mib: u64,
    /// Clocks when idle.
    pub(crate) idle: Clocks,
    /// Clocks under load.
    pub(crate) boost: Clocks,
    /// Maximum clocks (`nvmlDeviceGetMaxClockInfo`).
    pub(crate) max: Clocks,
    /// Default application clocks, if the board has application clocks.
    pub(crate) applications: Option<Clocks>,
    /// Base SM clock, which the board sustains under full load, in MHz.
    pub(crate) base_sm: u32,
    /// `nvmlPstates_t` when idle.
    pub(crate) idle_pstate: u32,
    /// Power when idle, in W.
    pub(crate) idle_watts: f64,
    /// Power limit, in W.
    pub(crate) limit_watts: f64,
    /// Minimum and maximum of the configurable power limit, in W.
    pub(crate) limit_range_watts: (f64, f64),
    /// See [`Thermals`].
    pub(crate) thermals: Thermals,
    /// Sampling period of the utilization buffer, in seconds.
    pub(crate) sample_period: f64,
    /// Number of fans that the driver controls.
    pub(crate) fans: u32,
    /// Maximum PCIe link generation and width.
    pub(crate) pcie: PcieLink,
    /// Its NVLinks, if any.
    pub(crate) nvlinks: Option<NvLinks>,
    /// CUDA cores.
    pub(crate) cores: u32,
    /// Width of the memory bus in bits.
    pub(crate) bus_width: u32,
    /// Whether it has JPEG and optical flow engines.
    pub(crate) jpg_ofa: bool,
    /// Whether the driver reports throttle times (`nvmlDeviceGetViolationStatus`).
    pub(crate) violations: bool,
    /// See [`Repair`].
    pub(crate) repair: Repair,
    /// Whether the GSP firmware is enabled.
    pub(crate) gsp: bool,
    /// Board part number, if the board reports it.
    pub(crate) part: Option<&'static str>,
    /// VBIOS version.
    pub(crate) vbios: &'static str,
    /// InfoROM image version, if there is an InfoROM.
    pub(crate) inforom: Option<&'static str>,
    /// Whether ECC is on; `None` if not supported.
    pub(crate) ecc: Option<bool>,
    /// Whether persistence mode is on.
    pub(crate) persistence: bool,
    /// Whether the board reports its serial number.
    pub(crate) serial: bool,
    /// See [`Extras`].
    pub(crate) extras: Extras,
}

impl Model {
    /// Whether it counts memory errors: ECC is supported and on.
    pub(crate) fn counts_errors(&self) -> bool {
        self.ecc == Some(true)
    }

    /// Framebuffer available to processes, in bytes.
    pub(crate) fn available_bytes(&self) -> u64 {
        (self.total_mib - self.reserved_mib - self.base_mib) * MIB
    }
}
