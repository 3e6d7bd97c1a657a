//! Flags for the labels of the series.

use clap::{Args, ValueEnum};

use crate::attribute::ProcessSeries;
use crate::labels::{Compat, Dialect, LabelOptions, LabelSchema};
use crate::model::Problem;
use crate::reserved_labels::ReservedLabels;
use crate::selection::Preset;

/// Flags for the labels of the series.
#[derive(Debug, Args)]
pub(super) struct SeriesArgs {
    /// Label naming scheme
    #[arg(long, env = "NVML_EXPORTER_DIALECT", value_enum, default_value_t = DialectName::Ack)]
    dialect: DialectName,

    /// Families that are exported without a counters file
    #[arg(long, env = "NVML_EXPORTER_PRESET", value_enum, default_value_t = PresetName::Dialect)]
    preset: PresetName,

    /// Warn if there are more than this many series of processes: with the metric
    /// `nvml_exporter_process_series`, and one log line. Nothing is dropped
    #[arg(long, env = "NVML_EXPORTER_MAX_PROCESS_SERIES", value_name = "N")]
    max_process_series: Option<u64>,

    /// Entity that each series of the `DCGM_CUSTOM_PROCESS_*` families describes
    #[arg(
        long,
        env = "NVML_EXPORTER_PROCESS_SERIES",
        value_enum,
        default_value_t = ProcessSeriesName::Process
    )]
    process_series: ProcessSeriesName,

    /// Name of the Kubernetes node, exactly as in the API server (downward API: spec.nodeName)
    #[arg(long, env = "NODE_NAME", value_name = "NAME", default_value = "")]
    node_name: String,

    /// Value of the Hostname label [default: the node name, else the host name]
    #[arg(long, env = "NVML_EXPORTER_HOSTNAME", value_name = "NAME")]
    hostname: Option<String>,

    /// Label to add to every GPU series; repeat the flag for several labels (environment variable:
    /// separate them with commas)
    #[arg(
        long,
        env = "NVML_EXPORTER_EXTRA_LABELS",
        value_name = "K=V",
        value_delimiter = ',',
        value_parser = key_value
    )]
    extra_label: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DialectName {
    /// Label names of the GPU exporter of Alibaba Cloud ACK
    Ack,
    /// Label names of NVIDIA's dcgm-exporter
    DcgmExporter,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PresetName {
    /// Those of the exporter that the dialect emulates
    Dialect,
    /// What autoscaling, and the shipped alerts and recording rules need
    Essential,
}

impl From<PresetName> for Preset {
    fn from(name: PresetName) -> Self {
        match name {
            PresetName::Dialect => Self::Dialect,
            PresetName::Essential => Self::Essential,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProcessSeriesName {
    /// One process
    Process,
    /// All processes of a container on a GPU: their sum, at most 100 %
    Container,
}

impl From<ProcessSeriesName> for ProcessSeries {
    fn from(name: ProcessSeriesName) -> Self {
        match name {
            ProcessSeriesName::Process => Self::PerProcess,
            ProcessSeriesName::Container => Self::PerContainer,
        }
    }
}

impl SeriesArgs {
    /// The label schema; `versions` are those of the dcgm-exporter dialect.
    ///
    /// # Errors
    /// An additional label has a name that is in use.
    pub(super) fn schema(
        &self,
        versions: Vec<Compat>,
        options: LabelOptions,
    ) -> Result<LabelSchema, Problem> {
        let dialect = match self.dialect {
            DialectName::Ack => Dialect::Ack,
            DialectName::DcgmExporter => Dialect::DcgmExporter(versions),
        };
        check_labels(&dialect, &self.extra_label)?;
        Ok(LabelSchema {
            dialect,
            node_name: self.node_name.clone(),
            hostname: self.hostname.clone().unwrap_or_else(|| host_name(&self.node_name)),
            extra: self.extra_label.clone(),
            options,
        })
    }

    /// Families that are exported without a counters file.
    pub(super) fn preset(&self) -> Preset {
        self.preset.into()
    }

    /// Number of process series above which there is a warning.
    pub(super) fn max_process_series(&self) -> Option<u64> {
        self.max_process_series
    }

    /// Entity that one process series describes.
    pub(super) fn process_series(&self) -> ProcessSeries {
        self.process_series.into()
    }
}

/// The default of the Hostname label. The node name is preferred: in a pod without the host network,
/// the host name is the pod's name and changes with every restart.
fn host_name(node_name: &str) -> String {
    if !node_name.is_empty() {
        return node_name.to_owned();
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_owned()
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected K=V, for example team=search")?;
    let mut letters = key.chars();
    let first = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !first || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_') || key.starts_with("__") {
        return Err(format!(
            "{key:?} is not a label name; use letters, digits and underscores, without a leading \
             digit and without two leading underscores"
        ));
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn check_labels(dialect: &Dialect, labels: &[(String, String)]) -> Result<(), Problem> {
    let reserved = ReservedLabels::of(dialect);
    for (position, (key, _)) in labels.iter().enumerate() {
        if reserved.contains(key) {
            let message = format!(
                "--extra-label {key}: the exporter or the scrape configuration sets a label of this \
                 name, and Prometheus rejects a series with a duplicate label"
            );
            return Err(Problem::new(message, "choose another name"));
        }
        if labels.iter().take(position).any(|(earlier, _)| earlier == key) {
            let message = format!("--extra-label {key}: specified twice");
            return Err(Problem::new(message, "remove one"));
        }
    }
    Ok(())
}
