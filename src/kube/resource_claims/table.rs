//! The resource claims that were read, and for which pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::claim::{AllocatedClaim, AllocatedDevice};
use crate::kube::assignments::ClaimedDevice;

/// Namespace and name of a claim.
pub type ClaimName = (Arc<str>, Arc<str>);

/// A claim that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimRequest {
    /// Namespace and name of the claim.
    pub claim: ClaimName,
    /// UID of the pod.
    pub pod: Arc<str>,
}

/// The claims that were read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimTable {
    claims: BTreeMap<ClaimName, ReadClaim>,
    /// The claims that the exporter has no permission to read.
    denied: BTreeSet<ClaimName>,
}

#[derive(Clone, Debug, PartialEq)]
struct ReadClaim {
    claim: AllocatedClaim,
    /// The pods of which it was read after they used it.
    read_for: BTreeSet<Arc<str>>,
}

/// What is known of a device of a claim.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClaimLookup<'a> {
    /// The claim allocates this.
    Read(&'a AllocatedDevice),
    /// The claim was not read yet, or it is that of another pod.
    Unread,
    /// The exporter has no permission to read it.
    Denied,
}

impl ReadClaim {
    /// Whether it is the claim of a pod. A claim can be deleted once its pods have ended, and
    /// created again with the same name.
    fn is_of(&self, pod: &str) -> bool {
        self.claim.pods.contains(pod)
            || (self.claim.has_other_consumers && self.read_for.contains(pod))
    }
}

impl ClaimTable {
    /// What is known of `claimed`, a device of a claim of the pod with the UID `pod`.
    #[must_use]
    pub fn get(&self, claimed: &ClaimedDevice, pod: &str) -> ClaimLookup<'_> {
        let name = (Arc::clone(&claimed.claim_namespace), Arc::clone(&claimed.claim_name));
        let read = self.claims.get(&name).filter(|read| read.is_of(pod));
        match read.and_then(|read| read.claim.device(claimed)) {
            Some(device) => ClaimLookup::Read(device),
            None if read.is_none() && self.denied.contains(&name) => ClaimLookup::Denied,
            None => ClaimLookup::Unread,
        }
    }

    /// The claims, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&ClaimName, &AllocatedClaim)> {
        self.claims.iter().map(|(name, read)| (name, &read.claim))
    }

    /// Whether the claim of this request is known.
    pub(super) fn has(&self, request: &ClaimRequest) -> bool {
        self.claims.get(&request.claim).is_some_and(|read| read.is_of(&request.pod))
    }

    /// Sets the claim that was read for a request.
    pub fn insert(&mut self, request: &ClaimRequest, claim: AllocatedClaim) {
        self.denied.remove(&request.claim);
        let before = self.claims.remove(&request.claim);
        let same = before.filter(|before| before.claim.uid == claim.uid);
        let mut read_for = same.map(|before| before.read_for).unwrap_or_default();
        read_for.insert(Arc::clone(&request.pod));
        self.claims.insert(request.claim.clone(), ReadClaim { claim, read_for });
    }

    /// Records that the permission to read a claim is denied.
    pub(super) fn deny(&mut self, claim: &ClaimName) {
        self.denied.insert(claim.clone());
    }

    /// Drops the claims that are in none of `requests`.
    pub(super) fn retain(&mut self, requests: &BTreeSet<ClaimRequest>) {
        let used: BTreeSet<&ClaimName> = requests.iter().map(|request| &request.claim).collect();
        self.claims.retain(|name, _| used.contains(name));
        self.denied.retain(|name| used.contains(name));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kube::resource_claims::claim;

    /// A table with the claims of these pods: name, UID of the pod, and `results` of the claim.
    pub(crate) fn table(claims: &[(&str, &[&str], &str)], denied: &[&str]) -> ClaimTable {
        let mut table = ClaimTable::default();
        for (name, pods, results) in claims {
            let request = request(name, pods[0]);
            table.insert(&request, allocated("u", pods, results));
        }
        for name in denied {
            table.deny(&request(name, "").claim);
        }
        table
    }

    pub(crate) fn request(name: &str, pod: &str) -> ClaimRequest {
        ClaimRequest { claim: ("demo".into(), name.into()), pod: pod.into() }
    }

    fn allocated(uid: &str, pods: &[&str], results: &str) -> AllocatedClaim {
        let pods = pods.iter().map(|pod| {
            let resource = if pod.starts_with("group") { "podgroups" } else { "pods" };
            format!(r#"{{"resource":"{resource}","name":"x","uid":"{pod}"}}"#)
        });
        let pods = pods.collect::<Vec<_>>().join(",");
        let text = format!(
            r#"{{"metadata":{{"uid":"{uid}"}},"status":{{"reservedFor":[{pods}],"allocation":{{"devices":{{"results":[{results}]}}}}}}}}"#
        );
        claim::parse(text.as_bytes()).unwrap()
    }

    const RESULT: &str =
        r#"{"request":"r","driver":"gpu.nvidia.com","pool":"n1","device":"gpu-0"}"#;

    fn claimed(name: &str) -> ClaimedDevice {
        ClaimedDevice {
            claim_namespace: "demo".into(),
            claim_name: name.into(),
            driver: "gpu.nvidia.com".into(),
            pool: "n1".into(),
            device: "gpu-0".into(),
            share: None,
        }
    }

    #[test]
    fn claim_is_that_of_the_pods_that_it_is_reserved_for() {
        let mut table = table(&[("x", &["p-1", "p-2"], RESULT)], &["y"]);
        let is_read = |lookup: ClaimLookup<'_>| matches!(lookup, ClaimLookup::Read(_));
        assert!(
            is_read(table.get(&claimed("x"), "p-1")) && is_read(table.get(&claimed("x"), "p-2"))
        );
        assert_eq!(table.get(&claimed("x"), "p-3"), ClaimLookup::Unread, "of a later claim");
        assert_eq!(table.get(&claimed("y"), "p-3"), ClaimLookup::Denied);
        assert_eq!(table.get(&claimed("z"), "p-3"), ClaimLookup::Unread);
        assert!(table.has(&request("x", "p-2")) && !table.has(&request("x", "p-3")));
        table.insert(&request("x", "p-3"), allocated("u-2", &["p-3"], RESULT));
        assert!(is_read(table.get(&claimed("x"), "p-3")));
        assert_eq!(table.get(&claimed("x"), "p-1"), ClaimLookup::Unread);
        table.insert(&request("y", "p-4"), allocated("u-3", &["p-4"], ""));
        assert_eq!(table.get(&claimed("y"), "p-4"), ClaimLookup::Unread, "it lacks the device");
        table.retain(&[request("y", "p-5")].into());
        assert!(!table.has(&request("x", "p-3")) && table.has(&request("y", "p-4")));
    }

    #[test]
    fn claim_reserved_for_a_group_is_that_of_the_pods_for_which_it_was_read() {
        let mut table = ClaimTable::default();
        for (uid, pod) in [("u-1", "p-1"), ("u-1", "p-2"), ("u-2", "p-3")] {
            table.insert(&request("x", pod), allocated(uid, &["group-1"], RESULT));
            assert!(table.has(&request("x", pod)), "{pod}");
            assert!(!table.has(&request("x", "p-9")));
        }
        assert!(!table.has(&request("x", "p-1")), "of the deleted claim");
    }
}
