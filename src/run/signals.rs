//! Signals: SIGTERM and SIGINT stop the server, SIGHUP reloads the counters file, SIGUSR1 and SIGUSR2
//! release and reacquire NVML.

use std::net::TcpListener;
use std::sync::mpsc;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::interrupt::Interrupt;
use crate::driver_release::ReleaseCommand;
use crate::serve::{AppState, serve};
use crate::web_config::WebConfig;

/// The receivers of signals.
pub(super) struct Signals {
    pub(super) interrupt: Interrupt,
    /// Reloads the counters file.
    pub(super) reload: Option<mpsc::Sender<()>>,
    /// Commands of the sampling thread.
    pub(super) command: mpsc::Sender<Option<ReleaseCommand>>,
}

impl Signals {
    /// Serves until SIGTERM or SIGINT, and forwards the other signals to the threads that handle them.
    pub(super) fn serve_until_signal(
        self,
        listeners: Vec<TcpListener>,
        state: AppState,
        config: WebConfig,
    ) -> anyhow::Result<()> {
        let Self { interrupt: handler, reload, command } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.context("cannot start the HTTP server; raise the limit of open files")?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            tokio::spawn(reload_on_hangup(signal(SignalKind::hangup())?, reload));
            for (kind, release) in [
                (SignalKind::user_defined1(), ReleaseCommand::Release),
                (SignalKind::user_defined2(), ReleaseCommand::Reacquire),
            ] {
                tokio::spawn(forward(signal(kind)?, release, command.clone()));
            }
            handler.finish();
            let stop = async move {
                tokio::select! {
                    _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
                    _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
                }
                // NVML calls and scrapes in flight finish at the same time. If this fails, the sampling
                // thread has panicked.
                let _ = command.send(None);
            };
            let listeners = listeners.into_iter().map(tokio::net::TcpListener::from_std);
            serve(listeners.collect::<Result<_, _>>()?, state, config, stop).await;
            Ok(())
        })
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
