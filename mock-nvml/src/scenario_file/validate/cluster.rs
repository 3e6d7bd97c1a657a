//! Validation of the Kubernetes node and its cluster.

mod allocation;
mod claims;
mod devices;
mod faults;
mod labels;
mod pods;
pub(super) mod processes;

use std::{collections::BTreeMap, sync::Arc};

use toml::Spanned;

use crate::{
    cluster::resources::MigStrategy,
    scenario::{
        Gpu,
        claim::DraFormat,
        cluster::{CgroupFormat, Cluster, NodeLabel, Permission, Runtime},
        config_map::ConfigMap,
        recorded::RecordedCluster,
    },
    scenario_file::{
        error::{SpannedError, ValidationResult},
        tables::{ClusterTable, ConfigMapTable, NodeLabelTable, ScenarioTable},
        validate::{
            values::{parse_word, validate_name},
            windows::parse_window,
        },
    },
};

/// Versions of the kubelet's Pods API: of Kubernetes 1.37 and 1.36.
const PODS_API_VERSIONS: [(&str, &str); 2] = [("v1beta1", "v1beta1"), ("v1alpha1", "v1alpha1")];

/// The cluster of a file, if it has one; `seed` is the name of the scenario.
pub(super) fn check(
    seed: &str,
    file: &ScenarioTable,
    gpus: &[Gpu],
) -> ValidationResult<Option<Arc<Cluster>>> {
    let Some(table) = file.cluster.as_ref().or_else(|| file.pod.first().map(|_| &DEFAULT_TABLE))
    else {
        if let Some(fault) = file.cluster_fault.first() {
            let text = "the scenario has no cluster: add [cluster] or a [[pod]]";
            return Err(SpannedError::new(fault.source.span(), text));
        }
        return Ok(None);
    };
    let strategies = [("single", MigStrategy::Single), ("mixed", MigStrategy::Mixed)];
    let strategy = parse_word("mig_strategy", table.mig_strategy.as_ref(), &strategies)?;
    let strategy = strategy.unwrap_or(MigStrategy::Single);
    let (mut pods, spans) = pods::check(seed, &file.pod, gpus, strategy)?;
    let allocatable = devices::allocate(&mut pods, &spans, gpus, strategy)?;
    claims::check(&pods, &spans)?;
    let node = table.node.as_ref().map(|node| validate_name("node", node, 253)).transpose()?;
    Ok(Some(Arc::new(Cluster {
        node: node.unwrap_or_else(|| "node-1".to_owned()),
        cgroups: cgroups(table.cgroups.as_ref())?,
        runtime: runtime(table.runtime.as_ref())?,
        streaming_lists: table.streaming_lists.unwrap_or(true),
        pods_api: parse_word("pods_api", table.pods_api.as_ref(), &PODS_API_VERSIONS)?,
        dra: DraFormat { dynamic_mig: table.dynamic_mig, all_nodes: table.slices_for_all_nodes },
        labels: table.labels.iter().map(node_label).collect::<ValidationResult<_>>()?,
        denied: table.denied.iter().map(right).collect::<ValidationResult<_>>()?,
        config_maps: table.config_maps.iter().map(config_map).collect::<ValidationResult<_>>()?,
        pods,
        allocatable,
        faults: file.cluster_fault.iter().map(faults::check).collect::<ValidationResult<_>>()?,
        recorded: RecordedCluster {
            objects: table.objects.clone(),
            listed: table.listed.clone(),
            allocatable: table.allocatable.clone(),
            logs: table.logs.clone(),
        },
    })))
}

/// The `[cluster]` table of a scenario that has pods but no such table.
static DEFAULT_TABLE: ClusterTable = ClusterTable {
    node: None,
    cgroups: None,
    runtime: None,
    streaming_lists: None,
    pods_api: None,
    mig_strategy: None,
    dynamic_mig: false,
    slices_for_all_nodes: false,
    labels: vec![],
    denied: vec![],
    config_maps: vec![],
    objects: vec![],
    listed: vec![],
    allocatable: BTreeMap::new(),
    logs: vec![],
};

