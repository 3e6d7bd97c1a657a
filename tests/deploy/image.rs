//! The image, without an engine to build it: every file that it copies is there, and what it copies
//! runs in a root that holds nothing else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::programs::{brought, built, errors, read, root, run, said};

/// The sources and the destination of each COPY; `--from` names another stage.
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

/// What the final stage copies, as files of this build, with the folder that they go to.
fn shipped() -> Vec<(PathBuf, String)> {
    let mut shipped = Vec::new();
    for copy in copies().iter().filter(|copy| copy.stage.is_some()) {
        // The bills of materials are a stage of their own.
        for source in copy.sources.iter().filter(|source| !source.ends_with(".cdx.json")) {
            let name = source.strip_prefix("/src/target/release/").expect("a product of the build");
            shipped.push((built().join(name), copy.destination.clone()));
        }
    }
    shipped
}

/// What the final stage's base holds of shared libraries, as far as anything here needs them.
const BASE: [&str; 7] = [
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
];

/// The shared libraries that `ldd` names for a file, as absolute paths; all are in the base.
fn libraries(file: &Path) -> Vec<PathBuf> {
    let answer = said("ldd", &[&file.display().to_string()], "");
    let paths: Vec<&str> = answer.split_whitespace().filter(|word| word.starts_with('/')).collect();
    for path in &paths {
        let name = path.rsplit('/').next().unwrap_or_default();
        assert!(BASE.contains(&name), "{} needs {path}", file.display());
    }
    paths.into_iter().map(PathBuf::from).collect()
}

/// A root with the given files, the libraries that they need, and a `/tmp`.
fn bare_root(files: &[(PathBuf, String)]) -> tempfile::TempDir {
    let bare = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let place = |from: &Path, to: &str| {
        let target = bare.path().join(to.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        if fs::hard_link(from, &target).is_err() && !target.exists() {
            fs::copy(from, &target).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        }
    };
    for (file, folder) in files {
        let name = file.file_name().unwrap().to_string_lossy();
        place(file, &format!("{folder}/{name}"));
        for library in libraries(file) {
            place(&fs::canonicalize(&library).unwrap(), &library.display().to_string());
        }
    }
    fs::create_dir(bare.path().join("tmp")).unwrap();
    // A container has a /proc; of it the exporter reads here no more than where it lies itself.
    fs::create_dir_all(bare.path().join("proc/self")).unwrap();
    symlink("/usr/local/bin/nvml-exporter", bare.path().join("proc/self/exe")).unwrap();
    bare
}

/// Runs the image's entry point in a bare root, or says why that cannot be done here.
fn in_root(bare: &Path, tmpdir: &str, args: &[&str]) -> Option<std::process::Output> {
    if said("id", &["-u"], "").trim() != "0" {
        eprintln!("not run: chroot(2) is for root alone");
        return None;
    }
    let bare = bare.display().to_string();
    let tmpdir = format!("TMPDIR={tmpdir}");
    let entry = [&tmpdir, "chroot", &bare, "/usr/local/bin/nvml-exporter"];
    Some(run("env", &[&entry, args].concat(), ""))
}

#[test]
fn hadolint_finds_nothing() {
    let file = root().join("Dockerfile").display().to_string();
    let found = said(&brought("python/bin/hadolint"), &[&file], "");
    assert_eq!(found, "");
}

#[test]
fn what_the_build_copies_is_there_and_is_a_whole_workspace() {
    let ignored = read(".dockerignore");
    let copy = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for source in copies().into_iter().filter(|c| c.stage.is_none()).flat_map(|c| c.sources) {
        assert!(ignored.lines().any(|line| line == format!("!{source}")), "{source} is ignored");
        let from = root().join(&source).display().to_string();
        let to = copy.path().join(&source);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        said("cp", &["-r", &from, &to.display().to_string()], "");
    }
    let manifest = copy.path().join("Cargo.toml").display().to_string();
    let arguments = ["metadata", "--offline", "--locked", "--no-deps", "--format-version=1"];
    let metadata =
        said(env!("CARGO"), &[&arguments[..], &["--manifest-path", &manifest]].concat(), "");
    for product in ["nvml-exporter", "mock_nvml"] {
        assert!(metadata.contains(&format!(r#""name":"{product}""#)), "{product}: {metadata}");
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
fn the_image_is_built_as_the_gate_of_what_it_is_made_of_builds_it() {
    let (dockerfile, gate) = (read("Dockerfile"), read(".ci/sbom"));
    let build = "cargo auditable build --release --locked";
    assert!(dockerfile.contains(build) && gate.contains(build));
    for tool in ["cargo-auditable@", "cargo-cyclonedx@"] {
        assert_eq!(dockerfile.matches(tool).count(), 1, "its version is fixed, once");
    }
    for bill in ["nvml-exporter_bin.cdx.json", "mock-nvml/mock_nvml_cdylib-rlib.cdx.json"] {
        assert!(dockerfile.contains(&format!("/src/{bill} ")) && gate.contains(bill), "{bill}");
    }
}

#[test]
fn what_the_image_holds_runs_in_a_bare_root() {
    let files = shipped();
    assert_eq!(files.len(), 2, "the exporter and the mock library, side by side");
    let bare = bare_root(&files);

    let Some(version) = in_root(bare.path(), "/tmp", &["--version"]) else { return };
    let printed = String::from_utf8_lossy(&version.stdout).into_owned();
    assert_eq!(printed.trim(), format!("nvml-exporter {}", env!("CARGO_PKG_VERSION")));

    let page = in_root(bare.path(), "/tmp", &["--mock", "--once"]).unwrap();
    assert!(page.status.success(), "{}", errors(&page));
    assert!(String::from_utf8_lossy(&page.stdout).contains("DCGM_FI_DEV_GPU_UTIL{"));

    // Where nothing can be written, the mock says so; nothing else of the exporter wants to write.
    let unwritable = in_root(bare.path(), "/nowhere", &["--mock", "--once"]).unwrap();
    assert!(!unwritable.status.success());
    assert!(errors(&unwritable).contains("/nowhere"), "{}", errors(&unwritable));
}

#[test]
fn the_drivers_real_library_opens_in_a_bare_root() {
    let folders = fs::read_dir(brought("nvml")).unwrap().map(|entry| entry.unwrap().path());
    let branches: Vec<PathBuf> =
        folders.map(|f| f.join("libnvidia-ml.so.1")).filter(|f| f.exists()).collect();
    assert!(branches.len() > 3, "tests/run brings them");
    // Each waits for a driver for a while, so they wait together.
    std::thread::scope(|scope| {
        for branch in branches {
            scope.spawn(move || opens(branch));
        }
    });
}

/// A library opens, and it finds no kernel module: that is what a node without a driver says.
fn opens(library: PathBuf) {
    let mut files = shipped();
    files.push((library, "/usr/lib/x86_64-linux-gnu".to_owned()));
    let bare = bare_root(&files);
    let Some(answer) = in_root(bare.path(), "/tmp", &["--once"]) else { return };
    let log = errors(&answer);
    assert!(log.contains("driver_not_loaded") || log.contains("Driver Not Loaded"), "{log}");
}

#[test]
fn the_image_in_dcgm_exporters_place_differs_in_its_dialect_only() {
    let text = read("Dockerfile");
    let stage = |name: &str| {
        let begin = text.find(name).unwrap_or_else(|| panic!("no stage begins with {name:?}"));
        let body = &text[begin + name.len()..];
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
    // What is built without a target is the exporter itself.
    assert_eq!(text.trim_end().lines().last(), Some("FROM exporter"));
}
