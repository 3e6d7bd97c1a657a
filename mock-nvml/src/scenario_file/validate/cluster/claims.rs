//! Validation of resource claims: all containers of a claim have the same devices, and a device belongs to
//! one claim at a time, apart from shares and administrative access.

use crate::{
    scenario::{claim::ResourceClaim, cluster::Pod},
    scenario_file::{
        error::{SpannedError, ValidationResult},
        validate::cluster::pods::ContainerSpans,
    },
};

/// Compares each claim with the previous ones.
pub(super) fn check(pods: &[Pod], spans: &[Vec<ContainerSpans<'_>>]) -> ValidationResult<()> {
    let mut previous: Vec<(&Pod, &ResourceClaim)> = vec![];
    for (pod, spans) in pods.iter().zip(spans) {
        for (container, spans) in pod.containers.iter().zip(spans) {
            let Some(claim) = container.allocation.claim() else { continue };
            let life = pod.object_lifetime();
            let concurrent =
                previous.iter().filter(|(other, _)| other.object_lifetime().overlaps(life));
            for (other, other_claim) in concurrent {
                let ResourceClaim { name, devices, .. } = claim;
                let same = other.namespace == pod.namespace && other_claim.name == *name;
                if same && *other_claim != claim {
                    let text = format!(
                        "claim {name} has other devices in pod {}: write the same devices",
                        other.name
                    );
                    return Err(SpannedError::new(spans.allocation.clone(), text));
                }
                let is_shared = |claim: &ResourceClaim| claim.admin || claim.share_mib.is_some();
                let exclusive = !same && !is_shared(claim) && !is_shared(other_claim);
                let common = devices.iter().find(|device| other_claim.devices.contains(device));
                if let Some(device) = common.filter(|_| exclusive) {
                    let text = format!(
                        "{} belongs to claim {} of pod {} at some time in the lifetime of this \
                         pod: end one pod earlier, or write the same claim in the same namespace",
                        device.name, other_claim.name, other.name
                    );
                    return Err(SpannedError::new(spans.allocation.clone(), text));
                }
            }
            previous.push((pod, claim));
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
