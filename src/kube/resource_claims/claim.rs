//! Parses a `ResourceClaim`: its consumers, and what it allocates of each device.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::kube::assignments::ClaimedDevice;
use crate::kube::quantity::{self, JsonQuantity};
use crate::policy::CLAIM_DEVICES_MAX;

/// A `ResourceClaim` with an allocation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AllocatedClaim {
    /// `metadata.uid`: a claim that is created again with the same name has another one.
    pub uid: Box<str>,
    /// UIDs of the pods that may use it (`status.reservedFor`).
    pub pods: BTreeSet<Box<str>>,
    /// Whether it is reserved for objects other than pods, and pods of these may use it.
    pub has_other_consumers: bool,
    /// Its devices (`status.allocation.devices.results`).
    pub devices: Vec<AllocatedDevice>,
}

/// What a claim allocates of one device.
#[derive(Clone, Debug, PartialEq)]
pub struct AllocatedDevice {
    /// The DRA driver.
    pub driver: Box<str>,
    /// Pool of the device.
    pub pool: Box<str>,
    /// Name in the pool.
    pub device: Box<str>,
    /// Id of the share of the device.
    pub share: Option<Box<str>>,
    /// Whether it is an administrative access, which allocates nothing.
    pub admin_access: bool,
    /// Memory of a share, MiB; 0 if the share has no limit, `None` if the device is allocated whole
    /// or the size is unknown.
    pub consumed_memory: Option<f64>,
    /// How the containers of the claim share the device.
    pub sharing: DeviceSharing,
}

/// Sharing of a device among the containers of its claim, as configured in the claim or its class.
#[derive(Clone, Debug, PartialEq)]
pub enum DeviceSharing {
    /// Not configured.
    Default,
    /// By time-slicing, which limits nothing.
    TimeSlicing,
    /// By MPS, with limits of each client.
    Mps {
        /// Fraction of the compute, 0 to 1; 0 is unlimited.
        compute: f64,
        /// Limits of the memory.
        memory: MpsMemoryLimits,
    },
    /// In a way that is not known here.
    Unknown,
}

/// Memory limits of MPS clients, MiB.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MpsMemoryLimits {
    /// Of every device that has no other one.
    pub default: Option<f64>,
    /// By UUID, or by index in an order that only the driver knows.
    pub by_device: BTreeMap<Box<str>, Option<f64>>,
    /// Whether the configuration applies to one device, which has the index 0.
    pub one_device: bool,
}

/// A memory limit of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryLimit {
    /// No limit.
    Unlimited,
    /// MiB.
    Mib(f64),
    /// A limit that cannot be determined.
    Unknown,
}

impl MpsMemoryLimits {
    /// The limit on the device with this UUID.
    #[must_use]
    pub fn of(&self, uuid: &str) -> MemoryLimit {
        let of = |limit: &Option<f64>| limit.map_or(MemoryLimit::Unknown, MemoryLimit::Mib);
        if let Some(limit) = self.by_device.get(uuid) {
            return of(limit);
        }
        let mut by_index = self.by_device.iter().filter(|(key, _)| key.parse::<u32>().is_ok());
        match (by_index.next(), self.by_device.get("0")) {
            (Some(_), Some(limit)) if self.one_device => of(limit),
            (Some(_), _) if !self.one_device => MemoryLimit::Unknown,
            _ => self.default.map_or(MemoryLimit::Unlimited, MemoryLimit::Mib),
        }
    }
}

impl AllocatedClaim {
    /// What it allocates of a device that the kubelet lists for it.
    #[must_use]
    pub fn device(&self, claimed: &ClaimedDevice) -> Option<&AllocatedDevice> {
        self.devices.iter().find(|allocated| {
            (&allocated.driver, &allocated.pool) == (&claimed.driver, &claimed.pool)
                && (&allocated.device, &allocated.share) == (&claimed.device, &claimed.share)
        })
    }
}

#[derive(Deserialize)]
struct RawClaim {
    metadata: RawMetadata,
    #[serde(default)]
    status: Option<RawClaimStatus>,
}

