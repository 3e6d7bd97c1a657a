//! The flags and environment names of dcgm-exporter that mean here what they mean there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use crate::attribute::DevicePods;
use crate::counters::follow::Source;
use crate::kube::api::Address;
use crate::labels::{Compat, Dialect, Style};
use crate::model::Windows;
use crate::pod_labels::Allowlist;
use crate::scope::Scope;

/// Flags that mean here what they mean there.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that users know")]
#[command(next_help_heading = "As dcgm-exporter has them")]
pub struct Adopted {
    /// Which version of dcgm-exporter to speak like, in its dialect; two at once with a comma
    #[arg(
        long,
        env = "NVML_EXPORTER_COMPAT",
        value_enum,
        value_delimiter = ',',
        default_value = "4.8"
    )]
    pub compat: Vec<CompatName>,

    /// Counters file: which families to show, as NAME, TYPE, HELP [default: those of the dialect]
    #[arg(short = 'f', long, env = "DCGM_EXPORTER_COLLECTORS", value_name = "FILE")]
    pub collectors: Option<String>,

    /// Take the counters from the key `metrics` of this `ConfigMap` instead
    #[arg(
        short = 'm',
        long,
        env = "DCGM_EXPORTER_CONFIGMAP_DATA",
        value_name = "NAMESPACE:NAME",
        default_value = "none"
    )]
    pub configmap_data: String,

    /// Name the pod that holds a device on the device's series
    #[arg(short, long, env = "DCGM_EXPORTER_KUBERNETES", value_parser = BoolishValueParser::new())]
    pub kubernetes: bool,

    /// Name the pod's UID, too
    #[arg(long, env = "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_UID", value_parser = BoolishValueParser::new())]
    pub kubernetes_enable_pod_uid: bool,

    /// Add the pod's labels, too
    #[arg(long, env = "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_LABELS", value_parser = BoolishValueParser::new())]
    pub kubernetes_enable_pod_labels: bool,

    /// Only the pod's labels that one of these matches [default: all]
    #[arg(
        long,
        env = "DCGM_EXPORTER_KUBERNETES_POD_LABEL_ALLOWLIST_REGEX",
        value_name = "REGEX",
        value_delimiter = ','
    )]
    pub kubernetes_pod_label_allowlist_regex: Vec<String>,

    /// Name the claim that a device was given by, too
    #[arg(long, env = "KUBERNETES_ENABLE_DRA", value_parser = BoolishValueParser::new())]
    pub kubernetes_enable_dra: bool,

    /// Repeat the series of a GPU that is shared for each container that has a part of it
    #[arg(long, env = "KUBERNETES_VIRTUAL_GPUS", value_parser = BoolishValueParser::new())]
    pub kubernetes_virtual_gpus: bool,

    /// How device ids name GPUs; each is understood without being told
    #[arg(long, env = "DCGM_EXPORTER_KUBERNETES_GPU_ID_TYPE", value_enum, default_value = "uid")]
    pub kubernetes_gpu_id_type: GpuIdType,

    /// More resource names whose device ids are GPUs'; each is recognised without being told
    #[arg(long, env = "NVIDIA_RESOURCE_NAMES", value_name = "NAME", value_delimiter = ',')]
    pub nvidia_resource_names: Vec<String>,

    /// Devices with series: `f` (GPU instances where there are some, else GPUs), `g[:LIST]`,
    /// `i[:LIST]`, `g+i` [default: g+i; in the dcgm-exporter dialect f]
    #[arg(short, long, env = "DCGM_EXPORTER_DEVICES_STR", value_name = "DEVICES")]
    pub devices: Option<String>,

    /// The label names of dcgm-exporter's first versions
    #[arg(short = 'o', long, env = "DCGM_EXPORTER_USE_OLD_NAMESPACE", value_parser = BoolishValueParser::new())]
    pub use_old_namespace: bool,

    /// No label with the host's name
    #[arg(short, long, env = "DCGM_EXPORTER_NO_HOSTNAME", value_parser = BoolishValueParser::new())]
    pub no_hostname: bool,

    /// Hyphens instead of blanks in the model's name
    #[arg(long, alias = "rbmn", env = "DCGM_EXPORTER_REPLACE_BLANKS_IN_MODEL_NAME", value_parser = BoolishValueParser::new())]
    pub replace_blanks_in_model_name: bool,

    /// How far back `DCGM_EXP_XID_ERRORS_COUNT` looks, in milliseconds
    #[arg(
        short,
        long,
        env = "DCGM_EXPORTER_XID_COUNT_WINDOW_SIZE",
        value_name = "MS",
        default_value_t = 300_000,
        value_parser = clap::value_parser!(u64).range(1_000..=86_400_000)
    )]
    pub xid_count_window_size: u64,

    /// How far back `DCGM_EXP_CLOCK_EVENTS_COUNT` looks, in milliseconds
    #[arg(
        long,
        env = "DCGM_EXPORTER_CLOCK_EVENTS_COUNT_WINDOW_SIZE",
        value_name = "MS",
        default_value_t = 300_000,
        value_parser = clap::value_parser!(u64).range(1_000..=86_400_000)
    )]
    pub clock_events_count_window_size: u64,

    /// Directory with a file for each GPU (`<index>`) or GPU instance (`<index>.<id>`) that lists jobs
    #[arg(long, env = "DCGM_HPC_JOB_MAPPING_DIR", value_name = "DIR")]
    pub hpc_job_mapping_dir: Option<String>,

    /// Simulate a node, as `--mock` does
    #[arg(long, env = "DCGM_EXPORTER_USE_FAKE_GPUS", value_parser = BoolishValueParser::new())]
    pub fake_gpus: bool,

    /// Write the log as text or as JSON
    #[arg(long, env = "DCGM_EXPORTER_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// A version of dcgm-exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompatName {
    /// Until 4.8.2
    #[value(name = "4.8")]
    V4_8,
    /// 4.8.3 and 4.8.4
    #[value(name = "4.8.4")]
    V4_8_4,
    /// Since 4.9, as far as its names are established
    #[value(name = "4.9")]
    V4_9,
}