fn config_map(table: &ConfigMapTable) -> ValidationResult<ConfigMap> {
    Ok(ConfigMap {
        namespace: validate_name("namespace", &table.namespace, 63)?,
        name: validate_name("name", &table.name, 253)?,
        data: table.data.clone(),
    })
}

fn right(value: &Spanned<String>) -> ValidationResult<Permission> {
    let words = Permission::ALL.map(|right| format!("{} {}", right.verb, right.resource));
    let known: Vec<_> = words.iter().map(String::as_str).zip(Permission::ALL).collect();
    Ok(parse_word("denied", Some(value), &known)?.unwrap_or(Permission::ALL[0]))
}

fn node_label(table: &NodeLabelTable) -> ValidationResult<NodeLabel> {
    let during = parse_window(table.from.as_ref(), table.to.as_ref())?;
    labels::ensure_key("label", table.key.get_ref(), table.key.span())?;
    labels::ensure_value(table.value.get_ref(), table.value.span())?;
    Ok(NodeLabel { key: table.key.get_ref().clone(), value: table.value.get_ref().clone(), during })
}

fn cgroups(value: Option<&Spanned<String>>) -> ValidationResult<CgroupFormat> {
    let formats = [
        ("systemd-v2", (true, false)),
        ("cgroupfs-v2", (false, false)),
        ("systemd-v1", (true, true)),
        ("cgroupfs-v1", (false, true)),
    ];
    let (systemd, v1) = parse_word("cgroups", value, &formats)?.unwrap_or((true, false));
    Ok(CgroupFormat { systemd, v1 })
}

fn runtime(value: Option<&Spanned<String>>) -> ValidationResult<Runtime> {
    let runtimes =
        [("containerd", Runtime::Containerd), ("crio", Runtime::Crio), ("docker", Runtime::Docker)];
    Ok(parse_word("runtime", value, &runtimes)?.unwrap_or(Runtime::Containerd))
}

#[cfg(test)]
mod tests {
    use crate::scenario_file::validate::test_scenario::{GPU, error_of};

    #[test]
    fn errors_in_cluster_tables_have_line_reason_and_remedy() {
        for (text, expected) in [
            (
                "[cluster]\ncgroups = \"systemd\"\n",
                "4: cgroups = \"systemd\" is unknown: write one of \"systemd-v2\", \"cgroupfs-v2\", \
                 \"systemd-v1\", \"cgroupfs-v1\"",
            ),
            (
                "[cluster]\nruntime = \"cri-o\"\n",
                "4: runtime = \"cri-o\" is unknown, did you mean \"crio\"? write one of \"containerd\", \
                 \"crio\", \"docker\"",
            ),
            (
                "[cluster]\nnode = \"Node 1\"\n",
                "4: node = \"Node 1\" is not a name: write at most 253 lower-case letters, digits and \
                 dashes",
            ),
            (
                "[cluster]\ndenied = [\"watch node\"]\n",
                "4: denied = \"watch node\" is unknown, did you mean \"watch nodes\"? write one of \
                 \"list pods\", \"watch pods\", \"list nodes\", \"watch nodes\", \"list resourceslices\", \
                 \"get resourceclaims\", \"get configmaps\", \"create selfsubjectaccessreviews\"",
            ),
            (
                "[[cluster_fault]]\nsource = \"api\"\neffect = \"hang\"\n",
                "4: the scenario has no cluster: add [cluster] or a [[pod]]",
            ),
            (
                "[cluster]\n[[cluster_fault]]\nsource = \"etcd\"\neffect = \"hang\"\n",
                "5: source = \"etcd\" is unknown: write one of \"kubelet\", \"pods_api\", \"api\", \
                 \"resource_slices\", \"resource_claims\"",
            ),
            (
                "[cluster]\n[[cluster_fault]]\nsource = \"kubelet\"\neffect = \"expired\"\n",
                "6: the kubelet has no watches that could expire: write another effect",
            ),
            (
                "[cluster]\n[[cluster_fault]]\nsource = \"api\"\neffect = \"hang\"\ndelay = 1\n",
                "7: delay is a key of effect \"slow\" only: remove it",
            ),
        ] {
            assert_eq!(error_of(&format!("{GPU}{text}")), expected, "for\n{text}");
        }
    }

