//! Devices of resource claims: administrative access, sizes, failures, and the requests that they cost.

use std::fs;

use crate::exporter::{Exporter, Scenario, series, value};

/// Two H100 with claims: one as a whole, one in shares.
const NODE: &str = r#"
[[gpu]]
model = "H100"
count = 2
[cluster]
node = "node-1"
[[pod]]
name = "train"
containers = [{ name = "main", claim = { name = "train", gpu = 0 } }]
[[process]]
pid = 4001
name = "python"
pod = "default/train"
gpus = [0]
memory = "10 GiB"
sm = 50
[[pod]]
name = "chat"
containers = [{ name = "main", claim = { name = "chat", gpu = 1, share_mib = 8192 } }]
"#;
const ARGS: [&str; 2] = ["--collect-interval", "200"];
const ALLOCATED: &str = "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED";
const USED: &str = "DCGM_CUSTOM_PROCESS_MEM_USED";
const FRACTION: &str = "DCGM_CUSTOM_DEV_FB_ALLOCATED";
const PROBLEMS: &str = "nvml_exporter_allocation_problems";

fn start(scenario: &Scenario, environment: &[(&str, &str)]) -> Exporter {
    let flag = scenario.flag();
    Exporter::start_with(environment, &[&[flag.as_str()], &ARGS[..]].concat())
}

fn of_pod(metrics: &str, family: &str, pod: &str) -> Option<f64> {
    value(metrics, family, &[&format!("PodName=\"{pod}\"")])
}

fn problems(metrics: &str, reason: &str) -> Option<f64> {
    value(metrics, PROBLEMS, &[&format!("reason=\"{reason}\"")])
}

/// The series of allocations and processes, apart from those of the pod `monitor`.
fn others(metrics: &str) -> Vec<String> {
    let families = [ALLOCATED, USED, FRACTION, "DCGM_CUSTOM_ALLOCATE_MODE"];
    let lines = families.iter().flat_map(|family| series(metrics, family));
    lines.filter(|line| !line.contains("monitor")).map(str::to_owned).collect()
}

#[test]
fn administrative_access_changes_nothing_for_others() {
    let scenario = Scenario::new("dra", NODE);
    let exporter = start(&scenario, &[]);
    let is_complete = |metrics: &str| {
        of_pod(metrics, USED, "train") == Some(10_240.0)
            && of_pod(metrics, USED, "chat") == Some(0.0)
            && value(metrics, FRACTION, &["gpu=\"0\""]) == Some(1.0)
    };
    let before = others(&exporter.wait_for("the workloads", is_complete));
    let monitor = r#"
[[pod]]
name = "monitor"
namespace = "monitoring"
containers = [{ name = "main", claim = { name = "all", gpus = [0, 1], admin = true } }]
[[process]]
pid = 4002
name = "diagnose"
pod = "monitoring/monitor"
gpus = [0]
memory = "512 MiB"
"#;
    scenario.rewrite(&format!("{NODE}{monitor}"));
    // A new pod may hold what is left of a GPU until the kubelet lists it, whatever it requests.
    let certain = |lines: &[String]| -> Vec<String> {
        lines.iter().filter(|line| !line.starts_with(FRACTION)).cloned().collect()
    };
    let metrics = exporter.wait_for("the process of the monitor", |metrics| {
        assert_eq!(certain(&others(metrics)), certain(&before), "{metrics}");
        let none = ["PodName=\"monitor\"", "AllocateMode=\"none\""];
        value(metrics, USED, &none) == Some(512.0) && others(metrics).len() == before.len()
    });
    assert_eq!(others(&metrics), before);
    assert_eq!(series(&metrics, "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_USED"), Vec::<&str>::new());
    assert_eq!(of_pod(&metrics, ALLOCATED, "monitor"), None);
    assert_eq!(series(&metrics, PROBLEMS), Vec::<&str>::new());
}

#[test]
fn without_permission_sizes_are_absent_and_the_reason_is_logged_once() {
    let denied = NODE
        .replace("node = \"node-1\"\n", "node = \"node-1\"\ndenied = [\"get resourceclaims\"]\n");
    let scenario = Scenario::new("dra", &denied);
    let exporter = start(&scenario, &[]);
    let metrics = exporter.wait_for("the denied claims", |metrics| {
        problems(metrics, "unread_claim") == Some(2.0) && of_pod(metrics, USED, "train").is_some()
    });
    assert_eq!(of_pod(&metrics, ALLOCATED, "train"), Some(81_559.0));
    assert_eq!(of_pod(&metrics, ALLOCATED, "chat"), None);
    assert_eq!(value(&metrics, FRACTION, &["gpu=\"0\""]), Some(1.0));
    assert_eq!(value(&metrics, FRACTION, &["gpu=\"1\""]), None);
    assert_eq!(
        value(&metrics, "nvml_exporter_source_up", &["source=\"resource_claims\""]),
        Some(0.0)
    );
    // The next request is refused as well.
    let failures = ["source=\"resource_claims\"", "reason=\"denied\""];
    exporter.wait_for("another request", |metrics| {
        value(metrics, "nvml_exporter_source_failures_total", &failures) > Some(2.0)
    });
    assert_eq!(
        exporter.log().matches("allow get on resourceclaims").count(),
        1,
        "{}",
        exporter.log()
    );
}

