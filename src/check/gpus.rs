//! Each GPU: whether it can be read, and which of the selected series it has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::{Finding, Outcome, Topic, count_noun, join_truncated};
use crate::catalog::health_text::for_gpu;
use crate::model::{HealthStatus, Missing, Reading};
use crate::sample::{DriverState, Sample, SampledGpu};
use crate::selection::Selection;
use crate::snapshot::{GpuHealth, GpuProblem, Snapshot};

/// The call that counts GPUs.
const COUNT: &str = "nvmlDeviceGetCount_v2";

/// Findings about the number of GPUs and about every GPU of one cycle.
#[must_use]
pub fn findings(sample: &Sample, snapshot: &Snapshot) -> Vec<Finding> {
    if sample.driver.no_gpu().is_some() {
        return vec![Finding::ok(Topic::Gpu, COUNT, "0 GPUs: see driver above")];
    }
    if let DriverState::Down(_) = sample.driver {
        return vec![Finding::skipped(Topic::Gpu, COUNT, "there is no NVML session")];
    }
    let mut findings = vec![count(sample.gpu_count.map(|(count, _)| count))];
    for (index, sampled) in (0..).zip(&sample.gpus) {
        let health = snapshot.health.gpus.iter().find(|health| health.gpu.index == index);
        match health {
            Some(health) => {
                findings.push(gpu(health, &rows(health, sampled, &snapshot.selection)));
                findings.extend(watches(health));
            }
            None => findings
                .push(unidentified(index, snapshot.health.unidentified.get(&index).copied())),
        }
    }
    findings
}

fn count(count: Option<Reading>) -> Finding {
    match count {
        Some(Ok(0.0)) => Finding::failure(Topic::Gpu, COUNT, "the driver is up but reports no GPU")
            .with_remedy(
                "check whether lspci -d 10de: lists a GPU; in a pod set NVIDIA_VISIBLE_DEVICES=all",
            ),
        Some(Ok(count)) => {
            let plural = if count > 1.0 { "s" } else { "" };
            Finding::ok(Topic::Gpu, COUNT, format!("{count} GPU{plural}"))
        }
        Some(Err(missing)) => Finding::failure(Topic::Gpu, COUNT, missing.to_string())
            .with_remedy(for_gpu(remedy(missing), "ID")),
        None => {
            Finding::failure(Topic::Gpu, COUNT, "no response").with_remedy(remedy(Missing::Hung))
        }
    }
}

/// Readings of the selected families, by name: those of the device slice, and those of the instance slice
/// (framebuffer and pipes) unless MIG is on.
fn rows<'a>(
    health: &GpuHealth,
    sampled: &SampledGpu,
    selection: &'a Selection,
) -> Vec<(&'a str, Reading)> {
    let device = selection.device.families().iter().zip(&health.readings);
    let mut rows: Vec<_> = device.map(|(family, reading)| (&*family.name, *reading)).collect();
    let Some(Ok(device_sample)) = &sampled.latest else { return rows };
    if let [part] = device_sample.partitions.as_slice()
        && part.mig.is_none()
    {
        for family in selection.instance.families() {
            if let Some(cell) = part.readings.get(family.row).copied().flatten() {
                rows.push((&*family.name, cell.reading));
            }
        }
    }
    rows
}

/// A finding for each problem of a GPU's health watches; one if all pass.
fn watches(health: &GpuHealth) -> Vec<Finding> {
    let verdict = health.verdict();
    let subject = subject(health);
    if verdict.status == HealthStatus::Ok {
        return vec![Finding::ok(Topic::Gpu, subject, "all health watches pass")];
    }
    // Why it cannot be read is a finding already.
    let is_reported = |problem: &&GpuProblem| health.state.is_err() && problem.code.is_none();
    let problems = verdict.problems.iter().filter(|problem| !is_reported(problem));
    problems.map(|problem| watch(&subject, problem)).collect()
}

fn watch(subject: &str, problem: &GpuProblem) -> Finding {
    let outcome = match problem.status {
        HealthStatus::Ok => Outcome::Ok,
        HealthStatus::Warning => Outcome::Warning,
        HealthStatus::Unknown => Outcome::Note,
        HealthStatus::Failed | HealthStatus::Hung | HealthStatus::Lost => Outcome::Failure,
    };
    let code = problem.code.map(|code| format!(" ({code})")).unwrap_or_default();
    let message = format!("{}: {}{code}", problem.status.label(), problem.message);
    let finding = Finding::new(outcome, Topic::Gpu, subject, message);
    if problem.remedy.is_empty() { finding } else { finding.with_remedy(&problem.remedy) }
}

