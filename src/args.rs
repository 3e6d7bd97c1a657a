//! Parses flags and their environment variables into [`Config`].

mod config;
pub mod dcgm_exporter;
pub mod driver_release;
pub mod ignored_flags;
mod mock_node;
pub mod web;

use std::env;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::BoolishValueParser;

pub use self::config::{Config, ReadConfig, ServeConfig};
use self::dcgm_exporter::{DcgmArgs, DcgmConfig, default_device_selector};
use self::driver_release::ReleaseArgs;
use self::web::ServeArgs;
use crate::attribute::ProcessSeries;
use crate::cluster::Sources;
use crate::kube::address::Address;
use crate::kube::allocation::MemoryUnit;
use crate::kube::endpoint::{Endpoint, EndpointAuth};
use crate::kube::node_name::NodeName;
use crate::kube::watch_timings::WatchTimings;
use crate::labels::{Dialect, LabelSchema};
use crate::model::Problem;
use crate::nvml::library_paths;
use crate::policy;
use crate::reserved_labels::ReservedLabels;
use crate::selection::SelectionScope;

/// Command-line flags of the exporter.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Interval between collection cycles, in milliseconds
    #[arg(
        short,
        long,
        env = "DCGM_EXPORTER_INTERVAL",
        value_name = "MS",
        default_value_t = millis(policy::DEFAULT_INTERVAL),
        value_parser = milliseconds(millis(policy::MIN_INTERVAL)..=3_600_000)
    )]
    collect_interval: u64,

    /// Maximum age of a reading while its NVML call does not return, in milliseconds; older readings
    /// are not served [default: three intervals, at least 15000]
    #[arg(
        long,
        env = "NVML_EXPORTER_MAX_AGE",
        value_name = "MS",
        value_parser = milliseconds(0..=u64::MAX)
    )]
    max_age: Option<u64>,

    /// Label naming scheme
    #[arg(long, env = "NVML_EXPORTER_DIALECT", value_enum, default_value_t = DialectName::Ack)]
    dialect: DialectName,

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

    /// Simulate a node with the mock library: name of a built-in scenario or path of a scenario file
    #[arg(
        long,
        env = "NVML_EXPORTER_MOCK",
        value_name = "SCENARIO",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "demo",
        conflicts_with = "nvml_library"
    )]
    mock: Option<String>,

    /// Path of libnvidia-ml.so.1 [default: search path of the dynamic loader, then common directories]
    #[arg(long, env = "NVML_EXPORTER_NVML_LIBRARY", value_name = "PATH")]
    nvml_library: Option<PathBuf>,

    /// Directory to read as /proc [default: /proc; with --mock, the simulated one]
    #[arg(long, env = "NVML_EXPORTER_PROCFS", value_name = "DIR")]
    procfs: Option<PathBuf>,

    /// Kubeconfig file for the API server [default: the service account, inside a cluster]
    #[arg(long, env = "NVML_EXPORTER_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Socket of the kubelet's `PodResources` API, which lists the devices allocated to containers
    #[arg(
        long,
        env = "DCGM_POD_RESOURCES_KUBELET_SOCKET",
        value_name = "PATH",
        default_value = POD_RESOURCES
    )]
    pod_resources_kubelet_socket: PathBuf,

    /// Read the pods from the kubelet at this URL instead of from the API server (for example
    /// `https://127.0.0.1:10250`)
    #[arg(
        long,
        env = "NVML_EXPORTER_KUBELET_PODS",
        value_name = "URL",
        conflicts_with = "kubeconfig"
    )]
    kubelet_pods: Option<String>,

    /// CA certificates to verify the kubelet's certificate with [default: those of the system]
    #[arg(long, env = "NVML_EXPORTER_KUBELET_CA", value_name = "FILE", requires = "kubelet_pods")]
    kubelet_ca: Option<PathBuf>,

    /// Do not verify the kubelet's certificate
    #[arg(
        long,
        env = "NVML_EXPORTER_KUBELET_INSECURE_TLS",
        requires = "kubelet_pods",
        value_parser = BoolishValueParser::new()
    )]
    kubelet_insecure_tls: bool,

    /// Pod log directory (fallback for the names of pods and containers)
    #[arg(
        long,
        env = "NVML_EXPORTER_POD_LOGS",
        value_name = "DIR",
        default_value = "/var/log/pods"
    )]
    pod_logs: PathBuf,

    /// Container log directory, in which symbolic links name containers by ID
    #[arg(
        long,
        env = "NVML_EXPORTER_CONTAINER_LOGS",
        value_name = "DIR",
        default_value = "/var/log/containers"
    )]
    container_logs: PathBuf,

    /// Unit of `aliyun.com/gpu-mem`, if the pod annotations do not state it
    #[arg(long, env = "NVML_EXPORTER_GPU_MEM_UNIT", value_enum, default_value_t = UnitName::Auto)]
    gpu_mem_unit: UnitName,

    #[command(flatten)]
    dcgm: DcgmArgs,

    #[command(flatten)]
    release: ReleaseArgs,

    #[command(flatten)]
    serve: ServeArgs,

    /// Print the metrics once to standard output and exit
    #[arg(long)]
    once: bool,

    /// Enable debug logging
    #[arg(long, env = "DCGM_EXPORTER_DEBUG", value_parser = BoolishValueParser::new())]
    debug: bool,

    /// Warnings about ignored flags and environment variables.
    #[arg(skip)]
    warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DialectName {
    /// Label names of the GPU exporter of Alibaba Cloud ACK
    Ack,
    /// Label names of NVIDIA's dcgm-exporter
    DcgmExporter,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum UnitName {
    /// GiB; MiB if the allocated number exceeds the GPU's memory in GiB
    Auto,
    /// GiB
    Gib,
    /// MiB
    Mib,
}

impl From<UnitName> for MemoryUnit {
    fn from(name: UnitName) -> Self {
        match name {
            UnitName::Auto => Self::Auto,
            UnitName::Gib => Self::Gib,
            UnitName::Mib => Self::Mib,
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

/// Default socket of the kubelet's `PodResources` API.
const POD_RESOURCES: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";
/// Token of the pod's service account.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

impl Args {
    /// Adds warnings to be logged at startup.
    #[must_use]
    pub fn with_warnings(self, remarks: Vec<String>) -> Self {
        Self { warnings: remarks, ..self }
    }

    /// Validates the flags against each other and derives the values of flags that were not set.
    ///
    /// # Errors
    /// A flag has an invalid value; the message names the flag, the value and the remedy.
    pub fn into_config(self) -> Result<Config, Problem> {
        let Self {
            collect_interval,
            max_age,
            dialect,
            process_series,
            node_name,
            hostname,
            extra_label,
            mock,
            nvml_library,
            procfs,
            kubeconfig,
            pod_resources_kubelet_socket,
            kubelet_pods,
            kubelet_ca,
            kubelet_insecure_tls,
            pod_logs,
            container_logs,
            gpu_mem_unit,
            dcgm,
            release,
            serve,
            once,
            debug,
            warnings: mut remarks,
        } = self;
        let interval = Duration::from_millis(collect_interval);
        let kubelet = kubelet_pods.map(|url| {
            let token = Some(PathBuf::from(TOKEN)).filter(|token| token.exists());
            let auth = token.map_or(EndpointAuth::None, EndpointAuth::TokenFile);
            let insecure = kubelet_insecure_tls;
            Address::Kubelet(Endpoint { url, ca: kubelet_ca, insecure, auth })
        });
        let pod_source = kubelet.or(kubeconfig.map(Address::Kubeconfig));
        let DcgmConfig {
            versions,
            label_options: style,
            counters,
            device_selector: scope,
            windows,
            device_pods,
            virtual_gpus,
            job_directory,
            fake_gpus,
            log_format,
        } = dcgm.into_config(pod_source.as_ref())?;
        let schema = LabelSchema {
            dialect: match dialect {
                DialectName::Ack => Dialect::Ack,
                DialectName::DcgmExporter => Dialect::DcgmExporter(versions),
            },
            hostname: hostname.unwrap_or_else(|| host_name(&node_name)),
            node_name,
            extra: Vec::new(),
            options: style,
        };
        check_procfs(procfs.as_deref())?;
        let pods = pods(pod_source.or_else(in_cluster), &schema, &mut remarks)?;
        let socket = pod_resources(pod_resources_kubelet_socket);
        let triggers = release.into_triggers()?;
        let cluster = (pods.is_some() || socket.is_some()).then(|| Sources {
            pods,
            pod_resources: socket,
            pod_logs,
            container_logs,
            memory_unit: gpu_mem_unit.into(),
            release_label: triggers.label.clone(),
            timings: WatchTimings::default(),
            startup_timeout: Duration::ZERO,
        });
        let read = ReadConfig {
            release_triggers: triggers,
            cluster,
            counters,
            selection_scope: SelectionScope {
                devices: scope.unwrap_or_else(|| default_device_selector(&schema.dialect)),
                windows,
                virtual_gpus,
            },
            device_pods,
            job_directory,
            process_series: process_series.into(),
            max_age: checked_max_age(max_age, interval)?,
            interval,
            schema: LabelSchema { extra: checked_labels(&schema, extra_label)?, ..schema },
            mock: mock.or_else(|| fake_gpus.then(|| "demo".to_owned())),
            library: library_paths(nvml_library.as_deref()),
            procfs,
        };
        let serve = serve.into_config()?;
        Ok(Config { read, serve, once, debug, log_format, warnings: remarks })
    }
}

fn check_procfs(procfs: Option<&Path>) -> Result<(), Problem> {
    match procfs.filter(|dir| !dir.is_dir()) {
        None => Ok(()),
        Some(procfs) => Err(Problem::new(
            format!("--procfs {}: no such directory", procfs.display()),
            "give the directory that contains <pid>/stat",
        )),
    }
}

const fn millis(duration: Duration) -> u64 {
    duration.as_secs() * 1000 + duration.subsec_millis() as u64
}

/// Parses a whole number of milliseconds within `range`.
fn milliseconds(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync {
    move |text| match text.parse::<u64>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(match (*range.start(), *range.end()) {
            (0, u64::MAX) => "give a whole number of milliseconds".to_owned(),
            (min, max) => format!("give a whole number of milliseconds from {min} to {max}"),
        }),
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

/// The API server of the cluster that this process runs in; `None` outside a cluster.
fn in_cluster() -> Option<Address> {
    let is_in_cluster =
        env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(TOKEN).exists();
    is_in_cluster.then_some(Address::InCluster)
}

/// The source of the pods, and the name of this node.
fn pods(
    source: Option<Address>,
    schema: &LabelSchema,
    remarks: &mut Vec<String>,
) -> Result<Option<(Address, NodeName)>, Problem> {
    if source == Some(Address::InCluster)
        && schema.node_name.is_empty()
        && schema.dialect != Dialect::Ack
    {
        remarks.push(NO_NODE_NAME.to_owned());
        return Ok(None);
    }
    let Some(address) = source else { return Ok(None) };
    let node = NodeName::new(&schema.node_name).map_err(|error| error.problem())?;
    Ok(Some((address, node)))
}

/// Only a warning: older manifests of dcgm-exporter do not set `NODE_NAME`, although they mount a
/// service account token.
const NO_NODE_NAME: &str = "NODE_NAME is not set, so the pods of this node are not watched and the \
     series have no pod UIDs and no pod labels; set it through the downward API (spec.nodeName)";

/// Whether to read the socket: a node without its directory has no kubelet. Only the directory is
/// checked, because the kubelet removes the socket when it restarts.
fn pod_resources(socket: PathBuf) -> Option<PathBuf> {
    let has_kubelet = socket.parent().is_some_and(Path::is_dir);
    (has_kubelet || socket != Path::new(POD_RESOURCES)).then_some(socket)
}

fn checked_max_age(max_age: Option<u64>, interval: Duration) -> Result<Duration, Problem> {
    let Some(max_age) = max_age.map(Duration::from_millis) else {
        return Ok(policy::default_max_age(interval));
    };
    if max_age < interval {
        let message = format!(
            "--max-age {}: shorter than --collect-interval {}, so readings would be dropped before \
             the next cycle",
            max_age.as_millis(),
            interval.as_millis()
        );
        return Err(Problem::new(message, "give at least the interval"));
    }
    Ok(max_age)
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

fn checked_labels(
    schema: &LabelSchema,
    labels: Vec<(String, String)>,
) -> Result<Vec<(String, String)>, Problem> {
    let reserved = ReservedLabels::of(&schema.dialect);
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
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    #[command(args_override_self = true)]
    struct TestCli {
        #[command(flatten)]
        args: Args,
    }

    fn config(args: &[&str]) -> anyhow::Result<Config> {
        Ok(TestCli::try_parse_from([&["nvml-exporter"], args].concat())?.args.into_config()?)
    }

    fn error(args: &[&str]) -> String {
        format!("{:#}", config(args).err().unwrap())
    }

    #[test]
    fn defaults() {
        let Config { read, serve, once, .. } = config(&[]).unwrap();
        assert_eq!(read.interval, Duration::from_secs(5));
        assert_eq!(read.max_age, Duration::from_secs(15));
        assert_eq!(serve.addresses[0].to_string(), "[::]:9400");
        assert_eq!(serve.addresses[1].to_string(), "0.0.0.0:9400");
        assert!(read.mock.is_none() && !once);
    }

    #[test]
    fn mock_without_value_selects_the_demo_scenario() {
        assert_eq!(config(&["--mock"]).unwrap().read.mock.as_deref(), Some("demo"));
        assert_eq!(config(&["--mock=faulty"]).unwrap().read.mock.as_deref(), Some("faulty"));
    }

    #[test]
    fn hostname_defaults_to_the_node_name() {
        let named = config(&["--node-name", "n1"]).unwrap().read.schema;
        assert_eq!((&*named.hostname, &*named.node_name), ("n1", "n1"));
        let both = config(&["--node-name", "n1", "--hostname", "h1"]).unwrap().read.schema;
        assert_eq!((&*both.hostname, &*both.node_name), ("h1", "n1"));
        assert!(!config(&[]).unwrap().read.schema.hostname.is_empty());
    }

    #[test]
    fn missing_node_name_is_only_a_warning_in_the_dcgm_exporter_dialect() {
        let watched = |flags: &[&str]| {
            let mut remarks = Vec::new();
            let schema = config(flags).unwrap().read.schema;
            let pods = pods(Some(Address::InCluster), &schema, &mut remarks);
            (pods.map(|pods| pods.is_some()).map_err(|e| e.to_string()), remarks.len())
        };
        let dcgm = "--dialect=dcgm-exporter";
        assert_eq!(watched(&[dcgm]), (Ok(false), 1));
        assert_eq!(watched(&[dcgm, "--node-name=n1"]), (Ok(true), 0));
        assert!(watched(&[]).0.unwrap_err().contains("NODE_NAME"));
    }

    #[test]
    fn invalid_flag_values_are_refused_with_flag_and_remedy() {
        for (args, expected) in [
            (vec!["--address", "9400"], "--address 9400: not an address; give :PORT or HOST:PORT"),
            (vec!["--address", ":70000"], "--address :70000: not an address; give :PORT"),
            (vec!["--address", "localhost:x"], "--address localhost:x: not an address"),
            (vec!["--collect-interval", "5"], "milliseconds from 100 to 3600000"),
            (vec!["--collect-interval", "5s"], "milliseconds from 100 to 3600000"),
            (vec!["--max-age", "x"], "give a whole number of milliseconds"),
            (vec!["--max-age", "10"], "--max-age 10: shorter than --collect-interval 5000"),
            (vec!["--extra-label", "pod=x"], "--extra-label pod: the exporter or the scrape"),
            (vec!["--extra-label", "xid=x"], "--extra-label xid: the exporter or the scrape"),
            (vec!["--extra-label", "UUID=x"], "--extra-label UUID: the exporter or the scrape"),
            (
                vec!["--extra-label", "a=1", "--extra-label", "a=2"],
                "--extra-label a: specified twice",
            ),
            (vec!["--extra-label", "9a=1"], "\"9a\" is not a label name"),
            (vec!["--extra-label", "a"], "expected K=V"),
            (vec!["--procfs", "/no/such"], "--procfs /no/such: no such directory"),
            (vec!["--mock", "--nvml-library", "/x"], "cannot be used with"),
            (vec!["--dialect", "dcgm"], "possible values: ack, dcgm-exporter"),
        ] {
            let error = error(&args);
            assert!(error.contains(expected), "{args:?}: {error}");
            assert!(!error.contains("invalid digit"), "{args:?}: {error}");
        }
    }
}
