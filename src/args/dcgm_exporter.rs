//! Flags and environment variables of dcgm-exporter that have the same meaning in this exporter.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::milliseconds;
use crate::attribute::DevicePodLabels;
use crate::counters::watcher::CountersSource;
use crate::device_selector::{DeviceSelector, DeviceSelectorError};
use crate::kube::address::Address;
use crate::labels::{Compat, Dialect, LabelOptions};
use crate::model::{Problem, Windows};
use crate::pod_labels::Allowlist;

/// Allowed windows of the `DCGM_EXP_*_COUNT` families, in milliseconds.
const COUNT_WINDOW: RangeInclusive<u64> = 1_000..=86_400_000;

/// Flags of dcgm-exporter with the same meaning.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of dcgm-exporter")]
#[command(next_help_heading = "Compatibility with dcgm-exporter")]
pub struct DcgmArgs {
    /// Version of dcgm-exporter to emulate in its dialect; separate several versions with commas
    #[arg(
        long,
        env = "NVML_EXPORTER_COMPAT",
        value_enum,
        value_delimiter = ',',
        default_value = "4.8"
    )]
    pub compat: Vec<CompatName>,

    /// Counters file that selects the families, one `NAME, TYPE, HELP` per line [default: the preset
    /// of the dialect]
    #[arg(short = 'f', long, env = "DCGM_EXPORTER_COLLECTORS", value_name = "FILE")]
    pub collectors: Option<String>,

    /// Read the counters from the key `metrics` of this `ConfigMap` instead
    #[arg(
        short = 'm',
        long,
        env = "DCGM_EXPORTER_CONFIGMAP_DATA",
        value_name = "NAMESPACE:NAME",
        default_value = "none"
    )]
    pub configmap_data: String,

    /// Add pod, namespace and container labels of the allocated container to device series
    #[arg(short, long, env = "DCGM_EXPORTER_KUBERNETES", value_parser = BoolishValueParser::new())]
    pub kubernetes: bool,

    /// Add the pod's UID to these series
    #[arg(long, env = "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_UID", value_parser = BoolishValueParser::new())]
    pub kubernetes_enable_pod_uid: bool,

    /// Add the pod's labels to these series
    #[arg(long, env = "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_LABELS", value_parser = BoolishValueParser::new())]
    pub kubernetes_enable_pod_labels: bool,

    /// Regular expressions for the keys of pod labels to add [default: all labels]
    #[arg(
        long,
        env = "DCGM_EXPORTER_KUBERNETES_POD_LABEL_ALLOWLIST_REGEX",
        value_name = "REGEX",
        value_delimiter = ','
    )]
    pub kubernetes_pod_label_allowlist_regex: Vec<String>,

    /// Add the resource claim (DRA) by which a device was allocated to these series
    #[arg(long, env = "KUBERNETES_ENABLE_DRA", value_parser = BoolishValueParser::new())]
    pub kubernetes_enable_dra: bool,

    /// Repeat the series of a shared GPU for each container that is allocated a share of it
    #[arg(long, env = "KUBERNETES_VIRTUAL_GPUS", value_parser = BoolishValueParser::new())]
    pub kubernetes_virtual_gpus: bool,

    /// Format of GPU device IDs; accepted for compatibility, the format is detected
    #[arg(long, env = "DCGM_EXPORTER_KUBERNETES_GPU_ID_TYPE", value_enum, default_value = "uid")]
    pub kubernetes_gpu_id_type: GpuIdType,

    /// Additional resource names of GPUs; accepted for compatibility, the names are detected
    #[arg(long, env = "NVIDIA_RESOURCE_NAMES", value_name = "NAME", value_delimiter = ',')]
    pub nvidia_resource_names: Vec<String>,

    /// Devices that have series: `f` (GPU instances of MIG GPUs, else whole GPUs), `g[:LIST]` (GPUs),
    /// `i[:LIST]` (GPU instances), `g+i` (both) [default: g+i; in the dcgm-exporter dialect f]
    #[arg(short, long, env = "DCGM_EXPORTER_DEVICES_STR", value_name = "DEVICES")]
    pub devices: Option<String>,

    /// Use the label names of dcgm-exporter 1.x
    #[arg(short = 'o', long, env = "DCGM_EXPORTER_USE_OLD_NAMESPACE", value_parser = BoolishValueParser::new())]
    pub use_old_namespace: bool,

    /// Omit the label with the host name
    #[arg(short, long, env = "DCGM_EXPORTER_NO_HOSTNAME", value_parser = BoolishValueParser::new())]
    pub no_hostname: bool,

    /// Replace blanks in the model name with hyphens
    #[arg(long, alias = "rbmn", env = "DCGM_EXPORTER_REPLACE_BLANKS_IN_MODEL_NAME", value_parser = BoolishValueParser::new())]
    pub replace_blanks_in_model_name: bool,

    /// Window of `DCGM_EXP_XID_ERRORS_COUNT`, in milliseconds
    #[arg(
        short,
        long,
        env = "DCGM_EXPORTER_XID_COUNT_WINDOW_SIZE",
        value_name = "MS",
        default_value_t = 300_000,
        value_parser = milliseconds(COUNT_WINDOW)
    )]
    pub xid_count_window_size: u64,

    /// Window of `DCGM_EXP_CLOCK_EVENTS_COUNT`, in milliseconds
    #[arg(
        long,
        env = "DCGM_EXPORTER_CLOCK_EVENTS_COUNT_WINDOW_SIZE",
        value_name = "MS",
        default_value_t = 300_000,
        value_parser = milliseconds(COUNT_WINDOW)
    )]
    pub clock_events_count_window_size: u64,

    /// Directory with one file per GPU (`<index>`) or GPU instance (`<index>.<id>`) that lists HPC jobs
    #[arg(long, env = "DCGM_HPC_JOB_MAPPING_DIR", value_name = "DIR")]
    pub hpc_job_mapping_dir: Option<String>,

    /// Simulate a node; same as `--mock`
    #[arg(long, env = "DCGM_EXPORTER_USE_FAKE_GPUS", value_parser = BoolishValueParser::new())]
    pub fake_gpus: bool,

    /// Format of the log
    #[arg(long, env = "DCGM_EXPORTER_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// A version of dcgm-exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompatName {
    /// Up to 4.8.2
    #[value(name = "4.8")]
    V4_8,
    /// 4.8.3 and 4.8.4
    #[value(name = "4.8.4")]
    V4_8_4,
    /// 4.9 and later, as far as the names are published
    #[value(name = "4.9")]
    V4_9,
}

