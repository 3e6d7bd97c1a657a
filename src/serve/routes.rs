//! The paths of the HTTP server.

use std::sync::Arc;

use crate::publish::ViewFormat;
use crate::render::PageScope;

/// All fixed paths, including those that the configuration disables.
pub const PATHS: [&str; 7] =
    [LANDING, NODE, METRICS, "/healthz", "/health", "/readyz", "/startupz"];
const METRICS: &str = "/metrics";
/// The web UI.
const LANDING: &str = "/";
/// The data of the web UI, as JSON.
const NODE: &str = "/api/v1/node";

/// The configuration of the paths.
#[derive(Clone, Debug)]
pub struct Routes {
    /// HTTP path of the exporter's own metrics; `None` if they are part of `/metrics`.
    pub own_metrics_path: Option<Arc<str>>,
    /// Whether to serve the web UI and `/api/v1/node`.
    pub landing: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Route {
    Metrics(PageScope),
    View(ViewFormat),
    Readiness,
    Liveness,
    Startup,
}

impl Route {
    /// Whether the path is for probes, which have no password.
    pub(super) fn is_probe(self) -> bool {
        matches!(self, Self::Readiness | Self::Liveness | Self::Startup)
    }
}

impl Routes {
    pub(super) fn find(&self, path: &str) -> Option<Route> {
        match (path, self.own_metrics_path.as_deref()) {
            (METRICS, None) => Some(Route::Metrics(PageScope::All)),
            (METRICS, Some(_)) => Some(Route::Metrics(PageScope::Gpus)),
            ("/readyz", _) => Some(Route::Readiness),
            ("/healthz" | "/health", _) => Some(Route::Liveness),
            ("/startupz", _) => Some(Route::Startup),
            (LANDING, _) => self.landing.then_some(Route::View(ViewFormat::Html)),
            (NODE, _) => self.landing.then_some(Route::View(ViewFormat::Json)),
            (path, Some(own)) => (path == own).then_some(Route::Metrics(PageScope::Exporter)),
            (_, None) => None,
        }
    }
}
