//! Rows that are labels of other series.

use crate::catalog::metric::{Metric, gauge};
use crate::catalog::source::InfoLabelSource;
use crate::nvml::device_info;
use crate::policy::Tier::Slow;

/// Rows that are a label of every series of a GPU and have no series of their own.
pub const INFO_LABELS: &[Metric<InfoLabelSource>] = &[
    Metric {
        name: "DCGM_FI_DRIVER_VERSION",
        unit: "text",
        symbol: "nvmlSystemGetDriverVersion",
        tier: Slow,
        help: "Driver version.",
        ..gauge(InfoLabelSource::Driver(|driver| &driver.version))
    },
    Metric {
        name: "DCGM_FI_NVML_VERSION",
        unit: "text",
        symbol: "nvmlSystemGetNVMLVersion",
        tier: Slow,
        help: "NVML version.",
        ..gauge(InfoLabelSource::Driver(|driver| &driver.nvml_version))
    },
    Metric {
        name: "DCGM_FI_DEV_NAME",
        unit: "text",
        symbol: "nvmlDeviceGetName",
        tier: Slow,
        help: "Product name of the GPU.",
        ..gauge(InfoLabelSource::Gpu(|gpu| &gpu.name))
    },
    Metric {
        name: "DCGM_FI_DEV_UUID",
        unit: "text",
        symbol: "nvmlDeviceGetUUID",
        tier: Slow,
        help: "UUID of the GPU; for a GPU instance, of the parent GPU.",
        ..gauge(InfoLabelSource::Gpu(|gpu| &gpu.uuid))
    },
    Metric {
        name: "DCGM_FI_DEV_PCI_BUSID",
        unit: "text",
        symbol: "nvmlDeviceGetPciInfo_v3",
        tier: Slow,
        help: "PCI bus ID of the GPU.",
        ..gauge(InfoLabelSource::Gpu(|gpu| &gpu.pci_bus_id))
    },
    Metric {
        name: "DCGM_FI_DEV_BRAND",
        unit: "text",
        symbol: "nvmlDeviceGetBrand",
        tier: Slow,
        help: "Product brand of the GPU.",
        ..gauge(InfoLabelSource::Read(device_info::brand))
    },
    Metric {
        name: "DCGM_FI_DEV_SERIAL",
        unit: "text",
        symbol: "nvmlDeviceGetSerial",
        tier: Slow,
        help: "Serial number of the board.",
        absent: "consumer boards",
        ..gauge(InfoLabelSource::Read(device_info::serial))
    },
    Metric {
        name: "DCGM_FI_DEV_OEM_INFOROM_VER",
        unit: "text",
        symbol: "nvmlDeviceGetInforomVersion",
        tier: Slow,
        help: "Version of the InfoROM OEM object.",
        absent: "consumer boards",
        ..gauge(InfoLabelSource::Read(device_info::inforom_oem))
    },
    Metric {
        name: "DCGM_FI_DEV_ECC_INFOROM_VER",
        unit: "text",
        symbol: "nvmlDeviceGetInforomVersion",
        tier: Slow,
        help: "Version of the InfoROM ECC object.",
        absent: "boards without ECC",
        ..gauge(InfoLabelSource::Read(device_info::inforom_ecc))
    },
    Metric {
        name: "DCGM_FI_DEV_POWER_INFOROM_VER",
        unit: "text",
        symbol: "nvmlDeviceGetInforomVersion",
        tier: Slow,
        help: "Version of the InfoROM power management object.",
        absent: "boards without this object",
        ..gauge(InfoLabelSource::Read(device_info::inforom_power))
    },
    Metric {
        name: "DCGM_FI_DEV_INFOROM_IMAGE_VER",
        unit: "text",
        symbol: "nvmlDeviceGetInforomImageVersion",
        tier: Slow,
        help: "Version of the InfoROM image.",
        absent: "consumer boards",
        ..gauge(InfoLabelSource::Read(device_info::inforom))
    },
    Metric {
        name: "DCGM_FI_DEV_VBIOS_VERSION",
        unit: "text",
        symbol: "nvmlDeviceGetVbiosVersion",
        tier: Slow,
        help: "VBIOS version.",
        ..gauge(InfoLabelSource::Read(device_info::vbios))
    },
    Metric {
        name: "DCGM_FI_DEV_FABRIC_CLUSTER_UUID",
        unit: "text",
        symbol: "nvmlDeviceGetGpuFabricInfoV",
        tier: Slow,
        help: "UUID of the cluster of the NVLink fabric.",
        absent: "nodes without a fabric of several nodes",
        ..gauge(InfoLabelSource::Read(device_info::cluster_uuid))
    },
    Metric {
        name: "DCGM_FI_DEV_PLATFORM_CHASSIS_SERIAL_NUMBER",
        unit: "text",
        symbol: "nvmlDeviceGetPlatformInfo",
        tier: Slow,
        help: "Serial number of the chassis.",
        absent: "before Blackwell, and boards that are not in a rack",
        ..gauge(InfoLabelSource::Read(device_info::chassis_serial))
    },
    Metric {
        name: "DCGM_FI_DEV_PLATFORM_INFINIBAND_GUID",
        unit: "text",
        symbol: "nvmlDeviceGetPlatformInfo",
        tier: Slow,
        help: "InfiniBand GUID of the GPU, hexadecimal.",
        absent: "before Blackwell, and boards that are not in a rack",
        ..gauge(InfoLabelSource::Read(device_info::infiniband_guid))
    },
];
