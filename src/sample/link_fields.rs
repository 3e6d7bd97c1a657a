//! Fields of each link of a GPU, and its place in the rack, read slowly.

use std::sync::Arc;
use std::time::Duration;

use super::cached::{Cached, is_fresh_slow};
use super::link_rates::LinkRates;
use crate::clock::Clock;
use crate::model::{LinkFields, Missing};
use crate::nvml::Session;
use crate::nvml::links::LinkKind;
use crate::nvml::raw::Handle;
use crate::nvml::raw::platform::{Platform, platform};
use crate::selection::{LinkInputs, Selection};

/// Readings that have a label each.
type Shared<T> = Result<Arc<T>, Missing>;

/// What was read of the links and the place of a GPU.
#[derive(Clone, Debug, Default)]
pub struct LabeledReadings {
    /// Fields of each `NVLink`; `None` if not selected.
    pub nvlink_fields: Option<Shared<LinkFields>>,
    /// Increase per second of fields of each `NVLink`; `None` if not selected.
    pub nvlink_rates: Option<Shared<LinkFields>>,
    /// Error counters of each `NVLink`; `None` if not selected.
    pub nvlink_errors: Option<Shared<LinkFields>>,
    /// Fields of each C2C link; `None` if not selected.
    pub c2c_fields: Option<Shared<LinkFields>>,
    /// Place in the rack; `None` if not selected.
    pub platform: Option<Shared<Platform>>,
}

/// Caches of what is read slowly.
#[derive(Default)]
pub(super) struct LabeledReader {
    nvlink: LinkFieldCache,
    rates: LinkRates,
    errors: LinkFieldCache,
    c2c: LinkFieldCache,
    platform: Cached<Shared<Platform>>,
}

impl LabeledReader {
    /// Reads what is selected and due at `now` (monotonic), rates in each cycle.
    pub(super) fn read(
        &mut self,
        selection: &Selection,
        session: &Session,
        gpu: Handle,
        clock: Clock,
        now: Duration,
    ) -> LabeledReadings {
        let fields = |kind, ids: &[u32]| session.link_fields(gpu, kind, ids).map(Arc::new);
        let LinkInputs { nvlink_fields, nvlink_rates, nvlink_errors, c2c_fields } =
            selection.link_inputs();
        let nvlink_rates = (!nvlink_rates.is_empty()).then(|| {
            let readings = session.link_readings(gpu, LinkKind::NvLink, &nvlink_rates);
            self.rates.update(readings, clock.now()).map(Arc::new)
        });
        let errors = |counters: &[u32]| session.link_errors(gpu, counters).map(Arc::new);
        let read_platform = || platform(session.nvml(), gpu).map(Arc::new);
        // The place does not change while the handle is valid.
        let is_known =
            |platform: &Shared<Platform>, age| platform.is_ok() || is_fresh_slow(&(), age);
        LabeledReadings {
            nvlink_fields: self
                .nvlink
                .read(nvlink_fields, now, |ids| fields(LinkKind::NvLink, ids)),
            nvlink_rates,
            nvlink_errors: self.errors.read(nvlink_errors, now, errors),
            c2c_fields: self.c2c.read(c2c_fields, now, |ids| fields(LinkKind::C2c, ids)),
            platform: selection
                .needs_platform()
                .then(|| self.platform.get_or_read(now, is_known, read_platform)),
        }
    }
}

/// Cached readings of the fields of one kind of links.
#[derive(Default)]
struct LinkFieldCache {
    fields: Vec<u32>,
    readings: Cached<Shared<LinkFields>>,
}

impl LinkFieldCache {
    fn read(
        &mut self,
        fields: Vec<u32>,
        now: Duration,
        read: impl FnOnce(&[u32]) -> Shared<LinkFields>,
    ) -> Option<Shared<LinkFields>> {
        if fields != self.fields {
            *self = Self { fields, readings: Cached::default() };
        }
        if self.fields.is_empty() {
            return None;
        }
        Some(self.readings.get_or_read(now, is_fresh_slow, || read(&self.fields)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::SLOW_TIER;

    #[test]
    fn fields_are_read_slowly_and_at_once_if_others_are_selected() {
        let mut cache = LinkFieldCache::default();
        let mut reads = Vec::new();
        let mut read = |fields: &[u32], at| {
            let readings = |ids: &[u32]| {
                reads.push((at, ids.to_vec()));
                Ok(Arc::new(LinkFields::new()))
            };
            cache.read(fields.to_vec(), at, readings).is_some()
        };
        let start = Duration::from_secs(100);
        assert!(!read(&[], start));
        assert!(read(&[221], start) && read(&[221], start + SLOW_TIER / 2));
        assert!(read(&[221, 222], start + SLOW_TIER / 2));
        assert!(read(&[221, 222], start + SLOW_TIER * 2));
        let expected = [
            (start, vec![221]),
            (start + SLOW_TIER / 2, vec![221, 222]),
            (start + SLOW_TIER * 2, vec![221, 222]),
        ];
        assert_eq!(reads, expected);
    }
}