fn subject(health: &GpuHealth) -> String {
    format!("GPU {} ({})", health.gpu.index, health.gpu.uuid)
}

fn gpu(health: &GpuHealth, rows: &[(&str, Reading)]) -> Finding {
    let subject = subject(health);
    let name = &health.gpu.name;
    if let Err(missing) = health.state {
        let message = format!("{name}: cannot be read: {}", describe(missing));
        let remedy = for_gpu(remedy(missing), health.gpu.selector());
        return Finding::failure(Topic::Gpu, subject, message).with_remedy(remedy);
    }
    if !health.responded {
        let message = format!("{name}: the last read did not finish in time");
        return Finding::failure(Topic::Gpu, subject, message).with_remedy(remedy(Missing::Hung));
    }
    let (available, unsupported, missing) = group(rows);
    let mut message =
        format!("{name}: {available} of {}", count_noun(rows.len(), "selected reading"));
    // Writing to a string does not fail.
    if !unsupported.is_empty() {
        let _ = write!(message, "; unsupported: {}", join_truncated(&unsupported));
    }
    for (reason, names) in &missing {
        let _ = write!(message, "; {reason}: {}", join_truncated(names));
    }
    match remedies(rows) {
        Some(remedies) => Finding::warning(Topic::Gpu, subject, message).with_remedy(remedies),
        None => Finding::ok(Topic::Gpu, subject, message),
    }
}

type GroupedReadings<'a> = (usize, Vec<&'a str>, BTreeMap<String, Vec<&'a str>>);

/// The number of readings with a value, the names of unsupported ones, and the names of those that are
/// missing for other reasons, by reason.
fn group<'a>(rows: &[(&'a str, Reading)]) -> GroupedReadings<'a> {
    let (mut available, mut unsupported) = (0, Vec::new());
    let mut other = BTreeMap::<_, Vec<_>>::new();
    for (name, reading) in rows {
        match reading {
            Ok(_) => available += 1,
            Err(Missing::Unsupported) => unsupported.push(*name),
            Err(missing) => other.entry(describe(*missing)).or_default().push(*name),
        }
    }
    (available, unsupported, other)
}

/// Remedies for readings that should be available. Unsupported and pending readings need none.
fn remedies(rows: &[(&str, Reading)]) -> Option<String> {
    let missing = rows.iter().filter_map(|(_, reading)| reading.err());
    let is_problem =
        |missing: &Missing| !matches!(missing, Missing::Unsupported | Missing::Pending);
    let remedies: BTreeSet<&str> = missing.filter(is_problem).map(remedy).collect();
    let remedies: Vec<&str> = remedies.into_iter().collect();
    (!remedies.is_empty()).then(|| for_gpu(&remedies.join("; "), "ID"))
}

fn unidentified(index: u32, missing: Option<Missing>) -> Finding {
    let missing = match missing {
        // The check waits long enough for a GPU that responds.
        None | Some(Missing::Pending) => Missing::Hung,
        Some(missing) => missing,
    };
    let message = format!("cannot be identified and has no series: {}", describe(missing));
    let remedy = for_gpu(remedy(missing), &index.to_string());
    Finding::failure(Topic::Gpu, format!("GPU {index}"), message).with_remedy(remedy)
}

/// The reason, with an explanation of `lost` and `hung`.
fn describe(missing: Missing) -> String {
    match missing {
        Missing::Lost => "lost (fell off the bus, or needs a reset)".to_owned(),
        Missing::Hung => "hung (the driver does not respond)".to_owned(),
        Missing::Limited => {
            "limited (the driver limits the memory of the exporter's cgroup, or it is unknown whether it does)"
                .to_owned()
        }
        Missing::Unsupported
        | Missing::Denied
        | Missing::DriverGone
        | Missing::Pending
        | Missing::Invalid
        | Missing::Failed(_) => missing.to_string(),
    }
}

