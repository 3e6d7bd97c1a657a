//! GPUs that are divided, and divided anew under a running exporter.

use crate::exporter::{Exporter, Scenario, built_in, once, series, value};

const QUICK: [&str; 4] = ["--collect-interval", "200", "--node-name", "node-1"];

fn used(page: &str, instance: u32) -> Option<f64> {
    let labels = ["gpu=\"0\"", &format!("GPU_I_ID=\"{instance}\"")];
    value(page, "DCGM_FI_DEV_FB_USED", &labels)
}

fn held(page: &str, pid: u32) -> Option<f64> {
    value(page, "DCGM_CUSTOM_PROCESS_MEM_USED", &[&format!("ProcessId=\"{pid}\"")])
}

fn of_gpu_0<'a>(page: &'a str, family: &str) -> Vec<&'a str> {
    series(page, family).into_iter().filter(|line| line.contains("gpu=\"0\"")).collect()
}

#[test]
fn a_gpu_that_is_divided_anew_is_told_as_it_is_now() {
    let text = built_in("mig-h100");
    let at = |now: u32| format!("now = {now}\n{text}");
    let scenario = Scenario::new("mig-h100", &at(30));
    let exporter = Exporter::start(&[&[scenario.flag().as_str()], QUICK.as_slice()].concat());
    let page = exporter.wait_for("the first layout", |page| held(page, 4101).is_some());
    assert_eq!(of_gpu_0(&page, "DCGM_FI_DEV_FB_USED").len(), 4);
    assert_eq!((held(&page, 4101), held(&page, 4120)), (Some(12.0 * 1024.0), Some(3.0 * 1024.0)));
    assert!(used(&page, 1).unwrap() >= 12.0 * 1024.0);

    // The id 1 now means another instance, which one process has to itself.
    scenario.rewrite(&at(90));
    let page = exporter.wait_for("the second layout", |page| held(page, 4110).is_some());
    assert_eq!(of_gpu_0(&page, "DCGM_FI_DEV_FB_USED").len(), 2, "{page}");
    assert!(page.contains("GPU_I_PROFILE=\"4g.40gb\",GPU_I_ID=\"1\"") && !page.contains("2g.20gb"));
    assert!(used(&page, 1).unwrap() >= 33.0 * 1024.0);
    assert_eq!((held(&page, 4101), held(&page, 4102)), (None, None), "they are gone");
    assert_eq!(held(&page, 4120), Some(3.0 * 1024.0), "what stayed is what it was");

    // MIG is on, and there is nothing.
    scenario.rewrite(&at(130));
    let page = exporter
        .wait_for("the empty layout", |page| of_gpu_0(page, "DCGM_FI_DEV_FB_USED").is_empty());
    assert_eq!(of_gpu_0(&page, "DCGM_CUSTOM_PROCESS_MEM_USED"), Vec::<&str>::new());
    assert_eq!(of_gpu_0(&page, "DCGM_FI_DEV_POWER_USAGE").len(), 1, "the GPU itself is well");
    assert_eq!(value(&page, "nvml_exporter_gpu_up", &["gpu=\"0\""]), Some(1.0));

    // MIG is off: the GPU is one again, and has figures that only whole ones have.
    scenario.rewrite("now = 140\n[[gpu]]\nmodel = \"H100\"\ncount = 2\n");
    let page = exporter.wait_for("the whole GPU", |page| {
        value(page, "DCGM_FI_DEV_GPU_UTIL", &["gpu=\"0\""]) == Some(0.0)
    });
    let whole = of_gpu_0(&page, "DCGM_FI_DEV_FB_USED");
    assert!(whole.len() == 1 && !whole[0].contains("GPU_I_ID"), "{whole:?}");
}

#[test]
fn parent_and_instances_never_stand_in_one_sum() {
    for (name, now) in [("mig-a100", 30), ("mig-h100", 30), ("mig-h100", 90), ("huge", 30)] {
        let scenario = Scenario::held(name, now);
        let page = once(&[&scenario.flag(), "--node-name", "node-1"]);
        for family in ["DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_CUSTOM_DEV_FB_TOTAL"] {
            for gpu in 0..16 {
                let of_gpu: Vec<&str> = series(&page, family)
                    .into_iter()
                    .filter(|line| line.contains(&format!("gpu=\"{gpu}\"")))
                    .collect();
                let whole = of_gpu.iter().filter(|line| !line.contains("GPU_I_ID")).count();
                assert!(whole == 0 || of_gpu.len() == 1, "{name}: {of_gpu:?}");
            }
        }
        // There is no such figure of a MIG device, and 0 would be one.
        for line in series(&page, "DCGM_CUSTOM_PROCESS_SM_UTIL") {
            assert!(!line.contains("GPU_I_ID"), "{name}: {line}");
        }
    }
}

#[test]
fn sixteen_divided_gpus_with_a_thousand_processes_are_told_whole() {
    let page = once(&["--mock=huge", "--node-name", "node-1"]);
    assert_eq!(series(&page, "DCGM_FI_DEV_FB_USED").len(), 16 * 7);
    assert_eq!(series(&page, "DCGM_CUSTOM_PROCESS_MEM_USED").len(), 1000);
    assert_eq!(series(&page, "DCGM_FI_DEV_POWER_USAGE").len(), 16);
}

#[test]
fn a_mig_device_that_fails_hides_no_other() {
    let fault =
        "[[fault]]\nfunction = \"nvmlDeviceGetGpuInstanceId\"\ncode = \"UNKNOWN\"\ngpu = 0\n";
    let text = format!("now = 30\n{}{fault}", built_in("mig-h100"));
    let scenario = Scenario::new("mig-h100", &text);
    let page = once(&[&scenario.flag(), "--node-name", "node-1"]);
    assert_eq!(of_gpu_0(&page, "DCGM_FI_DEV_FB_USED"), Vec::<&str>::new(), "none can be named");
    let failed = ["gpu=\"0\"", "reason=\"failed\""];
    assert!(value(&page, "nvml_exporter_gpu_missing_readings", &failed).is_some_and(|n| n > 0.0));
    assert_eq!(series(&page, "DCGM_FI_DEV_FB_USED").len(), 2, "the other GPU's are there");
}
