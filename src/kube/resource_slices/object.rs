//! A `ResourceSlice`, slim, and what the slices of a pool say together.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::kube::assignments::{SliceDevice, SliceKey, Slices};
use crate::quote::in_part;

/// The one driver whose devices are looked up.
const DRIVER: &str = "gpu.nvidia.com";
/// The API refuses slices with more devices than this.
const DEVICES_MAX: usize = 128;
/// More pools of one driver on one node than there are.
const POOLS_MAX: usize = 64;
/// More slices of one pool than describe the GPUs of one node.
const SLICES_MAX: usize = 256;

#[derive(Deserialize)]
struct Object {
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    driver: Box<str>,
    #[serde(default)]
    node_name: Option<Box<str>>,
    pool: Pool,
    #[serde(default)]
    devices: Option<Vec<Device>>,
}

#[derive(Deserialize)]
struct Pool {
    name: Box<str>,
    #[serde(default)]
    generation: i64,
}

#[derive(Deserialize)]
struct Device {
    name: Box<str>,
    /// Since `v1beta2` the attributes stand here,
    #[serde(default)]
    attributes: Option<Attributes>,
    /// and in `v1beta1` they stand in here.
    #[serde(default)]
    basic: Option<Basic>,
}

#[derive(Deserialize)]
struct Basic {
    #[serde(default)]
    attributes: Option<Attributes>,
}

type Attributes = BTreeMap<Box<str>, Attribute>;

/// One of string, int, bool, version; only texts concern us.
#[derive(Deserialize)]
struct Attribute {
    #[serde(default)]
    string: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct List {
    kind: String,
}

/// Checks what is left of a list without its elements.
///
/// # Errors
/// It was cut off, or is no list of slices.
pub fn check_list(rest: &[u8]) -> Result<(), String> {
    let list: List =
        serde_json::from_slice(rest).map_err(|e| format!("a list that is no list: {e}"))?;
    match list.kind.as_str() {
        "ResourceSliceList" => Ok(()),
        other => Err(format!("a {:?} for a list of resource slices", in_part(other, 100))),
    }
}

/// The slices of a list, one after the other.
#[derive(Debug)]
pub struct Gathering {
    node: Box<str>,
    pools: BTreeMap<Box<str>, Gathered>,
}

/// A pool is told anew with a new generation, and slices of the old one may still be there.
#[derive(Debug, Default)]
struct Gathered {
    generation: i64,
    slices: usize,
    devices: BTreeMap<Box<str>, SliceDevice>,
}

impl Gathering {
    /// Of the node `node`.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self { node: node.into(), pools: BTreeMap::new() }
    }

    /// Adds a slice, if it is one of NVIDIA's driver on this node.
    ///
    /// # Errors
    /// It is no slice.
    pub fn add(&mut self, json: &[u8]) -> Result<(), serde_json::Error> {
        let Object { spec } = serde_json::from_slice(json)?;
        let ours = *spec.driver == *DRIVER && spec.node_name.as_deref() == Some(&*self.node);
        let known = self.pools.contains_key(&spec.pool.name);
        if !ours || (!known && self.pools.len() >= POOLS_MAX) {
            return Ok(());
        }
        let Pool { name, generation } = spec.pool;
        let pool = self.pools.entry(name).or_default();
        if generation > pool.generation {
            *pool = Gathered { generation, ..Gathered::default() };
        }
        pool.slices += 1;
        if generation == pool.generation && pool.slices <= SLICES_MAX {
            let devices = spec.devices.unwrap_or_default().into_iter().take(DEVICES_MAX);
            pool.devices.extend(devices.map(Device::named));
        }
        Ok(())
    }

    /// The devices of the newest generation of each pool.
    #[must_use]
    pub fn finish(self) -> Slices {
        let devices = self.pools.into_iter().flat_map(|(pool, gathered)| {
            gathered.devices.into_iter().map(move |(device, said)| {
                (SliceKey { driver: DRIVER.into(), pool: pool.clone(), device }, said)
            })
        });
        Slices { devices: devices.collect() }
    }
}

