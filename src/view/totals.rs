//! Sums over the GPUs of a node.

use std::collections::BTreeSet;

use super::{
    Absence, GpuView, HealthStatus, NodeTotals, NodeView, Number, PartitionView, StatusCount,
    UnidentifiedView,
};

impl NodeTotals {
    /// The totals of these GPUs.
    #[must_use]
    pub fn of(gpus: &[GpuView], unidentified: &[UnidentifiedView]) -> Self {
        let identified = gpus.iter().map(|gpu| gpu.status);
        let statuses = || identified.clone().chain(unidentified.iter().map(|gpu| gpu.status));
        let count = |status| StatusCount {
            status,
            gpu_count: statuses().filter(|other| *other == status).count(),
        };
        let counts = HealthStatus::WORST_FIRST.map(count);
        let memory: Vec<_> = gpus.iter().map(GpuView::memory).collect();
        let power: Vec<_> = gpus
            .iter()
            .map(|gpu| (gpu.power_watts.clone(), gpu.power_limit_watts.clone()))
            .collect();
        let (memory, power) = (Sum::of(&memory), Sum::of(&power));
        Self {
            status: statuses().max().unwrap_or(HealthStatus::Unknown),
            gpus_by_status: counts.into_iter().filter(|count| count.gpu_count > 0).collect(),
            memory_used_mib: memory.part,
            memory_total_mib: memory.whole,
            memory_gpu_count: memory.count,
            power_watts: power.part,
            power_limit_watts: power.whole,
            power_gpu_count: power.count,
        }
    }
}

impl NodeView {
    /// Number of GPUs that can be read, and of all that NVML counts.
    #[must_use]
    pub fn readable_gpus(&self) -> (usize, usize) {
        let (identified, unidentified) = (&self.gpus, self.unidentified.len());
        let readable = identified.iter().filter(|gpu| gpu.readable).count();
        (readable, identified.len() + unidentified)
    }
}

impl GpuView {
    /// Used and total framebuffer, in MiB: with MIG, of all GPU instances.
    #[must_use]
    pub fn memory(&self) -> (Number, Number) {
        // Compute instances of one GPU instance share its framebuffer.
        let mut instances = BTreeSet::new();
        let mut is_first =
            |part: &&PartitionView| instances.insert(part.mig.as_ref().map(|mig| mig.gpu_instance));
        let parts: Vec<&PartitionView> = self.parts.iter().filter(|part| is_first(part)).collect();
        let all = |of: fn(&PartitionView) -> &Number| {
            let mut sum = 0.0;
            for part in &parts {
                match of(part) {
                    Number::Known(value) => sum += value,
                    absent @ Number::Absent { .. } => return absent.clone(),
                }
            }
            if parts.is_empty() { not_collected() } else { Number::Known(sum) }
        };
        (all(|part| &part.memory_used_mib), all(|part| &part.memory_total_mib))
    }
}

/// The sum of pairs of which both are known.
struct Sum {
    part: Number,
    whole: Number,
    count: usize,
}

impl Sum {
    fn of(pairs: &[(Number, Number)]) -> Self {
        let known = pairs.iter().filter_map(|(part, whole)| part.known().zip(whole.known()));
        let known: Vec<(f64, f64)> = known.collect();
        if known.is_empty() {
            let absent = |(part, whole): &(Number, Number)| {
                if part.known().is_none() { part.clone() } else { whole.clone() }
            };
            let absent = pairs.first().map_or_else(not_collected, absent);
            return Self { part: absent.clone(), whole: absent, count: 0 };
        }
        Self {
            part: Number::Known(known.iter().map(|(part, _)| part).sum()),
            whole: Number::Known(known.iter().map(|(_, whole)| whole).sum()),
            count: known.len(),
        }
    }
}

fn not_collected() -> Number {
    Number::Absent { absent: Absence::NotCollected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_has_only_pairs_that_are_known() {
        let absent = || Number::Absent { absent: Absence::Unread("hung".to_owned()) };
        let pairs = [
            (Number::Known(1.0), Number::Known(10.0)),
            (Number::Known(2.0), absent()),
            (absent(), Number::Known(4.0)),
            (Number::Known(3.0), Number::Known(10.0)),
        ];
        let sum = Sum::of(&pairs);
        assert_eq!((sum.part, sum.whole, sum.count), (Number::Known(4.0), Number::Known(20.0), 2));
        let none = Sum::of(&pairs[1..3]);
        assert_eq!((none.part, none.whole, none.count), (absent(), absent(), 0));
    }
}
