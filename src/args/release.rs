//! Flags that say who may ask for NVML to be let go.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use crate::kube::node_label::Label;

/// Who may ask.
#[derive(Debug, Args)]
pub struct Releasing {
    /// Let go of NVML while this file exists, so that GPUs can be reset or their driver replaced
    #[arg(long, env = "NVML_EXPORTER_RELEASE_FILE", value_name = "PATH")]
    release_file: Option<PathBuf>,

    /// Let go of NVML while the node has this label; empty for none
    #[arg(
        long,
        env = "NVML_EXPORTER_RELEASE_LABEL",
        value_name = "K=V",
        default_value = "nvidia.com/mig.config.state=pending"
    )]
    release_label: String,
}

/// What may ask for NVML to be let go, beside signals.
#[derive(Debug)]
pub struct Askers {
    /// A file, by being there.
    pub file: Option<PathBuf>,
    /// A label of the node.
    pub label: Option<Label>,
}

impl Releasing {
    /// What was named.
    ///
    /// # Errors
    /// The label is none.
    pub fn settle(self) -> anyhow::Result<Askers> {
        let label = match self.release_label.as_str() {
            "" => None,
            text => match Label::parse(text) {
                None => bail!(
                    "--release-label {text}: give KEY=VALUE, as in nvidia.com/mig.config.state=pending"
                ),
                label => label,
            },
        };
        Ok(Askers { file: self.release_file, label })
    }
}
