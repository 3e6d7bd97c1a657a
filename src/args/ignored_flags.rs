//! Flags and environment variables of dcgm-exporter that are accepted and ignored, so that its
//! manifests start unchanged.

use std::ffi::{OsStr, OsString};

use clap::{ArgAction, Command, CommandFactory};

/// A flag of dcgm-exporter that is ignored.
struct IgnoredFlag {
    name: &'static str,
    short: Option<char>,
    env: &'static str,
    /// Whether it takes a value.
    has_value: bool,
    /// Why it is ignored, or what replaces it.
    reason: &'static str,
}

const IGNORED_FLAGS: &[IgnoredFlag] = &[
    option("cpu-devices", Some('p'), "DCGM_EXPORTER_CPU_DEVICES_STR", NOT_NVML),
    option("switch-devices", Some('s'), "DCGM_EXPORTER_OTHER_DEVICES_STR", NOT_NVML),
    option("remote-hostengine-info", Some('r'), "DCGM_REMOTE_HOSTENGINE_INFO", NO_ENGINE),
    option("dcgm-log-level", None, "DCGM_EXPORTER_DCGM_LOG_LEVEL", NO_ENGINE),
    switch("enable-dcgm-log", "DCGM_EXPORTER_ENABLE_DCGM_LOG", NO_ENGINE),
    switch("dump-enabled", "DCGM_EXPORTER_DUMP_ENABLED", DEBUG),
    option("dump-directory", None, "DCGM_EXPORTER_DUMP_DIRECTORY", DEBUG),
    option("dump-retention", None, "DCGM_EXPORTER_DUMP_RETENTION", DEBUG),
    switch("dump-compression", "DCGM_EXPORTER_DUMP_COMPRESSION", DEBUG),
    switch("disable-startup-validate", "DISABLE_STARTUP_VALIDATE", NO_VALIDATION),
    switch("enable-gpu-bind-unbind-watch", "DCGM_EXPORTER_ENABLE_GPU_BIND_UNBIND_WATCH", REBOUND),
    option(
        "gpu-bind-unbind-poll-interval",
        None,
        "DCGM_EXPORTER_GPU_BIND_UNBIND_POLL_INTERVAL",
        REBOUND,
    ),
    switch("enable-pprof", "DCGM_EXPORTER_ENABLE_PPROF", "there is no pprof endpoint"),
    option("config-file", None, "DCGM_EXPORTER_CONFIG_FILE", "set flags instead of this file"),
    switch("container-labels", "DCGM_EXPORTER_CONTAINER_LABELS", NO_RUNTIME),
    option("container-runtime-socket", None, "DCGM_CONTAINER_RUNTIME_SOCKET", NO_RUNTIME),
    option("watch-max-keep-age", None, "DCGM_EXPORTER_WATCH_MAX_KEEP_AGE", NO_WATCH),
    option("watch-max-keep-samples", None, "DCGM_EXPORTER_WATCH_MAX_KEEP_SAMPLES", NO_WATCH),
    option("max-concurrent-scrapes", None, "DCGM_EXPORTER_MAX_CONCURRENT_SCRAPES", SNAPSHOT),
    switch("health-require-gpus", "DCGM_EXPORTER_HEALTH_REQUIRE_GPUS", NO_HEALTH),
];

const NOT_NVML: &str = "only GPUs are read";
const NO_ENGINE: &str = "there is no host engine; NVML is read directly";
const DEBUG: &str = "use --debug for debug logging";
const NO_VALIDATION: &str = "the exporter starts without a driver and waits for it";
const REBOUND: &str = "added and removed GPUs are always detected";
const NO_RUNTIME: &str =
    "container runtimes are not read; use --kubernetes-enable-pod-labels for pod labels";
const NO_WATCH: &str = "there are no DCGM watches; only the newest reading is kept";
const SNAPSHOT: &str = "scrapes of one cycle share one response; connections are limited by client";
const NO_HEALTH: &str = "/health does not depend on GPUs; use /readyz";

