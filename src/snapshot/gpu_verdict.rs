//! The verdict about each GPU, which the web page, `/api/v1/node`, `top`, `/readyz` and `check` report.

use std::collections::BTreeMap;

use super::{GpuHealth, Snapshot};
use crate::catalog::health::{HealthInputs, HealthProblem, Severity, assess};
use crate::catalog::health_text::{explain, for_gpu};
use crate::model::{HealthStatus, Missing};

/// The health of a GPU, and why it is not ok.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuVerdict {
    /// NVML's index.
    pub index: u32,
    /// The worst status of all problems.
    pub status: HealthStatus,
    /// Worst first.
    pub problems: Vec<GpuProblem>,
}

/// Why a GPU is not ok.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuProblem {
    /// The status that it causes.
    pub status: HealthStatus,
    /// The health watch; none if the GPU cannot be read.
    pub watch: Option<&'static str>,
    /// The error code of the watch (`DCGM_FR_…`).
    pub code: Option<&'static str>,
    /// What is wrong, in plain words.
    pub message: String,
    /// What to do; empty if nothing has to be done.
    pub remedy: String,
    /// Whether it ends by itself within the next cycles, since readings are still missing.
    pub temporary: bool,
}

impl Snapshot {
    /// The verdict about each GPU that NVML counts, by index.
    #[must_use]
    pub fn gpu_verdicts(&self) -> BTreeMap<u32, GpuVerdict> {
        let identified = self.health.gpus.iter().map(|gpu| (gpu.gpu.index, gpu.verdict()));
        let unidentified = self.health.unidentified.iter().map(|(index, missing)| {
            let problems = vec![unreadable(*missing, &index.to_string())];
            (*index, GpuVerdict::of(*index, problems))
        });
        identified.chain(unidentified).collect()
    }
}

impl GpuHealth {
    /// The verdict about the GPU.
    #[must_use]
    pub fn verdict(&self) -> GpuVerdict {
        let gpu = self.gpu.selector();
        let assessment = assess(HealthInputs {
            state: self.state,
            xids: &self.xids,
            health: self.health.as_deref().map_err(|missing| *missing),
        });
        let unreadable = self.state.err().map(|missing| unreadable(missing, gpu));
        let is_repetition = |problem: &&HealthProblem| {
            self.state.is_err() && problem.code == "DCGM_FR_FALLEN_OFF_BUS" && problem.xid.is_none()
        };
        let watches = assessment.problems.iter().filter(|problem| !is_repetition(problem));
        let watches = watches.map(|problem| of_watch(problem, gpu));
        // Of a GPU that cannot be read, no watch can be evaluated.
        let unevaluated = unreadable.is_none().then(|| unevaluated(&assessment.missing));
        let unevaluated = unevaluated.into_iter().flatten();
        let problems = unreadable.iter().cloned().chain(watches).chain(unevaluated).collect();
        GpuVerdict::of(self.gpu.index, problems)
    }
}

impl GpuVerdict {
    fn of(index: u32, mut problems: Vec<GpuProblem>) -> Self {
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.status));
        let status = problems.first().map_or(HealthStatus::Ok, |problem| problem.status);
        Self { index, status, problems }
    }

    /// Whether it is only too early to judge the GPU.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        !self.problems.is_empty() && self.problems.iter().all(|problem| problem.temporary)
    }

    /// `GPU 3: failed: …`, with all problems and the remedy of the worst; `GPU 3: ok`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let messages: Vec<&str> =
            self.problems.iter().map(|problem| problem.message.as_str()).collect();
        let start = format!("GPU {}: {}", self.index, self.status.label());
        match self.problems.first() {
            None => start,
            Some(worst) if worst.remedy.is_empty() => format!("{start}: {}", messages.join(", ")),
            Some(worst) => {
                format!("{start}: {}; remedy: {}", messages.join(", "), worst.remedy)
            }
        }
    }
}

fn of_watch(problem: &HealthProblem, gpu: &str) -> GpuProblem {
    let (message, remedy) = explain(problem, gpu);
    GpuProblem {
        status: match problem.severity {
            Severity::Pass => HealthStatus::Ok,
            Severity::Warn => HealthStatus::Warning,
            Severity::Fail => HealthStatus::Failed,
        },
        watch: Some(problem.watch),
        code: Some(problem.code),
        message,
        remedy,
        temporary: false,
    }
}

/// One problem for each reason why watches could not be evaluated.
fn unevaluated(watches: &[(&'static str, Missing)]) -> Vec<GpuProblem> {
    let mut by_reason = BTreeMap::<(bool, String), Vec<&str>>::new();
    for (watch, missing) in watches {
        let temporary = *missing == Missing::Pending;
        let reason = if temporary {
            "there are not enough readings yet".to_owned()
        } else {
            format!("readings are missing: {missing}")
        };
        by_reason.entry((temporary, reason)).or_default().push(watch);
    }
    let problem = |((temporary, reason), watches): ((bool, String), Vec<&str>)| GpuProblem {
        temporary,
        status: HealthStatus::Unknown,
        watch: None,
        code: None,
        message: format!("health cannot be judged ({}): {reason}", watches.join(", ")),
        remedy: String::new(),
    };
    by_reason.into_iter().map(problem).collect()
}

/// Why a GPU cannot be read, and what to do.
fn unreadable(missing: Missing, gpu: &str) -> GpuProblem {
    let (status, message, remedy) = match missing {
        Missing::Lost => (HealthStatus::Lost, LOST.0.to_owned(), LOST.1),
        Missing::Hung => (HealthStatus::Hung, HUNG.0.to_owned(), HUNG.1),
        Missing::Pending => (HealthStatus::Unknown, "not read yet".to_owned(), ""),
        Missing::Denied => (HealthStatus::Unknown, "the driver denies access".to_owned(), DENIED),
        Missing::DriverGone => {
            (HealthStatus::Unknown, "the driver was unloaded or replaced".to_owned(), "")
        }
        Missing::Unsupported | Missing::Invalid | Missing::Limited | Missing::Failed(_) => {
            (HealthStatus::Unknown, format!("it cannot be read: {missing}"), KERNEL_LOG)
        }
    };
    let temporary = missing == Missing::Pending;
    GpuProblem { status, watch: None, code: None, message, remedy: for_gpu(remedy, gpu), temporary }
}

const LOST: (&str, &str) = (
    "it has fallen off the bus, or needs a reset",
    "find the XID in the kernel log (dmesg | grep -i xid), drain the node, and reset the GPU \
     (nvidia-smi --gpu-reset -i {gpu}) or reboot; replace the board if it happens again",
);
const HUNG: (&str, &str) = (
    "the driver does not return from a call for it",
    "find the cause in the kernel log (dmesg | grep -iE 'nvrm|xid'), drain the node, and reset the GPU or \
     reboot: nothing else ends a call that hangs",
);
const DENIED: &str = "run the exporter as root, or give it access to /dev/nvidia*";
const KERNEL_LOG: &str = "see the kernel log: dmesg | grep -iE 'nvrm|xid'";
