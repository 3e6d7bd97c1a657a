//! One golden of the whole page per scenario. The diff is the review.

use crate::exporter::{Scenario, once};

fn page(scenario: &str, now: u32, flags: &[&str]) -> String {
    let scenario = Scenario::held(scenario, now);
    let mock = scenario.flag();
    let fixed = ["--node-name", "node-1", "--hostname", "host-1", "--max-age", "5000"];
    once(&[&[mock.as_str()], fixed.as_slice(), flags].concat())
}

/// What changes from run to run is masked; nothing else is.
fn check(name: &str, page: &str) {
    insta::with_settings!({
        filters => vec![
            (r"(_timestamp_seconds(?:\{[^}]*\})?) [0-9.e+]+", "$1 <time>"),
            (r"(_duration_seconds(?:\{[^}]*\})?) [0-9.e+-]+", "$1 <duration>"),
            (r"(nvml_exporter_discarded_rows_total\{[^}]*\}) [0-9]+", "$1 <rows>"),
            // On a busy machine the mock's kubelet may stand up after the first question to it.
            (concat!(
                r"# HELP nvml_exporter_source_failures_total .*\n# TYPE .*\n",
                r"nvml_exporter_source_failures_total\{source=.pod_resources.,reason=.absent.\} 1\n"
            ), ""),
            (r"nvml_exporter_cycles_total [0-9]+", "nvml_exporter_cycles_total <cycles>"),
            (r#"version="[0-9]+\.[0-9]+\.[0-9]+"\} 1"#, r#"version="<version>"} 1"#),
            (r#"library="[^"]*/libnvidia-ml.so.1""#, r#"library="<stage>/libnvidia-ml.so.1""#),
        ],
        prepend_module_to_snapshot => false,
    }, {
        insta::assert_snapshot!(name, page);
    });
}

#[test]
fn demo() {
    check("demo", &page("demo", 60, &[]));
}

#[test]
fn demo_for_dcgm_exporters_users() {
    check("demo-dcgm-exporter", &page("demo", 60, &["--dialect", "dcgm-exporter"]));
}

#[test]
fn idle_t4() {
    check("idle-t4", &page("idle-t4", 60, &["--extra-label", "NodePoolId=np-1"]));
}

#[test]
fn shared_l20() {
    check("shared-l20", &page("shared-l20", 60, &[]));
}

#[test]
fn consumer_4090() {
    check("consumer-4090", &page("consumer-4090", 60, &[]));
}

#[test]
fn old_driver() {
    check("old-driver", &page("old-driver", 60, &[]));
}

#[test]
fn blackwell() {
    check("blackwell", &page("blackwell", 60, &[]));
}

#[test]
fn bert_hpa() {
    check("bert-hpa", &page("bert-hpa", 90, &[]));
}

#[test]
fn abi_535() {
    check("abi-535", &page("abi-535", 60, &[]));
}

#[test]
fn mig_a100() {
    check("mig-a100", &page("mig-a100", 60, &[]));
}

#[test]
fn mig_h100() {
    check("mig-h100", &page("mig-h100", 30, &[]));
}

#[test]
fn mig_h100_for_dcgm_exporters_users() {
    let flags = ["--dialect", "dcgm-exporter"];
    check("mig-h100-dcgm-exporter", &page("mig-h100", 30, &flags));
}

#[test]
fn faulty() {
    check("faulty", &page("faulty", 60, &[]));
}
