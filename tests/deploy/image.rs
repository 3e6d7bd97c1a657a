//! The image, checked without building it: every file that the Dockerfile copies exists, and the copied files run in
//! a root file system that contains only them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::programs::{read, root, run, stderr_of, stdout_of, target_dir, tool_path};

/// A COPY instruction; `stage` is the value of `--from`.
struct Copy {
    stage: Option<String>,
    sources: Vec<String>,
    destination: String,
}

fn copies() -> Vec<Copy> {
    let instruction = |line: &str| {
        let words: Vec<String> = line.strip_prefix("COPY ")?.split(' ').map(String::from).collect();
        let stage = words[0].strip_prefix("--from=").map(String::from);
        let paths = &words[usize::from(stage.is_some())..];
        let (destination, sources) = paths.split_last()?;
        Some(Copy { stage, sources: sources.to_vec(), destination: destination.clone() })
    };
    read("Dockerfile").lines().filter_map(instruction).collect()
}

/// The files of this build that the final stage copies, with their destination folders.
fn image_files() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for copy in copies().iter().filter(|copy| copy.stage.is_some()) {
        // The SBOMs are in a separate stage.
        for source in copy.sources.iter().filter(|source| !source.ends_with(".cdx.json")) {
            let name = source.strip_prefix("/src/target/dist/").expect("a product of the build");
            files.push((target_dir().join(name), copy.destination.clone()));
        }
    }
    files
}

/// Shared libraries of the base image, as far as they are needed.
const BASE_LIBRARIES: [&str; 7] = [
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
];

/// Absolute paths of the shared libraries that a file needs (`ldd`). Checks that the base image has them.
fn libraries(file: &Path) -> Vec<PathBuf> {
    let output = stdout_of("ldd", &[&file.display().to_string()], "");
    let paths: Vec<&str> = output.split_whitespace().filter(|word| word.starts_with('/')).collect();
    for path in &paths {
        let name = path.rsplit('/').next().unwrap_or_default();
        assert!(BASE_LIBRARIES.contains(&name), "{} needs {path}", file.display());
    }
    paths.into_iter().map(PathBuf::from).collect()
}

