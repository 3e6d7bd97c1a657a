//! The simulated API server.

use serde_json::json;

use crate::mock_env::MockEnv;

const STREAM: &str = "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&watch=true&\
                      allowWatchBookmarks=true&sendInitialEvents=true&\
                      resourceVersionMatch=NotOlderThan&resourceVersion=0";

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

fn pod(name: &str, rest: &str) -> String {
    format!(
        "[[pod]]\nname = \"{name}\"\n{rest}\ncontainers = [{{ name = \"main\", gpus = [0] }}]\n"
    )
}

fn scenario_at(now: u32) -> String {
    format!("now = {now}\n[GPUS]\n{}{}", pod("old", "end = 50"), pod("new", "start = 50"))
}

#[test]
fn streaming_watch_sends_the_initial_state_and_then_changes() {
    let env = MockEnv::with_tables(&scenario_at(10));
    let mut watch = env.get(STREAM);
    assert_eq!(watch.status, 200);
    assert_eq!(watch.event_summary(), "ADDED old");
    let (kind, bookmark) = watch.event().unwrap();
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    env.write_tables(&scenario_at(50));
    assert_eq!(watch.event_summary(), "DELETED old");
    let (kind, added) = watch.event().unwrap();
    assert_eq!((kind.as_str(), &added["metadata"]["name"]), ("ADDED", &json!("new")));
    assert!(
        added["status"]["containerStatuses"][0]["containerID"].is_null(),
        "the container has just started"
    );
    env.write_tables(&scenario_at(51));
    let (kind, modified) = watch.event().unwrap();
    assert_eq!((kind.as_str(), &modified["status"]["phase"]), ("MODIFIED", &json!("Running")));
    let id = modified["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
    assert_eq!(id.strip_prefix("containerd://").unwrap().len(), 64);
}

#[test]
fn resource_slices_list_devices_if_there_are_claims() {
    let path = "/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3Dnode-1";
    assert_eq!(MockEnv::with_tables(&scenario_at(10)).get(path).json()["items"], json!([]));
    let claims = scenario_at(10).replace("gpus = [0]", "claim = { name = \"one\", gpu = 0 }");
    let env = MockEnv::with_tables(&claims);
    let list = env.get(path).json();
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
    let pod = &env.pods()[0]["spec"];
    assert_eq!(pod["resourceClaims"], json!([{ "name": "one", "resourceClaimName": "one" }]));
    assert_eq!(pod["containers"][0]["resources"], json!({ "claims": [{ "name": "one" }] }));
}

#[test]
fn list_and_watch_from_its_version_match_a_watch_from_0() {
    let older = |now| format!("{}[cluster]\nstreaming_lists = false\n", scenario_at(now));
    let env = MockEnv::with_tables(&older(10));
    let refused = env.get(STREAM);
    assert_eq!((refused.status, refused.json()["reason"].as_str().unwrap()), (422, "Invalid"));
    let list = env.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&resourceVersion=0");
    let list = list.json();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("PodList"), &json!("v1")));
    let item = &list["items"][0];
    assert_eq!(item["metadata"]["name"], "old");
    assert_eq!(item["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], "1");
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = env.get(&format!("/api/v1/pods?watch=true&resourceVersion={version}"));
    let mut legacy = env.get("/api/v1/pods?watch=true&resourceVersion=0");
    assert_eq!(legacy.event_summary(), "ADDED old");
    env.write_tables(&older(50));
    for watch in [&mut watch, &mut legacy] {
        assert_eq!([watch.event_summary(), watch.event_summary()], ["DELETED old", "ADDED new"]);
    }
}

#[test]
fn unknown_resource_version_is_refused() {
    let env = MockEnv::with_tables(&scenario_at(10));
    let mut old = env.get("/api/v1/pods?watch=true&resourceVersion=1");
    assert_eq!(old.status, 200);
    let (kind, status) = old.event().unwrap();
    assert_eq!((kind.as_str(), &status["code"]), ("ERROR", &json!(410)));
    assert_eq!(status["reason"], "Expired");
    assert_eq!(old.event(), None);
    assert_eq!(env.get("/api/v1/pods?watch=true&resourceVersion=999999").status, 504);
}

#[test]
fn watch_ends_after_timeout_seconds() {
    let env = MockEnv::with_tables(&scenario_at(10));
    let mut watch = env.get("/api/v1/pods?watch=true&timeoutSeconds=0");
    assert_eq!(watch.event_summary(), "ADDED old");
    assert_eq!(watch.event(), None);
}

#[test]
fn node_watch_sends_the_current_labels() {
    let at = |now: u32| {
        let label = "labels = [{ key = \"state\", value = \"pending\", from = 20, to = 30 }]";
        format!("now = {now}\n[GPUS]\n[cluster]\nnode = \"gpu-7\"\n{label}\n")
    };
    let env = MockEnv::with_tables(&at(10));
    let query = "fieldSelector=metadata.name%3Dgpu-7&watch=true";
    let mut watch = env.get(&format!("/api/v1/nodes?{query}"));
    let label = |expected: &str, event: Option<(String, serde_json::Value)>| {
        let (kind, node) = event.unwrap();
        assert_eq!((&*kind, &node["metadata"]["name"]), (expected, &json!("gpu-7")));
        node["metadata"]["labels"]["state"].clone()
    };
    assert_eq!(label("ADDED", watch.event()), json!(null));
    env.write_tables(&at(20));
    assert_eq!(label("MODIFIED", watch.event()), json!("pending"));
    env.write_tables(&at(30));
    assert_eq!(label("MODIFIED", watch.event()), json!(null));
    let list = env.get("/api/v1/nodes").json();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("NodeList"), 1));
}

