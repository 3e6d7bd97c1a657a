//! Health and environment of a board: spare rows, SRAM errors, InfoROM, licences, MIG
//! profiles.

use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::{
    nvmlEccSramErrorStatus_v1_t, nvmlGpuInstanceProfileInfo_t, nvmlGridLicensableFeatures_t,
    nvmlGridLicenseFeatureCode_t_NVML_GRID_LICENSE_FEATURE_CODE_VGPU as VGPU,
    nvmlReturn_enum_NVML_ERROR_CORRUPTED_INFOROM as CORRUPTED_INFOROM,
    nvmlRowRemapperHistogramValues_t,
};

use super::{Handle, check, symbol, version};
use crate::model::Missing;

/// Upper bound of GPU instance profile ids.
const PROFILES: u32 = 16;

/// Number of memory banks by remaining spare rows for row remapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpareRows {
    /// Banks with all spare rows available.
    pub max: u32,
    /// Banks with most spare rows available.
    pub high: u32,
    /// Banks with some spare rows available.
    pub partial: u32,
    /// Banks with few spare rows available.
    pub low: u32,
    /// Banks without spare rows.
    pub none: u32,
}

/// `nvmlDeviceGetRowRemapperHistogram`: Ampere and later.
///
/// # Errors
/// Returns the NVML error.
pub fn spare_rows(nvml: &Nvml, gpu: Handle) -> Result<SpareRows, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetRowRemapperHistogram)?;
    let mut rows =
        nvmlRowRemapperHistogramValues_t { max: 0, high: 0, partial: 0, low: 0, none: 0 };
    // SAFETY: `rows` is a live struct of the type in the signature of the symbol.
    check(unsafe { call(gpu.0, &raw mut rows) })?;
    let nvmlRowRemapperHistogramValues_t { max, high, partial, low, none } = rows;
    Ok(SpareRows { max, high, partial, low, none })
}

/// SRAM errors of a GPU.
pub type SramErrors = nvmlEccSramErrorStatus_v1_t;

/// SRAM errors of a GPU (`nvmlDeviceGetSramEccErrorStatus`).
///
/// # Errors
/// Returns the NVML error.
pub fn sram_errors(nvml: &Nvml, gpu: Handle) -> Result<SramErrors, Missing> {
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
    // SAFETY: `status` is a live struct and its version field contains the size.
    check(unsafe { call(gpu.0, &raw mut status) })?;
    Ok(status)
}

/// Whether the InfoROM checksum is valid (`nvmlDeviceValidateInforom`). Slow: reads the flash of
/// the board.
///
/// # Errors
/// Returns the NVML error; unsupported on boards without an InfoROM.
pub fn inforom_valid(nvml: &Nvml, gpu: Handle) -> Result<bool, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceValidateInforom)?;
    // SAFETY: the call writes nothing.
    match check(unsafe { call(gpu.0) }) {
        Ok(()) => Ok(true),
        Err(Missing::Failed(CORRUPTED_INFOROM)) => Ok(false),
        Err(missing) => Err(missing),
    }
}

/// Whether a vGPU licence is active (`nvmlDeviceGetGridLicensableFeatures_v4`); false if none is
/// required.
///
/// # Errors
/// Returns the NVML error.
pub fn vgpu_licensed(nvml: &Nvml, gpu: Handle) -> Result<bool, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetGridLicensableFeatures_v4)?;
    let mut licences = std::mem::MaybeUninit::<nvmlGridLicensableFeatures_t>::zeroed();
    // SAFETY: `licences` has the size of the struct in the signature of the symbol.
    check(unsafe { call(gpu.0, licences.as_mut_ptr()) })?;
    // SAFETY: the struct consists of integers, for which zeroes are valid.
    let licences = unsafe { licences.assume_init() };
    let count = usize::try_from(licences.licensableFeaturesCount).unwrap_or_default();
    let features = licences.gridLicensableFeatures.iter().take(count);
    let vgpu = features.filter(|feature| feature.featureCode == VGPU);
    Ok(licences.isGridLicenseSupported != 0 && vgpu.into_iter().any(|f| f.featureState > 0))
}

/// Maximum number of slices of a GPU instance (`nvmlDeviceGetGpuInstanceProfileInfo`).
///
/// # Errors
/// Unsupported if the GPU has no GPU instance profiles.
pub fn max_slices(nvml: &Nvml, gpu: Handle) -> Result<u32, Missing> {
    let call = symbol(&nvml.lib().nvmlDeviceGetGpuInstanceProfileInfo)?;
    let slices = |profile| {
        let mut info = std::mem::MaybeUninit::<nvmlGpuInstanceProfileInfo_t>::zeroed();
        // SAFETY: `info` has the size of the struct in the signature of the symbol.
        check(unsafe { call(gpu.0, profile, info.as_mut_ptr()) }).ok()?;
        // SAFETY: the struct consists of integers, for which zeroes are valid.
        Some(unsafe { info.assume_init() }.sliceCount)
    };
    (0..PROFILES).filter_map(slices).max().ok_or(Missing::Unsupported)
}
