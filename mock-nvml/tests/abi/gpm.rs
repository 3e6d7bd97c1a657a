//! GPU performance monitoring (GPM).

use std::{ffi::c_uint, ptr};

use nvml_wrapper::{
    Device, GpmSample, Nvml, enums::gpm::GpmMetricId, error::NvmlError, gpm::gpm_metrics_get,
};
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlGpmMetricsGet_t, nvmlGpmSample_t};

use crate::{MockEnv, error, eventually, process};

/// The values of metrics between two samples, or the name of the error of each.
fn values<'a>(
    nvml: &'a Nvml,
    samples: (&GpmSample<'a>, &GpmSample<'a>),
    ids: &[GpmMetricId],
) -> Result<Vec<Result<f64, String>>, NvmlError> {
    let found = gpm_metrics_get(nvml, samples.0, samples.1, ids)?;
    Ok(found
        .into_iter()
        .map(|one| one.map(|metric| metric.value).map_err(|error| format!("{error:?}")))
        .collect())
}

fn is_close(found: &Result<f64, String>, expected: f64) -> bool {
    found.as_ref().is_ok_and(|value| (value - expected).abs() < 1e-6 * expected.max(1.0))
}

const SM: [GpmMetricId; 1] = [GpmMetricId::SmUtil];

#[test]
fn metrics_are_the_activity_of_the_processes() {
    let text = "now = 5.0\n[[gpu]]\nmodel = \"H100\"\n".to_owned()
        + &process(
            7,
            0,
            "sm = 60\nmem = 30\nnvlink = 1800\npcie_tx = 50\npcie_rx = 70\n\
             pipes = { tensor = 0.5, occupancy = 0.25, fp64 = 0.1, fp32 = 0.2, fp16 = 0.3, integer = 0.4 }",
        )
        + &process(
            8,
            0,
            "sm = 20\npipes = { tensor = 1.0, occupancy = 1.0, fp64 = 0.0, fp32 = 0.0, fp16 = 0.0, integer = 0.0 }",
        );
    let env = MockEnv::with_scenario(&text);
    let nvml = env.nvml();
    let device = nvml.device_by_index(0).unwrap();
    assert!(device.gpm_support().unwrap());
    let samples = (device.gpm_sample().unwrap(), device.gpm_sample().unwrap());
    let ids = [
        (GpmMetricId::GraphicsUtil, 80.0),
        (GpmMetricId::SmUtil, 80.0),
        (GpmMetricId::SmOccupancy, 35.0),
        (GpmMetricId::IntegerUtil, 24.0),
        (GpmMetricId::AnyTensorUtil, 50.0),
        (GpmMetricId::DfmaTensorUtil, 0.0),
        (GpmMetricId::HmmaTensorUtil, 50.0),
        (GpmMetricId::ImmaTensorUtil, 0.0),
        (GpmMetricId::DramBwUtil, 30.0),
        (GpmMetricId::Fp64Util, 6.0),
        (GpmMetricId::Fp32Util, 12.0),
        (GpmMetricId::Fp16Util, 18.0),
        (GpmMetricId::PcieTxPerSec, 50.0),
        (GpmMetricId::PcieRxPerSec, 70.0),
        (GpmMetricId::NvlinkTotalRxPerSec, 1_800.0),
        (GpmMetricId::NvlinkTotalTxPerSec, 1_800.0),
        (GpmMetricId::NvlinkL0RxPerSec, 100.0),
        (GpmMetricId::NvlinkL17TxPerSec, 100.0),
    ];
    let found = values(&nvml, (&samples.0, &samples.1), &ids.map(|(id, _)| id)).unwrap();
    for ((id, expected), found) in ids.iter().zip(&found) {
        assert!(is_close(found, *expected), "{id:?} is {found:?}, not {expected}");
    }
    // The interval from a sample to itself is empty.
    let empty = values(&nvml, (&samples.0, &samples.0), &SM).unwrap();
    assert!(empty[0].as_ref().unwrap().is_nan());
    assert_eq!(error(values(&nvml, (&samples.1, &samples.0), &SM)), "InvalidArg");
}

#[test]
fn metric_is_the_mean_between_two_samples() {
    let at = |time: u32| {
        format!("now = {time}\n[[gpu]]\nmodel = \"H100\"\n")
            + &process(7, 0, "sm = { points = [[0, 0], [100, 100]] }")
    };
    let env = MockEnv::with_scenario(&at(10));
    let nvml = env.nvml();
    let device = nvml.device_by_index(0).unwrap();
    let first = device.gpm_sample().unwrap();
    env.write_scenario(&at(30));
    eventually("world time is 30", || device.utilization_rates().unwrap().gpu == 30);
    let second = device.gpm_sample().unwrap();
    let found = values(&nvml, (&first, &second), &SM).unwrap();
    assert!(is_close(&found[0], 20.0), "{found:?}");
}

/// The built-in scenario at a fixed world time.
fn h100_at(time: f64) -> String {
    format!("now = {time}\n{}", include_str!("../../scenarios/mig-h100.toml"))
}

