//! What boards tell of their own health and surroundings: spare rows, SRAM, the fabric, licences.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    nvmlEccSramErrorStatus_v1_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t,
    nvmlGpuInstanceProfileInfo_t, nvmlGridLicensableFeatures_t, nvmlRowRemapperHistogramValues_t,
};

use super::{Handle, check, symbol};
use crate::model::Missing;

/// `NVML_GRID_LICENSE_FEATURE_CODE_VGPU`.
const VGPU: u32 = 1;
/// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH`.
const VERSION_MISMATCH: u32 = 25;
/// `NVML_ERROR_CORRUPTED_INFOROM`.
const CORRUPTED_INFOROM: u32 = 14;
/// Profiles of GPU instances that any driver numbers.
const PROFILES: u32 = 16;

/// Banks by the rows that they have left to replace broken ones with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpareRows {
    /// All.
    pub max: u32,
    /// Most.
    pub high: u32,
    /// Some.
    pub partial: u32,
    /// Few.
    pub low: u32,
    /// None.
    pub none: u32,
}

/// What a GPU knows of the `NVLink` fabric that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fabric {
    /// `nvmlGpuFabricState_t`: 1 not started, 2 in progress, 3 completed.
    pub state: u32,
    /// `NVML_GPU_FABRIC_HEALTH_MASK_*`.
    pub health_mask: u32,
    /// `NVML_GPU_FABRIC_HEALTH_SUMMARY_*`; drivers before 570 do not tell.
    pub health_summary: Option<u32>,
}

/// `nvmlDeviceGetRowRemapperHistogram`: Ampere and later.
///
/// # Errors
/// What the driver answered.
pub fn spare_rows(nvml: &Nvml, gpu: Handle) -> Result<SpareRows, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetRowRemapperHistogram)?;
    let mut rows =
        nvmlRowRemapperHistogramValues_t { max: 0, high: 0, partial: 0, low: 0, none: 0 };
    // SAFETY: `rows` is a live struct of the type that the symbol's signature names.
    check(unsafe { call(gpu.0, &raw mut rows) })?;
    let nvmlRowRemapperHistogramValues_t { max, high, partial, low, none } = rows;
    Ok(SpareRows { max, high, partial, low, none })
}

/// Whether the errors in a GPU's SRAM are above the threshold (`nvmlDeviceGetSramEccErrorStatus`).
///
/// # Errors
/// What the driver answered.
pub fn sram_exceeded(nvml: &Nvml, gpu: Handle) -> Result<bool, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetSramEccErrorStatus)?;
    let mut status = nvmlEccSramErrorStatus_v1_t {
        version: version::<nvmlEccSramErrorStatus_v1_t>(1),
        aggregateUncParity: 0,
        aggregateUncSecDed: 0,
        aggregateCor: 0,
        volatileUncParity: 0,
        volatileUncSecDed: 0,
        volatileCor: 0,
        aggregateUncBucketL2: 0,
        aggregateUncBucketSm: 0,
        aggregateUncBucketPcie: 0,
        aggregateUncBucketMcu: 0,
        aggregateUncBucketOther: 0,
        bThresholdExceeded: 0,
    };
    // SAFETY: `status` is a live struct whose version field tells its size.
    check(unsafe { call(gpu.0, &raw mut status) })?;
    Ok(status.bThresholdExceeded != 0)
}

/// Whether the board's own record of itself is sound (`nvmlDeviceValidateInforom`). It is read from the
/// board, which takes its time.
///
/// # Errors
/// What the driver answered; boards without such a record are unsupported.
pub fn inforom_valid(nvml: &Nvml, gpu: Handle) -> Result<bool, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceValidateInforom)?;
    // SAFETY: the call writes nothing.
    match check(unsafe { call(gpu.0) }) {
        Ok(()) => Ok(true),
        Err(Missing::Failed(CORRUPTED_INFOROM)) => Ok(false),
        Err(missing) => Err(missing),
    }
}

