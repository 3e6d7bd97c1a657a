//! The node as the API server says it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::scenario::cluster::Cluster;

impl Cluster {
    /// The node's object at `time`.
    pub(super) fn node_object(&self, time: f64) -> Value {
        let own = [("kubernetes.io/hostname", &*self.node), ("kubernetes.io/os", "linux")];
        let said = self.labels.iter().filter(|label| label.during.contains(time));
        let said = said.map(|label| (&*label.key, &*label.value));
        let labels: BTreeMap<_, _> = own.into_iter().chain(said).collect();
        json!({
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": { "name": self.node, "uid": format!("node-{}", self.node), "labels": labels },
            "spec": {},
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        })
    }
}
