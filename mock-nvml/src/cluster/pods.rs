//! Pod objects of the API server and of the kubelet.

mod status;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    cluster::{
        annotations,
        api::insert_key,
        pods::status::{StatusSerializer, image, timestamp},
        resources,
    },
    scenario::{
        Gpu,
        cluster::{Cluster, Container, ContainerKind, Pod},
    },
};

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
        // A static pod runs before its mirror pod exists.
        let lag = |pod: &Pod| if pod.config_hash.is_some() { pod.status_lag() } else { 0.0 };
        let exists = |pod: &&Pod| {
            pod.object_lifetime().contains(self.time) && pod.lifetime.from + lag(pod) <= self.time
        };
        let object = |pod| {
            let mut metadata = self.metadata(pod);
            self.set_mirror(pod, &mut metadata);
            self.object(pod, &metadata)
        };
        let recorded = self.cluster.recorded.of_kind("Pod").cloned();
        self.cluster.pods.iter().filter(exists).map(object).chain(recorded).collect()
    }

    /// The objects that the kubelet has: the manifest of a static pod, not its mirror pod.
    pub(crate) fn kubelet_pods(&self) -> Vec<Value> {
        let exists = |pod: &&Pod| {
            pod.object_lifetime().contains(self.time)
                && self.cluster.is_known_to_kubelet(pod, self.time)
        };
        let object = |pod| self.object(pod, &self.metadata(pod));
        let recorded = self.cluster.recorded.of_kind("Pod").cloned();
        self.cluster.pods.iter().filter(exists).map(object).chain(recorded).collect()
    }

    fn object(&self, pod: &Pod, metadata: &Value) -> Value {
        let status = StatusSerializer {
            pod,
            runtime: self.cluster.runtime,
            epoch: self.epoch,
            time: self.time,
        };
        json!({
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": metadata,
            "spec": self.spec(pod),
            "status": with_extended_claim(status.status(), pod),
        })
    }

    /// Makes the metadata of a static pod those of its mirror pod.
    fn set_mirror(&self, pod: &Pod, metadata: &mut Value) {
        let Some(hash) = &pod.config_hash else { return };
        insert_key(metadata, "uid", pod.uid.as_str());
        insert_key(metadata, "creationTimestamp", self.stamp(pod.lifetime.from + pod.status_lag()));
        if let Some(annotations) = metadata.get_mut("annotations") {
            insert_key(annotations, "kubernetes.io/config.mirror", hash.as_str());
        }
        let owner = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "name": self.cluster.node,
            "uid": "00000000-0000-4000-8000-000000000001",
            "controller": true,
        });
        insert_key(metadata, "ownerReferences", json!([owner]));
    }

    /// As the kubelet has them: a static pod has the hash of its manifest as its UID.
    fn metadata(&self, pod: &Pod) -> Value {
        let mut annotations = annotations::pod_annotations(pod, self.gpus);
        let created = self.stamp(pod.lifetime.from);
        let mut metadata = json!({
            "name": pod.name,
            "namespace": pod.namespace,
            "uid": pod.kubelet_uid(),
            "creationTimestamp": created,
        });
        if let Some(hash) = &pod.config_hash {
            for (key, value) in [("hash", hash.as_str()), ("seen", &created), ("source", "file")] {
                annotations.insert(format!("kubernetes.io/config.{key}"), value.to_owned());
            }
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
            of.filter(|container| container.is_in_spec(self.time)).map(container).collect()
        };
        let restarts = pod.containers.iter().any(|container| container.runs.len() > 1);
        let restart_policy = match (pod.completion_time, restarts) {
            (None, _) => "Always",
            (Some(_), true) => "OnFailure",
            (Some(_), false) => "Never",
        };
        let mut spec = json!({
            "nodeName": self.cluster.node,
            "containers": containers(&[ContainerKind::App]),
            "restartPolicy": restart_policy,
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "serviceAccountName": "default",
            "terminationGracePeriodSeconds": 30,
            "securityContext": {},
        });
        if let Some(class) = &pod.runtime_class {
            insert_key(&mut spec, "runtimeClassName", class.as_str());
        }
        for (key, kinds) in [
            ("initContainers", &[ContainerKind::Init, ContainerKind::Sidecar][..]),
            ("ephemeralContainers", &[ContainerKind::Ephemeral][..]),
        ] {
            let containers = containers(kinds);
            if !containers.is_empty() {
                insert_key(&mut spec, key, containers);
            }
        }
        let claims: BTreeSet<&str> = pod.containers.iter().filter_map(claim_name).collect();
        if !claims.is_empty() {
            let claim = |name: &&str| json!({ "name": name, "resourceClaimName": name });
            insert_key(&mut spec, "resourceClaims", claims.iter().map(claim).collect::<Vec<_>>());
        }
        spec
    }

    fn stamp(&self, time: f64) -> String {
        timestamp(self.epoch, time)
    }
}

