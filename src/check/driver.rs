//! The driver: the NVML session, the kernel module and the device nodes.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::{Finding, Topic, count_noun};
use crate::model::DownReason;
use crate::nvml::inventory::DriverInfo;
use crate::sample::DriverState;

/// The call that opens a session.
const OPEN: &str = "nvmlInit_v2";

/// The driver as visible outside of NVML.
struct KernelDriver {
    /// Text of `driver/nvidia/version` under the proc root.
    module: io::Result<String>,
    /// Paths of the device nodes, and whether they can be opened.
    nodes: Vec<(String, io::Result<()>)>,
}

/// Findings about the driver. A `simulated` one has neither kernel module nor device nodes.
#[must_use]
pub fn findings(driver: &DriverState, proc_root: &Path, simulated: bool) -> Vec<Finding> {
    if let Some(why) = driver.no_gpu() {
        return vec![Finding::note(Topic::Driver, OPEN, format!("not needed: {why}"))];
    }
    let mut findings = vec![session(driver)];
    let version = proc_root.join("driver/nvidia/version");
    let path = version.display().to_string();
    if simulated {
        let message = "a simulated driver has no kernel module and no device nodes";
        findings.push(Finding::skipped(Topic::Driver, path, message));
        return findings;
    }
    let kernel =
        KernelDriver { module: fs::read_to_string(version), nodes: nodes(Path::new("/dev")) };
    let up = match driver {
        DriverState::Up(driver) => Some(driver),
        DriverState::Down(_) => None,
    };
    findings.push(module(&path, &kernel.module, up));
    if up.is_some() || kernel.module.is_ok() {
        findings.extend(device_nodes(&kernel.nodes, up.is_some()));
    }
    findings
}

fn session(driver: &DriverState) -> Finding {
    match driver {
        DriverState::Up(DriverInfo { version, cuda_version, .. }) => {
            let versioned = |version: &str, what: &str| match version {
                "" => format!("{what} of unknown version"),
                version => format!("{what} {version}"),
            };
            let (driver, cuda) = (versioned(version, "driver"), versioned(cuda_version, "CUDA"));
            Finding::ok(Topic::Driver, OPEN, format!("a session opens: {driver}, {cuda}"))
        }
        DriverState::Down(down) if down.lacks_library() => {
            Finding::skipped(Topic::Driver, OPEN, "no NVML library is loaded")
        }
        DriverState::Down(down) if driver.is_released() => {
            let message = format!("no session, as requested: {}", down.problem());
            Finding::note(Topic::Driver, OPEN, message)
        }
        DriverState::Down(down) => {
            let (reason, error) = (down.reason(), down.error());
            // The remedy here is longer than the one of the error.
            Finding::failure(Topic::Driver, OPEN, format!("no session ({reason}): {error}"))
                .with_remedy(remedy(reason))
        }
    }
}

fn remedy(reason: DownReason) -> &'static str {
    match reason {
        DownReason::DriverNotLoaded => {
            "load the kernel module on the node (modprobe nvidia); if it does not load, see dmesg | grep \
             -i nvrm"
        }
        DownReason::VersionMismatch => {
            "the driver was upgraded while the old kernel module is still loaded: reboot the node, or \
             reload the module (rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia; modprobe nvidia)"
        }
        DownReason::Denied => {
            "grant access to /dev/nvidiactl and /dev/nvidiaN: run as root or in the group that owns them; \
             in a pod use NVIDIA's container runtime. After a systemctl daemon-reload, restart the pod"
        }
        DownReason::Hung | DownReason::Starting => {
            "see the kernel log (dmesg | grep -iE 'nvrm|xid'); a driver that hangs needs a GPU reset or a \
             reboot"
        }
        DownReason::Failed
        | DownReason::LibraryNotFound
        | DownReason::NotNvml
        | DownReason::NoGpu
        | DownReason::LibraryInvalid
        | DownReason::DriverGone
        | DownReason::ThreadDied
        | DownReason::GpuRemoved
        | DownReason::Releasing
        | DownReason::Released => "see the kernel log (dmesg | grep -iE 'nvrm|xid')",
    }
}

fn module(path: &str, text: &io::Result<String>, up: Option<&DriverInfo>) -> Finding {
    let version = text.as_ref().map(|text| module_version(text));
    match (version, up) {
        (Ok(Some(module)), Some(driver)) if module == driver.version => Finding::ok(
            Topic::Driver,
            path,
            format!("kernel module {module}, the same version as the library"),
        ),
        (Ok(Some(module)), Some(DriverInfo { version, .. })) if !version.is_empty() => {
            let message = format!("kernel module {module}, but the library is {version}");
            Finding::warning(Topic::Driver, path, message)
                .with_remedy(remedy(DownReason::VersionMismatch))
        }
        (Ok(Some(module)), _) => {
            Finding::ok(Topic::Driver, path, format!("kernel module {module} is loaded"))
        }
        (Ok(None), _) => Finding::note(Topic::Driver, path, "the file contains no version"),
        // WSL has no such module: it uses the driver of Windows.
        (Err(error), Some(_)) => Finding::note(
            Topic::Driver,
            path,
            format!("the version of the kernel module cannot be read ({error})"),
        ),
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => {
            let message = "no NVIDIA kernel module is loaded on this node";
            Finding::failure(Topic::Driver, path, message)
                .with_remedy(remedy(DownReason::DriverNotLoaded))
        }
        (Err(error), None) => Finding::warning(Topic::Driver, path, error.to_string()),
    }
}

