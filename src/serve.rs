//! HTTP server: serves the newest published snapshot. A request never reads NVML, files or the cluster.

pub mod listener;
pub mod reject_counters;
pub mod routes;
pub mod web_config_health;
pub mod web_config_reload;

mod auth;
mod connection;
mod connection_limit;
mod handler;
mod http1;
mod peer;
mod rate_limit;
mod response;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::connection_limit::{Admission, ConnectionLimiter, ConnectionPermit};
pub use self::http1::serve_own_request;
use self::http1::{ConnectionContext, handle_connection};
use self::peer::Peer;
use self::reject_counters::{RejectCounters, RejectReason};
use self::routes::Routes;
use self::web_config_health::WebConfigHealth;
use self::web_config_reload::LiveWebConfig;
use crate::clock::Clock;
use crate::policy;
use crate::publish::Published;
use crate::web_config::WebConfig;

const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Retry-After: 1\r\nConnection: close\r\nContent-Length: 21\r\n\r\ntoo many connections\n";

/// Timeouts of requests and responses.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For reading a request.
    pub read: Duration,
    /// For writing a response.
    pub write: Duration,
}

/// State that all requests share.
pub struct AppState {
    /// The newest snapshot; `None` before the first cycle.
    pub published: watch::Receiver<Option<Arc<Published>>>,
    /// Maximum age of a snapshot; GPU readings of an older one are not served.
    pub max_age: Duration,
    /// Maximum age of a snapshot while the sampling thread is alive.
    pub liveness_max_age: Duration,
    /// Clock that the age is measured with.
    pub clock: Clock,
    /// The paths that are served.
    pub routes: Routes,
    /// Timeouts of requests and responses.
    pub timeouts: Timeouts,
    /// Counters of refused connections and requests.
    pub rejected: Arc<RejectCounters>,
    /// Whether the web configuration can be read.
    pub web_config_health: Arc<WebConfigHealth>,
}

/// Serves until `stop` completes, then waits at most [`policy::SHUTDOWN_GRACE`] for requests in flight.
pub async fn serve(
    listeners: Vec<TcpListener>,
    state: AppState,
    config: WebConfig,
    stop: impl Future<Output = ()>,
) {
    let (shutdown, shutting_down) = watch::channel(());
    let config = web_config_reload::start(config, state.clock, &state.web_config_health);
    let context = ConnectionContext {
        state: Arc::new(state),
        config,
        logged: Arc::default(),
        shutdown: shutting_down,
    };
    let rejected = &context.state.rejected;
    set_send_buffer_sizes(&listeners);
    let limiter = ConnectionLimiter::new(context.state.timeouts);
    let (mut is_failing, mut listeners) = (false, VecDeque::from(listeners));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&mut listeners) => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, address)) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("connections are accepted again");
                }
                if let Some(permit) = admit(&limiter, address.ip().into(), rejected) {
                    tokio::spawn(handle_connection(stream, Arc::new(permit), context.clone()));
                } else {
                    reject(&stream, &context.config.borrow());
                }
                // Lets the new connection read its request before the next one can evict it.
                tokio::task::yield_now().await;
            }
            // The client has closed the connection already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                rejected.increment(RejectReason::OpenFileLimit);
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "no connection accepted; raise the limit of open files");
                }
                // Frees a file descriptor; an immediate retry would fail again.
                limiter.evict_idle();
                tokio::time::sleep(policy::HTTP_ACCEPT_PAUSE).await;
            }
        }
    }
    drop((listeners, context));
    let _ = shutdown.send(());
    if timeout(policy::SHUTDOWN_GRACE, shutdown.closed()).await.is_err() {
        tracing::warn!("some clients did not finish in time");
    }
}

/// Accepted connections inherit the size. By default the kernel grows the buffer to megabytes for each
/// client that does not read, and charges it to the pod.
fn set_send_buffer_sizes(listeners: &[TcpListener]) {
    for listener in listeners {
        if let Err(error) = set_socket_send_buffer_size(listener, policy::HTTP_SEND_BUFFER) {
            tracing::debug!(%error, "send buffer size not set; the system default applies");
        }
    }
}

/// The next connection of any listener. The one that had a connection is the last of the next call, so
/// that many connections to one do not delay those to others.
async fn accept(listeners: &mut VecDeque<TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|context| {
        for index in 0..listeners.len() {
            if let Some(Poll::Ready(accepted)) =
                listeners.get(index).map(|listener| listener.poll_accept(context))
            {
                listeners.rotate_left(index + 1);
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// The permit of a new connection; `None` if it is refused. Counts a refusal or an eviction.
fn admit(
    limiter: &Arc<ConnectionLimiter>,
    peer: Peer,
    rejected: &RejectCounters,
) -> Option<ConnectionPermit> {
    let permit = match limiter.admit(peer, Instant::now()) {
        Admission::Admitted(permit) => return Some(permit),
        Admission::AdmittedByEviction(permit) => Some(permit),
        Admission::Refused => None,
    };
    rejected.increment(RejectReason::ConnectionLimit);
    permit
}

/// Sends a 503 response without waiting; with TLS the connection is only closed.
fn reject(stream: &TcpStream, config: &LiveWebConfig) {
    if config.tls.is_none() {
        // If the socket is not writable, the client only sees the connection close.
        let _ = stream.try_write(BUSY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_response_has_its_content_length() {
        let (head, body) = std::str::from_utf8(BUSY).unwrap().split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
    }
}