/// Adds the claim that the scheduler made for requests of extended resources.
fn with_extended_claim(mut status: Value, pod: &Pod) -> Value {
    let claims = pod.containers.iter().filter_map(|container| {
        let claim = container.allocation.claim().filter(|claim| claim.extended)?;
        Some((container, claim))
    });
    let mappings: Vec<_> = claims
        .clone()
        .map(|(container, _)| {
            let (container, resource) = (&container.name, resources::GPU_RESOURCE);
            json!({
                "containerName": container,
                "resourceName": resource,
                "requestName": "container-0-request-0",
            })
        })
        .collect();
    if let Some((_, claim)) = claims.clone().next() {
        let claim = json!({ "resourceClaimName": claim.name, "requestMappings": mappings });
        insert_key(&mut status, "extendedResourceClaimStatus", claim);
    }
    status
}

/// Limits of a container: those of its allocation, overridden by those of the scenario.
pub(crate) fn limits(container: &Container) -> BTreeMap<String, String> {
    let mut limits = resources::limits(&container.allocation);
    limits.extend(container.limits.clone());
    limits
}

/// Name of the resource claim in the spec of a container.
fn claim_name(container: &Container) -> Option<&str> {
    let claim = container.allocation.claim().filter(|claim| !claim.extended)?;
    Some(&claim.name)
}

