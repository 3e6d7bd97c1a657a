//! Replaces the data sources by those of a simulated node (`--mock`).

use std::path::{Path, PathBuf};

use super::ReadConfig;
use crate::cluster::Sources;
use crate::counters::watcher::CountersSource;
use crate::host::ProcRoot;
use crate::host::pci_bus::PciBus;
use crate::kube::address::Address;
use crate::model::Problem;
use crate::nvml::mock::{MockEnv, MockFiles};
use crate::sample::driver_source::DriverSource;

impl ReadConfig {
    /// With a mock scenario, returns the configuration of the simulated node, and the mock environment
    /// that the node's `files` belong to: they are removed when it is dropped.
    ///
    /// # Errors
    /// The scenario cannot be loaded, or the mock library is missing.
    pub fn with_mock_env(self, files: &MockFiles) -> Result<(Self, Option<MockEnv>), Problem> {
        let mock_env = self.mock.as_deref().map(|mock| MockEnv::set_up(mock, files)).transpose()?;
        let Some(mock_env) = mock_env else { return Ok((self, None)) };
        let cluster =
            Sources::from_mock_env(mock_env.directory(), self.release_triggers.label.clone())?;
        if let (None, Some(CountersSource::ConfigMap { namespace, name, .. })) =
            (&cluster, &self.counters)
        {
            return Err(Problem::new(
                format!("--configmap-data {namespace}:{name}: the scenario has no cluster"),
                "add [cluster] with config_maps to the scenario",
            ));
        }
        let schema = match &cluster {
            // The scenario names the node.
            Some(Sources { pods: Some((_, node)), .. }) if self.schema.node_name.is_empty() => {
                self.schema.with_node_name(node.as_str())
            }
            _ => self.schema,
        };
        let simulated = Self {
            library: vec![mock_env.library()],
            procfs: self.procfs.or_else(|| Some(mock_env.procfs())),
            sysfs: self.sysfs.or_else(|| Some(mock_env.sysfs())),
            counters: self.counters.map(|source| mock_source(source, &mock_env)),
            cluster,
            schema,
            ..self
        };
        Ok((simulated, Some(mock_env)))
    }

    /// The directory to read as `/proc`.
    #[must_use]
    pub fn proc_root(&self) -> PathBuf {
        self.procfs.clone().unwrap_or_else(|| PathBuf::from("/proc"))
    }

    /// Where the driver is found.
    #[must_use]
    pub fn driver_source(&self) -> DriverSource {
        let (sys_root, proc_root) = (self.sysfs.as_deref(), self.proc_root());
        let pci_bus = PciBus::new(sys_root.unwrap_or(Path::new("/sys")), &proc_root);
        DriverSource {
            libraries: self.library.clone(),
            proc_root: ProcRoot::new(&proc_root),
            pci_bus: (!self.require_gpu).then_some(pci_bus),
        }
    }
}

/// A `ConfigMap` is read from the simulated API server.
fn mock_source(source: CountersSource, mock_env: &MockEnv) -> CountersSource {
    match source {
        CountersSource::ConfigMap { namespace, name, .. } => {
            let address = Address::Kubeconfig(mock_env.directory().join("kubeconfig"));
            CountersSource::ConfigMap { address, namespace, name }
        }
        source @ CountersSource::File(_) => source,
    }
}
