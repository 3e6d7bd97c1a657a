//! HTTP server: serves the newest published snapshot. A request never reads NVML, files or the cluster.

pub mod reject_counters;
pub mod web_config_reload;

mod auth;
mod connection;
mod connection_limit;
mod peer;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use self::connection::{DeadlineStream, PageRef};
use self::connection_limit::{Admission, ConnectionLimiter, ConnectionPermit};
use self::peer::Peer;
use self::reject_counters::{RejectCounters, RejectReason};
use self::web_config_reload::LiveWebConfig;
use crate::clock::Clock;
use crate::landing;
use crate::policy;
use crate::publish::{Published, ViewFormat};
use crate::render::PageScope;
use crate::web_config::WebConfig;

/// The exposition format of all scrape responses, whatever `Accept` prefers: names of counters of DCGM
/// do not end in `_total`, which `OpenMetrics` requires.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";

const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Retry-After: 1\r\nConnection: close\r\nContent-Length: 21\r\n\r\ntoo many connections\n";

/// All fixed paths, including those that the configuration disables.
pub const PATHS: [&str; 6] = [LANDING, NODE, METRICS, "/healthz", "/health", "/readyz"];
const METRICS: &str = "/metrics";
/// The web UI.
const LANDING: &str = "/";
/// The data of the web UI, as JSON.
const NODE: &str = "/api/v1/node";

#[derive(Clone, Copy)]
enum Route {
    Metrics(PageScope),
    View(ViewFormat),
    Readiness,
    Liveness,
}

impl Route {
    /// Whether the path is for probes, which have no password.
    fn is_probe(self) -> bool {
        matches!(self, Self::Readiness | Self::Liveness)
    }
}

/// Configuration of the HTTP server.
pub struct ServerConfig {
    /// TLS, basic authentication, response headers and rate limit.
    pub web_config: WebConfig,
    /// The file of `config`; it is reloaded when it changes.
    pub file: Option<PathBuf>,
    /// Timeouts of requests and responses.
    pub timeouts: Timeouts,
}

/// Timeouts of requests and responses.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For reading a request; also the lifetime of an idle connection.
    pub read: Duration,
    /// For writing a response.
    pub write: Duration,
}

/// State that all requests share.
#[derive(Clone)]
pub struct AppState {
    /// The newest snapshot; `None` before the first cycle.
    pub published: watch::Receiver<Option<Arc<Published>>>,
    /// Maximum age of a snapshot; GPU readings of an older one are not served.
    pub max_age: Duration,
    /// Clock that the age is measured with.
    pub clock: Clock,
    /// HTTP path of the exporter's own metrics; `None` if they are part of `/metrics`.
    pub own_metrics_path: Option<Arc<str>>,
    /// Whether to serve the web UI and `/api/v1/node`.
    pub landing: bool,
    /// Counters of refused connections and requests.
    pub rejected: Arc<RejectCounters>,
}

impl AppState {
    fn find_route(&self, path: &str) -> Option<Route> {
        match (path, self.own_metrics_path.as_deref()) {
            (METRICS, None) => Some(Route::Metrics(PageScope::All)),
            (METRICS, Some(_)) => Some(Route::Metrics(PageScope::Gpus)),
            ("/readyz", _) => Some(Route::Readiness),
            ("/healthz" | "/health", _) => Some(Route::Liveness),
            (LANDING, _) => self.landing.then_some(Route::View(ViewFormat::Html)),
            (NODE, _) => self.landing.then_some(Route::View(ViewFormat::Json)),
            (path, Some(own)) => (path == own).then_some(Route::Metrics(PageScope::Exporter)),
            (_, None) => None,
        }
    }
}

/// Serves until `stop` completes, then waits at most [`policy::SHUTDOWN_GRACE`] for requests in flight.
pub async fn serve(
    listener: TcpListener,
    state: AppState,
    server: ServerConfig,
    stop: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let (publish, config) = watch::channel(Arc::new(LiveWebConfig::new(server.web_config.clone())));
    if let Some(file) = server.file {
        tokio::spawn(web_config_reload::reload_on_change(file, server.web_config.digest, publish));
    }
    // Accepted connections inherit the size. By default the kernel grows the buffer to megabytes for
    // each client that does not read, and charges it to the pod.
    if let Err(error) = set_socket_send_buffer_size(&listener, policy::HTTP_SEND_BUFFER) {
        tracing::debug!(%error, "send buffer size not set; the system default applies");
    }
    let limiter = ConnectionLimiter::new();
    let mut is_failing = false;
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, address)) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("connections are accepted again");
                }
                let permit = match limiter.admit(Peer::from(address.ip()), Instant::now()) {
                    Admission::Admitted(permit) => Some(permit),
                    Admission::AdmittedByEviction(permit) => {
                        state.rejected.increment(RejectReason::ConnectionLimit);
                        Some(permit)
                    }
                    Admission::Refused => None,
                };
                let config = config.borrow().clone();
                if let Some(permit) = permit {
                    let (state, watcher) = (state.clone(), graceful.watcher());
                    tokio::spawn(handle_connection(
                        stream,
                        Arc::new(permit),
                        state,
                        config,
                        server.timeouts,
                        watcher,
                    ));
                } else {
                    state.rejected.increment(RejectReason::ConnectionLimit);
                    reject(&stream, &config);
                }
                // Lets the new connection read its request before the next one can evict it.
                tokio::task::yield_now().await;
            }
            // The client has closed the connection already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                state.rejected.increment(RejectReason::OpenFileLimit);
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "no connection accepted; raise the limit of open files");
                }
                // Frees a file descriptor; an immediate retry would fail again.
                limiter.evict_idle();
                tokio::time::sleep(policy::HTTP_ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if timeout(policy::SHUTDOWN_GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some clients did not finish in time");
    }
}

