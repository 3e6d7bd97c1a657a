//! The newest snapshot and its pages, each rendered at most once and on demand.

use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::landing;
use crate::render::{self, Part};
use crate::snapshot::Snapshot;
use crate::view::NodeView;

/// What all scrapes share until the next cycle.
#[derive(Debug)]
pub struct Published {
    snapshot: Arc<Snapshot>,
    full: Pages,
    withheld: Pages,
}

#[derive(Debug, Default)]
struct Pages {
    whole: Page,
    gpus: Page,
    own: Page,
    html: Page,
    json: Page,
}

#[derive(Debug, Default)]
struct Page {
    plain: OnceLock<Bytes>,
    gzip: OnceLock<Bytes>,
}

impl Published {
    /// Publishes a snapshot; nothing is rendered yet.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot: Arc::new(snapshot), full: Pages::default(), withheld: Pages::default() }
    }

    /// What the pages say.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// How old it is at the monotonic time `now`.
    #[must_use]
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.snapshot.at.mono)
    }

    /// A page as text, or compressed. A snapshot that is older than `max_age` at `now`, because
    /// the sampling thread has stopped, gives no number of any GPU.
    #[must_use]
    pub fn page(&self, part: Part, now: Duration, max_age: Duration, gzip: bool) -> Bytes {
        let (stale, pages) = self.pages(now, max_age);
        pages.of(part).get(gzip, || {
            let snapshot =
                if stale { Arc::new(self.snapshot.withheld()) } else { Arc::clone(&self.snapshot) };
            render::page(&snapshot, part).unwrap_or_default()
        })
    }

    /// The node for people, as a page or as JSON, with the same regard to its age.
    #[must_use]
    pub fn view(&self, form: Form, now: Duration, max_age: Duration, gzip: bool) -> Bytes {
        let (stale, pages) = self.pages(now, max_age);
        let node = || NodeView::of(&self.snapshot, stale);
        match form {
            Form::Html => pages.html.get(gzip, || landing::page(&node())),
            // Of a view, which has neither maps nor foreign types, JSON can always be made.
            Form::Json => {
                pages.json.get(gzip, || serde_json::to_string(&node()).unwrap_or_default())
            }
        }
    }

    fn pages(&self, now: Duration, max_age: Duration) -> (bool, &Pages) {
        let stale = self.age(now) > max_age;
        (stale, if stale { &self.withheld } else { &self.full })
    }
}

/// In which form the node is shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A page.
    Html,
    /// [`NodeView`].
    Json,
}

impl Pages {
    fn of(&self, part: Part) -> &Page {
        match part {
            Part::Whole => &self.whole,
            Part::Gpus => &self.gpus,
            Part::Own => &self.own,
        }
    }
}

impl Page {
    fn get(&self, gzip: bool, render: impl FnOnce() -> String) -> Bytes {
        let plain = self.plain.get_or_init(|| exact(render().into_bytes()));
        if gzip { self.gzip.get_or_init(|| compress(plain)).clone() } else { plain.clone() }
    }
}

fn compress(plain: &[u8]) -> Bytes {
    // Level 1: a page compresses tenfold already, and higher levels cost more than the rendering.
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::fast());
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    // Writing to memory does not fail.
    exact(written.unwrap_or_default())
}

/// Without the room to grow: slow clients may hold many pages.
fn exact(mut page: Vec<u8>) -> Bytes {
    page.shrink_to_fit();
    page.into()
}
