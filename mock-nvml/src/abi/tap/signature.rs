//! The parameters of the functions that are recorded and played.

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parameter {
    /// The handle of the target.
    Target,
    /// The handle of another device, an input.
    Device,
    /// An `unsigned int`, an input.
    Number,
    /// A text, an input.
    Text,
    /// Neither recorded nor written.
    Ignored,
    /// Pointer to a handle.
    OutHandle,
    /// A buffer, and its length.
    OutText,
    /// Pointer to members of this layout.
    Out(&'static str),
    /// As `Out`; the first member is a text, an input.
    OutOfText(&'static str),
    /// Pointer to the number of rows, and to rows of this layout.
    Rows(&'static str),
}

use self::Parameter::{
    Device, Ignored, Number, Out, OutHandle, OutOfText, OutText, Rows, Target, Text,
};

/// Layout of a feature in `nvmlGridLicensableFeatures_t`.
macro_rules! grid_features {
    () => {
        "II128s128sIIHHHHHBII128s128sIIHHHHHBII128s128sIIHHHHHB"
    };
}

/// Eight cliques of `nvmlGpuFabricInfo_v4_t`.
macro_rules! eight_cliques {
    () => {
        "BIBIBIBIBIBIBIBI"
    };
}

/// Functions with these parameters.
type Row = (&'static [Parameter], &'static [&'static str]);

/// All functions with a fixed number of values or rows. `nvmlDeviceGetGpuFabricInfoV` is in `fabric`.
const SIGNATURES: &[Row] = &[
    (&[], &["nvmlInit_v2", "nvmlShutdown"]),
    (&[OutText], &["nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion"]),
    (&[Out("i")], &["nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion"]),
    (&[Out("III")], &["nvmlSystemGetConfComputeState"]),
    (&[Out("I")], &["nvmlDeviceGetCount_v2"]),
    (&[Number, OutHandle], &["nvmlDeviceGetHandleByIndex_v2"]),
    (&[Text, OutHandle], &["nvmlDeviceGetHandleByUUID"]),
    (
        &[Target, Number, OutHandle],
        &["nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetGpuInstanceById"],
    ),
    (&[Target, Out("-QIIII")], &["nvmlGpuInstanceGetInfo"]),
    (
        &[Target, OutText],
        &[
            "nvmlDeviceGetName",
            "nvmlDeviceGetUUID",
            "nvmlDeviceGetSerial",
            "nvmlDeviceGetVbiosVersion",
            "nvmlDeviceGetInforomImageVersion",
        ],
    ),
    (&[Target, Number, OutText], &["nvmlDeviceGetInforomVersion"]),
    (&[Target, Out("16sIIIII32s")], &["nvmlDeviceGetPciInfo_v3"]),
    (
        &[Target, Out("I")],
        &[
            "nvmlDeviceGetIndex",
            "nvmlDeviceGetMinorNumber",
            "nvmlDeviceGetBrand",
            "nvmlDeviceGetPowerUsage",
            "nvmlDeviceGetPowerManagementLimit",
            "nvmlDeviceGetPowerManagementDefaultLimit",
            "nvmlDeviceGetEnforcedPowerLimit",
            "nvmlDeviceGetPerformanceState",
            "nvmlDeviceGetComputeMode",
            "nvmlDeviceGetPersistenceMode",
            "nvmlDeviceGetCurrPcieLinkGeneration",
            "nvmlDeviceGetCurrPcieLinkWidth",
            "nvmlDeviceGetMaxPcieLinkGeneration",
            "nvmlDeviceGetMaxPcieLinkWidth",
            "nvmlDeviceGetMaxMigDeviceCount",
            "nvmlDeviceGetVirtualizationMode",
            "nvmlDeviceGetGpuInstanceId",
            "nvmlDeviceGetComputeInstanceId",
            "nvmlDeviceGetUnrepairableMemoryFlag_v1",
        ],
    ),
    (
        &[Target, Out("Q")],
        &[
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetCurrentClocksThrottleReasons",
            "nvmlDeviceGetSupportedEventTypes",
        ],
    ),
    (
        &[Target, Number, Out("I")],
        &[
            "nvmlDeviceGetClockInfo",
            "nvmlDeviceGetMaxClockInfo",
            "nvmlDeviceGetApplicationsClock",
            "nvmlDeviceGetTemperatureThreshold",
            "nvmlDeviceGetTemperature",
            "nvmlDeviceGetFanSpeed_v2",
            "nvmlDeviceGetNvLinkState",
        ],
    ),
    (
        &[Target, Out("I"), Out("I")],
        &[
            "nvmlDeviceGetMigMode",
            "nvmlDeviceGetEccMode",
            "nvmlDeviceGetPowerManagementLimitConstraints",
            "nvmlDeviceGetEncoderUtilization",
            "nvmlDeviceGetDecoderUtilization",
            "nvmlDeviceGetCudaComputeCapability",
        ],
    ),
    (
        &[Target, Number, Number, Out("Q")],
        &["nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetNvLinkErrorCounter"],
    ),
    (&[Target, Number, Number, Number, Out("Q")], &["nvmlDeviceGetMemoryErrorCounter"]),
    (&[Target, Out("II")], &["nvmlDeviceGetUtilizationRates"]),
    (&[Target, Out("QQQ")], &["nvmlDeviceGetBAR1MemoryInfo", "nvmlDeviceGetMemoryInfo"]),
    (&[Target, Out("-IQQQQ")], &["nvmlDeviceGetMemoryInfo_v2"]),
    (&[Target, OutOfText("-QQQQ")], &[MEMORY_LIMITS]),
    (&[Target, Out("I"), Out("I"), Out("I")], &["nvmlDeviceGetEncoderStats"]),
    (&[Target, Out("III")], &["nvmlDeviceGetFBCStats"]),
    (&[Target, Out("-I-Ii")], &["nvmlDeviceGetTemperatureV"]),
    (&[Target, Out("-Ii")], &["nvmlDeviceGetMarginTemperature"]),
    (&[Target, Out("-II")], &["nvmlGpmQueryDeviceSupport"]),
    (&[Target, Out("-III")], &["nvmlDeviceGetRepairStatus"]),
    (&[Target, Out("IIIII")], &["nvmlDeviceGetRowRemapperHistogram"]),
    (&[Target, Out("-IQQQQQQQQQQQI")], &["nvmlDeviceGetSramEccErrorStatus"]),
    (&[Target], &["nvmlDeviceValidateInforom"]),
    (&[Target, Ignored, Ignored], &["nvmlDeviceRegisterEvents"]),
    (&[Target, Ignored], &["nvmlGpmSampleGet"]),
    (&[Target, Number, Ignored], &["nvmlGpmMigSampleGet"]),
    (&[Target, Number, Out("I"), Ignored], &[RETIRED_PAGES]),
    (&[Target, Number, Out("IIIIIIIIIIQ")], &["nvmlDeviceGetGpuInstanceProfileInfo"]),
    (&[Target, Out("IIIIIIIIQ")], &["nvmlDeviceGetAttributes_v2"]),
    (&[Target, Out(concat!("iI", grid_features!()))], &["nvmlDeviceGetGridLicensableFeatures_v4"]),
    (&[Target, Out("-I16x16sBBBBB")], &["nvmlDeviceGetPlatformInfo"]),
    (
        &[
            Target,
            Out(concat!(
                "16xI",
                eight_cliques!(),
                eight_cliques!(),
                eight_cliques!(),
                eight_cliques!(),
                eight_cliques!(),
                eight_cliques!(),
                eight_cliques!(),
                eight_cliques!(),
                "IBIB"
            )),
        ],
        &["nvmlDeviceGetGpuFabricInfo_v4"],
    ),
    (
        &[Target, Out("-IIIIIIIIIIIIIIIIIIIIIIIII")],
        &["nvmlDeviceWorkloadPowerProfileGetCurrentProfiles"],
    ),
    (
        &[Target, Rows("IQII")],
        &[
            "nvmlDeviceGetComputeRunningProcesses_v2",
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetGraphicsRunningProcesses_v2",
            "nvmlDeviceGetGraphicsRunningProcesses_v3",
            "nvmlDeviceGetMPSComputeRunningProcesses_v2",
            "nvmlDeviceGetMPSComputeRunningProcesses_v3",
        ],
    ),
    (
        &[Target, Rows("IQ")],
        &[
            "nvmlDeviceGetComputeRunningProcesses",
            "nvmlDeviceGetGraphicsRunningProcesses",
            "nvmlDeviceGetMPSComputeRunningProcesses",
        ],
    ),
    (&[Target, Device, Number, Out("I")], &["nvmlDeviceGetP2PStatus"]),
];

/// Asked for each cgroup: for those without an answer there are no limits.
pub(super) const MEMORY_LIMITS: &str = "nvmlDeviceGetMemoryLimits_v1";
/// Called without a buffer: it writes the number of pages although they do not fit.
pub(super) const RETIRED_PAGES: &str = "nvmlDeviceGetRetiredPages";

/// The function with two versions of its struct.
const FABRIC: &str = "nvmlDeviceGetGpuFabricInfoV";
/// Its parameters, by version of the struct.
const FABRIC_SIGNATURES: [(u32, &[Parameter]); 2] =
    [(2, &[Target, Out("-I16xIIBI")]), (3, &[Target, Out("-I16xIIBIB")])];

/// The parameters of a function, and the version of its struct if it has several.
pub(super) fn parameters(
    function: &str,
    version: impl FnOnce() -> u32,
) -> Option<(&'static [Parameter], Option<u32>)> {
    if function == FABRIC {
        let version = version();
        let found = FABRIC_SIGNATURES.iter().find(|(number, _)| *number == version)?;
        return Some((found.1, Some(version)));
    }
    SIGNATURES
        .iter()
        .find(|(_, functions)| functions.contains(&function))
        .map(|(parameters, _)| (*parameters, None))
}