/// Sends a 503 response without waiting; with TLS the connection is only closed.
fn reject(stream: &TcpStream, config: &LiveWebConfig) {
    if config.tls.is_none() {
        // If the socket is not writable, the client only sees the connection close.
        let _ = stream.try_write(BUSY);
    }
}

/// Serves one connection until it ends or is evicted.
async fn handle_connection(
    stream: TcpStream,
    permit: Arc<ConnectionPermit>,
    state: AppState,
    config: Arc<LiveWebConfig>,
    timeouts: Timeouts,
    watcher: Watcher,
) {
    // Without the option, latency is higher; nothing else depends on it.
    let _ = stream.set_nodelay(true);
    let connection = Arc::clone(&permit.connection);
    let refused = Arc::clone(&state.rejected);
    let served = async {
        let Some(tls) = config.tls.clone() else {
            return serve_http1(stream, &permit, state, config, timeouts, watcher).await;
        };
        match timeout(policy::TLS_HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve_http1(stream, &permit, state, config, timeouts, watcher).await,
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
    state: AppState,
    config: Arc<LiveWebConfig>,
    timeouts: Timeouts,
    watcher: Watcher,
) {
    let (connection, refused) = (Arc::clone(&permit.connection), Arc::clone(&state.rejected));
    let permit = Arc::clone(permit);
    let service = service_fn(move |request: Request<Incoming>| {
        permit.connection.start_response(timeouts.write);
        let (state, config, permit) = (state.clone(), Arc::clone(&config), Arc::clone(&permit));
        async move {
            Ok::<_, Infallible>(respond(&request, &state, &config, &permit, timeouts.write).await)
        }
    });
    let stream = TokioIo::new(DeadlineStream::new(stream, Arc::clone(&connection)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.read)
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

async fn respond(
    request: &Request<Incoming>,
    state: &AppState,
    config: &LiveWebConfig,
    permit: &ConnectionPermit,
    auth_timeout: Duration,
) -> Response<Full<Bytes>> {
    let mut response = if config.try_acquire(Instant::now()) {
        if let Ok(authenticated) = authenticate(request, config, permit, auth_timeout).await {
            route(request, state, permit, authenticated)
        } else {
            state.rejected.increment(RejectReason::Auth);
            let body = "too many authentication requests; try again later\n";
            text(StatusCode::SERVICE_UNAVAILABLE, body.to_owned())
        }
    } else {
        state.rejected.increment(RejectReason::RateLimit);
        text(StatusCode::TOO_MANY_REQUESTS, "too many requests; try again later\n".to_owned())
    };
    for (name, value) in &config.headers {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

/// Whether the request has valid credentials, or none are required.
///
/// # Errors
/// The password could not be checked within `auth_timeout`.
async fn authenticate(
    request: &Request<Incoming>,
    config: &LiveWebConfig,
    permit: &ConnectionPermit,
    auth_timeout: Duration,
) -> Result<bool, Elapsed> {
    let Some(auth) = &config.basic_auth else { return Ok(true) };
    timeout(auth_timeout, auth.authenticate(permit.connection.peer, request.headers())).await
}

/// The response to a request. Probes have no password: without authentication only the state of
/// liveness and readiness is served, without details.
fn route(
    request: &Request<Incoming>,
    state: &AppState,
    permit: &ConnectionPermit,
    authenticated: bool,
) -> Response<Full<Bytes>> {
    let route = state.find_route(request.uri().path());
    if !authenticated && !route.is_some_and(Route::is_probe) {
        state.rejected.increment(RejectReason::Auth);
        let mut response = text(StatusCode::UNAUTHORIZED, "authentication required\n".to_owned());
        set(
            &mut response,
            header::WWW_AUTHENTICATE,
            "Basic realm=\"nvml-exporter\", charset=\"UTF-8\"",
        );
        return response;
    }
    let Some(route) = route else {
        return text(StatusCode::NOT_FOUND, "not found; metrics are at /metrics\n".to_owned());
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let body = "method not allowed; use GET or HEAD\n";
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, body.to_owned());
        set(&mut response, header::ALLOW, "GET, HEAD");
        return response;
    }
    let gzip = accepts_gzip(request.headers());
    match route {
        Route::Metrics(part) => metrics(state, permit, part, gzip),
        Route::View(form) => view(state, permit, form, gzip),
        Route::Readiness if authenticated => readiness(state),
        Route::Readiness => {
            let status = readiness(state).status();
            let body = if status == StatusCode::OK { "ready\n" } else { "not ready\n" };
            text(status, body.to_owned())
        }
        // Does not depend on the driver: a hanging driver must not cause a restart loop.
        Route::Liveness => text(StatusCode::OK, "ok\n".to_owned()),
    }
}

fn metrics(
    state: &AppState,
    permit: &ConnectionPermit,
    part: PageScope,
    gzip: bool,
) -> Response<Full<Bytes>> {
    let Some(published) = state.published.borrow().clone() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "no sample yet\n".to_owned());
    };
    let body = published.exposition(part, state.clock.now().mono, state.max_age, gzip);
    shared(state, permit, TEXT_FORMAT, body, gzip)
}

fn view(
    state: &AppState,
    permit: &ConnectionPermit,
    form: ViewFormat,
    gzip: bool,
) -> Response<Full<Bytes>> {
    let published = state.published.borrow().clone();
    let view = |published: Arc<Published>| {
        published.view(form, state.clock.now().mono, state.max_age, gzip)
    };
    let mut response = match (form, published) {
        (ViewFormat::Json, None) => {
            return text(StatusCode::SERVICE_UNAVAILABLE, "no sample yet\n".to_owned());
        }
        (ViewFormat::Json, Some(published)) => shared(state, permit, JSON, view(published), gzip),
        (ViewFormat::Html, Some(published)) => shared(state, permit, HTML, view(published), gzip),
        (ViewFormat::Html, None) => {
            response(StatusCode::OK, HTML, landing::page_without_sample().into())
        }
    };
    if form == ViewFormat::Html {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, landing::CONTENT_SECURITY_POLICY.clone());
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    response
}

/// A response with a body that all requests of a cycle share; slow clients keep it in memory.
fn shared(
    state: &AppState,
    permit: &ConnectionPermit,
    content_type: &'static str,
    body: Bytes,
    gzip: bool,
) -> Response<Full<Bytes>> {
    for _ in 0..permit.set_body(PageRef::from(&body)) {
        state.rejected.increment(RejectReason::StaleResponse);
    }
    let mut response = response(StatusCode::OK, content_type, body);
    set(&mut response, header::VARY, "Accept-Encoding");
    if gzip {
        set(&mut response, header::CONTENT_ENCODING, "gzip");
    }
    response
}

fn readiness(state: &AppState) -> Response<Full<Bytes>> {
    let mut warnings = Vec::new();
    let ready = match state.published.borrow().as_deref() {
        None => Err("no sample yet".to_owned()),
        Some(published) => {
            let age = published.age(state.clock.now().mono);
            if age > state.max_age {
                Err(format!("the newest sample is {} s old", age.as_secs()))
            } else {
                warnings = published.snapshot().warnings();
                published.snapshot().ready()
            }
        }
    };
    let warnings = warnings
        .into_iter()
        .fold(String::new(), |text, warning| text + "warning: " + &warning + "\n");
    match ready {
        Ok(()) => text(StatusCode::OK, format!("ready\n{warnings}")),
        Err(reason) => {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n{warnings}"))
        }
    }
}

/// Whether `Accept-Encoding` lists gzip or `*`, without `q=0`.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING);
    let codings = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let mut any = false;
    for coding in codings {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        let accepted = quality.is_none_or(|q| q > 0.0);
        match name.as_str() {
            "gzip" | "x-gzip" => return accepted,
            "*" => any = accepted,
            _ => {}
        }
    }
    any
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    response(status, PLAIN, body.into())
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, content_type);
    set(&mut response, header::CACHE_CONTROL, "no-store");
    set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

fn set(response: &mut Response<Full<Bytes>>, name: HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(accept: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(accept).unwrap());
        accepts_gzip(&headers)
    }

    #[test]
    fn busy_response_has_its_content_length() {
        let (head, body) = std::str::from_utf8(BUSY).unwrap().split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
    }

    #[test]
    fn gzip_is_used_only_if_accepted() {
        for accept in ["gzip", "deflate, GZIP;q=0.5", "*", "identity;q=1, *;q=0.1"] {
            assert!(gzip(accept), "{accept}");
        }
        for accept in ["", "identity", "gzip;q=0", "br, zstd", "*;q=0", "gzip;q=0, *"] {
            assert!(!gzip(accept), "{accept}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
