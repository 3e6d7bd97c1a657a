//! The API server's port.

use serde_json::json;

use crate::stage::Stage;

const STREAM: &str = "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&watch=true&\
                      allowWatchBookmarks=true&sendInitialEvents=true&\
                      resourceVersionMatch=NotOlderThan&resourceVersion=0";

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

fn pod(name: &str, rest: &str) -> String {
    format!(
        "[[pod]]\nname = \"{name}\"\n{rest}\ncontainers = [{{ name = \"main\", gpus = [0] }}]\n"
    )
}

fn scene(now: u32) -> String {
    format!("now = {now}\n[GPUS]\n{}{}", pod("old", "end = 50"), pod("new", "start = 50"))
}

#[test]
fn a_streaming_watch_tells_everything_and_then_what_happens() {
    let stage = Stage::playing(&scene(10));
    let mut watch = stage.get(STREAM);
    assert_eq!(watch.status, 200);
    assert_eq!(watch.news(), "ADDED old");
    let (kind, bookmark) = watch.event().unwrap();
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    stage.play(&scene(50));
    assert_eq!(watch.news(), "DELETED old");
    let (kind, added) = watch.event().unwrap();
    assert_eq!((kind.as_str(), &added["metadata"]["name"]), ("ADDED", &json!("new")));
    assert!(added["status"]["containerStatuses"][0]["containerID"].is_null(), "it has just begun");
    stage.play(&scene(51));
    let (kind, modified) = watch.event().unwrap();
    assert_eq!((kind.as_str(), &modified["status"]["phase"]), ("MODIFIED", &json!("Running")));
    let id = modified["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
    assert_eq!(id.strip_prefix("containerd://").unwrap().len(), 64);
}

#[test]
fn slices_tell_what_can_be_claimed_where_there_are_claims() {
    let path = "/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3Dnode-1";
    assert_eq!(Stage::playing(&scene(10)).get(path).json()["items"], json!([]));
    let claims = scene(10).replace("gpus = [0]", "claim = { name = \"one\", gpu = 0 }");
    let stage = Stage::playing(&claims);
    let list = stage.get(path).json();
    let slice = &list["items"][0]["spec"];
    assert_eq!(
        (&slice["driver"], &slice["nodeName"]),
        (&json!("gpu.nvidia.com"), &json!("node-1"))
    );
    let device = &slice["devices"][0];
    assert_eq!(
        (&device["name"], &slice["devices"].as_array().unwrap().len()),
        (&json!("gpu-0"), &2)
    );
    assert!(device["attributes"]["uuid"]["string"].as_str().unwrap().starts_with("GPU-"));
    let pod = &stage.pods()[0]["spec"];
    assert_eq!(pod["resourceClaims"], json!([{ "name": "one", "resourceClaimName": "one" }]));
    assert_eq!(pod["containers"][0]["resources"], json!({ "claims": [{ "name": "one" }] }));
}

#[test]
fn a_list_and_a_watch_from_its_version_make_the_same_of_it() {
    let older = |now| format!("{}[cluster]\nstreaming_lists = false\n", scene(now));
    let stage = Stage::playing(&older(10));
    let refused = stage.get(STREAM);
    assert_eq!((refused.status, refused.json()["reason"].as_str().unwrap()), (422, "Invalid"));
    let list = stage.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&resourceVersion=0");
    let list = list.json();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("PodList"), &json!("v1")));
    let item = &list["items"][0];
    assert_eq!(item["metadata"]["name"], "old");
    assert_eq!(item["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], "1");
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = stage.get(&format!("/api/v1/pods?watch=true&resourceVersion={version}"));
    let mut legacy = stage.get("/api/v1/pods?watch=true&resourceVersion=0");
    assert_eq!(legacy.news(), "ADDED old");
    stage.play(&older(50));
    for watch in [&mut watch, &mut legacy] {
        assert_eq!([watch.news(), watch.news()], ["DELETED old", "ADDED new"]);
    }
}

#[test]
fn a_version_that_is_not_known_is_refused() {
    let stage = Stage::playing(&scene(10));
    let mut old = stage.get("/api/v1/pods?watch=true&resourceVersion=1");
    assert_eq!(old.status, 200);
    let (kind, status) = old.event().unwrap();
    assert_eq!((kind.as_str(), &status["code"]), ("ERROR", &json!(410)));
    assert_eq!(status["reason"], "Expired");
    assert_eq!(old.event(), None);
    assert_eq!(stage.get("/api/v1/pods?watch=true&resourceVersion=999999").status, 504);
}

#[test]
fn a_watch_ends_when_it_was_told_to() {
    let stage = Stage::playing(&scene(10));
    let mut watch = stage.get("/api/v1/pods?watch=true&timeoutSeconds=0");
    assert_eq!(watch.news(), "ADDED old");
    assert_eq!(watch.event(), None);
}

#[test]
fn the_node_is_told_with_the_labels_that_it_has() {
    let at = |now: u32| {
        let label = "labels = [{ key = \"state\", value = \"pending\", from = 20, to = 30 }]";
        format!("now = {now}\n[GPUS]\n[cluster]\nnode = \"gpu-7\"\n{label}\n")
    };
    let stage = Stage::playing(&at(10));
    let query = "fieldSelector=metadata.name%3Dgpu-7&watch=true";
    let mut watch = stage.get(&format!("/api/v1/nodes?{query}"));
    let told = |expected: &str, event: Option<(String, serde_json::Value)>| {
        let (kind, node) = event.unwrap();
        assert_eq!((&*kind, &node["metadata"]["name"]), (expected, &json!("gpu-7")));
        node["metadata"]["labels"]["state"].clone()
    };
    assert_eq!(told("ADDED", watch.event()), json!(null));
    stage.play(&at(20));
    assert_eq!(told("MODIFIED", watch.event()), json!("pending"));
    stage.play(&at(30));
    assert_eq!(told("MODIFIED", watch.event()), json!(null));
    let list = stage.get("/api/v1/nodes").json();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("NodeList"), 1));
}

