//! MIG: partitioned GPUs, and MIG reconfiguration under a running exporter.

use crate::exporter::{Exporter, Scenario, built_in_scenario, run_once, series, value};

const FLAGS: [&str; 4] = ["--collect-interval", "200", "--node-name", "node-1"];

fn used_by_instance(metrics: &str, instance: u32) -> Option<f64> {
    let labels = ["gpu=\"0\"", &format!("GPU_I_ID=\"{instance}\"")];
    value(metrics, "DCGM_FI_DEV_FB_USED", &labels)
}

fn process_memory(metrics: &str, pid: u32) -> Option<f64> {
    value(metrics, "DCGM_CUSTOM_PROCESS_MEM_USED", &[&format!("ProcessId=\"{pid}\"")])
}

fn of_gpu_0<'a>(metrics: &'a str, family: &str) -> Vec<&'a str> {
    series(metrics, family).into_iter().filter(|line| line.contains("gpu=\"0\"")).collect()
}

#[test]
fn reconfigured_mig_gpu_exports_the_current_layout() {
    let text = built_in_scenario("mig-h100");
    let at = |now: u32| format!("now = {now}\n{text}");
    let scenario = Scenario::new("mig-h100", &at(30));
    let exporter = Exporter::start(&[&[scenario.flag().as_str()], FLAGS.as_slice()].concat());
    let metrics =
        exporter.wait_for("the first layout", |metrics| process_memory(metrics, 4101).is_some());
    assert_eq!(of_gpu_0(&metrics, "DCGM_FI_DEV_FB_USED").len(), 4);
    assert_eq!(
        (process_memory(&metrics, 4101), process_memory(&metrics, 4120)),
        (Some(12.0 * 1024.0), Some(3.0 * 1024.0))
    );
    assert!(used_by_instance(&metrics, 1).unwrap() >= 12.0 * 1024.0);

    // ID 1 is a different instance now, with one process.
    scenario.rewrite(&at(90));
    let metrics =
        exporter.wait_for("the second layout", |metrics| process_memory(metrics, 4110).is_some());
    assert_eq!(of_gpu_0(&metrics, "DCGM_FI_DEV_FB_USED").len(), 2, "{metrics}");
    assert!(
        metrics.contains("GPU_I_PROFILE=\"4g.40gb\",GPU_I_ID=\"1\"")
            && !metrics.contains("2g.20gb")
    );
    assert!(used_by_instance(&metrics, 1).unwrap() >= 33.0 * 1024.0);
    assert_eq!(
        (process_memory(&metrics, 4101), process_memory(&metrics, 4102)),
        (None, None),
        "the processes have ended"
    );
    assert_eq!(
        process_memory(&metrics, 4120),
        Some(3.0 * 1024.0),
        "the process of the other GPU is unchanged"
    );

    // MIG is enabled without instances.
    scenario.rewrite(&at(130));
    let metrics = exporter.wait_for("the empty layout", |metrics| {
        of_gpu_0(metrics, "DCGM_FI_DEV_FB_USED").is_empty()
    });
    assert_eq!(of_gpu_0(&metrics, "DCGM_CUSTOM_PROCESS_MEM_USED"), Vec::<&str>::new());
    assert_eq!(
        of_gpu_0(&metrics, "DCGM_FI_DEV_POWER_USAGE").len(),
        1,
        "the GPU itself is still read"
    );
    assert_eq!(value(&metrics, "nvml_exporter_gpu_up", &["gpu=\"0\""]), Some(1.0));

    // MIG is disabled: the GPU has metrics that exist only for whole GPUs.
    scenario.rewrite("now = 140\n[[gpu]]\nmodel = \"H100\"\ncount = 2\n");
    let metrics = exporter.wait_for("the whole GPU", |metrics| {
        value(metrics, "DCGM_FI_DEV_GPU_UTIL", &["gpu=\"0\""]) == Some(0.0)
    });
    let whole = of_gpu_0(&metrics, "DCGM_FI_DEV_FB_USED");
    assert!(whole.len() == 1 && !whole[0].contains("GPU_I_ID"), "{whole:?}");
}

