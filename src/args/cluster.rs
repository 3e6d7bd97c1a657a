//! Flags for the sources of pods and device allocations.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use crate::cluster::Sources;
use crate::kube::address::Address;
use crate::kube::allocation::{AllocationOptions, MemoryUnit, RESERVATION_NAMESPACES};
use crate::kube::endpoint::{Endpoint, EndpointAuth, parse_url};
use crate::kube::node_label::LabelRequirement;
use crate::kube::node_name::{NodeName, NodeNameError};
use crate::kube::pods_api::PodsApiIntervals;
use crate::kube::watch_timings::WatchTimings;
use crate::labels::{Dialect, LabelSchema};
use crate::model::Problem;

/// Flags for the sources of pods and device allocations.
#[derive(Debug, Args)]
pub(super) struct ClusterArgs {
    /// Kubeconfig file for the API server [default: the service account, inside a cluster]
    #[arg(long, env = "NVML_EXPORTER_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Socket of the kubelet's Pods API (Kubernetes 1.36 and later), from which the pods are read while it
    /// responds; empty to ignore it
    #[arg(
        long,
        env = "NVML_EXPORTER_PODS_API_SOCKET",
        value_name = "PATH",
        default_value = PODS_API
    )]
    pods_api_socket: String,

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

    /// Namespaces of the pods that reserve GPUs for GPU fractions (KAI Scheduler, Run:ai); pods in
    /// them are trusted
    #[arg(
        long,
        env = "NVML_EXPORTER_GPU_RESERVATION_NAMESPACES",
        value_name = "NAMESPACE",
        value_delimiter = ',',
        default_value = RESERVATION_NAMESPACES
    )]
    gpu_reservation_namespaces: Vec<Box<str>>,
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

/// Default socket of the kubelet's Pods API.
const PODS_API: &str = "/var/lib/kubelet/pods-api/pods-api.sock";
/// Default socket of the kubelet's `PodResources` API.
const POD_RESOURCES: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";
/// Token of the pod's service account.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

impl ClusterArgs {
    /// The kubelet or the API server that the flags name; `None` if they name neither.
    pub(super) fn pod_source(&self) -> Option<Address> {
        let token = || Some(PathBuf::from(TOKEN)).filter(|token| token.exists());
        let kubelet = self.kubelet_pods.clone().map(|url| {
            let auth = token().map_or(EndpointAuth::None, EndpointAuth::TokenFile);
            let (ca, insecure) = (self.kubelet_ca.clone(), self.kubelet_insecure_tls);
            Address::Kubelet(Endpoint { url, ca, insecure, auth })
        });
        kubelet.or_else(|| self.kubeconfig.clone().map(Address::Kubeconfig))
    }

    /// Checks the URL of the kubelet, also where a simulated node replaces it.
    ///
    /// # Errors
    /// `--kubelet-pods` is not a URL.
    pub(super) fn check_kubelet_url(&self) -> Result<(), Problem> {
        let Some(url) = &self.kubelet_pods else { return Ok(()) };
        parse_url(url).map(drop).map_err(|error| error.problem.at("--kubelet-pods"))
    }

    /// What the flags state of allocations.
    pub(super) fn allocation_options(&self) -> AllocationOptions {
        let namespaces = self.gpu_reservation_namespaces.iter();
        AllocationOptions {
            memory_unit: self.gpu_mem_unit.into(),
            reservation_namespaces: namespaces.filter(|name| !name.is_empty()).cloned().collect(),
        }
    }

    /// The sources of the node that `schema` names; `None` without a cluster.
    ///
    /// # Errors
    /// The node name is missing or invalid.
    pub(super) fn into_sources(
        self,
        schema: &LabelSchema,
        release_label: Option<LabelRequirement>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Sources>, Problem> {
        let pods = pods(self.pod_source().or_else(in_cluster), schema, warnings)?;
        let has_api_server = pods.as_ref().is_some_and(|(address, _)| {
            matches!(address, Address::InCluster | Address::Kubeconfig(_))
        });
        if release_label.is_some() && !has_api_server {
            warnings.push(NO_NODE_LABEL.to_owned());
        }
        let pods_api = kubelet_socket(self.pods_api_socket.into(), PODS_API);
        let socket = kubelet_socket(self.pod_resources_kubelet_socket, POD_RESOURCES);
        Ok((pods.is_some() || pods_api.is_some() || socket.is_some()).then(|| Sources {
            pods,
            pods_api,
            pod_resources: socket,
            pod_logs: self.pod_logs,
            container_logs: self.container_logs,
            release_label,
            timings: WatchTimings::default(),
            intervals: PodsApiIntervals::default(),
            startup_timeout: Duration::ZERO,
        }))
    }
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
    warnings: &mut Vec<String>,
) -> Result<Option<(Address, NodeName)>, Problem> {
    let Some(address) = source else { return Ok(None) };
    let node = match NodeName::new(&schema.node_name) {
        Ok(node) => node,
        Err(NodeNameError::Missing)
            if address == Address::InCluster && schema.dialect != Dialect::Ack =>
        {
            warnings.push(NO_NODE_NAME.to_owned());
            return Ok(None);
        }
        Err(error @ NodeNameError::Missing) => return Err(error.problem()),
        Err(error @ NodeNameError::Invalid(_)) => return Err(error.problem().at("--node-name")),
    };
    Ok(Some((address, node)))
}

/// Only a warning: older manifests of dcgm-exporter do not set `NODE_NAME`, although they mount a
/// service account token.
const NO_NODE_NAME: &str = "NODE_NAME is not set, so the pods of this node are not watched and the \
     series have no pod UIDs and no pod labels; set it through the downward API (spec.nodeName)";

const NO_NODE_LABEL: &str = "--release-label needs an API server, and none is configured, so the node label \
     is ignored; use --release-file or a signal instead";

/// The socket, unless it is empty, or the default one on a node without a kubelet: such a node has no
/// directory of it. Only the directory is checked, because the kubelet removes the socket when it restarts.
fn kubelet_socket(socket: PathBuf, default: &str) -> Option<PathBuf> {
    let has_kubelet = socket.parent().is_some_and(Path::is_dir);
    let is_set = !socket.as_os_str().is_empty() && socket != Path::new(default);
    (has_kubelet || is_set).then_some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::{Compat, LabelOptions};

    #[test]
    fn missing_node_name_is_only_a_warning_in_the_dcgm_exporter_dialect() {
        let watched = |dialect: Dialect, node: &str| {
            let schema = LabelSchema {
                dialect,
                hostname: String::new(),
                node_name: node.to_owned(),
                extra: Vec::new(),
                options: LabelOptions::default(),
            };
            let mut warnings = Vec::new();
            let pods = pods(Some(Address::InCluster), &schema, &mut warnings);
            (pods.map(|pods| pods.is_some()).map_err(|e| e.to_string()), warnings.len())
        };
        let dcgm = Dialect::DcgmExporter(vec![Compat::V4_8]);
        assert_eq!(watched(dcgm.clone(), ""), (Ok(false), 1));
        assert_eq!(watched(dcgm, "n1"), (Ok(true), 0));
        assert!(watched(Dialect::Ack, "").0.unwrap_err().contains("NODE_NAME"));
        let invalid = watched(Dialect::Ack, "A").0.unwrap_err();
        assert!(invalid.starts_with("--node-name: node name \"A\" is not"), "{invalid}");
    }
}
