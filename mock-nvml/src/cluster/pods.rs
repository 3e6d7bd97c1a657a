//! Pod objects of the API server.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    cluster::{annotations, api::insert_key, resources},
    numeric::floor_i64,
    scenario::{
        Gpu,
        cluster::{Cluster, Container, ContainerKind, ContainerRun, Pod, Runtime},
    },
};

/// Age in seconds at world time 0 of pods without a start time.
const INITIAL_AGE: f64 = 600.0;

/// Serializes the pods of a cluster at one world time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodSerializer<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) gpus: &'a [Gpu],
    /// World time 0 in seconds since the Unix epoch.
    pub(crate) epoch: f64,
    /// World time in seconds.
    pub(crate) time: f64,
}

impl PodSerializer<'_> {
    /// The objects of all pods that the API server has, without resource versions.
    pub(crate) fn pods(&self) -> Vec<Value> {
        let pods = self.cluster.pods.iter().filter(|pod| self.has(pod));
        pods.map(|pod| self.pod(pod)).collect()
    }

    /// A static pod runs before its mirror pod exists.
    fn has(&self, pod: &Pod) -> bool {
        let lag = if pod.config_hash.is_some() { lag(pod) } else { 0.0 };
        pod.lifetime.contains(self.time) && pod.lifetime.from + lag <= self.time
    }

    fn pod(&self, pod: &Pod) -> Value {
        json!({
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": self.metadata(pod),
            "spec": self.spec(pod),
            "status": self.status(pod),
        })
    }

    fn metadata(&self, pod: &Pod) -> Value {
        let mut annotations = annotations::pod_annotations(pod, self.gpus);
        let mut metadata = json!({
            "name": pod.name,
            "namespace": pod.namespace,
            "uid": pod.uid,
            "creationTimestamp": self.stamp(pod.lifetime.from),
        });
        if let Some(hash) = &pod.config_hash {
            let seen = self.stamp(pod.lifetime.from);
            for (key, value) in
                [("hash", hash), ("mirror", hash), ("seen", &seen), ("source", &"file".to_owned())]
            {
                annotations.insert(format!("kubernetes.io/config.{key}"), value.clone());
            }
            insert_key(
                &mut metadata,
                "creationTimestamp",
                self.stamp(pod.lifetime.from + lag(pod)),
            );
            insert_key(
                &mut metadata,
                "ownerReferences",
                json!([{
                    "apiVersion": "v1",
                    "kind": "Node",
                    "name": self.cluster.node,
                    "uid": "00000000-0000-4000-8000-000000000001",
                    "controller": true,
                }]),
            );
        }
        if !annotations.is_empty() {
            insert_key(&mut metadata, "annotations", json!(annotations));
        }
        if !pod.labels.is_empty() {
            insert_key(&mut metadata, "labels", json!(pod.labels));
        }
        if let Some(deleting) = pod.deletion_time.filter(|deleting| *deleting <= self.time) {
            insert_key(&mut metadata, "deletionTimestamp", self.stamp(deleting + 30.0));
            insert_key(&mut metadata, "deletionGracePeriodSeconds", 30);
        }
        metadata
    }

    fn spec(&self, pod: &Pod) -> Value {
        let containers = |kinds: &[ContainerKind]| -> Vec<Value> {
            let of = pod.containers.iter().filter(|container| kinds.contains(&container.kind));
            of.map(container).collect()
        };
        let mut spec = json!({
            "nodeName": self.cluster.node,
            "containers": containers(&[ContainerKind::App]),
            "restartPolicy": if pod.completion_time.is_some() { "Never" } else { "Always" },
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "serviceAccountName": "default",
            "terminationGracePeriodSeconds": 30,
            "securityContext": {},
        });
        for (key, kinds) in [
            ("initContainers", &[ContainerKind::Init, ContainerKind::Sidecar][..]),
            ("ephemeralContainers", &[ContainerKind::Ephemeral][..]),
        ] {
            let containers = containers(kinds);
            if !containers.is_empty() {
                insert_key(&mut spec, key, containers);
            }
        }
        let claims: BTreeSet<&str> = pod.containers.iter().filter_map(claim).collect();
        if !claims.is_empty() {
            let claim = |name: &&str| json!({ "name": name, "resourceClaimName": name });
            insert_key(&mut spec, "resourceClaims", claims.iter().map(claim).collect::<Vec<_>>());
        }
        spec
    }

    fn status(&self, pod: &Pod) -> Value {
        let phase = self.phase(pod);
        let conditions = conditions(&self.stamp(pod.lifetime.from), phase, self.is_ready(pod));
        let mut status = json!({
            "phase": phase,
            "qosClass": pod.qos.name(),
            "startTime": self.stamp(pod.lifetime.from),
            "hostIP": "127.0.0.1",
            "hostIPs": [{ "ip": "127.0.0.1" }],
            "conditions": conditions,
        });
        for (key, kinds) in [
            ("containerStatuses", &[ContainerKind::App][..]),
            ("initContainerStatuses", &[ContainerKind::Init, ContainerKind::Sidecar][..]),
            ("ephemeralContainerStatuses", &[ContainerKind::Ephemeral][..]),
        ] {
            let of = pod.containers.iter().filter(|container| kinds.contains(&container.kind));
            let statuses: Vec<_> = of.map(|container| self.container(pod, container)).collect();
            if !statuses.is_empty() {
                insert_key(&mut status, key, statuses);
            }
        }
        status
    }

    fn phase(&self, pod: &Pod) -> &'static str {
        if pod.completion_time.is_some_and(|end| end + lag(pod) <= self.time) {
            return if pod.failed { "Failed" } else { "Succeeded" };
        }
        let started = |container: &Container| self.seen(container).is_some();
        if pod.containers_of_kind(ContainerKind::App).any(started) { "Running" } else { "Pending" }
    }

    fn is_ready(&self, pod: &Pod) -> bool {
        let runs = |container: &Container| {
            self.seen(container)
                .is_some_and(|(_, run)| run.during.contains(self.time - container.status_lag))
        };
        pod.containers_of_kind(ContainerKind::App).all(runs)
    }

    /// The latest run in the status of the container, and its index: the status lags behind.
    fn seen<'c>(&self, container: &'c Container) -> Option<(usize, &'c ContainerRun)> {
        let seen = self.time - container.status_lag;
        container.runs.iter().enumerate().rfind(|(_, run)| run.during.from <= seen)
    }

    fn container(&self, pod: &Pod, container: &Container) -> Value {
        let seen = self.time - container.status_lag;
        let found = self.seen(container);
        let runs = found.is_some_and(|(_, run)| run.during.contains(seen));
        let image = image(container);
        let mut status = json!({
            "name": container.name,
            "image": image,
            "imageID": found.map(|_| format!("{image}@sha256:0")).unwrap_or_default(),
            "ready": runs || (container.kind == ContainerKind::Init && found.is_some()),
            "started": runs,
            "restartCount": found.map_or(0, |(at, _)| at),
            "lastState": {},
        });
        let Some((at, run)) = found else {
            let waits = |init: &Container| {
                self.seen(init)
                    .is_none_or(|(_, run)| run.during.contains(self.time - init.status_lag))
            };
            let initializing = container.kind == ContainerKind::App
                && pod.containers_of_kind(ContainerKind::Init).any(waits);
            let reason = if initializing { "PodInitializing" } else { "ContainerCreating" };
            insert_key(&mut status, "state", json!({ "waiting": { "reason": reason } }));
            return status;
        };
        let restarts = at.checked_sub(1).and_then(|before| container.runs.get(before));
        insert_key(&mut status, "containerID", self.id(run));
        if let Some(before) = restarts {
            insert_key(&mut status, "lastState", self.terminated(before, true));
        }
        insert_key(
            &mut status,
            "state",
            if runs {
                json!({ "running": { "startedAt": self.stamp(run.during.from) } })
            } else {
                self.terminated(run, pod.failed)
            },
        );
        status
    }

    fn terminated(&self, run: &ContainerRun, failed: bool) -> Value {
        json!({ "terminated": {
            "containerID": self.id(run),
            "exitCode": i32::from(failed),
            "reason": if failed { "Error" } else { "Completed" },
            "startedAt": self.stamp(run.during.from),
            "finishedAt": self.stamp(run.during.to),
        } })
    }

    fn id(&self, run: &ContainerRun) -> String {
        let runtime = match self.cluster.runtime {
            Runtime::Containerd => "containerd",
            Runtime::Crio => "cri-o",
            Runtime::Docker => "docker",
        };
        format!("{runtime}://{}", run.id)
    }

    /// A world time as RFC 3339 timestamp.
    fn stamp(&self, time: f64) -> String {
        let seconds = floor_i64(self.epoch + time.max(-INITIAL_AGE));
        jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
    }
}