/// `550.54.15` of `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar …`, or of the line of
/// the open kernel module.
fn module_version(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_version =
        |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version)
}

/// `nvidiactl` and the device nodes of the GPUs, opened read-only (NVML opens them for writing).
fn nodes(dev: &Path) -> Vec<(String, io::Result<()>)> {
    let is_gpu = |name: &str| {
        let number = name.strip_prefix("nvidia");
        number.is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
    };
    let entries = fs::read_dir(dev).into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut gpus: Vec<String> = names.filter(|name| is_gpu(name)).collect();
    gpus.sort_by_key(|name| (name.len(), name.clone()));
    let open = |name: String| {
        let path = dev.join(name);
        (path.display().to_string(), File::open(&path).map(drop))
    };
    ["nvidiactl".to_owned()].into_iter().chain(gpus).map(open).collect()
}

/// One finding for all nodes that can be opened, and one for each of the others.
fn device_nodes(nodes: &[(String, io::Result<()>)], up: bool) -> Vec<Finding> {
    let good: Vec<&str> =
        nodes.iter().filter(|(_, open)| open.is_ok()).map(|(path, _)| path.as_str()).collect();
    let mut findings = Vec::new();
    if let (Some(first), Some(last)) = (good.first(), good.last()) {
        let subject =
            if good.len() == 1 { (*first).to_owned() } else { format!("{first} … {last}") };
        let message = format!("{} can be opened", count_noun(good.len(), "device node"));
        findings.push(Finding::ok(Topic::Driver, subject, message));
    }
    for (path, open) in nodes {
        let Err(error) = open else { continue };
        // With a session the driver does not need the node, as on WSL.
        let finding = if up { Finding::note } else { Finding::failure };
        let finding = finding(Topic::Driver, path, format!("cannot be opened: {error}"));
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let reason = if denied { DownReason::Denied } else { DownReason::DriverNotLoaded };
        findings.push(if up { finding } else { finding.with_remedy(remedy(reason)) });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::model::Problem;
    use crate::sample::DriverDown;

    fn up(version: &str) -> DriverInfo {
        DriverInfo {
            version: version.to_owned(),
            cuda_version: "12.4".to_owned(),
            ..DriverInfo::default()
        }
    }

    #[test]
    fn version_is_parsed_of_both_kernel_modules() {
        for text in [
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  gcc version 12.2.0\n",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build\n",
        ] {
            assert_eq!(module_version(text), Some("550.54.15"), "{text}");
        }
        assert_eq!(module_version(""), None);
    }

    #[test]
    fn version_mismatch_is_a_warning_with_a_remedy() {
        let text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.1.2  x\n";
        let finding = module("/p", &Ok(text.to_owned()), Some(&up("550.54.15")));
        assert_eq!(finding.verdict, Outcome::Warning);
        assert!(finding.remedy.unwrap().contains("reboot"));
        assert_eq!(module("/p", &Ok(text.to_owned()), Some(&up("535.1.2"))).verdict, Outcome::Ok);
        let gone = || Err(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(module("/p", &gone(), None).verdict, Outcome::Failure);
        assert_eq!(module("/p", &gone(), Some(&up("1"))).verdict, Outcome::Note);
    }

    #[test]
    fn every_reason_has_a_remedy() {
        for reason in [
            DownReason::DriverNotLoaded,
            DownReason::VersionMismatch,
            DownReason::Denied,
            DownReason::Hung,
            DownReason::Failed,
        ] {
            let problem = Problem::without_remedy("x");
            let down = DriverState::Down(DriverDown::Closed { reason, problem });
            let finding = session(&down);
            assert_eq!(finding.verdict, Outcome::Failure);
            assert!(finding.remedy.is_some_and(|remedy| remedy.len() > 20), "{reason}");
        }
        let message = session(&DriverState::Up(up(""))).message;
        assert_eq!(message, "a session opens: driver of unknown version, CUDA 12.4");
    }

    #[test]
    fn usable_device_nodes_share_a_finding_and_others_have_their_own() {
        let dev = tempfile::tempdir().unwrap();
        for name in ["nvidiactl", "nvidia0", "nvidia10", "nvidia2", "nvidia-uvm", "nvidiax"] {
            fs::write(dev.path().join(name), "").unwrap();
        }
        let nodes = nodes(dev.path());
        let names: Vec<_> =
            nodes.iter().map(|(path, _)| path.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["nvidiactl", "nvidia0", "nvidia2", "nvidia10"]);
        assert_eq!(device_nodes(&nodes, false)[0].message, "4 device nodes can be opened");
        let denied = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        let finding = device_nodes(&[("/dev/nvidiactl".to_owned(), denied())], false).remove(0);
        assert_eq!(finding.verdict, Outcome::Failure);
        assert!(finding.remedy.unwrap().contains("container runtime"));
        assert_eq!(
            device_nodes(&[("/dev/nvidiactl".to_owned(), denied())], true)[0].verdict,
            Outcome::Note
        );
    }
}
