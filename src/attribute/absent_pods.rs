//! Since when the pods of listed processes have not existed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kube::pods::{PodSnapshot, UidLookup};
use crate::model::{CgroupLocation, PodUid};
use crate::policy::{POD_OUTLIVED_MAX, PODS_MAX};

/// UIDs in the cgroups of processes, of pods that do not exist. All processes of a pod have one time, so that they
/// are reported as outlived in the same cycle.
#[derive(Clone, Debug, Default)]
pub struct AbsentPods(BTreeMap<PodUid, AbsentPod>);

#[derive(Clone, Copy, Debug)]
struct AbsentPod {
    /// When the pod ended, or if that was not observed, when a complete and current pod list first lacked it
    /// (monotonic).
    since: Duration,
    /// When one of its processes was last listed (monotonic).
    listed: Duration,
}

impl AbsentPods {
    /// Updates it with the cgroups of the processes that the driver lists at `now` (monotonic). While the pod list
    /// is not current, nothing is added.
    pub fn update<'a>(
        &mut self,
        locations: impl Iterator<Item = &'a CgroupLocation>,
        pods: &PodSnapshot,
        now: Duration,
    ) {
        for location in locations {
            let CgroupLocation::Pod(paths) = location else { continue };
            for path in paths {
                self.observe(&path.uid, pods, now);
            }
        }
        self.0.retain(|_, absence| now.saturating_sub(absence.listed) < POD_OUTLIVED_MAX);
    }

    fn observe(&mut self, uid: &PodUid, pods: &PodSnapshot, now: Duration) {
        let ended = match pods.by_uid(uid.as_str()) {
            UidLookup::Live(_) | UidLookup::Ambiguous => {
                self.0.remove(uid);
                return;
            }
            UidLookup::Deleted(_) => pods.ended(uid.as_str()),
            UidLookup::Unknown => pods.is_current().then_some(now),
        };
        if let Some(absence) = self.0.get_mut(uid) {
            absence.listed = now;
        } else if let Some(since) = ended
            && self.0.len() < PODS_MAX
        {
            self.0.insert(uid.clone(), AbsentPod { since, listed: now });
        }
    }

    /// Since when the pod has not existed (monotonic); `None` if that is not known.
    #[must_use]
    pub fn since(&self, uid: &PodUid) -> Option<Duration> {
        self.0.get(uid).map(|absence| absence.since)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kube::pods::store::PodStore;
    use crate::kube::source::FailureReason;
    use crate::model::{PodPath, Problem};

    const T: fn(u64) -> Duration = Duration::from_secs;
    const UID: &str = "3f6a1c58-90de-4b27-a1f4-0c9d5e7b2a63";

    struct PodHistory {
        absent: AbsentPods,
        store: PodStore,
    }

    impl PodHistory {
        fn since(&mut self, at: u64, is_listed: bool) -> Option<Duration> {
            let uid = PodUid::parse(UID.as_bytes()).unwrap();
            let path = PodPath { uid: uid.clone(), container: None };
            let location = CgroupLocation::Pod(vec![path]);
            let listed = is_listed.then_some(&location);
            self.absent.update(listed.into_iter(), &self.store.snapshot(T(at)), T(at));
            self.absent.since(&uid)
        }

        fn receive_list(&mut self, pods: &[&str], at: u64) {
            self.store.begin_list();
            for uid in pods {
                let object =
                    json!({ "metadata": { "uid": uid, "namespace": "team", "name": "a" } });
                let pod = crate::kube::pod::parse(object.to_string().as_bytes());
                self.store.apply(pod.unwrap(), T(at));
            }
            self.store.end_list(T(at));
            self.store.health.record_success(T(at));
        }

        fn fail(&mut self, at: u64) {
            let problem = Problem::without_remedy("gone");
            self.store.health.record_failure(FailureReason::Connection, &problem, T(at));
        }
    }

    fn history() -> PodHistory {
        PodHistory { absent: AbsentPods::default(), store: PodStore::new("api", "n1") }
    }

    #[test]
    fn unknown_pod_is_absent_since_the_first_complete_list_without_it() {
        let mut history = history();
        assert_eq!(history.since(900, true), None, "no list was received");
        history.receive_list(&[], 1000);
        assert_eq!(history.since(1005, true), Some(T(1005)));
        // An outage, and a cycle in which no process was listed, change nothing.
        history.fail(1010);
        assert_eq!(history.since(1015, true), Some(T(1005)));
        assert_eq!(history.since(1020, false), Some(T(1005)));
        history.receive_list(&[UID], 1025);
        assert_eq!(history.since(1030, true), None, "it exists");
        history.fail(1040);
        assert_eq!(history.since(1045, true), None);
    }

    #[test]
    fn deleted_pod_is_absent_since_its_end_after_its_tombstone_expired() {
        let mut history = history();
        history.receive_list(&[UID], 0);
        assert_eq!(history.since(5, true), None);
        history.receive_list(&[], 10);
        let late = 20 + POD_OUTLIVED_MAX.as_secs();
        for at in [15, late, late + 5] {
            assert_eq!(history.since(at, true), Some(T(10)), "{at}");
        }
        assert_eq!(history.since(2 * late, false), None, "no process was listed for long");
    }
}
