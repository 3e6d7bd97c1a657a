//! As little as it may do, it does all of its work; and what others keep to themselves stays there.

#![expect(clippy::disallowed_methods, reason = "a test starts the program that it confines")]

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

use crate::exporter::{CONFINED, Exporter, Scenario, series};

/// A filter of `daemonset/seccomp` as programs for the kernel: one that allows and one for each error
/// that others are answered with. Names that this machine does not know are left out, as container
/// runtimes do.
fn programs() -> Vec<BpfProgram> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("daemonset/seccomp/nvml-exporter.json");
    let profile: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let (mut known, mut answers) = (Vec::new(), BTreeMap::<u64, Vec<Value>>::new());
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
                answers.entry(errno).or_default().push(rule.clone());
            }
            // Of two filters the stricter one counts.
            known.push(rule);
        }
    }
    let answer = |errno| json!({ "errno": errno });
    let answers = answers.into_iter();
    let answers = answers.map(|(errno, rules)| program(&json!("allow"), &answer(errno), &rules));
    let otherwise = answer(profile["defaultErrnoRet"].as_u64().unwrap());
    answers.chain([program(&otherwise, &json!("allow"), &known)]).collect()
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

/// An argument's condition, as the profile says it and as the compiler wants it.
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

/// Becomes what [`Exporter::confined`] starts; is no test where nothing is to be started.
#[test]
fn launcher() {
    let Ok(command) = std::env::var(CONFINED) else { return };
    let write = fs::write("/written", "").map_err(|error| error.kind());
    assert_eq!(write, Err(ErrorKind::ReadOnlyFilesystem));
    let programs = programs();
    let forbidden = || memfd_create("x", MemfdFlags::empty()).map(drop);
    assert_eq!(forbidden(), Ok(()), "it can be without the filter");
    for program in programs {
        apply_filter(&program).unwrap();
    }
    assert_eq!(forbidden(), Err(Errno::PERM));
    let (program, args) = command.split_once('\n').unwrap();
    let error = Command::new(program).args(args.split('\n')).env_remove(CONFINED).exec();
    panic!("{program}: {error}");
}

/// A field of the status of every thread of a process.
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
fn it_works_without_capabilities_on_a_read_only_root_under_its_filter() {
    let scenario = Scenario::held("shared-l20", 60);
    let free = Exporter::start(&[&scenario.flag(), "--collect-interval=200"]);
    let complete = |page: &str| {
        let named = |line: &&str| line.contains("PodName=\"") && !line.contains("PodName=\"\"");
        series(page, "DCGM_CUSTOM_PROCESS_MEM_USED").iter().any(named)
    };
    let families = |page: &str| {
        let kinds = page.lines().filter(|line| line.starts_with("# TYPE DCGM"));
        kinds.map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let confined = Exporter::confined(&[&scenario.flag(), "--collect-interval=200"]);
    for (name, wanted) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(fields(confined.pid(), name), BTreeSet::from([wanted.to_owned()]), "{name}");
    }
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", confined.pid())).unwrap();
    let root = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"), "{root}");

    let expected = free.wait_for("pods", |page| complete(page));
    let page =
        confined.wait_for("pods", |page| complete(page) && families(page) == families(&expected));
    for family in [
        "DCGM_CUSTOM_PROCESS_MEM_USED",
        "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED",
        "DCGM_FI_DEV_GPU_UTIL",
    ] {
        assert_eq!(series(&page, family).len(), series(&expected, family).len(), "{family}");
    }
    let zipped =
        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    assert_eq!(confined.request(zipped).header("content-encoding"), Some("gzip"));
    assert_eq!(confined.get("/readyz").status, 200);
    confined.hang_up();
    confined.wait_for_log("SIGHUP");
    let (status, log) = confined.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    // Nothing is missing that is not missing without all this.
    let warnings = |log: &str| {
        let told = log.lines().filter_map(|line| line.split_once(" WARN "));
        told.map(|(_, warning)| warning.to_owned()).collect::<BTreeSet<String>>()
    };
    let more: Vec<_> = warnings(&log).difference(&warnings(&free.log())).cloned().collect();
    assert!(more.is_empty() && !log.contains("ERROR"), "{more:?}");
}

#[test]
fn no_thread_of_it_can_execute_a_program() {
    // No filter but its own.
    let exporter = Exporter::start(&["--mock=demo", "--collect-interval=200"]);
    exporter.wait_for("a page", |page| page.contains("DCGM_FI_DEV_GPU_UTIL{"));
    for (name, wanted) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        assert_eq!(fields(exporter.pid(), name), BTreeSet::from([wanted.to_owned()]), "{name}");
    }
    assert!(!exporter.log().contains("could be executed"), "{}", exporter.log());
}

#[test]
fn the_drivers_own_library_opens_under_the_filter() {
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/nvml");
    let folders = fs::read_dir(libraries).expect("tests/run brings them");
    let libraries = folders.map(|folder| folder.unwrap().path().join("libnvidia-ml.so.1"));
    let libraries: Vec<_> = libraries.filter(|library| library.exists()).collect();
    assert!(libraries.len() > 3, "tests/run brings them");
    for library in libraries {
        let flag = format!("--nvml-library={}", library.display());
        let exporter = Exporter::confined(&[&flag, "--collect-interval=200"]);
        // It finds no kernel module, as it does without a filter.
        exporter
            .wait_for("a word of the driver", |page| page.contains("reason=\"driver_not_loaded\""));
    }
}

/// A process with something to hide; ends when dropped.
struct Secretive(Child);

impl Secretive {
    fn start() -> io::Result<Self> {
        let script = ["-c", "read line", "--password=hunter2-argument", "hunter2-name"];
        let mut command = Command::new("sh");
        command.args(script).env("API_TOKEN", "hunter2-variable");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map(Self)
    }
}

impl Drop for Secretive {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn arguments_and_variables_of_other_processes_are_told_nowhere() {
    let secretive = Secretive::start().unwrap();
    let pid = secretive.0.id();
    let own = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let text = format!(
        "[[gpu]]\nmodel = \"T4\"\n[[process]]\npid = {pid}\nname = \"sh\"\ngpus = [0]\nmemory = \"1 GiB\"\n"
    );
    let scenario = Scenario::new("secretive", &text);
    let mock = scenario.flag();
    for dialect in ["ack", "dcgm-exporter"] {
        let dialect_flag = format!("--dialect={dialect}");
        // The real tree, in which that process is.
        let flags = [&mock, &dialect_flag, "--procfs=/proc", "--debug", "--collect-interval=200"];
        let exporter = Exporter::start(&flags);
        let told = |page: &str| {
            dialect != "ack" || page.contains(&format!("ProcessId=\"{pid}\",ProcessName=\"sh\""))
        };
        let page = exporter
            .wait_for("the process", |page| page.contains("DCGM_FI_DEV_GPU_UTIL{") && told(page));
        assert!(own("cmdline").contains("hunter2-argument"), "there was something to tell");
        assert!(own("environ").contains("hunter2-variable"), "there was something to tell");
        let others = ["/", "/readyz", "/healthz", "/nothing"].map(|path| exporter.get(path).text());
        for said in others.iter().chain([&page, &exporter.log()]) {
            assert!(!said.contains("hunter2") && !said.contains("API_TOKEN"), "{said}");
        }
    }
}
