//! Parses flags and their environment variables into [`Config`].

mod cluster;
mod config;
pub mod dcgm_exporter;
pub mod driver_release;
pub mod ignored_flags;
pub mod log_level;
mod mock_node;
mod series;
mod time;
pub mod web;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::BoolishValueParser;

use self::cluster::ClusterArgs;
pub use self::config::{Config, ReadConfig, ServeConfig};
use self::dcgm_exporter::DcgmArgs;
use self::driver_release::ReleaseArgs;
use self::log_level::LogLevel;
use self::series::SeriesArgs;
use self::time::{milliseconds, within};
use self::web::ServeArgs;
use crate::model::Problem;
use crate::nvml::library_paths;
use crate::policy;
use crate::worker;

/// Command-line flags of the exporter.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Interval between collection cycles: milliseconds, or a duration such as 5s; at least 100 ms
    #[arg(
        short,
        long,
        env = "DCGM_EXPORTER_INTERVAL",
        value_name = "TIME",
        default_value = "5000",
        value_parser = milliseconds
    )]
    collect_interval: Duration,

    /// Maximum age of a reading while its NVML call does not return: milliseconds, or a duration such as
    /// 15s; older readings are not served [default: three intervals, at least 15000]
    #[arg(
        long,
        env = "NVML_EXPORTER_MAX_AGE",
        value_name = "TIME",
        value_parser = milliseconds
    )]
    max_age: Option<Duration>,

    #[command(flatten)]
    series: SeriesArgs,

    /// Simulate a node with the mock library: name of a built-in scenario or path of a scenario file
    #[arg(
        long,
        env = "NVML_EXPORTER_MOCK",
        value_name = "SCENARIO",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "demo",
        conflicts_with = "nvml_library"
    )]
    mock: Option<String>,

    /// Path of libnvidia-ml.so.1 [default: search path of the dynamic loader, then common directories]
    #[arg(long, env = "NVML_EXPORTER_NVML_LIBRARY", value_name = "PATH")]
    nvml_library: Option<PathBuf>,

    /// Directory to read as /proc [default: /proc; with --mock, the simulated one]
    #[arg(long, env = "NVML_EXPORTER_PROCFS", value_name = "DIR")]
    procfs: Option<PathBuf>,

    /// Directory to read as /sys [default: /sys; with --mock, the simulated one]
    #[arg(long, env = "NVML_EXPORTER_SYSFS", value_name = "DIR")]
    sysfs: Option<PathBuf>,

    /// Report the driver as down on a node without an NVIDIA GPU on its PCI bus
    #[arg(long, env = "NVML_EXPORTER_REQUIRE_GPU", value_parser = BoolishValueParser::new())]
    require_gpu: bool,

    #[command(flatten)]
    cluster: ClusterArgs,

    #[command(flatten)]
    dcgm: DcgmArgs,

    #[command(flatten)]
    release: ReleaseArgs,

    #[command(flatten)]
    serve: ServeArgs,

    /// Print the metrics once to standard output and exit
    #[arg(long)]
    once: bool,

    /// Enable debug logging; same as `--log-level debug`
    #[arg(long, env = "DCGM_EXPORTER_DEBUG", value_parser = BoolishValueParser::new())]
    debug: bool,

    /// Least severe level that is logged
    #[arg(
        long,
        alias = "log.level",
        env = "NVML_EXPORTER_LOG_LEVEL",
        value_enum,
        ignore_case = true,
        default_value = "info"
    )]
    log_level: LogLevel,

    /// Warnings about ignored flags and environment variables.
    #[arg(skip)]
    warnings: Vec<String>,
}

impl Args {
    /// Adds warnings to be logged at startup.
    #[must_use]
    pub fn with_warnings(self, remarks: Vec<String>) -> Self {
        Self { warnings: remarks, ..self }
    }

