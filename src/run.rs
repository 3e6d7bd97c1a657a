//! The composition root: starts threads and tasks, connects them by channels, and shuts them down.

mod check;
mod pipeline;
mod signals;
mod slow_notice;
#[cfg(feature = "top")]
pub mod top;

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, anyhow, bail};
use tokio::sync::watch;

pub use self::check::check;
use self::pipeline::Pipeline;
use crate::args::dcgm_exporter::LogFormat;
use crate::args::{Config, ReadConfig, ServeConfig};
use crate::clock::Clock;
use crate::metrics_list;
use crate::seccomp::install_filter;
use crate::selection::preset;
use crate::serve::AppState;
use crate::stdout::print;

/// Serves metrics until a signal stops the process; with `once`, prints them and returns.
///
/// # Errors
/// The mock scenario, a file or the address cannot be used; with `once`, also if there is nothing to
/// print. A missing driver is not an error of serving: the exporter waits for it.
pub fn serve(config: Config) -> anyhow::Result<()> {
    let Config { read, serve, once, debug, log_format, warnings: remarks } = config;
    start_log(if debug { tracing::Level::DEBUG } else { tracing::Level::INFO }, log_format);
    for remark in remarks {
        tracing::warn!("{remark}");
    }
    // Before any thread is started and any library is loaded, so that it applies to all of them.
    install_seccomp_filter();
    let clock = Clock::start();
    let max_age = read.max_age;
    let (read, mock_env) = read.with_mock_env()?;
    let pipeline = Pipeline::start(read, mock_env, clock)?;
    if once {
        return pipeline.print_once();
    }
    let ServeConfig { addresses, own_metrics_path: own_path, landing, server: web, systemd_socket } =
        serve;
    let listener = if systemd_socket { systemd_listener()? } else { listen(&addresses)? };
    tracing::info!(address = %listener.local_addr()?, "serving");
    let (publish, published) = watch::channel(None);
    let (command, commands) = mpsc::channel();
    let reload = pipeline.reload_sender();
    let refused = pipeline.reject_counters();
    let sampler = thread::Builder::new()
        .name("sampler".to_owned())
        .spawn(move || pipeline.run(&commands, &publish))?;
    let state = AppState {
        published,
        max_age,
        clock,
        own_metrics_path: own_path,
        landing,
        rejected: refused,
    };
    signals::serve_until_signal(listener, reload, command, state, web)?;
    // Bounded: a cycle ends by its deadline, and so does the wait for NVML calls in flight.
    if sampler.join().is_err() {
        bail!("the sampling thread panicked; this is a bug, please report it");
    }
    Ok(())
}

/// Prints all series families and marks those that the configuration selects.
///
/// # Errors
/// The counters file cannot be used, or standard output cannot be written.
pub fn list(read: ReadConfig, form: metrics_list::OutputFormat) -> anyhow::Result<()> {
    let requests = match read.counters {
        Some(source) => source.read()?.requests,
        None => preset(&read.schema.dialect),
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
    let _ = writeln!(io::stderr(), "nvml-exporter: {text}");
}

/// The filter is additional protection: without it the exporter works as well.
fn install_seccomp_filter() {
    if let Err(error) = install_filter() {
        tracing::warn!(%error, "no seccomp filter installed, so execve and ptrace are not denied");
    }
}

fn start_log(level: tracing::Level, format: LogFormat) {
    let log =
        tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// Binds the first of the addresses that can be bound.
fn listen(addresses: &[SocketAddr]) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(addresses).map_err(|error| bind_error(addresses, &error))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Reason and remedy of errors of `bind(2)`.
const BIND_ERRORS: [(ErrorKind, &str); 3] = [
    (
        ErrorKind::AddrInUse,
        "another program listens on this port; stop it, or give another --address",
    ),
    (
        ErrorKind::PermissionDenied,
        "a port below 1024 needs the capability CAP_NET_BIND_SERVICE; add it, or give a higher port",
    ),
    (
        ErrorKind::AddrNotAvailable,
        "the address is not one of this host; give an address of a local interface, or :PORT for all",
    ),
];

fn bind_error(addresses: &[SocketAddr], error: &io::Error) -> anyhow::Error {
    let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let all = all.join(", ");
    match BIND_ERRORS.iter().find(|(kind, _)| *kind == error.kind()) {
        Some((_, reason)) => anyhow!("--address {all}: cannot listen: {reason}"),
        None => anyhow!("--address {all}: cannot listen: {error}; give another --address"),
    }
}

/// The listening socket that systemd passes.
fn systemd_listener() -> anyhow::Result<TcpListener> {
    let mut passed = listenfd::ListenFd::from_env();
    let listener = passed.take_tcp_listener(0).map_err(|error| {
        anyhow!(
            "--web-systemd-socket: the first socket of the unit cannot be used ({error}); set \
             ListenStream= to a port"
        )
    })?;
    let listener = listener.context(
        "--web-systemd-socket: systemd passed no listening TCP socket; set ListenStream= to a port",
    )?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bind_errors_name_their_reason() {
        let address = "127.0.0.1:80".parse().unwrap();
        for (kind, expected) in [
            (ErrorKind::AddrInUse, "another program listens"),
            (ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
            (ErrorKind::AddrNotAvailable, "not one of this host"),
            (ErrorKind::OutOfMemory, "out of memory; give another --address"),
        ] {
            let text = bind_error(&[address], &kind.into()).to_string();
            assert!(text.starts_with("--address 127.0.0.1:80: cannot listen: "), "{text}");
            assert!(text.contains(expected), "{text}");
        }
    }
}
