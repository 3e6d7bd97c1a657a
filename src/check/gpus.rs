//! Each GPU: whether it can be read, and what of the chosen series it has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::{Finding, Topic, counted, some_of};
use crate::model::{Missing, Reading};
use crate::sample::{DriverState, Sample, SampledGpu};
use crate::selection::Selection;
use crate::snapshot::{GpuHealth, Snapshot};

/// The call that counts GPUs.
const COUNT: &str = "nvmlDeviceGetCount_v2";

/// Looks at every GPU of one cycle.
#[must_use]
pub fn look(sample: &Sample, snapshot: &Snapshot) -> Vec<Finding> {
    if let DriverState::Down { .. } = sample.driver {
        return vec![Finding::skipped(Topic::Gpu, COUNT, "there is no session to ask in")];
    }
    let mut findings = vec![count(sample.gpu_count.map(|(count, _)| count))];
    for (index, sampled) in (0..).zip(&sample.gpus) {
        let health = snapshot.health.gpus.iter().find(|health| health.gpu.index == index);
        findings.push(match health {
            Some(health) => gpu(health, &rows(health, sampled, &snapshot.selection)),
            None => unidentified(index, snapshot.health.unidentified.get(&index).copied()),
        });
    }
    findings
}

fn count(count: Option<Reading>) -> Finding {
    match count {
        Some(Ok(0.0)) => Finding::failure(Topic::Gpu, COUNT, "the driver is up and names no GPU")
            .mended_by("lspci -d 10de: shows whether there is one; in a pod set NVIDIA_VISIBLE_DEVICES=all"),
        Some(Ok(count)) => {
            let plural = if count > 1.0 { "s" } else { "" };
            Finding::ok(Topic::Gpu, COUNT, format!("{count} GPU{plural}"))
        }
        Some(Err(missing)) => Finding::failure(Topic::Gpu, COUNT, missing.to_string())
            .mended_by(mend(missing)),
        None => Finding::failure(Topic::Gpu, COUNT, "it has not answered").mended_by(mend(Missing::Hung)),
    }
}

/// What is chosen of a GPU, by name, as it was read: what it tells as a whole, and what it tells of its
/// framebuffer and its pipes unless it is divided.
fn rows<'a>(
    health: &GpuHealth,
    sampled: &SampledGpu,
    selection: &'a Selection,
) -> Vec<(&'a str, Reading)> {
    let device = selection.device.families().iter().zip(&health.readings);
    let mut rows: Vec<_> = device.map(|(family, reading)| (&*family.name, *reading)).collect();
    let Some(Ok(answer)) = &sampled.latest else { return rows };
    if let [part] = answer.parts.as_slice()
        && part.mig.is_none()
    {
        for family in selection.instance.families() {
            if let Some(cell) = part.cells.get(family.row).copied().flatten() {
                rows.push((&*family.name, cell.reading));
            }
        }
    }
    rows
}

fn gpu(health: &GpuHealth, rows: &[(&str, Reading)]) -> Finding {
    let subject = format!("GPU {} ({})", health.gpu.index, health.gpu.uuid);
    let name = &health.gpu.name;
    if let Err(missing) = health.state {
        let said = format!("{name}: it cannot be read: {}", words(missing));
        return Finding::failure(Topic::Gpu, subject, said).mended_by(mend(missing));
    }
    if !health.answered {
        let said = format!("{name}: its last question has not been answered in time");
        return Finding::failure(Topic::Gpu, subject, said).mended_by(mend(Missing::Hung));
    }
    let (told, has_not, trouble) = sorted(rows);
    let mut said = format!("{name}: {told} of {}", counted(rows.len(), "chosen reading"));
    // Writing to a string does not fail.
    if !has_not.is_empty() {
        let _ = write!(said, "; it has no {}", some_of(&has_not));
    }
    for (reason, names) in &trouble {
        let _ = write!(said, "; {reason}: {}", some_of(names));
    }
    match mends(rows) {
        Some(mends) => Finding::warning(Topic::Gpu, subject, said).mended_by(mends),
        None => Finding::ok(Topic::Gpu, subject, said),
    }
}

type Sorted<'a> = (usize, Vec<&'a str>, BTreeMap<String, Vec<&'a str>>);

/// How many are told, which the GPU does not have, and which are not told for which other reason.
fn sorted<'a>(rows: &[(&'a str, Reading)]) -> Sorted<'a> {
    let (mut told, mut has_not, mut trouble) = (0, Vec::new(), BTreeMap::<_, Vec<_>>::new());
    for (name, reading) in rows {
        match reading {
            Ok(_) => told += 1,
            Err(Missing::Unsupported) => has_not.push(*name),
            Err(missing) => trouble.entry(words(*missing)).or_default().push(*name),
        }
    }
    (told, has_not, trouble)
}

