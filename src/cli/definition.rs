//! The command line as clap has it: what the derived definitions of flags leave open.

use clap::{Arg, ArgAction, Command};

/// The flags that `--help` explains, each in a line of 80 columns, and the text if it is not the full one; `--help-all`
/// and the manual have all, in full.
const IMPORTANT: &[(&str, Option<&str>)] = &[
    ("address", Some("Address, may be repeated [default: :9400]")),
    ("ca", Some("CA certificates of that exporter")),
    ("collect_interval", Some("Interval, in ms or as 5s [default: 5000]")),
    ("collectors", Some("Counters file that selects the exported families")),
    ("delay", Some("Seconds between updates [default: 2]")),
    ("dialect", Some("Label names: ack (default) or dcgm-exporter")),
    ("exposition", Some("Also write the exposition to this file")),
    ("help", Some("Print this summary")),
    ("help_all", Some("Print all flags")),
    ("keep_names", Some("Do not replace names of the node")),
    ("kubernetes", Some("Add labels of pod and container to device series")),
    ("mock", Some("Simulate a node: a scenario, or a file")),
    ("names", Some("Also write the replaced names to this file")),
    ("node_name", Some("Name of the Kubernetes node (spec.nodeName)")),
    ("nvml_library", Some("Path of libnvidia-ml.so.1 [default: searched]")),
    ("once", Some("Print once as text, and exit")),
    ("output", None),
    ("print_metrics", Some("List all families: table, json or csv")),
    ("problems", None),
    ("seconds", Some("Time to record, in seconds [default: 60]")),
    ("shell", Some("bash, elvish, fish, powershell or zsh")),
    ("url", Some("Show the node of the exporter at this URL")),
    ("user", Some("User and password for basic authentication")),
    ("version", Some("Print the version")),
    ("web_config_file", Some("TLS, passwords and rate limits of the server")),
];

/// Flags that belong to no group.
const GENERAL: &[&str] = &["once", "debug", "help", "help_all", "version"];

/// The built-in scenarios of the mock.
const SCENARIOS: &str = "demo, idle-t4, shared-l20, consumer-4090, faulty, blackwell, old-driver, mig-a100, \
     mig-h100, bert-hpa, abi-535, huge, hami, hami-mig, kai, dra, dra-sharing, lifecycle, \
     gke, gvisor, jetson, no-gpu";

/// Flags that have no effect in `record`, which serves nothing.
const NOT_OF_RECORD: &[&str] = &["address", "web_config_file", "once"];

/// Flags that have no effect in `top`, which shows the families of its view and serves nothing.
const NOT_OF_TOP: &[&str] =
    &["address", "dialect", "collectors", "kubernetes", "web_config_file", "collect_interval"];

/// Completes a derived command: `--help` is one screen, and each subcommand has the flags that matter to
/// it in groups.
///
/// `is_full`: whether help texts are those of `--help-all` and of the manual, with default values, possible
/// values and environment variables.
pub(super) fn complete(command: Command, is_full: bool) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let mut command = with_help(command, is_full).after_help(more());
    for name in names {
        command = command.mut_subcommand(name.clone(), |sub| {
            let sub = match name.as_str() {
                "top" => of_top(sub),
                "check" => without(sub, &["once"]),
                "record" => without(sub, NOT_OF_RECORD),
                _ => sub,
            };
            with_help(sub, is_full)
        });
    }
    command
}

/// `-h` and `--help` print the important flags, `--help-all` prints all.
fn with_help(command: Command, is_full: bool) -> Command {
    let help = Arg::new("help").short('h').long("help").action(ArgAction::HelpShort);
    let all = Arg::new("help_all").long("help-all").action(ArgAction::HelpLong);
    let version = Arg::new("version").short('V').long("version").action(ArgAction::Version);
    let has_version = command.get_version().is_some();
    let command = command.disable_help_flag(true).disable_version_flag(true);
    let command = if has_version { command.arg(version) } else { command };
    command.arg(help).arg(all).mut_args(|arg| {
        let summary = IMPORTANT.iter().find(|(id, _)| *id == arg.get_id().as_str());
        let hidden = arg.is_hide_short_help_set() || summary.is_none();
        // Flags after a flattened group are not members of that group.
        let is_general = GENERAL.contains(&arg.get_id().as_str());
        let arg = if is_general { arg.help_heading(None::<&'static str>) } else { arg };
        let arg = arg.hide_short_help(hidden).hide_env(!is_full);
        let text = summary.and_then(|(_, text)| *text);
        let arg = match text.filter(|_| !is_full || arg.get_help().is_none()) {
            Some(text) => arg.help(text),
            None => arg,
        };
        let hides_values = !is_full && arg.get_action().takes_values();
        arg.hide_default_value(hides_values).hide_possible_values(hides_values)
    })
}

/// Hides flags without an effect from `--help`.
fn without(command: Command, ids: &[&str]) -> Command {
    command.mut_args(|arg| {
        let hidden = arg.is_hide_short_help_set() || ids.contains(&arg.get_id().as_str());
        arg.hide_short_help(hidden)
    })
}

/// `-d` is the interval of the screen, as in other programs of this kind.
fn of_top(command: Command) -> Command {
    let command = command
        .mut_arg("devices", |arg| arg.short(None::<char>))
        .mut_arg("delay", |arg| arg.short('d'))
        .mut_arg("once", |arg| arg.help("Print the screen once as text, and exit"));
    without(command, NOT_OF_TOP)
}

/// The end of `--help`.
fn more() -> String {
    format!(
        "Scenarios of --mock: {SCENARIOS}, or the path of a file.\n\n\
         All flags: --help-all. Manual, with examples: nvml-exporter man | man -l -"
    )
}
