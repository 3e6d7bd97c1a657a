//! The composition root: threads, tasks, channels, and the end of it all.

mod checking;
mod patience;
mod sampling;
mod signals;
#[cfg(feature = "top")]
pub mod top;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, bail};
use tokio::sync::watch;

pub use self::checking::check;
use self::sampling::Sampling;
use crate::args::dcgm_exporter::LogFormat;
use crate::args::{Config, ReadConfig, ServeConfig};
use crate::clock::Clock;
use crate::listing;
use crate::output::print;
use crate::seal::seal;
use crate::selection::preset;
use crate::serve::Site;

/// Serves as the configuration says, until told to stop; or prints one page.
///
/// # Errors
/// What keeps the exporter from serving, or `--once` from printing; a driver that is not there
/// keeps it from neither serving nor waiting for the driver.
pub fn serve(config: Config) -> anyhow::Result<()> {
    let Config { read, serve, once, debug, log_format, remarks } = config;
    start_log(if debug { tracing::Level::DEBUG } else { tracing::Level::INFO }, log_format);
    for remark in remarks {
        tracing::warn!("{remark}");
    }
    // Before any thread or library, so that it holds for all of them.
    if let Err(error) = seal() {
        tracing::warn!(%error, "programs could be executed, though none is");
    }
    let clock = Clock::start();
    let max_age = read.max_age;
    let (read, stage) = read.staged()?;
    let sampling = Sampling::set_up(read, stage, clock)?;
    if once {
        return sampling.print_once();
    }
    let ServeConfig { addresses, own_path, landing, web, systemd_socket } = serve;
    let listener = if systemd_socket { handed_over()? } else { listen(&addresses)? };
    tracing::info!(address = %listener.local_addr()?, "serving");
    let (publish, published) = watch::channel(None);
    let (order, orders) = mpsc::channel();
    let reload = sampling.reload();
    let refused = sampling.refused();
    let sampler = thread::Builder::new()
        .name("sampler".to_owned())
        .spawn(move || sampling.publish_until_told(&orders, &publish))?;
    let site = Site { published, max_age, clock, own_path, landing, refused };
    signals::serve_until_told(listener, reload, order, site, web)?;
    // Bounded: a cycle ends by its deadline, and so does the wait for calls in flight.
    if sampler.join().is_err() {
        bail!("the sampling thread has panicked; this is a defect, please report it");
    }
    Ok(())
}

/// Prints the catalogue, with what the configuration shows of it.
///
/// # Errors
/// A counters file that cannot be used, or standard output.
pub fn list(read: ReadConfig, form: listing::Form) -> anyhow::Result<()> {
    let requests = match read.counters {
        Some(source) => source.read()?.requests,
        None => preset(&read.schema.dialect),
    };
    let text = listing::listing(form, &requests)?;
    print(text.as_bytes())
}

/// Writes an error and its causes to standard error, in one line.
pub fn complain(error: &anyhow::Error) {
    say(&format!("{error:#}"));
}

/// Tells whoever looks on, on standard error.
fn say(text: &str) {
    // There is nowhere left to complain to if this fails.
    let _ = writeln!(io::stderr(), "nvml-exporter: {text}");
}

fn start_log(level: tracing::Level, format: LogFormat) {
    let log =
        tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

fn listen(addresses: &[SocketAddr]) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(addresses).with_context(|| {
        let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("--address {}: cannot listen; is another exporter running there?", all.join(", "))
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The socket that systemd hands over.
fn handed_over() -> anyhow::Result<TcpListener> {
    let mut handed = listenfd::ListenFd::from_env();
    let listener = handed.take_tcp_listener(0).context("--web-systemd-socket")?;
    let listener = listener.context(
        "--web-systemd-socket: no listening TCP socket is handed over; give ListenStream= a port",
    )?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
