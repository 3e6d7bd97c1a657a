//! HTTP/1.1: the API server with lists and watches of pods and nodes, resource slices and access reviews,
//! and the kubelet's list of pods.

mod access_review;
mod api_request;

use std::{convert::Infallible, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    cluster::{
        api::{self, VersionError},
        resource_claims, resource_slices,
    },
    cluster_servers::{
        byte_stream::ByteStream,
        http::api_request::{ApiError, ApiRequest, WatchRequest, WatchStart},
        reply::Reply,
        served_state::ServedState,
    },
    scenario::cluster::{Cluster, Server, ServerFault},
};

/// Bookmark interval of a watch with `allowWatchBookmarks`.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Lines of a watch that are buffered for a slow client.
const MAX_BUFFERED: usize = 16;

/// Serves one connection to the API server until it closes.
pub(super) async fn serve_connection(stream: Pin<Box<dyn ByteStream>>, state: Rc<ServedState>) {
    serve(stream, move |request| handle(Rc::clone(&state), request)).await;
}

/// Serves one connection to the kubelet until it closes.
pub(super) async fn serve_kubelet(stream: Pin<Box<dyn ByteStream>>, state: Rc<ServedState>) {
    serve(stream, move |request| handle_kubelet(Rc::clone(&state), request)).await;
}

async fn serve<F>(stream: Pin<Box<dyn ByteStream>>, handle: impl Fn(Request<Incoming>) -> F)
where
    F: Future<Output = Result<Response<Reply>, Infallible>>,
{
    let mut builder = http1::Builder::new();
    let connection =
        builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service_fn(handle));
    // A protocol error or a disconnect of the client only ends this connection.
    let _ = connection.await;
}

/// The response of a server with this fault, if the fault is in its responses.
fn faulty_response(fault: Option<ServerFault>) -> Option<Response<Reply>> {
    match fault? {
        ServerFault::Denied => {
            let text = "this is forbidden: this user cannot list the resource in API group \
                        \"\" at the cluster scope";
            let error = ApiError { code: 403, reason: "Forbidden", message: text.into() };
            Some(error_response(&error))
        }
        ServerFault::Throttled => {
            let text = "too many requests: try again later";
            let error = ApiError { code: 429, reason: "TooManyRequests", message: text.into() };
            Some(error_response(&error))
        }
        ServerFault::Malformed => Some(json(
            StatusCode::OK,
            "{\"kind\":\"PodList\",\"items\":[{\"metadata\":\u{0}\n".to_owned(),
        )),
        ServerFault::Error => {
            let text = "etcdserver: request timed out";
            let error = ApiError { code: 500, reason: "InternalError", message: text.into() };
            Some(error_response(&error))
        }
        ServerFault::Absent
        | ServerFault::Empty
        | ServerFault::Refuse
        | ServerFault::Hang
        | ServerFault::Expired
        | ServerFault::StreamError
        | ServerFault::InvalidObject
        | ServerFault::NotReady
        | ServerFault::NoFieldMask
        | ServerFault::DropEvents
        | ServerFault::NoPods
        | ServerFault::StaticPods
        | ServerFault::Close
        | ServerFault::Slow(_) => None,
    }
}

