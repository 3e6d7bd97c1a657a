//! What the error codes of health watches mean, and what to do.

use super::health::HealthProblem;
use super::xid;

/// A problem in plain words, and the remedy. `gpu` selects the GPU for `nvidia-smi -i`: its bus ID or index.
#[must_use]
pub fn explain(problem: &HealthProblem, gpu: &str) -> (String, String) {
    let found = TEXTS.iter().find(|(code, ..)| *code == problem.code);
    let message = found.map_or(problem.code, |(_, message, _)| message);
    match (problem.xid, found) {
        (Some(xid), Some((_, message, remedy))) if !remedy.is_empty() => {
            (format!("{message} (XID {xid})"), for_gpu(remedy, gpu))
        }
        (Some(xid), _) => {
            (format!("XID {xid}: {}", xid::name(xid)), for_gpu(xid::remedy(xid), gpu))
        }
        (None, found) => {
            (message.to_owned(), for_gpu(found.map_or(OTHER, |(_, _, remedy)| remedy), gpu))
        }
    }
}

/// A remedy with the GPU in its commands.
#[must_use]
pub fn for_gpu(remedy: &str, gpu: &str) -> String {
    remedy.replace("{gpu}", gpu)
}

const OTHER: &str = "see nvidia-smi -q -i {gpu} and the kernel log (dmesg | grep -i xid)";

/// Drain and reset.
const RESET: &str =
    "drain the node, end all processes on the GPU and reset it: nvidia-smi --gpu-reset -i {gpu}";

/// Drain, reset, and look at the link.
const LINK: &str =
    "drain the node and reset the GPUs of the link; nvidia-smi nvlink -e -i {gpu} shows the link";

