//! Validation of claims: whoever has one has all of it, and a device is in one claim at a time.

use super::Spans;
use crate::scenario::{
    cluster::{Claimed, Pod},
    complaint::{Checked, Flaw},
};

/// Compares each claim with those before it.
pub(super) fn check(pods: &[Pod], spans: &[Vec<Spans<'_>>]) -> Checked<()> {
    let mut before: Vec<(&Pod, &str, &[Claimed])> = vec![];
    for (pod, spans) in pods.iter().zip(spans) {
        for (container, spans) in pod.containers.iter().zip(spans) {
            let Some((claim, devices)) = container.holding.claim() else { continue };
            let at_that_time = before.iter().filter(|(other, ..)| other.life.overlaps(pod.life));
            for (other, name, held) in at_that_time {
                let same = other.namespace == pod.namespace && *name == claim;
                if same && *held != devices {
                    let text = format!(
                        "claim {claim} has other devices in pod {}: name the same ones",
                        other.name
                    );
                    return Err(Flaw::new(spans.held.clone(), text));
                }
                let common = devices.iter().find(|device| !same && held.contains(device));
                if let Some(device) = common {
                    let text = format!(
                        "{} is in claim {name} of pod {} at some time of this one's life: end one \
                         earlier, or name the same claim in the same namespace",
                        device.name, other.name
                    );
                    return Err(Flaw::new(spans.held.clone(), text));
                }
            }
            before.push((pod, claim, devices));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::complaint;

    const GPUS: &str = "[[gpu]]\nmodel = \"T4\"\ncount = 2\n";

    #[test]
    fn a_mistake_in_a_claim_names_its_line_and_its_mend() {
        let pod = |name: &str, claim: &str| {
            format!(
                "[[pod]]\nname = \"{name}\"\ncontainers = [{{ name = \"c\", claim = {claim} }}]\n"
            )
        };
        let one = pod("a", "{ name = \"one\", gpu = 0 }");
        for (text, said) in [
            (
                pod("a", "{ name = \"One\", gpu = 0 }"),
                "6: claim = \"One\": write lower-case letters, digits and dashes, at most 253",
            ),
            (
                pod("a", "{ name = \"one\", gpu = 9 }"),
                "6: no GPU 9: the scenario has 2, use 0 to 1",
            ),
            (
                one.clone() + &pod("b", "{ name = \"one\", gpu = 1 }"),
                "9: claim one has other devices in pod a: name the same ones",
            ),
            (
                one.clone() + &pod("b", "{ name = \"two\", gpu = 0 }"),
                "9: gpu-0 is in claim one of pod a at some time of this one's life: end one \
                 earlier, or name the same claim in the same namespace",
            ),
            (pod("a", "{ name = \"one\" }"), "6: claim: name gpus, mig devices, or both"),
            (
                pod("a", "{ name = \"one\", mig = [\"0/1\"] }"),
                "6: mig: \"0/1\" is no MIG device when the pod starts: write gpu/gi, gpu/gi/ci or \
                 a UUID",
            ),
            (
                one.clone() + "[[pod]]\nname = \"b\"\ncontainers = [{ name = \"c\", gpus = 0 }]\n",
                "9: GPU 0 is given whole here and by a claim elsewhere: a plugin gives a GPU in one \
                 way",
            ),
        ] {
            assert_eq!(complaint(&format!("{GPUS}{text}")), said, "for\n{text}");
        }
    }
}
