//! Rows of the board: clocks, limits, modes and PCIe link.

use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureThreshold};
use nvml_wrapper_sys::bindings::field_id;

use crate::catalog::metric::{Metric, counter, gauge};
use crate::catalog::source::DeviceSource::{self, Field, Rate, Read};
use crate::nvml::raw::fields::Field as Id;
use crate::policy::Tier::{Second, Slow};

const BATCH: &str = "nvmlDeviceGetFieldValues";
const THRESHOLD: &str = "nvmlDeviceGetTemperatureThreshold";
const LIMITS: &str = "nvmlDeviceGetPowerManagementLimitConstraints";
const FABRIC: &str = "nvmlDeviceGetGpuFabricInfoV";
const PCI: &str = "nvmlDeviceGetPciInfo_v3";
const NO_PCI: &str = "platforms without PCI";
const NO_FABRIC: &str = "boards without an NVLink fabric";
const NO_BYTES: &str = "boards without PCIe byte counters; in a GPU's first cycle";
const CONSUMER: &str = "consumer boards";

pub(super) const ROWS: &[Metric<DeviceSource>] = &[
    Metric {
        name: "DCGM_FI_DEV_MAX_SM_CLOCK",
        unit: "MHz",
        symbol: "nvmlDeviceGetMaxClockInfo",
        tier: Slow,
        help: "Maximum SM clock frequency (in MHz).",
        ..gauge(Read(|p| p.max_clock(Clock::SM)))
    },
    Metric {
        name: "DCGM_FI_DEV_MAX_MEM_CLOCK",
        unit: "MHz",
        symbol: "nvmlDeviceGetMaxClockInfo",
        tier: Slow,
        help: "Maximum memory clock frequency (in MHz).",
        ..gauge(Read(|p| p.max_clock(Clock::Memory)))
    },
    Metric {
        name: "DCGM_FI_DEV_MAX_VIDEO_CLOCK",
        unit: "MHz",
        symbol: "nvmlDeviceGetMaxClockInfo",
        tier: Slow,
        help: "Maximum video engine clock frequency (in MHz).",
        ..gauge(Read(|p| p.max_clock(Clock::Video)))
    },
    Metric {
        name: "DCGM_FI_DEV_CLOCKS_EVENT_REASONS",
        unit: "bitmask",
        symbol: "nvmlDeviceGetCurrentClocksEventReasons",
        tier: Second,
        help: "Clock event reasons (bitmask of nvmlClocksEventReasons).",
        ..gauge(Read(|p| p.clock_event_reasons()))
    },
    Metric {
        name: "DCGM_FI_DEV_GPU_MAX_OP_TEMP",
        unit: "C",
        symbol: THRESHOLD,
        tier: Slow,
        help: "Maximum operating temperature of the GPU (in C).",
        absent: "boards without this threshold",
        ..gauge(Read(|p| p.temperature_threshold(TemperatureThreshold::GpuMax)))
    },
    Metric {
        name: "DCGM_FI_DEV_MEM_MAX_OP_TEMP",
        unit: "C",
        symbol: THRESHOLD,
        tier: Slow,
        help: "Maximum operating temperature of the memory (in C).",
        absent: "boards without a memory sensor: most with GDDR memory",
        ..gauge(Read(|p| p.temperature_threshold(TemperatureThreshold::MemoryMax)))
    },
    Metric {
        name: "DCGM_FI_DEV_SLOWDOWN_TEMP",
        unit: "C",
        symbol: THRESHOLD,
        tier: Slow,
        help: "GPU temperature at which the hardware reduces the clocks (in C).",
        ..gauge(Read(|p| p.temperature_threshold(TemperatureThreshold::Slowdown)))
    },
    Metric {
        name: "DCGM_FI_DEV_SHUTDOWN_TEMP",
        unit: "C",
        symbol: THRESHOLD,
        tier: Slow,
        help: "GPU temperature at which the hardware shuts down (in C).",
        ..gauge(Read(|p| p.temperature_threshold(TemperatureThreshold::Shutdown)))
    },
    Metric {
        name: "DCGM_FI_DEV_POWER_USAGE_INSTANT",
        unit: "W",
        symbol: BATCH,
        help: "Instantaneous power draw of the board (in W).",
        absent: "boards without a power sensor; drivers before 525",
        ..gauge(Field(Id::of(field_id::NVML_FI_DEV_POWER_INSTANT), |mw| Ok(mw / 1000.0)))
    },
    Metric {
        name: "DCGM_FI_DEV_POWER_MGMT_LIMIT",
        unit: "W",
        symbol: "nvmlDeviceGetPowerManagementLimit",
        tier: Second,
        help: "Requested power limit (in W).",
        absent: "boards without a power limit",
        ..gauge(Read(|p| p.power_limit()))
    },
    Metric {
        name: "DCGM_FI_DEV_POWER_MGMT_LIMIT_MIN",
        unit: "W",
        symbol: LIMITS,
        tier: Slow,
        help: "Minimum power limit that can be set (in W).",
        absent: "boards without a power limit",
        ..gauge(Read(|p| p.power_limit_min()))
    },
    Metric {
        name: "DCGM_FI_DEV_POWER_MGMT_LIMIT_MAX",
        unit: "W",
        symbol: LIMITS,
        tier: Slow,
        help: "Maximum power limit that can be set (in W).",
        absent: "boards without a power limit",
        ..gauge(Read(|p| p.power_limit_max()))
    },
    Metric {
        name: "DCGM_FI_DEV_POWER_MGMT_LIMIT_DEF",
        unit: "W",
        symbol: "nvmlDeviceGetPowerManagementDefaultLimit",
        tier: Slow,
        help: "Default power limit of the board (in W).",
        absent: "boards without a power limit",
        ..gauge(Read(|p| p.power_limit_default()))
    },
    Metric {
        name: "DCGM_FI_DEV_ENFORCED_POWER_LIMIT",
        unit: "W",
        symbol: "nvmlDeviceGetEnforcedPowerLimit",
        tier: Second,
        help: "Enforced power limit: the minimum of all active limits (in W).",
        absent: "boards without a power limit",
        ..gauge(Read(|p| p.power_limit_enforced()))
    },
    Metric {
        name: "DCGM_FI_DEV_PCIE_TX_THROUGHPUT",
        unit: "KB/s",
        symbol: BATCH,
        help: "PCIe transmit throughput (in KB/s).",
        absent: NO_BYTES,
        ..gauge(Rate(&[Id::of(field_id::NVML_FI_DEV_PCIE_COUNT_TX_BYTES)], kilobytes))
    },
    Metric {
        name: "DCGM_FI_DEV_PCIE_RX_THROUGHPUT",
        unit: "KB/s",
        symbol: BATCH,
        help: "PCIe receive throughput (in KB/s).",
        absent: NO_BYTES,
        ..gauge(Rate(&[Id::of(field_id::NVML_FI_DEV_PCIE_COUNT_RX_BYTES)], kilobytes))
    },
    Metric {
        name: "DCGM_FI_DEV_PCIE_MAX_LINK_GEN",
        unit: "gen",
        symbol: "nvmlDeviceGetMaxPcieLinkGeneration",
        tier: Slow,
        help: "Maximum PCIe link generation supported by the GPU and the system.",
        ..gauge(Read(|p| p.pcie_generation_max()))
    },
    Metric {
        name: "DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH",
        unit: "lanes",
        symbol: "nvmlDeviceGetMaxPcieLinkWidth",
        tier: Slow,
        help: "Maximum PCIe link width supported by the GPU and the system (in lanes).",
        ..gauge(Read(|p| p.pcie_width_max()))
    },
    Metric {
        name: "DCGM_FI_DEV_PCIE_LINK_GEN",
        unit: "gen",
        symbol: "nvmlDeviceGetCurrPcieLinkGeneration",
        tier: Second,
        help: "Current PCIe link generation; lower while the GPU is idle.",
        ..gauge(Read(|p| p.pcie_generation()))
    },
    Metric {
        name: "DCGM_FI_DEV_PCIE_LINK_WIDTH",
        unit: "lanes",
        symbol: "nvmlDeviceGetCurrPcieLinkWidth",
        tier: Second,
        help: "Current PCIe link width (in lanes).",
        ..gauge(Read(|p| p.pcie_width()))
    },
    Metric {
        name: "DCGM_FI_DEV_TOTAL_APP_CLOCKS_VIOLATION",
        unit: "ns",
        symbol: BATCH,
        help: "Time for which the clocks were below the application clocks since the driver was loaded (in ns).",
        absent: CONSUMER,
        ..counter(Field(Id::of(field_id::NVML_FI_DEV_PERF_POLICY_TOTAL_APP_CLOCKS), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_TOTAL_BASE_CLOCKS_VIOLATION",
        unit: "ns",
        symbol: BATCH,
        help: "Time for which the clocks were below the base clocks since the driver was loaded (in ns).",
        absent: CONSUMER,
        ..counter(Field(Id::of(field_id::NVML_FI_DEV_PERF_POLICY_TOTAL_BASE_CLOCKS), Ok))
    },
    Metric {
        name: "DCGM_FI_DEV_FAN_SPEED",
        unit: "%",
        symbol: "nvmlDeviceGetFanSpeed_v2",
        tier: Second,
        help: "Intended fan speed (in % of the nominal speed, may be above 100).",
        absent: "passively cooled boards",
        ..gauge(Read(|p| p.fan_speed()))
    },
    Metric {
        name: "DCGM_FI_DEV_COMPUTE_MODE",
        unit: "enum",
        symbol: "nvmlDeviceGetComputeMode",
        tier: Slow,
        help: "Compute mode: 0 default, 1 prohibited, 2 exclusive process.",
        ..gauge(Read(|p| p.compute_mode()))
    },
    Metric {
        name: "DCGM_FI_DEV_PERSISTENCE_MODE",
        unit: "bool",
        symbol: "nvmlDeviceGetPersistenceMode",
        tier: Slow,
        help: "1 if persistence mode is enabled: the driver stays loaded while the GPU is not in use.",
        ..gauge(Read(|p| p.persistence_mode()))
    },
    Metric {
        name: "DCGM_FI_DEV_MIG_MODE",
        unit: "bool",
        symbol: "nvmlDeviceGetMigMode",
        tier: Slow,
        help: "1 while MIG is enabled.",
        absent: "boards without MIG",
        ..gauge(Read(|p| p.mig_mode()))
    },
    Metric {
        name: "DCGM_FI_DEV_MIG_MAX_SLICES",
        unit: "count",
        symbol: "nvmlDeviceGetGpuInstanceProfileInfo",
        tier: Slow,
        help: "Maximum number of slices of a GPU instance; 0 while MIG is disabled.",
        absent: "boards without MIG",
        ..gauge(Read(|p| p.mig_slices()))
    },
    Metric {
        name: "DCGM_FI_DEV_CUDA_COMPUTE_CAPABILITY",
        unit: "packed",
        symbol: "nvmlDeviceGetCudaComputeCapability",
        tier: Slow,
        help: "CUDA compute capability: major times 65536, plus minor.",
        ..gauge(Read(|p| p.compute_capability()))
    },
    Metric {
        name: "DCGM_FI_DEV_NVML_INDEX",
        unit: "index",
        symbol: "nvmlDeviceGetIndex",
        tier: Slow,
        help: "NVML index of the GPU.",
        ..gauge(Read(|p| p.index()))
    },
    Metric {
        name: "DCGM_FI_DEV_MINOR_NUMBER",
        unit: "index",
        symbol: "nvmlDeviceGetMinorNumber",
        tier: Slow,
        help: "Minor number of the GPU's device node.",
        absent: "platforms without device nodes",
        ..gauge(Read(|p| p.minor_number()))
    },
    Metric {
        name: "DCGM_FI_DEV_VIRTUAL_MODE",
        unit: "enum",
        symbol: "nvmlDeviceGetVirtualizationMode",
        tier: Slow,
        help: "Virtualization mode: 0 none, 1 passthrough, 2 vGPU, 3 and 4 vGPU host.",
        ..gauge(Read(|p| p.virtualization_mode()))
    },
    Metric {
        name: "DCGM_FI_DEV_FABRIC_MANAGER_STATUS",
        unit: "enum",
        symbol: FABRIC,
        tier: Slow,
        help: "Registration of the GPU with the NVLink fabric: 1 not started, 2 in progress, 3 completed.",
        absent: NO_FABRIC,
        ..gauge(Read(|p| p.fabric_state()))
    },
    Metric {
        name: "DCGM_FI_DEV_FABRIC_HEALTH_MASK",
        unit: "bitmask",
        symbol: FABRIC,
        tier: Slow,
        help: "Health of the GPU's NVLink fabric (bitmask of NVML_GPU_FABRIC_HEALTH_MASK).",
        absent: NO_FABRIC,
        ..gauge(Read(|p| p.fabric_health_mask()))
    },
    Metric {
        name: "DCGM_FI_DEV_FABRIC_HEALTH_SUMMARY",
        unit: "enum",
        symbol: FABRIC,
        tier: Slow,
        help: "Health summary of the GPU's NVLink fabric (NVML_GPU_FABRIC_HEALTH_SUMMARY).",
        absent: NO_FABRIC,
        ..gauge(Read(|p| p.fabric_health_summary()))
    },
    Metric {
        name: "DCGM_FI_CUDA_DRIVER_VERSION",
        unit: "int",
        symbol: "nvmlSystemGetCudaDriverVersion_v2",
        tier: Slow,
        help: "CUDA version supported by the driver: 12040 is 12.4.",
        ..gauge(Read(|p| p.cuda_version()))
    },
    Metric {
        name: "DCGM_FI_DEV_PCI_COMBINED_ID",
        unit: "id",
        symbol: PCI,
        tier: Slow,
        help: "PCI device ID times 65536, plus the vendor ID.",
        absent: NO_PCI,
        ..gauge(Read(|p| p.pci_device_id()))
    },
    Metric {
        name: "DCGM_FI_DEV_PCI_SUBSYS_ID",
        unit: "id",
        symbol: PCI,
        tier: Slow,
        help: "PCI subsystem ID times 65536, plus the subsystem vendor ID.",
        absent: NO_PCI,
        ..gauge(Read(|p| p.pci_subsystem_id()))
    },
    Metric {
        name: "DCGM_FI_DEV_GPM_SUPPORT",
        unit: "bool",
        symbol: "nvmlGpmQueryDeviceSupport",
        tier: Slow,
        help: "1 if the GPU has GPM metrics: those of DCGM_FI_PROF other than bytes.",
        absent: "drivers before 525",
        ..gauge(Read(|p| p.gpm_support()))
    },
    Metric {
        name: "DCGM_FI_DEV_PCIE_CORRECTABLE_ERROR_TOTAL",
        unit: "count",
        symbol: BATCH,
        tier: Slow,
        help: "Correctable errors of the PCIe link.",
        absent: "drivers before 535",
        ..counter(Field(Id::of(field_id::NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS), Ok))
    },
];

fn kilobytes(bytes_per_second: f64) -> f64 {
    (bytes_per_second / 1000.0).trunc()
}