/// The longest status lag of its containers, in seconds.
fn lag(pod: &Pod) -> f64 {
    pod.containers.iter().map(|container| container.status_lag).fold(0.0, f64::max)
}

/// Limits of a container: those of its allocation, overridden by those of the scenario.
pub(crate) fn limits(container: &Container) -> BTreeMap<String, String> {
    let mut limits = resources::limits(&container.allocation);
    limits.extend(container.limits.clone());
    limits
}

fn image(container: &Container) -> String {
    format!("registry.example/{}:1", container.name)
}

/// Name of the resource claim of a container.
fn claim(container: &Container) -> Option<&str> {
    container.allocation.claim().map(|(claim, _)| claim)
}

fn container(container: &Container) -> Value {
    let limits = limits(container);
    // Ephemeral containers cannot have resource requests.
    let mut resources = if limits.is_empty() || container.kind == ContainerKind::Ephemeral {
        json!({})
    } else {
        json!({ "limits": limits, "requests": limits })
    };
    if let Some(claim) = claim(container) {
        insert_key(&mut resources, "claims", json!([{ "name": claim }]));
    }
    let mut value = json!({
        "name": container.name,
        "image": image(container),
        "imagePullPolicy": "IfNotPresent",
        "resources": resources,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    });
    if container.kind == ContainerKind::Sidecar {
        insert_key(&mut value, "restartPolicy", "Always");
    }
    value
}

