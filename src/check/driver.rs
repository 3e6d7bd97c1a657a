//! The driver: whether a session opens, the kernel's module, and the device nodes.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::{Finding, Topic, counted};
use crate::nvml::inventory::Driver;
use crate::sample::DriverState;

/// The call that opens a session.
const OPEN: &str = "nvmlInit_v2";

/// What a node shows of its driver outside of NVML.
struct Kernel {
    /// `driver/nvidia/version` under the proc root.
    module: io::Result<String>,
    /// Device nodes, and whether they can be opened.
    nodes: Vec<(String, io::Result<()>)>,
}

/// Looks at the driver. A simulated one has neither module nor device nodes.
#[must_use]
pub fn look(driver: &DriverState, proc_root: &Path, simulated: bool) -> Vec<Finding> {
    let mut findings = vec![session(driver)];
    let version = proc_root.join("driver/nvidia/version");
    let place = version.display().to_string();
    if simulated {
        let said = "a simulated driver has no kernel module and no device nodes";
        findings.push(Finding::skipped(Topic::Driver, place, said));
        return findings;
    }
    let kernel = Kernel { module: fs::read_to_string(version), nodes: nodes(Path::new("/dev")) };
    let up = match driver {
        DriverState::Up(driver) => Some(driver),
        DriverState::Down { .. } => None,
    };
    findings.push(module(&place, &kernel.module, up));
    if up.is_some() || kernel.module.is_ok() {
        findings.extend(device_nodes(&kernel.nodes, up.is_some()));
    }
    findings
}

fn session(driver: &DriverState) -> Finding {
    match driver {
        DriverState::Up(Driver { version, cuda_version, .. }) => {
            let told = |version: &str, what: &str| match version {
                "" => format!("{what} of an unknown version"),
                version => format!("{what} {version}"),
            };
            let (driver, cuda) = (told(version, "driver"), told(cuda_version, "CUDA"));
            Finding::ok(Topic::Driver, OPEN, format!("a session opens: {driver}, {cuda}"))
        }
        DriverState::Down { reason: "library_not_found" | "not_nvml", .. } => {
            Finding::skipped(Topic::Driver, OPEN, "there is no library to call it in")
        }
        DriverState::Down { detail, .. } if driver.is_released() => {
            Finding::note(Topic::Driver, OPEN, format!("no session, as is asked for: {detail}"))
        }
        DriverState::Down { reason, detail } => {
            // The error begins with the library and the call, and ends with a mend of its own.
            let error = detail.split_once("nvmlInit_v2: ").map_or(&**detail, |(_, error)| error);
            let error = error.split("; ").next().unwrap_or(error);
            let said = format!("no session ({reason}): {error}");
            Finding::failure(Topic::Driver, OPEN, said).mended_by(mend(reason))
        }
    }
}

fn mend(reason: &str) -> &'static str {
    match reason {
        "driver_not_loaded" => {
            "load the kernel module on the node (modprobe nvidia), or see why it does not load: dmesg | \
             grep -i nvrm"
        }
        "version_mismatch" => {
            "the driver was upgraded under a module that is still loaded: reboot the node, or unload and \
             load the module (rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia; modprobe nvidia)"
        }
        "denied" => {
            "give access to /dev/nvidiactl and /dev/nvidiaN: run as root or in the group that owns them; \
             in a pod through NVIDIA's container runtime. After a systemctl daemon-reload, restart the pod"
        }
        "hung" | "starting" => {
            "look at the kernel log (dmesg | grep -iE 'nvrm|xid'); a driver that hangs needs a reset of \
             its GPUs or a reboot"
        }
        _ => "look at the kernel log (dmesg | grep -iE 'nvrm|xid')",
    }
}

fn module(place: &str, text: &io::Result<String>, up: Option<&Driver>) -> Finding {
    let version = text.as_ref().map(|text| module_version(text));
    match (version, up) {
        (Ok(Some(module)), Some(driver)) if module == driver.version => Finding::ok(
            Topic::Driver,
            place,
            format!("kernel module {module}, as the library says"),
        ),
        (Ok(Some(module)), Some(Driver { version, .. })) if !version.is_empty() => {
            let said = format!("kernel module {module}, but the library says {version}");
            Finding::warning(Topic::Driver, place, said).mended_by(mend("version_mismatch"))
        }
        (Ok(Some(module)), _) => {
            Finding::ok(Topic::Driver, place, format!("kernel module {module} is loaded"))
        }
        (Ok(None), _) => Finding::note(Topic::Driver, place, "it tells no version"),
        // WSL has no such module: the driver is that of Windows.
        (Err(error), Some(_)) => Finding::note(
            Topic::Driver,
            place,
            format!("no version of a kernel module is told here ({error})"),
        ),
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => {
            let said = "no NVIDIA kernel module is loaded on this node";
            Finding::failure(Topic::Driver, place, said).mended_by(mend("driver_not_loaded"))
        }
        (Err(error), None) => Finding::warning(Topic::Driver, place, error.to_string()),
    }
}

