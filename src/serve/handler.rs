//! Handles one request: rate limit, authentication and routing.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use super::AppState;
use super::connection::PageRef;
use super::connection_limit::ConnectionPermit;
use super::reject_counters::RejectReason;
use super::response::{HTML, JSON, TEXT_FORMAT, accepts_gzip, response, set, text};
use super::routes::Route;
use super::web_config_reload::LiveWebConfig;
use crate::landing;
use crate::model::HealthStatus;
use crate::policy;
use crate::publish::{Published, ViewFormat};
use crate::render::PageScope;
use crate::sanitize::printable;
use crate::snapshot::{GpuVerdict, Snapshot};

pub(super) async fn respond(
    request: &Request<Incoming>,
    state: &AppState,
    config: &LiveWebConfig,
    permit: &ConnectionPermit,
) -> Response<Full<Bytes>> {
    let route = state.routes.find(request.uri().path());
    let mut response = if !has_valid_host(request) {
        state.rejected.increment(RejectReason::Malformed);
        text(StatusCode::BAD_REQUEST, "one valid Host header is required\n".to_owned())
    } else if config.try_acquire(permit.connection.peer, route, Instant::now()) {
        let auth_timeout = state.timeouts.write;
        if matches!(route, Some(Route::Startup)) {
            // A failed probe would be an event of the pod at each start of a healthy node.
            let mut published = state.published.clone();
            let started = published.wait_for(|published| is_started(published.as_deref()));
            // If it takes longer, the response says so.
            let _ = timeout(policy::STARTUP_PROBE_WAIT, started).await;
        }
        if let Ok(authenticated) = authenticate(request, config, permit, auth_timeout).await {
            dispatch(request, route, state, permit, authenticated)
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

/// Whether the request has exactly one `Host` header with a valid value, as RFC 9112 requires; HTTP/1.0
/// has none. A proxy may take another one of two hosts than this server.
fn has_valid_host(request: &Request<Incoming>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => request.version() < Version::HTTP_11,
        (Some(host), None) => host.is_empty() || Authority::try_from(host.as_bytes()).is_ok(),
        (Some(_), Some(_)) => false,
    }
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
fn dispatch(
    request: &Request<Incoming>,
    route: Option<Route>,
    state: &AppState,
    permit: &ConnectionPermit,
    authenticated: bool,
) -> Response<Full<Bytes>> {
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
        Route::Startup if is_started(state.published.borrow().as_deref()) => {
            text(StatusCode::OK, "started\n".to_owned())
        }
        Route::Startup => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()),
        Route::Liveness => liveness(state),
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

/// Whether the state of the driver is known, good or bad. Not having it does not count as a failure of
/// the startup: a restart would not help.
fn is_started(published: Option<&Published>) -> bool {
    published.is_some_and(|published| !published.snapshot().is_starting())
}

/// Whether the sampling thread publishes snapshots. It does so without the driver, too: a driver that hangs
/// must not cause a restart loop.
fn liveness(state: &AppState) -> Response<Full<Bytes>> {
    let now = state.clock.now().mono;
    let age = state.published.borrow().as_deref().map_or(now, |published| published.age(now));
    if age <= state.liveness_max_age {
        return text(StatusCode::OK, "ok\n".to_owned());
    }
    let body = format!("the sampling thread has not responded for {} s\n", age.as_secs());
    text(StatusCode::SERVICE_UNAVAILABLE, body)
}

fn readiness(state: &AppState) -> Response<Full<Bytes>> {
    let (mut warnings, mut note) = (Vec::new(), String::new());
    let ready = match state.published.borrow().as_deref() {
        None => Err("no sample yet".to_owned()),
        Some(published) => {
            let age = published.age(state.clock.now().mono);
            if age > state.max_age {
                Err(format!("the newest sample is {} s old", age.as_secs()))
            } else {
                let snapshot = published.snapshot();
                warnings = snapshot.warnings();
                let no_gpu = snapshot.health.driver.no_gpu();
                let no_gpu = no_gpu.map(|why| format!("\n{}", printable(&why.message)));
                let ready = snapshot.ready();
                if ready.is_ok() {
                    note = no_gpu.unwrap_or_else(|| gpu_lines(snapshot));
                }
                ready
            }
        }
    };
    let warnings = warnings
        .into_iter()
        .fold(String::new(), |text, warning| text + "warning: " + &warning + "\n");
    match ready {
        Ok(()) => text(StatusCode::OK, format!("ready{note}\n{warnings}")),
        Err(reason) => {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n{warnings}"))
        }
    }
}

/// How many GPUs can be read, if not all can, and a line for each GPU that is not ok, worst first.
fn gpu_lines(snapshot: &Snapshot) -> String {
    let (readable, all) = snapshot.readable_gpus();
    let mut text = if readable < all {
        format!(", but only {readable} of {all} GPUs can be read")
    } else {
        String::new()
    };
    let verdicts = snapshot.gpu_verdicts();
    let mut verdicts: Vec<&GpuVerdict> = verdicts.values().collect();
    verdicts.sort_by_key(|verdict| Reverse(verdict.status));
    let is_shown =
        |verdict: &&GpuVerdict| verdict.status != HealthStatus::Ok && !verdict.is_temporary();
    for verdict in verdicts.into_iter().filter(is_shown) {
        text += "\n";
        text += &printable(&verdict.sentence());
    }
    text
}
