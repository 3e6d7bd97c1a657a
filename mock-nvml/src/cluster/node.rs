//! The Node object of the API server.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::scenario::cluster::Cluster;

impl Cluster {
    pub(crate) fn node_object(&self, time: f64) -> Value {
        let standard = [("kubernetes.io/hostname", &*self.node), ("kubernetes.io/os", "linux")];
        let extra = self.labels.iter().filter(|label| label.during.contains(time));
        let extra = extra.map(|label| (&*label.key, &*label.value));
        let labels: BTreeMap<_, _> = standard.into_iter().chain(extra).collect();
        json!({
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": { "name": self.node, "uid": format!("node-{}", self.node), "labels": labels },
            "spec": {},
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        })
    }
}
