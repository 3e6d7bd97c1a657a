//! Validation of the Kubernetes node.

mod claims;
mod faults;
mod holding;
mod pods;
mod processes;

use std::{ops::Range, sync::Arc};

use toml::Spanned;

pub(super) use self::processes::place;
use crate::{
    cluster::devices::{Plugins, Strategy},
    scenario::{
        Gpu, Window,
        check::during,
        cluster::{Cgroups, Cluster, NodeLabel, Right, Runtime},
        complaint::{Checked, Flaw, ensure, suggestion},
        file::{ClusterTable, File, NodeLabelTable},
    },
};

/// The cluster of a file, if it has one; `seed` names the scenario.
pub(super) fn check(seed: &str, file: &File, gpus: &[Gpu]) -> Checked<Option<Arc<Cluster>>> {
    let Some(table) = file.cluster.as_ref().or_else(|| file.pod.first().map(|_| &NO_TABLE)) else {
        if let Some(fault) = file.cluster_fault.first() {
            let text = "there is no cluster that could fail: add [cluster] or a [[pod]]";
            return Err(Flaw::new(fault.source.span(), text));
        }
        return Ok(None);
    };
    let strategies = [("single", Strategy::Single), ("mixed", Strategy::Mixed)];
    let strategy = one_of("mig_strategy", table.mig_strategy.as_ref(), &strategies)?;
    let strategy = strategy.unwrap_or(Strategy::Single);
    let (mut pods, spans) = pods::check(seed, &file.pod, gpus, strategy)?;
    let mut plugins = Plugins::new(gpus.len(), strategy);
    let containers = || pods.iter().flat_map(|pod| &pod.containers);
    for (container, spans) in containers().zip(spans.iter().flatten()) {
        let noticed = plugins.notice(&container.holding);
        noticed.map_err(|text| Flaw::new(spans.held.clone(), text))?;
    }
    let others = spans.iter().flatten().flat_map(|spans| {
        let named = spans.table.devices.as_ref().map(Spanned::get_ref);
        let each = named.into_iter().flatten();
        each.flat_map(|(resource, ids)| ids.iter().map(|id| (resource.as_str(), id.as_str())))
    });
    plugins.open(gpus, containers().map(|container| &container.holding), others);
    for (pod, spans) in pods.iter_mut().zip(&spans) {
        // A pod that has done its work gives its devices back.
        let until = pod.completed.unwrap_or(f64::INFINITY).min(pod.life.to);
        let life = Window { from: pod.life.from, to: until };
        for (container, spans) in pod.containers.iter_mut().zip(spans) {
            let given = plugins.give(&container.holding, life);
            container.devices = given.map_err(|text| Flaw::new(spans.held.clone(), text))?;
            for (resource, ids) in spans.table.devices.iter().flat_map(Spanned::get_ref) {
                for id in ids {
                    let given = plugins.named(resource, id, life);
                    let given = given.map_err(|text| Flaw::new(spans.held.clone(), text))?;
                    container.devices.push(given);
                }
            }
        }
    }
    claims::check(&pods, &spans)?;
    let node = table.node.as_ref().map(|node| name("node", node, 253)).transpose()?;
    Ok(Some(Arc::new(Cluster {
        node: node.unwrap_or_else(|| "node-1".to_owned()),
        cgroups: cgroups(table.cgroups.as_ref())?,
        runtime: runtime(table.runtime.as_ref())?,
        streaming_lists: table.streaming_lists.unwrap_or(true),
        labels: table.labels.iter().map(node_label).collect::<Checked<_>>()?,
        denied: table.denied.iter().map(right).collect::<Checked<_>>()?,
        pods,
        allocatable: plugins.allocatable(),
        faults: file.cluster_fault.iter().map(faults::check).collect::<Checked<_>>()?,
    })))
}

/// What is said when a scenario has pods and no table.
static NO_TABLE: ClusterTable = ClusterTable {
    node: None,
    cgroups: None,
    runtime: None,
    streaming_lists: None,
    mig_strategy: None,
    labels: vec![],
    denied: vec![],
};

