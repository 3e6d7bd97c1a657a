//! HTTP: hands out what was published, and never waits for anything else.

pub mod refusals;
pub mod settings;

mod auth;
mod connection;
mod peer;
mod places;

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

use self::connection::{Held, Timed};
use self::peer::Peer;
use self::places::{Place, Places, Room};
use self::refusals::{Refusal, Refusals};
use self::settings::Settings;
use crate::clock::Clock;
use crate::landing;
use crate::policy;
use crate::publish::{Form, Published};
use crate::render::Part;
use crate::web_config::WebConfig;

/// The format of every page, whatever the scraper would accept: DCGM's counters are legal in no other.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Retry-After: 1\r\nConnection: close\r\nContent-Length: 30\r\n\r\ntoo many connections from you\n";

/// Where something is served, whatever is asked for.
pub const PATHS: [&str; 6] = [LANDING, NODE, METRICS, "/healthz", "/health", "/readyz"];
const METRICS: &str = "/metrics";
/// The node for people, and for their programs.
const LANDING: &str = "/";
const NODE: &str = "/api/v1/node";

/// What is answered at a path.
#[derive(Clone, Copy)]
enum Route {
    Page(Part),
    View(Form),
    Readiness,
    Liveness,
}

impl Route {
    /// Whether a kubelet asks, which has no password.
    fn is_probe(self) -> bool {
        matches!(self, Self::Readiness | Self::Liveness)
    }
}

/// How the exporter is reached.
pub struct Web {
    /// Certificates, passwords, headers, a limit.
    pub config: WebConfig,
    /// The file that they are in, to be followed.
    pub file: Option<PathBuf>,
    /// How long clients may take.
    pub timeouts: Timeouts,
}

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To send a request; it is also how long an idle connection lives.
    pub read: Duration,
    /// To take a response.
    pub write: Duration,
}

/// What every request may look at.
#[derive(Clone)]
pub struct Site {
    /// The newest snapshot, none before the first.
    pub published: watch::Receiver<Option<Arc<Published>>>,
    /// Oldest snapshot that is served whole.
    pub max_age: Duration,
    /// To judge its age by.
    pub clock: Clock,
    /// Where the exporter's own series are, if not at `/metrics`.
    pub own_path: Option<Arc<str>>,
    /// Whether the node is shown to people, too.
    pub landing: bool,
    /// Where refusals are counted.
    pub refused: Arc<Refusals>,
}

impl Site {
    fn route(&self, path: &str) -> Option<Route> {
        match (path, self.own_path.as_deref()) {
            (METRICS, None) => Some(Route::Page(Part::Whole)),
            (METRICS, Some(_)) => Some(Route::Page(Part::Gpus)),
            ("/readyz", _) => Some(Route::Readiness),
            ("/healthz" | "/health", _) => Some(Route::Liveness),
            (LANDING, _) => self.landing.then_some(Route::View(Form::Html)),
            (NODE, _) => self.landing.then_some(Route::View(Form::Json)),
            (path, Some(own)) => (path == own).then_some(Route::Page(Part::Own)),
            (_, None) => None,
        }
    }
}

/// Serves until `stop` is done, then lets requests in flight finish for a while.
pub async fn serve(listener: TcpListener, site: Site, web: Web, stop: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let (publish, settings) = watch::channel(Arc::new(Settings::new(web.config.clone())));
    if let Some(file) = web.file {
        tokio::spawn(settings::follow(file, web.config.digest, publish));
    }
    // Connections inherit it. The system would grow it to megabytes for each client that does not read.
    if let Err(error) = set_socket_send_buffer_size(&listener, policy::HTTP_SEND_BUFFER) {
        tracing::debug!(%error, "the system's own size of buffers");
    }
    let places = Places::new();
    let mut short = false;
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, address)) => {
                if std::mem::take(&mut short) {
                    tracing::info!("connections are accepted again");
                }
                let place = match places.enter(Peer::from(address.ip()), Instant::now()) {
                    Room::Free(place) => Some(place),
                    Room::Made(place) => {
                        site.refused.count(Refusal::Cap);
                        Some(place)
                    }
                    Room::None => None,
                };
                let settings = settings.borrow().clone();
                if let Some(place) = place {
                    let (site, watcher) = (site.clone(), graceful.watcher());
                    tokio::spawn(attend(
                        stream,
                        Arc::new(place),
                        site,
                        settings,
                        web.timeouts,
                        watcher,
                    ));
                } else {
                    site.refused.count(Refusal::Cap);
                    turn_away(&stream, &settings);
                }
                // Whoever was let in is heard before the next one comes, who may take the place.
                tokio::task::yield_now().await;
            }
            // Whoever it was has gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                site.refused.count(Refusal::Files);
                if !std::mem::replace(&mut short, true) {
                    tracing::warn!(%error, "no connection accepted; raise the limit of open files");
                }
                // A file that is freed will help, asking at once will not.
                places.spare_one();
                tokio::time::sleep(policy::HTTP_ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if timeout(policy::SHUTDOWN_GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some clients did not finish in time");
    }
}