/// How device ids name GPUs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum GpuIdType {
    /// By UUID
    Uid,
    /// By device file
    DeviceName,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// An object a line
    Json,
}

/// What the flags come to.
#[derive(Debug)]
pub struct Settled {
    /// Versions of dcgm-exporter to speak like.
    pub versions: Vec<Compat>,
    /// Lesser choices of labels.
    pub style: Style,
    /// Where it is written down what is shown; none for the dialect's own.
    pub counters: Option<Source>,
    /// Which devices have series; none for the dialect's own.
    pub scope: Option<Scope>,
    /// How far back counts of a window look.
    pub windows: Windows,
    /// What the series of devices tell of the pods that hold them.
    pub device_pods: Option<DevicePods>,
    /// Whether the series of a shared GPU are repeated for those who share it.
    pub virtual_gpus: bool,
    /// Directory of the jobs of a batch system.
    pub job_directory: Option<PathBuf>,
    /// Whether to simulate a node.
    pub fake_gpus: bool,
    /// How to write the log.
    pub log_format: LogFormat,
}

impl Adopted {
    /// Checks what clap cannot. `asked` is whom the rest of the command line says to ask about pods.
    ///
    /// # Errors
    /// Names the flag, the value and the mend.
    pub fn settle(self, asked: Option<&Address>) -> anyhow::Result<Settled> {
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
            // Both kinds of ids are told apart by themselves, and so are the resources.
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
        let scope = |text: String| text.parse().with_context(|| format!("--devices {text}"));
        Ok(Settled {
            versions: versions(&compat),
            style: Style {
                no_hostname,
                old_namespace: use_old_namespace,
                replace_blanks: replace_blanks_in_model_name,
            },
            counters: counters(named(collectors), &configmap_data, asked)?,
            scope: devices.map(scope).transpose()?,
            windows: Windows {
                xids: Duration::from_millis(xid_count_window_size),
                clocks: Duration::from_millis(clock_events_count_window_size),
            },
            device_pods: kubernetes.then_some(DevicePods {
                uid: kubernetes_enable_pod_uid,
                labels: kubernetes_enable_pod_labels.then_some(allowed),
                claims: kubernetes_enable_dra,
            }),
            virtual_gpus: kubernetes && kubernetes_virtual_gpus,
            job_directory: named(hpc_job_mapping_dir),
            fake_gpus,
            log_format,
        })
    }
}

/// A path; a variable that is set to nothing names none.
fn named(path: Option<String>) -> Option<PathBuf> {
    path.filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The versions of dcgm-exporter to speak like, each once.
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

/// Unless told otherwise each dialect shows what its users are used to.
#[must_use]
pub fn default_scope(dialect: &Dialect) -> Scope {
    match dialect {
        Dialect::Ack => Scope::all(),
        Dialect::DcgmExporter(_) => Scope::Flex,
    }
}

/// Where the counters are: a `ConfigMap` goes before a file. The files that dcgm-exporter's image
/// carries stand for its defaults where they are not there.
fn counters(
    file: Option<PathBuf>,
    config_map: &str,
    asked: Option<&Address>,
) -> anyhow::Result<Option<Source>> {
    if !matches!(config_map, "" | "none") {
        let Some((namespace, name)) =
            config_map.split_once(':').filter(|(ns, name)| is_name(ns) && is_name(name))
        else {
            bail!(
                "--configmap-data {config_map}: give NAMESPACE:NAME, as in gpu-operator:counters"
            );
        };
        let address = match asked {
            Some(Address::Kubelet { .. }) | None => Address::InCluster,
            Some(address) => address.clone(),
        };
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        return Ok(Some(Source::ConfigMap { address, namespace, name }));
    }
    Ok(file.filter(|path| path.exists() || !is_in_their_image(path)).map(Source::File))
}

fn is_in_their_image(path: &Path) -> bool {
    let names = ["default-counters.csv", "dcp-metrics-included.csv"];
    names.iter().any(|name| path == Path::new("/etc/dcgm-exporter").join(name))
}

fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    !text.is_empty() && text.len() <= 253 && text.chars().all(legal)
}