fn right(said: &Spanned<String>) -> Checked<Right> {
    let words = Right::ALL.map(|right| format!("{} {}", right.verb, right.resource));
    let known: Vec<_> = words.iter().map(String::as_str).zip(Right::ALL).collect();
    Ok(one_of("denied", Some(said), &known)?.unwrap_or(Right::ALL[0]))
}

fn node_label(said: &NodeLabelTable) -> Checked<NodeLabel> {
    let during = during(said.from.as_ref(), said.to.as_ref())?;
    Ok(NodeLabel { key: said.key.clone(), value: said.value.clone(), during })
}

fn cgroups(said: Option<&Spanned<String>>) -> Checked<Cgroups> {
    let forms = [
        ("systemd-v2", (true, false)),
        ("cgroupfs-v2", (false, false)),
        ("systemd-v1", (true, true)),
        ("cgroupfs-v1", (false, true)),
    ];
    let (systemd, v1) = one_of("cgroups", said, &forms)?.unwrap_or((true, false));
    Ok(Cgroups { systemd, v1 })
}

fn runtime(said: Option<&Spanned<String>>) -> Checked<Runtime> {
    let runtimes =
        [("containerd", Runtime::Containerd), ("crio", Runtime::Crio), ("docker", Runtime::Docker)];
    Ok(one_of("runtime", said, &runtimes)?.unwrap_or(Runtime::Containerd))
}

/// What a word means among those that are known.
fn one_of<T: Copy>(
    key: &str,
    said: Option<&Spanned<String>>,
    known: &[(&str, T)],
) -> Checked<Option<T>> {
    let Some(said) = said else { return Ok(None) };
    let word = said.get_ref().as_str();
    let found = known.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
    found.map(Some).ok_or_else(|| {
        let near = suggestion(word, known.iter().map(|(name, _)| *name));
        let near = if near.is_empty() { ":" } else { near.as_str() };
        let all: Vec<_> = known.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        Flaw::new(said.span(), format!("{key} = \"{word}\"{near} use {}", all.join(", ")))
    })
}

/// Refuses what Kubernetes would not take for a name.
fn name(key: &str, said: &Spanned<String>, most: usize) -> Checked<String> {
    let text = said.get_ref();
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let edge = |c: char| !"-.".contains(c);
    let fine = (1..=most).contains(&text.len())
        && text.chars().all(legal)
        && text.starts_with(edge)
        && text.ends_with(edge);
    ensure(fine, said, || {
        format!("{key} = \"{text}\": write lower-case letters, digits and dashes, at most {most}")
    })?;
    Ok(text.clone())
}

