//! HTTP responses, and the encodings that a client accepts.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

/// The exposition format of all scrape responses, whatever `Accept` prefers: names of counters of DCGM
/// do not end in `_total`, which `OpenMetrics` requires.
pub(super) const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const JSON: &str = "application/json";
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

/// Whether `Accept-Encoding` accepts gzip, and does not prefer the body as it is. What it does not list
/// has the weight of `*`; without `*`, gzip is not accepted and the body as it is has the lowest weight.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING);
    let codings = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for coding in codings {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(weight).unwrap_or(1.0);
        match name.as_str() {
            "gzip" | "x-gzip" => gzip = Some(weight),
            "identity" => identity = Some(weight),
            "*" => any = Some(weight),
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0.0);
    gzip > 0.0 && gzip >= identity.or(any).unwrap_or(0.0)
}

/// The weight of `q=WEIGHT`.
fn weight(parameter: &str) -> Option<f32> {
    let (name, value) = parameter.split_once('=')?;
    if name.trim().eq_ignore_ascii_case("q") { value.trim().parse().ok() } else { None }
}

pub(super) fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    response(status, PLAIN, body.into())
}

pub(super) fn response(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, content_type);
    set(&mut response, header::CACHE_CONTROL, "no-store");
    set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

pub(super) fn set(response: &mut Response<Full<Bytes>>, name: HeaderName, value: &'static str) {
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
    fn gzip_is_used_only_if_accepted() {
        for accept in [
            "gzip",
            "deflate, GZIP;q=0.5",
            "*",
            "gzip, identity",
            "identity;q=0.5, gzip",
            "gzip; Q=0.8, identity; q=0.2",
            "identity;q=0, *;q=0.1",
            "x-gzip;q=0.001",
        ] {
            assert!(gzip(accept), "{accept}");
        }
        for accept in [
            "",
            "identity",
            "gzip;q=0",
            "br, zstd",
            "*;q=0",
            "gzip;q=0, *",
            "identity;q=1, *;q=0.1",
            "identity, gzip;q=0.5",
            "gzip;q=0.1,identity;q=0.9",
            "*, gzip;q=0.5",
        ] {
            assert!(!gzip(accept), "{accept}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
