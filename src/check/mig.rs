//! What GPUs are divided into, and whether we may see it.

use std::collections::BTreeMap;

use super::{Finding, Topic, counted};
use crate::model::Missing;
use crate::sample::device::DeviceSample;
use crate::sample::{DriverState, Sample};

/// The call that tells whether MIG is on.
const MODE: &str = "nvmlDeviceGetMigMode";

const MEND: &str = "instances of others are shown only to who may monitor MIG: use the overlay mig, which \
     sets NVIDIA_MIG_MONITOR_DEVICES=all and adds the capability SYS_ADMIN";

/// What one GPU tells of its division.
struct Division {
    subject: String,
    /// Profiles of the devices; none while MIG is off.
    devices: Option<Vec<String>>,
    /// Whether these are all.
    complete: Result<(), Missing>,
    /// Devices of which something is denied.
    denied: usize,
}

/// Looks at the division of every GPU that answered.
#[must_use]
pub fn look(sample: &Sample) -> Vec<Finding> {
    if let DriverState::Down { .. } = sample.driver {
        return vec![Finding::skipped(Topic::Mig, MODE, "there is no session to ask in")];
    }
    let answers = sample.gpus.iter().filter_map(|gpu| gpu.latest.as_ref()?.as_deref().ok());
    findings(&answers.map(division).collect::<Vec<_>>())
}

fn division(answer: &DeviceSample) -> Division {
    let is_whole = answer.parts.iter().any(|part| part.mig.is_none());
    let migs = || answer.parts.iter().filter_map(|part| part.mig.as_deref().map(|mig| (part, mig)));
    let is_denied = |reading: Result<(), Missing>| reading == Err(Missing::Denied);
    let denied = migs().filter(|(part, _)| {
        let mut cells = part.cells.iter().flatten();
        is_denied(part.framebuffer.map(drop)) || cells.any(|cell| is_denied(cell.reading.map(drop)))
    });
    Division {
        subject: format!("GPU {} ({})", answer.gpu.index, answer.gpu.uuid),
        devices: (!is_whole).then(|| migs().map(|(_, mig)| mig.profile.to_string()).collect()),
        complete: answer.division,
        denied: denied.count(),
    }
}

/// One for each GPU that is divided, and one for all that are not.
fn findings(divisions: &[Division]) -> Vec<Finding> {
    if divisions.is_empty() {
        return vec![Finding::skipped(Topic::Mig, MODE, "no GPU has answered")];
    }
    let mut findings: Vec<Finding> = divisions.iter().filter_map(divided).collect();
    let whole = divisions.iter().filter(|division| division.devices.is_some()).count();
    let whole = divisions.len() - whole;
    if whole > 0 {
        let said = format!("off, or not to be had, on {}", counted(whole, "GPU"));
        findings.push(Finding::ok(Topic::Mig, MODE, said));
    }
    findings
}

fn divided(division: &Division) -> Option<Finding> {
    let devices = division.devices.as_ref()?;
    let subject = &division.subject;
    let found = format!("MIG is on: {}{}", counted(devices.len(), "device"), profiles(devices));
    Some(match (division.complete, division.denied) {
        (Err(Missing::Denied), _) if devices.is_empty() => {
            Finding::failure(Topic::Mig, subject, "we may not see what it is divided into")
                .mended_by(MEND)
        }
        (Err(Missing::Denied), _) => {
            let said = format!("{found}; others we may not see");
            Finding::warning(Topic::Mig, subject, said).mended_by(MEND)
        }
        (Err(missing), _) if devices.is_empty() => {
            let said = format!("what it is divided into cannot be read: {missing}");
            Finding::warning(Topic::Mig, subject, said)
        }
        (Err(missing), _) => Finding::warning(
            Topic::Mig,
            subject,
            format!("{found}; others cannot be read: {missing}"),
        ),
        (Ok(()), 0) if devices.is_empty() => {
            Finding::note(Topic::Mig, subject, "MIG is on, and nothing is cut out of it")
        }
        (Ok(()), 0) => Finding::ok(Topic::Mig, subject, found),
        (Ok(()), denied) => {
            let said = format!("{found}; of {denied} we may not read everything");
            Finding::warning(Topic::Mig, subject, said).mended_by(MEND)
        }
    })
}

/// ` (3 × 1g.10gb, 1 × 2g.20gb)`.
fn profiles(devices: &[String]) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for profile in devices {
        *counts.entry(profile).or_default() += 1;
    }
    let told: Vec<String> = counts.iter().map(|(profile, n)| format!("{n} × {profile}")).collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn told(
        devices: Option<&[&str]>,
        complete: Result<(), Missing>,
        denied: usize,
    ) -> (Verdict, String) {
        let devices = devices.map(|all| all.iter().map(|one| (*one).to_owned()).collect());
        let division = Division { subject: "GPU 0".to_owned(), devices, complete, denied };
        let finding = findings(&[division]).remove(0);
        if finding.verdict == Verdict::Failure {
            assert_eq!(finding.mend.as_deref(), Some(MEND));
        }
        (finding.verdict, finding.said)
    }

    #[test]
    fn devices_are_told_by_profile() {
        let said = "MIG is on: 3 devices (2 × 1g.10gb, 1 × 2g.20gb)".to_owned();
        assert_eq!(told(Some(&["1g.10gb", "2g.20gb", "1g.10gb"]), Ok(()), 0), (Verdict::Ok, said));
        assert_eq!(told(Some(&[]), Ok(()), 0).0, Verdict::Note);
        let said = "off, or not to be had, on 1 GPU".to_owned();
        assert_eq!(told(None, Ok(()), 0), (Verdict::Ok, said));
        assert_eq!(findings(&[])[0].verdict, Verdict::Skipped);
    }

    #[test]
    fn what_we_may_not_see_is_told_with_its_mend() {
        assert_eq!(told(Some(&[]), Err(Missing::Denied), 0).0, Verdict::Failure);
        assert_eq!(told(Some(&["1g.5gb"]), Err(Missing::Denied), 0).0, Verdict::Warning);
        assert_eq!(told(Some(&["1g.5gb"]), Ok(()), 1).0, Verdict::Warning);
        assert_eq!(told(Some(&[]), Err(Missing::Failed(999)), 0).0, Verdict::Warning);
    }
}
