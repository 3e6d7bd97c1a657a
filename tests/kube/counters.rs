//! Counters in a `ConfigMap`, from an API server in every mood.

use std::time::Duration;

use nvml_exporter::counters::Counters;
use nvml_exporter::counters::follow::{Followed, News, Source, SourceError};
use nvml_exporter::kube::api::Address;
use nvml_exporter::kube::source::Failure;
use nvml_exporter::selection::{Frame, Selection};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::HANG;
use crate::http::FakeServer;

const PATH: &str = "/api/v1/namespaces/gpus/configmaps/exporter-metrics-config-map";
const TEMPERATURE: &str = "DCGM_FI_DEV_GPU_TEMP, gauge, in degrees\n";
const CLOCK: &str = "# other\nDCGM_FI_DEV_SM_CLOCK, gauge, in MHz\n";

fn source(server: &FakeServer) -> Source {
    Source::ConfigMap {
        address: Address::Url(server.url.clone()),
        namespace: "gpus".to_owned(),
        name: "exporter-metrics-config-map".to_owned(),
    }
}

fn config_map(data: &Value) -> String {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}, "data": data})
        .to_string()
}

/// Reads it, as the exporter does before it has any other thread.
fn reading(server: &FakeServer) -> JoinHandle<Result<Counters, SourceError>> {
    let source = source(server);
    spawn_blocking(move || source.read())
}

async fn read(server: &mut FakeServer, body: &str) -> Result<Counters, SourceError> {
    let reading = reading(server);
    server.next(&[PATH]).await.whole(200, body).await;
    timeout(HANG, reading).await.unwrap().unwrap()
}

fn names(selection: &Selection) -> Vec<&str> {
    selection.device.families().iter().map(|family| &*family.name).collect()
}

async fn next_news(followed: &Followed) -> News {
    let arrival = async {
        loop {
            if let Some(news) = followed.news().next() {
                return news;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(HANG, arrival).await.expect("news")
}

#[tokio::test]
async fn the_key_metrics_of_a_config_map_is_a_counters_file() {
    let mut server = FakeServer::start().await;
    let body = config_map(&json!({"metrics": TEMPERATURE, "other": "DCGM_FI_DEV_FB_USED"}));
    let counters = read(&mut server, &body).await.unwrap();
    let selection = Selection::of(&counters.requests, Frame::default());
    assert_eq!(names(&selection), ["DCGM_FI_DEV_GPU_TEMP"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_config_map_is_said_with_its_name() {
    let mut server = FakeServer::start().await;
    for data in [json!({"default-counters.csv": TEMPERATURE}), json!({}), Value::Null] {
        let error = read(&mut server, &config_map(&data)).await.unwrap_err();
        assert!(matches!(error, SourceError::NoKey { .. }), "{data}: {error}");
        let said = error.to_string();
        assert!(said.contains("gpus:exporter-metrics-config-map") && said.contains("metrics"));
    }
    let body = config_map(&json!({"metrics": "DCGM_FI_DEV_GPU_TMP, gauge, x\n"}));
    let said = read(&mut server, &body).await.unwrap_err().to_string();
    assert!(said.contains("gpus:exporter-metrics-config-map: line 1"), "{said}");
    assert!(said.contains("did you mean DCGM_FI_DEV_GPU_TEMP"), "{said}");

    for (status, words, failure) in [
        (403, "configmaps is forbidden", Failure::of_status(403)),
        (404, "configmaps not found", Failure::of_status(404)),
    ] {
        let reading = reading(&server);
        server.next(&[PATH]).await.refuse(status, words).await;
        let error = timeout(HANG, reading).await.unwrap().unwrap().unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        let SourceError::ConfigMap { fault, .. } = error else { panic!("{error}") };
        assert_eq!((fault.status, fault.failure), (Some(status), failure));
    }
}

#[tokio::test]
async fn a_config_map_is_followed_and_trouble_leaves_in_force_what_was() {
    let mut server = FakeServer::start().await;
    let before = config_map(&json!({"metrics": TEMPERATURE}));
    let known = read(&mut server, &before).await.unwrap();
    let followed = Followed::start(source(&server), known, Frame::default()).unwrap();
    let reload = followed.reload();

    reload.send(()).unwrap();
    server.next(&[PATH]).await.whole(200, &before).await;
    assert!(matches!(next_news(&followed).await, News::Fine), "nothing has changed");

    reload.send(()).unwrap();
    let after = config_map(&json!({"metrics": CLOCK}));
    server.next(&[PATH]).await.whole(200, &after).await;
    let News::Counters(selection) = next_news(&followed).await else { panic!("other counters") };
    assert_eq!(names(&selection), ["DCGM_FI_DEV_SM_CLOCK"]);

    // Denied, without its key, broken: no other selection comes, and none is taken back.
    reload.send(()).unwrap();
    server.next(&[PATH]).await.refuse(403, "configmaps is forbidden").await;
    assert!(matches!(next_news(&followed).await, News::Trouble));
    for data in [json!({}), json!({"metrics": "NO_SUCH_FAMILY, gauge, x\n"})] {
        reload.send(()).unwrap();
        server.next(&[PATH]).await.whole(200, &config_map(&data)).await;
        assert!(matches!(next_news(&followed).await, News::Trouble), "{data}");
    }
    reload.send(()).unwrap();
    server.next(&[PATH]).await.whole(200, &after).await;
    assert!(matches!(next_news(&followed).await, News::Fine), "it is what is in force");
}
