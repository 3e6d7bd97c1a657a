//! The command line as clap has it: what the derived definitions of flags leave open.

use clap::{Arg, ArgAction, Command};

/// The flags that `--help` explains; `--help-all` and the manual have all.
const IMPORTANT: &[&str] = &[
    "address",
    "collect_interval",
    "dialect",
    "collectors",
    "kubernetes",
    "node_name",
    "web_config_file",
    "mock",
    "nvml_library",
    "once",
    "print_metrics",
    "debug",
    "url",
    "user",
    "ca",
    "delay",
    "output",
    "problems",
    "seconds",
    "keep_names",
    "names",
    "exposition",
    "shell",
    "help",
    "help_all",
    "version",
];

/// Flags that belong to no group.
const GENERAL: &[&str] = &["once", "debug"];

/// The built-in scenarios of the mock.
const SCENARIOS: &str = "demo, idle-t4, shared-l20, consumer-4090, faulty, blackwell, old-driver, mig-a100, \
     mig-h100, bert-hpa, abi-535, huge, hami, hami-mig, kai, dra, dra-sharing, lifecycle, \
     gke, gvisor, jetson, no-gpu";

/// Flags that have no effect in `top`, which shows the families of its view and serves nothing.
const NOT_OF_TOP: &[&str] = &[
    "address",
    "dialect",
    "collectors",
    "kubernetes",
    "web_config_file",
    "collect_interval",
    "debug",
];

/// Completes a derived command: `--help` is one screen, and each subcommand has the flags that matter to
/// it in groups.
///
/// `shows_variables`: whether help texts name the environment variables of flags.
pub(super) fn complete(command: Command, shows_variables: bool) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let mut command = with_help(command, shows_variables).after_help(examples());
    for name in names {
        command = command.mut_subcommand(name.clone(), |sub| {
            let sub = match name.as_str() {
                "top" => of_top(sub),
                "check" => sub.mut_arg("once", |arg| arg.hide_short_help(true)),
                _ => sub,
            };
            with_help(sub, shows_variables)
        });
    }
    command
}

/// `-h` and `--help` print the important flags, `--help-all` prints all.
fn with_help(command: Command, shows_variables: bool) -> Command {
    let is_important = |arg: &Arg| IMPORTANT.contains(&arg.get_id().as_str());
    let help = Arg::new("help").short('h').long("help").action(ArgAction::HelpShort);
    let all = Arg::new("help_all").long("help-all").action(ArgAction::HelpLong);
    let command = command.disable_help_flag(true);
    let command = command.mut_args(|arg| {
        let hidden = arg.is_hide_short_help_set() || !is_important(&arg);
        // Flags after a flattened group are not members of that group.
        let is_general = GENERAL.contains(&arg.get_id().as_str());
        let arg = if is_general { arg.help_heading(None::<&'static str>) } else { arg };
        arg.hide_short_help(hidden).hide_env(!shows_variables)
    });
    command
        .arg(help.help("Print the most important flags").help_heading("Help"))
        .arg(all.help("Print all flags").help_heading("Help"))
}

/// `-d` is the interval of the screen, as in other programs of this kind.
fn of_top(command: Command) -> Command {
    command
        .mut_arg("devices", |arg| arg.short(None::<char>))
        .mut_arg("delay", |arg| arg.short('d'))
        .mut_arg("once", |arg| arg.help("Print the screen once as text, and exit"))
        .mut_args(|arg| {
            let ineffective = NOT_OF_TOP.contains(&arg.get_id().as_str());
            let hidden = arg.is_hide_short_help_set() || ineffective;
            arg.hide_short_help(hidden)
        })
}

fn examples() -> String {
    format!(
        "Examples:\n  \
         nvml-exporter                       serve on port 9400\n  \
         nvml-exporter check --problems      what is wrong with this node, and what to do\n  \
         nvml-exporter top                   GPUs, pods and processes in the terminal\n  \
         nvml-exporter record --output FILE  this node as a scenario of --mock\n  \
         nvml-exporter --once --mock=faulty  print the metrics of a simulated node\n\n\
         Scenarios of --mock: {SCENARIOS}, or the path of a file.\n\n\
         All flags with their environment variables: nvml-exporter --help-all. Manual: nvml-exporter man \
         | man -l -"
    )
}
