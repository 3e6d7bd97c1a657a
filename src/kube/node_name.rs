//! The name of this node in the cluster.

use crate::model::Problem;

/// A valid node name, safe to use in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(Box<str>);

/// Why a node name is rejected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.problem())]
pub enum NodeNameError {
    /// The name is empty. Without it every exporter would watch all pods of the cluster.
    Missing,
    /// The name is not a DNS subdomain.
    Invalid(String),
}

impl NodeNameError {
    /// Message and remedy.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Missing => Problem::new(
                "no node name is set, and without one every exporter would watch all pods of the \
                 cluster",
                "set NODE_NAME through the downward API (fieldPath: spec.nodeName) or pass \
                 --node-name",
            ),
            Self::Invalid(name) => Problem::new(
                format!(
                    "node name {name:?} is not a valid Kubernetes name (lower-case letters, digits, \
                     '-' and '.')"
                ),
                "pass the name that `kubectl get nodes` prints",
            ),
        }
    }
}

impl NodeName {
    /// Validates a name.
    ///
    /// # Errors
    /// The name is empty or not a DNS subdomain.
    pub fn new(name: &str) -> Result<Self, NodeNameError> {
        let is_valid = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        match name {
            "" => Err(NodeNameError::Missing),
            _ if name.len() > 253 || !name.bytes().all(is_valid) => {
                Err(NodeNameError::Invalid(name.to_owned()))
            }
            _ => Ok(Self(name.into())),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_node_names_are_rejected() {
        assert_eq!(NodeName::new("gpu-1.example").unwrap().as_str(), "gpu-1.example");
        assert_eq!(NodeName::new(""), Err(NodeNameError::Missing));
        for name in ["a b", "a&watch=1", "a/../b", "A", &"a".repeat(254)] {
            assert_eq!(NodeName::new(name), Err(NodeNameError::Invalid(name.to_owned())));
        }
    }
}
