//! Sandbox: the exporter works with least privileges, executes no programs and discloses nothing of
//! other processes.

#![expect(clippy::disallowed_methods, reason = "a test starts the program in the sandbox")]

use std::collections::{BTreeMap, BTreeSet};
use std::env::consts::ARCH;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use seccompiler::{BpfMap, BpfProgram, apply_filter, compile_from_json};
use serde_json::{Value, json};

use crate::exporter::{Exporter, SANDBOX_COMMAND, Scenario, series};

/// The profile in `daemonset/seccomp` as BPF programs: one that allows system calls, and one for each
/// errno of denied calls. System calls that this architecture does not have are left out, as by
/// container runtimes.
fn programs() -> Vec<BpfProgram> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("daemonset/seccomp/nvml-exporter.json");
    let profile: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    // Without SCMP_ARCH_X32 and SCMP_ARCH_X86, the calls of those are denied.
    assert_eq!(profile["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]));
    let (mut known, mut denied) = (Vec::new(), BTreeMap::<u64, Vec<Value>>::new());
    for entry in profile["syscalls"].as_array().unwrap() {
        let args: Vec<Value> =
            entry["args"].as_array().into_iter().flatten().map(condition).collect();
        for name in entry["names"].as_array().unwrap().iter().filter(|name| is_known(name)) {
            let mut rule = json!({ "syscall": name });
            if !args.is_empty() {
                rule["args"] = json!(args);
            }
            if entry["action"] == "SCMP_ACT_ERRNO" {
                let errno = entry["errnoRet"].as_u64().unwrap();
                denied.entry(errno).or_default().push(rule.clone());
            }
            // Of several filters, the kernel applies the strictest result.
            known.push(rule);
        }
    }
    let fail = |errno| json!({ "errno": errno });
    let denied = denied.into_iter();
    let denied = denied.map(|(errno, rules)| program(&json!("allow"), &fail(errno), &rules));
    let otherwise = fail(profile["defaultErrnoRet"].as_u64().unwrap());
    denied.chain([program(&otherwise, &json!("allow"), &known)]).collect()
}

fn program(otherwise: &Value, matched: &Value, rules: &[Value]) -> BpfProgram {
    compiled(otherwise, matched, rules).unwrap().remove("t").unwrap()
}

fn compiled(
    otherwise: &Value,
    matched: &Value,
    rules: &[Value],
) -> Result<BpfMap, seccompiler::Error> {
    let text =
        json!({"t": {"mismatch_action": otherwise, "match_action": matched, "filter": rules}});
    compile_from_json(text.to_string().as_bytes(), ARCH.try_into().unwrap())
}

/// Converts the condition of an argument from the notation of the profile into that of the compiler.
fn condition(arg: &Value) -> Value {
    assert_eq!(arg["op"], "SCMP_CMP_MASKED_EQ", "of {arg}");
    json!({
        "index": arg["index"],
        "type": "qword",
        "op": {"masked_eq": arg["value"]},
        "val": arg["valueTwo"],
    })
}

fn is_known(name: &Value) -> bool {
    compiled(&json!("allow"), &json!("trap"), &[json!({ "syscall": name })]).is_ok()
}

/// Applies the profile and executes the program of [`Exporter::confined`]; passes if there is none.
#[test]
fn launcher() {
    let Ok(command) = std::env::var(SANDBOX_COMMAND) else { return };
    let write = fs::write("/written", "").map_err(|error| error.kind());
    assert_eq!(write, Err(ErrorKind::ReadOnlyFilesystem));
    let programs = programs();
    let denied = || memfd_create("x", MemfdFlags::empty()).map(drop);
    assert_eq!(denied(), Ok(()), "allowed without the filter");
    for program in programs {
        apply_filter(&program).unwrap();
    }
    assert_eq!(denied(), Err(Errno::PERM));
    let (program, args) = command.split_once('\n').unwrap();
    let error = Command::new(program).args(args.split('\n')).env_remove(SANDBOX_COMMAND).exec();
    panic!("{program}: {error}");
}

/// The values of a field of `/proc/<pid>/task/*/status`, over all threads.
fn fields(pid: u32, name: &str) -> BTreeSet<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses = threads.map(|t| fs::read_to_string(t.unwrap().path().join("status")).unwrap());
    let field = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches(':').trim().to_owned()
    };
    statuses.map(field).collect()
}

