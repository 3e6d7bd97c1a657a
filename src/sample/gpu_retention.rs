//! Retention of records of absent GPUs: they are dropped after [`GPU_RETENTION`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::GPU_RETENTION;

/// When each GPU was last present, by UUID.
#[derive(Debug, Default)]
pub struct GpuRetention {
    last_present: BTreeMap<Arc<str>, Duration>,
}

impl GpuRetention {
    /// Marks GPUs as present at `now` (monotonic) and drops GPUs that have been absent for longer
    /// than the retention time.
    pub fn mark_present<'a>(&mut self, present: impl Iterator<Item = &'a Arc<str>>, now: Duration) {
        self.last_present
            .retain(|_, last_present| now.saturating_sub(*last_present) <= GPU_RETENTION);
        for uuid in present {
            match self.last_present.get_mut(uuid) {
                Some(last_present) => *last_present = now,
                None => drop(self.last_present.insert(Arc::clone(uuid), now)),
            }
        }
    }

    /// Retains in `records` only the entries of GPUs that have not been dropped.
    pub fn retain<V>(&self, records: &mut BTreeMap<Arc<str>, V>) {
        records.retain(|uuid, _| self.last_present.contains_key(uuid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_absent_gpu_are_kept_for_an_hour() {
        let gpus: [Arc<str>; 2] = ["GPU-0".into(), "GPU-1".into()];
        let mut records: BTreeMap<Arc<str>, u32> = gpus.iter().cloned().zip(0..).collect();
        let mut retention = GpuRetention::default();
        let second = Duration::from_secs(1);
        retention.mark_present(gpus.iter(), second);
        retention.retain(&mut records);
        assert_eq!(records.len(), 2);
        retention.mark_present(gpus.iter().take(1), second + GPU_RETENTION);
        retention.retain(&mut records);
        assert_eq!(records.len(), 2, "it may come back");
        retention.mark_present(gpus.iter().take(1), 2 * second + GPU_RETENTION);
        retention.retain(&mut records);
        assert_eq!(records.keys().collect::<Vec<_>>(), [&gpus[0]]);
        assert_eq!(retention.last_present.len(), 1);
    }

    #[test]
    fn retention_is_bounded_for_many_transient_gpus() {
        let mut retention = GpuRetention::default();
        for n in 0..1000_u32 {
            let gpu: Arc<str> = format!("GPU-{n}").into();
            retention.mark_present([&gpu].into_iter(), Duration::from_secs(600 * u64::from(n)));
            assert!(retention.last_present.len() <= 7);
        }
    }
}
