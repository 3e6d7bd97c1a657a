//! The series of one exposition that state something of processes and allocations, with the objects of the
//! world that their labels name.

use super::timeline::{Device, Ms, World};
use crate::exposition::Sample;

/// What the exporter had received when it was scraped.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) at: Ms,
    /// When the exporter started.
    pub(crate) started: Ms,
    /// When each GPU was read, the last three times, newest first.
    pub(crate) read: Vec<Vec<Ms>>,
    /// The time up to which the events of the API server were received; none before the first list.
    pub(crate) pods: Option<Ms>,
    /// When the kubelet's last List was requested.
    pub(crate) list: Option<Ms>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    Process,
    Illegal,
}

/// A sample of `DCGM_CUSTOM_PROCESS_*` or `DCGM_CUSTOM_ILLEGAL_PROCESS_*`.
#[derive(Clone, Debug)]
pub(crate) struct ProcessSeries<'a> {
    pub(crate) sample: &'a Sample,
    pub(crate) family: Family,
    /// The name after the prefix, such as `SM_UTIL`.
    pub(crate) metric: &'a str,
    pub(crate) device: Device,
    pub(crate) subject: Subject,
    /// Namespace, pod and container.
    pub(crate) names: Option<(&'a str, &'a str, &'a str)>,
}

/// What a process series is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Pid(u32),
    /// `ProcessId="0"`: a container without processes.
    Idle,
    /// All processes of a container.
    Container,
}

impl<'a> ProcessSeries<'a> {
    /// The process series among `samples`.
    ///
    /// # Errors
    /// A label is invalid.
    pub(crate) fn all(samples: &'a [Sample], world: &World) -> Result<Vec<Self>, String> {
        let mut all = Vec::new();
        for sample in samples {
            let name = sample.name.as_str();
            let illegal = name.strip_prefix("DCGM_CUSTOM_ILLEGAL_PROCESS_");
            let (family, metric) = match (illegal, name.strip_prefix("DCGM_CUSTOM_PROCESS_")) {
                (Some(metric), _) => (Family::Illegal, metric),
                (None, Some(metric)) => (Family::Process, metric),
                (None, None) => continue,
            };
            let device = device(sample, world).ok_or(format!("no such device: {sample:?}"))?;
            let subject = match sample.label("ProcessId") {
                None => Subject::Container,
                Some("0") => Subject::Idle,
                Some(pid) => Subject::Pid(pid.parse().map_err(|_| format!("no pid: {sample:?}"))?),
            };
            let names = names(sample);
            all.push(Self { sample, family, metric, device, subject, names });
        }
        Ok(all)
    }
}

/// Namespace, pod and container in the labels.
pub(crate) fn names(sample: &Sample) -> Option<(&str, &str, &str)> {
    let of = |key| sample.label(key);
    Some((of("NamespaceName")?, of("PodName")?, of("ContainerName")?))
}

/// The device in the labels.
pub(crate) fn device(sample: &Sample, world: &World) -> Option<Device> {
    let uuid = sample.label("UUID")?;
    let gpu = world.gpus.iter().position(|gpu| gpu.uuid == uuid)?;
    let Some(id) = sample.label("GPU_I_ID") else { return Some(Device { gpu, instance: None }) };
    let id: u32 = id.parse().ok()?;
    let mut instances = world.gpus[gpu].instances.iter();
    let instance = instances.position(|instance| instance.id == id)?;
    Some(Device { gpu, instance: Some(instance) })
}

impl Received {
    /// When a GPU was last read.
    pub(crate) fn read_at(&self, gpu: usize) -> Option<Ms> {
        self.read[gpu].first().copied()
    }
}