    /// Validates the flags against each other and derives the values of flags that were not set.
    ///
    /// # Errors
    /// A flag has an invalid value; the message names the flag, the value and the remedy.
    pub fn into_config(mut self) -> Result<Config, Problem> {
        let interval =
            within(INTERVAL, self.collect_interval, "--collect-interval", &mut self.warnings);
        let windows = self.dcgm.count_windows(&mut self.warnings);
        let dcgm = &self.dcgm;
        check_directory("--procfs", self.procfs.as_deref(), "<pid>/stat")?;
        check_directory("--sysfs", self.sysfs.as_deref(), "bus/pci")?;
        self.cluster.check_kubelet_url()?;
        let schema = self.series.schema(dcgm.versions(), dcgm.label_options())?;
        let release_triggers = self.release.into_triggers()?;
        let release_label = release_triggers.label.clone();
        let read = ReadConfig {
            interval,
            max_age: checked_max_age(self.max_age, interval)?,
            preset: self.series.preset(),
            max_process_series: self.series.max_process_series(),
            counters: dcgm.counters(self.cluster.pod_source())?,
            selection_scope: dcgm.selection_scope(&schema.dialect, windows)?,
            device_pods: dcgm.device_pods()?,
            job_directory: dcgm.job_directory(),
            mock: self.mock.or_else(|| dcgm.fake_gpus.then(|| "demo".to_owned())),
            library: library_paths(self.nvml_library.as_deref()),
            process_series: self.series.process_series(),
            allocation_options: self.cluster.allocation_options(),
            cluster: self.cluster.into_sources(&schema, release_label, &mut self.warnings)?,
            release_triggers,
            procfs: self.procfs,
            sysfs: self.sysfs,
            require_gpu: self.require_gpu,
            schema,
        };
        Ok(Config {
            serve: self.serve.into_config(&read.schema.dialect)?,
            read,
            once: self.once,
            log_level: if self.debug { LogLevel::Debug } else { self.log_level },
            log_format: self.dcgm.log_format,
            warnings: self.warnings,
        })
    }
}

fn check_directory(flag: &str, path: Option<&Path>, content: &str) -> Result<(), Problem> {
    let Some(path) = path.map(Path::to_owned) else { return Ok(()) };
    let message = |detail: &str| format!("{flag} {}: {detail}", path.display());
    let directory = path.clone();
    match worker::call_in_time(policy::FILE_STARTUP_TIMEOUT, move || directory.is_dir()) {
        Some(true) => Ok(()),
        Some(false) => Err(Problem::new(
            message("no such directory"),
            format!("give the directory that contains {content}"),
        )),
        None => Err(Problem::new(message("the file system does not respond"), "check its mount")),
    }
}

/// Possible intervals between collection cycles.
const INTERVAL: RangeInclusive<Duration> = policy::MIN_INTERVAL..=Duration::from_secs(3600);