#[test]
fn instance_has_its_own_metrics_and_its_samples_end_with_it() {
    let env = MockEnv::with_scenario(&h100_at(50.0));
    let nvml = env.nvml();
    let parent = nvml.device_by_index(0).unwrap();
    let two = |gi: u32| (parent.gpm_mig_sample(gi).unwrap(), parent.gpm_mig_sample(gi).unwrap());
    let (second, whole) = (two(2), (parent.gpm_sample().unwrap(), parent.gpm_sample().unwrap()));
    let ids = [GpmMetricId::SmUtil, GpmMetricId::DramBwUtil, GpmMetricId::PcieTxPerSec];
    let found = values(&nvml, (&second.0, &second.1), &ids).unwrap();
    assert!(is_close(&found[0], 45.0) && is_close(&found[1], 20.0), "{found:?}");
    assert_eq!(found[2].clone().unwrap_err(), "NotSupported");
    let of = |gi: u32| {
        let samples = two(gi);
        values(&nvml, (&samples.0, &samples.1), &SM).unwrap().remove(0).unwrap()
    };
    assert!(of(3).abs() < 1e-9);
    let parts = (2.0 * (of(1) + of(2) + of(3)) + of(4)) / 7.0;
    let found = values(&nvml, (&whole.0, &whole.1), &ids).unwrap();
    assert!(is_close(&found[0], parts), "{found:?} is not {parts}");
    assert_eq!(error(parent.gpm_mig_sample(9)), "InvalidArg");
    assert_eq!(error(values(&nvml, (&second.0, &whole.1), &SM)), "InvalidArg");

    let (gone, stays) = (parent.gpm_mig_sample(1).unwrap(), parent.gpm_mig_sample(4).unwrap());
    env.write_scenario(&h100_at(70.0));
    eventually("instance 2 is gone", || parent.gpm_mig_sample(2).is_err());
    // The id is reused by another instance.
    let new = parent.gpm_mig_sample(1).unwrap();
    assert_eq!(error(values(&nvml, (&gone, &new), &SM)), "InvalidArg");
    assert_eq!(error(values(&nvml, (&second.0, &second.1), &SM)), "InvalidArg");
    let still = parent.gpm_mig_sample(4).unwrap();
    let found = values(&nvml, (&stays, &still), &SM).unwrap();
    assert!(is_close(&found[0], 25.0), "{found:?}");
}

#[test]
fn older_boards_and_mig_devices_do_not_support_gpm() {
    let env = MockEnv::built_in("mig-a100");
    let nvml = env.nvml();
    let parent = nvml.device_by_index(0).unwrap();
    assert!(!parent.gpm_support().unwrap());
    assert_eq!(error(parent.gpm_sample()), "NotSupported");
    assert_eq!(error(parent.gpm_mig_sample(1)), "NotSupported");
    let hopper = MockEnv::with_scenario(&h100_at(5.0));
    let nvml = hopper.nvml();
    let device: Device = nvml.device_by_index(0).unwrap();
    let mig_device = device.mig_device_by_index(0).unwrap();
    assert_eq!(error(mig_device.gpm_sample()), "NotSupported");
    let old = "[driver]\nversion = \"515.65.01\"\n[[gpu]]\nmodel = \"H100\"\n";
    let env = MockEnv::with_scenario(old);
    let nvml = env.nvml();
    let result = nvml.device_by_index(0).unwrap().gpm_support();
    assert!(matches!(result, Err(NvmlError::FailedToLoadSymbol(_))));
}

#[test]
fn request_is_read_up_to_its_count_and_samples_end_with_their_session() {
    let env = MockEnv::with_scenario("now = 5.0\n[[gpu]]\nmodel = \"H100\"\n");
    let lib = env.raw();
    let nvml = env.nvml();
    // SAFETY: the handle is used while NVML is initialised.
    let device = unsafe { nvml.device_by_index(0).unwrap().handle() };
    let alloc = || {
        let mut sample: nvmlGpmSample_t = ptr::null_mut();
        assert_eq!(raw!(lib, b"nvmlGpmSampleAlloc"(*mut nvmlGpmSample_t = &raw mut sample)), 0);
        sample
    };
    let take =
        |sample| raw!(lib, b"nvmlGpmSampleGet"(nvmlDevice_t = device, nvmlGpmSample_t = sample));
    let free = |sample| raw!(lib, b"nvmlGpmSampleFree"(nvmlGpmSample_t = sample));
    let request_metric = |version: c_uint, count: c_uint, first, second, id: c_uint| {
        // SAFETY: the struct consists of numbers and addresses.
        let mut request: nvmlGpmMetricsGet_t = unsafe { std::mem::zeroed() };
        (request.version, request.numMetrics) = (version, count);
        (request.sample1, request.sample2) = (first, second);
        request.metrics[0].metricId = id;
        request.metrics[1].nvmlReturn = 77;
        let code = raw!(lib, b"nvmlGpmMetricsGet"(*mut nvmlGpmMetricsGet_t = &raw mut request));
        assert_eq!(request.metrics[1].nvmlReturn, 77);
        (code, request.metrics[0].nvmlReturn)
    };
    let (first, second) = (alloc(), alloc());
    assert_eq!(request_metric(1, 1, first, second, 2), (2, 0), "the samples are not taken yet");
    assert_eq!((take(first), take(second)), (0, 0));
    assert_eq!(request_metric(1, 1, first, second, 2), (0, 0));
    assert_eq!(
        (request_metric(2, 1, first, second, 2).0, request_metric(1, 0, first, second, 2).0),
        (25, 2)
    );
    assert_eq!(request_metric(1, 211, first, second, 2).0, 2);
    let codes = [0, 8, 51, 477].map(|id| request_metric(1, 1, first, second, id));
    assert_eq!(codes, [(0, 2), (0, 3), (0, 3), (0, 2)]);
    assert_eq!((free(first), free(first), take(first)), (0, 2, 2));
    drop(nvml);
    assert_eq!(free(second), 1);
    let reopened = env.nvml();
    assert!(reopened.device_count().is_ok());
    assert_eq!((free(second), take(second)), (2, 2));
}