/// Says why nobody answers, as far as that can be said in one word and at once.
fn turn_away(stream: &TcpStream, settings: &Settings) {
    if settings.tls.is_none() {
        // Who does not hear it sees the connection end.
        let _ = stream.try_write(BUSY);
    }
}

/// One connection, from its handshake to its end, or until it has to make room.
async fn attend(
    stream: TcpStream,
    place: Arc<Place>,
    site: Site,
    settings: Arc<Settings>,
    timeouts: Timeouts,
    watcher: Watcher,
) {
    // Only latency is lost where the option cannot be set.
    let _ = stream.set_nodelay(true);
    let line = Arc::clone(&place.line);
    let refused = Arc::clone(&site.refused);
    let served = async {
        let Some(tls) = settings.tls.clone() else {
            return talk(stream, &place, site, settings, timeouts, watcher).await;
        };
        match timeout(policy::TLS_HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => talk(stream, &place, site, settings, timeouts, watcher).await,
            Ok(Err(error)) => {
                refused.count(Refusal::Handshake);
                tracing::debug!(%error, "no handshake");
            }
            Err(_) => refused.count(Refusal::Handshake),
        }
    };
    tokio::select! {
        () = served => {}
        () = line.let_go.notified() => {}
    }
    if line.was_overdue() {
        refused.count(Refusal::WriteDeadline);
    }
}