/// What to do; `{gpu}` stands for the GPU.
fn remedy(missing: Missing) -> &'static str {
    match missing {
        Missing::Lost => {
            "find the cause with dmesg | grep -i xid; drain the node and reset the GPU (nvidia-smi \
             --gpu-reset -i {gpu}) or reboot; replace the board if it happens again"
        }
        Missing::Hung => {
            "find the cause with dmesg | grep -iE 'nvrm|xid'; drain the node and reset the GPU or reboot: \
             nothing else ends a hanging call"
        }
        Missing::Denied => {
            "for denied readings: run as root; for MIG use the overlay mig (SYS_ADMIN)"
        }
        Missing::DriverGone => "the driver was unloaded or replaced during the check: run it again",
        Missing::Limited => {
            "remove the driver's memory limit of the exporter's cgroup and of the cgroups above it: with it, \
             the driver reports the limit in place of the GPU's memory; in a container, mount the node's \
             /sys/fs/cgroup read-only at /host/sys/fs/cgroup, so that the exporter can ask for all of them"
        }
        Missing::Unsupported | Missing::Pending => "nothing to do",
        Missing::Invalid | Missing::Failed(_) => {
            "for failed readings: dmesg | grep -iE 'nvrm|xid' may show the cause; only their series are \
             absent"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Discards, Gpu, Moment, XidState};
    use std::sync::Arc;
    use std::time::Duration;

    fn health(state: Result<(), Missing>) -> GpuHealth {
        GpuHealth {
            gpu: Arc::new(Gpu {
                index: 3,
                minor: Some(3),
                uuid: "GPU-x".into(),
                name: "NVIDIA T4".into(),
                pci_bus_id: "0".into(),
            }),
            state,
            responded: true,
            sampled_at: Moment { mono: Duration::ZERO, wall_us: 0 },
            request_duration: None,
            missing: [0; Missing::REASONS.len()],
            discards: Discards::default(),
            driver_clock_offset: None,
            refuses_all_rows: false,
            unlisted_use: None,
            xids: XidState::default(),
            health: Err(Missing::Pending),
            readings: Vec::new(),
        }
    }

    #[test]
    fn unsupported_and_pending_readings_are_ok() {
        let rows = [("A", Ok(1.0)), ("B", Err(Missing::Unsupported)), ("C", Err(Missing::Pending))];
        let finding = gpu(&health(Ok(())), &rows);
        assert_eq!(
            (finding.verdict, &*finding.message),
            (Outcome::Ok, "NVIDIA T4: 1 of 3 selected readings; unsupported: B; pending: C")
        );
        assert_eq!(finding.subject, "GPU 3 (GPU-x)");
    }

    #[test]
    fn denied_and_failed_readings_are_a_warning_with_remedies() {
        let rows = [("A", Err(Missing::Failed(999))), ("B", Err(Missing::Denied)), ("C", Ok(0.0))];
        let finding = gpu(&health(Ok(())), &rows);
        assert_eq!(finding.verdict, Outcome::Warning);
        assert_eq!(
            finding.message,
            "NVIDIA T4: 1 of 3 selected readings; denied: B; failed (NVML_ERROR_UNKNOWN): A"
        );
        let remedy = finding.remedy.unwrap();
        assert!(remedy.contains("run as root") && remedy.contains("dmesg"), "{remedy}");
    }

    #[test]
    fn lost_or_hung_gpu_fails() {
        assert_eq!(gpu(&health(Err(Missing::Lost)), &[]).verdict, Outcome::Failure);
        let hung = GpuHealth { responded: false, ..health(Ok(())) };
        assert_eq!(gpu(&hung, &[("A", Ok(1.0))]).verdict, Outcome::Failure);
        for (missing, word) in
            [(Some(Missing::Lost), "lost"), (Some(Missing::Pending), "hung"), (None, "hung")]
        {
            let finding = unidentified(1, missing);
            assert_eq!(finding.verdict, Outcome::Failure);
            assert!(finding.message.contains(word), "{}", finding.message);
        }
    }

    #[test]
    fn driver_without_gpus_fails() {
        assert_eq!(count(Some(Ok(0.0))).verdict, Outcome::Failure);
        assert_eq!(count(Some(Ok(1.0))).message, "1 GPU");
        assert_eq!(count(Some(Ok(8.0))).message, "8 GPUs");
        assert_eq!(count(None).verdict, Outcome::Failure);
    }
}
