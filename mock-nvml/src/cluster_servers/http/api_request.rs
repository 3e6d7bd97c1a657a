//! Parsed requests to the API server.

use std::time::Duration;

use crate::{
    cluster::{api::ObjectKind, resource_slices::SliceSelector},
    scenario::cluster::Server,
};

/// Duration in seconds of a watch without `timeoutSeconds`.
const DEFAULT_TIMEOUT: u64 = 1_800;
/// Longest duration of a watch, in seconds.
const MAX_TIMEOUT: u64 = 86_400;

/// A supported request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ApiRequest {
    /// A list of objects; empty unless the field selector matches this node.
    List { kind: ObjectKind, chosen: bool },
    /// A watch of objects.
    Watch(WatchRequest),
    /// A list of resource slices.
    Slices(SliceSelector),
    /// A resource claim: its namespace and name.
    Claim(String, String),
    /// A `ConfigMap`: its namespace and name.
    ConfigMap(String, String),
    /// The Kubernetes version.
    Version,
    /// A `SelfSubjectAccessReview`.
    Review,
}

impl ApiRequest {
    /// The server of which the faults apply, besides those of the API server as a whole.
    pub(super) fn server(&self) -> Option<Server> {
        match self {
            Self::Slices(_) => Some(Server::Slices),
            Self::Claim(..) => Some(Server::Claims),
            Self::List { .. }
            | Self::Watch(_)
            | Self::ConfigMap(..)
            | Self::Review
            | Self::Version => None,
        }
    }

    /// The verb and resource that the client needs permission for, if any.
    pub(super) fn required_permission(&self) -> Option<(&'static str, &'static str)> {
        let resource = |kind| match kind {
            ObjectKind::Pod => "pods",
            ObjectKind::Node => "nodes",
        };
        match self {
            Self::List { kind, .. } => Some(("list", resource(*kind))),
            Self::Watch(watch) => Some(("watch", resource(watch.kind))),
            Self::Slices(_) => Some(("list", "resourceslices")),
            Self::Claim(..) => Some(("get", "resourceclaims")),
            Self::ConfigMap(..) => Some(("get", "configmaps")),
            Self::Review => Some(("create", "selfsubjectaccessreviews")),
            Self::Version => None,
        }
    }
}

/// A watch of objects.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WatchRequest {
    pub(super) kind: ObjectKind,
    /// Whether the field selector matches this node.
    pub(super) selected: bool,
    pub(super) start: WatchStart,
    /// `allowWatchBookmarks`.
    pub(super) bookmarks: bool,
    /// `timeoutSeconds`.
    pub(super) timeout: Duration,
}

impl WatchRequest {
    /// Whether the initial events have an end.
    pub(super) fn is_streaming_list(&self) -> bool {
        self.start == WatchStart::Initial { ends: true }
    }
}

/// First events of a watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WatchStart {
    /// All current objects, then, if `ends`, a bookmark that marks their end.
    Initial { ends: bool },
    /// The events after a resource version.
    After(u64),
}

/// The error of a rejected request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    /// HTTP status.
    pub(super) code: u16,
    /// `reason` of the `Status` object.
    pub(super) reason: &'static str,
    /// `message` of the `Status` object.
    pub(super) message: String,
}

impl ApiRequest {
    /// Parses a request to the API server of a cluster with the only node `node`.
    ///
    /// # Errors
    /// The error that an API server returns; without `streaming`, one without streaming lists.
    pub(super) fn parse(
        path: &str,
        query: &str,
        node: &str,
        streaming: bool,
    ) -> Result<Self, ApiError> {
        let last = |key: &str| {
            form_urlencoded::parse(query.as_bytes())
                .filter(|(name, _)| name == key)
                .last()
                .map(|(_, value)| value.into_owned())
        };
        let kind = match path {
            "/api/v1/pods" => ObjectKind::Pod,
            "/api/v1/nodes" => ObjectKind::Node,
            "/apis/resource.k8s.io/v1/resourceslices" => {
                let selector = last("fieldSelector").unwrap_or_default();
                return slice_selector(&selector).map(Self::Slices);
            }
            "/version" => return Ok(Self::Version),
            _ => return object_request(path),
        };
        let is_true = |key: &str| last(key).is_some_and(|value| matches!(&*value, "true" | "1"));
        let chosen = matches_node(kind, &last("fieldSelector").unwrap_or_default(), node)?;
        let version = match last("resourceVersion").unwrap_or_default().as_str() {
            "" => 0,
            text => text.parse().map_err(|_| {
                invalid(400, "BadRequest", format!("invalid resource version {text:?}"))
            })?,
        };
        if !is_true("watch") {
            return Ok(Self::List { kind, chosen });
        }
        let seconds =
            last("timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_TIMEOUT);
        let bookmarks = is_true("allowWatchBookmarks");
        let initial = is_true("sendInitialEvents");
        if initial && !streaming {
            let text = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch \
                        unless the WatchList feature gate is enabled";
            return Err(invalid(422, "Invalid", text.into()));
        }
        if initial && last("resourceVersionMatch").as_deref() != Some("NotOlderThan") {
            let text = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
                        resourceVersionMatch to NotOlderThan";
            return Err(invalid(422, "Invalid", text.into()));
        }
        let start = match version {
            _ if initial => WatchStart::Initial { ends: bookmarks },
            0 => WatchStart::Initial { ends: false },
            version => WatchStart::After(version),
        };
        let timeout = Duration::from_secs(seconds.min(MAX_TIMEOUT));
        Ok(Self::Watch(WatchRequest { kind, selected: chosen, start, bookmarks, timeout }))
    }
}

/// The request for the resource claim or `ConfigMap` with this path.
fn object_request(path: &str) -> Result<ApiRequest, ApiError> {
    let object = |root: &str, resource: &str| {
        let (namespace, name) = path.strip_prefix(root)?.split_once(resource)?;
        Some((namespace.to_owned(), name.to_owned()))
    };
    let claim = object("/apis/resource.k8s.io/v1/namespaces/", "/resourceclaims/");
    let config_map = || object("/api/v1/namespaces/", "/configmaps/");
    let claim = claim.map(|(namespace, name)| ApiRequest::Claim(namespace, name));
    let request = claim
        .or_else(|| config_map().map(|(namespace, name)| ApiRequest::ConfigMap(namespace, name)));
    request.ok_or_else(|| {
        let text = "the server could not find the requested resource";
        ApiError { code: 404, reason: "NotFound", message: text.into() }
    })
}

fn slice_selector(selector: &str) -> Result<SliceSelector, ApiError> {
    let mut slices = SliceSelector { node: None, driver: None };
    for part in selector.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let field = match key {
            "spec.nodeName" => &mut slices.node,
            "spec.driver" => &mut slices.driver,
            _ => {
                let text = format!("field label not supported: {key}");
                return Err(invalid(400, "BadRequest", text));
            }
        };
        *field = Some(value.to_owned());
    }
    Ok(slices)
}

