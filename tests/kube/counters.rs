//! Tests of counters in a `ConfigMap` with a fake API server, including failures.

use std::time::Duration;

use nvml_exporter::counters::Counters;
use nvml_exporter::counters::watcher::{
    CountersHandle, CountersSource, CountersSourceError, CountersUpdate,
};
use nvml_exporter::kube::source::FailureReason;
use nvml_exporter::selection::{Selection, SelectionScope};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::HANG;
use crate::http::FakeServer;

const PATH: &str = "/api/v1/namespaces/gpus/configmaps/exporter-metrics-config-map";
const TEMPERATURE: &str = "DCGM_FI_DEV_GPU_TEMP, gauge, in degrees\n";
const CLOCK: &str = "# other\nDCGM_FI_DEV_SM_CLOCK, gauge, in MHz\n";

fn source(server: &FakeServer) -> CountersSource {
    CountersSource::ConfigMap {
        address: server.address(),
        namespace: "gpus".to_owned(),
        name: "exporter-metrics-config-map".to_owned(),
    }
}

fn config_map(data: &Value) -> String {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}, "data": data})
        .to_string()
}

/// Reads the `ConfigMap` on a blocking thread.
fn start_read(server: &FakeServer) -> JoinHandle<Result<Counters, CountersSourceError>> {
    let source = source(server);
    spawn_blocking(move || source.read())
}

async fn read(server: &mut FakeServer, body: &str) -> Result<Counters, CountersSourceError> {
    let result = start_read(server);
    server.next(&[PATH]).await.respond(200, body).await;
    timeout(HANG, result).await.unwrap().unwrap()
}

fn names(selection: &Selection) -> Vec<&str> {
    selection.device.families().iter().map(|family| &*family.name).collect()
}

async fn next_update(followed: &mut CountersHandle) -> CountersUpdate {
    let update = async {
        loop {
            if let Some(update) = followed.updates(Duration::ZERO).pop() {
                return update;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(HANG, update).await.expect("an update")
}

#[tokio::test]
async fn key_metrics_of_a_config_map_is_parsed_as_a_counters_file() {
    let mut server = FakeServer::start().await;
    let body = config_map(&json!({"metrics": TEMPERATURE, "other": "DCGM_FI_DEV_FB_USED"}));
    let counters = read(&mut server, &body).await.unwrap();
    let selection = Selection::of(&counters.requests, SelectionScope::default());
    assert_eq!(names(&selection), ["DCGM_FI_DEV_GPU_TEMP"]);
}

#[tokio::test]
async fn errors_of_a_config_map_contain_its_name() {
    let mut server = FakeServer::start().await;
    for data in [json!({"default-counters.csv": TEMPERATURE}), json!({}), Value::Null] {
        let error = read(&mut server, &config_map(&data)).await.unwrap_err();
        assert!(matches!(error, CountersSourceError::MissingKey { .. }), "{data}: {error}");
        let text = error.to_string();
        assert!(text.contains("gpus:exporter-metrics-config-map") && text.contains("metrics"));
    }
    let body = config_map(&json!({"metrics": "DCGM_FI_DEV_GPU_TEMP, gage, x\n"}));
    let text = read(&mut server, &body).await.unwrap_err().to_string();
    assert!(text.contains("gpus:exporter-metrics-config-map: line 1"), "{text}");
    assert!(text.contains("gage"), "{text}");

    for (status, message, failure) in [
        (403, "configmaps is forbidden", FailureReason::from_status(403)),
        (404, "configmaps not found", FailureReason::from_status(404)),
    ] {
        let result = start_read(&server);
        server.next(&[PATH]).await.fail(status, message).await;
        let error = timeout(HANG, result).await.unwrap().unwrap().unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        let CountersSourceError::ConfigMap { fault, .. } = error else { panic!("{error}") };
        assert_eq!((fault.status, fault.reason), (Some(status), failure));
    }
}

#[tokio::test]
async fn changed_config_map_is_applied_and_errors_keep_the_counters() {
    let mut server = FakeServer::start().await;
    let before = config_map(&json!({"metrics": TEMPERATURE}));
    let initial = read(&mut server, &before).await.unwrap();
    let mut followed =
        CountersHandle::start(source(&server), initial, SelectionScope::default(), Duration::ZERO)
            .unwrap();
    let reload = followed.reload();

    reload.send(()).unwrap();
    server.next(&[PATH]).await.respond(200, &before).await;
    assert!(
        matches!(next_update(&mut followed).await, CountersUpdate::Unchanged),
        "nothing has changed"
    );

    reload.send(()).unwrap();
    let after = config_map(&json!({"metrics": CLOCK}));
    server.next(&[PATH]).await.respond(200, &after).await;
    let CountersUpdate::Changed(selection) = next_update(&mut followed).await else {
        panic!("other counters")
    };
    assert_eq!(names(&selection), ["DCGM_FI_DEV_SM_CLOCK"]);

    // Denied, without the key, malformed: the selection in use does not change.
    reload.send(()).unwrap();
    server.next(&[PATH]).await.fail(403, "configmaps is forbidden").await;
    assert!(matches!(next_update(&mut followed).await, CountersUpdate::Failed));
    for data in [json!({}), json!({"metrics": "NO_SUCH_FAMILY, gauge, x\n"})] {
        reload.send(()).unwrap();
        server.next(&[PATH]).await.respond(200, &config_map(&data)).await;
        assert!(matches!(next_update(&mut followed).await, CountersUpdate::Failed), "{data}");
    }
    reload.send(()).unwrap();
    server.next(&[PATH]).await.respond(200, &after).await;
    assert!(
        matches!(next_update(&mut followed).await, CountersUpdate::Unchanged),
        "the counters are those in use"
    );
}
