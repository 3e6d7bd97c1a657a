//! Flags for releasing NVML on request.

use std::path::PathBuf;

use clap::Args;

use crate::kube::node_label::LabelRequirement;
use crate::model::Problem;

/// Flags for releasing NVML on request.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// Release NVML while this file exists, so that GPUs can be reset or the driver replaced
    #[arg(long, env = "NVML_EXPORTER_RELEASE_FILE", value_name = "PATH")]
    release_file: Option<PathBuf>,

    /// Release NVML while the node has this label, such as nvidia.com/mig.config.state=pending of NVIDIA's
    /// MIG manager; without it, or with `none`, the node is not watched
    #[arg(long, env = "NVML_EXPORTER_RELEASE_LABEL", value_name = "K=V", default_value = "")]
    release_label: String,
}

/// Conditions on which NVML is released, in addition to signals.
#[derive(Debug)]
pub struct ReleaseTriggers {
    /// A file; NVML is released while it exists.
    pub file: Option<PathBuf>,
    /// A node label; NVML is released while the node has it.
    pub label: Option<LabelRequirement>,
}

impl ReleaseArgs {
    /// Validates the flags.
    ///
    /// # Errors
    /// `--release-label` is not `KEY=VALUE`.
    pub fn into_triggers(self) -> Result<ReleaseTriggers, Problem> {
        let label = match self.release_label.as_str() {
            "" | "none" => None,
            text => match LabelRequirement::parse(text) {
                None => {
                    return Err(Problem::new(
                        format!("--release-label {text}: not a label"),
                        "give KEY=VALUE, for example nvidia.com/mig.config.state=pending",
                    ));
                }
                label => label,
            },
        };
        Ok(ReleaseTriggers { file: self.release_file, label })
    }
}
