//! Parses `ResourceSlice` objects and collects the devices of each pool.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::kube::assignments::{SliceDevice, SliceKey, SliceTable};
use crate::sanitize::truncate_for_log;

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
#[serde(rename_all = "camelCase")]
struct RawPool {
    name: Box<str>,
    #[serde(default)]
    generation: i64,
    #[serde(default)]
    resource_slice_count: usize,
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

/// Driver and name of a pool.
type PoolKey = (Box<str>, Box<str>);

/// Collects the slices of one or more lists.
#[derive(Debug)]
pub struct SliceCollector<'a> {
    node: &'a str,
    claimed: &'a BTreeSet<SliceKey>,
    pools: BTreeMap<PoolKey, PoolDevices>,
}

/// The devices of one generation of a pool. The driver replaces a pool by a new generation, while
/// slices of the old one may still exist.
#[derive(Debug, Default)]
struct PoolDevices {
    generation: i64,
    /// Number of slices of this generation, and how many of them were found.
    expected: usize,
    slices: usize,
    devices: BTreeMap<Box<str>, SliceDevice>,
}

impl<'a> SliceCollector<'a> {
    /// An empty collection for the node `node`; its claims have the devices `claimed`.
    #[must_use]
    pub fn new(node: &'a str, claimed: &'a BTreeSet<SliceKey>) -> Self {
        Self { node, claimed, pools: BTreeMap::new() }
    }

    /// Adds a slice, if it is of this node and of a driver with claims, or of no single node and of
    /// a pool with claims. A claim of this node has devices for this node only, so that node
    /// selectors need not be evaluated.
    ///
    /// # Errors
    /// The slice is malformed.
    pub fn add(&mut self, json: &[u8]) -> Result<(), serde_json::Error> {
        let RawSlice { spec: RawSliceSpec { driver, node_name, pool, devices } } =
            serde_json::from_slice(json)?;
        let is_claimed = |key: &SliceKey| match node_name.as_deref() {
            Some(node) => *node == *self.node && key.driver == driver,
            None => key.driver == driver && key.pool == pool.name,
        };
        if !self.claimed.iter().any(is_claimed) {
            return Ok(());
        }
        let RawPool { name, generation, resource_slice_count: expected } = pool;
        let key = (driver, name);
        if !self.pools.contains_key(&key) && self.pools.len() >= POOLS_MAX {
            return Ok(());
        }
        let driver = key.0.clone();
        let pool = self.pools.entry(key).or_default();
        if generation > pool.generation {
            *pool = PoolDevices { generation, ..PoolDevices::default() };
        }
        if generation == pool.generation {
            pool.slices += 1;
            pool.expected = pool.expected.max(expected);
            if pool.slices <= SLICES_MAX {
                let devices = devices.unwrap_or_default().into_iter().take(DEVICES_MAX);
                pool.devices.extend(devices.map(|device| device.into_entry(&driver)));
            }
        }
        Ok(())
    }

    /// Whether all claimed devices were found.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let is_found = |key: &SliceKey| {
            let pool = self.pools.get(&(key.driver.clone(), key.pool.clone()));
            pool.is_some_and(|pool| pool.is_complete() && pool.devices.contains_key(&key.device))
        };
        self.claimed.iter().all(is_found)
    }

    /// The devices of the newest generation of each pool, if the driver has published all of it:
    /// older generations are outdated.
    #[must_use]
    pub fn finish(self) -> SliceTable {
        let complete = self.pools.into_iter().filter(|(_, pool)| pool.is_complete());
        let devices = complete.flat_map(|((driver, pool), found)| {
            found.devices.into_iter().map(move |(name, device)| {
                (SliceKey { driver: driver.clone(), pool: pool.clone(), device: name }, device)
            })
        });
        SliceTable { devices: devices.collect() }
    }
}

impl PoolDevices {
    fn is_complete(&self) -> bool {
        self.slices >= self.expected
    }
}

impl RawSliceDevice {
    fn into_entry(self, driver: &str) -> (Box<str>, SliceDevice) {
        let basic = self.basic.and_then(|basic| basic.attributes);
        let mut attributes = self.attributes.or(basic).unwrap_or_default();
        // An attribute name without a domain is in the driver's domain.
        let mut text = |name: &str| {
            let qualified = attributes.remove(format!("{driver}/{name}").as_str());
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

    fn key(driver: &str, pool: &str) -> SliceKey {
        SliceKey { driver: driver.into(), pool: pool.into(), device: "gpu-0".into() }
    }

    fn devices_of(slices: &[String]) -> Vec<(String, SliceDevice)> {
        let claimed = [key("gpu.nvidia.com", "n1"), key("gpu.example.com", "shared")].into();
        let mut collected = SliceCollector::new("n1", &claimed);
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
    fn incomplete_generation_of_a_pool_is_not_used() {
        let part = slice(4, GPU).replace("\"resourceSliceCount\":1", "\"resourceSliceCount\":2");
        assert_eq!(uuids(&[slice(3, GPU), part.clone()]), Vec::<String>::new());
        let counters =
            part.replace("\"devices\":[", "\"sharedCounters\":[],\"devices\":null,\"x\":[");
        assert_eq!(uuids(&[part, counters]), ["GPU-1"]);
    }

    #[test]
    fn slices_without_claims_are_skipped() {
        let mine = slice(1, GPU);
        for (from, to) in [
            ("\"driver\":\"gpu.nvidia.com\"", "\"driver\":\"gpu.other.com\""),
            ("\"nodeName\":\"n1\",", "\"nodeName\":\"n2\","),
            ("\"nodeName\":\"n1\",\"pool\":{\"name\":\"n1\"", "\"pool\":{\"name\":\"n3\""),
        ] {
            assert!(mine.contains(from));
            assert!(uuids(&[mine.replace(from, to)]).is_empty(), "{to}");
        }
        assert_eq!(uuids(&[mine.replace("[{", "null,\"x\":[{")]), Vec::<String>::new());
    }

    #[test]
    fn slices_of_several_nodes_and_drivers_are_read_for_claimed_pools() {
        let driver = |slice: &str| slice.replace("gpu.nvidia.com", "gpu.example.com");
        let shared = |selection: &str| {
            let slice = driver(&slice(1, GPU)).replace("\"nodeName\":\"n1\",", selection);
            slice.replace("{\"name\":\"n1\"", "{\"name\":\"shared\"")
        };
        for selection in [
            "\"allNodes\":true,",
            "\"nodeSelector\":{\"nodeSelectorTerms\":[{}]},",
            "\"perDeviceNodeSelection\":true,",
        ] {
            let slices = [shared(selection), slice(1, &GPU.replace("GPU-1", "GPU-2"))];
            assert_eq!(uuids(&slices), ["GPU-1", "GPU-2"], "{selection}");
        }
    }

    #[test]
    fn malformed_lists_and_slices_are_rejected() {
        assert_eq!(check_list(br#"{"kind":"ResourceSliceList","items":[]}"#), Ok(()));
        for rest in ["", "{}", r#"{"kind":"PodList"}"#, "<html>"] {
            assert!(check_list(rest.as_bytes()).is_err(), "{rest}");
        }
        let claimed = BTreeSet::new();
        let mut collected = SliceCollector::new("n1", &claimed);
        for malformed in ["", "{}", r#"{"spec":{"driver":7}}"#, r#"{"spec":null}"#] {
            assert!(collected.add(malformed.as_bytes()).is_err(), "{malformed}");
        }
    }
}
