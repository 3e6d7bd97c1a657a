//! Flags and their environment twins → [`Config`].

mod config;
pub mod dcgm_exporter;
pub mod idle;
pub mod release;
mod staged;
pub mod web;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use clap::builder::BoolishValueParser;

pub use self::config::{Config, ReadConfig, ServeConfig};
use self::dcgm_exporter::{Adopted, Settled, default_scope};
use self::release::Releasing;
use self::web::Serving;
use crate::attribute::Grain;
use crate::cluster::Sources;
use crate::kube::allocation::MemoryUnit;
use crate::kube::api::{Address, NodeName};
use crate::kube::watch::Pace;
use crate::labels::{Dialect, Schema};
use crate::nvml::library_paths;
use crate::policy;
use crate::reserved_labels::ReservedLabels;
use crate::selection::Frame;

/// What is read and how it is served, as flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How often the GPUs are read and a page is published, in milliseconds
    #[arg(
        short,
        long,
        env = "DCGM_EXPORTER_INTERVAL",
        value_name = "MS",
        default_value_t = millis(policy::DEFAULT_INTERVAL),
        value_parser = clap::value_parser!(u64).range(millis(policy::MIN_INTERVAL)..=3_600_000)
    )]
    collect_interval: u64,

    /// How old an unanswered reading may be and still be served, in milliseconds; older is absent
    /// [default: three intervals, at least 15000]
    #[arg(long, env = "NVML_EXPORTER_MAX_AGE", value_name = "MS")]
    max_age: Option<u64>,

    /// Whose label names to use
    #[arg(long, env = "NVML_EXPORTER_DIALECT", value_enum, default_value_t = DialectName::Ack)]
    dialect: DialectName,

    /// What one series of the process families is about
    #[arg(long, env = "NVML_EXPORTER_PROCESS_SERIES", value_enum, default_value_t = GrainName::Process)]
    process_series: GrainName,

    /// Name of the Kubernetes node, exactly as the cluster spells it (downward API: spec.nodeName)
    #[arg(long, env = "NODE_NAME", value_name = "NAME", default_value = "")]
    node_name: String,

    /// Value of the Hostname label [default: the node name, else the host's name]
    #[arg(long, env = "NVML_EXPORTER_HOSTNAME", value_name = "NAME")]
    hostname: Option<String>,

    /// Label to add to every GPU series; may be given more than once (environment: with commas)
    #[arg(
        long,
        env = "NVML_EXPORTER_EXTRA_LABELS",
        value_name = "K=V",
        value_delimiter = ',',
        value_parser = key_value
    )]
    extra_label: Vec<(String, String)>,

    /// Simulate a node with the mock library: a built-in scenario or a scenario file
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

    /// Path of libnvidia-ml.so.1 [default: the loader's search, then the usual folders]
    #[arg(long, env = "NVML_EXPORTER_NVML_LIBRARY", value_name = "PATH")]
    nvml_library: Option<PathBuf>,

    /// Directory to read as /proc [default: /proc; with --mock, the scenario's own]
    #[arg(long, env = "NVML_EXPORTER_PROCFS", value_name = "DIR")]
    procfs: Option<PathBuf>,

    /// Kubeconfig that names the API server [default: the service account, inside a cluster]
    #[arg(long, env = "NVML_EXPORTER_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The kubelet's socket that tells which container was given which GPU
    #[arg(
        long,
        env = "DCGM_POD_RESOURCES_KUBELET_SOCKET",
        value_name = "PATH",
        default_value = POD_RESOURCES
    )]
    pod_resources_kubelet_socket: PathBuf,

    /// Ask the kubelet at this URL for the pods, instead of the API server (as `https://127.0.0.1:10250`)
    #[arg(
        long,
        env = "NVML_EXPORTER_KUBELET_PODS",
        value_name = "URL",
        conflicts_with = "kubeconfig"
    )]
    kubelet_pods: Option<String>,

    /// Certificates to check the kubelet's against [default: those of the system]
    #[arg(long, env = "NVML_EXPORTER_KUBELET_CA", value_name = "FILE", requires = "kubelet_pods")]
    kubelet_ca: Option<PathBuf>,

    /// Do not check the kubelet's certificate
    #[arg(
        long,
        env = "NVML_EXPORTER_KUBELET_INSECURE_TLS",
        requires = "kubelet_pods",
        value_parser = BoolishValueParser::new()
    )]
    kubelet_insecure_tls: bool,

    /// Directory whose names tell pods and containers while nobody else does
    #[arg(
        long,
        env = "NVML_EXPORTER_POD_LOGS",
        value_name = "DIR",
        default_value = "/var/log/pods"
    )]
    pod_logs: PathBuf,

    /// Directory whose links tell containers by their ids
    #[arg(
        long,
        env = "NVML_EXPORTER_CONTAINER_LOGS",
        value_name = "DIR",
        default_value = "/var/log/containers"
    )]
    container_logs: PathBuf,

    /// What a unit of `aliyun.com/gpu-mem` is, where the annotations do not tell
    #[arg(long, env = "NVML_EXPORTER_GPU_MEM_UNIT", value_enum, default_value_t = UnitName::Auto)]
    gpu_mem_unit: UnitName,

    #[command(flatten)]
    adopted: Adopted,

    #[command(flatten)]
    releasing: Releasing,

    #[command(flatten)]
    serving: Serving,

    /// Print one page to standard output and exit
    #[arg(long)]
    once: bool,

    /// Log more
    #[arg(long, env = "DCGM_EXPORTER_DEBUG", value_parser = BoolishValueParser::new())]
    debug: bool,

    /// What the command line asks for in vain.
    #[arg(skip)]
    remarks: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DialectName {
    /// The names of Alibaba Cloud ACK's GPU exporter
    Ack,
    /// The names of NVIDIA's dcgm-exporter
    DcgmExporter,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum UnitName {
    /// GiB, unless more of them are given than the GPU has: then MiB
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
enum GrainName {
    /// A process
    Process,
    /// All processes of a container on a GPU: their sum, at most 100 %
    Container,
}

impl From<GrainName> for Grain {
    fn from(name: GrainName) -> Self {
        match name {
            GrainName::Process => Self::Process,
            GrainName::Container => Self::Container,
        }
    }
}

/// Where the kubelet's socket is on every node.
const POD_RESOURCES: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";
/// Where a pod finds the token of its service account.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

impl Args {
    /// Adds what the command line asks for in vain, to be logged.
    #[must_use]
    pub fn with_remarks(self, remarks: Vec<String>) -> Self {
        Self { remarks, ..self }
    }

    /// Checks what clap cannot and fills in what follows from something else.
    ///
    /// # Errors
    /// Names the flag, the value and the mend.
    pub fn config(self) -> anyhow::Result<Config> {
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
            adopted,
            releasing,
            serving,
            once,
            debug,
            mut remarks,
        } = self;
        let interval = Duration::from_millis(collect_interval);
        let kubelet = kubelet_pods.map(|url| Address::Kubelet {
            url,
            ca: kubelet_ca,
            insecure: kubelet_insecure_tls,
            token: Some(PathBuf::from(TOKEN)).filter(|token| token.exists()),
        });
        let asked = kubelet.or(kubeconfig.map(Address::Kubeconfig));
        let Settled {
            versions,
            style,
            counters,
            scope,
            windows,
            device_pods,
            virtual_gpus,
            job_directory,
            fake_gpus,
            log_format,
        } = adopted.settle(asked.as_ref())?;
        let schema = Schema {
            dialect: match dialect {
                DialectName::Ack => Dialect::Ack,
                DialectName::DcgmExporter => Dialect::DcgmExporter(versions),
            },
            hostname: hostname.unwrap_or_else(|| host_name(&node_name)),
            node_name,
            extra: Vec::new(),
            style,
        };
        check_procfs(procfs.as_deref())?;
        let pods = pods(whom_to_ask(asked), &schema, &mut remarks)?;
        let socket = pod_resources(pod_resources_kubelet_socket);
        let askers = releasing.settle()?;
        let cluster = (pods.is_some() || socket.is_some()).then(|| Sources {
            pods,
            pod_resources: socket,
            pod_logs,
            container_logs,
            memory_unit: gpu_mem_unit.into(),
            label: askers.label.clone(),
            pace: Pace::default(),
            stage_patience: Duration::ZERO,
        });
        let read = ReadConfig {
            askers,
            cluster,
            counters,
            frame: Frame {
                scope: scope.unwrap_or_else(|| default_scope(&schema.dialect)),
                windows,
                virtual_gpus,
            },
            device_pods,
            job_directory,
            grain: process_series.into(),
            max_age: checked_max_age(max_age, interval)?,
            interval,
            schema: Schema { extra: checked_labels(&schema, extra_label)?, ..schema },
            mock: mock.or_else(|| fake_gpus.then(|| "demo".to_owned())),
            library: library_paths(nvml_library.as_deref()),
            procfs,
        };
        let serve = serving.settle()?;
        Ok(Config { read, serve, once, debug, log_format, remarks })
    }
}

fn check_procfs(procfs: Option<&Path>) -> anyhow::Result<()> {
    match procfs.filter(|dir| !dir.is_dir()) {
        None => Ok(()),
        Some(procfs) => bail!(
            "--procfs {}: no such directory; give the one that holds <pid>/stat",
            procfs.display()
        ),
    }
}

const fn millis(duration: Duration) -> u64 {
    duration.as_secs() * 1000 + duration.subsec_millis() as u64
}

/// In a pod without the host's network the system's host name is the pod's own, and would change
/// with every restart; the node's name does not.
fn host_name(node_name: &str) -> String {
    if !node_name.is_empty() {
        return node_name.to_owned();
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_owned()
}

/// Who knows the pods: whoever was named, or inside a cluster its API server.
fn whom_to_ask(named: Option<Address>) -> Option<Address> {
    let is_in_cluster =
        || env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(TOKEN).exists();
    named.or_else(|| is_in_cluster().then_some(Address::InCluster))
}

/// Whom to ask for the pods of which node.
fn pods(
    asked: Option<Address>,
    schema: &Schema,
    remarks: &mut Vec<String>,
) -> anyhow::Result<Option<(Address, NodeName)>> {
    if asked == Some(Address::InCluster)
        && schema.node_name.is_empty()
        && schema.dialect != Dialect::Ack
    {
        remarks.push(NODELESS.to_owned());
        return Ok(None);
    }
    asked.map(|address| Ok((address, NodeName::new(&schema.node_name)?))).transpose()
}

/// Older manifests of dcgm-exporter do not say it, and hand a token to a pod that has no use for it.
const NODELESS: &str = "NODE_NAME is not set, so the pods of this node are not watched: they are named as \
     the kubelet names them, without UIDs and labels; set it through the downward API (spec.nodeName)";

/// A node without the directory of the socket has no kubelet. The socket itself comes and goes.
fn pod_resources(socket: PathBuf) -> Option<PathBuf> {
    let is_there = socket.parent().is_some_and(Path::is_dir);
    (is_there || socket != Path::new(POD_RESOURCES)).then_some(socket)
}

fn checked_max_age(max_age: Option<u64>, interval: Duration) -> anyhow::Result<Duration> {
    let Some(max_age) = max_age.map(Duration::from_millis) else {
        return Ok(policy::default_max_age(interval));
    };
    if max_age < interval {
        bail!(
            "--max-age {}: shorter than --collect-interval {}, so every page would go empty before \
             the next; give at least the interval",
            max_age.as_millis(),
            interval.as_millis()
        );
    }
    Ok(max_age)
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected K=V, as in team=search")?;
    let mut letters = key.chars();
    let first = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !first || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_') || key.starts_with("__") {
        return Err(format!(
            "{key:?} is not a label name: letters, digits and single leading underscores only, \
             not a digit first"
        ));
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn checked_labels(
    schema: &Schema,
    labels: Vec<(String, String)>,
) -> anyhow::Result<Vec<(String, String)>> {
    let reserved = ReservedLabels::of(&schema.dialect);
    for (position, (key, _)) in labels.iter().enumerate() {
        if reserved.contains(key) {
            bail!(
                "--extra-label {key}: the exporter or the scrape job gives series a label of this \
                 name, and Prometheus refuses a label that stands twice; choose another name"
            );
        }
        if labels.iter().take(position).any(|(earlier, _)| earlier == key) {
            bail!("--extra-label {key}: given twice; keep one");
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
    struct All {
        #[command(flatten)]
        args: Args,
    }

    fn config(args: &[&str]) -> anyhow::Result<Config> {
        All::try_parse_from([&["nvml-exporter"], args].concat())?.args.config()
    }

    fn refusal(args: &[&str]) -> String {
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
    fn mock_alone_is_the_demo() {
        assert_eq!(config(&["--mock"]).unwrap().read.mock.as_deref(), Some("demo"));
        assert_eq!(config(&["--mock=faulty"]).unwrap().read.mock.as_deref(), Some("faulty"));
    }

    #[test]
    fn the_host_is_named_after_the_node() {
        let named = config(&["--node-name", "n1"]).unwrap().read.schema;
        assert_eq!((&*named.hostname, &*named.node_name), ("n1", "n1"));
        let both = config(&["--node-name", "n1", "--hostname", "h1"]).unwrap().read.schema;
        assert_eq!((&*both.hostname, &*both.node_name), ("h1", "n1"));
        assert!(!config(&[]).unwrap().read.schema.hostname.is_empty());
    }

    #[test]
    fn a_pod_of_dcgm_exporters_that_does_not_know_its_node_starts_all_the_same() {
        let settled = |flags: &[&str]| {
            let mut remarks = Vec::new();
            let schema = config(flags).unwrap().read.schema;
            let asked = pods(Some(Address::InCluster), &schema, &mut remarks);
            (asked.map(|asked| asked.is_some()).map_err(|e| e.to_string()), remarks.len())
        };
        let dcgm = "--dialect=dcgm-exporter";
        assert_eq!(settled(&[dcgm]), (Ok(false), 1));
        assert_eq!(settled(&[dcgm, "--node-name=n1"]), (Ok(true), 0));
        assert!(settled(&[]).0.unwrap_err().contains("NODE_NAME"));
    }

    #[test]
    fn every_bad_flag_names_itself_and_the_mend() {
        for (args, expected) in [
            (vec!["--address", "9400"], "--address 9400: give :PORT or HOST:PORT"),
            (vec!["--address", ":70000"], "--address :70000: give :PORT"),
            (vec!["--collect-interval", "5"], "5 is not in 100..=3600000"),
            (vec!["--max-age", "10"], "--max-age 10: shorter than --collect-interval 5000"),
            (vec!["--extra-label", "pod=x"], "--extra-label pod: the exporter or the scrape job"),
            (vec!["--extra-label", "xid=x"], "--extra-label xid: the exporter or the scrape job"),
            (
                vec!["--extra-label", "UUID=x"],
                "--extra-label UUID: the exporter or the scrape job gives series a label of this name",
            ),
            (vec!["--extra-label", "a=1", "--extra-label", "a=2"], "--extra-label a: given twice"),
            (vec!["--extra-label", "9a=1"], "\"9a\" is not a label name"),
            (vec!["--extra-label", "a"], "expected K=V"),
            (vec!["--procfs", "/no/such"], "--procfs /no/such: no such directory"),
            (vec!["--mock", "--nvml-library", "/x"], "cannot be used with"),
            (vec!["--dialect", "dcgm"], "possible values: ack, dcgm-exporter"),
        ] {
            let refusal = refusal(&args);
            assert!(refusal.contains(expected), "{args:?}: {refusal}");
        }
    }
}
