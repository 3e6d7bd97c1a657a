//! The MIG devices of GPUs, and whether access to them is denied.

use std::collections::BTreeMap;

use super::{Finding, Topic, count_noun};
use crate::model::Missing;
use crate::sample::device::DeviceSample;
use crate::sample::{DriverState, Sample};

/// The call that reads whether MIG is on.
const MODE: &str = "nvmlDeviceGetMigMode";

const REMEDY: &str = "MIG devices of other containers are visible only with permission to monitor MIG: use \
     the overlay mig, which sets NVIDIA_MIG_MONITOR_DEVICES=all and adds the capability SYS_ADMIN";

/// The MIG devices of one GPU.
struct MigLayout {
    subject: String,
    /// Profiles of the MIG devices; none while MIG is off.
    devices: Option<Vec<String>>,
    /// Whether all MIG devices are listed.
    complete: Result<(), Missing>,
    /// The number of MIG devices with denied readings.
    denied: usize,
}

/// Findings about the MIG devices of every GPU that was read.
#[must_use]
pub fn findings(sample: &Sample) -> Vec<Finding> {
    if let DriverState::Down(_) = sample.driver {
        return vec![Finding::skipped(Topic::Mig, MODE, "there is no NVML session")];
    }
    let devices = sample.gpus.iter().filter_map(|gpu| gpu.latest.as_ref()?.as_deref().ok());
    mig_findings(&devices.map(layout).collect::<Vec<_>>())
}

fn layout(device: &DeviceSample) -> MigLayout {
    let is_whole = device.partitions.iter().any(|part| part.mig.is_none());
    let migs =
        || device.partitions.iter().filter_map(|part| part.mig.as_deref().map(|mig| (part, mig)));
    let is_denied = |reading: Result<(), Missing>| reading == Err(Missing::Denied);
    let denied = migs().filter(|(part, _)| {
        let mut cells = part.readings.iter().flatten();
        is_denied(part.framebuffer.map(drop)) || cells.any(|cell| is_denied(cell.reading.map(drop)))
    });
    MigLayout {
        subject: format!("GPU {} ({})", device.gpu.index, device.gpu.uuid),
        devices: (!is_whole).then(|| migs().map(|(_, mig)| mig.profile.to_string()).collect()),
        complete: device.partitions_complete,
        denied: denied.count(),
    }
}

/// One finding for each GPU with MIG on, and one for all others.
fn mig_findings(layouts: &[MigLayout]) -> Vec<Finding> {
    if layouts.is_empty() {
        return vec![Finding::skipped(Topic::Mig, MODE, "no GPU was read")];
    }
    let mut findings: Vec<Finding> = layouts.iter().filter_map(layout_finding).collect();
    let with_mig = layouts.iter().filter(|layout| layout.devices.is_some()).count();
    let without_mig = layouts.len() - with_mig;
    if without_mig > 0 {
        let message = format!("off or unsupported on {}", count_noun(without_mig, "GPU"));
        findings.push(Finding::ok(Topic::Mig, MODE, message));
    }
    findings
}

fn layout_finding(layout: &MigLayout) -> Option<Finding> {
    let devices = layout.devices.as_ref()?;
    let subject = &layout.subject;
    let found = format!("MIG is on: {}{}", count_noun(devices.len(), "device"), profiles(devices));
    Some(match (layout.complete, layout.denied) {
        (Err(Missing::Denied), _) if devices.is_empty() => {
            Finding::failure(Topic::Mig, subject, "access to its MIG devices is denied")
                .with_remedy(REMEDY)
        }
        (Err(Missing::Denied), _) => {
            let message = format!("{found}; access to others is denied");
            Finding::warning(Topic::Mig, subject, message).with_remedy(REMEDY)
        }
        (Err(missing), _) if devices.is_empty() => {
            let message = format!("its MIG devices cannot be read: {missing}");
            Finding::warning(Topic::Mig, subject, message)
        }
        (Err(missing), _) => Finding::warning(
            Topic::Mig,
            subject,
            format!("{found}; others cannot be read: {missing}"),
        ),
        (Ok(()), 0) if devices.is_empty() => {
            Finding::note(Topic::Mig, subject, "MIG is on, without MIG devices")
        }
        (Ok(()), 0) => Finding::ok(Topic::Mig, subject, found),
        (Ok(()), denied) => {
            let message = format!("{found}; some readings of {denied} are denied");
            Finding::warning(Topic::Mig, subject, message).with_remedy(REMEDY)
        }
    })
}

/// ` (3 × 1g.10gb, 1 × 2g.20gb)`.
fn profiles(devices: &[String]) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for profile in devices {
        *counts.entry(profile).or_default() += 1;
    }
    let counts: Vec<String> =
        counts.iter().map(|(profile, n)| format!("{n} × {profile}")).collect();
    if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    fn finding(
        devices: Option<&[&str]>,
        complete: Result<(), Missing>,
        denied: usize,
    ) -> (Outcome, String) {
        let devices = devices.map(|all| all.iter().map(|one| (*one).to_owned()).collect());
        let layout = MigLayout { subject: "GPU 0".to_owned(), devices, complete, denied };
        let finding = mig_findings(&[layout]).remove(0);
        if finding.verdict == Outcome::Failure {
            assert_eq!(finding.remedy.as_deref(), Some(REMEDY));
        }
        (finding.verdict, finding.message)
    }

    #[test]
    fn mig_devices_are_counted_by_profile() {
        let message = "MIG is on: 3 devices (2 × 1g.10gb, 1 × 2g.20gb)".to_owned();
        let devices = ["1g.10gb", "2g.20gb", "1g.10gb"];
        assert_eq!(finding(Some(&devices), Ok(()), 0), (Outcome::Ok, message));
        assert_eq!(finding(Some(&[]), Ok(()), 0).0, Outcome::Note);
        let message = "off or unsupported on 1 GPU".to_owned();
        assert_eq!(finding(None, Ok(()), 0), (Outcome::Ok, message));
        assert_eq!(mig_findings(&[])[0].verdict, Outcome::Skipped);
    }

    #[test]
    fn denied_access_has_a_remedy() {
        assert_eq!(finding(Some(&[]), Err(Missing::Denied), 0).0, Outcome::Failure);
        assert_eq!(finding(Some(&["1g.5gb"]), Err(Missing::Denied), 0).0, Outcome::Warning);
        assert_eq!(finding(Some(&["1g.5gb"]), Ok(()), 1).0, Outcome::Warning);
        assert_eq!(finding(Some(&[]), Err(Missing::Failed(999)), 0).0, Outcome::Warning);
    }
}
