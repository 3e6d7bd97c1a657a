//! Serving until a signal ends it, and what other signals ask for.

use std::net::TcpListener;
use std::sync::mpsc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::release::Order;
use crate::serve::{Site, Web, serve};

/// Serves, and tells the other threads what signals say.
pub(super) fn serve_until_told(
    listener: TcpListener,
    reload: Option<mpsc::Sender<()>>,
    order: mpsc::Sender<Option<Order>>,
    site: Site,
    web: Web,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(hear_hangups(signal(SignalKind::hangup())?, reload));
        for (kind, means) in [
            (SignalKind::user_defined1(), Order::LetGo),
            (SignalKind::user_defined2(), Order::TakeUp),
        ] {
            tokio::spawn(hear_orders(signal(kind)?, means, order.clone()));
        }
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
                _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
            }
            // Calls into the driver come to their end while scrapes do. The thread may have died.
            let _ = order.send(None);
        };
        serve(tokio::net::TcpListener::from_std(listener)?, site, web, stop).await;
        Ok(())
    })
}

async fn hear_hangups(mut hangup: Signal, reload: Option<mpsc::Sender<()>>) {
    while hangup.recv().await.is_some() {
        if let Some(reload) = &reload {
            // Who follows the file ends only with the process.
            let _ = reload.send(());
        } else {
            tracing::info!("SIGHUP: there is no counters file to read again");
        }
    }
}

async fn hear_orders(mut signal: Signal, means: Order, order: mpsc::Sender<Option<Order>>) {
    // It ends with the sampling thread, or with the runtime.
    while signal.recv().await.is_some() && order.send(Some(means)).is_ok() {}
}
