//! `top` in a terminal of 80 by 24 and in one of 200 by 60.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::clients::tool_path;
use crate::exporter::{command, run_tool, sandboxed_command};

const IN_A_TERMINAL: [&str; 4] = ["top", "--mock=demo", "-d", "0.5"];

#[test]
fn every_key_works_in_a_terminal() {
    assert_interactive(&command(&IN_A_TERMINAL));
}

#[test]
fn top_works_in_an_unprivileged_pod() {
    assert_interactive(&sandboxed_command(&IN_A_TERMINAL));
}

#[test]
fn mig_devices_are_folded_until_a_key_is_pressed() {
    for (size, seen) in in_a_terminal(&command(&["top", "--mock=mig-h100", "-d", "0.5"]), "mig") {
        let folded = seen["folded"].as_str().unwrap();
        assert!(folded.contains("4 MIG") && !folded.contains("MIG 2g"), "{size} {folded}");
        assert!(seen["unfolded"].as_str().unwrap().contains("MIG 2g.20gb GI 1"), "{size} {seen}");
        assert_eq!(seen["exit"], 0, "{size}");
    }
}

#[test]
fn screen_is_refreshed_and_has_no_colour_if_it_must_not() {
    let mut command = command(&["top", "--mock=demo", "--delay=0.2"]);
    command.env("NO_COLOR", "1");
    for (size, seen) in in_a_terminal(&command, "refresh") {
        assert_eq!((&seen["coloured"], &seen["exit"]), (&false.into(), &0.into()), "{size}");
    }
}

#[test]
fn screen_without_a_driver_ends_with_the_reason() {
    let command =
        command(&["top", "--require-gpu", "--nvml-library", "/nowhere/libnvidia-ml.so.1"]);
    for (size, seen) in in_a_terminal(&command, "exit") {
        assert_eq!(seen["exit"], 1, "{size} {seen}");
        let text = seen["text"].as_str().unwrap();
        assert_eq!(text.matches("the driver is down (library_not_found)").count(), 1, "{text}");
    }
}

#[test]
fn screen_ends_with_its_terminal() {
    for (size, seen) in in_a_terminal(&command(&IN_A_TERMINAL), "close") {
        // By SIGHUP, or by the error of the next output.
        let exit = seen["exit"].as_i64().unwrap();
        assert!([128 + 1, 1].contains(&exit), "{size}: {exit}");
    }
}

#[test]
fn one_frame_fits_the_terminal() {
    for mock in ["demo", "huge", "shared-l20", "mig-h100", "faulty"] {
        let command = command(&["top", "--once", &format!("--mock={mock}")]);
        for (size, seen) in in_a_terminal(&command, "exit") {
            let screen = seen["screen"].as_str().unwrap();
            assert_eq!(seen["exit"], 0, "{mock} {size}\n{screen}");
            // Nothing has scrolled out of the screen.
            assert!(
                screen.lines().next().unwrap().contains("  driver "),
                "{mock} {size}\n{screen}"
            );
            let rows = if size == "80x24" { 24 } else { 60 };
            assert!(screen.lines().count() < rows, "{mock} {size}\n{screen}");
            assert!(screen.contains("GPU 0 "), "{mock} {size}\n{screen}");
        }
    }
}

/// Runs the command in a small and a large terminal with tests/clients/terminal.py. What was seen, by size.
fn in_a_terminal(command: &Command, scenario: &str) -> BTreeMap<String, Value> {
    let text = |text: &OsStr| text.to_str().unwrap().to_owned();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let environment = command.get_envs().filter_map(|(key, value)| Some((text(key), text(value?))));
    let input = serde_json::json!({
        "command": words.map(text).collect::<Vec<_>>(),
        "environment": environment.collect::<BTreeMap<_, _>>(),
        "scenario": scenario,
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/terminal.py");
    let python = tool_path("python/bin/python");
    let output = run_tool(&python, &[&script.display().to_string()], &input.to_string());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Presses every key in a small and a large terminal, and checks the screens.
fn assert_interactive(command: &Command) {
    for (size, seen) in in_a_terminal(command, "keys") {
        let text = |screen: &str| seen[screen].as_str().unwrap().to_owned();
        for (screen, expected) in [
            ("compact", "GPU 0 H100 80GB HBM3"),
            ("full", "ml/train trainer"),
            ("end", "SOURCES"),
            ("filter", "GPU 0 "),
            ("pods", "ml/train"),
            ("filtered pods", "ml/train"),
            ("help", "fold or unfold MIG devices"),
        ] {
            assert!(text(screen).contains(expected), "{size} {screen}\n{}", text(screen));
        }
        // The help fits.
        assert!(!text("help").lines().any(|line| line.ends_with('…')), "{size} {}", text("help"));
        let gpus = |screen: &str| -> Vec<u32> {
            let lines = text(screen);
            let lines = lines.lines().filter_map(|line| line.strip_prefix("GPU "));
            lines.filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
        };
        assert_eq!(gpus("sort name"), (0..8).collect::<Vec<_>>(), "{size}");
        // The idle GPU uses the least of everything.
        for order in ["sort SM", "sort memory", "sort power"] {
            assert_eq!(gpus(order).last(), Some(&7), "{size} {order}\n{}", text(order));
        }
        assert_eq!(gpus("filter"), [0, 1, 2, 3], "{size}");
        for (what, expected) in [("coloured", true), ("restored", true)] {
            assert_eq!(seen[what], expected, "{size} {what}");
        }
        assert_eq!(seen["exit"], 0, "{size}");
    }
}
