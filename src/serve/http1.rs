//! Serves HTTP/1.1 on one connection, with or without TLS.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::AppState;
use super::connection::DeadlineStream;
use super::connection_limit::ConnectionPermit;
use super::handler::respond;
use super::reject_counters::RejectReason;
use super::web_config_reload::LiveWebConfig;
use crate::policy;

/// Serves one connection until it ends or is evicted.
pub(super) async fn handle_connection(
    stream: TcpStream,
    permit: Arc<ConnectionPermit>,
    state: Arc<AppState>,
    config: Arc<LiveWebConfig>,
    watcher: Watcher,
) {
    // Without the option, latency is higher; nothing else depends on it.
    let _ = stream.set_nodelay(true);
    let connection = Arc::clone(&permit.connection);
    let refused = Arc::clone(&state.rejected);
    let served = async {
        let Some(tls) = config.tls.clone() else {
            return serve_http1(stream, &permit, state, config, watcher).await;
        };
        match timeout(policy::TLS_HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve_http1(stream, &permit, state, config, watcher).await,
            Ok(Err(error)) => {
                refused.increment(RejectReason::Handshake);
                tracing::debug!(%error, "TLS handshake failed");
            }
            Err(_) => refused.increment(RejectReason::Handshake),
        }
    };
    tokio::select! {
        () = served => {}
        () = connection.evicted.notified() => {}
    }
    if connection.has_timed_out() {
        refused.increment(RejectReason::WriteTimeout);
    }
}

/// Serves HTTP/1.1 over one stream. On shutdown, `watcher` ends it after the request in flight.
async fn serve_http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    permit: &Arc<ConnectionPermit>,
    state: Arc<AppState>,
    config: Arc<LiveWebConfig>,
    watcher: Watcher,
) {
    let (connection, refused) = (Arc::clone(&permit.connection), Arc::clone(&state.rejected));
    let (permit, read_timeout) = (Arc::clone(permit), state.timeouts.read);
    let service = service_fn(move |request: Request<Incoming>| {
        permit.connection.start_response(state.timeouts.write);
        let (state, config, permit) =
            (Arc::clone(&state), Arc::clone(&config), Arc::clone(&permit));
        async move { Ok::<_, Infallible>(respond(&request, &state, &config, &permit).await) }
    });
    let stream = TokioIo::new(DeadlineStream::new(stream, Arc::clone(&connection)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(read_timeout)
        .max_buf_size(16 * 1024)
        .max_headers(32)
        .serve_connection(stream, service);
    if let Err(error) = watcher.watch(served).await {
        if error.is_parse() {
            refused.increment(RejectReason::Malformed);
        } else if error.is_timeout() && connection.is_receiving() {
            refused.increment(RejectReason::ReadTimeout);
        }
        tracing::debug!(%error, "connection ended early");
    }
}