/// Requests and responses over one stream, which the server may ask to end after the request in flight.
async fn talk<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    place: &Arc<Place>,
    site: Site,
    settings: Arc<Settings>,
    timeouts: Timeouts,
    watcher: Watcher,
) {
    let (line, refused) = (Arc::clone(&place.line), Arc::clone(&site.refused));
    let place = Arc::clone(place);
    let service = service_fn(move |request: Request<Incoming>| {
        place.line.answering(timeouts.write);
        let (site, settings, place) = (site.clone(), Arc::clone(&settings), Arc::clone(&place));
        async move {
            Ok::<_, Infallible>(respond(&request, &site, &settings, &place, timeouts.write).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.read)
        .max_buf_size(16 * 1024)
        .max_headers(32)
        .serve_connection(TokioIo::new(Timed::new(stream, Arc::clone(&line))), service);
    if let Err(error) = watcher.watch(connection).await {
        if error.is_parse() {
            refused.count(Refusal::Malformed);
        } else if error.is_timeout() && line.is_arriving() {
            refused.count(Refusal::ReadDeadline);
        }
        tracing::debug!(%error, "connection ended early");
    }
}

async fn respond(
    request: &Request<Incoming>,
    site: &Site,
    settings: &Settings,
    place: &Place,
    patience: Duration,
) -> Response<Full<Bytes>> {
    let mut response = if settings.lets_in(Instant::now()) {
        if let Ok(admitted) = admit(request, settings, place, patience).await {
            answer(request, site, place, admitted)
        } else {
            site.refused.count(Refusal::Auth);
            let why = "too many passwords are being checked; come back later\n";
            text(StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
        }
    } else {
        site.refused.count(Refusal::Rate);
        text(StatusCode::TOO_MANY_REQUESTS, "too many requests; come back later\n".to_owned())
    };
    for (name, value) in &settings.headers {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

/// Whether the request comes from somebody who may see everything.
///
/// # Errors
/// That was not found out within `patience`.
async fn admit(
    request: &Request<Incoming>,
    settings: &Settings,
    place: &Place,
    patience: Duration,
) -> Result<bool, Elapsed> {
    let Some(doorkeeper) = &settings.doorkeeper else { return Ok(true) };
    timeout(patience, doorkeeper.admits(place.line.peer, request.headers())).await
}

/// What is answered. Probes have no password: whoever is not `admitted` hears whether the exporter is
/// alive and ready, and nothing else.
fn answer(
    request: &Request<Incoming>,
    site: &Site,
    place: &Place,
    admitted: bool,
) -> Response<Full<Bytes>> {
    let route = site.route(request.uri().path());
    if !admitted && !route.is_some_and(Route::is_probe) {
        site.refused.count(Refusal::Auth);
        let mut refusal = text(StatusCode::UNAUTHORIZED, "who are you?\n".to_owned());
        set(
            &mut refusal,
            header::WWW_AUTHENTICATE,
            "Basic realm=\"nvml-exporter\", charset=\"UTF-8\"",
        );
        return refusal;
    }
    let Some(route) = route else {
        return text(StatusCode::NOT_FOUND, "not found; the series are at /metrics\n".to_owned());
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        set(&mut refusal, header::ALLOW, "GET, HEAD");
        return refusal;
    }
    let gzip = accepts_gzip(request.headers());
    match route {
        Route::Page(part) => metrics(site, place, part, gzip),
        Route::View(form) => view(site, place, form, gzip),
        Route::Readiness if admitted => readiness(site),
        Route::Readiness => {
            let status = readiness(site).status();
            let word = if status == StatusCode::OK { "ready\n" } else { "not ready\n" };
            text(status, word.to_owned())
        }
        // Alive is what can answer: a driver that hangs must not become a restart loop.
        Route::Liveness => text(StatusCode::OK, "ok\n".to_owned()),
    }
}

fn metrics(site: &Site, place: &Place, part: Part, gzip: bool) -> Response<Full<Bytes>> {
    let Some(published) = site.published.borrow().clone() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "no sample yet\n".to_owned());
    };
    let page = published.page(part, site.clock.now().mono, site.max_age, gzip);
    shared(site, place, TEXT_FORMAT, page, gzip)
}

fn view(site: &Site, place: &Place, form: Form, gzip: bool) -> Response<Full<Bytes>> {
    let published = site.published.borrow().clone();
    let view =
        |published: Arc<Published>| published.view(form, site.clock.now().mono, site.max_age, gzip);
    let mut response = match (form, published) {
        (Form::Json, None) => {
            return text(StatusCode::SERVICE_UNAVAILABLE, "no sample yet\n".to_owned());
        }
        (Form::Json, Some(published)) => shared(site, place, JSON, view(published), gzip),
        (Form::Html, Some(published)) => shared(site, place, HTML, view(published), gzip),
        (Form::Html, None) => response(StatusCode::OK, HTML, landing::empty().into()),
    };
    if form == Form::Html {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, landing::POLICY.clone());
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    response
}

/// What all who ask share, and slow clients keep alive.
fn shared(
    site: &Site,
    place: &Place,
    kind: &'static str,
    page: Bytes,
    gzip: bool,
) -> Response<Full<Bytes>> {
    for _ in 0..place.hold(Held::from(&page)) {
        site.refused.count(Refusal::OldPage);
    }
    let mut response = response(StatusCode::OK, kind, page);
    set(&mut response, header::VARY, "Accept-Encoding");
    if gzip {
        set(&mut response, header::CONTENT_ENCODING, "gzip");
    }
    response
}

fn readiness(site: &Site) -> Response<Full<Bytes>> {
    let mut warnings = Vec::new();
    let verdict = match site.published.borrow().as_deref() {
        None => Err("no sample yet".to_owned()),
        Some(published) => {
            let age = published.age(site.clock.now().mono);
            if age > site.max_age {
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
    match verdict {
        Ok(()) => text(StatusCode::OK, format!("ready\n{warnings}")),
        Err(reason) => {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n{warnings}"))
        }
    }
}

/// Whether `Accept-Encoding` names gzip (or everything) without forbidding it by `q=0`.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING);
    let codings = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let mut any = false;
    for coding in codings {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        let wanted = quality.is_none_or(|q| q > 0.0);
        match name.as_str() {
            "gzip" | "x-gzip" => return wanted,
            "*" => any = wanted,
            _ => {}
        }
    }
    any
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    response(status, PLAIN, body.into())
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, kind);
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
    fn gzip_is_for_those_who_ask() {
        for accept in ["gzip", "deflate, GZIP;q=0.5", "*", "identity;q=1, *;q=0.1"] {
            assert!(gzip(accept), "{accept}");
        }
        for accept in ["", "identity", "gzip;q=0", "br, zstd", "*;q=0", "gzip;q=0, *"] {
            assert!(!gzip(accept), "{accept}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