const fn option(
    name: &'static str,
    short: Option<char>,
    env: &'static str,
    reason: &'static str,
) -> IgnoredFlag {
    IgnoredFlag { name, short, env, has_value: true, reason }
}

const fn switch(name: &'static str, env: &'static str, reason: &'static str) -> IgnoredFlag {
    IgnoredFlag { name, short: None, env, has_value: false, reason }
}

/// Removes ignored flags from a command line. Returns the remaining arguments, and a warning for each
/// ignored flag or environment variable that is set. Long flags with a single dash are accepted.
pub fn strip_ignored<C: CommandFactory>(
    args: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> (Vec<OsString>, Vec<String>) {
    let command = C::command();
    let longs: Vec<&str> = command.get_arguments().flat_map(longs).collect();
    let is_long =
        |name: &str| longs.contains(&name) || IGNORED_FLAGS.iter().any(|flag| flag.name == name);
    let (mut kept, mut remarks) = (Vec::new(), Vec::new());
    let mut args = args.into_iter();
    kept.extend(args.next());
    while let Some(arg) = args.next() {
        let arg = accept_single_dash(arg, is_long);
        let Some(arg) = normalize_switch(arg, &command) else { continue };
        match find_ignored(&arg) {
            Some((flag, has_inline_value)) => {
                remarks.push(format!("--{} is ignored: {}", flag.name, flag.reason));
                if flag.has_value && !has_inline_value {
                    args.next();
                }
            }
            None => kept.push(arg),
        }
    }
    let is_set = |flag: &&IgnoredFlag| environment(flag.env).is_some_and(|value| is_truthy(&value));
    for flag in IGNORED_FLAGS.iter().filter(is_set) {
        remarks.push(format!("{} is ignored: {}", flag.env, flag.reason));
    }
    (kept, remarks)
}

/// The long names of a flag, aliases included.
fn longs(arg: &clap::Arg) -> Vec<&str> {
    arg.get_long().into_iter().chain(arg.get_all_aliases().unwrap_or_default()).collect()
}

/// Converts `-kubernetes` into `--kubernetes`: the flag parser of dcgm-exporter accepts both.
fn accept_single_dash(arg: OsString, is_long: impl Fn(&str) -> bool) -> OsString {
    let single = arg.to_str().and_then(|text| text.strip_prefix('-'));
    let name = single.map(|rest| rest.split_once('=').map_or(rest, |(name, _)| name));
    match (single, name) {
        (Some(rest), Some(name)) if name.len() > 1 && is_long(name) => format!("--{rest}").into(),
        _ => arg,
    }
}

/// Removes the value of a switch: `--kubernetes=true` becomes `--kubernetes`, and
/// `--kubernetes=false` is dropped (`None`).
fn normalize_switch(arg: OsString, command: &Command) -> Option<OsString> {
    let Some((name, value)) = arg.to_str().and_then(|text| text.split_once('=')) else {
        return Some(arg);
    };
    let is_switch = |arg: &clap::Arg| {
        let long = name.strip_prefix("--").is_some_and(|name| longs(arg).contains(&name));
        let short = name
            .strip_prefix('-')
            .is_some_and(|name| arg.get_short().is_some_and(|short| name == short.to_string()));
        (long || short) && matches!(arg.get_action(), ArgAction::SetTrue)
    };
    if !command.get_arguments().any(is_switch) {
        return Some(arg);
    }
    match &*value.to_ascii_lowercase() {
        "1" | "t" | "true" => Some(name.into()),
        "0" | "f" | "false" => None,
        _ => Some(arg),
    }
}

/// The ignored flag that an argument names, and whether the argument contains its value.
fn find_ignored(arg: &OsStr) -> Option<(&'static IgnoredFlag, bool)> {
    let text = arg.to_str()?;
    let (name, has_value) = text.split_once('=').map_or((text, false), |(name, _)| (name, true));
    IGNORED_FLAGS.iter().find_map(|flag| {
        let long = name.strip_prefix("--") == Some(flag.name);
        let short = flag.short.and_then(|short| name.strip_prefix('-')?.strip_prefix(short));
        match short {
            Some(rest) => Some((flag, has_value || !rest.is_empty())),
            None => long.then_some((flag, has_value)),
        }
    })
}

/// The command line definition without the environment variables that are empty: they count as not set.
pub fn without_empty_variables(
    command: Command,
    environment: impl Fn(&OsStr) -> Option<OsString> + Copy,
) -> Command {
    let is_empty = move |arg: &clap::Arg| {
        arg.get_env().and_then(environment).is_some_and(|value| value.is_empty())
    };
    let reset = move |arg: clap::Arg| if is_empty(&arg) { arg.env(None::<&str>) } else { arg };
    command.mut_args(reset).mut_subcommands(move |subcommand| subcommand.mut_args(reset))
}

/// Whether the value of an environment variable requests something: not empty, false or `none`.
fn is_truthy(value: &OsStr) -> bool {
    let text = value.to_string_lossy().to_ascii_lowercase();
    !matches!(&*text, "" | "0" | "f" | "false" | "none")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Args;
    use super::*;

    #[derive(Parser)]
    struct IgnoredFlagsCli {
        #[command(flatten)]
        _args: Args,
    }

    fn stripped(args: &[&str], environment: &[(&str, &str)]) -> (String, Vec<String>) {
        let args = ["x"].iter().chain(args).map(OsString::from);
        let variable = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        };
        let (kept, remarks) = strip_ignored::<IgnoredFlagsCli>(args, variable);
        let kept: Vec<_> = kept.iter().skip(1).map(|arg| arg.to_string_lossy()).collect();
        (kept.join(" "), remarks)
    }

    #[test]
    fn ignored_flags_are_removed_with_their_values_and_reported() {
        let args = ["-r", "localhost:5555", "-k", "--dump-enabled", "--dump-directory=/x", "-pf"];
        let (kept, remarks) = stripped(&args, &[]);
        assert_eq!(kept, "-k");
        assert_eq!(
            remarks,
            [
                "--remote-hostengine-info is ignored: there is no host engine; NVML is read directly",
                "--dump-enabled is ignored: use --debug for debug logging",
                "--dump-directory is ignored: use --debug for debug logging",
                "--cpu-devices is ignored: only GPUs are read",
            ]
        );
    }

    #[test]
    fn long_flags_with_a_single_dash_are_accepted() {
        let args = ["-collectors", "/a.csv", "-kubernetes=true", "-f", "b", "-k=false", "-o=1"];
        assert_eq!(stripped(&args, &[]).0, "--collectors /a.csv --kubernetes -f b -o");
    }

    #[test]
    fn environment_variables_that_are_empty_or_false_are_not_reported() {
        let environment = [
            ("DCGM_EXPORTER_ENABLE_PPROF", "true"),
            ("DCGM_EXPORTER_DUMP_ENABLED", "false"),
            ("DCGM_REMOTE_HOSTENGINE_INFO", ""),
        ];
        assert_eq!(
            stripped(&[], &environment).1,
            ["DCGM_EXPORTER_ENABLE_PPROF is ignored: there is no pprof endpoint"]
        );
    }

    #[test]
    fn no_flag_is_both_defined_and_ignored() {
        let command = IgnoredFlagsCli::command();
        for arg in command.get_arguments() {
            let is_same = |flag: &&IgnoredFlag| {
                arg.get_long() == Some(flag.name)
                    || (flag.short.is_some() && arg.get_short() == flag.short)
            };
            assert!(IGNORED_FLAGS.iter().find(is_same).is_none(), "{arg:?}");
        }
    }
}
