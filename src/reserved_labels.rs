//! The label names that neither pods nor `--extra-label` may use.

use std::collections::BTreeSet;

use crate::catalog::EVENT;
use crate::labels::{Dialect, HPC_JOB, OWNER, Schema};

/// Names that a scrape job gives to its targets, in every dialect.
const SCRAPER: [&str; 2] = ["instance", "job"];
/// Names of Kubernetes that ACK's scrape job owns besides; of dcgm-exporter they are labels of series.
const ACK_SCRAPER: [&str; 5] = ["container", "namespace", "node", "pod", "service"];

/// Every name that a family, a flag or the scrape job can put on a series: a second label of that name
/// makes Prometheus refuse the whole scrape.
#[derive(Clone, Debug)]
pub struct ReservedLabels(BTreeSet<String>);

impl ReservedLabels {
    /// The names of a dialect, whatever its flags are.
    #[must_use]
    pub fn of(dialect: &Dialect) -> Self {
        let scraper: &[&str] = match dialect {
            Dialect::Ack => &ACK_SCRAPER,
            Dialect::DcgmExporter(_) => &[],
        };
        let events = EVENT.iter().flat_map(|row| row.source.labels);
        let fixed = SCRAPER.iter().chain(scraper).chain(events).chain(&[HPC_JOB, OWNER]);
        let mut names = Schema::names(dialect);
        names.extend(fixed.map(|&name| name.to_owned()));
        Self(names)
    }

    /// These, and the names of `--extra-label`.
    #[must_use]
    pub fn with(mut self, extra: &[(String, String)]) -> Self {
        self.0.extend(extra.iter().map(|(name, _)| name.clone()));
        self
    }

    /// Whether `name` is reserved. Any field of DCGM can become a label of every series.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        name.starts_with("DCGM_") || self.0.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_families_flags_and_the_scraper_add_is_reserved() {
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
