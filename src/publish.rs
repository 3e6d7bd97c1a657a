//! The newest snapshot and its response bodies, each rendered on demand and at most once.

use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::landing;
use crate::render::{self, PageScope};
use crate::snapshot::Snapshot;
use crate::view::NodeView;
use crate::view::recent_use::RecentUse;

/// A published snapshot with its cached response bodies, shared by all requests until the next
/// cycle.
#[derive(Debug)]
pub struct Published {
    snapshot: Arc<Snapshot>,
    recent_use: Arc<RecentUse>,
    current: Bodies,
    withheld: Bodies,
}

#[derive(Debug, Default)]
struct Bodies {
    all: CachedBody,
    gpus: CachedBody,
    exporter: CachedBody,
    html: CachedBody,
    json: CachedBody,
}

#[derive(Debug, Default)]
struct CachedBody {
    plain: OnceLock<Bytes>,
    gzip: OnceLock<Bytes>,
}

impl Published {
    /// Wraps a snapshot; nothing is rendered yet.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot: Arc::new(snapshot),
            recent_use: Arc::default(),
            current: Bodies::default(),
            withheld: Bodies::default(),
        }
    }

    /// Adds the curves of the web page.
    #[must_use]
    pub fn with_recent_use(self, recent_use: Arc<RecentUse>) -> Self {
        Self { recent_use, ..self }
    }

    /// The snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Age of the snapshot at `now` (monotonic).
    #[must_use]
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.snapshot.at.mono)
    }

    /// The exposition of the families in `scope`, gzip-compressed on request. If the snapshot is
    /// older than `max_age` at `now` (monotonic), because the sampling thread has stopped, all GPU
    /// series are withheld.
    #[must_use]
    pub fn exposition(
        &self,
        scope: PageScope,
        now: Duration,
        max_age: Duration,
        gzip: bool,
    ) -> Bytes {
        let (stale, bodies) = self.bodies(now, max_age);
        bodies.of(scope).get(gzip, || {
            let snapshot = if stale {
                Arc::new(self.snapshot.without_gpu_data())
            } else {
                Arc::clone(&self.snapshot)
            };
            render::exposition(&snapshot, scope).unwrap_or_default()
        })
    }

    /// The node view as HTML or JSON; the same maximum age applies.
    #[must_use]
    pub fn view(&self, form: ViewFormat, now: Duration, max_age: Duration, gzip: bool) -> Bytes {
        let (stale, bodies) = self.bodies(now, max_age);
        let node = || NodeView::from_snapshot(&self.snapshot, stale);
        match form {
            ViewFormat::Html => bodies.html.get(gzip, || landing::page(&node(), &self.recent_use)),
            // Serialization cannot fail: a view contains neither maps nor foreign types.
            ViewFormat::Json => {
                bodies.json.get(gzip, || serde_json::to_string(&node()).unwrap_or_default())
            }
        }
    }

    fn bodies(&self, now: Duration, max_age: Duration) -> (bool, &Bodies) {
        let stale = self.age(now) > max_age;
        (stale, if stale { &self.withheld } else { &self.current })
    }
}

/// Output format of the node view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewFormat {
    /// The web page.
    Html,
    /// [`NodeView`] as JSON.
    Json,
}

impl Bodies {
    fn of(&self, scope: PageScope) -> &CachedBody {
        match scope {
            PageScope::All => &self.all,
            PageScope::Gpus => &self.gpus,
            PageScope::Exporter => &self.exporter,
        }
    }
}

impl CachedBody {
    fn get(&self, gzip: bool, render: impl FnOnce() -> String) -> Bytes {
        let plain = self.plain.get_or_init(|| shrink(render().into_bytes()));
        if gzip { self.gzip.get_or_init(|| compress(plain)).clone() } else { plain.clone() }
    }
}

fn compress(plain: &[u8]) -> Bytes {
    // Level 1: it compresses tenfold already, and higher levels cost more time than rendering.
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::fast());
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    // Writing to memory does not fail.
    shrink(written.unwrap_or_default())
}

/// Drops spare capacity: slow clients may keep many bodies alive.
fn shrink(mut body: Vec<u8>) -> Bytes {
    body.shrink_to_fit();
    body.into()
}
