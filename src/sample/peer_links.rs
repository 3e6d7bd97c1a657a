//! `NVLink` peer-to-peer status of a GPU.

use std::time::Duration;

use crate::model::Missing;
use crate::nvml::Session;
use crate::nvml::raw::Handle;
use crate::nvml::raw::topology::nvlink_status;
use crate::policy::Tier;

/// Cached status (`nvmlGpuP2PStatus_t`) of the links to all other GPUs.
#[derive(Default)]
pub(super) struct PeerLinks {
    /// When they were read (monotonic).
    read_at: Option<Duration>,
    peers: Vec<(u32, Handle)>,
    statuses: Vec<(u32, Result<u32, Missing>)>,
}

impl PeerLinks {
    /// Status by index of the other GPU. `gpu` is index and handle of this GPU, `peers` those of all
    /// GPUs. Read at the rate of the slow tier and when the peers change.
    pub(super) fn statuses(
        &mut self,
        session: &Session,
        (index, handle): (u32, Handle),
        peers: &[(u32, Handle)],
        now: Duration,
    ) -> Vec<(u32, Result<u32, Missing>)> {
        if Tier::Slow.due(self.read_at, now) || self.peers != peers {
            let others = peers.iter().filter(|(peer, _)| *peer != index);
            let read = |(peer, other): &(u32, Handle)| {
                (*peer, nvlink_status(session.nvml(), handle, *other))
            };
            let statuses = others.map(read).collect();
            *self = Self { read_at: Some(now), peers: peers.to_vec(), statuses };
        }
        self.statuses.clone()
    }
}
