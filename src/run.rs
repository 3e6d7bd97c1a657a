//! The composition root: starts threads and tasks, connects them by channels, and shuts them down.

mod check;
mod completeness;
mod interrupt;
mod pipeline;
mod record;
mod signals;
mod slow_notice;
#[cfg(feature = "top")]
pub mod top;

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::mpsc::{self, RecvTimeoutError};

use anyhow::{Context, bail};
use tokio::sync::watch;

pub use self::check::check;
use self::interrupt::Interrupt;
use self::pipeline::{Pipeline, serve_config_map};
pub use self::record::{RecordArgs, record};
use self::signals::Signals;
use crate::args::dcgm_exporter::LogFormat;
use crate::args::{Config, ServeConfig};
use crate::clock::Clock;
use crate::metrics_list;
use crate::nvml::raw::process::{exit_process, share_heap};
use crate::policy;
use crate::sample::Sampler;
use crate::sanitize::printable;
use crate::seccomp::install_filter;
use crate::serve::AppState;
use crate::serve::listener::{listen, systemd_listeners};
use crate::stdout::print;
use crate::worker;

/// Context of the error of a thread that cannot be started.
const NO_THREAD: &str = "cannot start a thread; raise the limit of processes (pids.max, ulimit -u)";

/// Serves metrics until a signal stops the process; with `once`, prints them and returns.
///
/// # Errors
/// The mock scenario, a file or the address cannot be used; with `once`, also if there is nothing to
/// print. A missing driver is not an error of serving: the exporter waits for it.
pub fn serve(config: Config) -> anyhow::Result<()> {
    let Config { read, serve, once, log_level, log_format, warnings } = config;
    share_heap();
    start_log(log_level.into(), log_format);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // Before any thread is started and any library is loaded, so that it applies to all of them.
    install_seccomp_filter();
    let clock = Clock::start();
    let interrupt = Interrupt::start(read.mock.is_some())?;
    let (read, mock_env) = read.with_mock_env(interrupt.files())?;
    let (max_age, interval) = (read.max_age, read.interval);
    let pipeline = Pipeline::start(read, mock_env, clock)?;
    if once {
        return pipeline.print_once();
    }
    let listeners = if serve.systemd_socket {
        systemd_listeners()?
    } else {
        serve.addresses.iter().map(|addresses| listen(addresses)).collect::<Result<_, _>>()?
    };
    for listener in &listeners {
        tracing::info!(address = %listener.local_addr()?, "serving");
    }
    let (publish, published) = watch::channel(None);
    let (command, commands) = mpsc::channel();
    let reload = pipeline.reload_sender();
    let (rejected, web_config_health) = (pipeline.reject_counters(), pipeline.web_config_health());
    let (serving, is_serving) = mpsc::channel::<Infallible>();
    let (ended, has_ended) = mpsc::channel();
    worker::spawn("sampler".to_owned(), move || {
        // The library is loaded when every thread that serves runs.
        let _ = is_serving.recv();
        pipeline.run(&commands, &publish);
        let _ = ended.send(());
    })
    .context(NO_THREAD)?;
    let ServeConfig { routes, timeouts, web_config, .. } = serve;
    let state = AppState {
        published,
        max_age,
        liveness_max_age: policy::liveness_max_age(interval),
        clock,
        routes,
        timeouts,
        rejected,
        web_config_health,
    };
    let files = interrupt.files().clone();
    let signals = Signals { interrupt, reload, command, serving };
    let stopped_at = signals.serve_until_signal(listeners, state, web_config)?;
    // A cycle ends by its deadline, and so does the wait for NVML calls in flight; a hang ends here.
    let ended = has_ended.recv_timeout(clock.until(stopped_at + policy::SHUTDOWN_GRACE));
    drop(files.remove());
    if ended == Err(RecvTimeoutError::Disconnected) {
        bail!("the sampling thread panicked; this is a bug, please report it");
    }
    Ok(())
}

/// Ends the process with this exit status.
pub fn exit(status: u8) -> ! {
    exit_process(status)
}

/// Prints all series families and marks those that the configuration selects.
///
/// # Errors
/// The counters file cannot be used, or standard output cannot be written.
pub fn list(config: Config, form: metrics_list::OutputFormat) -> anyhow::Result<()> {
    let Config { read, warnings, .. } = config;
    for warning in &warnings {
        eprint_line(warning);
    }
    let interrupt = Interrupt::start(read.mock.is_some())?;
    let (read, mock_env) = read.with_mock_env(interrupt.files())?;
    let sampler = Sampler::new(Clock::start(), read.interval, read.driver_source());
    let mut sampler = sampler.context(NO_THREAD)?;
    if mock_env.is_some() {
        serve_config_map(&mut sampler, read.counters.as_ref());
    }
    let requests = match read.counters {
        Some(source) => {
            let counters = source.read()?;
            source.remarks(&counters).for_each(|remark| eprint_line(&remark));
            counters.requests
        }
        None => read.preset.requests(&read.schema.dialect),
    };
    let text = metrics_list::list_metrics(form, &requests)?;
    print(text.as_bytes())
}

/// Writes an error and its causes to standard error, as one line.
pub fn report_error(error: &anyhow::Error) {
    eprint_line(&format!("{error:#}"));
}

fn eprint_line(text: &str) {
    // A failure cannot be reported anywhere else.
    let _ = writeln!(io::stderr(), "nvml-exporter: {}", printable(text));
}

/// Writes each event as one line to standard error, whatever text is part of it.
struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if worker::is_touching_thread_locals() {
            return Ok(event.len());
        }
        let text = String::from_utf8_lossy(event);
        let line = printable(text.strip_suffix('\n').unwrap_or(&text));
        io::stderr().write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The filter is additional protection: without it the exporter works as well.
fn install_seccomp_filter() {
    if let Err(error) = install_filter() {
        tracing::warn!(%error, "no seccomp filter installed, so execve and ptrace are not denied");
    }
}

fn start_log(level: tracing::Level, format: LogFormat) {
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| LogWriter)
        .with_target(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
