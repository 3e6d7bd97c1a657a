//! Flags and environment variables of dcgm-exporter that have the same meaning in this exporter.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::time::{milliseconds, within};
use crate::attribute::DevicePodLabels;
use crate::counters::watcher::CountersSource;
use crate::device_selector::{DeviceSelector, DeviceSelectorError};
use crate::kube::address::Address;
use crate::labels::{Compat, Dialect, LabelOptions};
use crate::model::{Problem, Windows};
use crate::pod_labels::Allowlist;
use crate::selection::SelectionScope;

/// Possible windows of the `DCGM_EXP_*_COUNT` families.
const COUNT_WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

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
    compat: Vec<CompatName>,

    /// Counters file that selects the families, one `NAME, TYPE, HELP` per line [default: the preset
    /// of the dialect]
    #[arg(short = 'f', long, env = "DCGM_EXPORTER_COLLECTORS", value_name = "FILE")]
    collectors: Option<String>,

    /// Read the counters from the key `metrics` of this `ConfigMap` instead
    #[arg(
        short = 'm',
        long,
        env = "DCGM_EXPORTER_CONFIGMAP_DATA",
        value_name = "NAMESPACE:NAME",
        default_value = "none"
    )]
    configmap_data: String,

    /// Add pod, namespace and container labels of the allocated container to device series
    #[arg(short, long, env = "DCGM_EXPORTER_KUBERNETES", value_parser = BoolishValueParser::new())]
    kubernetes: bool,

    /// Add the pod's UID to these series
    #[arg(long, env = "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_UID", value_parser = BoolishValueParser::new())]
    kubernetes_enable_pod_uid: bool,

    /// Add the pod's labels to these series
    #[arg(long, env = "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_LABELS", value_parser = BoolishValueParser::new())]
    kubernetes_enable_pod_labels: bool,

    /// Regular expressions for the keys of pod labels to add [default: all labels]
    #[arg(
        long,
        env = "DCGM_EXPORTER_KUBERNETES_POD_LABEL_ALLOWLIST_REGEX",
        value_name = "REGEX",
        value_delimiter = ','
    )]
    kubernetes_pod_label_allowlist_regex: Vec<String>,

    /// Add the resource claim (DRA) by which a device was allocated to these series
    #[arg(long, env = "KUBERNETES_ENABLE_DRA", value_parser = BoolishValueParser::new())]
    kubernetes_enable_dra: bool,

    /// Repeat the series of a shared GPU for each container that is allocated a share of it
    #[arg(long, env = "KUBERNETES_VIRTUAL_GPUS", value_parser = BoolishValueParser::new())]
    kubernetes_virtual_gpus: bool,

    /// Format of GPU device IDs; accepted for compatibility, the format is detected
    #[arg(long, env = "DCGM_EXPORTER_KUBERNETES_GPU_ID_TYPE", value_enum, default_value = "uid")]
    kubernetes_gpu_id_type: GpuIdType,

    /// Additional resource names of GPUs; accepted for compatibility, the names are detected
    #[arg(long, env = "NVIDIA_RESOURCE_NAMES", value_name = "NAME", value_delimiter = ',')]
    nvidia_resource_names: Vec<String>,

    /// Devices that have series: `f` (GPU instances of MIG GPUs, else whole GPUs), `g[:LIST]` (GPUs),
    /// `i[:LIST]` (GPU instances), `g+i` (both) [default: g+i; in the dcgm-exporter dialect f]
    #[arg(short, long, env = "DCGM_EXPORTER_DEVICES_STR", value_name = "DEVICES")]
    devices: Option<String>,

    /// Use the label names of dcgm-exporter 1.x
    #[arg(short = 'o', long, env = "DCGM_EXPORTER_USE_OLD_NAMESPACE", value_parser = BoolishValueParser::new())]
    use_old_namespace: bool,

    /// Omit the label with the host name
    #[arg(short, long, env = "DCGM_EXPORTER_NO_HOSTNAME", value_parser = BoolishValueParser::new())]
    no_hostname: bool,

    /// Replace blanks in the model name with hyphens
    #[arg(long, alias = "rbmn", env = "DCGM_EXPORTER_REPLACE_BLANKS_IN_MODEL_NAME", value_parser = BoolishValueParser::new())]
    replace_blanks_in_model_name: bool,

    /// Window of `DCGM_EXP_XID_ERRORS_COUNT`: milliseconds, or a duration such as 5m
    #[arg(
        short,
        long,
        env = "DCGM_EXPORTER_XID_COUNT_WINDOW_SIZE",
        value_name = "TIME",
        default_value = "300000",
        value_parser = milliseconds
    )]
    xid_count_window_size: Duration,

    /// Window of `DCGM_EXP_CLOCK_EVENTS_COUNT`: milliseconds, or a duration such as 5m
    #[arg(
        long,
        env = "DCGM_EXPORTER_CLOCK_EVENTS_COUNT_WINDOW_SIZE",
        value_name = "TIME",
        default_value = "300000",
        value_parser = milliseconds
    )]
    clock_events_count_window_size: Duration,

    /// Directory with one file per GPU (`<index>`) or GPU instance (`<index>.<id>`) that lists HPC jobs
    #[arg(long, env = "DCGM_HPC_JOB_MAPPING_DIR", value_name = "DIR")]
    hpc_job_mapping_dir: Option<String>,

    /// Simulate a node; same as `--mock`
    #[arg(long, env = "DCGM_EXPORTER_USE_FAKE_GPUS", value_parser = BoolishValueParser::new())]
    pub(super) fake_gpus: bool,

    /// Format of the log
    #[arg(
        long,
        alias = "log.format",
        env = "DCGM_EXPORTER_LOG_FORMAT",
        value_enum,
        ignore_case = true,
        default_value = "text"
    )]
    pub(super) log_format: LogFormat,
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
    /// 4.9 and later
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
    #[value(alias = "logfmt")]
    Text,
    /// One JSON object per line
    Json,
}

