//! The subcommand `record`: writes what the node returns as a scenario of the mock.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};

use super::interrupt::Interrupt;
use super::pipeline::Pipeline;
use super::slow_notice::SlowNotice;
use super::{eprint_line, install_seccomp_filter, start_log};
use crate::args::{Args, Config, ReadConfig};
use crate::clock::Clock;
use crate::host::ProcRoot;
use crate::host::pci_bus::PciBus;
use crate::model::Problem;
use crate::nvml::Session;
use crate::nvml::mock::{MockEnv, RecorderEnv};
use crate::nvml::open_step::OpenProgress;
use crate::policy;
use crate::record::NodeRecord;
use crate::record::names::Names;
use crate::record::processes;
use crate::render::{self, PageScope};
use crate::snapshot::Snapshot;

/// Flags of `record`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Record")]
pub struct RecordArgs {
    /// File to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// Time to record, for events and utilization; the last cycle is what is played
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,

    /// Do not replace names of the node: UUIDs, serial numbers, PCI bus ids, and names of node, namespaces,
    /// pods, containers and processes
    #[arg(long)]
    keep_names: bool,

    /// File to write the replaced names to, with what replaces each. Keep it for yourself
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,

    /// File to write the exposition of the last cycle to, with all families and replaced names
    #[arg(long, value_name = "FILE")]
    exposition: Option<PathBuf>,
}

/// Records the node.
///
/// # Errors
/// Flags are invalid, there is no driver or no GPU, or a file cannot be written.
pub fn record(args: Args, record: &RecordArgs) -> anyhow::Result<()> {
    let Config { read, serve: _, once: _, log_level: _, log_format, warnings } =
        args.into_config()?;
    start_log(tracing::Level::ERROR, log_format);
    for warning in &warnings {
        eprint_line(warning);
    }
    install_seccomp_filter();
    let clock = Clock::start();
    let interrupt = Interrupt::start(read.mock.is_some())?;
    let (read, mock_env) = read.with_mock_env(interrupt.files())?;
    let recorder = RecorderEnv::set_up(&driver_library(&read)?, mock_env.as_ref())?;
    let kept: Vec<String> =
        read.allocation_options.reservation_namespaces.iter().map(ToString::to_string).collect();
    let read = ReadConfig { library: vec![recorder.library()], ..read };
    let (node, exposition) = run(read, mock_env, &recorder, clock, record.seconds)?;
    let mut names = Names::new(record.keep_names, kept);
    let about = "Recorded by nvml-exporter record";
    write(&record.output, &node.to_scenario(&mut names, about))?;
    eprint_line(&format!("{}: written; play it with --mock=<file>", record.output.display()));
    if let Some(path) = &record.names {
        let line = |(original, replaced): (&str, &str)| format!("{original}\t{replaced}\n");
        write(path, &names.replaced().map(line).collect::<String>())?;
    }
    if let Some(path) = &record.exposition {
        write(path, &names.replace_labels(&exposition))?;
    }
    Ok(())
}

/// The library of the driver. It is initialized, so that an error is that of the driver.
fn driver_library(read: &ReadConfig) -> anyhow::Result<PathBuf> {
    let source = read.driver_source();
    if let Some(bus) = source.pci_bus.as_ref().and_then(PciBus::devices_without_gpu) {
        let message =
            format!("nothing to record: none of the {bus} devices on the PCI bus is an NVIDIA GPU");
        return Err(Problem::new(message, "run it on a node with a GPU").into());
    }
    let _notice = SlowNotice::start("the driver", policy::ONCE_STARTUP_TIMEOUT)?;
    let root = source.proc_root.path().to_owned();
    let opened = Session::open(&source.libraries, &root, &OpenProgress::default());
    let (session, _closed) = opened.map_err(|error| error.problem())?;
    Ok(session.file.clone())
}

/// Runs the cycles; returns what was recorded and the exposition of the last cycle.
fn run(
    read: ReadConfig,
    mock_env: Option<MockEnv>,
    recorder: &RecorderEnv,
    clock: Clock,
    seconds: u32,
) -> anyhow::Result<(NodeRecord, String)> {
    let proc_root = ProcRoot::new(&read.proc_root());
    let mut pipeline = Pipeline::start(read, mock_env, clock)?;
    let progress = |left: Duration| eprint_line(&format!("recording, {} s left", left.as_secs()));
    let published = pipeline.record(Duration::from_secs(seconds.into()), progress)?;
    let snapshot = published.snapshot();
    ensure_gpus(snapshot)?;
    let driver = recorder.answers()?;
    let node = NodeRecord {
        processes: processes::read(&proc_root, &processes::listed_pids(&driver)),
        driver,
        in_init_pid_namespace: proc_root.in_init_pid_namespace(),
        cluster: pipeline.cluster_record(),
    };
    let exposition = render::exposition(&Arc::new(snapshot.clone()), PageScope::All)?;
    pipeline.close();
    Ok((node, String::from_utf8_lossy(exposition.as_bytes()).into_owned()))
}

fn ensure_gpus(snapshot: &Snapshot) -> anyhow::Result<()> {
    if let Err(reason) = snapshot.ready() {
        bail!("nothing to record: {reason}");
    }
    if snapshot.tables.devices.is_empty() {
        bail!("nothing to record: the driver is up and lists no GPU");
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
