//! The clients of resource slices and claims without an API server: what it returns becomes their state.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::cluster::DraChannels;
use nvml_exporter::kube::assignments::{SliceDevice, SliceKey, SliceTable};
use nvml_exporter::kube::resource_claims::table::ClaimRequest;
use nvml_exporter::kube::resource_claims::{ResourceClaimsState, claim};
use nvml_exporter::kube::resource_slices::ResourceSlicesState;
use tokio::sync::watch;

use crate::attribution::api_object;
use crate::attribution::timeline::{Device, World};

pub(super) struct ClaimReader {
    slices: ResourceSlicesState,
    claims: ResourceClaimsState,
    publish_slices: watch::Sender<ResourceSlicesState>,
    publish_claims: watch::Sender<ResourceClaimsState>,
    needed_devices: watch::Receiver<Arc<BTreeSet<SliceKey>>>,
    needed_claims: watch::Receiver<Arc<BTreeSet<ClaimRequest>>>,
    read: BTreeSet<ClaimRequest>,
}

impl ClaimReader {
    /// The clients, and their channels.
    pub(super) fn new() -> (Self, DraChannels) {
        let (slices, claims) = (ResourceSlicesState::unknown(), ResourceClaimsState::unknown());
        let (publish_slices, receive_slices) = watch::channel(slices.clone());
        let (publish_claims, receive_claims) = watch::channel(claims.clone());
        let (devices, needed_devices) = watch::channel(Arc::default());
        let (requests, needed_claims) = watch::channel(Arc::default());
        let channels = DraChannels {
            slices: receive_slices,
            claims: receive_claims,
            needed_devices: devices,
            needed_claims: requests,
        };
        let reader = Self {
            slices,
            claims,
            publish_slices,
            publish_claims,
            needed_devices,
            needed_claims,
            read: BTreeSet::new(),
        };
        (reader, channels)
    }

    /// Reads what is needed and was not read yet.
    pub(super) fn read(&mut self, world: &World, now: Duration) {
        let needs_slices = !self.needed_devices.borrow().is_empty();
        if needs_slices != self.slices.slices.is_some() {
            self.slices.slices = needs_slices.then(|| Arc::new(slices(world)));
            self.slices.health.record_success(now);
            self.publish_slices.send_replace(self.slices.clone());
        }
        let needed = Arc::clone(&self.needed_claims.borrow());
        let mut table = (*self.claims.claims).clone();
        for request in needed.iter().filter(|request| !self.read.contains(request)) {
            let pod = world.pods.iter().find(|pod| pod.uid == *request.pod);
            let object = pod.and_then(|pod| api_object::claim(world, pod, &request.claim.1));
            let Some(object) = object else { continue };
            let text = serde_json::to_vec(&object).unwrap();
            table.insert(request, claim::parse(&text).unwrap());
        }
        if self.read != *needed {
            self.read.clone_from(&needed);
            self.claims.claims = Arc::new(table);
            self.claims.health.record_success(now);
            self.publish_claims.send_replace(self.claims.clone());
        }
    }
}

/// The devices of the node.
fn slices(world: &World) -> SliceTable {
    let device = |device: Device| {
        let gpu = &world.gpus[device.gpu];
        let key = SliceKey {
            driver: "gpu.nvidia.com".into(),
            pool: "node-1".into(),
            device: world.claim_name(device).into(),
        };
        let text = |text: &str| Some(Box::<str>::from(text));
        let found = match device.instance.map(|instance| &gpu.instances[instance]) {
            None => SliceDevice {
                uuid: text(&gpu.uuid),
                kind: text("gpu"),
                parent: None,
                profile: None,
            },
            Some(instance) => SliceDevice {
                uuid: text(&instance.uuid).filter(|_| !world.has_dynamic_mig),
                kind: text("mig"),
                parent: text(&gpu.uuid),
                profile: text(instance.profile),
            },
        };
        (key, found)
    };
    SliceTable { devices: world.devices().into_iter().map(device).collect() }
}
