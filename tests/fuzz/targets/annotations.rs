//! What schedulers write into a pod's annotations.

use nvml_exporter::kube::annotations::{Amount, GpuName, Place, Told, told};
use nvml_exporter::kube::pod::{self, ANNOTATIONS};

/// Lines of `name=value`; a name that begins with `ask ` is what the first container asks for. Parts
/// are numbers, of containers that there are, and no more than the text has room for.
pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (mut annotations, mut asks) = (serde_json::Map::new(), serde_json::Map::new());
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        match name.strip_prefix("ask ") {
            Some(resource) => asks.insert(resource.to_owned(), value.into()),
            None => annotations.insert(name.to_owned(), value.into()),
        };
    }
    let json = serde_json::json!({
        "metadata": {"uid": "u", "namespace": "demo", "name": "a", "annotations": annotations},
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "c", "resources": {"limits": asks}}, {"name": "d"}],
            "initContainers": [{"name": "i"}],
        },
    });
    let pod = pod::parse(json.to_string().as_bytes()).unwrap();
    for (name, value) in &annotations {
        let kept = ANNOTATIONS.contains(&name.as_str()).then(|| value.as_str().unwrap());
        assert_eq!(pod.annotation(name), kept);
    }
    let Ok(Told::Given { parts, .. }) = told(&pod) else { return };
    assert!(parts.len() <= text.len());
    for part in parts {
        assert!((0.0..=1.0).contains(&part.compute));
        if let Place::Position(n) = part.place {
            assert!(n < pod.containers.len());
        }
        if let GpuName::Uuid(uuid) = &part.gpu {
            assert!(text.contains(&**uuid));
        }
        match part.memory {
            Amount::Units { units, of } => {
                assert!(units.is_finite() && units > 0.0);
                assert!(of.is_none_or(|of| of.is_finite() && of >= units));
            }
            Amount::Mib(n) => assert!(n.is_finite() && n > 0.0),
            Amount::Ratio(n) => assert!(n > 0.0 && n <= 1.0),
            Amount::Unknown => {}
        }
    }
}
