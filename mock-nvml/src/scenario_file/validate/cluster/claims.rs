//! Validation of resource claims: all containers of a claim have the same devices, and a device belongs to
//! one claim at a time.

use crate::{
    scenario::cluster::{ClaimedDevice, Pod},
    scenario_file::{
        error::{SpannedError, ValidationResult},
        validate::cluster::pods::ContainerSpans,
    },
};

/// Compares each claim with the previous ones.
pub(super) fn check(pods: &[Pod], spans: &[Vec<ContainerSpans<'_>>]) -> ValidationResult<()> {
    let mut previous: Vec<(&Pod, &str, &[ClaimedDevice])> = vec![];
    for (pod, spans) in pods.iter().zip(spans) {
        for (container, spans) in pod.containers.iter().zip(spans) {
            let Some((claim, devices)) = container.allocation.claim() else { continue };
            let life = pod.object_lifetime();
            let concurrent =
                previous.iter().filter(|(other, ..)| other.object_lifetime().overlaps(life));
            for (other, name, other_devices) in concurrent {
                let same = other.namespace == pod.namespace && *name == claim;
                if same && *other_devices != devices {
                    let text = format!(
                        "claim {claim} has other devices in pod {}: write the same devices",
                        other.name
                    );
                    return Err(SpannedError::new(spans.allocation.clone(), text));
                }
                let common = devices.iter().find(|device| !same && other_devices.contains(device));
                if let Some(device) = common {
                    let text = format!(
                        "{} belongs to claim {name} of pod {} at some time in the lifetime of this \
                         pod: end one pod earlier, or write the same claim in the same namespace",
                        device.name, other.name
                    );
                    return Err(SpannedError::new(spans.allocation.clone(), text));
                }
            }
            previous.push((pod, claim, devices));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::scenario_file::validate::test_scenario::error_of;

    const GPUS: &str = "[[gpu]]\nmodel = \"T4\"\ncount = 2\n";

    #[test]
    fn errors_in_claims_have_line_reason_and_remedy() {
        let pod = |name: &str, claim: &str| {
            format!(
                "[[pod]]\nname = \"{name}\"\ncontainers = [{{ name = \"c\", claim = {claim} }}]\n"
            )
        };
        let one = pod("a", "{ name = \"one\", gpu = 0 }");
        for (text, expected) in [
            (
                pod("a", "{ name = \"One\", gpu = 0 }"),
                "6: claim = \"One\" is not a name: write at most 253 lower-case letters, digits and \
                 dashes",
            ),
            (
                pod("a", "{ name = \"one\", gpu = 9 }"),
                "6: GPU 9 does not exist: the scenario has 2, write 0 to 1",
            ),
            (
                one.clone() + &pod("b", "{ name = \"one\", gpu = 1 }"),
                "9: claim one has other devices in pod a: write the same devices",
            ),
            (
                one.clone() + &pod("b", "{ name = \"two\", gpu = 0 }"),
                "9: gpu-0 belongs to claim one of pod a at some time in the lifetime of this pod: end \
                 one pod earlier, or write the same claim in the same namespace",
            ),
            (pod("a", "{ name = \"one\" }"), "6: claim has no devices: write gpus, mig or both"),
            (
                pod("a", "{ name = \"one\", mig = [\"0/1\"] }"),
                "6: mig: \"0/1\" is not a MIG device at the start of the pod: write gpu/gi, gpu/gi/ci \
                 or a UUID",
            ),
            (
                one.clone() + "[[pod]]\nname = \"b\"\ncontainers = [{ name = \"c\", gpus = 0 }]\n",
                "9: GPU 0 is allocated as a whole GPU here and by a resource claim elsewhere, but a \
                 device plugin offers a GPU in one way: allocate it the same way everywhere",
            ),
        ] {
            assert_eq!(error_of(&format!("{GPUS}{text}")), expected, "for\n{text}");
        }
    }
}
