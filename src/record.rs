//! Writes what a node returns as a scenario of the mock.

pub mod cluster;
pub mod names;
pub mod processes;
pub mod toml;

use std::collections::BTreeMap;

use serde_json::Value;

use self::cluster::ClusterRecord;
use self::names::Names;
use self::processes::ProcessRecord;
use self::toml::quoted;

/// World time of a recording, seconds.
const NOW: u32 = 60;

/// What a node returns.
pub struct NodeRecord {
    /// What the driver returned: the tables of a scenario.
    pub driver: String,
    /// Whether the exporter runs in the initial PID namespace, if that is known.
    pub in_init_pid_namespace: Option<bool>,
    /// Processes that the driver lists.
    pub processes: Vec<ProcessRecord>,
    /// Pods and allocations; `None` without a cluster.
    pub cluster: Option<ClusterRecord>,
}

impl NodeRecord {
    /// The scenario, with names of the node replaced by `names`.
    #[must_use]
    pub fn to_scenario(&self, names: &mut Names, about: &str) -> String {
        let mut lines = vec![
            format!("about = {}", quoted(about)),
            format!("now = {NOW}"),
            format!("pid_namespace = \"{}\"", self.pid_namespace()),
        ];
        if !self.driver.contains("nvmlDeviceGetPciInfo_v3 = [") {
            lines.push("platform = \"tegra\"".to_owned());
        }
        // Names that the driver reports are part of what the cluster returned.
        let driver = names.replace_driver(&self.driver);
        if let Some(cluster) = &self.cluster {
            lines.push(String::new());
            lines.extend(cluster.to_toml(names));
        }
        for process in &self.processes {
            lines.push(String::new());
            lines.extend(process.to_toml(names));
        }
        format!("{}\n\n{driver}", lines.join("\n"))
    }

    fn pid_namespace(&self) -> &'static str {
        if self.in_init_pid_namespace == Some(false) { "container" } else { "host" }
    }
}

/// An object without the members that are null.
fn object(members: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let members = members.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(members.map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Texts by key.
fn texts(map: &BTreeMap<Box<str>, Box<str>>) -> Value {
    let entries = map.iter().map(|(key, value)| (key.to_string(), Value::from(&**value)));
    Value::Object(entries.collect())
}
