//! Parses `ResourceSlice` objects and collects the devices of each pool.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::kube::assignments::{SliceDevice, SliceKey, SliceTable};
use crate::sanitize::truncate_for_log;

/// The DRA driver that is supported.
const DRIVER: &str = "gpu.nvidia.com";
/// Most devices of a slice, the limit of the API.
const DEVICES_MAX: usize = 128;
/// Most pools that are kept; one node has far fewer of one driver.
const POOLS_MAX: usize = 64;
/// Most slices of a pool that are kept; the GPUs of one node need far fewer.
const SLICES_MAX: usize = 256;

#[derive(Deserialize)]
struct RawSlice {
    spec: RawSliceSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSliceSpec {
    driver: Box<str>,
    #[serde(default)]
    node_name: Option<Box<str>>,
    pool: RawPool,
    #[serde(default)]
    devices: Option<Vec<RawSliceDevice>>,
}

#[derive(Deserialize)]
struct RawPool {
    name: Box<str>,
    #[serde(default)]
    generation: i64,
}

#[derive(Deserialize)]
struct RawSliceDevice {
    name: Box<str>,
    /// Attributes since `v1beta2`.
    #[serde(default)]
    attributes: Option<Attributes>,
    /// Attributes in `v1beta1`.
    #[serde(default)]
    basic: Option<BasicDevice>,
}

#[derive(Deserialize)]
struct BasicDevice {
    #[serde(default)]
    attributes: Option<Attributes>,
}

type Attributes = BTreeMap<Box<str>, Attribute>;

/// One of string, int, bool or version; only strings are read.
#[derive(Deserialize)]
struct Attribute {
    #[serde(default)]
    string: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawList {
    kind: String,
}

/// Checks a list without its items.
///
/// # Errors
/// The list is incomplete or not a `ResourceSliceList`.
pub fn check_list(rest: &[u8]) -> Result<(), String> {
    let list: RawList = serde_json::from_slice(rest)
        .map_err(|e| format!("the list is incomplete or not JSON: {e}"))?;
    match list.kind.as_str() {
        "ResourceSliceList" => Ok(()),
        other => {
            let kind = truncate_for_log(other, 100);
            Err(format!("the response has kind {kind:?} instead of ResourceSliceList"))
        }
    }
}

/// Collects the slices of a list.
#[derive(Debug)]
pub struct SliceCollector {
    node: Box<str>,
    pools: BTreeMap<Box<str>, PoolDevices>,
}

/// The devices of one generation of a pool. The driver replaces a pool by a new generation, while
/// slices of the old one may still exist.
#[derive(Debug, Default)]
struct PoolDevices {
    generation: i64,
    slices: usize,
    devices: BTreeMap<Box<str>, SliceDevice>,
}

impl SliceCollector {
    /// An empty collection for the node `node`.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self { node: node.into(), pools: BTreeMap::new() }
    }

    /// Adds a slice, if it is of NVIDIA's driver and of this node.
    ///
    /// # Errors
    /// The slice is malformed.
    pub fn add(&mut self, json: &[u8]) -> Result<(), serde_json::Error> {
        let RawSlice { spec } = serde_json::from_slice(json)?;
        let matches = *spec.driver == *DRIVER && spec.node_name.as_deref() == Some(&*self.node);
        let known = self.pools.contains_key(&spec.pool.name);
        if !matches || (!known && self.pools.len() >= POOLS_MAX) {
            return Ok(());
        }
        let RawPool { name, generation } = spec.pool;
        let pool = self.pools.entry(name).or_default();
        if generation > pool.generation {
            *pool = PoolDevices { generation, ..PoolDevices::default() };
        }
        pool.slices += 1;
        if generation == pool.generation && pool.slices <= SLICES_MAX {
            let devices = spec.devices.unwrap_or_default().into_iter().take(DEVICES_MAX);
            pool.devices.extend(devices.map(RawSliceDevice::into_entry));
        }
        Ok(())
    }

