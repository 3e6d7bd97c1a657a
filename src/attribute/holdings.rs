//! Who was given what: the shares of every device, for the questions that are asked of them each cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::owner::Holder;
use crate::kube::allocation::Coverage;
use crate::model::{AllocateMode, Claim, PodRef};

/// What one container was given of one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The container.
    pub holder: Holder,
    /// UUID of the GPU or the MIG device.
    pub device: Arc<str>,
    /// Whether it has it alone.
    pub mode: AllocateMode,
    /// Framebuffer, MiB; none where it is not known.
    pub memory: Option<f64>,
    /// Share of the device's compute, 0 to 1; 0 is unlimited.
    pub compute: f64,
    /// Which replica of the device it is, or the first of several; empty without replicas.
    pub replica: Arc<str>,
    /// The claim that it was given by.
    pub claim: Option<Arc<Claim>>,
    /// Whether the pod is known to exist still.
    pub confirmed: bool,
    /// Whether the container is known to run, with none running that has to end before it.
    pub running: bool,
}

/// All shares of a node, as of one moment. Cloning it is cheap.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    all: Arc<All>,
    as_of: Duration,
    fresh: bool,
}

#[derive(Debug, Default)]
struct All {
    by_device: BTreeMap<Arc<str>, Vec<Share>>,
    doubtful: BTreeSet<Arc<str>>,
    doubtful_node: bool,
    coverage: Coverage,
}

impl Holdings {
    /// Collects `shares`, and what is in doubt: devices of which something was given and it is not
    /// known to whom, or somebody to whom something was given and it is not known what.
    #[must_use]
    pub fn new(
        shares: impl IntoIterator<Item = Share>,
        doubtful: BTreeSet<Arc<str>>,
        doubtful_node: bool,
        coverage: Coverage,
    ) -> Self {
        let mut by_device: BTreeMap<Arc<str>, Vec<Share>> = BTreeMap::new();
        for share in shares {
            by_device.entry(Arc::clone(&share.device)).or_default().push(share);
        }
        for shares in by_device.values_mut() {
            shares.sort_unstable_by(|a, b| a.holder.names().cmp(&b.holder.names()));
        }
        let all = All { by_device, doubtful, doubtful_node, coverage };
        Self { all: Arc::new(all), as_of: Duration::ZERO, fresh: false }
    }

    /// The same, confirmed at `as_of` (monotonic). `fresh`: nothing newer could be had.
    #[must_use]
    pub fn as_of(self, as_of: Duration, fresh: bool) -> Self {
        Self { as_of, fresh, ..self }
    }

    /// The shares of a device, by pod and container.
    #[must_use]
    pub fn of_device(&self, device: &str) -> &[Share] {
        self.all.by_device.get(device).map_or(&[], Vec::as_slice)
    }

    /// How `holder` was allocated `device`, or another container of its pod was: the kubelet names no
    /// init containers and no ephemeral ones, and they may use what their pod holds. None if none was.
    #[must_use]
    pub fn mode_of(&self, holder: &Holder, device: &str) -> Option<AllocateMode> {
        let shares = self.of_device(device).iter();
        let mut of_pod = shares.filter(|share| share.holder.is_in_pod_of(holder));
        let first = of_pod.clone().next();
        of_pod.find(|share| share.holder.is(holder)).or(first).map(|share| share.mode)
    }

    /// Whether it is known what the pod of `holder` was allocated.
    #[must_use]
    pub fn covers(&self, holder: &Holder) -> bool {
        let PodRef { uid, namespace, name } = &holder.pod;
        match &self.all.coverage {
            Coverage::Listed(pods) => pods.contains(&(Arc::clone(namespace), Arc::clone(name))),
            Coverage::AllBut { unlisted, .. } => !unlisted.contains(uid),
        }
    }

    /// Whether a pod of which nothing is known may hold devices.
    fn has_unknown_holders(&self) -> bool {
        matches!(self.all.coverage, Coverage::AllBut { holders: true, .. })
    }

    /// Whether what is not here on `device` was not given to anybody who was there at `since`.
    #[must_use]
    pub fn certain_since(&self, since: Duration, device: &str) -> bool {
        self.certain(device) && self.as_of >= since
    }

    /// Whether everything is known that was given of `device`.
    #[must_use]
    pub fn certain(&self, device: &str) -> bool {
        self.fresh && !self.all.doubtful_node && !self.all.doubtful.contains(device)
    }

    /// The node's mode: the greatest of its shares'; none if something is not known.
    #[must_use]
    pub fn mode(&self) -> Option<AllocateMode> {
        let known = self.fresh && !self.all.doubtful_node;
        let modes = self.all.by_device.values().flatten().map(|share| share.mode);
        let mode = modes.max().unwrap_or_default();
        let certain = known && (mode == AllocateMode::Share || !self.has_unknown_holders());
        certain.then_some(mode)
    }

    /// What part of a device with `total` MiB has been given away, 0 to 1; none if that is not known.
    #[must_use]
    pub fn allocated(&self, device: &str, total: f64) -> Option<f64> {
        if !self.certain(device) || total <= 0.0 {
            return None;
        }
        let shares = self.of_device(device);
        let memory = shares.iter().map(|share| share.memory).sum::<Option<f64>>()?;
        let whole = shares.iter().any(|share| share.mode == AllocateMode::Exclusive);
        if self.has_unknown_holders() && !whole && memory < total {
            return None;
        }
        // Under time-slicing every container may use all of it; and while a pod is being deleted, its
        // scheduler may give away already what it holds.
        Some((memory / total).clamp(0.0, 1.0))
    }
}