async fn handle_kubelet(
    state: Rc<ServedState>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Infallible> {
    let fault = state.apply_delay(Server::Kubelet).await;
    if let Some(response) = faulty_response(fault) {
        return Ok(response);
    }
    if request.method() != Method::GET || request.uri().path() != "/pods" {
        let text = "404 page not found";
        let error = ApiError { code: 404, reason: "NotFound", message: text.into() };
        return Ok(error_response(&error));
    }
    Ok(json(StatusCode::OK, state.kubelet_pods().to_string()))
}

async fn handle(
    state: Rc<ServedState>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Infallible> {
    let fault = state.apply_delay(Server::Api).await;
    if let Some(response) = faulty_response(fault) {
        return Ok(response);
    }
    state.count_request(request.method().as_str(), request.uri().path());
    let permitted = {
        let (scenario, _) = state.refresh();
        let cluster = scenario.cluster.as_deref();
        parse(&request, cluster).and_then(|request| access_review::authorize(request, cluster))
    };
    if let Some(server) = permitted.as_ref().ok().and_then(ApiRequest::server) {
        let fault = state.apply_delay(server).await;
        if fault == Some(ServerFault::Absent) {
            return Ok(error_response(&not_found()));
        } else if let Some(response) = faulty_response(fault) {
            return Ok(response);
        }
    }
    let (scenario, now) = state.refresh();
    let cluster = scenario.cluster.as_deref();
    Ok(match permitted {
        Err(error) => error_response(&error),
        Ok(ApiRequest::Review) => {
            match access_review::evaluate(request.into_body(), cluster).await {
                Ok(review) => json(StatusCode::CREATED, review.to_string()),
                Err(error) => error_response(&error),
            }
        }
        Ok(ApiRequest::Version) => json(StatusCode::OK, version().to_string()),
        Ok(ApiRequest::Slices(selector)) => {
            let list = resource_slices::list(cluster, &scenario.gpus, now.world, &selector);
            json(StatusCode::OK, list.to_string())
        }
        Ok(ApiRequest::Claim(namespace, name)) => {
            let claim = cluster
                .and_then(|cluster| resource_claims::object(cluster, &namespace, &name, now.world));
            match claim {
                Some(claim) => json(StatusCode::OK, claim.to_string()),
                None => error_response(&not_found()),
            }
        }
        Ok(ApiRequest::ConfigMap(namespace, name)) => {
            match cluster.and_then(|cluster| config_map(cluster, &namespace, &name)) {
                Some(object) => json(StatusCode::OK, object.to_string()),
                None => error_response(&not_found()),
            }
        }
        Ok(ApiRequest::List { kind, chosen }) => {
            let mut list = state.read_cache(kind, |cache| cache.list(chosen));
            if fault == Some(ServerFault::InvalidObject)
                && let Some(items) = list.get_mut("items").and_then(Value::as_array_mut)
            {
                items.push(invalid_pod());
            }
            json(StatusCode::OK, list.to_string())
        }
        Ok(ApiRequest::Watch(watch)) => start_watch(state, watch, fault),
    })
}

fn parse(request: &Request<Incoming>, cluster: Option<&Cluster>) -> Result<ApiRequest, ApiError> {
    let uri = request.uri();
    if request.method() == Method::GET {
        let streaming = cluster.is_none_or(|cluster| cluster.streaming_lists);
        let node = cluster.map(|cluster| cluster.node.as_str()).unwrap_or_default();
        ApiRequest::parse(uri.path(), uri.query().unwrap_or_default(), node, streaming)
    } else if request.method() == Method::POST && uri.path() == access_review::PATH {
        Ok(ApiRequest::Review)
    } else {
        let text = "the server does not allow this method on the requested resource";
        Err(ApiError { code: 405, reason: "MethodNotAllowed", message: text.into() })
    }
}

fn not_found() -> ApiError {
    let text = "the server could not find the requested resource";
    ApiError { code: 404, reason: "NotFound", message: text.into() }
}

fn config_map(cluster: &Cluster, namespace: &str, name: &str) -> Option<Value> {
    let mut objects = cluster.config_maps.iter();
    let found = objects.find(|object| object.namespace == namespace && object.name == name)?;
    Some(json!({
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": { "namespace": namespace, "name": name },
        "data": found.data,
    }))
}

fn version() -> Value {
    json!({ "major": "1", "minor": "34", "gitVersion": "v1.34.0", "platform": "linux/amd64" })
}

fn json(status: StatusCode, text: String) -> Response<Reply> {
    let mut response = Response::new(Reply::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn error_response(error: &ApiError) -> Response<Reply> {
    let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let object = api::status_object(error.code, error.reason, &error.message);
    let mut response = json(status, object.to_string());
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn start_watch(
    state: Rc<ServedState>,
    watch: WatchRequest,
    fault: Option<ServerFault>,
) -> Response<Reply> {
    let first = state.read_cache(watch.kind, |cache| first_lines(cache, &watch));
    let (lines, version) = match first {
        Ok(_) if fault == Some(ServerFault::StreamError) && watch.is_streaming_list() => {
            (vec![no_progress()], None)
        }
        Ok((mut lines, version)) => {
            let starts = matches!(watch.start, WatchStart::Initial { .. });
            if fault == Some(ServerFault::InvalidObject) && starts {
                lines.insert(0, api::watch_line("ADDED", &invalid_pod()));
            }
            (lines, version)
        }
        Err(VersionError::Future(newest)) => {
            let text = format!("Too large resource version, current: {newest}");
            return error_response(&ApiError { code: 504, reason: "Timeout", message: text });
        }
        // An API server has already sent status 200 when it finds the version expired.
        Err(VersionError::Gone(oldest)) => (vec![expired(&watch, oldest)], None),
    };
    let version = version.filter(|_| fault != Some(ServerFault::Expired));
    let (sender, more) = mpsc::channel(MAX_BUFFERED);
    tokio::task::spawn_local(async move {
        // The error only means that the client has disconnected.
        let _ = send_watch(&state, &watch, lines, version, &sender).await;
    });
    let mut response = Response::new(Reply::stream(more));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

type FirstLines = (Vec<Arc<str>>, Option<u64>);

/// The first lines of a watch, and the resource version that they reach.
fn first_lines(cache: &api::WatchCache, watch: &WatchRequest) -> Result<FirstLines, VersionError> {
    let lines = match watch.start {
        WatchStart::Initial { ends } => {
            let mut lines = if watch.selected { cache.initial() } else { vec![] };
            if ends {
                lines.push(cache.bookmark(true));
            }
            lines
        }
        WatchStart::After(version) => {
            let events = cache.since(version)?;
            events.into_iter().filter(|_| watch.selected).map(|event| event.line).collect()
        }
    };
    Ok((lines, Some(cache.version())))
}

/// What Kubernetes 1.36 sends on etcd 3.4, after status 200.
fn no_progress() -> Arc<str> {
    let text = "required storage feature RequestWatchProgress is disabled";
    api::watch_line("ERROR", &api::status_object(500, "InternalError", text))
}

fn invalid_pod() -> Value {
    json!({ "metadata": { "uid": "invalid", "namespace": 7, "name": "invalid" }, "spec": "none" })
}

fn expired(watch: &WatchRequest, oldest: u64) -> Arc<str> {
    let text = match watch.start {
        WatchStart::After(version) => format!("too old resource version: {version} ({oldest})"),
        WatchStart::Initial { .. } => "the events of this watch have expired".to_owned(),
    };
    api::watch_line("ERROR", &api::status_object(410, "Expired", &text))
}

/// The client has disconnected.
struct ClientGone;

async fn send_watch(
    state: &ServedState,
    watch: &WatchRequest,
    lines: Vec<Arc<str>>,
    version: Option<u64>,
    sender: &mpsc::Sender<Frame<Bytes>>,
) -> Result<(), ClientGone> {
    let send = |line: Arc<str>| async move {
        let chunk = Bytes::copy_from_slice(line.as_bytes());
        sender.send(Frame::data(chunk)).await.map_err(|_| ClientGone)
    };
    let end = tokio::time::sleep(watch.timeout);
    tokio::pin!(end);
    let mut bookmarks = tokio::time::interval(BOOKMARK_INTERVAL);
    bookmarks.reset();
    let mut changes = state.subscribe();
    for line in lines {
        send(line).await?;
    }
    let Some(mut version) = version else {
        let fault = state.fault(Server::Api);
        return if fault == Some(ServerFault::Expired) {
            send(expired(watch, 0)).await
        } else {
            Ok(())
        };
    };
    loop {
        match state.fault(Server::Api) {
            Some(ServerFault::Hang) => {}
            Some(ServerFault::Expired) => return send(expired(watch, version)).await,
            Some(ServerFault::Malformed) => {
                return send("{\"type\":\"ADDED\",\"object\":\n".into()).await;
            }
            _ => {
                let events = match state.read_cache(watch.kind, |cache| cache.since(version)) {
                    Ok(events) => events,
                    Err(VersionError::Gone(oldest) | VersionError::Future(oldest)) => {
                        return send(expired(watch, oldest)).await;
                    }
                };
                for event in events {
                    version = event.version;
                    if watch.selected {
                        send(event.line).await?;
                    }
                }
            }
        }
        tokio::select! {
            () = &mut end => return Ok(()),
            () = sender.closed() => return Err(ClientGone),
            _ = changes.changed() => {}
            _ = bookmarks.tick(), if watch.bookmarks => {
                send(state.read_cache(watch.kind, |cache| cache.bookmark(false))).await?;
            }
        }
    }
}
