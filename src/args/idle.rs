//! Flags and environment names of dcgm-exporter that are taken so that a manifest starts unchanged, and
//! that mean nothing here.

use std::ffi::{OsStr, OsString};

use clap::{ArgAction, Command, CommandFactory};

/// A flag of dcgm-exporter without a meaning here.
struct Idle {
    name: &'static str,
    short: Option<char>,
    env: &'static str,
    /// Whether it has a value.
    has_value: bool,
    /// What stands in its place.
    instead: &'static str,
}

const IDLE: &[Idle] = &[
    idle("cpu-devices", Some('p'), "DCGM_EXPORTER_CPU_DEVICES_STR", NOT_NVML),
    idle("switch-devices", Some('s'), "DCGM_EXPORTER_OTHER_DEVICES_STR", NOT_NVML),
    idle("remote-hostengine-info", Some('r'), "DCGM_REMOTE_HOSTENGINE_INFO", NO_ENGINE),
    idle("dcgm-log-level", None, "DCGM_EXPORTER_DCGM_LOG_LEVEL", NO_ENGINE),
    switch("enable-dcgm-log", "DCGM_EXPORTER_ENABLE_DCGM_LOG", NO_ENGINE),
    switch("dump-enabled", "DCGM_EXPORTER_DUMP_ENABLED", DEBUG),
    idle("dump-directory", None, "DCGM_EXPORTER_DUMP_DIRECTORY", DEBUG),
    idle("dump-retention", None, "DCGM_EXPORTER_DUMP_RETENTION", DEBUG),
    switch("dump-compression", "DCGM_EXPORTER_DUMP_COMPRESSION", DEBUG),
    switch("disable-startup-validate", "DISABLE_STARTUP_VALIDATE", "a driver is waited for"),
    switch("enable-gpu-bind-unbind-watch", "DCGM_EXPORTER_ENABLE_GPU_BIND_UNBIND_WATCH", REBOUND),
    idle(
        "gpu-bind-unbind-poll-interval",
        None,
        "DCGM_EXPORTER_GPU_BIND_UNBIND_POLL_INTERVAL",
        REBOUND,
    ),
    switch("enable-pprof", "DCGM_EXPORTER_ENABLE_PPROF", "there is no profile to serve"),
    idle("config-file", None, "DCGM_EXPORTER_CONFIG_FILE", "it is not read; give flags instead"),
    idle("container-labels", None, "DCGM_EXPORTER_CONTAINER_LABELS", NO_RUNTIME),
    idle("container-runtime-socket", None, "DCGM_CONTAINER_RUNTIME_SOCKET", NO_RUNTIME),
    switch("enable-exporter-metrics", "DCGM_EXPORTER_ENABLE_EXPORTER_METRICS", OWN),
];

const NOT_NVML: &str = "only GPUs are read";
const NO_ENGINE: &str = "there is no host engine; NVML is read directly";
const DEBUG: &str = "--debug logs more";
const REBOUND: &str = "GPUs that come and go are always noticed";
const NO_RUNTIME: &str =
    "container runtimes are not asked; --kubernetes-enable-pod-labels has labels of pods";
const OWN: &str = "the nvml_exporter_* series are always there";

const fn idle(
    name: &'static str,
    short: Option<char>,
    env: &'static str,
    instead: &'static str,
) -> Idle {
    Idle { name, short, env, has_value: true, instead }
}

const fn switch(name: &'static str, env: &'static str, instead: &'static str) -> Idle {
    Idle { name, short: None, env, has_value: false, instead }
}

