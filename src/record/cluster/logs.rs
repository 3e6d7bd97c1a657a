//! The names in the log directories of the kubelet.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cluster::PodLogNames;
use crate::host::pod_logs::LoggedContainers;
use crate::record::names::Names;
use crate::record::object;

/// Namespace, pod and container.
type Key<'a> = (&'a str, &'a str, &'a str);

/// One object per container: with the UID of its pod and its id, as far as the directories have them.
pub(super) fn files(logs: &PodLogNames, names: &mut Names) -> Vec<Value> {
    let mut ids: BTreeMap<Key<'_>, Vec<&str>> = BTreeMap::new();
    for (id, one) in logs.containers.iter().flat_map(LoggedContainers::iter) {
        ids.entry((&one.namespace, &one.pod, &one.name)).or_default().push(id.as_str());
    }
    for ids in ids.values_mut() {
        ids.sort_unstable();
    }
    let mut files = Vec::new();
    let mut pods: Vec<_> = logs.pods.iter().flatten().collect();
    pods.sort_by_key(|(uid, _)| uid.as_str());
    for (uid, pod) in pods {
        for container in &pod.containers {
            let key = (&*pod.namespace, &*pod.name, &**container);
            let id = ids.get_mut(&key).and_then(Vec::pop);
            files.push(file(key, Some(uid.as_str()), id, names));
        }
    }
    for (key, ids) in ids {
        files.extend(ids.into_iter().map(|id| file(key, None, Some(id), names)));
    }
    files
}

fn file(
    (namespace, pod, container): Key<'_>,
    uid: Option<&str>,
    id: Option<&str>,
    names: &mut Names,
) -> Value {
    object([
        ("namespace", names.namespace(namespace).into()),
        ("pod", names.pod(pod).into()),
        ("container", names.container(container).into()),
        ("uid", uid.map_or(Value::Null, |uid| names.pod_uid(uid).into())),
        ("id", id.map_or(Value::Null, |id| names.container_id(id).into())),
    ])
}
