//! Whose process is it: pods, allocations and what becomes of them, on real sockets.

use crate::exporter::{Exporter, Scenario, once, series, value};

const QUICK: [&str; 4] = ["--collect-interval", "200", "--max-age", "5000"];

fn start(scenario: &Scenario) -> Exporter {
    Exporter::start(&[&[scenario.flag().as_str()], QUICK.as_slice()].concat())
}

/// A node with two pods: one has GPU 0 alone, the other has a slice of GPU 1 and two containers.
/// GPU 2 is free, and the host works on it.
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

const WEB: &str = "[[process]]\npid = 201\nname = \"vllm\"\ngpus = [1]\nmemory = \"10 GiB\"\nsm = 20\n\
                   pod = \"team-b/serve\"\ncontainer = \"web\"\n";

fn fault(source: &str, effect: &str) -> String {
    format!("[[cluster_fault]]\nsource = \"{source}\"\neffect = \"{effect}\"\n")
}

fn sm(page: &str, pod: &str) -> Option<f64> {
    value(page, "DCGM_CUSTOM_PROCESS_SM_UTIL", &[&format!("PodName=\"{pod}\"")])
}

fn up(page: &str, source: &str) -> Option<f64> {
    value(page, "nvml_exporter_source_up", &[&format!("\"{source}\"")])
}