/// What to do about readings that should be there; too early is no reason.
fn mends(rows: &[(&str, Reading)]) -> Option<String> {
    let missing = rows.iter().filter_map(|(_, reading)| reading.err());
    let is_trouble =
        |missing: &Missing| !matches!(missing, Missing::Unsupported | Missing::Pending);
    let mends: BTreeSet<&str> = missing.filter(is_trouble).map(mend).collect();
    let mends: Vec<&str> = mends.into_iter().collect();
    (!mends.is_empty()).then(|| mends.join("; "))
}

fn unidentified(index: u32, missing: Option<Missing>) -> Finding {
    let missing = match missing {
        // There was time enough.
        None | Some(Missing::Pending) => Missing::Hung,
        Some(missing) => missing,
    };
    let said = format!("it cannot be identified and has no series: {}", words(missing));
    Finding::failure(Topic::Gpu, format!("GPU {index}"), said).mended_by(mend(missing))
}

/// A reason as people know it.
fn words(missing: Missing) -> String {
    match missing {
        Missing::Lost => "lost (it fell off the bus, or waits for a reset)".to_owned(),
        Missing::Hung => "hung (the driver does not answer)".to_owned(),
        Missing::Unsupported
        | Missing::Denied
        | Missing::DriverGone
        | Missing::Pending
        | Missing::Invalid
        | Missing::Failed(_) => missing.to_string(),
    }
}

fn mend(missing: Missing) -> &'static str {
    match missing {
        Missing::Lost => {
            "dmesg | grep -i xid tells why; drain the node and reset the GPU (nvidia-smi -r -i N) or \
             reboot; replace the board if it comes again"
        }
        Missing::Hung => {
            "dmesg | grep -iE 'nvrm|xid' tells why; drain the node and reset the GPU or reboot: a call \
             that hangs ends in no other way"
        }
        Missing::Denied => {
            "what is denied: run as root; where GPUs are divided use the overlay mig (SYS_ADMIN)"
        }
        Missing::DriverGone => "the driver was unloaded or replaced meanwhile: check again",
        Missing::Unsupported | Missing::Pending => "nothing to mend",
        Missing::Invalid | Missing::Failed(_) => {
            "what fails: dmesg | grep -iE 'nvrm|xid' may tell why; its series are absent, the others are \
             right"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::model::{Discards, Gpu, Moment};
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
            answered: true,
            sampled_at: Moment { mono: Duration::ZERO, wall_us: 0 },
            took: None,
            missing: [0; Missing::REASONS.len()],
            discards: Discards::default(),
            xids: BTreeMap::new(),
            readings: Vec::new(),
        }
    }

    #[test]
    fn what_a_gpu_does_not_have_is_no_trouble() {
        let rows = [("A", Ok(1.0)), ("B", Err(Missing::Unsupported)), ("C", Err(Missing::Pending))];
        let finding = gpu(&health(Ok(())), &rows);
        assert_eq!(
            (finding.verdict, &*finding.said),
            (Verdict::Ok, "NVIDIA T4: 1 of 3 chosen readings; it has no B; pending: C")
        );
        assert_eq!(finding.subject, "GPU 3 (GPU-x)");
    }

    #[test]
    fn what_is_denied_or_fails_is_named_with_its_mend() {
        let rows = [("A", Err(Missing::Failed(999))), ("B", Err(Missing::Denied)), ("C", Ok(0.0))];
        let finding = gpu(&health(Ok(())), &rows);
        assert_eq!(finding.verdict, Verdict::Warning);
        assert_eq!(
            finding.said,
            "NVIDIA T4: 1 of 3 chosen readings; denied: B; failed (nvmlReturn_t 999): A"
        );
        let mend = finding.mend.unwrap();
        assert!(mend.contains("run as root") && mend.contains("dmesg"), "{mend}");
    }

    #[test]
    fn a_gpu_that_is_lost_or_hangs_fails() {
        assert_eq!(gpu(&health(Err(Missing::Lost)), &[]).verdict, Verdict::Failure);
        let silent = GpuHealth { answered: false, ..health(Ok(())) };
        assert_eq!(gpu(&silent, &[("A", Ok(1.0))]).verdict, Verdict::Failure);
        for (missing, word) in
            [(Some(Missing::Lost), "lost"), (Some(Missing::Pending), "hung"), (None, "hung")]
        {
            let finding = unidentified(1, missing);
            assert_eq!(finding.verdict, Verdict::Failure);
            assert!(finding.said.contains(word), "{}", finding.said);
        }
    }

    #[test]
    fn a_driver_without_gpus_fails() {
        assert_eq!(count(Some(Ok(0.0))).verdict, Verdict::Failure);
        assert_eq!(count(Some(Ok(1.0))).said, "1 GPU");
        assert_eq!(count(Some(Ok(8.0))).said, "8 GPUs");
        assert_eq!(count(None).verdict, Verdict::Failure);
    }
}