    /// The devices of the newest generation of each pool.
    #[must_use]
    pub fn finish(self) -> SliceTable {
        let devices = self.pools.into_iter().flat_map(|(pool, found)| {
            found.devices.into_iter().map(move |(name, device)| {
                (SliceKey { driver: DRIVER.into(), pool: pool.clone(), device: name }, device)
            })
        });
        SliceTable { devices: devices.collect() }
    }
}

impl RawSliceDevice {
    fn into_entry(self) -> (Box<str>, SliceDevice) {
        let basic = self.basic.and_then(|basic| basic.attributes);
        let mut attributes = self.attributes.or(basic).unwrap_or_default();
        // An attribute name without a domain is in the driver's domain.
        let mut text = |name: &str| {
            let qualified = attributes.remove(format!("{DRIVER}/{name}").as_str());
            attributes.remove(name).or(qualified)?.string
        };
        let device = SliceDevice {
            uuid: text("uuid"),
            kind: text("type"),
            parent: text("parentUUID"),
            profile: text("profile"),
        };
        (self.name, device)
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

    fn devices_of(slices: &[String]) -> Vec<(String, SliceDevice)> {
        let mut collected = SliceCollector::new("n1");
        for slice in slices {
            collected.add(slice.as_bytes()).unwrap();
        }
        let devices = collected.finish().devices.into_iter();
        devices.map(|(key, device)| (format!("{}/{}", key.pool, key.device), device)).collect()
    }

    fn uuids(slices: &[String]) -> Vec<String> {
        let uuid = |(_, device): (String, SliceDevice)| device.uuid.unwrap_or_default().into();
        devices_of(slices).into_iter().map(uuid).collect()
    }

    const GPU: &str = r#"{"name":"gpu-0","attributes":{"type":{"string":"gpu"},"uuid":{"string":"GPU-1"},"cores":{"int":7},"driverVersion":{"version":"1.0.0"},"ok":{"bool":true}},"capacity":{"memory":{"value":"80Gi"}}}"#;

    #[test]
    fn attributes_are_read_in_every_api_version() {
        let mig = r#"{"name":"gpu-0-mig-1g.10gb-19-0","basic":{"attributes":{"gpu.nvidia.com/type":{"string":"mig"},"parentUUID":{"string":"GPU-1"},"profile":{"string":"1g.10gb"}}}}"#;
        let devices = devices_of(&[slice(1, &format!("{GPU},{mig}"))]);
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
    fn only_the_newest_generation_of_a_pool_is_kept() {
        let other = GPU.replace("gpu-0", "gpu-1").replace("GPU-1", "GPU-2");
        let old = slice(3, &format!("{},{other}", GPU.replace("GPU-1", "GPU-old")));
        let new = slice(4, GPU);
        assert_eq!(uuids(&[old.clone(), new.clone()]), ["GPU-1"]);
        assert_eq!(uuids(&[new.clone(), old]), ["GPU-1"], "in any order");
        assert_eq!(
            uuids(&[new, slice(4, &other)]),
            ["GPU-1", "GPU-2"],
            "several slices of one generation"
        );
    }

    #[test]
    fn other_drivers_and_nodes_are_skipped() {
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
    fn malformed_lists_and_slices_are_rejected() {
        assert_eq!(check_list(br#"{"kind":"ResourceSliceList","items":[]}"#), Ok(()));
        for rest in ["", "{}", r#"{"kind":"PodList"}"#, "<html>"] {
            assert!(check_list(rest.as_bytes()).is_err(), "{rest}");
        }
        let mut collected = SliceCollector::new("n1");
        for malformed in ["", "{}", r#"{"spec":{"driver":7}}"#, r#"{"spec":null}"#] {
            assert!(collected.add(malformed.as_bytes()).is_err(), "{malformed}");
        }
    }
}