#[test]
fn gpu_and_its_instances_are_never_in_the_same_family() {
    for (name, now) in [("mig-a100", 30), ("mig-h100", 30), ("mig-h100", 90), ("huge", 30)] {
        let scenario = Scenario::built_in_at(name, now);
        let metrics = run_once(&[&scenario.flag(), "--node-name", "node-1"]);
        for family in ["DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_CUSTOM_DEV_FB_TOTAL"] {
            for gpu in 0..16 {
                let of_gpu: Vec<&str> = series(&metrics, family)
                    .into_iter()
                    .filter(|line| line.contains(&format!("gpu=\"{gpu}\"")))
                    .collect();
                let whole = of_gpu.iter().filter(|line| !line.contains("GPU_I_ID")).count();
                assert!(whole == 0 || of_gpu.len() == 1, "{name}: {of_gpu:?}");
            }
        }
        // MIG devices have no process utilization: absent, not 0.
        for line in series(&metrics, "DCGM_CUSTOM_PROCESS_SM_UTIL") {
            assert!(!line.contains("GPU_I_ID"), "{name}: {line}");
        }
    }
}

#[test]
fn sixteen_partitioned_gpus_with_a_thousand_processes_are_complete() {
    let metrics = run_once(&["--mock=huge", "--node-name", "node-1"]);
    assert_eq!(series(&metrics, "DCGM_FI_DEV_FB_USED").len(), 16 * 7);
    assert_eq!(series(&metrics, "DCGM_CUSTOM_PROCESS_MEM_USED").len(), 1000);
    assert_eq!(series(&metrics, "DCGM_FI_DEV_POWER_USAGE").len(), 16);
}

#[test]
fn failed_mig_enumeration_does_not_affect_other_gpus() {
    let fault =
        "[[fault]]\nfunction = \"nvmlDeviceGetGpuInstanceId\"\ncode = \"UNKNOWN\"\ngpu = 0\n";
    let text = format!("now = 30\n{}{fault}", built_in_scenario("mig-h100"));
    let scenario = Scenario::new("mig-h100", &text);
    let metrics = run_once(&[&scenario.flag(), "--node-name", "node-1"]);
    assert_eq!(
        of_gpu_0(&metrics, "DCGM_FI_DEV_FB_USED"),
        Vec::<&str>::new(),
        "no MIG device can be identified"
    );
    let failed = ["gpu=\"0\"", "reason=\"failed\""];
    assert!(
        value(&metrics, "nvml_exporter_gpu_missing_readings", &failed).is_some_and(|n| n > 0.0)
    );
    assert_eq!(
        series(&metrics, "DCGM_FI_DEV_FB_USED").len(),
        2,
        "the MIG devices of the other GPU are present"
    );
}

#[test]
fn mig_device_with_the_uuid_of_a_former_one_has_its_own_labels_and_total() {
    const UUID: &str = "MIG-5d7e3c70-0f1b-4c8e-9a51-2b7d6c1f0a01";
    let layout = |bounds: &str, profile: &str| {
        format!("{{ {bounds}, instances = [{{ profile = \"{profile}\", uuid = \"{UUID}\" }}] }}")
    };
    let (first, second) = (layout("to = 60", "1g.10gb"), layout("from = 60", "2g.20gb"));
    let at = |now: u32| {
        format!("now = {now}\n[[gpu]]\nmodel = \"H100\"\nmig = [\n{first},\n{second},\n]\n")
    };
    let scenario = Scenario::new("mig-uuid", &at(30));
    let exporter = Exporter::start(&[&[scenario.flag().as_str()], FLAGS.as_slice()].concat());
    let total = |metrics: &str, profile: &str| {
        let labels = [&*format!("GPU_I_PROFILE=\"{profile}\"")];
        value(metrics, "DCGM_CUSTOM_DEV_FB_TOTAL", &labels)
    };
    let metrics =
        exporter.wait_for("the first device", |metrics| total(metrics, "1g.10gb").is_some());
    let small = total(&metrics, "1g.10gb").unwrap();
    scenario.rewrite(&at(90));
    let metrics = exporter.wait_for("the second device", |metrics| {
        // Meanwhile its total is not published under the labels of the first one.
        assert!(total(metrics, "1g.10gb").is_none_or(|mib| mib <= small), "{metrics}");
        total(metrics, "2g.20gb").is_some()
    });
    assert!(total(&metrics, "2g.20gb").unwrap() > 1.5 * small);
}
