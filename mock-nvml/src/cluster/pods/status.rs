//! The status of a pod, as the kubelet reports it to the API server.

use serde_json::{Value, json};

use crate::{
    cluster::api::insert_key,
    numeric::floor_i64,
    scenario::cluster::{Container, ContainerKind, ContainerRun, Pod, Runtime},
};

/// Age in seconds at world time 0 of pods without a start time.
const INITIAL_AGE: f64 = 600.0;

/// Serializes the status of a pod at one world time.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatusSerializer<'a> {
    pub(super) pod: &'a Pod,
    pub(super) runtime: Runtime,
    /// World time 0 in seconds since the Unix epoch.
    pub(super) epoch: f64,
    /// World time in seconds.
    pub(super) time: f64,
}

impl StatusSerializer<'_> {
    pub(super) fn status(&self) -> Value {
        let pod = self.pod;
        let created = timestamp(self.epoch, pod.lifetime.from);
        let phase = self.phase();
        let mut status = json!({
            "phase": phase,
            "qosClass": pod.qos.name(),
            "conditions": self.conditions(&created, phase),
        });
        if !self.is_reported() {
            return status;
        }
        insert_key(&mut status, "startTime", created);
        insert_key(&mut status, "hostIP", "127.0.0.1");
        insert_key(&mut status, "hostIPs", json!([{ "ip": "127.0.0.1" }]));
        for (key, kinds) in [
            ("containerStatuses", &[ContainerKind::App][..]),
            ("initContainerStatuses", &[ContainerKind::Init, ContainerKind::Sidecar][..]),
            ("ephemeralContainerStatuses", &[ContainerKind::Ephemeral][..]),
        ] {
            let of = pod.containers.iter().filter(|container| kinds.contains(&container.kind));
            let of = of.filter(|container| container.is_in_spec(self.time));
            let statuses: Vec<_> = of.map(|container| self.container(container)).collect();
            if !statuses.is_empty() {
                insert_key(&mut status, key, statuses);
            }
        }
        status
    }

    /// Whether the kubelet has reported a status; before, the status is that of the scheduler.
    fn is_reported(&self) -> bool {
        self.pod.lifetime.from + self.pod.status_lag() <= self.time
    }

    fn phase(&self) -> &'static str {
        let pod = self.pod;
        if pod.completion_time.is_some_and(|end| end + pod.status_lag() <= self.time) {
            return if pod.failed { "Failed" } else { "Succeeded" };
        }
        let started = |container: &Container| self.seen(container).is_some();
        if pod.containers_of_kind(ContainerKind::App).any(started) { "Running" } else { "Pending" }
    }

    fn conditions(&self, since: &str, phase: &str) -> Vec<Value> {
        let runs = |container: &Container| self.is_running(container);
        let ready = phase == "Running" && self.pod.containers_of_kind(ContainerKind::App).all(runs);
        let initialized = !self.pod.containers.iter().any(|container| self.is_awaited(container));
        let mut conditions = vec![("PodScheduled", true)];
        if self.is_reported() {
            conditions.extend([
                ("Initialized", initialized),
                ("ContainersReady", ready),
                ("Ready", ready),
            ]);
        }
        let condition = |(kind, is): (&str, bool)| {
            json!({
                "type": kind,
                "status": if is { "True" } else { "False" },
                "lastProbeTime": null,
                "lastTransitionTime": since,
            })
        };
        conditions.into_iter().map(condition).collect()
    }

    /// Whether the app containers wait for it: an init container that has not ended, or a sidecar that has
    /// not started.
    fn is_awaited(&self, container: &Container) -> bool {
        match container.kind {
            ContainerKind::Init => self.seen(container).is_none() || self.is_running(container),
            ContainerKind::Sidecar => self.seen(container).is_none(),
            ContainerKind::App | ContainerKind::Ephemeral => false,
        }
    }

    /// The latest run in the status of the container, and its index: the status lags behind.
    fn seen<'c>(&self, container: &'c Container) -> Option<(usize, &'c ContainerRun)> {
        let seen = self.time - container.status_lag;
        container.runs.iter().enumerate().rfind(|(_, run)| run.during.from <= seen)
    }

    fn is_running(&self, container: &Container) -> bool {
        let seen = self.time - container.status_lag;
        self.seen(container).is_some_and(|(_, run)| run.during.contains(seen))
    }

    fn container(&self, container: &Container) -> Value {
        let found = self.seen(container);
        let runs = self.is_running(container);
        let is_init = container.kind == ContainerKind::Init;
        let image = image(container);
        let mut status = json!({
            "name": container.name,
            "image": image,
            "imageID": found.map(|_| format!("{image}@sha256:0")).unwrap_or_default(),
            "ready": if is_init { found.is_some() && !runs } else { runs },
            "started": runs,
            "restartCount": found.map_or(0, |(at, _)| at),
            "lastState": {},
        });
        let Some((at, run)) = found else {
            let initializes = [ContainerKind::Init, ContainerKind::Sidecar]
                .iter()
                .any(|kind| self.pod.containers_of_kind(*kind).next().is_some());
            let reason = if initializes { "PodInitializing" } else { "ContainerCreating" };
            insert_key(&mut status, "state", json!({ "waiting": { "reason": reason } }));
            return status;
        };
        insert_key(&mut status, "containerID", self.id(run));
        if let Some(before) = at.checked_sub(1).and_then(|before| container.runs.get(before)) {
            insert_key(&mut status, "lastState", self.terminated(before, true));
        }
        let state = if runs {
            json!({ "running": { "startedAt": timestamp(self.epoch, run.during.from) } })
        } else {
            self.terminated(run, self.pod.failed && !is_init)
        };
        insert_key(&mut status, "state", state);
        status
    }

    fn terminated(&self, run: &ContainerRun, failed: bool) -> Value {
        json!({ "terminated": {
            "containerID": self.id(run),
            "exitCode": i32::from(failed),
            "reason": if failed { "Error" } else { "Completed" },
            "startedAt": timestamp(self.epoch, run.during.from),
            "finishedAt": timestamp(self.epoch, run.during.to),
        } })
    }

    fn id(&self, run: &ContainerRun) -> String {
        let runtime = match self.runtime {
            Runtime::Containerd => "containerd",
            Runtime::Crio => "cri-o",
            Runtime::Docker => "docker",
        };
        format!("{runtime}://{}", run.id)
    }
}

pub(super) fn image(container: &Container) -> String {
    format!("registry.example/{}:1", container.name)
}

/// A world time as RFC 3339 timestamp; `epoch` is world time 0 in seconds since the Unix epoch.
pub(super) fn timestamp(epoch: f64, time: f64) -> String {
    let seconds = floor_i64(epoch + time.max(-INITIAL_AGE));
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
