//! Counts what the expositions state, to show that the laws were applied to every kind of statement.

use std::collections::BTreeMap;

use super::super::series::{Family, Subject};
use super::super::timeline::{Access, Kind, Owner};
use super::Case;
use crate::exposition::Sample;

/// Kinds of statements that a simulation must have checked.
pub(crate) const KINDS: [&str; 24] = [
    "PROCESS of an app container",
    "PROCESS of an init container",
    "PROCESS of a sidecar",
    "PROCESS of an ephemeral container",
    "PROCESS of an earlier run",
    "PROCESS of a terminating pod",
    "PROCESS of a static pod",
    "PROCESS on a MIG device",
    "PROCESS on a shared GPU",
    "PROCESS of a claim",
    "PROCESS of a share of a claim",
    "PROCESS with administrative access",
    "PROCESS of a container with a claim of another driver",
    "PROCESS of a sandbox",
    "PROCESS on a MIG device by annotations",
    "PROCESS while the API server is down",
    "ILLEGAL of a pod",
    "ILLEGAL outside of pods",
    "ILLEGAL after the end of the pod",
    "0 of a container",
    "sum of a container",
    "FB_ALLOCATED between 0 and 1",
    "CONTAINER_CP_ALLOCATED above 0",
    "ALLOCATE_MODE above 0",
];

impl Case<'_> {
    /// Adds the statements of an exposition.
    pub(super) fn count(&self, samples: &[Sample], counts: &mut BTreeMap<&'static str, u64>) {
        let mut add = |kind: &'static str| *counts.entry(kind).or_default() += 1;
        for series in &self.series {
            match (series.subject, series.family) {
                (Subject::Pid(pid), Family::Process) => {
                    self.kinds_of_process(pid, series.device).into_iter().for_each(&mut add);
                }
                (Subject::Pid(_), Family::Illegal) if series.names.is_some() => {
                    add("ILLEGAL of a pod");
                }
                (Subject::Pid(pid), Family::Illegal) => {
                    let process = self.process(pid, series.device).map(|(_, process)| process);
                    let of_pod = process.is_some_and(|process| self.pod_of(process).is_some());
                    add(if of_pod {
                        "ILLEGAL after the end of the pod"
                    } else {
                        "ILLEGAL outside of pods"
                    });
                }
                (Subject::Idle, _) => add("0 of a container"),
                (Subject::Container, _) => add("sum of a container"),
            }
        }
        for sample in samples {
            match sample.name.as_str() {
                "DCGM_CUSTOM_DEV_FB_ALLOCATED" if sample.value > 0.0 && sample.value < 1.0 => {
                    add("FB_ALLOCATED between 0 and 1");
                }
                "DCGM_CUSTOM_CONTAINER_CP_ALLOCATED" if sample.value > 0.0 => {
                    add("CONTAINER_CP_ALLOCATED above 0");
                }
                "DCGM_CUSTOM_ALLOCATE_MODE" if sample.value > 0.0 => add("ALLOCATE_MODE above 0"),
                _ => {}
            }
        }
    }

    fn kinds_of_process(&self, pid: u32, device: super::Device) -> Vec<&'static str> {
        let at = self.received.at;
        let Some((_, process)) = self.process(pid, device) else { return Vec::new() };
        let Owner::Run(pod, container, run) = process.owner else { return Vec::new() };
        let pod = &self.world.pods[pod];
        let container = &pod.containers[container];
        let down = self.received.pods.is_none_or(|pods| pods < at);
        let claims = |is: fn(&Access) -> bool| {
            container.claims.iter().any(|claimed| claimed.device == device && is(&claimed.access))
        };
        let by_annotations = device.instance.is_some()
            && pod.annotations.iter().any(|(key, _)| key.contains("vgpu"))
            && pod.is_allocated(device);
        let kinds = [
            (container.kind == Kind::App, "PROCESS of an app container"),
            (container.kind == Kind::Init, "PROCESS of an init container"),
            (container.kind == Kind::Sidecar, "PROCESS of a sidecar"),
            (container.kind == Kind::Ephemeral, "PROCESS of an ephemeral container"),
            (container.runs[run].end < at, "PROCESS of an earlier run"),
            (pod.deleted.is_some_and(|deleted| deleted < at), "PROCESS of a terminating pod"),
            (pod.hash.is_some(), "PROCESS of a static pod"),
            (device.instance.is_some(), "PROCESS on a MIG device"),
            (pod.shares(device), "PROCESS on a shared GPU"),
            (claims(|access| *access != Access::Admin), "PROCESS of a claim"),
            (claims(|access| matches!(access, Access::Share(..))), "PROCESS of a share of a claim"),
            (claims(|access| *access == Access::Admin), "PROCESS with administrative access"),
            (container.network.is_some(), "PROCESS of a container with a claim of another driver"),
            (pod.sandboxed, "PROCESS of a sandbox"),
            (by_annotations, "PROCESS on a MIG device by annotations"),
            (down, "PROCESS while the API server is down"),
        ];
        kinds.into_iter().filter(|(holds, _)| *holds).map(|(_, kind)| kind).collect()
    }
}