/// Where the parts of a container are said.
struct Spans<'a> {
    table: &'a crate::scenario::file::ContainerTable,
    held: Range<usize>,
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GPU, complaint};

    #[test]
    fn a_mistake_in_the_cluster_names_its_line_and_its_mend() {
        for (text, said) in [
            (
                "[cluster]\ncgroups = \"systemd\"\n",
                "4: cgroups = \"systemd\": use \"systemd-v2\", \"cgroupfs-v2\", \"systemd-v1\", \
                 \"cgroupfs-v1\"",
            ),
            (
                "[cluster]\nruntime = \"cri-o\"\n",
                "4: runtime = \"cri-o\", did you mean \"crio\"? use \"containerd\", \"crio\", \
                 \"docker\"",
            ),
            (
                "[cluster]\nnode = \"Node 1\"\n",
                "4: node = \"Node 1\": write lower-case letters, digits and dashes, at most 253",
            ),
            (
                "[cluster]\ndenied = [\"watch node\"]\n",
                "4: denied = \"watch node\", did you mean \"watch nodes\"? use \"list pods\", \
                 \"watch pods\", \"list nodes\", \"watch nodes\", \"list resourceslices\", \
                 \"get configmaps\", \"create selfsubjectaccessreviews\"",
            ),
            (
                "[[cluster_fault]]\nsource = \"api\"\neffect = \"hang\"\n",
                "4: there is no cluster that could fail: add [cluster] or a [[pod]]",
            ),
            (
                "[cluster]\n[[cluster_fault]]\nsource = \"etcd\"\neffect = \"hang\"\n",
                "5: source = \"etcd\": use \"kubelet\", \"api\"",
            ),
            (
                "[cluster]\n[[cluster_fault]]\nsource = \"kubelet\"\neffect = \"expired\"\n",
                "6: the kubelet has no history that could expire: use another effect",
            ),
            (
                "[cluster]\n[[cluster_fault]]\nsource = \"api\"\neffect = \"hang\"\ndelay = 1\n",
                "7: only \"slow\" takes a delay: leave it out",
            ),
        ] {
            assert_eq!(complaint(&format!("{GPU}{text}")), said, "for\n{text}");
        }
    }

    #[test]
    fn a_mistake_in_a_pod_names_its_line_and_its_mend() {
        let pod = |rest: &str| format!("{GPU}[[pod]]\nname = \"p\"\n{rest}\n");
        for (text, said) in [
            (pod("containers = []"), "5: a pod needs a container: write [{ name = \"main\" }]"),
            (
                pod("containers = [{ name = \"c\" }, { name = \"c\" }]"),
                "5: two containers are named \"c\": give each its own name",
            ),
            (
                pod("containers = [{ name = \"c\", gpus = [0], mig = [] }]"),
                "5: a container holds GPUs in one way: give one of gpus, mig",
            ),
            (
                pod("containers = [{ name = \"c\", gpus = [1] }]"),
                "5: no GPU 1: the scenario has 1, use 0 to 0",
            ),
            (
                pod("containers = [{ name = \"c\", mig = [\"GPU-1\"] }]"),
                "5: mig: \"GPU-1\" is no MIG device when the pod starts: write gpu/gi, gpu/gi/ci or a UUID",
            ),
            (
                pod("containers = [{ name = \"c\", slices = { gpus = 0, replicas = 0 } }]"),
                "5: replicas = 0: give 1 to 1000",
            ),
            (
                pod("count = 2\ncontainers = [{ name = \"c\", gpus = [0] }]"),
                "6: GPU 0 has nothing left for this pod at some time of its life: end another pod \
                 earlier or hold another GPU",
            ),
            (
                pod("containers = [{ name = \"c\", gpus = [0] }, \
                     { name = \"d\", slices = { gpus = 0, replicas = 2 } }]"),
                "5: GPU 0 is given in 2 slices here and whole elsewhere: a plugin gives a GPU in \
                 one way",
            ),
            (
                pod("containers = [{ name = \"c\", ack = { gpu = 0, gib = 16 } }]"),
                "5: the node has no aliyun.com/gpu-mem left for this pod at some time of its life: \
                 hold less",
            ),
            (
                pod("containers = [{ name = \"c\" }]\n[[pod]]\nname = \"p\"\n\
                     containers = [{ name = \"c\" }]"),
                "7: another pod is named default/p at that time: give each its own name or time",
            ),
            (
                pod("start = 5\nend = 9\ncompleted = 12\ncontainers = [{ name = \"c\" }]"),
                "7: completed = 12: it must be in the pod's life, from 5 s to 9 s",
            ),
            (
                pod("containers = [{ name = \"c\", restarts = [9, 9] }]"),
                "5: restarts: write rising times in the container's life",
            ),
            (
                pod("containers = [{ name = \"c\", kind = \"main\" }]"),
                "5: kind = \"main\": use \"app\", \"init\", \"sidecar\", \"ephemeral\"",
            ),
            (
                pod("phase = \"Failed\"\ncontainers = [{ name = \"c\" }]"),
                "5: phase is that of a pod that has done its work: give completed too",
            ),
            (
                pod("uid = \"1\"\ncontainers = [{ name = \"c\" }]"),
                "5: uid = \"1\": write a UUID in lower case hexadecimal",
            ),
        ] {
            assert_eq!(complaint(&text), said, "for\n{text}");
        }
    }
}