fn container(container: &Container) -> Value {
    let limits = limits(container);
    // Ephemeral containers cannot have resource requests.
    let mut resources = if limits.is_empty() || container.kind == ContainerKind::Ephemeral {
        json!({})
    } else {
        json!({ "limits": limits, "requests": limits })
    };
    if let Some(claim) = claim_name(container) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{cluster, scenario};
    use crate::scenario::Scenario;

    fn at(scenario: &Scenario, time: f64) -> Vec<Value> {
        let cluster = cluster(scenario);
        PodSerializer { cluster, gpus: &scenario.gpus, epoch: 1_700_000_000.0, time }.pods()
    }

    /// Phase of a pod, and the state of its first container.
    fn state(pod: &Value) -> String {
        let phase = pod["status"]["phase"].as_str().unwrap();
        let status = &pod["status"]["containerStatuses"][0];
        let Some(state) = status["state"].as_object() else { return phase.to_owned() };
        let id = if status["containerID"].is_string() { " with id" } else { "" };
        format!("{phase} {}{id}", state.keys().next().unwrap())
    }

    /// Status of one condition of a pod.
    fn condition(pod: &Value, kind: &str) -> Option<String> {
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|condition| condition["type"] == kind)?;
        found["status"].as_str().map(str::to_owned)
    }

    #[test]
    fn status_lags_behind_the_container() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\nstart = 10\ncompleted = 20\nend = 30\nphase = \"Failed\"\n\
             containers = [{ name = \"c\", start = 12, status_lag = 2 }]\n",
        );
        for (time, expected) in [
            (10.0, "Pending"),
            (11.9, "Pending"),
            (12.0, "Pending waiting"),
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
        assert_eq!(names(&pod["spec"]["ephemeralContainers"]), ["debug"]);
        assert!(at(&scenario, 2.9)[0]["spec"]["ephemeralContainers"].is_null(), "not added yet");
        assert_eq!(names(&pod["status"]["ephemeralContainerStatuses"]), ["debug"]);
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], "1");
        // The init container never ends, so the app container waits.
        let main = &pod["status"]["containerStatuses"][0];
        assert_eq!(main["state"]["waiting"]["reason"], "PodInitializing");
        assert_eq!(state(pod), "Pending waiting");
    }

    const LIFE: &str = "[[pod]]\nname = \"p\"\nstart = 0\ndeleting = 60\ncompleted = 70\nend = 80\n\
        containers = [\n\
        { name = \"fetch\", kind = \"init\", end = 10, gpus = 0, status_lag = 0 },\n\
        { name = \"proxy\", kind = \"sidecar\", status_lag = 0 },\n\
        { name = \"convert\", kind = \"init\", end = 20, status_lag = 0 },\n\
        { name = \"main\", start = 22, gpus = 0, restarts = [40], status_lag = 0 },\n]\n";

    #[test]
    fn api_server_shows_each_phase_of_a_pod() {
        let scenario = scenario(LIFE);
        let init_states = |pod: &Value| -> Vec<String> {
            let statuses = pod["status"]["initContainerStatuses"].as_array().unwrap();
            let state =
                |status: &Value| status["state"].as_object().unwrap().keys().next().cloned();
            statuses.iter().filter_map(state).collect()
        };
        for (time, main, inits, initialized) in [
            (5.0, "Pending waiting", ["running", "waiting", "waiting"], "False"),
            (15.0, "Pending waiting", ["terminated", "running", "running"], "False"),
            (21.0, "Pending waiting", ["terminated", "running", "terminated"], "True"),
            (30.0, "Running running with id", ["terminated", "running", "terminated"], "True"),
            (65.0, "Running running with id", ["terminated", "running", "terminated"], "True"),
            (
                75.0,
                "Succeeded terminated with id",
                ["terminated", "terminated", "terminated"],
                "True",
            ),
        ] {
            let pod = &at(&scenario, time)[0];
            assert_eq!(
                (state(pod).as_str(), &*init_states(pod)),
                (main, &inits.map(String::from)[..])
            );
            assert_eq!(condition(pod, "Initialized").as_deref(), Some(initialized), "at {time} s");
            let ready = (30.0..70.0).contains(&time);
            assert_eq!(condition(pod, "Ready").as_deref() == Some("True"), ready, "at {time} s");
            assert_eq!(pod["metadata"]["deletionTimestamp"].is_string(), time >= 60.0);
        }
        assert!(at(&scenario, 80.0).is_empty());
    }

    #[test]
    fn status_is_that_of_the_scheduler_until_the_kubelet_reports_one() {
        let scenario =
            scenario("[[pod]]\nname = \"p\"\nstart = 5\ncontainers = [{ name = \"c\" }]\n");
        let [before, after] = [5.0, 6.0].map(|time| at(&scenario, time).remove(0));
        assert_eq!(before["spec"]["nodeName"], "node-1");
        let scheduled = condition(&before, "PodScheduled");
        assert_eq!((scheduled.as_deref(), condition(&before, "Ready")), (Some("True"), None));
        assert!(
            before["status"]["startTime"].is_null() && after["status"]["startTime"].is_string()
        );
    }

    #[test]
    fn init_container_of_a_failed_pod_has_completed() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\nstart = 0\ncompleted = 20\nphase = \"Failed\"\n\
             containers = [{ name = \"i\", kind = \"init\", end = 5 }, { name = \"c\" }]\n",
        );
        let status = &at(&scenario, 30.0)[0]["status"];
        let exit_code = |list: &str| status[list][0]["state"]["terminated"]["exitCode"].as_i64();
        assert_eq!(exit_code("initContainerStatuses"), Some(0));
        assert_eq!(exit_code("containerStatuses"), Some(1));
    }

    #[test]
    fn pod_deleted_by_force_is_gone_and_its_name_is_free() {
        let scenario = scenario(
            "[[pod]]\nname = \"p\"\ndeleting = 20\nforce_deleted = 30\nend = 90\n\
             containers = [{ name = \"c\", gpus = 0 }]\n\
             [[pod]]\nname = \"p\"\nstart = 40\ncontainers = [{ name = \"c\", gpus = 0 }]\n",
        );
        let uids = |time| -> Vec<String> {
            let pods = at(&scenario, time);
            pods.iter().map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
        };
        let [old, new] = &cluster(&scenario).pods[..] else { panic!("two pods") };
        assert_eq!(uids(29.9), [old.uid.as_str()]);
        assert!(uids(30.0).is_empty());
        assert_eq!(uids(40.0), [new.uid.as_str()]);
        assert_ne!(old.uid, new.uid);
    }

    #[test]
    fn kubelet_has_static_pods_with_the_uid_of_their_cgroups_and_no_mirror_pods() {
        let scenario = scenario(
            "[[pod]]\nname = \"s\"\nstart = 5\nstatic = true\nannotations = { note = \"x\" }\n\
             containers = [{ name = \"c\" }]\n\
             [[pod]]\nname = \"p\"\ncompleted = 20\nend = 90\ncontainers = [{ name = \"c\" }]\n\
             [[cluster_fault]]\nsource = \"kubelet\"\neffect = \"static_pods\"\nfrom = 50\nto = 60\n",
        );
        let cluster = cluster(&scenario);
        let at = |time| {
            let epoch = 1_700_000_000.0;
            PodSerializer { cluster, gpus: &scenario.gpus, epoch, time }.kubelet_pods()
        };
        let found = at(5.0);
        let [of_file, of_api] = &found[..] else { panic!("two pods") };
        let metadata = &of_file["metadata"];
        assert_eq!(metadata["uid"], cluster.pods[0].kubelet_uid());
        assert_eq!(metadata["annotations"]["kubernetes.io/config.source"], "file");
        assert_eq!(metadata["annotations"]["note"], "x");
        assert!(metadata["annotations"]["kubernetes.io/config.mirror"].is_null());
        assert!(metadata["ownerReferences"].is_null());
        assert_eq!(of_api["metadata"]["uid"], cluster.pods[1].uid.as_str());
        assert_eq!(state(&at(30.0)[1]), "Succeeded terminated with id", "until it is removed");
        let names = |time| {
            let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
            at(time).iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!((names(55.0), names(60.0)), (vec!["s".into()], vec!["s".into(), "p".into()]));
    }
}