/// What a GPU knows of its fabric (`nvmlDeviceGetGpuFabricInfoV`): boards behind switches.
///
/// # Errors
/// What the driver answered; unsupported where the board is in no fabric.
pub fn fabric(nvml: &Nvml, gpu: Handle) -> Result<Fabric, Missing> {
    let fabric = match fabric_v3(nvml, gpu) {
        Err(Missing::Failed(VERSION_MISMATCH)) => fabric_v2(nvml, gpu)?,
        answer => answer?,
    };
    if fabric.state == 0 { Err(Missing::Unsupported) } else { Ok(fabric) }
}

fn fabric_v3(nvml: &Nvml, gpu: Handle) -> Result<Fabric, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetGpuFabricInfoV)?;
    let mut info = nvmlGpuFabricInfo_v3_t {
        version: version::<nvmlGpuFabricInfo_v3_t>(3),
        clusterUuid: [0; 16],
        status: 0,
        cliqueId: 0,
        state: 0,
        healthMask: 0,
        healthSummary: 0,
    };
    // SAFETY: `info` is a live struct whose version field tells its size.
    check(unsafe { call(gpu.0, &raw mut info) })?;
    let health_summary = Some(u32::from(info.healthSummary));
    Ok(Fabric { state: u32::from(info.state), health_mask: info.healthMask, health_summary })
}

fn fabric_v2(nvml: &Nvml, gpu: Handle) -> Result<Fabric, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetGpuFabricInfoV)?;
    let mut info = nvmlGpuFabricInfo_v2_t {
        version: version::<nvmlGpuFabricInfo_v2_t>(2),
        clusterUuid: [0; 16],
        status: 0,
        cliqueId: 0,
        state: 0,
        healthMask: 0,
    };
    // SAFETY: `info` is a live struct whose version field tells its size, and which the call knows by
    // it whatever its signature says.
    check(unsafe { call(gpu.0, (&raw mut info).cast()) })?;
    let state = u32::from(info.state);
    Ok(Fabric { state, health_mask: info.healthMask, health_summary: None })
}

/// Whether a licence for virtual GPUs is in force (`nvmlDeviceGetGridLicensableFeatures_v4`); not
/// so where none is needed.
///
/// # Errors
/// What the driver answered.
pub fn vgpu_licensed(nvml: &Nvml, gpu: Handle) -> Result<bool, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetGridLicensableFeatures_v4)?;
    let mut told = std::mem::MaybeUninit::<nvmlGridLicensableFeatures_t>::zeroed();
    // SAFETY: `told` has room for the struct that the symbol's signature names.
    check(unsafe { call(gpu.0, told.as_mut_ptr()) })?;
    // SAFETY: the struct is made of integers, for which zeroes are values, and possibly written to.
    let told = unsafe { told.assume_init() };
    let count = usize::try_from(told.licensableFeaturesCount).unwrap_or_default();
    let features = told.gridLicensableFeatures.iter().take(count);
    let vgpu = features.filter(|feature| feature.featureCode == VGPU);
    Ok(told.isGridLicenseSupported != 0 && vgpu.into_iter().any(|f| f.featureState > 0))
}

/// The most slices that a GPU instance can have (`nvmlDeviceGetGpuInstanceProfileInfo`).
///
/// # Errors
/// Unsupported where the GPU has no profile.
pub fn most_slices(nvml: &Nvml, gpu: Handle) -> Result<u32, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetGpuInstanceProfileInfo)?;
    let slices = |profile| {
        let mut info = std::mem::MaybeUninit::<nvmlGpuInstanceProfileInfo_t>::zeroed();
        // SAFETY: `info` has room for the struct that the symbol's signature names.
        check(unsafe { call(gpu.0, profile, info.as_mut_ptr()) }).ok()?;
        // SAFETY: the struct is made of integers, for which zeroes are values.
        Some(unsafe { info.assume_init() }.sliceCount)
    };
    (0..PROFILES).filter_map(slices).max().ok_or(Missing::Unsupported)
}

fn version<T>(number: u32) -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or_default() | (number << 24)
}
