//! Serves HTTP/1.1 on one connection, with or without TLS.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::AppState;
use super::connection::DeadlineStream;
use super::connection_limit::ConnectionPermit;
use super::handler::respond;
use super::reject_counters::RejectReason;
use super::web_config_reload::LiveWebConfig;
use crate::policy;
use crate::web_config::refused_client_certificate;

/// What a connection reads when a request arrives, and what ends it.
#[derive(Clone)]
pub(super) struct ConnectionContext {
    pub(super) state: Arc<AppState>,
    pub(super) config: watch::Receiver<Arc<LiveWebConfig>>,
    /// The reasons for refused client certificates that were logged: each once, because any client can cause
    /// them.
    pub(super) logged: Arc<Mutex<BTreeSet<&'static str>>>,
    /// Notified at shutdown, which waits until all connections have dropped theirs.
    pub(super) shutdown: watch::Receiver<()>,
}

impl ConnectionContext {
    /// Completes at shutdown, and when the settings of TLS are no longer those of the connection: a client
    /// certificate that is no longer accepted must not remain in use.
    async fn ended(&mut self, accepted_with: Arc<LiveWebConfig>) {
        let is_outdated = |live: &Arc<LiveWebConfig>| live.tls_digest != accepted_with.tls_digest;
        let outdated = async {
            // Without a file to reload there is no change.
            if self.config.wait_for(is_outdated).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = self.shutdown.changed() => {}
            () = outdated => {}
        }
    }
}

/// Serves one connection until it ends or is evicted.
pub(super) async fn handle_connection(
    stream: TcpStream,
    permit: Arc<ConnectionPermit>,
    context: ConnectionContext,
) {
    // Without the option, latency is higher; nothing else depends on it.
    let _ = stream.set_nodelay(true);
    let connection = Arc::clone(&permit.connection);
    let refused = Arc::clone(&context.state.rejected);
    let logged = Arc::clone(&context.logged);
    let config = context.config.borrow().clone();
    let served = async {
        let Some(tls) = config.tls.clone() else {
            return serve_http1(stream, &permit, context, config).await;
        };
        match timeout(policy::TLS_HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve_http1(stream, &permit, context, config).await,
            Ok(Err(error)) => {
                refused.increment(RejectReason::Handshake);
                tracing::debug!(%error, "TLS handshake failed");
                log_refused_certificate(&logged, &error);
            }
            Err(_) => refused.increment(RejectReason::Handshake),
        }
    };
    tokio::select! {
        () = served => {}
        () = connection.evicted.notified() => {}
    }
    if let Some(reason) = connection.timed_out() {
        refused.increment(reason);
    }
}

/// Serves one request of its own, so that the calling thread has initialized the thread-locals of the server
/// before a library is loaded: see [`crate::worker::touch_thread_locals`].
///
/// # Errors
/// The OS error of the socket.
pub async fn serve_own_request() -> io::Result<()> {
    let (client, server) = UnixStream::pair()?;
    client.writable().await?;
    client.try_write(b"GET / HTTP/1.0\r\n\r\n")?;
    let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(String::new())) });
    // The server does not need a response.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(server), service).await;
    Ok(())
}

fn log_refused_certificate(logged: &Mutex<BTreeSet<&'static str>>, error: &io::Error) {
    let Some(reason) = refused_client_certificate(error) else { return };
    if logged.lock().unwrap_or_else(PoisonError::into_inner).insert(reason) {
        tracing::warn!("a client certificate is refused: {reason}; further ones are only counted");
    }
}

/// Serves HTTP/1.1 over one stream, with the newest configuration for each request.
async fn serve_http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    permit: &Arc<ConnectionPermit>,
    mut context: ConnectionContext,
    accepted_with: Arc<LiveWebConfig>,
) {
    let ConnectionContext { state, config, .. } = context.clone();
    let (connection, refused) = (Arc::clone(&permit.connection), Arc::clone(&state.rejected));
    let permit = Arc::clone(permit);
    let service = service_fn(move |request: Request<Incoming>| {
        permit.connection.start_response();
        let config = config.borrow().clone();
        let (state, permit) = (Arc::clone(&state), Arc::clone(&permit));
        async move { Ok::<_, Infallible>(respond(&request, &state, &config, &permit).await) }
    });
    let stream = TokioIo::new(DeadlineStream::new(stream, Arc::clone(&connection)));
    let mut served = pin!(
        http1::Builder::new()
            // The stream has the timeouts: those of hyper do not distinguish an idle connection.
            .header_read_timeout(None)
            .max_buf_size(16 * 1024)
            .max_headers(32)
            .serve_connection(stream, service)
    );
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = context.ended(accepted_with) => {
            // Ends after the request in flight.
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        if error.is_parse() {
            refused.increment(RejectReason::Malformed);
        }
        tracing::debug!(%error, "connection ended early");
    }
}
