//! What is read on a simulated node.

use std::path::PathBuf;

use super::ReadConfig;
use crate::cluster::Sources;
use crate::counters::follow::Source;
use crate::kube::api::Address;
use crate::nvml::mock::Stage;

impl ReadConfig {
    /// The same of the simulated node, if one is asked for, with the stage that it plays on: it is
    /// gone with that.
    ///
    /// # Errors
    /// A scenario that cannot be played.
    pub fn staged(self) -> anyhow::Result<(Self, Option<Stage>)> {
        let stage = self.mock.as_deref().map(Stage::set_up).transpose()?;
        let Some(stage) = stage else { return Ok((self, None)) };
        let cluster = Sources::staged(stage.directory(), self.askers.label.clone())?;
        let schema = match &cluster {
            // A simulated node has a name of its own.
            Some(Sources { pods: Some((_, node)), .. }) if self.schema.node_name.is_empty() => {
                self.schema.of_node(node.as_str())
            }
            _ => self.schema,
        };
        let staged = Self {
            library: vec![stage.library()],
            procfs: self.procfs.or_else(|| Some(stage.procfs())),
            counters: self.counters.map(|source| staged_source(source, &stage)),
            cluster,
            schema,
            ..self
        };
        Ok((staged, Some(stage)))
    }

    /// The directory that is read as `/proc`.
    #[must_use]
    pub fn proc_root(&self) -> PathBuf {
        self.procfs.clone().unwrap_or_else(|| PathBuf::from("/proc"))
    }
}

/// A simulated node asks its own cluster's API server.
fn staged_source(source: Source, stage: &Stage) -> Source {
    match source {
        Source::ConfigMap { namespace, name, .. } => {
            let address = Address::Kubeconfig(stage.directory().join("kubeconfig"));
            Source::ConfigMap { address, namespace, name }
        }
        source @ Source::File(_) => source,
    }
}
