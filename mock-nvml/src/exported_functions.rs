//! The NVML functions that this library exports.

/// Passes the exported functions, listed by file of the ABI, to a macro: those that nvml-wrapper-sys has,
/// and newer ones.
macro_rules! exported_functions {
    ($apply:ident) => {
        $apply! {
            wrapped {
                system:
                    nvmlInit nvmlInit_v2 nvmlInitWithFlags nvmlShutdown nvmlErrorString
                    nvmlSystemGetDriverVersion nvmlSystemGetNVMLVersion
                    nvmlSystemGetCudaDriverVersion nvmlSystemGetCudaDriverVersion_v2 nvmlSystemGetProcessName
                    nvmlDeviceGetCount nvmlDeviceGetCount_v2 nvmlSystemGetDriverBranch;
                handle:
                    nvmlDeviceGetHandleByIndex nvmlDeviceGetHandleByIndex_v2 nvmlDeviceGetHandleByUUID
                    nvmlDeviceGetHandleByPciBusId nvmlDeviceGetHandleByPciBusId_v2 nvmlDeviceGetHandleBySerial;
                device:
                    nvmlDeviceGetName nvmlDeviceGetUUID nvmlDeviceGetSerial nvmlDeviceGetIndex
                    nvmlDeviceGetMinorNumber nvmlDeviceGetBrand nvmlDeviceGetArchitecture
                    nvmlDeviceGetCudaComputeCapability nvmlDeviceGetBoardPartNumber nvmlDeviceGetBoardId
                    nvmlDeviceGetMultiGpuBoard nvmlDeviceGetVbiosVersion nvmlDeviceGetInforomImageVersion
                    nvmlDeviceGetInforomVersion nvmlDeviceValidateInforom nvmlDeviceGetGspFirmwareVersion nvmlDeviceGetGspFirmwareMode
                    nvmlDeviceGetDriverModel nvmlDeviceGetDriverModel_v2
                    nvmlDeviceGetNumGpuCores nvmlDeviceGetMemoryBusWidth nvmlDeviceGetVirtualizationMode
                    nvmlDeviceGetDisplayMode nvmlDeviceGetDisplayActive
                    nvmlDeviceGetPersistenceMode nvmlDeviceGetComputeMode nvmlDeviceGetMigMode
                    nvmlDeviceGetAccountingMode nvmlDeviceGetAccountingBufferSize
                    nvmlDeviceGetAccountingPids nvmlDeviceGetAccountingStats;
                pci:
                    nvmlDeviceGetPciInfo nvmlDeviceGetPciInfo_v2 nvmlDeviceGetPciInfo_v3
                    nvmlDeviceGetPciInfoExt nvmlDeviceGetPcieReplayCounter nvmlDeviceGetPcieThroughput
                    nvmlDeviceGetCurrPcieLinkGeneration nvmlDeviceGetCurrPcieLinkWidth
                    nvmlDeviceGetMaxPcieLinkGeneration nvmlDeviceGetGpuMaxPcieLinkGeneration
                    nvmlDeviceGetMaxPcieLinkWidth nvmlDeviceGetPcieLinkMaxSpeed nvmlDeviceGetPcieSpeed
                    nvmlDeviceGetBusType;
                clocks:
                    nvmlDeviceGetClockInfo nvmlDeviceGetMaxClockInfo nvmlDeviceGetClock
                    nvmlDeviceGetApplicationsClock nvmlDeviceGetDefaultApplicationsClock
                    nvmlDeviceGetMaxCustomerBoostClock nvmlDeviceGetAutoBoostedClocksEnabled
                    nvmlDeviceGetAdaptiveClockInfoStatus
                    nvmlDeviceGetPerformanceState nvmlDeviceGetPowerState nvmlDeviceGetViolationStatus
                    nvmlDeviceGetCurrentClocksThrottleReasons nvmlDeviceGetCurrentClocksEventReasons
                    nvmlDeviceGetSupportedClocksThrottleReasons nvmlDeviceGetSupportedClocksEventReasons;
                power:
                    nvmlDeviceGetPowerUsage nvmlDeviceGetTotalEnergyConsumption
                    nvmlDeviceGetPowerManagementMode nvmlDeviceGetPowerManagementLimit
                    nvmlDeviceGetPowerManagementDefaultLimit nvmlDeviceGetPowerManagementLimitConstraints
                    nvmlDeviceGetEnforcedPowerLimit nvmlDeviceGetPowerSource;
                thermal:
                    nvmlDeviceGetTemperature nvmlDeviceGetTemperatureV nvmlDeviceGetTemperatureThreshold
                    nvmlDeviceGetFanSpeed nvmlDeviceGetFanSpeed_v2 nvmlDeviceGetTargetFanSpeed
                    nvmlDeviceGetMinMaxFanSpeed nvmlDeviceGetNumFans nvmlDeviceGetMarginTemperature;
                ecc:
                    nvmlDeviceGetEccMode nvmlDeviceGetDefaultEccMode nvmlDeviceGetTotalEccErrors
                    nvmlDeviceGetMemoryErrorCounter nvmlDeviceGetDetailedEccErrors
                    nvmlDeviceGetSramEccErrorStatus nvmlDeviceGetRetiredPages nvmlDeviceGetRetiredPages_v2
                    nvmlDeviceGetRetiredPagesPendingStatus nvmlDeviceGetRemappedRows
                    nvmlDeviceGetRowRemapperHistogram nvmlDeviceGetRepairStatus;
                nvlink:
                    nvmlDeviceGetNvLinkState nvmlDeviceGetNvLinkVersion nvmlDeviceGetNvLinkCapability
                    nvmlDeviceGetNvLinkErrorCounter nvmlDeviceGetNvLinkRemotePciInfo_v2
                    nvmlDeviceGetNvLinkRemoteDeviceType;
                topology:
                    nvmlDeviceGetTopologyCommonAncestor nvmlDeviceGetP2PStatus nvmlDeviceOnSameBoard;
                events:
                    nvmlDeviceGetSupportedEventTypes nvmlDeviceRegisterEvents
                    nvmlEventSetCreate nvmlEventSetFree nvmlEventSetWait nvmlEventSetWait_v2;
                fields: nvmlDeviceGetFieldValues;
                platform:
                    nvmlDeviceGetGpuFabricInfoV nvmlDeviceGetGridLicensableFeatures_v4
                    nvmlDeviceGetPlatformInfo nvmlDeviceGetModuleId nvmlDeviceGetEncoderStats
                    nvmlDeviceGetFBCStats nvmlSystemGetConfComputeState
                    nvmlDeviceWorkloadPowerProfileGetCurrentProfiles;
                samples: nvmlDeviceGetSamples nvmlDeviceGetProcessesUtilizationInfo;
                processes:
                    nvmlDeviceGetComputeRunningProcesses nvmlDeviceGetComputeRunningProcesses_v2
                    nvmlDeviceGetComputeRunningProcesses_v3
                    nvmlDeviceGetGraphicsRunningProcesses nvmlDeviceGetGraphicsRunningProcesses_v2
                    nvmlDeviceGetGraphicsRunningProcesses_v3
                    nvmlDeviceGetMPSComputeRunningProcesses nvmlDeviceGetMPSComputeRunningProcesses_v2
                    nvmlDeviceGetMPSComputeRunningProcesses_v3
                    nvmlDeviceGetRunningProcessDetailList;
                mig:
                    nvmlDeviceIsMigDeviceHandle nvmlDeviceGetMaxMigDeviceCount
                    nvmlDeviceGetMigDeviceHandleByIndex nvmlDeviceGetDeviceHandleFromMigDeviceHandle
                    nvmlDeviceGetGpuInstanceId nvmlDeviceGetComputeInstanceId
                    nvmlDeviceGetAttributes nvmlDeviceGetAttributes_v2;
                profiles: nvmlDeviceGetGpuInstanceProfileInfo nvmlDeviceGetGpuInstanceProfileInfoV;
                instances:
                    nvmlDeviceGetGpuInstances nvmlDeviceGetGpuInstanceById nvmlGpuInstanceGetInfo
                    nvmlGpuInstanceGetComputeInstances nvmlGpuInstanceGetComputeInstanceById
                    nvmlComputeInstanceGetInfo nvmlComputeInstanceGetInfo_v2;
                gpm:
                    nvmlGpmQueryDeviceSupport nvmlGpmSampleAlloc nvmlGpmSampleFree nvmlGpmSampleGet
                    nvmlGpmMigSampleGet nvmlGpmMetricsGet;
                usage:
                    nvmlDeviceGetMemoryInfo nvmlDeviceGetMemoryInfo_v2 nvmlDeviceGetBAR1MemoryInfo
                    nvmlDeviceGetUtilizationRates nvmlDeviceGetEncoderUtilization
                    nvmlDeviceGetDecoderUtilization nvmlDeviceGetJpgUtilization nvmlDeviceGetOfaUtilization
                    nvmlDeviceGetProcessUtilization;
            }
            newer {
                nvmlDeviceGetUnrepairableMemoryFlag_v1 nvmlDeviceGetGpuFabricInfo_v4
                nvmlDeviceGetMemoryLimits_v1
            }
        }
    };
}

macro_rules! names {
    (wrapped { $($file:ident: $($name:ident)*;)* } newer { $($newer:ident)* }) => {
        /// Their names, which scenarios accept.
        pub(crate) const FUNCTIONS: &[&str] =
            &[$($(stringify!($name)),*),*, $(stringify!($newer)),*];
    };
}

exported_functions!(names);

pub(crate) use exported_functions;