/// Whether a field selector matches this node or its pods.
fn matches_node(kind: ObjectKind, selector: &str, node: &str) -> Result<bool, ApiError> {
    let field = match kind {
        ObjectKind::Pod => "spec.nodeName",
        ObjectKind::Node => "metadata.name",
    };
    let mut matches = true;
    for part in selector.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if key != field {
            let text = format!("field label not supported: {key}");
            return Err(invalid(400, "BadRequest", text));
        }
        matches &= value.trim_start_matches('=') == node;
    }
    Ok(matches)
}

fn invalid(code: u16, reason: &'static str, text: String) -> ApiError {
    ApiError { code, reason, message: text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<ApiRequest, u16> {
        ApiRequest::parse("/api/v1/pods", query, "node-1", true).map_err(|error| error.code)
    }

    fn watch(chosen: bool, start: WatchStart, bookmarks: bool, seconds: u64) -> ApiRequest {
        let timeout = Duration::from_secs(seconds);
        ApiRequest::Watch(WatchRequest {
            kind: ObjectKind::Pod,
            selected: chosen,
            start,
            bookmarks,
            timeout,
        })
    }

    #[test]
    fn lists_and_watches_are_parsed_from_the_query() {
        let node = "fieldSelector=spec.nodeName%3Dnode-1";
        assert_eq!(read(""), Ok(ApiRequest::List { kind: ObjectKind::Pod, chosen: true }));
        assert_eq!(
            read(&format!("{node}&resourceVersion=0")),
            Ok(ApiRequest::List { kind: ObjectKind::Pod, chosen: true })
        );
        assert_eq!(
            read("fieldSelector=spec.nodeName=other"),
            Ok(ApiRequest::List { kind: ObjectKind::Pod, chosen: false })
        );
        assert_eq!(
            read(&format!(
                "{node}&watch=true&allowWatchBookmarks=true&timeoutSeconds=290&\
                 sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0"
            )),
            Ok(watch(true, WatchStart::Initial { ends: true }, true, 290))
        );
        assert_eq!(
            read("watch=1&resourceVersion=0"),
            Ok(watch(true, WatchStart::Initial { ends: false }, false, DEFAULT_TIMEOUT))
        );
        assert_eq!(
            read("watch=true&resourceVersion=1007&timeoutSeconds=999999"),
            Ok(watch(true, WatchStart::After(1_007), false, MAX_TIMEOUT))
        );
    }

    #[test]
    fn unsupported_requests_are_rejected() {
        for (query, code) in [
            ("fieldSelector=status.phase%3DRunning", 400),
            ("resourceVersion=newest", 400),
            ("watch=true&sendInitialEvents=true", 422),
        ] {
            assert_eq!(read(query), Err(code), "{query}");
        }
        let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        assert!(read(query).is_ok());
        let older = ApiRequest::parse("/api/v1/pods", query, "node-1", false);
        assert_eq!(older.unwrap_err().code, 422);
        assert_eq!(ApiRequest::parse("/api/v1/secrets", "", "node-1", true).unwrap_err().code, 404);
        let by_pod = "fieldSelector=spec.nodeName%3Dnode-1";
        assert_eq!(
            ApiRequest::parse("/api/v1/nodes", by_pod, "node-1", true).unwrap_err().code,
            400
        );
    }
}
