//! Process attribution: pods and device allocations over real sockets, and their changes.

use crate::exporter::{Exporter, Scenario, run_once, series, value};

const FLAGS: [&str; 4] = ["--collect-interval", "200", "--max-age", "5000"];

fn start(scenario: &Scenario) -> Exporter {
    Exporter::start(&[&[scenario.flag().as_str()], FLAGS.as_slice()].concat())
}

/// A scenario with two pods: `train` is allocated GPU 0, the first of two containers of `serve` a slice of GPU 1.
/// GPU 2 is unallocated and used by a host process.
fn node(now: u32, rest: &str) -> String {
    format!(
        r#"now = {now}
[cluster]
node = "node-7"
[[gpu]]
model = "L20"
count = 3
[[pod]]
name = "train"
namespace = "team-a"
containers = [{{ name = "main", gpus = [0] }}]
[[pod]]
name = "serve"
namespace = "team-b"
containers = [{{ name = "web", slices = {{ gpus = [1], replicas = 4 }} }}, {{ name = "log" }}]
[[process]]
pid = 101
name = "python"
gpus = [0]
memory = "20 GiB"
sm = 60
pod = "team-a/train"
container = "main"
[[process]]
pid = 301
name = "hostjob"
gpus = [2]
memory = "1 GiB"
sm = 10
{rest}"#
    )
}

/// A process of the container that is allocated the slice.
const WEB: &str = "[[process]]\npid = 201\nname = \"vllm\"\ngpus = [1]\nmemory = \"10 GiB\"\nsm = 20\n\
                   pod = \"team-b/serve\"\ncontainer = \"web\"\n";

fn fault(source: &str, effect: &str) -> String {
    format!("[[cluster_fault]]\nsource = \"{source}\"\neffect = \"{effect}\"\n")
}

fn sm(metrics: &str, pod: &str) -> Option<f64> {
    value(metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL", &[&format!("PodName=\"{pod}\"")])
}

fn up(metrics: &str, source: &str) -> Option<f64> {
    value(metrics, "nvml_exporter_source_up", &[&format!("\"{source}\"")])
}