    #[test]
    fn errors_in_pod_tables_have_line_reason_and_remedy() {
        let pod = |rest: &str| format!("{GPU}[[pod]]\nname = \"p\"\n{rest}\n");
        for (text, expected) in [
            (pod("containers = []"), "5: containers is empty: write [{ name = \"main\" }]"),
            (
                pod("containers = [{ name = \"c\" }, { name = \"c\" }]"),
                "5: the name \"c\" belongs to another container: write a unique one",
            ),
            (
                pod("containers = [{ name = \"c\", gpus = [0], mig = [] }]"),
                "5: a container is allocated GPUs in one way: write only one of gpus, mig",
            ),
            (
                pod("containers = [{ name = \"c\", gpus = [1] }]"),
                "5: GPU 1 does not exist: the scenario has 1, write 0 to 0",
            ),
            (
                pod("containers = [{ name = \"c\", mig = [\"GPU-1\"] }]"),
                "5: mig: \"GPU-1\" is not a MIG device at the start of the pod: write gpu/gi, gpu/gi/ci \
                 or a UUID",
            ),
            (
                pod("containers = [{ name = \"c\", slices = { gpus = 0, replicas = 0 } }]"),
                "5: replicas = 0 is out of range: write 1 to 1000",
            ),
            (
                pod("count = 2\ncontainers = [{ name = \"c\", gpus = [0] }]"),
                "6: GPU 0 has no free device for the whole lifetime of this pod: end another pod \
                 earlier or allocate another GPU",
            ),
            (
                pod("containers = [{ name = \"c\", gpus = [0] }, \
                     { name = \"d\", slices = { gpus = 0, replicas = 2 } }]"),
                "5: GPU 0 is allocated in 2 slices here and as a whole GPU elsewhere, but a device \
                 plugin offers a GPU in one way: allocate it the same way everywhere",
            ),
            (
                pod("containers = [{ name = \"c\", ack = { gpu = 0, gib = 16 } }]"),
                "5: the node has too little aliyun.com/gpu-mem for the whole lifetime of this pod: \
                 allocate less",
            ),
            (
                pod("containers = [{ name = \"c\" }]\n[[pod]]\nname = \"p\"\n\
                     containers = [{ name = \"c\" }]"),
                "7: the name default/p belongs to another pod at the same time: write a unique name or \
                 another time",
            ),
            (
                pod("start = 5\nend = 9\ncompleted = 12\ncontainers = [{ name = \"c\" }]"),
                "7: completed = 12 is outside the lifetime of the pod: write a time from 5 s to 9 s",
            ),
            (
                pod("containers = [{ name = \"c\", restarts = [9, 9] }]"),
                "5: restarts are not ascending times within the container lifetime: write ascending ones",
            ),
            (
                pod("containers = [{ name = \"c\", kind = \"main\" }]"),
                "5: kind = \"main\" is unknown: write one of \"app\", \"init\", \"sidecar\", \"ephemeral\"",
            ),
            (
                pod(
                    "containers = [{ name = \"c\" }, { name = \"d\", kind = \"ephemeral\", gpus = 0 }]",
                ),
                "5: an API server rejects resources of an ephemeral container: remove them",
            ),
            (
                pod("start = 0\ncontainers = [{ name = \"i\", kind = \"init\", end = 9 }, \
                     { name = \"c\", start = 8 }]"),
                "6: an app container starts when all init containers have ended, at 9 s: write a later \
                 start, or end the init containers earlier",
            ),
            (
                pod("static = true\nforce_deleted = 5\ncontainers = [{ name = \"c\" }]"),
                "6: a static pod ends when its manifest is removed: write end instead",
            ),
            (
                pod("phase = \"Failed\"\ncontainers = [{ name = \"c\" }]"),
                "5: phase requires completed, which is missing: add completed",
            ),
            (
                pod("uid = \"1\"\ncontainers = [{ name = \"c\" }]"),
                "5: uid = \"1\" is not a UUID: write a UUID in lower-case hexadecimal",
            ),
        ] {
            assert_eq!(error_of(&text), expected, "for\n{text}");
        }
    }
}
