//! The paths of the HTTP server.

use std::sync::Arc;

use crate::publish::ViewFormat;
use crate::render::PageScope;

/// All fixed paths, including those that the configuration disables.
pub const PATHS: [&str; 7] =
    [LANDING, NODE, METRICS, "/healthz", "/health", "/readyz", "/startupz"];
/// The metrics.
pub const METRICS: &str = "/metrics";
/// The exporter's own metrics, if they are not part of [`METRICS`], unless a flag sets another path.
pub const OWN_METRICS: &str = "/metrics/own";
/// The web UI.
pub const LANDING: &str = "/";
/// The data of the web UI, as JSON.
const NODE: &str = "/api/v1/node";

/// The configuration of the paths.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Another path of what is at `/metrics`.
    pub telemetry_path: Option<Arc<str>>,
    /// Path of the exporter's own metrics, if they have one.
    pub own_path: Option<Arc<str>>,
    /// Whether the exporter's own metrics are part of `/metrics`.
    pub are_own_on_metrics: bool,
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
        let metrics = if self.are_own_on_metrics { PageScope::All } else { PageScope::Gpus };
        match path {
            METRICS => Some(Route::Metrics(metrics)),
            "/readyz" => Some(Route::Readiness),
            "/healthz" | "/health" => Some(Route::Liveness),
            "/startupz" => Some(Route::Startup),
            LANDING => self.landing.then_some(Route::View(ViewFormat::Html)),
            NODE => self.landing.then_some(Route::View(ViewFormat::Json)),
            path if self.telemetry_path.as_deref() == Some(path) => Some(Route::Metrics(metrics)),
            path if self.own_path.as_deref() == Some(path) => {
                Some(Route::Metrics(PageScope::Exporter))
            }
            _ => None,
        }
    }
}
