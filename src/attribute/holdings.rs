//! Who was given what: the shares of every device, for the questions that are asked of them each cycle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::owner::Holder;
use crate::model::{AllocateMode, Claim};

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
    doubtful: Vec<Arc<str>>,
    doubtful_node: bool,
}

impl Holdings {
    /// Collects `shares`, and what is in doubt: devices of which something was given and it is not
    /// known to whom, or somebody to whom something was given and it is not known what.
    #[must_use]
    pub fn new(
        shares: impl IntoIterator<Item = Share>,
        doubtful: Vec<Arc<str>>,
        doubtful_node: bool,
    ) -> Self {
        let mut by_device: BTreeMap<Arc<str>, Vec<Share>> = BTreeMap::new();
        for share in shares {
            by_device.entry(Arc::clone(&share.device)).or_default().push(share);
        }
        for shares in by_device.values_mut() {
            shares.sort_unstable_by(|a, b| a.holder.names().cmp(&b.holder.names()));
        }
        let all = All { by_device, doubtful, doubtful_node };
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

    /// How `holder` was given `device`; none if it was not.
    #[must_use]
    pub fn mode_of(&self, holder: &Holder, device: &str) -> Option<AllocateMode> {
        let mut shares = self.of_device(device).iter();
        shares.find(|share| share.holder.is(holder)).map(|share| share.mode)
    }

    /// Whether what is not here on `device` was not given to anybody who was there at `since`.
    #[must_use]
    pub fn certain_since(&self, since: Duration, device: &str) -> bool {
        self.certain(device) && self.as_of >= since
    }

    /// Whether everything is known that was given of `device`.
    #[must_use]
    pub fn certain(&self, device: &str) -> bool {
        self.fresh && !self.all.doubtful_node && !self.all.doubtful.iter().any(|d| &**d == device)
    }

    /// The node's mode: the greatest of its shares'; none if something is not known.
    #[must_use]
    pub fn mode(&self) -> Option<AllocateMode> {
        let known = self.fresh && !self.all.doubtful_node;
        let modes = self.all.by_device.values().flatten().map(|share| share.mode);
        known.then(|| modes.max().unwrap_or_default())
    }

    /// What part of a device with `total` MiB has been given away, 0 to 1; none if that is not known.
    #[must_use]
    pub fn allocated(&self, device: &str, total: f64) -> Option<f64> {
        if !self.certain(device) || total <= 0.0 {
            return None;
        }
        let shares = self.of_device(device);
        let memory = shares.iter().map(|share| share.memory).sum::<Option<f64>>()?;
        // Under time-slicing every container may use all of it.
        Some((memory / total).clamp(0.0, 1.0))
    }
}