#[test]
fn unsupported_paths_are_refused_like_an_api_server() {
    let env = MockEnv::with_tables(&scenario_at(10));
    for path in ["/", "/api/v1/secrets", "/api/v1/pods/old"] {
        let response = env.get(path);
        assert_eq!(response.status, 404, "{path}");
        assert_eq!(response.json()["kind"], "Status", "{path}");
    }
    let other_node = env.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-2");
    assert_eq!(other_node.json()["items"], json!([]));
    let slices = env.get("/apis/resource.k8s.io/v1/resourceslices");
    assert_eq!(slices.json()["items"], json!([]));
    assert_eq!(env.get("/version").json()["gitVersion"], "v1.34.0");
}

#[test]
fn denied_requests_are_refused_and_reviewed_as_denied() {
    let env = MockEnv::with_tables("[GPUS]\n[cluster]\ndenied = [\"watch nodes\"]\n");
    assert_eq!(env.get("/api/v1/nodes?watch=true").status, 403);
    assert_eq!(env.get("/api/v1/nodes").status, 200);
    let review = |verb: &str| {
        let attributes = json!({ "verb": verb, "resource": "nodes" });
        let request = json!({ "spec": { "resourceAttributes": attributes } }).to_string();
        let response = env.post(REVIEWS, &request);
        assert_eq!(response.status, 201);
        response.json()["status"]["allowed"].clone()
    };
    assert_eq!([review("watch"), review("list")], [json!(false), json!(true)]);
    assert_eq!(env.post(REVIEWS, "{}").status, 400);
    assert_eq!(env.post("/api/v1/pods", "{}").status, 405);
    let env =
        MockEnv::with_tables("[GPUS]\n[cluster]\ndenied = [\"create selfsubjectaccessreviews\"]\n");
    assert_eq!(env.post(REVIEWS, "{}").status, 403);
}

#[test]
fn time_advances_without_nvml_calls() {
    // The list has as many pods as have started until then, however long that took.
    let pods: String = (0..10)
        .map(|i| pod(&i.to_string(), &format!("start = {}", 0.5 * f64::from(1 << i))))
        .map(|pod| pod.replace(", gpus = [0]", ""))
        .collect();
    let env = MockEnv::with_tables(&format!("[GPUS]\n{pods}"));
    let list = env.get("/api/v1/pods").json();
    let next = format!("ADDED {}", list["items"].as_array().unwrap().len());
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = env.get(&format!("/api/v1/pods?watch=true&resourceVersion={version}"));
    while watch.event_summary() != next {}
}

#[test]
fn pod_has_the_fields_set_by_schedulers_and_kubelets() {
    let env = MockEnv::with_tables(
        "[GPUS]\n[cluster]\nnode = \"gpu-7\"\nruntime = \"crio\"\n\
         [[pod]]\nname = \"share\"\nlabels = { app = \"x\" }\nannotations = { note = \"y\" }\n\
         containers = [{ name = \"c\", ack = { gpu = 1, gib = 8, cores = 30 } }]\n\
         [[pod]]\nname = \"static\"\nnamespace = \"kube-system\"\nstatic = true\n\
         containers = [{ name = \"c\" }]\n",
    );
    let pods = env.pods();
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
