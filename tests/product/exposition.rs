//! One golden of the whole page per scenario. The diff is the review.

use nvml_exporter::catalog::{ACCOUNT, Kind};

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

/// A board of each kind, with all that can happen to one.
const EVERYTHING: &str = r#"
now = 60
[driver]
version = "570.124.06"
[[gpu]]
model = "T4"
retired = { sbe = 1, dbe = 2, pending = true }
ecc = { sbe_volatile = 5, dbe_volatile = 1, sbe_aggregate = 9, dbe_aggregate = 2 }
[[gpu]]
model = "A100"
remapped = { correctable = 3, uncorrectable = 1, pending = true }
nvlink = { link = 3, crc_flit = 2, crc_data = 3, replay = 4, recovery = 5 }
[[gpu]]
model = "H100"
[[gpu]]
model = "B200"
nvlink = { link = 1, replay = 4, recovery = 5 }
[[gpu]]
model = "RTX 4090"
[[process]]
pid = 2101
name = "python"
gpus = [0, 1, 2, 3, 4]
sm = 60
mem = 30
dec = 10
memory = "4 GiB"
nvlink = 2000
pcie_tx = 300
pcie_rx = 200
"#;

/// Every row that there is, asked for by name.
#[test]
fn everything() {
    let scenario = Scenario::new("everything", EVERYTHING);
    let directory = tempfile::tempdir().unwrap();
    let counters = directory.path().join("all.csv");
    let row = |row: nvml_exporter::catalog::Row| match (row.is_text, row.kind) {
        (true, _) => format!("{},label,\n", row.name),
        (false, Kind::Gauge) => format!("{},gauge,\n", row.name),
        (false, Kind::Counter) => format!("{},counter,\n", row.name),
    };
    // What is reckoned up over time depends on when this runs.
    let is_account = |name| ACCOUNT.iter().any(|account| account.name == name);
    let rows = nvml_exporter::catalog::rows().filter(|row| !is_account(row.name));
    let all: String = rows.map(row).collect();
    std::fs::write(&counters, all).unwrap();
    let (mock, file) = (scenario.flag(), format!("-f={}", counters.display()));
    let dialect = ["--dialect", "dcgm-exporter", "--hostname", "host-1", "--max-age", "5000"];
    check("everything", &once(&[&[mock.as_str(), &file], dialect.as_slice()].concat()));
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
fn hami() {
    check("hami", &page("hami", 60, &[]));
}

#[test]
fn dra() {
    check("dra", &page("dra", 60, &[]));
}

#[test]
fn dra_for_dcgm_exporters_users() {
    let flags = ["--dialect", "dcgm-exporter", "-k", "--kubernetes-enable-dra"];
    check("dra-dcgm-exporter", &page("dra", 60, &flags));
}

#[test]
fn faulty() {
    check("faulty", &page("faulty", 60, &[]));
}