fn failures(page: &str, source: &str) -> f64 {
    let labels = format!("source=\"{source}\"");
    let lines = series(page, "nvml_exporter_source_failures_total");
    let ours = lines.into_iter().filter(|line| line.contains(&labels));
    ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn cycles(page: &str) -> f64 {
    value(page, "nvml_exporter_cycles_total", &[]).unwrap_or(0.0)
}

#[test]
fn each_process_carries_its_pod_and_the_idle_are_zero() {
    let scenario = Scenario::new("node", &node(60, WEB));
    let page = once(&[&scenario.flag()]);
    let train =
        ["NamespaceName=\"team-a\"", "ContainerName=\"main\"", "AllocateMode=\"exclusive\""];
    assert_eq!(value(&page, "DCGM_CUSTOM_PROCESS_SM_UTIL", &train), Some(60.0));
    assert_eq!(value(&page, "DCGM_CUSTOM_PROCESS_MEM_USED", &train), Some(20480.0));
    let web = ["NamespaceName=\"team-b\"", "ContainerName=\"web\"", "AllocateMode=\"share\""];
    assert_eq!(value(&page, "DCGM_CUSTOM_PROCESS_SM_UTIL", &web), Some(20.0));
    assert!(!page.contains("ContainerName=\"log\""), "it was given nothing");

    // The host was given nothing, and is told apart.
    let illegal = ["ProcessId=\"301\"", "PodName=\"\""];
    assert_eq!(value(&page, "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL", &illegal), Some(10.0));
    assert!(!series(&page, "DCGM_CUSTOM_PROCESS_SM_UTIL").iter().any(|l| l.contains("hostjob")));

    let allocated =
        |gpu: u32| value(&page, "DCGM_CUSTOM_DEV_FB_ALLOCATED", &[&format!("gpu=\"{gpu}\"")]);
    assert_eq!([0, 1, 2].map(allocated), [Some(1.0), Some(1.0), Some(0.0)]);
    assert_eq!(value(&page, "DCGM_CUSTOM_ALLOCATE_MODE", &["NodeName=\"node-7\""]), Some(2.0));
    let total = value(&page, "DCGM_CUSTOM_DEV_FB_TOTAL", &["gpu=\"0\""]);
    assert_eq!(value(&page, "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED", &train), total);
    assert_eq!(value(&page, "DCGM_CUSTOM_CONTAINER_CP_ALLOCATED", &train), Some(0.0));
}

#[test]
fn zero_goes_when_a_process_comes_and_comes_when_it_goes() {
    let scenario = Scenario::new("node", &node(60, ""));
    let exporter = start(&scenario);
    let page = exporter.wait_for("an idle pod", |page| sm(page, "serve") == Some(0.0));
    let idle = series(&page, "DCGM_CUSTOM_PROCESS_MEM_USED");
    let idle = idle.iter().find(|line| line.contains("PodName=\"serve\"")).unwrap();
    assert!(idle.contains("ProcessId=\"0\"") && idle.contains("ContainerName=\"web\""), "{idle}");

    scenario.rewrite(&node(61, WEB));
    // `value` asserts that there is one line only: the zero would dilute the mean.
    exporter.wait_for("its work", |page| sm(page, "serve") == Some(20.0));
    scenario.rewrite(&node(62, ""));
    exporter.wait_for("an idle pod again", |page| sm(page, "serve") == Some(0.0));
}

#[test]
fn nobody_has_anything_of_a_gpu_that_is_lost() {
    let world = node(30, "");
    let scenario = Scenario::new("lost", &world);
    let exporter = start(&scenario);
    let of_gpu_0 = |page: &str| {
        page.lines()
            .filter(|line| line.starts_with("DCGM_CUSTOM_") && line.contains("gpu=\"0\""))
            .count()
    };
    exporter.wait_for("what the pod has", |page| sm(page, "train").is_some());
    let lost =
        "[[gpu]]\nmodel = \"L20\"\nlost = [{ from = 31.0 }]\n[[gpu]]\nmodel = \"L20\"\ncount = 2\n";
    let gone = world.replace("[[gpu]]\nmodel = \"L20\"\ncount = 3\n", lost);
    assert_ne!(world, gone);
    scenario.rewrite(&gone.replace("now = 30", "now = 40"));
    let page = exporter.wait_for("the loss", |page| {
        value(page, "nvml_exporter_gpu_up", &["gpu=\"0\""]) == Some(0.0)
    });
    assert_eq!(of_gpu_0(&page), 0, "{page}");
}

#[test]
fn a_deleted_pod_takes_its_series_with_it() {
    let scenario = Scenario::new("node", &node(60, WEB));
    let exporter = start(&scenario);
    exporter
        .wait_for("both pods", |page| sm(page, "serve").is_some() && sm(page, "train").is_some());
    let text = node(61, "").replace("name = \"serve\"\n", "name = \"serve\"\nend = 61\n");
    scenario.rewrite(&text);
    let page = exporter.wait_for("the deletion", |page| !page.contains("PodName=\"serve\""));
    assert_eq!(sm(&page, "train"), Some(60.0));
    exporter.wait_for("a GPU that is free", |page| {
        value(page, "DCGM_CUSTOM_DEV_FB_ALLOCATED", &["gpu=\"1\""]) == Some(0.0)
    });
}

#[test]
fn while_the_api_server_is_down_the_last_state_stays_and_grows_old() {
    for effect in ["refuse", "garbage", "close", "hang"] {
        let scenario = Scenario::new("node", &node(60, WEB));
        let exporter = start(&scenario);
        let page = exporter.wait_for("the pods", |page| sm(page, "serve") == Some(20.0));
        let contact = |page: &str| {
            value(page, "nvml_exporter_source_contact_timestamp_seconds", &["\"api\""]).unwrap()
        };
        let (before, from) = (contact(&page), cycles(&page));
        scenario.rewrite(&node(61, &format!("{WEB}{}", fault("api", effect))));
        let page = exporter.wait_for(effect, |page| {
            cycles(page) > from + 10.0 && (effect == "hang" || failures(page, "api") > 0.0)
        });
        assert_eq!((sm(&page, "serve"), sm(&page, "train")), (Some(20.0), Some(60.0)), "{effect}");
        assert!(contact(&page) > before - 0.1, "{effect}: it never speaks in the past");
        assert_eq!(exporter.get("/readyz").status, 200, "{effect}: the GPUs are read all the same");

        scenario.rewrite(&node(62, WEB));
        exporter.wait_for("the API server", |page| up(page, "api") == Some(1.0));
    }
}

#[test]
fn a_token_that_is_revoked_leaves_the_last_state() {
    let scenario = Scenario::new("node", &node(60, WEB));
    let exporter = start(&scenario);
    exporter.wait_for("the pods", |page| sm(page, "serve") == Some(20.0));
    // A watch that is open stays open; the next one is refused.
    scenario.rewrite(&node(61, &format!("{WEB}{}", fault("api", "close"))));
    exporter.wait_for("the end of the watch", |page| failures(page, "api") > 0.0);
    scenario.rewrite(&node(62, &format!("{WEB}{}", fault("api", "denied"))));
    let page = exporter.wait_for("the refusal", |page| {
        let denied = ["source=\"api\"", "reason=\"denied\""];
        value(page, "nvml_exporter_source_failures_total", &denied).is_some()
    });
    assert_eq!((up(&page, "api"), sm(&page, "serve")), (Some(0.0), Some(20.0)));
    scenario.rewrite(&node(63, WEB));
    exporter.wait_for("the new token", |page| up(page, "api") == Some(1.0));
}

#[test]
fn a_history_that_is_gone_is_read_anew_and_nobody_is_forgotten_meanwhile() {
    let scenario = Scenario::new("node", &node(60, WEB));
    let exporter = start(&scenario);
    exporter.wait_for("the pods", |page| sm(page, "serve") == Some(20.0));
    scenario.rewrite(&node(61, &format!("{WEB}{}", fault("api", "expired"))));
    let page = exporter.wait_for("the expiry", |page| {
        let labels = ["source=\"api\"", "reason=\"expired\""];
        value(page, "nvml_exporter_source_failures_total", &labels).is_some()
    });
    assert_eq!(sm(&page, "serve"), Some(20.0));
    let late = "[[pod]]\nname = \"late\"\nnamespace = \"team-a\"\n\
                containers = [{ name = \"main\", gpus = [2] }]\n";
    scenario.rewrite(&node(62, &format!("{WEB}{late}")));
    exporter.wait_for("a pod that came later", |page| page.contains("PodName=\"late\""));
}

#[test]
fn what_the_kubelet_cannot_confirm_is_kept_for_the_pods_that_are_there() {
    for effect in ["absent", "refuse", "garbage", "denied", "throttled", "close"] {
        let scenario = Scenario::new("node", &node(60, WEB));
        let exporter = start(&scenario);
        exporter.wait_for("the pods", |page| sm(page, "serve") == Some(20.0));
        scenario.rewrite(&node(61, &format!("{WEB}{}", fault("kubelet", effect))));
        let page = exporter.wait_for(effect, |page| up(page, "pod_resources") == Some(0.0));
        assert_eq!((sm(&page, "serve"), sm(&page, "train")), (Some(20.0), Some(60.0)), "{effect}");
        let log = exporter.log();
        assert_eq!(log.matches("source is down").count(), 1, "{effect}: {log}");
        scenario.rewrite(&node(62, WEB));
        exporter.wait_for("the kubelet", |page| up(page, "pod_resources") == Some(1.0));
    }
}

#[test]
fn a_kubelet_that_hangs_delays_no_cycle() {
    let scenario = Scenario::new("node", &node(60, &format!("{WEB}{}", fault("kubelet", "hang"))));
    let exporter = start(&scenario);
    let page = exporter.wait_for("cycles", |page| cycles(page) > 10.0);
    // Nobody has said yet who was given what: nobody is told, at zero or otherwise.
    assert_eq!(series(&page, "DCGM_CUSTOM_PROCESS_SM_UTIL"), Vec::<&str>::new());
    assert_eq!(series(&page, "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL"), Vec::<&str>::new());
    let waiting = value(&page, "nvml_exporter_unresolved_processes", &["\"allocation\""]);
    assert_eq!(waiting, Some(3.0));
    assert_eq!(value(&page, "DCGM_FI_DEV_GPU_UTIL", &["gpu=\"0\""]), Some(60.0));
    scenario.rewrite(&node(61, WEB));
    exporter.wait_for("the kubelet", |page| sm(page, "serve") == Some(20.0));
}

#[test]
fn outside_the_hosts_pid_namespace_nobody_is_called_idle() {
    let text = node(60, "").replace("now = 60\n", "now = 60\npid_namespace = \"container\"\n");
    let scenario = Scenario::new("node", &text);
    let exporter = start(&scenario);
    let page = exporter.wait_for("the allocations", |page| {
        value(page, "DCGM_CUSTOM_ALLOCATE_MODE", &[]) == Some(2.0)
    });
    assert_eq!(sm(&page, "serve"), None, "the driver may hide its processes");
    assert_eq!(value(&page, "nvml_exporter_host_pid_namespace", &[]), Some(0.0));
    let readiness = exporter.get("/readyz");
    assert_eq!(readiness.status, 200);
    assert!(readiness.text().contains("set hostPID: true"), "{}", readiness.text());
    let log = exporter.log();
    assert_eq!(log.matches("set hostPID: true").count(), 1, "said once: {log}");
}

#[test]
fn the_processes_of_a_container_are_one_series_if_asked_for() {
    let workers = "[[process]]\npid = 201\nname = \"worker\"\ncount = 4\ngpus = [1]\n\
                   memory = \"2 GiB\"\nsm = 20\npod = \"team-b/serve\"\ncontainer = \"web\"\n";
    let scenario = Scenario::new("node", &node(60, workers));
    let each = once(&[&scenario.flag()]);
    let of_serve = |page: &str| {
        let lines = series(page, "DCGM_CUSTOM_PROCESS_SM_UTIL");
        lines.iter().filter(|line| line.contains("PodName=\"serve\"")).count()
    };
    assert_eq!(of_serve(&each), 4);
    let sum = once(&[&scenario.flag(), "--process-series", "container"]);
    assert_eq!(sm(&sum, "serve"), Some(80.0));
    let memory = ["PodName=\"serve\"", "ProcessId=\"\""];
    assert_eq!(value(&sum, "DCGM_CUSTOM_PROCESS_MEM_USED", &memory), Some(8192.0));
}

#[test]
fn a_node_without_a_cluster_says_host_and_nobody_is_illegal() {
    let page = once(&["--mock=consumer-4090"]);
    assert_eq!(series(&page, "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL"), Vec::<&str>::new());
    assert_eq!(series(&page, "DCGM_CUSTOM_ALLOCATE_MODE"), Vec::<&str>::new());
    let host = ["source=\"cgroup\"", "result=\"host\""];
    assert_eq!(value(&page, "nvml_exporter_attributed_processes", &host), Some(4.0));
    assert!(!page.contains("source=\"api\"") && !page.contains("source=\"pod_resources\""));
}

/// The directory in which an exporter's mock plays its node.
fn stage(exporter: &Exporter) -> String {
    let log = exporter.log();
    let library = log.split("library=\"").nth(1).and_then(|rest| rest.split('"').next());
    library.and_then(|path| path.strip_suffix("/libnvidia-ml.so.1")).expect(&log).to_owned()
}

/// What an exporter has in memory when it knows `count` pods of 15 KB each, in KiB. Others play the
/// cluster and the driver: the mock remembers pods too, and is not to be measured.
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
    let [driver, cluster] = [&driver, &cluster].map(|playing| {
        playing.wait_for("the driver", |page| up(page, "gpu0") == Some(1.0));
        stage(playing)
    });
    let library = format!("{driver}/libnvidia-ml.so.1");
    let config = format!("{cluster}/kubeconfig");
    let socket = format!("{cluster}/pod-resources/kubelet.sock");
    let sources = [
        ["--nvml-library", &library],
        ["--node-name", "node-1"],
        ["--kubeconfig", &config],
        ["--pod-resources-kubelet-socket", &socket],
    ];
    let exporter = Exporter::start(&[sources.as_flattened(), QUICK.as_slice()].concat());
    let known = |page: &str| value(page, "nvml_exporter_pods", &[]) == Some(f64::from(count));
    exporter.wait_for("every pod", known);
    let status = std::fs::read_to_string(format!("/proc/{}/status", exporter.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    resident.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn the_pods_of_a_full_node_take_three_megabytes_at_the_most() {
    let (without, with) = (resident(0), resident(110));
    assert!(with < without + 3 * 1024, "{without} KiB without pods, {with} KiB with 110");
}