/// A root file system with these files, the libraries that they need, and `/tmp`.
fn bare_root(files: &[(PathBuf, String)]) -> tempfile::TempDir {
    let bare = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let add = |from: &Path, to: &str| {
        let target = bare.path().join(to.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        if fs::hard_link(from, &target).is_err() && !target.exists() {
            fs::copy(from, &target).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        }
    };
    for (file, folder) in files {
        let name = file.file_name().unwrap().to_string_lossy();
        add(file, &format!("{folder}/{name}"));
        for library in libraries(file) {
            add(&fs::canonicalize(&library).unwrap(), &library.display().to_string());
        }
    }
    fs::create_dir(bare.path().join("tmp")).unwrap();
    // Of /proc, the exporter only reads the path of its executable here.
    fs::create_dir_all(bare.path().join("proc/self")).unwrap();
    symlink("/usr/local/bin/nvml-exporter", bare.path().join("proc/self/exe")).unwrap();
    bare
}

/// Runs the image's entry point in a root file system. Prints the reason and returns `None` if that is not possible.
fn in_root(bare: &Path, tmpdir: &str, args: &[&str]) -> Option<std::process::Output> {
    if stdout_of("id", &["-u"], "").trim() != "0" {
        // Not by `eprintln!`, which the test harness would hide.
        let reason = b"skipped: the image in a chroot: chroot(2) requires root\n";
        std::io::stderr().write_all(reason).unwrap();
        return None;
    }
    let bare = bare.display().to_string();
    let tmpdir = format!("TMPDIR={tmpdir}");
    let entry = [&tmpdir, "chroot", &bare, "/usr/local/bin/nvml-exporter"];
    Some(run("env", &[&entry, args].concat(), ""))
}

#[test]
fn hadolint_reports_nothing() {
    let file = root().join("Dockerfile").display().to_string();
    let found = stdout_of(&tool_path("python/bin/hadolint"), &[&file], "");
    assert_eq!(found, "");
}

#[test]
fn build_context_is_a_complete_workspace() {
    let ignored = read(".dockerignore");
    let copy = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for source in copies().into_iter().filter(|c| c.stage.is_none()).flat_map(|c| c.sources) {
        assert!(
            ignored.lines().any(|line| line == format!("!{source}")),
            "{source} is excluded by .dockerignore"
        );
        let from = root().join(&source).display().to_string();
        let to = copy.path().join(&source);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        stdout_of("cp", &["-r", &from, &to.display().to_string()], "");
    }
    let manifest = copy.path().join("Cargo.toml").display().to_string();
    let arguments = ["metadata", "--offline", "--locked", "--no-deps", "--format-version=1"];
    let metadata =
        stdout_of(env!("CARGO"), &[&arguments[..], &["--manifest-path", &manifest]].concat(), "");
    for package in ["nvml-exporter", "mock_nvml"] {
        assert!(metadata.contains(&format!(r#""name":"{package}""#)), "{package}: {metadata}");
    }
    assert!(copy.path().join("mock-nvml/scenarios/demo.toml").exists());
}

#[test]
fn versions_agree() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("Dockerfile").contains(&format!("ARG VERSION={version}\n")));
    let toolchain = "FROM rust:1.95.0-bookworm AS build";
    assert!(read("Dockerfile").lines().any(|line| line == toolchain));
}

#[test]
fn image_and_sbom_check_use_the_same_build() {
    let (dockerfile, script) = (read("Dockerfile"), read(".ci/sbom"));
    let build = "cargo auditable build --profile dist --locked";
    assert!(dockerfile.contains(build) && script.contains(build));
    for tool in ["cargo-auditable@", "cargo-cyclonedx@"] {
        assert_eq!(dockerfile.matches(tool).count(), 1, "one pinned version");
    }
    for sbom in ["nvml-exporter_bin.cdx.json", "mock-nvml/mock_nvml_cdylib-rlib.cdx.json"] {
        assert!(dockerfile.contains(&format!("/src/{sbom} ")) && script.contains(sbom), "{sbom}");
    }
}

#[test]
fn image_files_run_in_a_bare_root() {
    let files = image_files();
    assert_eq!(files.len(), 2, "the exporter and the mock library");
    let bare = bare_root(&files);

    let Some(version) = in_root(bare.path(), "/tmp", &["--version"]) else { return };
    let printed = String::from_utf8_lossy(&version.stdout).into_owned();
    assert_eq!(printed.trim(), format!("nvml-exporter {}", env!("CARGO_PKG_VERSION")));

    let output = in_root(bare.path(), "/tmp", &["--mock", "--once"]).unwrap();
    assert!(output.status.success(), "{}", stderr_of(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("DCGM_FI_DEV_GPU_UTIL{"));

    // Only the mock needs a writable folder; its error names the folder.
    let unwritable = in_root(bare.path(), "/nowhere", &["--mock", "--once"]).unwrap();
    assert!(!unwritable.status.success());
    assert!(stderr_of(&unwritable).contains("/nowhere"), "{}", stderr_of(&unwritable));
}

#[test]
fn nvidia_library_opens_in_a_bare_root() {
    let folders = fs::read_dir(tool_path("nvml")).unwrap().map(|entry| entry.unwrap().path());
    let branches: Vec<PathBuf> =
        folders.map(|f| f.join("libnvidia-ml.so.1")).filter(|f| f.exists()).collect();
    assert!(branches.len() > 3, "tests/run downloads them");
    // Each run waits for a driver for a while, so they run in parallel.
    std::thread::scope(|scope| {
        for branch in branches {
            scope.spawn(move || check_open(branch));
        }
    });
}

/// Checks that a library can be opened and returns that no driver is loaded, as on a node without one.
fn check_open(library: PathBuf) {
    let mut files = image_files();
    files.push((library, "/usr/lib/x86_64-linux-gnu".to_owned()));
    let bare = bare_root(&files);
    let Some(output) = in_root(bare.path(), "/tmp", &["--once"]) else { return };
    let log = stderr_of(&output);
    assert!(log.contains("driver_not_loaded") || log.contains("Driver Not Loaded"), "{log}");
}

#[test]
fn dcgm_exporter_image_differs_only_in_the_dialect() {
    let text = read("Dockerfile");
    let stage = |name: &str| {
        let start = text.find(name).unwrap_or_else(|| panic!("no stage starts with {name:?}"));
        let body = &text[start + name.len()..];
        let end = body.find("\nFROM ").unwrap_or(body.len());
        body[..end]
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        stage("\nFROM exporter AS dcgm-exporter"),
        ["ENV NVML_EXPORTER_DIALECT=dcgm-exporter"]
    );
    // The default target is the exporter itself.
    assert_eq!(text.trim_end().lines().last(), Some("FROM exporter"));
}