fn checked_max_age(max_age: Option<Duration>, interval: Duration) -> Result<Duration, Problem> {
    let Some(max_age) = max_age else {
        return Ok(policy::default_max_age(interval));
    };
    if max_age < interval {
        let message = format!(
            "--max-age {}: shorter than --collect-interval {}, so readings would be dropped before \
             the next cycle",
            max_age.as_millis(),
            interval.as_millis()
        );
        return Err(Problem::new(message, "give at least the interval"));
    }
    Ok(max_age)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    #[command(args_override_self = true)]
    struct TestCli {
        #[command(flatten)]
        args: Args,
    }

    fn config(args: &[&str]) -> anyhow::Result<Config> {
        Ok(TestCli::try_parse_from([&["nvml-exporter"], args].concat())?.args.into_config()?)
    }

    fn error(args: &[&str]) -> String {
        format!("{:#}", config(args).err().unwrap())
    }

    #[test]
    fn defaults() {
        let Config { read, serve, once, .. } = config(&[]).unwrap();
        assert_eq!(read.interval, Duration::from_secs(5));
        assert_eq!(read.max_age, Duration::from_secs(15));
        assert_eq!(serve.addresses[0][0].to_string(), "[::]:9400");
        assert_eq!(serve.addresses[0][1].to_string(), "0.0.0.0:9400");
        assert!(read.mock.is_none() && !once);
    }

    #[test]
    fn times_are_milliseconds_or_durations_and_moved_into_their_range() {
        for (text, used, remark) in [
            ("5000", 5000, None),
            ("5s", 5000, None),
            ("1m30s", 90_000, None),
            ("250ms", 250, None),
            ("3", 100, Some("--collect-interval 3: raised to 100 ms, the minimum")),
            ("0", 100, Some("--collect-interval 0: raised to 100 ms, the minimum")),
            (
                "2h",
                3_600_000,
                Some("--collect-interval 7200000: lowered to 3600000 ms, the maximum"),
            ),
        ] {
            let Config { read, warnings, .. } = config(&["--collect-interval", text]).unwrap();
            assert_eq!(read.interval, Duration::from_millis(used), "{text}");
            assert_eq!(warnings.first().map(String::as_str), remark, "{text}");
        }
        let Config { read, warnings, .. } = config(&["-x=1", "--max-age=30s"]).unwrap();
        assert_eq!(read.max_age, Duration::from_secs(30));
        assert_eq!(read.selection_scope.windows.xids, Duration::from_secs(1));
        assert_eq!(warnings, ["--xid-count-window-size 1: raised to 1000 ms, the minimum"]);
    }

    #[test]
    fn mock_without_value_selects_the_demo_scenario() {
        assert_eq!(config(&["--mock"]).unwrap().read.mock.as_deref(), Some("demo"));
        assert_eq!(config(&["--mock=faulty"]).unwrap().read.mock.as_deref(), Some("faulty"));
    }

    #[test]
    fn hostname_defaults_to_the_node_name() {
        let named = config(&["--node-name", "n1"]).unwrap().read.schema;
        assert_eq!((&*named.hostname, &*named.node_name), ("n1", "n1"));
        let both = config(&["--node-name", "n1", "--hostname", "h1"]).unwrap().read.schema;
        assert_eq!((&*both.hostname, &*both.node_name), ("h1", "n1"));
        assert!(!config(&[]).unwrap().read.schema.hostname.is_empty());
    }

    #[test]
    fn invalid_flag_values_are_refused_with_flag_and_remedy() {
        for (args, expected) in [
            (vec!["--address", "9400"], "--address 9400: not an address; give :PORT or HOST:PORT"),
            (vec!["--address", ":70000"], "--address :70000: not an address; give :PORT"),
            (vec!["--address", "localhost:x"], "--address localhost:x: not an address"),
            (vec!["--collect-interval", "5x"], "give a number of milliseconds, or a duration"),
            (vec!["--collect-interval", "-5"], "unexpected argument"),
            (vec!["--max-age", "x"], "give a number of milliseconds, or a duration such as 5s"),
            (
                vec!["--kubelet-pods", "nonsense"],
                "--kubelet-pods: \"nonsense\" is not a URL; use http",
            ),
            (
                vec!["--mock", "--kubelet-pods", "nonsense"],
                "--kubelet-pods: \"nonsense\" is not a URL",
            ),
            (vec!["--max-age", "10"], "--max-age 10: shorter than --collect-interval 5000"),
            (vec!["--extra-label", "pod=x"], "--extra-label pod: the exporter or the scrape"),
            (vec!["--extra-label", "xid=x"], "--extra-label xid: the exporter or the scrape"),
            (vec!["--extra-label", "UUID=x"], "--extra-label UUID: the exporter or the scrape"),
            (
                vec!["--extra-label", "a=1", "--extra-label", "a=2"],
                "--extra-label a: specified twice",
            ),
            (vec!["--extra-label", "9a=1"], "\"9a\" is not a label name"),
            (vec!["--extra-label", "a"], "expected K=V"),
            (vec!["--procfs", "/no/such"], "--procfs /no/such: no such directory"),
            (
                vec!["--sysfs", "/no/such"],
                "--sysfs /no/such: no such directory; give the directory that",
            ),
            (vec!["--mock", "--nvml-library", "/x"], "cannot be used with"),
            (vec!["--dialect", "dcgm"], "possible values: ack, dcgm-exporter"),
        ] {
            let error = error(&args);
            assert!(error.contains(expected), "{args:?}: {error}");
            assert!(!error.contains("invalid digit"), "{args:?}: {error}");
        }
    }
}
