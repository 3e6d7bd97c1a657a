//! Label names that pod labels and `--extra-label` may not use.

use std::collections::BTreeSet;

use crate::catalog::EVENT;
use crate::labels::{Dialect, HPC_JOB, LabelSchema, OWNER};

/// Target labels of every Prometheus scrape job.
const TARGET_LABELS: [&str; 2] = ["instance", "job"];
/// Further target labels of ACK's scrape job. In the dialect of dcgm-exporter they are labels of
/// series.
const ACK_TARGET_LABELS: [&str; 5] = ["container", "namespace", "node", "pod", "service"];

/// All label names that a family, a flag or the scrape job can add to a series. Prometheus rejects
/// the whole scrape if a series has the same label twice.
#[derive(Clone, Debug)]
pub struct ReservedLabels(BTreeSet<String>);

impl ReservedLabels {
    /// Reserved names of a dialect, with any flags.
    #[must_use]
    pub fn of(dialect: &Dialect) -> Self {
        let target_labels: &[&str] = match dialect {
            Dialect::Ack => &ACK_TARGET_LABELS,
            Dialect::DcgmExporter(_) => &[],
        };
        let events = EVENT.iter().flat_map(|row| row.source.labels);
        let fixed =
            TARGET_LABELS.iter().chain(target_labels).chain(events).chain(&[HPC_JOB, OWNER]);
        Self(LabelSchema::names(dialect).chain(fixed.copied()).map(str::to_owned).collect())
    }

    /// Adds the names of `--extra-label`.
    #[must_use]
    pub fn with(mut self, extra: &[(String, String)]) -> Self {
        self.0.extend(extra.iter().map(|(name, _)| name.clone()));
        self
    }

    /// Whether `name` is reserved. All `DCGM_` names are, because any DCGM field can be an info
    /// label.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        name.starts_with("DCGM_") || self.0.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_families_flags_and_scrape_jobs_are_reserved() {
        for dialect in [Dialect::Ack, Dialect::DcgmExporter(Vec::new())] {
            let reserved = ReservedLabels::of(&dialect).with(&[("team".to_owned(), String::new())]);
            for name in [
                "clock_event",
                "xid",
                "vgpu",
                "hpc_job",
                "owner",
                "window_size_in_ms",
                "nvlink",
                "err_code",
                "err_msg",
                "link_status",
                "peer_gpu",
                "health_watch",
                "pod_uid",
                "job",
                "health_error_code",
                "instance",
                "gpu",
                "UUID",
                "namespace",
                "pod",
                "container",
                "dra_claim_name",
                "GPU_C_ID",
                "DCGM_FI_DRIVER_VERSION",
                "team",
            ] {
                assert!(reserved.contains(name), "{name} in {dialect:?}");
            }
            assert!(!reserved.contains("app"));
        }
        let dcgm = ReservedLabels::of(&Dialect::DcgmExporter(Vec::new()));
        for name in ["hostname", "Hostname", "pod_namespace", "uuid", "process_id", "pci_bus_id"] {
            assert!(dcgm.contains(name), "{name}");
        }
        assert!(!dcgm.contains("service") && ReservedLabels::of(&Dialect::Ack).contains("service"));
    }
}