/// Format of the GPU device IDs of a device plugin.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum GpuIdType {
    /// GPU UUID
    Uid,
    /// Name of the device file
    DeviceName,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Human-readable
    Text,
    /// One JSON object per line
    Json,
}

/// The validated values of [`DcgmArgs`].
#[derive(Debug)]
pub struct DcgmConfig {
    /// Versions of dcgm-exporter to emulate, sorted and without duplicates.
    pub versions: Vec<Compat>,
    /// Label options.
    pub label_options: LabelOptions,
    /// Source of the counters file; `None` for the preset of the dialect.
    pub counters: Option<CountersSource>,
    /// Devices that have series; `None` for the default of the dialect.
    pub device_selector: Option<DeviceSelector>,
    /// Windows of the `DCGM_EXP_*_COUNT` families.
    pub windows: Windows,
    /// Pod labels on device series; `None` if device series have no pod labels.
    pub device_pods: Option<DevicePodLabels>,
    /// Whether the series of a shared GPU are repeated for each container that shares it.
    pub virtual_gpus: bool,
    /// Directory of the HPC job mapping files.
    pub job_directory: Option<PathBuf>,
    /// Whether to simulate a node.
    pub fake_gpus: bool,
    /// Format of the log.
    pub log_format: LogFormat,
}