#[derive(Deserialize)]
struct RawMetadata {
    uid: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawClaimStatus {
    allocation: Option<RawClaimAllocation>,
    reserved_for: Option<Vec<RawConsumer>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawConsumer {
    #[serde(default)]
    api_group: Option<Box<str>>,
    resource: Box<str>,
    uid: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawClaimAllocation {
    devices: Option<RawDevices>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawDevices {
    results: Option<Vec<RawResult>>,
    config: Option<Vec<RawConfig>>,
}

/// A result has the same fields in all versions of the API.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawResult {
    request: Box<str>,
    driver: Box<str>,
    pool: Box<str>,
    device: Box<str>,
    #[serde(default)]
    admin_access: Option<bool>,
    #[serde(default, rename = "shareID")]
    share_id: Option<Box<str>>,
    #[serde(default)]
    consumed_capacity: Option<BTreeMap<Box<str>, JsonQuantity>>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    source: Option<Box<str>>,
    #[serde(default)]
    requests: Option<Vec<Box<str>>>,
    #[serde(default)]
    opaque: Option<RawOpaqueConfig>,
}

#[derive(Deserialize)]
struct RawOpaqueConfig {
    driver: Box<str>,
    /// Read only for the driver of the device: it may have any form.
    #[serde(default)]
    parameters: Option<Box<RawValue>>,
}

/// `GpuConfig` and `MigDeviceConfig` of NVIDIA's driver.
#[derive(Deserialize)]
struct RawParameters {
    kind: Box<str>,
    #[serde(default)]
    sharing: Option<RawSharing>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSharing {
    strategy: Box<str>,
    #[serde(default)]
    mps_config: Option<RawMpsConfig>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawMpsConfig {
    #[serde(rename = "defaultActiveThreadPercentage")]
    thread_percentage: Option<f64>,
    #[serde(rename = "defaultPinnedDeviceMemoryLimit")]
    memory_limit: Option<JsonQuantity>,
    #[serde(rename = "defaultPerDevicePinnedMemoryLimit")]
    memory_limit_by_device: Option<BTreeMap<Box<str>, JsonQuantity>>,
}

/// Parses a claim from its JSON, in any version of the API.
///
/// # Errors
/// The text is not JSON, or a parsed field does not have the type of the Kubernetes API.
pub fn parse(json: &[u8]) -> Result<AllocatedClaim, serde_json::Error> {
    let RawClaim { metadata, status } = serde_json::from_slice(json)?;
    let RawClaimStatus { allocation, reserved_for } = status.unwrap_or_default();
    let RawDevices { results, config } = allocation.and_then(|a| a.devices).unwrap_or_default();
    let is_pod = |consumer: &RawConsumer| {
        consumer.api_group.as_deref().unwrap_or_default().is_empty()
            && *consumer.resource == *"pods"
    };
    let (pods, others): (Vec<_>, Vec<_>) =
        reserved_for.unwrap_or_default().into_iter().partition(is_pod);
    let configs = ClaimConfigs::new(config.unwrap_or_default());
    let results = results.unwrap_or_default();
    let devices = results.iter().take(CLAIM_DEVICES_MAX).map(|result| AllocatedDevice {
        driver: result.driver.clone(),
        pool: result.pool.clone(),
        device: result.device.clone(),
        share: result.share_id.clone(),
        admin_access: result.admin_access == Some(true),
        consumed_memory: consumed_memory(result),
        sharing: configs.sharing(result, &results),
    });
    Ok(AllocatedClaim {
        uid: metadata.uid,
        pods: pods.into_iter().map(|consumer| consumer.uid).collect(),
        has_other_consumers: !others.is_empty(),
        devices: devices.collect(),
    })
}

/// A capacity name without a domain is in the driver's domain.
fn consumed_memory(result: &RawResult) -> Option<f64> {
    let consumed = result.consumed_capacity.as_ref()?;
    let qualified = format!("{}/memory", result.driver);
    let memory = consumed.get("memory").or_else(|| consumed.get(qualified.as_str()))?;
    mib(memory)
}

fn mib(quantity: &JsonQuantity) -> Option<f64> {
    match quantity {
        JsonQuantity::Text(text) => quantity::mib(text),
        JsonQuantity::Number(number) => quantity::mib(&number.to_string()),
    }
}

/// The configurations of a claim, in ascending order of precedence.
struct ClaimConfigs(Vec<RawConfig>);

impl ClaimConfigs {
    /// The claim's own configurations take precedence over those of its classes, and of each the
    /// later ones over the earlier.
    fn new(mut configs: Vec<RawConfig>) -> Self {
        configs.sort_by_key(|config| config.source.as_deref() != Some("FromClass"));
        Self(configs)
    }

    /// The sharing of the device of `result`, one of `results`.
    fn sharing(&self, result: &RawResult, results: &[RawResult]) -> DeviceSharing {
        let selected = self.0.iter().rev().find_map(|config| {
            let opaque = config.opaque.as_ref().filter(|opaque| opaque.driver == result.driver)?;
            let requests = config.requests.as_deref().unwrap_or_default();
            let parameters = opaque.parameters.as_ref().map(|raw| raw.get()).unwrap_or_default();
            let parameters = serde_json::from_str::<RawParameters>(parameters).ok();
            // Without requests it applies to all devices of its kind.
            let applies = if requests.is_empty() {
                parameters.as_ref().is_none_or(|parameters| parameters.is_for(&result.device))
            } else {
                requests.iter().any(|request| includes(request, &result.request))
            };
            applies.then_some((requests, parameters))
        });
        let Some((requests, parameters)) = selected else { return DeviceSharing::Default };
        let Some(RawParameters { sharing, .. }) = parameters else { return DeviceSharing::Unknown };
        let is_for = |other: &&RawResult| {
            other.driver == result.driver
                && (requests.is_empty() || requests.iter().any(|r| includes(r, &other.request)))
        };
        let one_device = results.iter().filter(is_for).count() == 1;
        sharing.map_or(DeviceSharing::Default, |sharing| sharing.into_sharing(one_device))
    }
}

/// Whether a request of a configuration is `request` or one that `request` is an alternative of
/// (`main/alternative`).
fn includes(configured: &str, request: &str) -> bool {
    let rest = request.strip_prefix(configured);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl RawParameters {
    /// Whether it is for devices of the kind of this one, as its name shows.
    fn is_for(&self, device: &str) -> bool {
        match &*self.kind {
            "GpuConfig" => !device.contains("-mig-") && !device.starts_with("gpu-vfio-"),
            "MigDeviceConfig" => device.contains("-mig-"),
            _ => false,
        }
    }
}

impl RawSharing {
    fn into_sharing(self, one_device: bool) -> DeviceSharing {
        match &*self.strategy {
            "TimeSlicing" => DeviceSharing::TimeSlicing,
            "MPS" => self.mps_config.unwrap_or_default().into_sharing(one_device),
            _ => DeviceSharing::Unknown,
        }
    }
}

impl RawMpsConfig {
    fn into_sharing(self, one_device: bool) -> DeviceSharing {
        let percentage = self.thread_percentage.unwrap_or(0.0);
        if !(0.0..=100.0).contains(&percentage) {
            return DeviceSharing::Unknown;
        }
        // The driver sets the limits in whole MiB.
        let limit = |quantity: &JsonQuantity| {
            mib(quantity).map(f64::floor).filter(|mib| mib.is_finite() && *mib > 0.0)
        };
        let default = match &self.memory_limit {
            None => None,
            Some(quantity) => match limit(quantity) {
                None => return DeviceSharing::Unknown,
                known => known,
            },
        };
        let by_device = self.memory_limit_by_device.unwrap_or_default();
        let by_device = by_device.into_iter().take(CLAIM_DEVICES_MAX);
        DeviceSharing::Mps {
            compute: percentage / 100.0,
            memory: MpsMemoryLimits {
                default,
                by_device: by_device.map(|(key, quantity)| (key, limit(&quantity))).collect(),
                one_device,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(results: &str, config: &str) -> AllocatedClaim {
        let text = format!(
            r#"{{"metadata":{{"uid":"c-1","name":"x"}},"spec":{{}},"status":{{
            "reservedFor":[{{"resource":"pods","name":"p","uid":"p-1"}}],
            "allocation":{{"devices":{{"results":[{results}],"config":[{config}]}}}}}}}}"#
        );
        parse(text.as_bytes()).unwrap()
    }

    fn result(request: &str, device: &str, rest: &str) -> String {
        format!(
            r#"{{"request":"{request}","driver":"gpu.nvidia.com","pool":"n1","device":"{device}"{rest}}}"#
        )
    }

    fn config(source: &str, requests: &str, kind: &str, sharing: &str) -> String {
        format!(
            r#"{{"source":"{source}","requests":[{requests}],"opaque":{{"driver":"gpu.nvidia.com",
            "parameters":{{"apiVersion":"resource.nvidia.com/v1beta1","kind":"{kind}","sharing":{sharing}}}}}}}"#
        )
    }

    fn mps(compute: f64, default: Option<f64>) -> DeviceSharing {
        let memory = MpsMemoryLimits { default, one_device: true, ..MpsMemoryLimits::default() };
        DeviceSharing::Mps { compute, memory }
    }

    const MPS: &str = r#"{"strategy":"MPS","mpsConfig":{"defaultActiveThreadPercentage":50,"defaultPinnedDeviceMemoryLimit":"10Gi"}}"#;

    #[test]
    fn consumers_and_devices_are_read() {
        let rest = r#","shareID":"s-1","consumedCapacity":{"memory":"4Gi"}"#;
        let results = [
            result("a", "gpu-0", rest),
            result("b", "gpu-1", r#","adminAccess":true"#),
            result("c", "gpu-2", r#","adminAccess":false"#),
            result(
                "d",
                "gpu-3",
                r#","shareID":"s-2","consumedCapacity":{"gpu.nvidia.com/memory":"0"}"#,
            ),
            result("e", "gpu-4", r#","shareID":"s-3","consumedCapacity":{"memory":"4Qi"}"#),
        ];
        let claim = claim(&results.join(","), "");
        assert_eq!((&*claim.uid, claim.has_other_consumers), ("c-1", false));
        assert_eq!(claim.pods, ["p-1".into()].into());
        let found = |device: &str, share: Option<&str>| {
            let claimed = ClaimedDevice {
                claim_namespace: "demo".into(),
                claim_name: "x".into(),
                driver: "gpu.nvidia.com".into(),
                pool: "n1".into(),
                device: device.into(),
                share: share.map(Box::from),
            };
            claim.device(&claimed).map(|found| (found.admin_access, found.consumed_memory))
        };
        assert_eq!(found("gpu-0", Some("s-1")), Some((false, Some(4096.0))));
        assert_eq!(found("gpu-0", None), None, "another share");
        assert_eq!(found("gpu-1", None), Some((true, None)));
        assert_eq!(found("gpu-2", None), Some((false, None)));
        assert_eq!(found("gpu-3", Some("s-2")), Some((false, Some(0.0))));
        assert_eq!(found("gpu-4", Some("s-3")), Some((false, None)), "not a quantity");
        assert_eq!(found("gpu-9", None), None);
    }

    #[test]
    fn claim_may_be_unallocated_or_reserved_for_other_objects() {
        for text in [
            r#"{"metadata":{"uid":"u"}}"#,
            r#"{"metadata":{"uid":"u"},"status":null}"#,
            r#"{"metadata":{"uid":"u"},"status":{"allocation":{"devices":{"results":null}}}}"#,
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().devices, [], "{text}");
        }
        let text = r#"{"metadata":{"uid":"u"},"status":{"reservedFor":[
            {"apiGroup":"scheduling.k8s.io","resource":"podgroups","name":"g","uid":"g-1"}]}}"#;
        let claim = parse(text.as_bytes()).unwrap();
        assert!(claim.has_other_consumers && claim.pods.is_empty());
        for text in ["", "{}", r#"{"metadata":{}}"#, r#"{"metadata":{"uid":"u"},"status":7}"#] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn configuration_with_the_highest_precedence_applies() {
        let one = result("gpu", "gpu-0", "");
        let sharing =
            |configs: &[String]| claim(&one, &configs.join(",")).devices[0].sharing.clone();
        let slicing = r#"{"strategy":"TimeSlicing","timeSlicingConfig":{"interval":"Long"}}"#;
        let of_class = config("FromClass", "", "GpuConfig", slicing);
        let of_claim = config("FromClaim", r#""gpu""#, "GpuConfig", MPS);
        assert_eq!(sharing(&[]), DeviceSharing::Default);
        assert_eq!(sharing(std::slice::from_ref(&of_class)), DeviceSharing::TimeSlicing);
        assert_eq!(sharing(&[of_claim.clone(), of_class.clone()]), mps(0.5, Some(10_240.0)));
        let other_request = config("FromClaim", r#""other","gp""#, "GpuConfig", MPS);
        assert_eq!(sharing(&[of_class.clone(), other_request]), DeviceSharing::TimeSlicing);
        let of_mig = config("FromClaim", "", "MigDeviceConfig", MPS);
        assert_eq!(sharing(std::slice::from_ref(&of_mig)), DeviceSharing::Default);
        let of_mig = claim(&result("m", "gpu-0-mig-1g10gb-19-2", ""), &of_mig);
        assert_eq!(of_mig.devices[0].sharing, mps(0.5, Some(10_240.0)));
        let alternative = claim(&result("gpu/large", "gpu-0", ""), &of_claim);
        assert_eq!(alternative.devices[0].sharing, mps(0.5, Some(10_240.0)));
        let foreign = of_claim.replace("gpu.nvidia.com", "gpu.example.com");
        assert_eq!(sharing(&[foreign]), DeviceSharing::Default);
        for unknown in [
            r#"{"strategy":"Fabric"}"#,
            "7",
            r#"{"strategy":"MPS","mpsConfig":{"defaultActiveThreadPercentage":500}}"#,
            r#"{"strategy":"MPS","mpsConfig":{"defaultPinnedDeviceMemoryLimit":"1Ki"}}"#,
        ] {
            let config = config("FromClaim", "", "GpuConfig", unknown);
            assert_eq!(sharing(&[config]), DeviceSharing::Unknown, "{unknown}");
        }
        assert_eq!(
            sharing(&[config("FromClaim", "", "GpuConfig", "null")]),
            DeviceSharing::Default
        );
        let unlimited = config("FromClaim", "", "GpuConfig", r#"{"strategy":"MPS"}"#);
        assert_eq!(sharing(&[unlimited]), mps(0.0, None));
    }

    #[test]
    fn memory_limit_of_a_device_takes_precedence_over_the_default() {
        let limits = |by_device: &[(&str, Option<f64>)], one_device| MpsMemoryLimits {
            default: Some(10.0),
            by_device: by_device.iter().map(|(key, limit)| ((*key).into(), *limit)).collect(),
            one_device,
        };
        assert_eq!(limits(&[], false).of("GPU-1"), MemoryLimit::Mib(10.0));
        assert_eq!(limits(&[("GPU-1", Some(5.0))], false).of("GPU-1"), MemoryLimit::Mib(5.0));
        assert_eq!(limits(&[("GPU-2", Some(5.0))], false).of("GPU-1"), MemoryLimit::Mib(10.0));
        assert_eq!(limits(&[("0", Some(5.0))], true).of("GPU-1"), MemoryLimit::Mib(5.0));
        assert_eq!(limits(&[("0", Some(5.0))], false).of("GPU-1"), MemoryLimit::Unknown);
        assert_eq!(limits(&[("GPU-1", None)], true).of("GPU-1"), MemoryLimit::Unknown);
        assert_eq!(MpsMemoryLimits::default().of("GPU-1"), MemoryLimit::Unlimited);
    }
}
