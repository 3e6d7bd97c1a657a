//! A sampling thread that a file system call stops: this fails the liveness probe, and a driver that hangs does
//! not.

use std::time::Duration;

use nvml_exporter::policy;

use crate::exporter::{Exporter, Scenario, value};
use crate::hanging_path::HangingPath;

/// The PID namespace, which the sampling thread reads in each cycle.
const READ_IN_EACH_CYCLE: &str = "/self/ns/pid";
const INTERVAL: Duration = Duration::from_millis(200);
const FLAGS: [&str; 2] = ["--collect-interval=200", "--max-age=1000"];

fn start(hanging: &HangingPath) -> Exporter {
    let exporter = hanging.start(&[&FLAGS[..], &["--mock=idle-t4"]].concat());
    exporter.wait_for("a GPU", |metrics| metrics.contains("DCGM_FI_DEV_GPU_TEMP{"));
    exporter
}

fn wait_until_stopped(exporter: &Exporter) {
    let is_stopped = |text: &str| text.contains("not ready: the newest sample is");
    exporter.wait_for_at("/readyz", "an old sample", is_stopped);
}

#[test]
fn stopped_sampling_thread_fails_liveness_and_a_driver_that_hangs_does_not() {
    let scenario = Scenario::new(
        "hang",
        "[[gpu]]\nmodel = \"T4\"\n[[fault]]\nfunction = \"*\"\ngpu = 0\nhang = true\nfrom = 3.0\n",
    );
    let driver = Exporter::start(&[&FLAGS[..], &[&scenario.flag()]].concat());
    let hanging = HangingPath::new(READ_IN_EACH_CYCLE);
    let exporter = start(&hanging);
    assert_eq!(exporter.get("/healthz").status, 200);
    hanging.hang();
    wait_until_stopped(&exporter);
    assert_eq!(exporter.get("/healthz").status, 200, "an overloaded node is no reason to restart");
    let metrics = exporter.metrics();
    assert!(!metrics.contains("DCGM_FI_DEV_GPU_TEMP{"), "the readings are too old:\n{metrics}");
    let stuck = exporter.wait_for_status("/healthz", 503, policy::liveness_max_age(INTERVAL));
    assert!(stuck.contains("the sampling thread has not responded for"), "{stuck}");
    assert_eq!((exporter.get("/metrics").status, exporter.get("/").status), (200, 200));
    // Its GPU has not responded for longer than that.
    let metrics = driver.metrics();
    assert_eq!(value(&metrics, "nvml_exporter_gpu_up", &["gpu=\"0\""]), Some(0.0), "{metrics}");
    assert_eq!(driver.get("/healthz").status, 200);
    hanging.respond();
    exporter.wait_for_status("/healthz", 200, INTERVAL);
    exporter.wait_for("the GPU", |metrics| metrics.contains("DCGM_FI_DEV_GPU_TEMP{"));
}

#[test]
fn sigterm_ends_the_process_while_the_sampling_thread_is_stopped() {
    let hanging = HangingPath::new(READ_IN_EACH_CYCLE);
    let exporter = start(&hanging);
    hanging.hang();
    wait_until_stopped(&exporter);
    let (status, log) = exporter.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
}