#[test]
fn claim_that_cannot_be_read_withholds_its_devices_until_it_is_read() {
    let fault = |effect: &str| {
        format!("{NODE}[[cluster_fault]]\nsource = \"resource_claims\"\neffect = \"{effect}\"\n")
    };
    for effect in ["error", "absent", "garbage", "hang"] {
        let scenario = Scenario::new("dra", &fault(effect));
        let exporter = start(&scenario, &[]);
        let metrics = exporter
            .wait_for("a failed request", |metrics| problems(metrics, "unread_claim") == Some(2.0));
        assert_eq!(others(&metrics), Vec::<String>::new(), "{effect}");
        scenario.rewrite(NODE);
        let metrics = exporter.wait_for("the claims", |metrics| {
            of_pod(metrics, USED, "train").is_some() && of_pod(metrics, ALLOCATED, "chat").is_some()
        });
        assert_eq!(series(&metrics, PROBLEMS), Vec::<&str>::new(), "{effect}");
    }
}

#[test]
fn claim_that_is_created_again_is_not_mistaken_for_its_predecessor() {
    let scenario = Scenario::new("dra", NODE);
    let exporter = start(&scenario, &[]);
    let allocated =
        |mib: f64| move |metrics: &str| of_pod(metrics, ALLOCATED, "train") == Some(mib);
    exporter.wait_for("the first claim", allocated(81_559.0));
    let next = NODE
        .replace("name = \"train\", gpu = 0", "name = \"train\", gpu = 0, share_mib = 1024")
        .replacen(
            "name = \"train\"\n",
            "name = \"train\"\nuid = \"00000000-0000-4000-8000-000000000001\"\n",
            1,
        );
    scenario.rewrite(&next);
    exporter.wait_for("its successor", |metrics| {
        let whole = r#"AllocateMode="exclusive""#;
        let mib = of_pod(metrics, ALLOCATED, "train");
        assert!(mib != Some(1_024.0) || !metrics.contains(whole), "{metrics}");
        mib == Some(1_024.0)
    });
}

/// The counted requests for objects of DRA, as `COUNT GET PATH`.
fn requests(file: &std::path::Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter(|line| line.contains("resource.k8s.io")).map(str::to_owned).collect()
}

#[test]
fn each_claim_is_requested_once_and_slices_once_per_claimed_device() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("calls");
    let scenario = Scenario::new("dra", NODE);
    let exporter = start(&scenario, &[("MOCK_NVML_CALLS", file.to_str().unwrap())]);
    exporter.wait_for("the claims", |metrics| of_pod(metrics, ALLOCATED, "chat").is_some());
    let next = NODE.to_owned()
        + "[[pod]]\nname = \"late\"\ncontainers = [{ name = \"main\", \
           claim = { name = \"late\", gpu = 1, share_mib = 4096 } }]\n";
    scenario.rewrite(&next);
    exporter.wait_for("another claim", |metrics| of_pod(metrics, ALLOCATED, "late").is_some());
    let claims = "GET /apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let expected = [
        format!("1 {claims}/chat"),
        format!("1 {claims}/late"),
        format!("1 {claims}/train"),
        "1 GET /apis/resource.k8s.io/v1/resourceslices".to_owned(),
    ];
    exporter.wait_for("the counts", |_| requests(&file).len() >= expected.len());
    assert_eq!(requests(&file), expected);
}

#[test]
fn claims_of_other_drivers_cost_no_request() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("calls");
    let text = NODE.replace("gpu = 0", "driver = \"dra.net\", devices = [\"eth0\"]").replace(
        "gpu = 1, share_mib = 8192",
        "driver = \"compute-domain.nvidia.com\", devices = [\"channel-0\"]",
    );
    let scenario = Scenario::new("dra", &text);
    let exporter = start(&scenario, &[("MOCK_NVML_CALLS", file.to_str().unwrap())]);
    // The allocations are known: a network device is no GPU.
    let metrics = exporter.wait_for("a process without an allocation", |metrics| {
        of_pod(metrics, "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_USED", "train").is_some()
    });
    assert_eq!(value(&metrics, FRACTION, &["gpu=\"0\""]), Some(0.0));
    exporter.wait_for("the counts", |_| {
        fs::read_to_string(&file).is_ok_and(|text| text.contains("GET /api/v1/pods"))
    });
    assert_eq!(requests(&file), Vec::<String>::new());
}

#[test]
fn claimed_device_stays_known_while_its_slice_is_absent() {
    let scenario = Scenario::new("dra", NODE);
    let exporter = start(&scenario, &[]);
    let used = |metrics: &str| of_pod(metrics, USED, "train").is_some();
    exporter.wait_for("the claims", used);
    // A new claim of an unknown device causes another list.
    let restarting = NODE.to_owned()
        + "[[pod]]\nname = \"late\"\ncontainers = [{ name = \"main\", \
           claim = { name = \"late\", driver = \"gpu.nvidia.com\", devices = [\"gpu-9\"] } }]\n\
           [[cluster_fault]]\nsource = \"resource_slices\"\neffect = \"empty\"\n";
    scenario.rewrite(&restarting);
    let lists = |metrics: &str| {
        value(
            metrics,
            "nvml_exporter_source_contact_timestamp_seconds",
            &["source=\"resource_slices\""],
        )
    };
    let first = lists(&exporter.metrics());
    exporter.wait_for("a list without slices", |metrics| {
        assert!(used(metrics), "{metrics}");
        problems(metrics, "no_slice") == Some(1.0) && lists(metrics) > first
    });
}

#[test]
fn slices_for_all_nodes_are_read() {
    let everywhere =
        NODE.replace("node = \"node-1\"\n", "node = \"node-1\"\nslices_for_all_nodes = true\n");
    let scenario = Scenario::new("dra", &everywhere);
    let exporter = start(&scenario, &[]);
    let metrics = exporter.wait_for("the claims", |metrics| {
        of_pod(metrics, USED, "train").is_some() && of_pod(metrics, ALLOCATED, "chat").is_some()
    });
    assert_eq!(of_pod(&metrics, ALLOCATED, "chat"), Some(8_192.0));
}
