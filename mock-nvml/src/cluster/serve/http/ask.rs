//! What a request asks for.

use std::time::Duration;

use crate::cluster::api::Kind;

/// How long a watch lasts that does not say.
const LASTS: u64 = 1_800;
/// How long a watch lasts at most.
const LONGEST: u64 = 86_400;

/// A request that is understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// A list of objects; empty unless this node is chosen.
    List { kind: Kind, chosen: bool },
    /// A watch of objects.
    Watch(Watch),
    /// The list of resource slices.
    Slices,
    /// Which version of Kubernetes it is.
    Version,
    /// Whether whoever asks may do something.
    Review,
}

impl Ask {
    /// What it takes to be answered: a verb and a resource, if anything.
    pub(super) fn right(&self) -> Option<(&'static str, &'static str)> {
        let resource = |kind| match kind {
            Kind::Pod => "pods",
            Kind::Node => "nodes",
        };
        match self {
            Self::List { kind, .. } => Some(("list", resource(*kind))),
            Self::Watch(watch) => Some(("watch", resource(watch.kind))),
            Self::Slices => Some(("list", "resourceslices")),
            Self::Review => Some(("create", "selfsubjectaccessreviews")),
            Self::Version => None,
        }
    }
}

/// A watch of objects.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Watch {
    /// Of which.
    pub(super) kind: Kind,
    /// This node is chosen.
    pub(super) chosen: bool,
    /// What it begins with.
    pub(super) start: Start,
    /// It wants bookmarks.
    pub(super) bookmarks: bool,
    /// When it ends.
    pub(super) timeout: Duration,
}

/// What a watch begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// All objects, and perhaps a mark at the end of that.
    Initial { ends: bool },
    /// What has happened after a version.
    After(u64),
}

/// How a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// HTTP status.
    pub(super) code: u16,
    /// Kubernetes' word for it.
    pub(super) reason: &'static str,
    /// Text for people.
    pub(super) said: String,
}

impl Ask {
    /// Reads a request to the API server of a cluster with the one node `node`.
    ///
    /// # Errors
    /// As an API server refuses it; without `streaming`, one that is older than streaming lists.
    pub(super) fn read(
        path: &str,
        query: &str,
        node: &str,
        streaming: bool,
    ) -> Result<Self, Refusal> {
        let last = |key: &str| {
            form_urlencoded::parse(query.as_bytes())
                .filter(|(name, _)| name == key)
                .last()
                .map(|(_, value)| value.into_owned())
        };
        let kind = match path {
            "/api/v1/pods" => Kind::Pod,
            "/api/v1/nodes" => Kind::Node,
            "/apis/resource.k8s.io/v1/resourceslices" => return Ok(Self::Slices),
            "/version" => return Ok(Self::Version),
            _ => {
                let said = "the server could not find the requested resource";
                return Err(Refusal { code: 404, reason: "NotFound", said: said.into() });
            }
        };
        let on = |key: &str| last(key).is_some_and(|value| matches!(&*value, "true" | "1"));
        let chosen = chosen(kind, &last("fieldSelector").unwrap_or_default(), node)?;
        let version = match last("resourceVersion").unwrap_or_default().as_str() {
            "" => 0,
            text => text.parse().map_err(|_| {
                invalid(400, "BadRequest", format!("invalid resource version {text:?}"))
            })?,
        };
        if !on("watch") {
            return Ok(Self::List { kind, chosen });
        }
        let seconds = last("timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(LASTS);
        let bookmarks = on("allowWatchBookmarks");
        let initial = on("sendInitialEvents");
        if initial && !streaming {
            let said = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch \
                        unless the WatchList feature gate is enabled";
            return Err(invalid(422, "Invalid", said.into()));
        }
        if initial && last("resourceVersionMatch").as_deref() != Some("NotOlderThan") {
            let said = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
                        resourceVersionMatch to NotOlderThan";
            return Err(invalid(422, "Invalid", said.into()));
        }
        let start = match version {
            _ if initial => Start::Initial { ends: bookmarks },
            0 => Start::Initial { ends: false },
            version => Start::After(version),
        };
        let timeout = Duration::from_secs(seconds.min(LONGEST));
        Ok(Self::Watch(Watch { kind, chosen, start, bookmarks, timeout }))
    }
}

/// Whether a field selector chooses this node, or its pods.
fn chosen(kind: Kind, selector: &str, node: &str) -> Result<bool, Refusal> {
    let field = match kind {
        Kind::Pod => "spec.nodeName",
        Kind::Node => "metadata.name",
    };
    let mut chosen = true;
    for part in selector.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if key != field {
            let said = format!("field label not supported: {key}");
            return Err(invalid(400, "BadRequest", said));
        }
        chosen &= value.trim_start_matches('=') == node;
    }
    Ok(chosen)
}

fn invalid(code: u16, reason: &'static str, said: String) -> Refusal {
    Refusal { code, reason, said }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Ask, u16> {
        Ask::read("/api/v1/pods", query, "node-1", true).map_err(|refusal| refusal.code)
    }

    fn watch(chosen: bool, start: Start, bookmarks: bool, seconds: u64) -> Ask {
        let timeout = Duration::from_secs(seconds);
        Ask::Watch(Watch { kind: Kind::Pod, chosen, start, bookmarks, timeout })
    }

    #[test]
    fn lists_and_watches_are_told_apart() {
        let node = "fieldSelector=spec.nodeName%3Dnode-1";
        assert_eq!(read(""), Ok(Ask::List { kind: Kind::Pod, chosen: true }));
        assert_eq!(
            read(&format!("{node}&resourceVersion=0")),
            Ok(Ask::List { kind: Kind::Pod, chosen: true })
        );
        assert_eq!(
            read("fieldSelector=spec.nodeName=other"),
            Ok(Ask::List { kind: Kind::Pod, chosen: false })
        );
        assert_eq!(
            read(&format!(
                "{node}&watch=true&allowWatchBookmarks=true&timeoutSeconds=290&\
                 sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0"
            )),
            Ok(watch(true, Start::Initial { ends: true }, true, 290))
        );
        assert_eq!(
            read("watch=1&resourceVersion=0"),
            Ok(watch(true, Start::Initial { ends: false }, false, LASTS))
        );
        assert_eq!(
            read("watch=true&resourceVersion=1007&timeoutSeconds=999999"),
            Ok(watch(true, Start::After(1_007), false, LONGEST))
        );
    }

    #[test]
    fn what_an_api_server_refuses_is_refused() {
        for (query, code) in [
            ("fieldSelector=status.phase%3DRunning", 400),
            ("resourceVersion=newest", 400),
            ("watch=true&sendInitialEvents=true", 422),
        ] {
            assert_eq!(read(query), Err(code), "{query}");
        }
        let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        assert!(read(query).is_ok());
        let older = Ask::read("/api/v1/pods", query, "node-1", false);
        assert_eq!(older.unwrap_err().code, 422);
        assert_eq!(Ask::read("/api/v1/secrets", "", "node-1", true).unwrap_err().code, 404);
        let by_pod = "fieldSelector=spec.nodeName%3Dnode-1";
        assert_eq!(Ask::read("/api/v1/nodes", by_pod, "node-1", true).unwrap_err().code, 400);
    }
}