/// What remains of a command line without the flags that mean nothing here, with a remark on each
/// of those that are given, here or by the environment. A long flag may have one hyphen only.
pub fn sift<C: CommandFactory>(
    args: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> (Vec<OsString>, Vec<String>) {
    let command = C::command();
    let longs: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let is_long = |name: &str| longs.contains(&name) || IDLE.iter().any(|idle| idle.name == name);
    let (mut kept, mut remarks) = (Vec::new(), Vec::new());
    let mut args = args.into_iter();
    kept.extend(args.next());
    while let Some(arg) = args.next() {
        let Some(arg) = decided(doubled(arg, is_long), &command) else { continue };
        match given(&arg) {
            Some((idle, has_own_value)) => {
                remarks.push(format!("--{}: {}", idle.name, idle.instead));
                if idle.has_value && !has_own_value {
                    args.next();
                }
            }
            None => kept.push(arg),
        }
    }
    for idle in IDLE.iter().filter(|idle| environment(idle.env).is_some_and(|v| means_it(&v))) {
        remarks.push(format!("{}: {}", idle.env, idle.instead));
    }
    (kept, remarks)
}

/// `-kubernetes` as `--kubernetes`, which is the same to dcgm-exporter.
fn doubled(arg: OsString, is_long: impl Fn(&str) -> bool) -> OsString {
    let single = arg.to_str().and_then(|text| text.strip_prefix('-'));
    let name = single.map(|rest| rest.split_once('=').map_or(rest, |(name, _)| name));
    match (single, name) {
        (Some(rest), Some(name)) if name.len() > 1 && is_long(name) => format!("--{rest}").into(),
        _ => arg,
    }
}

/// A switch without a value: `--kubernetes=true` turns it on and `--kubernetes=false` does nothing.
fn decided(arg: OsString, command: &Command) -> Option<OsString> {
    let Some((name, value)) = arg.to_str().and_then(|text| text.split_once('=')) else {
        return Some(arg);
    };
    let is_switch = |arg: &clap::Arg| {
        let long = name.strip_prefix("--").is_some_and(|name| arg.get_long() == Some(name));
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

/// The idle flag that an argument is, and whether it has its value in itself.
fn given(arg: &OsStr) -> Option<(&'static Idle, bool)> {
    let text = arg.to_str()?;
    let (name, has_value) = text.split_once('=').map_or((text, false), |(name, _)| (name, true));
    IDLE.iter().find_map(|idle| {
        let long = name.strip_prefix("--") == Some(idle.name);
        let short = idle.short.and_then(|short| name.strip_prefix('-')?.strip_prefix(short));
        match short {
            Some(rest) => Some((idle, has_value || !rest.is_empty())),
            None => long.then_some((idle, has_value)),
        }
    })
}

/// A variable that is empty or says no asks for nothing.
fn means_it(value: &OsStr) -> bool {
    let text = value.to_string_lossy().to_ascii_lowercase();
    !matches!(&*text, "" | "0" | "f" | "false" | "none")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Args;
    use super::*;

    #[derive(Parser)]
    struct All {
        #[command(flatten)]
        _args: Args,
    }

    fn sifted(args: &[&str], environment: &[(&str, &str)]) -> (String, Vec<String>) {
        let args = ["x"].iter().chain(args).map(OsString::from);
        let variable = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        };
        let (kept, remarks) = sift::<All>(args, variable);
        let kept: Vec<_> = kept.iter().skip(1).map(|arg| arg.to_string_lossy()).collect();
        (kept.join(" "), remarks)
    }

    #[test]
    fn flags_without_a_meaning_are_taken_with_their_values_and_remarked() {
        let args = ["-r", "localhost:5555", "-k", "--dump-enabled", "--dump-directory=/x", "-pf"];
        let (kept, remarks) = sifted(&args, &[]);
        assert_eq!(kept, "-k");
        assert_eq!(
            remarks,
            [
                "--remote-hostengine-info: there is no host engine; NVML is read directly",
                "--dump-enabled: --debug logs more",
                "--dump-directory: --debug logs more",
                "--cpu-devices: only GPUs are read",
            ]
        );
    }

    #[test]
    fn one_hyphen_will_do() {
        let args = ["-collectors", "/a.csv", "-kubernetes=true", "-f", "b", "-k=false", "-o=1"];
        assert_eq!(sifted(&args, &[]).0, "--collectors /a.csv --kubernetes -f b -o");
    }

    #[test]
    fn an_environment_that_says_no_is_not_remarked() {
        let environment = [
            ("DCGM_EXPORTER_ENABLE_PPROF", "true"),
            ("DCGM_EXPORTER_DUMP_ENABLED", "false"),
            ("DCGM_REMOTE_HOSTENGINE_INFO", ""),
        ];
        assert_eq!(
            sifted(&[], &environment).1,
            ["DCGM_EXPORTER_ENABLE_PPROF: there is no profile to serve"]
        );
    }

    #[test]
    fn no_flag_of_ours_is_called_idle() {
        let command = All::command();
        for arg in command.get_arguments() {
            let idle = |idle: &&Idle| {
                arg.get_long() == Some(idle.name)
                    || (idle.short.is_some() && arg.get_short() == idle.short)
            };
            assert!(IDLE.iter().find(idle).is_none(), "{arg:?}");
        }
    }
}