fn failures(metrics: &str, source: &str) -> f64 {
    let labels = format!("source=\"{source}\"");
    let lines = series(metrics, "nvml_exporter_source_failures_total");
    let matching = lines.into_iter().filter(|line| line.contains(&labels));
    matching.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn cycles(metrics: &str) -> f64 {
    value(metrics, "nvml_exporter_cycles_total", &[]).unwrap_or(0.0)
}

#[test]
fn processes_carry_their_pod_and_allocations_are_exported() {
    let scenario = Scenario::new("node", &node(60, WEB));
    let metrics = run_once(&[&scenario.flag()]);
    let train =
        ["NamespaceName=\"team-a\"", "ContainerName=\"main\"", "AllocateMode=\"exclusive\""];
    assert_eq!(value(&metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL", &train), Some(60.0));
    assert_eq!(value(&metrics, "DCGM_CUSTOM_PROCESS_MEM_USED", &train), Some(20480.0));
    let web = ["NamespaceName=\"team-b\"", "ContainerName=\"web\"", "AllocateMode=\"share\""];
    assert_eq!(value(&metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL", &web), Some(20.0));
    assert!(!metrics.contains("ContainerName=\"log\""), "nothing is allocated to it");

    // The host process uses a GPU without an allocation: it is in the ILLEGAL families only.
    let illegal = ["ProcessId=\"301\"", "PodName=\"\""];
    assert_eq!(value(&metrics, "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL", &illegal), Some(10.0));
    assert!(!series(&metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL").iter().any(|l| l.contains("hostjob")));

    let allocated =
        |gpu: u32| value(&metrics, "DCGM_CUSTOM_DEV_FB_ALLOCATED", &[&format!("gpu=\"{gpu}\"")]);
    assert_eq!([0, 1, 2].map(allocated), [Some(1.0), Some(1.0), Some(0.0)]);
    assert_eq!(value(&metrics, "DCGM_CUSTOM_ALLOCATE_MODE", &["NodeName=\"node-7\""]), Some(2.0));
    let total = value(&metrics, "DCGM_CUSTOM_DEV_FB_TOTAL", &["gpu=\"0\""]);
    assert_eq!(value(&metrics, "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED", &train), total);
    assert_eq!(value(&metrics, "DCGM_CUSTOM_CONTAINER_CP_ALLOCATED", &train), Some(0.0));
}

#[test]
fn idle_series_is_replaced_by_the_process_and_returns_after_it() {
    let scenario = Scenario::new("node", &node(60, ""));
    let exporter = start(&scenario);
    let metrics = exporter.wait_for("an idle pod", |metrics| sm(metrics, "serve") == Some(0.0));
    let idle = series(&metrics, "DCGM_CUSTOM_PROCESS_MEM_USED");
    let idle = idle.iter().find(|line| line.contains("PodName=\"serve\"")).unwrap();
    assert!(idle.contains("ProcessId=\"0\"") && idle.contains("ContainerName=\"web\""), "{idle}");

    scenario.rewrite(&node(61, WEB));
    // `value` asserts that there is one series only: a remaining 0 would lower an average.
    exporter.wait_for("its process", |metrics| sm(metrics, "serve") == Some(20.0));
    scenario.rewrite(&node(62, ""));
    exporter.wait_for("an idle pod again", |metrics| sm(metrics, "serve") == Some(0.0));
}

#[test]
fn lost_gpu_has_no_process_or_allocation_series() {
    let base = node(30, "");
    let scenario = Scenario::new("lost", &base);
    let exporter = start(&scenario);
    let of_gpu_0 = |metrics: &str| {
        metrics
            .lines()
            .filter(|line| line.starts_with("DCGM_CUSTOM_") && line.contains("gpu=\"0\""))
            .count()
    };
    exporter.wait_for("utilization of the pod", |metrics| sm(metrics, "train").is_some());
    let lost =
        "[[gpu]]\nmodel = \"L20\"\nlost = [{ from = 31.0 }]\n[[gpu]]\nmodel = \"L20\"\ncount = 2\n";
    let with_loss = base.replace("[[gpu]]\nmodel = \"L20\"\ncount = 3\n", lost);
    assert_ne!(base, with_loss);
    scenario.rewrite(&with_loss.replace("now = 30", "now = 40"));
    let metrics = exporter.wait_for("the loss", |metrics| {
        value(metrics, "nvml_exporter_gpu_up", &["gpu=\"0\""]) == Some(0.0)
    });
    assert_eq!(of_gpu_0(&metrics), 0, "{metrics}");
}

#[test]
fn series_of_a_deleted_pod_disappear() {
    let scenario = Scenario::new("node", &node(60, WEB));
    let exporter = start(&scenario);
    exporter.wait_for("both pods", |metrics| {
        sm(metrics, "serve").is_some() && sm(metrics, "train").is_some()
    });
    let text = node(61, "").replace("name = \"serve\"\n", "name = \"serve\"\nend = 61\n");
    scenario.rewrite(&text);
    let metrics =
        exporter.wait_for("the deletion", |metrics| !metrics.contains("PodName=\"serve\""));
    assert_eq!(sm(&metrics, "train"), Some(60.0));
    exporter.wait_for("an unallocated GPU", |metrics| {
        value(metrics, "DCGM_CUSTOM_DEV_FB_ALLOCATED", &["gpu=\"1\""]) == Some(0.0)
    });
}

#[test]
fn cached_pods_are_kept_while_the_api_server_is_down() {
    let contact = |metrics: &str| {
        value(metrics, "nvml_exporter_source_contact_timestamp_seconds", &["\"api\""])
    };
    for effect in ["refuse", "garbage", "close", "hang"] {
        let scenario = Scenario::new("node", &node(60, WEB));
        let exporter = start(&scenario);
        let metrics = exporter.wait_for("the pods", |metrics| {
            sm(metrics, "serve") == Some(20.0) && contact(metrics).is_some()
        });
        let (before, from) = (contact(&metrics).unwrap(), cycles(&metrics));
        scenario.rewrite(&node(61, &format!("{WEB}{}", fault("api", effect))));
        let metrics = exporter.wait_for(effect, |metrics| {
            cycles(metrics) > from + 10.0 && (effect == "hang" || failures(metrics, "api") > 0.0)
        });
        assert_eq!(
            (sm(&metrics, "serve"), sm(&metrics, "train")),
            (Some(20.0), Some(60.0)),
            "{effect}"
        );
        let after = contact(&metrics).unwrap();
        assert!(after > before - 0.1, "{effect}: the contact time does not go back");
        assert_eq!(exporter.get("/readyz").status, 200, "{effect}: the GPUs are still read");

        scenario.rewrite(&node(62, WEB));
        exporter.wait_for("the API server", |metrics| up(metrics, "api") == Some(1.0));
    }
}

#[test]
fn cached_pods_are_kept_when_the_token_is_revoked() {
    let scenario = Scenario::new("node", &node(60, WEB));
    let exporter = start(&scenario);
    exporter.wait_for("the pods", |metrics| sm(metrics, "serve") == Some(20.0));
    // An open watch stays open; the next request is refused.
    scenario.rewrite(&node(61, &format!("{WEB}{}", fault("api", "close"))));
    exporter.wait_for("the end of the watch", |metrics| failures(metrics, "api") > 0.0);
    scenario.rewrite(&node(62, &format!("{WEB}{}", fault("api", "denied"))));
    let metrics = exporter.wait_for("the refusal", |metrics| {
        let denied = ["source=\"api\"", "reason=\"denied\""];
        value(metrics, "nvml_exporter_source_failures_total", &denied).is_some()
    });
    assert_eq!((up(&metrics, "api"), sm(&metrics, "serve")), (Some(0.0), Some(20.0)));
    let ready = exporter.get("/readyz").text();
    let warning = ready.lines().find(|line| line.starts_with("warning: api: ")).unwrap_or(&ready);
    assert!(
        warning.contains("HTTP status 40") && warning.contains("; using data from "),
        "{ready}"
    );
    scenario.rewrite(&node(63, WEB));
    exporter.wait_for("the new token", |metrics| up(metrics, "api") == Some(1.0));
}

#[test]
fn expired_watch_is_relisted_without_losing_pods() {
    let scenario = Scenario::new("node", &node(60, WEB));
    let exporter = start(&scenario);
    exporter.wait_for("the pods", |metrics| sm(metrics, "serve") == Some(20.0));
    scenario.rewrite(&node(61, &format!("{WEB}{}", fault("api", "expired"))));
    let metrics = exporter.wait_for("the expiry", |metrics| {
        let labels = ["source=\"api\"", "reason=\"expired\""];
        value(metrics, "nvml_exporter_source_failures_total", &labels).is_some()
    });
    assert_eq!(sm(&metrics, "serve"), Some(20.0));
    let late = "[[pod]]\nname = \"late\"\nnamespace = \"team-a\"\n\
                containers = [{ name = \"main\", gpus = [2] }]\n";
    scenario.rewrite(&node(62, &format!("{WEB}{late}")));
    exporter.wait_for("a pod that came later", |metrics| metrics.contains("PodName=\"late\""));
}

#[test]
fn reconnects_are_not_warnings() {
    let scenario = Scenario::new("node", &node(60, WEB));
    let exporter = start(&scenario);
    exporter.wait_for("the pods", |metrics| sm(metrics, "serve") == Some(20.0));
    for (now, effect, reason) in [(61, "expired", "expired"), (63, "close", "connection")] {
        scenario.rewrite(&node(now, &format!("{WEB}{}", fault("api", effect))));
        exporter.wait_for(effect, |metrics| {
            let labels = ["source=\"api\"", &format!("reason=\"{reason}\"")];
            value(metrics, "nvml_exporter_source_failures_total", &labels).is_some()
        });
        scenario.rewrite(&node(now + 1, WEB));
        exporter.wait_for("the API server", |metrics| up(metrics, "api") == Some(1.0));
    }
    let log = exporter.log();
    assert!(!log.contains("WARN"), "{log}");
    assert!(log.contains("INFO request failed and is retried"), "{log}");
}

#[test]
fn source_is_down_in_the_log_and_in_its_series_at_the_same_time() {
    let scenario = Scenario::new("node", &node(60, WEB));
    let exporter = start(&scenario);
    exporter.wait_for("the pods", |metrics| sm(metrics, "serve") == Some(20.0));
    scenario.rewrite(&node(61, &format!("{WEB}{}", fault("kubelet", "absent"))));
    exporter.wait_for("a source that is down", |metrics| {
        // The series follows the log in the next cycle.
        let is_logged = exporter.log().contains("source is down");
        let is_up = up(metrics, "pod_resources");
        assert!(is_up == Some(1.0) || is_logged, "{}", exporter.log());
        is_up == Some(0.0)
    });
    scenario.rewrite(&node(62, WEB));
    exporter.wait_for("the kubelet", |metrics| up(metrics, "pod_resources") == Some(1.0));
}

#[test]
fn cached_allocations_are_kept_while_the_kubelet_is_down() {
    for effect in ["absent", "refuse", "garbage", "denied", "throttled", "close"] {
        let scenario = Scenario::new("node", &node(60, WEB));
        let exporter = start(&scenario);
        exporter.wait_for("the pods", |metrics| sm(metrics, "serve") == Some(20.0));
        let failures = |metrics: &str| -> f64 {
            let all = series(metrics, "nvml_exporter_source_failures_total").into_iter();
            let of = all.filter(|line| line.contains("source=\"pod_resources\""));
            of.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
        };
        let before = failures(&exporter.metrics());
        scenario.rewrite(&node(61, &format!("{WEB}{}", fault("kubelet", effect))));
        let metrics = exporter.wait_for(effect, |metrics| failures(metrics) > before);
        let expected = if effect == "denied" { 0.0 } else { 1.0 };
        assert_eq!(up(&metrics, "pod_resources"), Some(expected), "{effect}: as in the log");
        assert_eq!(
            (sm(&metrics, "serve"), sm(&metrics, "train")),
            (Some(20.0), Some(60.0)),
            "{effect}"
        );
        let log = exporter.log();
        let lines = |text| log.matches(text).count();
        let logged = (lines("source is down"), lines("request failed and is retried"));
        // A retry does not help against missing rights.
        let expected = if effect == "denied" { (1, 0) } else { (0, 1) };
        assert_eq!(logged, expected, "{effect}: {log}");
        scenario.rewrite(&node(62, WEB));
        exporter.wait_for("the kubelet", |metrics| up(metrics, "pod_resources") == Some(1.0));
    }
}

#[test]
fn hung_kubelet_does_not_delay_cycles() {
    let scenario = Scenario::new("node", &node(60, &format!("{WEB}{}", fault("kubelet", "hang"))));
    let exporter = start(&scenario);
    let metrics = exporter.wait_for("cycles", |metrics| cycles(metrics) > 10.0);
    // No allocation has been read yet: no process series is published, not even 0.
    assert_eq!(series(&metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL"), Vec::<&str>::new());
    assert_eq!(series(&metrics, "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL"), Vec::<&str>::new());
    let waiting = value(&metrics, "nvml_exporter_unresolved_processes", &["\"allocation\""]);
    assert_eq!(waiting, Some(3.0));
    assert_eq!(value(&metrics, "DCGM_FI_DEV_GPU_UTIL", &["gpu=\"0\""]), Some(60.0));
    scenario.rewrite(&node(61, WEB));
    exporter.wait_for("the kubelet", |metrics| sm(metrics, "serve") == Some(20.0));
}

#[test]
fn no_idle_series_outside_the_host_pid_namespace() {
    let text = node(60, "").replace("now = 60\n", "now = 60\npid_namespace = \"container\"\n");
    let scenario = Scenario::new("node", &text);
    let exporter = start(&scenario);
    let metrics = exporter.wait_for("the allocations", |metrics| {
        value(metrics, "DCGM_CUSTOM_ALLOCATE_MODE", &[]) == Some(2.0)
    });
    assert_eq!(sm(&metrics, "serve"), None, "the process list may be incomplete");
    assert_eq!(value(&metrics, "nvml_exporter_host_pid_namespace", &[]), Some(0.0));
    let readiness = exporter.get("/readyz");
    assert_eq!(readiness.status, 200);
    assert!(readiness.text().contains("set hostPID: true"), "{}", readiness.text());
    let log = exporter.log();
    assert_eq!(log.matches("set hostPID: true").count(), 1, "logged once: {log}");
}

#[test]
fn process_series_per_container_sum_its_processes() {
    let workers = "[[process]]\npid = 201\nname = \"worker\"\ncount = 4\ngpus = [1]\n\
                   memory = \"2 GiB\"\nsm = 20\npod = \"team-b/serve\"\ncontainer = \"web\"\n";
    let scenario = Scenario::new("node", &node(60, workers));
    let each = run_once(&[&scenario.flag()]);
    let of_serve = |metrics: &str| {
        let lines = series(metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL");
        lines.iter().filter(|line| line.contains("PodName=\"serve\"")).count()
    };
    assert_eq!(of_serve(&each), 4);
    let sum = run_once(&[&scenario.flag(), "--process-series", "container"]);
    assert_eq!(sm(&sum, "serve"), Some(80.0));
    let memory = ["PodName=\"serve\"", "ProcessId=\"\""];
    assert_eq!(value(&sum, "DCGM_CUSTOM_PROCESS_MEM_USED", &memory), Some(8192.0));
}

#[test]
fn without_a_cluster_processes_belong_to_the_host_and_none_is_illegal() {
    let metrics = run_once(&["--mock=consumer-4090"]);
    assert_eq!(series(&metrics, "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL"), Vec::<&str>::new());
    assert_eq!(series(&metrics, "DCGM_CUSTOM_ALLOCATE_MODE"), Vec::<&str>::new());
    let host = ["source=\"cgroup\"", "result=\"host\""];
    assert_eq!(value(&metrics, "nvml_exporter_attributed_processes", &host), Some(4.0));
    assert!(!metrics.contains("source=\"api\"") && !metrics.contains("source=\"pod_resources\""));
}

/// The directory of the mock environment: library, sockets and kubeconfig.
fn mock_directory(exporter: &Exporter) -> String {
    let log = exporter.log();
    let library = log.split("library=\"").nth(1).and_then(|rest| rest.split('"').next());
    library.and_then(|path| path.strip_suffix("/libnvidia-ml.so.1")).expect(&log).to_owned()
}

/// Resident memory in KiB of an exporter that has read `count` pods of 15 KB each. Two other exporters run the mock
/// cluster and driver, because the mock keeps the pods in memory too.
fn resident(count: u32) -> u64 {
    let note = "x".repeat(14_000);
    let pods = format!(
        "[[pod]]\nname = \"idle\"\ncount = {count}\nannotations = {{ note = \"{note}\" }}\n\
         containers = [{{ name = \"main\" }}]\n"
    );
    let pods = if count == 0 { String::new() } else { pods };
    let [empty, full] = [String::new(), pods].map(|pods| {
        Scenario::new("memory", &format!("[[gpu]]\nmodel = \"L20\"\n[cluster]\n{pods}"))
    });
    let [driver, cluster] = [&empty, &full].map(start);
    let [driver, cluster] = [&driver, &cluster].map(|mock| {
        mock.wait_for("the driver", |metrics| up(metrics, "gpu0") == Some(1.0));
        mock_directory(mock)
    });
    let library = format!("{driver}/libnvidia-ml.so.1");
    let sysfs = format!("{driver}/sys");
    let config = format!("{cluster}/kubeconfig");
    let socket = format!("{cluster}/pod-resources/kubelet.sock");
    let sources = [
        ["--nvml-library", &library],
        ["--sysfs", &sysfs],
        ["--node-name", "node-1"],
        ["--kubeconfig", &config],
        ["--pod-resources-kubelet-socket", &socket],
    ];
    let exporter = Exporter::start(&[sources.as_flattened(), FLAGS.as_slice()].concat());
    let has_all_pods =
        |metrics: &str| value(metrics, "nvml_exporter_pods", &[]) == Some(f64::from(count));
    exporter.wait_for("every pod", has_all_pods);
    let status = std::fs::read_to_string(format!("/proc/{}/status", exporter.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    resident.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn pods_of_a_full_node_take_at_most_three_megabytes() {
    let (without, with) = (resident(0), resident(110));
    assert!(with < without + 3 * 1024, "{without} KiB without pods, {with} KiB with 110");
}
