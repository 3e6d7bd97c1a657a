//! GPUs that are not there any more, and for how long: what is remembered of them is not kept for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::GPU_REMEMBERED;

/// When each GPU was last there, by UUID.
#[derive(Debug, Default)]
pub struct Absentees {
    seen: BTreeMap<Arc<str>, Duration>,
}

impl Absentees {
    /// These GPUs are there at `now` (monotonic); who has been absent for long is forgotten.
    pub fn see<'a>(&mut self, present: impl Iterator<Item = &'a Arc<str>>, now: Duration) {
        self.seen.retain(|_, seen| now.saturating_sub(*seen) <= GPU_REMEMBERED);
        for uuid in present {
            match self.seen.get_mut(uuid) {
                Some(seen) => *seen = now,
                None => drop(self.seen.insert(Arc::clone(uuid), now)),
            }
        }
    }

    /// Leaves in `records` only those of GPUs that are not forgotten.
    pub fn prune<V>(&self, records: &mut BTreeMap<Arc<str>, V>) {
        records.retain(|uuid, _| self.seen.contains_key(uuid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_a_gpu_outlive_it_for_an_hour() {
        let gpus: [Arc<str>; 2] = ["GPU-0".into(), "GPU-1".into()];
        let mut records: BTreeMap<Arc<str>, u32> = gpus.iter().cloned().zip(0..).collect();
        let mut absentees = Absentees::default();
        let second = Duration::from_secs(1);
        absentees.see(gpus.iter(), second);
        absentees.prune(&mut records);
        assert_eq!(records.len(), 2);
        absentees.see(gpus.iter().take(1), second + GPU_REMEMBERED);
        absentees.prune(&mut records);
        assert_eq!(records.len(), 2, "it may come back");
        absentees.see(gpus.iter().take(1), 2 * second + GPU_REMEMBERED);
        absentees.prune(&mut records);
        assert_eq!(records.keys().collect::<Vec<_>>(), [&gpus[0]]);
        assert_eq!(absentees.seen.len(), 1);
    }

    #[test]
    fn a_thousand_gpus_that_came_and_went_leave_nothing() {
        let mut absentees = Absentees::default();
        for n in 0..1000_u32 {
            let gpu: Arc<str> = format!("GPU-{n}").into();
            absentees.see([&gpu].into_iter(), Duration::from_secs(600 * u64::from(n)));
            assert!(absentees.seen.len() <= 7);
        }
    }
}