fn conditions(since: &str, phase: &str, ready: bool) -> Vec<Value> {
    let ready = ready && phase == "Running";
    [
        ("PodScheduled", true),
        ("Initialized", phase != "Pending"),
        ("ContainersReady", ready),
        ("Ready", ready),
    ]
    .map(|(kind, is)| {
        json!({
            "type": kind,
            "status": if is { "True" } else { "False" },
            "lastProbeTime": null,
            "lastTransitionTime": since,
        })
    })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{cluster, scenario};
    use crate::scenario::Scenario;

    fn at(scenario: &Scenario, time: f64) -> Vec<Value> {
        let cluster = cluster(scenario);
        PodSerializer { cluster, gpus: &scenario.gpus, epoch: 1_700_000_000.0, time }.pods()
    }

    fn state(pod: &Value) -> String {
        let status = &pod["status"]["containerStatuses"][0];
        let state = status["state"].as_object().unwrap().keys().next().unwrap();
        let id = if status["containerID"].is_string() { " with id" } else { "" };
        format!("{} {state}{id}", pod["status"]["phase"].as_str().unwrap())
    }

    #[test]
    fn status_lags_behind_the_container() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\nstart = 10\ncompleted = 20\nend = 30\nphase = \"Failed\"\n\
             containers = [{ name = \"c\", start = 12, status_lag = 2 }]\n",
        );
        for (time, expected) in [
            (10.0, "Pending waiting"),
            (13.9, "Pending waiting"),
            (14.0, "Running running with id"),
            (21.9, "Running running with id"),
            (22.0, "Failed terminated with id"),
        ] {
            assert_eq!(state(&at(&scenario, time)[0]), expected, "at {time} s");
        }
        assert!(at(&scenario, 9.9).is_empty() && at(&scenario, 30.0).is_empty());
        assert_eq!(at(&scenario, 10.0)[0]["metadata"]["creationTimestamp"], "2023-11-14T22:13:30Z");
    }

    #[test]
    fn restart_changes_the_container_id_and_sets_last_state() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\n\
             containers = [{ name = \"c\", restarts = [50.0], status_lag = 0 }]\n",
        );
        let status = |time| at(&scenario, time)[0]["status"]["containerStatuses"][0].clone();
        let (before, after) = (status(49.0), status(50.0));
        assert_eq!((&before["restartCount"], &after["restartCount"]), (&json!(0), &json!(1)));
        assert_ne!(before["containerID"], after["containerID"]);
        assert_eq!(after["lastState"]["terminated"]["containerID"], before["containerID"]);
    }

    #[test]
    fn static_pod_has_a_mirror_pod_with_another_uid() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\nnamespace = \"kube-system\"\nstart = 5\nstatic = true\n\
             containers = [{ name = \"c\", status_lag = 3 }]\n",
        );
        assert!(at(&scenario, 7.0).is_empty());
        let pod = &at(&scenario, 8.0)[0];
        let hash = pod["metadata"]["annotations"]["kubernetes.io/config.hash"].as_str().unwrap();
        assert_eq!(hash, cluster(&scenario).pods[0].kubelet_uid());
        assert_eq!(hash.len(), 32);
        assert_ne!(pod["metadata"]["uid"], hash);
        assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "Node");
    }

    #[test]
    fn each_container_kind_has_its_own_list() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\ncontainers = [\n\
             { name = \"prepare\", kind = \"init\", gpus = [0], status_lag = 0 },\n\
             { name = \"proxy\", kind = \"sidecar\" },\n\
             { name = \"main\", gpus = [1] },\n\
             { name = \"debug\", kind = \"ephemeral\", start = 3 },\n]\n",
        );
        let pod = &at(&scenario, 5.0)[0];
        let names = |of: &Value| -> Vec<String> {
            let all = of.as_array().unwrap();
            all.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&pod["spec"]["initContainers"]), ["prepare", "proxy"]);
        assert_eq!(pod["spec"]["initContainers"][1]["restartPolicy"], "Always");
        assert_eq!(names(&pod["spec"]["containers"]), ["main"]);
        assert_eq!(names(&pod["status"]["ephemeralContainerStatuses"]), ["debug"]);
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], "1");
        // The init container never ends, so the app container waits.
        let main = &pod["status"]["containerStatuses"][0];
        assert_eq!(main["state"]["waiting"]["reason"], "PodInitializing");
        assert_eq!(state(pod), "Pending waiting");
    }
}