impl Device {
    fn named(self) -> (Box<str>, SliceDevice) {
        let basic = self.basic.and_then(|basic| basic.attributes);
        let mut attributes = self.attributes.or(basic).unwrap_or_default();
        // A name without a domain is of the driver's domain.
        let mut text = |name: &str| {
            let qualified = attributes.remove(format!("{DRIVER}/{name}").as_str());
            attributes.remove(name).or(qualified)?.string
        };
        let said = SliceDevice {
            uuid: text("uuid"),
            kind: text("type"),
            parent: text("parentUUID"),
            profile: text("profile"),
        };
        (self.name, said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(generation: i64, devices: &str) -> String {
        format!(
            r#"{{"metadata":{{"name":"s"}},"spec":{{"driver":"gpu.nvidia.com","nodeName":"n1","pool":{{"name":"n1","generation":{generation},"resourceSliceCount":1}},"devices":[{devices}]}}}}"#
        )
    }

    fn gathered(slices: &[String]) -> Vec<(String, SliceDevice)> {
        let mut gathering = Gathering::new("n1");
        for slice in slices {
            gathering.add(slice.as_bytes()).unwrap();
        }
        let devices = gathering.finish().devices.into_iter();
        devices.map(|(key, device)| (format!("{}/{}", key.pool, key.device), device)).collect()
    }

    fn uuids(slices: &[String]) -> Vec<String> {
        let uuid = |(_, device): (String, SliceDevice)| device.uuid.unwrap_or_default().into();
        gathered(slices).into_iter().map(uuid).collect()
    }

    const GPU: &str = r#"{"name":"gpu-0","attributes":{"type":{"string":"gpu"},"uuid":{"string":"GPU-1"},"cores":{"int":7},"driverVersion":{"version":"1.0.0"},"ok":{"bool":true}},"capacity":{"memory":{"value":"80Gi"}}}"#;

    #[test]
    fn attributes_are_read_in_every_version_of_the_api() {
        let mig = r#"{"name":"gpu-0-mig-1g.10gb-19-0","basic":{"attributes":{"gpu.nvidia.com/type":{"string":"mig"},"parentUUID":{"string":"GPU-1"},"profile":{"string":"1g.10gb"}}}}"#;
        let devices = gathered(&[slice(1, &format!("{GPU},{mig}"))]);
        let text = |text: &str| Some(text.into());
        assert_eq!(
            devices,
            [
                (
                    "n1/gpu-0".to_owned(),
                    SliceDevice {
                        uuid: text("GPU-1"),
                        kind: text("gpu"),
                        ..SliceDevice::default()
                    }
                ),
                (
                    "n1/gpu-0-mig-1g.10gb-19-0".to_owned(),
                    SliceDevice {
                        uuid: None,
                        kind: text("mig"),
                        parent: text("GPU-1"),
                        profile: text("1g.10gb")
                    }
                ),
            ]
        );
    }

    #[test]
    fn only_the_newest_generation_of_a_pool_counts() {
        let other = GPU.replace("gpu-0", "gpu-1").replace("GPU-1", "GPU-2");
        let old = slice(3, &format!("{},{other}", GPU.replace("GPU-1", "GPU-old")));
        let new = slice(4, GPU);
        assert_eq!(uuids(&[old.clone(), new.clone()]), ["GPU-1"]);
        assert_eq!(uuids(&[new.clone(), old]), ["GPU-1"], "in whatever order");
        assert_eq!(uuids(&[new, slice(4, &other)]), ["GPU-1", "GPU-2"], "several slices of one");
    }

    #[test]
    fn other_drivers_and_other_nodes_are_left_out() {
        let mine = slice(1, GPU);
        for (from, to) in [
            ("\"driver\":\"gpu.nvidia.com\"", "\"driver\":\"gpu.example.com\""),
            ("\"nodeName\":\"n1\",", "\"nodeName\":\"n2\","),
            ("\"nodeName\":\"n1\",", "\"allNodes\":true,"),
        ] {
            assert!(uuids(&[mine.replace(from, to)]).is_empty(), "{to}");
        }
        assert_eq!(uuids(&[mine.replace("[{", "null,\"x\":[{")]), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_list_of_slices_is_refused() {
        assert_eq!(check_list(br#"{"kind":"ResourceSliceList","items":[]}"#), Ok(()));
        for rest in ["", "{}", r#"{"kind":"PodList"}"#, "<html>"] {
            assert!(check_list(rest.as_bytes()).is_err(), "{rest}");
        }
        let mut gathering = Gathering::new("n1");
        for rubbish in ["", "{}", r#"{"spec":{"driver":7}}"#, r#"{"spec":null}"#] {
            assert!(gathering.add(rubbish.as_bytes()).is_err(), "{rubbish}");
        }
    }
}