impl DcgmArgs {
    /// Validates the flags. `pod_source` is the API server or kubelet that the other flags name; a
    /// `ConfigMap` is read from the same API server.
    ///
    /// # Errors
    /// A flag has an invalid value; the message names the flag, the value and the remedy.
    pub fn into_config(self, pod_source: Option<&Address>) -> Result<DcgmConfig, Problem> {
        let Self {
            compat,
            collectors,
            configmap_data,
            kubernetes,
            kubernetes_enable_pod_uid,
            kubernetes_enable_pod_labels,
            kubernetes_pod_label_allowlist_regex,
            kubernetes_enable_dra,
            kubernetes_virtual_gpus,
            // Both formats of device IDs and all GPU resource names are detected.
            kubernetes_gpu_id_type: GpuIdType::Uid | GpuIdType::DeviceName,
            nvidia_resource_names: _,
            devices,
            use_old_namespace,
            no_hostname,
            replace_blanks_in_model_name,
            xid_count_window_size,
            clock_events_count_window_size,
            hpc_job_mapping_dir,
            fake_gpus,
            log_format,
        } = self;
        let allowed = Allowlist::new(&kubernetes_pod_label_allowlist_regex)?;
        let scope = |text: String| {
            let invalid = |e: DeviceSelectorError| e.problem().at(format!("--devices {text}"));
            text.parse().map_err(invalid)
        };
        Ok(DcgmConfig {
            versions: versions(&compat),
            label_options: LabelOptions {
                no_hostname,
                old_namespace: use_old_namespace,
                replace_blanks: replace_blanks_in_model_name,
            },
            counters: counters(non_empty_path(collectors), &configmap_data, pod_source)?,
            device_selector: devices.map(scope).transpose()?,
            windows: Windows {
                xids: Duration::from_millis(xid_count_window_size),
                clock_events: Duration::from_millis(clock_events_count_window_size),
            },
            device_pods: kubernetes.then_some(DevicePodLabels {
                uid: kubernetes_enable_pod_uid,
                labels: kubernetes_enable_pod_labels.then_some(allowed),
                claims: kubernetes_enable_dra,
            }),
            virtual_gpus: kubernetes && kubernetes_virtual_gpus,
            job_directory: non_empty_path(hpc_job_mapping_dir),
            fake_gpus,
            log_format,
        })
    }
}

/// A path; an empty environment variable counts as not set.
fn non_empty_path(path: Option<String>) -> Option<PathBuf> {
    path.filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn versions(names: &[CompatName]) -> Vec<Compat> {
    let mut versions: Vec<Compat> = names
        .iter()
        .map(|name| match name {
            CompatName::V4_8 => Compat::V4_8,
            CompatName::V4_8_4 => Compat::V4_8_4,
            CompatName::V4_9 => Compat::V4_9,
        })
        .collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}

/// The default devices of a dialect, as in the exporter that it emulates.
#[must_use]
pub fn default_device_selector(dialect: &Dialect) -> DeviceSelector {
    match dialect {
        Dialect::Ack => DeviceSelector::all(),
        Dialect::DcgmExporter(_) => DeviceSelector::Flexible,
    }
}

/// The source of the counters: a `ConfigMap` takes precedence over a file. The files that only the
/// image of dcgm-exporter contains select the preset of the dialect if they do not exist.
fn counters(
    file: Option<PathBuf>,
    config_map: &str,
    pod_source: Option<&Address>,
) -> Result<Option<CountersSource>, Problem> {
    if !matches!(config_map, "" | "none") {
        let Some((namespace, name)) =
            config_map.split_once(':').filter(|(ns, name)| is_name(ns) && is_name(name))
        else {
            return Err(Problem::new(
                format!("--configmap-data {config_map}: not a ConfigMap name"),
                "give NAMESPACE:NAME, for example gpu-operator:counters",
            ));
        };
        let address = match pod_source {
            Some(Address::Kubelet { .. }) | None => Address::InCluster,
            Some(address) => address.clone(),
        };
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        return Ok(Some(CountersSource::ConfigMap { address, namespace, name }));
    }
    Ok(file
        .filter(|path| path.exists() || !is_in_dcgm_exporter_image(path))
        .map(CountersSource::File))
}

fn is_in_dcgm_exporter_image(path: &Path) -> bool {
    let names = ["default-counters.csv", "dcp-metrics-included.csv"];
    names.iter().any(|name| path == Path::new("/etc/dcgm-exporter").join(name))
}

fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    !text.is_empty() && text.len() <= 253 && text.chars().all(legal)
}