/// `550.54.15` in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar …`, or in that of
/// the open module.
fn module_version(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_version =
        |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version)
}

/// `nvidiactl` and the GPUs' nodes, opened as NVML would, but for reading.
fn nodes(folder: &Path) -> Vec<(String, io::Result<()>)> {
    let is_gpu = |name: &str| {
        let number = name.strip_prefix("nvidia");
        number.is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
    };
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut gpus: Vec<String> = names.filter(|name| is_gpu(name)).collect();
    gpus.sort_by_key(|name| (name.len(), name.clone()));
    let opened = |name: String| {
        let path = folder.join(name);
        (path.display().to_string(), File::open(&path).map(drop))
    };
    ["nvidiactl".to_owned()].into_iter().chain(gpus).map(opened).collect()
}

/// Those that can be opened are one finding together; each of the others is one of its own.
fn device_nodes(nodes: &[(String, io::Result<()>)], up: bool) -> Vec<Finding> {
    let good: Vec<&str> =
        nodes.iter().filter(|(_, open)| open.is_ok()).map(|(path, _)| path.as_str()).collect();
    let mut findings = Vec::new();
    if let (Some(first), Some(last)) = (good.first(), good.last()) {
        let subject =
            if good.len() == 1 { (*first).to_owned() } else { format!("{first} … {last}") };
        let said = format!("{} can be opened", counted(good.len(), "device node"));
        findings.push(Finding::ok(Topic::Driver, subject, said));
    }
    for (path, open) in nodes {
        let Err(error) = open else { continue };
        // With a session the driver has other ways, as on WSL.
        let finding = if up { Finding::note } else { Finding::failure };
        let finding = finding(Topic::Driver, path, format!("it cannot be opened: {error}"));
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let reason = if denied { "denied" } else { "driver_not_loaded" };
        findings.push(if up { finding } else { finding.mended_by(mend(reason)) });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn up(version: &str) -> Driver {
        Driver { version: version.to_owned(), cuda_version: "12.4".to_owned(), ..Driver::default() }
    }

    #[test]
    fn the_modules_version_is_told_by_both_kinds() {
        for text in [
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  gcc version 12.2.0\n",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build\n",
        ] {
            assert_eq!(module_version(text), Some("550.54.15"), "{text}");
        }
        assert_eq!(module_version(""), None);
    }

    #[test]
    fn an_upgrade_under_a_loaded_module_is_told_with_its_mend() {
        let text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.1.2  x\n";
        let finding = module("/p", &Ok(text.to_owned()), Some(&up("550.54.15")));
        assert_eq!(finding.verdict, Verdict::Warning);
        assert!(finding.mend.unwrap().contains("reboot"));
        assert_eq!(module("/p", &Ok(text.to_owned()), Some(&up("535.1.2"))).verdict, Verdict::Ok);
        let gone = || Err(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(module("/p", &gone(), None).verdict, Verdict::Failure);
        assert_eq!(module("/p", &gone(), Some(&up("1"))).verdict, Verdict::Note);
    }

    #[test]
    fn every_reason_has_a_mend() {
        for reason in ["driver_not_loaded", "version_mismatch", "denied", "hung", "failed"] {
            let down = DriverState::Down { reason, detail: "x".to_owned() };
            let finding = session(&down);
            assert_eq!(finding.verdict, Verdict::Failure);
            assert!(finding.mend.is_some_and(|mend| mend.len() > 20), "{reason}");
        }
        let said = session(&DriverState::Up(up(""))).said;
        assert_eq!(said, "a session opens: driver of an unknown version, CUDA 12.4");
    }

    #[test]
    fn device_nodes_are_told_together_and_bad_ones_alone() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["nvidiactl", "nvidia0", "nvidia10", "nvidia2", "nvidia-uvm", "nvidiax"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let nodes = nodes(folder.path());
        let names: Vec<_> =
            nodes.iter().map(|(path, _)| path.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["nvidiactl", "nvidia0", "nvidia2", "nvidia10"]);
        assert_eq!(device_nodes(&nodes, false)[0].said, "4 device nodes can be opened");
        let denied = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        let finding = device_nodes(&[("/dev/nvidiactl".to_owned(), denied())], false).remove(0);
        assert_eq!(finding.verdict, Verdict::Failure);
        assert!(finding.mend.unwrap().contains("container runtime"));
        assert_eq!(
            device_nodes(&[("/dev/nvidiactl".to_owned(), denied())], true)[0].verdict,
            Verdict::Note
        );
    }
}
