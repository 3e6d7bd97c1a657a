//! What schedulers that divide GPUs write into a pod's annotations.
//!
//! Anybody who may create a pod may write its annotations. Whether one is believed is for
//! [`super::allocation`] to judge; here it is only understood.

use super::pod::{Container, ContainerKind, Pod};
use super::problem::Problem;

pub mod ack;
pub mod hami;
pub mod koordinator;
pub mod volcano;

/// A part of a GPU that an annotation gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// To which container.
    pub place: Place,
    /// Of which GPU.
    pub gpu: GpuName,
    /// How much of its memory.
    pub memory: Amount,
    /// How much of its compute, 0 to 1; 0 is unlimited.
    pub compute: f64,
}

/// How an annotation names a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// By its position in [`Pod::containers`] (those of `spec.containers` come first).
    Position(usize),
    /// Not at all: it speaks of the pod.
    Pod,
}

/// How an annotation names a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuName {
    /// By the minor number of its device file.
    Minor(u32),
    /// By its UUID.
    Uuid(Box<str>),
}

/// How an annotation counts memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// In units of which a whole GPU has so many, if that is written there too.
    Units {
        /// Units given.
        units: f64,
        /// Units of the whole GPU.
        of: Option<f64>,
    },
    /// In MiB.
    Mib(f64),
    /// As a part of the whole, 0 to 1.
    Ratio(f64),
    /// It does not say.
    Unknown,
}

/// What a pod's annotations tell.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// No scheduler that we know has written any.
    Nothing,
    /// The scheduler has chosen, and the device plugin has not confirmed yet.
    Pending,
    /// Parts of GPUs.
    Given {
        /// The parts.
        parts: Vec<Given>,
        /// All parts of a GPU together may exceed its memory.
        oversubscribes: bool,
    },
}

/// Reads the annotations of the scheduler that gave this pod its devices. Where several wrote,
/// the one that is nearest to the device plugin is right.
///
/// # Errors
/// An annotation is broken, or speaks of containers that the pod has not.
pub fn told(pod: &Pod) -> Result<Told, Problem> {
    for read in [hami::told, volcano::told, ack::told, koordinator::told] {
        match read(pod)? {
            Told::Nothing => {}
            told @ (Told::Pending | Told::Given { .. }) => return Ok(told),
        }
    }
    Ok(Told::Nothing)
}

/// The position of the `n`th of `spec.containers`.
fn app_position(pod: &Pod, n: usize) -> Result<Place, Problem> {
    match pod.containers.get(n).map(|container| container.kind) {
        Some(ContainerKind::App) => Ok(Place::Position(n)),
        _ => Err(Problem::AbsurdIndex),
    }
}

/// Containers of `spec.containers` with what they ask of a resource, by position.
fn asked(pod: &Pod, resource: &str) -> Result<Vec<(Place, f64)>, Problem> {
    let ask = |container: &Container| container.resources.get(resource).cloned();
    let apps = pod.app_containers();
    let mut asked = Vec::new();
    for (n, text) in apps.into_iter().enumerate().filter_map(|(n, c)| Some((n, ask(c)?))) {
        let units = super::quantity::parse(&text).ok_or(Problem::BrokenAnnotation)?;
        if units > 0.0 {
            asked.push((Place::Position(n), units));
        }
    }
    Ok(asked)
}

/// Percent of one GPU as a part of it.
fn percent(percent: f64) -> Result<f64, Problem> {
    if (0.0..=100.0).contains(&percent) { Ok(percent / 100.0) } else { Err(Problem::AbsurdAmount) }
}

#[cfg(test)]
pub(in crate::kube) mod fixtures {
    use super::super::pod::{self, Pod};

    /// A running pod of `demo`. `containers` and `inits` are `(name, "resource=quantity ...")`.
    pub(in crate::kube) fn pod(
        name: &str,
        annotations: &[(&str, &str)],
        containers: &[(&str, &str)],
        inits: &[(&str, &str)],
    ) -> Pod {
        let list = |containers: &[(&str, &str)]| -> serde_json::Value {
            let one = |(name, asks): &(&str, &str)| {
                let limits: serde_json::Map<_, _> = asks
                    .split_whitespace()
                    .filter_map(|ask| ask.split_once('='))
                    .map(|(resource, quantity)| (resource.to_owned(), quantity.into()))
                    .collect();
                serde_json::json!({"name": name, "resources": {"limits": limits}})
            };
            containers.iter().map(one).collect()
        };
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        let json = serde_json::json!({
            "metadata": {
                "uid": format!("uid-{name}"), "namespace": "demo", "name": name,
                "annotations": annotations,
            },
            "spec": {
                "nodeName": "n1",
                "containers": list(containers), "initContainers": list(inits),
            },
        });
        pod::parse(json.to_string().as_bytes()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::fixtures::pod;
    use super::*;
    use crate::kube::pod::ANNOTATIONS;

    #[test]
    fn a_pod_without_annotations_tells_nothing() {
        let pod = pod("a", &[("hami.io/bind-phase", "success")], &[("c", "nvidia.com/gpu=1")], &[]);
        assert_eq!(told(&pod), Ok(Told::Nothing));
    }

    #[test]
    fn the_plugins_own_scheduler_is_heard_first() {
        let koordinator = r#"{"gpu":[{"minor":1,"resources":{"koordinator.sh/gpu-core":"50"}}]}"#;
        let annotations = [
            ("scheduling.koordinator.sh/device-allocated", koordinator),
            ("scheduler.framework.gpushare.allocation", r#"{"0":{"0":4}}"#),
        ];
        let pod = pod("a", &annotations, &[("c", "aliyun.com/gpu-mem=4")], &[]);
        let Ok(Told::Given { parts, .. }) = told(&pod) else { panic!("nothing given") };
        assert_eq!(parts[0].gpu, GpuName::Minor(0));
    }

    proptest! {
        /// Whatever is written there, parts are numbers and of containers that exist.
        #[test]
        fn no_annotation_breaks_us(
            values in prop::collection::vec(
                "\\PC{0,30}|[-0-9.,:;{}\"eEGPUNVIDA]{0,40}|\\{\"[0-9]{1,2}\":\\{\"[0-9]{1,2}\":[-0-9.e]{1,9}\\}\\}",
                ANNOTATIONS.len(),
            ),
            skip in prop::collection::vec(any::<bool>(), ANNOTATIONS.len()),
            asks in "[-0-9.eGim]{0,8}",
        ) {
            let annotations: Vec<_> = (ANNOTATIONS.iter().zip(&values).zip(&skip))
                .filter(|(_, skip)| !**skip)
                .map(|((name, value), _)| (*name, value.as_str()))
                .collect();
            let asks = format!("aliyun.com/gpu-mem={asks} volcano.sh/gpu-memory={asks}");
            let pod = pod("a", &annotations, &[("c", &asks), ("d", "")], &[("i", "")]);
            if let Ok(Told::Given { parts, .. }) = told(&pod) {
                for part in parts {
                    prop_assert!((0.0..=1.0).contains(&part.compute));
                    if let Place::Position(n) = part.place {
                        prop_assert!(n < pod.containers.len());
                    }
                    match part.memory {
                        Amount::Units { units, of } => {
                            prop_assert!(units.is_finite() && units > 0.0);
                            prop_assert!(of.is_none_or(|of| of.is_finite() && of >= units));
                        }
                        Amount::Mib(n) => prop_assert!(n.is_finite() && n > 0.0),
                        Amount::Ratio(n) => prop_assert!(n > 0.0 && n <= 1.0),
                        Amount::Unknown => {}
                    }
                }
            }
        }
    }
}