impl DcgmArgs {
    /// Versions of dcgm-exporter to emulate, sorted and without duplicates.
    pub(super) fn versions(&self) -> Vec<Compat> {
        let mut versions: Vec<Compat> = self
            .compat
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

    pub(super) fn label_options(&self) -> LabelOptions {
        LabelOptions {
            no_hostname: self.no_hostname,
            old_namespace: self.use_old_namespace,
            replace_blanks: self.replace_blanks_in_model_name,
        }
    }

    /// The source of the counters; `None` for the preset of the dialect. A `ConfigMap` takes precedence
    /// over a file, and is read from the API server of `pod_source`. The files that only the image of
    /// dcgm-exporter contains select the preset if they do not exist.
    ///
    /// # Errors
    /// The name of the `ConfigMap` is invalid.
    pub(super) fn counters(
        &self,
        pod_source: Option<Address>,
    ) -> Result<Option<CountersSource>, Problem> {
        let config_map = match self.configmap_data.as_str() {
            "" | "none" => {
                let file = non_empty_path(self.collectors.as_ref());
                let file = file.filter(|path| !is_in_dcgm_exporter_image(path) || path.exists());
                return Ok(file.map(CountersSource::File));
            }
            text => text,
        };
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
            Some(address) => address,
        };
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Ok(Some(CountersSource::ConfigMap { address, namespace, name }))
    }

    /// Windows of the `DCGM_EXP_*_COUNT` families.
    pub(super) fn count_windows(&self, remarks: &mut Vec<String>) -> Windows {
        let mut window = |time, flag| within(COUNT_WINDOW, time, flag, remarks);
        Windows {
            xids: window(self.xid_count_window_size, "--xid-count-window-size"),
            clock_events: window(
                self.clock_events_count_window_size,
                "--clock-events-count-window-size",
            ),
        }
    }

    /// Devices that have series, by default those of the exporter that `dialect` emulates.
    ///
    /// # Errors
    /// `--devices` is not a device selection.
    pub(super) fn selection_scope(
        &self,
        dialect: &Dialect,
        windows: Windows,
    ) -> Result<SelectionScope, Problem> {
        let devices = match (&self.devices, dialect) {
            (Some(text), _) => text.parse().map_err(|error: DeviceSelectorError| {
                error.problem().at(format!("--devices {text}"))
            })?,
            (None, Dialect::Ack) => DeviceSelector::all(),
            (None, Dialect::DcgmExporter(_)) => DeviceSelector::Flexible,
        };
        let virtual_gpus = self.kubernetes && self.kubernetes_virtual_gpus;
        Ok(SelectionScope { devices, windows, virtual_gpus })
    }

    /// Pod labels on device series; `None` if device series have no pod labels.
    ///
    /// # Errors
    /// A pattern is not a regular expression.
    pub(super) fn device_pods(&self) -> Result<Option<DevicePodLabels>, Problem> {
        let allowed = Allowlist::new(&self.kubernetes_pod_label_allowlist_regex)?;
        Ok(self.kubernetes.then(|| DevicePodLabels {
            uid: self.kubernetes_enable_pod_uid,
            labels: self.kubernetes_enable_pod_labels.then_some(allowed),
            claims: self.kubernetes_enable_dra,
        }))
    }

    /// Directory of the HPC job mapping files.
    pub(super) fn job_directory(&self) -> Option<PathBuf> {
        non_empty_path(self.hpc_job_mapping_dir.as_ref())
    }
}

/// A path; an empty environment variable counts as not set.
fn non_empty_path(path: Option<&String>) -> Option<PathBuf> {
    path.filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn is_in_dcgm_exporter_image(path: &Path) -> bool {
    let names = ["default-counters.csv", "dcp-metrics-included.csv"];
    names.iter().any(|name| path == Path::new("/etc/dcgm-exporter").join(name))
}

fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    !text.is_empty() && text.len() <= 253 && text.chars().all(legal)
}
