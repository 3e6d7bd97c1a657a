//! Location of a process in the cgroup hierarchy.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Pod UID as it occurs in cgroup paths: a UUID with dashes, or the 32 hexadecimal digits of a
/// static pod's configuration hash. Always lower case.
///
/// The UID of a static pod's mirror pod in the API is different; the mirror pod has this one in the
/// annotation `kubernetes.io/config.hash`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodUid(Arc<str>);

/// Id of a container or a pod sandbox in the container runtime: 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(Arc<str>);

/// Location of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupLocation {
    /// In a pod. Innermost first, never empty. There are several if the node itself runs in a pod's
    /// container; the pod list decides which of them is a pod of this node.
    Pod(Vec<PodPath>),
    /// In a container without a pod in its path: outside Kubernetes, or seen from a private cgroup
    /// namespace.
    Container(ContainerId),
    /// Not in a container.
    Host,
    /// The cgroup hierarchies have different pods, or different containers without a pod.
    Conflict,
}

/// A pod and a container in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPath {
    /// UID of the pod.
    pub uid: PodUid,
    /// The container or sandbox; `None` in the pod's own cgroup, for a container's monitor process
    /// (conmon), and if the hierarchies have different ones.
    pub container: Option<ContainerId>,
}

impl PodUid {
    const HASH: usize = 32;
    const UUID: usize = 36;
    const DASHES: [usize; 4] = [8, 13, 18, 23];

    /// Parses a UID. Dashes may be underscores, as in the names of systemd slices.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits = |text: &[u8]| text.iter().copied().all(is_digit);
        let valid = match text.len() {
            Self::HASH => digits(text),
            Self::UUID => text.iter().enumerate().all(|(at, byte)| {
                if Self::DASHES.contains(&at) {
                    matches!(byte, b'-' | b'_')
                } else {
                    is_digit(*byte)
                }
            }),
            _ => false,
        };
        let text = std::str::from_utf8(text).ok().filter(|_| valid)?;
        Some(Self(if text.contains('_') { text.replace('_', "-").into() } else { text.into() }))
    }

    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ContainerId {
    /// Number of digits.
    pub const LEN: usize = 64;

    /// Parses an id without the runtime's prefix (`containerd://`).
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let valid = text.len() == Self::LEN && text.iter().copied().all(is_digit);
        Some(Self(std::str::from_utf8(text).ok().filter(|_| valid)?.into()))
    }

    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for PodUid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ContainerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const UID: &str = "3f6a1c58-90de-4b27-a1f4-0c9d5e7b2a63";
    const HASH: &str = "9c1185a5c5e9fc54612808977ee8f548";

    #[test]
    fn pod_uid_is_a_uuid_or_a_hash() {
        for text in [UID, HASH] {
            assert_eq!(PodUid::parse(text.as_bytes()).unwrap().to_string(), text);
        }
        let slice = UID.replace('-', "_");
        assert_eq!(PodUid::parse(slice.as_bytes()).unwrap().as_str(), UID);
        let long = format!("{UID}0");
        for wrong in ["", "123", &UID[1..], &long, &UID.to_uppercase(), &UID.replace('-', "0")] {
            assert_eq!(PodUid::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(PodUid::parse(&[0xff; 32]), None);
    }

    #[test]
    fn container_id_has_64_digits() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(ContainerId::parse(id.as_bytes()).unwrap().to_string(), id);
        for wrong in [&id[1..], &format!("{id}0"), &id.to_uppercase(), &id.replace('f', "g")] {
            assert_eq!(ContainerId::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn map_keys_can_be_looked_up_by_text() {
        let id = "ab".repeat(32);
        let uids = HashMap::from([(PodUid::parse(UID.as_bytes()).unwrap(), 1)]);
        let ids = HashMap::from([(ContainerId::parse(id.as_bytes()).unwrap(), 2)]);
        assert_eq!((uids.get(UID), ids.get(id.as_str())), (Some(&1), Some(&2)));
    }
}