#[test]
fn works_without_capabilities_on_a_read_only_root_with_the_seccomp_profile() {
    let scenario = Scenario::built_in_at("shared-l20", 60);
    let unconfined = Exporter::start(&[&scenario.flag(), "--collect-interval=200"]);
    let has_pods = |text: &str| {
        let has_pod = |line: &&str| line.contains("PodName=\"") && !line.contains("PodName=\"\"");
        series(text, "DCGM_CUSTOM_PROCESS_MEM_USED").iter().any(has_pod)
    };
    let families = |text: &str| {
        let types = text.lines().filter(|line| line.starts_with("# TYPE DCGM"));
        types.map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let confined = Exporter::sandboxed(&[&scenario.flag(), "--collect-interval=200"]);
    for (name, expected) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(fields(confined.pid(), name), BTreeSet::from([expected.to_owned()]), "{name}");
    }
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", confined.pid())).unwrap();
    let root = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"), "{root}");

    // Zeros follow the pods: the process lists have to be newer than the allocations.
    let is_complete = |text: &str| has_pods(text) && !text.contains("\"stale_process_list\"");
    let counts = |text: &str| {
        [
            "DCGM_CUSTOM_PROCESS_MEM_USED",
            "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED",
            "DCGM_FI_DEV_GPU_UTIL",
        ]
        .map(|family| series(text, family).len())
    };
    confined.wait_for("the series of the unconfined exporter", |text| {
        let expected = unconfined.metrics();
        is_complete(text)
            && families(text) == families(&expected)
            && counts(text) == counts(&expected)
    });
    let gzip =
        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    assert_eq!(confined.request(gzip).header("content-encoding"), Some("gzip"));
    assert_eq!(confined.get("/readyz").status, 200);
    confined.send_sighup();
    confined.wait_for_log("SIGHUP");
    let (status, log) = confined.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    // The sandbox adds no warnings.
    let warnings = |log: &str| {
        let warnings = log.lines().filter_map(|line| line.split_once(" WARN "));
        warnings.map(|(_, warning)| warning.to_owned()).collect::<BTreeSet<String>>()
    };
    let more: Vec<_> = warnings(&log).difference(&warnings(&unconfined.log())).cloned().collect();
    assert!(more.is_empty() && !log.contains(" ERROR "), "{more:?}");
}

#[test]
fn every_thread_has_the_seccomp_filter() {
    // Without the profile: only the exporter's own filter.
    let exporter = Exporter::start(&["--mock=demo", "--collect-interval=200"]);
    exporter.wait_for("a GPU", |text| text.contains("DCGM_FI_DEV_GPU_UTIL{"));
    for (name, expected) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        assert_eq!(fields(exporter.pid(), name), BTreeSet::from([expected.to_owned()]), "{name}");
    }
    assert!(!exporter.log().contains("no seccomp filter"), "{}", exporter.log());
}

#[test]
fn real_libraries_open_with_the_seccomp_profile() {
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/nvml");
    let directories = fs::read_dir(libraries).expect("tests/run downloads them");
    let libraries = directories.map(|entry| entry.unwrap().path().join("libnvidia-ml.so.1"));
    let libraries: Vec<_> = libraries.filter(|library| library.exists()).collect();
    assert!(libraries.len() > 3, "tests/run downloads them");
    for library in libraries {
        let flag = format!("--nvml-library={}", library.display());
        let exporter = Exporter::sandboxed(&[&flag, "--require-gpu", "--collect-interval=200"]);
        // The library finds no kernel module, as without the profile.
        exporter.wait_for("a driver error", |text| text.contains("reason=\"driver_not_loaded\""));
    }
}

/// A process with secrets in its arguments and environment; killed when dropped.
struct ProcessWithSecrets(Child);

impl ProcessWithSecrets {
    fn start() -> io::Result<Self> {
        let script = ["-c", "read line", "--password=hunter2-argument", "hunter2-name"];
        let mut command = Command::new("sh");
        command.args(script).env("API_TOKEN", "hunter2-variable");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map(Self)
    }
}

impl Drop for ProcessWithSecrets {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn arguments_and_environment_of_other_processes_are_not_disclosed() {
    let process = ProcessWithSecrets::start().unwrap();
    let pid = process.0.id();
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let text = format!(
        "[[gpu]]\nmodel = \"T4\"\n[[process]]\npid = {pid}\nname = \"sh\"\ngpus = [0]\nmemory = \"1 GiB\"\n"
    );
    let scenario = Scenario::new("secrets", &text);
    let mock = scenario.flag();
    for dialect in ["ack", "dcgm-exporter"] {
        let dialect_flag = format!("--dialect={dialect}");
        // The real /proc, which contains the process.
        let flags = [&mock, &dialect_flag, "--procfs=/proc", "--debug", "--collect-interval=200"];
        let exporter = Exporter::start(&flags);
        let has_process = |text: &str| {
            dialect != "ack" || text.contains(&format!("ProcessId=\"{pid}\",ProcessName=\"sh\""))
        };
        let metrics = exporter.wait_for("the process", |text| {
            text.contains("DCGM_FI_DEV_GPU_UTIL{") && has_process(text)
        });
        assert!(read("cmdline").contains("hunter2-argument"), "the process has the secret");
        assert!(read("environ").contains("hunter2-variable"), "the process has the secret");
        let others = ["/", "/readyz", "/healthz", "/nothing"].map(|path| exporter.get(path).text());
        for text in others.iter().chain([&metrics, &exporter.log()]) {
            assert!(!text.contains("hunter2") && !text.contains("API_TOKEN"), "{text}");
        }
    }
}
