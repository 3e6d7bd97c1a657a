//! "Idle" and "illegal" need evidence: scenarios in which the driver's lists are incomplete or wrong.

use crate::exporter::{Scenario, run_once};

const POD: &str = r#"
[[pod]]
name = "busy"
containers = [{ name = "c", gpus = 0 }]
[[process]]
pid = 70
name = "py"
gpus = [0]
memory = "9 GiB"
sm = 60
pod = "default/busy"
"#;
const MPS: &str = r#"
[[gpu]]
model = "T4"
[[pod]]
name = "client"
count = 2
containers = [{ name = "c", slices = { gpus = 0, replicas = 4, mps = true } }]
[[process]]
pid = 77
name = "client"
gpus = []
count = 2
memory = "0 MiB"
pod = "default/client"
[[fault]]
function = "nvmlDeviceGetMPSComputeRunningProcesses_v3"
code = "NOT_SUPPORTED"
[[process]]
pid = 70
name = "nvidia-cuda-mps-server"
gpus = [0]
memory = "9 GiB"
sm = 60
"#;

/// Lines of the process families, as `NAME pod pid value`, and of the exporter's reasons, as
/// `NAME reason`.
fn lines(scenario: &str) -> Vec<String> {
    let scenario = Scenario::new("evidence", &format!("now = 40\n{scenario}"));
    let metrics = run_once(&[scenario.flag().as_str(), "--node-name", "node-1"]);
    let label = |line: &str, key: &str| {
        let (_, rest) = line.split_once(&format!("{key}=\"")).unwrap_or_default();
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    let families = ["SM_UTIL", "MEM_USED"];
    let is_process = |name: &str| {
        name.contains("PROCESS_") && families.iter().any(|family| name.ends_with(family))
    };
    let mut found: Vec<String> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (name, rest) = line.split_once('{')?;
            let value = rest.rsplit(' ').next()?;
            if is_process(name) {
                let name = name.trim_start_matches("DCGM_CUSTOM_");
                let (pod, pid) = (label(line, "PodName"), label(line, "ProcessId"));
                return Some(format!("{name} {pod} {pid} {value}"));
            }
            let reason = match name {
                "nvml_exporter_withheld_zeros" => label(line, "reason"),
                "nvml_exporter_unlisted_use" => label(line, "use"),
                _ => return None,
            };
            Some(format!("{name} {reason}"))
        })
        .collect();
    found.sort();
    found
}

fn t4(more: &str) -> String {
    format!("[[gpu]]\nmodel = \"T4\"\n{more}\n{POD}")
}

#[test]
fn an_empty_list_of_a_busy_gpu_makes_no_container_idle() {
    let fault = "[[fault]]\nfunction = \"nvmlDeviceGetComputeRunningProcesses_v3\"\nempty = true\n";
    assert_eq!(
        lines(&(t4("") + fault)),
        [
            "nvml_exporter_unlisted_use utilization",
            "nvml_exporter_withheld_zeros unlisted_utilization"
        ]
    );
}

#[test]
fn clients_of_an_mps_server_that_are_not_listed_are_not_idle() {
    assert_eq!(lines(MPS), ["nvml_exporter_withheld_zeros mps_clients"]);
}

#[test]
fn a_process_of_a_pod_with_the_name_of_an_mps_server_is_a_process() {
    let renamed = format!("{MPS}pod = \"default/client-0\"\n");
    assert_eq!(
        lines(&renamed),
        [
            "PROCESS_MEM_USED client-0 70 9216",
            "PROCESS_MEM_USED client-1 0 0",
            "PROCESS_SM_UTIL client-0 70 60",
            "PROCESS_SM_UTIL client-1 0 0",
        ]
    );
}

#[test]
fn a_container_that_works_on_another_gpu_is_illegal_there_and_not_idle_on_its_own() {
    let scenario = t4("count = 2").replace("gpus = 0 }", "gpus = 1 }");
    assert_eq!(
        lines(&scenario),
        [
            "ILLEGAL_PROCESS_MEM_USED busy 70 9216",
            "ILLEGAL_PROCESS_SM_UTIL busy 70 60",
            "nvml_exporter_withheld_zeros other_device",
        ]
    );
}

#[test]
fn a_total_that_is_0_or_too_small_is_absent_and_the_process_stays() {
    for total in ["0 MiB", "4 GiB"] {
        let scenario = t4(&format!("memory_total = \"{total}\""));
        let processes = ["PROCESS_MEM_USED busy 70 9216", "PROCESS_SM_UTIL busy 70 60"];
        assert_eq!(lines(&scenario), processes, "{total}");
        let scenario = Scenario::new("evidence", &format!("now = 40\n{scenario}"));
        let metrics = run_once(&[scenario.flag().as_str(), "--node-name", "node-1"]);
        assert!(!metrics.contains("DCGM_CUSTOM_DEV_FB_TOTAL{"), "{total}");
    }
}

#[test]
fn a_family_is_withheld_if_one_process_of_the_container_has_no_value() {
    let other = "[[process]]\npid = 71\nname = \"py\"\ngpus = [0]\nmemory = \"1 GiB\"\nsm = 10\n\
                 pod = \"default/busy\"\n\
                 [[garbage]]\ngpu = 0\nrows = [{ pid = 70, sm = 2147483632, age = 0.3 }]\n";
    assert_eq!(
        lines(&(t4("") + other)),
        ["PROCESS_MEM_USED busy 70 9216", "PROCESS_MEM_USED busy 71 1024"]
    );
}

#[test]
fn a_process_that_cannot_be_read_leaves_its_container_without_values() {
    let scenario = t4("") + "proc = \"unreadable\"\n";
    assert_eq!(lines(&scenario), ["nvml_exporter_withheld_zeros unresolved_process"]);
}
