//! Signals: SIGTERM and SIGINT stop the server, SIGHUP reloads the counters file, SIGUSR1 and SIGUSR2
//! release and reacquire NVML.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use super::interrupt::Interrupt;
use crate::driver_release::ReleaseCommand;
use crate::policy;
use crate::serve::{AppState, serve, serve_own_request};
use crate::web_config::WebConfig;
use crate::worker::touch_thread_locals;

/// The receivers of signals.
pub(super) struct Signals {
    pub(super) interrupt: Interrupt,
    /// Reloads the counters file.
    pub(super) reload: Option<mpsc::Sender<()>>,
    /// Commands of the sampling thread.
    pub(super) command: mpsc::Sender<Option<ReleaseCommand>>,
    /// Dropped when every thread that serves runs.
    pub(super) serving: mpsc::Sender<Infallible>,
}

impl Signals {
    /// Serves until SIGTERM or SIGINT, and forwards the other signals to the threads that handle them. Returns
    /// the time of that signal (monotonic).
    pub(super) fn serve_until_signal(
        self,
        listeners: Vec<TcpListener>,
        state: AppState,
        config: WebConfig,
    ) -> anyhow::Result<Duration> {
        let Self { interrupt: handler, reload, command, serving } = self;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_keep_alive(Duration::MAX)
            .build()
            .context("cannot start the HTTP server; raise the limit of open files")?;
        touch_thread_locals();
        let stopped_at = Cell::new(Duration::ZERO);
        let served = runtime.block_on(async {
            if config.path.is_some() {
                start_blocking_threads().await;
            }
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            tokio::spawn(reload_on_hangup(signal(SignalKind::hangup())?, reload));
            for (kind, release) in [
                (SignalKind::user_defined1(), ReleaseCommand::Release),
                (SignalKind::user_defined2(), ReleaseCommand::Reacquire),
            ] {
                tokio::spawn(forward(signal(kind)?, release, command.clone()));
            }
            handler.finish(true);
            let (clock, at) = (state.clock, &stopped_at);
            let stop = async move {
                tokio::select! {
                    _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
                    _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
                }
                // NVML calls and scrapes in flight finish at the same time. If this fails, the sampling
                // thread has panicked.
                at.set(clock.now().mono);
                let _ = command.send(None);
            };
            let listeners = listeners.into_iter().map(tokio::net::TcpListener::from_std);
            serve_own_request().await?;
            drop(serving);
            serve(listeners.collect::<Result<_, _>>()?, state, config, stop).await;
            Ok(stopped_at.get())
        });
        // A file that does not respond is left behind.
        runtime.shutdown_background();
        served
    }
}

/// Threads of the server for what takes long: one checks a password, the other one reads the web
/// configuration.
const BLOCKING_THREADS: usize = 2;

/// Starts these threads: one that starts while a library is loaded waits for it.
async fn start_blocking_threads() {
    let running = Arc::new((Mutex::new(0), Condvar::new()));
    let start = || {
        let running = Arc::clone(&running);
        spawn_blocking(move || {
            touch_thread_locals();
            // Those of the parser.
            let _ = WebConfig::parse(b"{}", Path::new(""));
            let (count, changed) = &*running;
            let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
            *count += 1;
            changed.notify_all();
            let is_missing = |count: &mut usize| *count < BLOCKING_THREADS;
            // A task that waits keeps its thread from the other task.
            let waited =
                changed.wait_timeout_while(count, policy::THREAD_START_TIMEOUT, is_missing);
            drop(waited);
        })
    };
    let tasks: Vec<_> = (0..BLOCKING_THREADS).map(|_| start()).collect();
    for task in tasks {
        // Without a thread, what needs one fails.
        let _ = task.await;
    }
}

async fn reload_on_hangup(mut hangup: Signal, reload: Option<mpsc::Sender<()>>) {
    while hangup.recv().await.is_some() {
        if let Some(reload) = &reload {
            // The receiving thread ends only with the process.
            let _ = reload.send(());
        } else {
            tracing::info!("SIGHUP: there is no counters file to reload");
        }
    }
}

async fn forward(
    mut signal: Signal,
    release: ReleaseCommand,
    command: mpsc::Sender<Option<ReleaseCommand>>,
) {
    // Ends with the sampling thread or with the runtime.
    while signal.recv().await.is_some() && command.send(Some(release)).is_ok() {}
}
