//! HTTP requests to an API server, a kubelet or another exporter.

use std::error::Error;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::http::request::Builder;
use hyper::{Request, Response};
use kube::client::{Body, Client};
use serde::Deserialize;
use tokio::time;

use super::request_error::{RequestError, causes};
use super::source::FailureReason;

const JSON: &str = "application/json";
/// The metadata of objects, else whole objects.
const PARTIAL: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// Most bytes that are read of the body of an error response.
const ERROR_BODY_MAX: usize = 64 << 10;

/// Sends a GET request for `path`. The response headers have to arrive within `timeout`.
///
/// # Errors
/// No response in time, or a status other than 2xx, with the server's message.
pub async fn get(client: &Client, path: &str, timeout: Duration) -> Result<Body, RequestError> {
    let request = Request::get(path).header("accept", JSON);
    send(client, request, Body::empty(), path, timeout).await
}

/// Sends a GET request for `path`, of which the metadata of the objects suffice. Servers that do not support
/// this (before 1.15) send whole objects.
///
/// # Errors
/// As for [`get`].
pub async fn get_metadata(
    client: &Client,
    path: &str,
    timeout: Duration,
) -> Result<Body, RequestError> {
    let request = Request::get(path).header("accept", PARTIAL);
    send(client, request, Body::empty(), path, timeout).await
}

/// Sends a POST request with a JSON body. The response headers have to arrive within `timeout`.
///
/// # Errors
/// As for [`get`].
pub async fn post(
    client: &Client,
    path: &str,
    json: Vec<u8>,
    timeout: Duration,
) -> Result<Body, RequestError> {
    let request = Request::post(path).header("accept", JSON).header("content-type", JSON);
    send(client, request, Body::from(json), path, timeout).await
}

async fn send(
    client: &Client,
    request: Builder,
    body: Body,
    path: &str,
    timeout: Duration,
) -> Result<Body, RequestError> {
    // For an operator, the query of a watch only hides the rest of an error.
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    let request = request.body(body).map_err(|e| {
        let message = format!("{path}: the request cannot be built: {e}");
        RequestError::new(FailureReason::Config, message)
    })?;
    let result = time::timeout(timeout, client.send(request)).await;
    let response = result
        .map_err(|_| timed_out(path, "no response", timeout))?
        .map_err(|e| connection_error(path, &e))?;
    if response.status().is_success() {
        return Ok(response.into_body());
    }
    Err(status_error(path, response, timeout).await)
}

/// The next chunk of a response body; none at its end.
///
/// # Errors
/// The connection failed, or nothing was received for `timeout`.
pub async fn next_chunk(
    body: &mut Body,
    timeout: Duration,
) -> Result<Option<bytes::Bytes>, RequestError> {
    loop {
        let frame = time::timeout(timeout, body.frame()).await;
        match frame.map_err(|_| timed_out("response body", "no data", timeout))? {
            None => return Ok(None),
            Some(Err(e)) => {
                let detail = format!("the response body ended early: {}", causes(&e));
                return Err(RequestError::new(FailureReason::Connection, detail));
            }
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// The whole response body, of at most `limit` bytes.
///
/// # Errors
/// The body is larger or incomplete.
pub async fn read_body(
    mut body: Body,
    limit: usize,
    timeout: Duration,
) -> Result<Vec<u8>, RequestError> {
    let mut bytes = Vec::new();
    while let Some(data) = next_chunk(&mut body, timeout).await? {
        if bytes.len() + data.len() > limit {
            let detail = format!("the response is larger than {limit} bytes");
            return Err(RequestError::new(FailureReason::TooLarge, detail));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn timed_out(subject: &str, missing: &str, timeout: Duration) -> RequestError {
    let seconds = timeout.as_secs_f64();
    RequestError::new(FailureReason::Timeout, format!("{subject}: {missing} within {seconds} s"))
}

fn connection_error(path: &str, error: &kube::Error) -> RequestError {
    let mut failure = FailureReason::Connection;
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            failure = FailureReason::Absent;
        }
        cause = error.source();
    }
    if matches!(error, kube::Error::Auth(_)) {
        failure = FailureReason::Config;
    }
    RequestError::new(failure, format!("{path}: the request failed: {}", causes(error)))
}

/// A `Status` object of the API.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ApiStatus {
    message: String,
}

async fn status_error(path: &str, response: Response<Body>, timeout: Duration) -> RequestError {
    let status = response.status().as_u16();
    let body = read_body(response.into_body(), ERROR_BODY_MAX, timeout).await.unwrap_or_default();
    let message = serde_json::from_slice::<ApiStatus>(&body)
        .map_or_else(|_| String::from_utf8_lossy(&body).into_owned(), |status| status.message);
    RequestError::of_status(&format!("{path}: HTTP status"), status, &message)
}