#[test]
fn what_it_does_not_serve_it_refuses_as_an_api_server_does() {
    let stage = Stage::playing(&scene(10));
    for path in ["/", "/api/v1/secrets", "/api/v1/pods/old"] {
        let answer = stage.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["kind"], "Status", "{path}");
    }
    let elsewhere = stage.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-2");
    assert_eq!(elsewhere.json()["items"], json!([]));
    let slices = stage.get("/apis/resource.k8s.io/v1/resourceslices");
    assert_eq!(slices.json()["items"], json!([]));
    assert_eq!(stage.get("/version").json()["gitVersion"], "v1.34.0");
}

#[test]
fn what_is_denied_is_refused_and_the_review_says_so() {
    let stage = Stage::playing("[GPUS]\n[cluster]\ndenied = [\"watch nodes\"]\n");
    assert_eq!(stage.get("/api/v1/nodes?watch=true").status, 403);
    assert_eq!(stage.get("/api/v1/nodes").status, 200);
    let review = |verb: &str| {
        let right = json!({ "verb": verb, "resource": "nodes" });
        let question = json!({ "spec": { "resourceAttributes": right } }).to_string();
        let answer = stage.post(REVIEWS, &question);
        assert_eq!(answer.status, 201);
        answer.json()["status"]["allowed"].clone()
    };
    assert_eq!([review("watch"), review("list")], [json!(false), json!(true)]);
    assert_eq!(stage.post(REVIEWS, "{}").status, 400);
    assert_eq!(stage.post("/api/v1/pods", "{}").status, 405);
    let stage =
        Stage::playing("[GPUS]\n[cluster]\ndenied = [\"create selfsubjectaccessreviews\"]\n");
    assert_eq!(stage.post(REVIEWS, "{}").status, 403);
}

#[test]
fn time_passes_though_nobody_calls_nvml() {
    let text = format!("[GPUS]\n{}", pod("late", "start = 0.4\nend = 0.8"));
    let stage = Stage::playing(&text);
    let mut watch = stage.get("/api/v1/pods?watch=true");
    assert_eq!([watch.news(), watch.news()], ["ADDED late", "DELETED late"]);
}

#[test]
fn a_pod_is_told_as_schedulers_and_kubelets_write_it() {
    let stage = Stage::playing(
        "[GPUS]\n[cluster]\nnode = \"gpu-7\"\nruntime = \"crio\"\n\
         [[pod]]\nname = \"share\"\nlabels = { app = \"x\" }\nannotations = { note = \"y\" }\n\
         containers = [{ name = \"c\", ack = { gpu = 1, gib = 8, cores = 30 } }]\n\
         [[pod]]\nname = \"static\"\nnamespace = \"kube-system\"\nstatic = true\n\
         containers = [{ name = \"c\" }]\n",
    );
    let pods = stage.pods();
    let [share, mirror] = &pods[..] else { panic!("{pods:?}") };
    let annotations = &share["metadata"]["annotations"];
    assert_eq!(annotations["scheduler.framework.gpushare.allocation"], r#"{"0":{"1":8}}"#);
    assert_eq!(annotations["note"], "y");
    assert_eq!(share["metadata"]["labels"]["app"], "x");
    let limits = &share["spec"]["containers"][0]["resources"]["limits"];
    assert_eq!(limits["aliyun.com/gpu-mem"], "8");
    assert_eq!(limits["aliyun.com/gpu-core.percentage"], "30");
    assert_eq!(share["spec"]["nodeName"], "gpu-7");
    let id = share["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
    assert!(id.starts_with("cri-o://"), "{id}");
    let hash = &mirror["metadata"]["annotations"]["kubernetes.io/config.hash"];
    assert_eq!(hash.as_str().unwrap().len(), 32);
    assert_ne!(hash, &mirror["metadata"]["uid"]);
}
