//! What messages and remedies name exists: flags, environment variables, files, sections of documents and commands.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex_lite::Regex;

use crate::exporter::{run, run_once};

/// Flags of other programs: `kubectl auth can-i`, `nvidia-smi`, `cargo`.
const FOREIGN_FLAGS: [&str; 3] = ["--as", "--gpu-reset", "--workspace"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below `folder`.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The texts in the source, without those of tests: what messages are made of.
fn texts() -> Vec<String> {
    let literal = Regex::new(r#""((?:[^"\\]|\\[\s\S])*)""#).unwrap();
    let continuation = Regex::new(r"\\\n\s*").unwrap();
    let mut found = Vec::new();
    let all = rust_files(&root().join("src")).into_iter();
    for path in all.filter(|path| !path.ends_with("tests.rs")) {
        let source = fs::read_to_string(path).unwrap();
        let code = source.split("#[cfg(test)]").next().unwrap();
        let code: Vec<_> =
            code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        // The character '"' begins no text.
        let code = code.join("\n").replace("'\"'", "' '").replace("'\\\"'", "' '");
        let texts = literal.captures_iter(&code);
        found.extend(texts.map(|text| continuation.replace_all(&text[1], "").into_owned()));
    }
    assert!(found.len() > 1000, "{}", found.len());
    found
}

/// What `pattern` matches in the texts.
fn named(texts: &[String], pattern: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).unwrap();
    let all = texts.iter().flat_map(|text| pattern.captures_iter(text));
    let found: BTreeSet<String> = all.map(|found| found[1].to_owned()).collect();
    assert!(!found.is_empty(), "{pattern}");
    found
}

/// The flags and the environment variables of all commands.
fn known(pattern: &str) -> BTreeSet<String> {
    let help = |command: &[&str]| {
        String::from_utf8(run(&[command, &["--help-all"]].concat()).stdout).unwrap()
    };
    let helps = [help(&[]), help(&["top"]), help(&["check"]), help(&["record"])];
    named(&helps, pattern)
}

const FLAG: &str = "(?:^|[^\\w-])(--[a-z][a-z-]+)";

#[test]
fn flags_in_messages_exist() {
    let mut known = known(FLAG);
    known.extend(FOREIGN_FLAGS.map(str::to_owned));
    let named = named(&texts(), FLAG);
    assert!(named.contains("--nvml-library"), "{named:?}");
    assert_eq!(named.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn environment_variables_in_messages_exist() {
    let known = known("\\[env: ([A-Z_]+)");
    // In messages: definitions of flags are those variables alone.
    let sentences: Vec<_> = texts().into_iter().filter(|text| text.contains(' ')).collect();
    let named = named(&sentences, "\\b((?:NVML_EXPORTER_|DCGM_EXPORTER_|NODE_)[A-Z_]+)\\b");
    assert!(named.contains("NODE_NAME"), "{named:?}");
    assert_eq!(named.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
}

/// The anchor that GitHub gives to a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn files_and_sections_in_messages_exist() {
    for path in named(&texts(), "((?:docs|daemonset)/[\\w/.#-]*\\w)") {
        let (file, section) = path.split_once('#').unwrap_or((&path, ""));
        let file = root().join(file);
        assert!(file.exists(), "{path}");
        if !section.is_empty() {
            let text = fs::read_to_string(file).unwrap();
            let mut headings = text.lines().filter(|line| line.starts_with('#'));
            let is_it = |line: &str| anchor(line.trim_start_matches('#').trim()) == section;
            assert!(headings.any(is_it), "{path}");
        }
    }
    // `check` names the overlay, and the rights that this file grants.
    assert!(root().join("daemonset/overlays/mig").is_dir());
    let rights = fs::read_to_string(root().join("daemonset/base/service-account.yaml")).unwrap();
    assert!(rights.contains("resourceclaims"), "{rights}");
}

#[test]
fn commands_in_messages_run_as_printed() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("node.toml").display().to_string();
    let commands = named(&texts(), "nvml-exporter ((?:top|check|record|man|--)[^;,)'`|\\\\]*)");
    let expected =
        ["check --mock", "man", "record", "record --output node.toml", "top --mock=demo"];
    let trimmed: BTreeSet<&str> = commands.iter().map(|command| command.trim()).collect();
    assert_eq!(trimmed, expected.into());
    for command in trimmed {
        let mut args: Vec<&str> = command.split(' ').collect();
        // A name, in a sentence.
        if args == ["record"] {
            continue;
        }
        for arg in args.iter_mut().filter(|arg| **arg == "node.toml") {
            *arg = &output;
        }
        let simulated: &[&str] = match args[0] {
            "record" => &["--mock=demo", "--seconds=1"],
            "check" => &["--address=127.0.0.1:0"],
            _ => &[],
        };
        let result = run(&[&args, simulated].concat());
        let errors = String::from_utf8_lossy(&result.stderr);
        assert!(
            result.status.success() && !result.stdout.is_empty() || args[0] == "record",
            "{errors}"
        );
    }
    // What was recorded can be played, as the last line of `record` says.
    assert!(run_once(&[&format!("--mock={output}")]).contains("DCGM_FI_DEV_GPU_UTIL"));
}