/// Error code, meaning, remedy; an empty remedy is that of the XID.
const TEXTS: &[(&str, &str, &str)] = &[
    ("DCGM_FR_XID_ERROR", "XID error", ""),
    (
        "DCGM_FR_FALLEN_OFF_BUS",
        "the GPU has fallen off the bus",
        "drain the node and reboot it; if it happens again, reseat or replace the board",
    ),
    (
        "DCGM_FR_PENDING_PAGE_RETIREMENTS",
        "memory pages will be retired at the next reset of the GPU",
        RESET,
    ),
    (
        "DCGM_FR_PENDING_ROW_REMAP",
        "memory rows will be remapped at the next reset of the GPU",
        RESET,
    ),
    (
        "DCGM_FR_ROW_REMAP_FAILURE",
        "a faulty memory row could not be remapped",
        "drain the node and have the board replaced: nvidia-smi -q -d ROW_REMAPPER -i {gpu} shows the rows",
    ),
    (
        "DCGM_FR_UNCONTAINED_ERROR",
        "uncontained memory error: all work on the GPU may be wrong",
        RESET,
    ),
    (
        "DCGM_FR_RETIRED_PAGES_LIMIT",
        "so many memory pages are retired that the board should be replaced",
        "drain the node and have the board replaced: nvidia-smi -q -d PAGE_RETIREMENT -i {gpu} shows the pages",
    ),
    (
        "DCGM_FR_VOLATILE_DBE_DETECTED",
        "uncorrected memory errors since the driver was loaded",
        RESET,
    ),
    ("DCGM_FR_FAULTY_MEMORY", "memory is faulty or waits for a repair", RESET),
    ("DCGM_FR_GPU_RECOVERY_RESET", "the driver requests a reset of the GPU", RESET),
    ("DCGM_FR_GPU_RECOVERY_DRAIN_RESET", "the driver requests to drain and reset the GPU", RESET),
    (
        "DCGM_FR_GPU_RECOVERY_REBOOT",
        "the driver requests a reboot of the node",
        "drain the node and reboot it",
    ),
    (
        "DCGM_FR_GPU_RECOVERY_DRAIN_P2P",
        "the driver requests that peer-to-peer work ends",
        "drain the pods that use several GPUs with this one; then see nvidia-smi -q -i {gpu}",
    ),
    (
        "DCGM_FR_GPU_RECOVERY_IMEX_DOMAIN",
        "the driver requests the recovery of the IMEX domain",
        "drain the nodes of the IMEX domain and restart the nvidia-imex service on them",
    ),
    ("DCGM_FR_UNKNOWN", "the driver requests an action that this exporter does not know", OTHER),
    (
        "DCGM_FR_SRAM_THRESHOLD",
        "the SRAM errors exceed the threshold at which the board should be replaced",
        "drain the node and have the board replaced: nvidia-smi -q -d ECC -i {gpu} shows the errors",
    ),
    (
        "DCGM_FR_UNCORRECTABLE_ROW_REMAP_LIMIT",
        "so many memory rows are remapped that the board should be tested",
        "run NVIDIA's field diagnostic: nvidia-smi -q -d ROW_REMAPPER -i {gpu} shows the rows",
    ),
    (
        "DCGM_FR_NVLINK_EFFECTIVE_BER_THRESHOLD",
        "an NVLink has more bit errors after error correction than a working one",
        LINK,
    ),
    (
        "DCGM_FR_NVLINK_SYMBOL_BER_THRESHOLD",
        "an NVLink has symbol errors that error correction does not remove",
        LINK,
    ),
    (
        "DCGM_FR_FABRIC_PROBE_STATE",
        "the GPU is not registered with its NVLink fabric, or the fabric reports a fault",
        "see Fabric in nvidia-smi -q -i {gpu}, and the log of nvidia-fabricmanager or of the NVLink switches",
    ),
    (
        "DCGM_FR_FIELD_VIOLATION",
        "CRC errors or replays on the C2C link to the CPU, which are corrected",
        "reset the GPU at the next opportunity, which trains the link again: nvidia-smi --gpu-reset -i {gpu}",
    ),
    (
        "DCGM_FR_PCI_REPLAY_RATE",
        "the PCIe link repeats more transfers than its error rate explains",
        "reseat the board or its riser; nvidia-smi -q -i {gpu} shows the replays and the state of the link",
    ),
    ("DCGM_FR_NVLINK_CRC_ERROR_THRESHOLD", "many CRC errors on NVLink", LINK),
    (
        "DCGM_FR_NVLINK_ERROR_THRESHOLD",
        "CRC errors on NVLink",
        "watch whether they continue: nvidia-smi nvlink -e -i {gpu}",
    ),
    (
        "DCGM_FR_NVLINK_ERROR_CRITICAL",
        "NVLink has errors, had to repeat transfers or to recover",
        LINK,
    ),
    (
        "DCGM_FR_NVLINK_DOWN",
        "an NVLink, or a C2C link to the CPU, that was active is down",
        "drain the node and reset the GPUs of the link; nvidia-smi nvlink -s -i {gpu} shows the link",
    ),
    (
        "DCGM_FR_CORRUPT_INFOROM",
        "the checksum of the InfoROM is wrong",
        "reset the GPU (nvidia-smi --gpu-reset -i {gpu}); if it remains, have the InfoROM rewritten",
    ),
    (
        "DCGM_FR_CLOCK_THROTTLE_THERMAL",
        "the GPU reduces its clocks because it is too hot",
        "check fans, air flow and inlet temperature; nvidia-smi -q -d TEMPERATURE -i {gpu} shows the limits",
    ),
    (
        "DCGM_FR_CLOCK_THROTTLE_POWER",
        "the power supply makes the GPU reduce its clocks (power brake)",
        "check the power supply and the power cables of the node",
    ),
];

#[cfg(test)]
mod tests {
    use super::super::health::Severity;
    use super::*;

    fn problem(code: &'static str, xid: Option<u32>) -> HealthProblem {
        HealthProblem { watch: "MEM", severity: Severity::Fail, code, xid }
    }

    #[test]
    fn every_code_of_a_watch_has_a_text() {
        let source = include_str!("health.rs");
        let (rules, _) = source.split_once("mod tests").unwrap();
        let codes = rules.split('"').filter(|text| text.starts_with("DCGM_FR_"));
        let codes: Vec<&str> = codes.filter(|code| *code != "DCGM_FR_OK").collect();
        assert!(codes.len() > 15);
        for code in codes {
            assert!(TEXTS.iter().any(|(known, ..)| *known == code), "{code} has no text");
        }
    }

    #[test]
    fn problem_has_plain_words_and_a_command_for_the_gpu() {
        let (message, remedy) = explain(&problem("DCGM_FR_PENDING_ROW_REMAP", None), "0:1B:00.0");
        assert_eq!(message, "memory rows will be remapped at the next reset of the GPU");
        assert!(remedy.ends_with("nvidia-smi --gpu-reset -i 0:1B:00.0"), "{remedy}");
        let (message, remedy) = explain(&problem("DCGM_FR_XID_ERROR", Some(48)), "3");
        assert_eq!(message, "XID 48: Double Bit ECC Error");
        assert!(remedy.contains("-i 3"), "{remedy}");
        let (message, _) = explain(&problem("DCGM_FR_ROW_REMAP_FAILURE", Some(64)), "3");
        assert_eq!(message, "a faulty memory row could not be remapped (XID 64)");
    }
}
