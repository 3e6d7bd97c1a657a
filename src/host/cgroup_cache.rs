//! Cache of the container, pod or host that each process of a GPU runs in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{CgroupLocation, Discard, ProcessId};
use crate::policy::{CGROUP_LOCATION_UNLISTED_CYCLES, cgroup_location_due};

/// The last location read of every process that was listed recently. Each GPU thread has its own
/// cache and calls [`CgroupCache::begin_cycle`] once per cycle.
#[derive(Debug, Default)]
pub struct CgroupCache {
    cycle: u64,
    now: Duration,
    entries: BTreeMap<ProcessId, CachedLocation>,
}

#[derive(Debug)]
struct CachedLocation {
    location: Result<Arc<CgroupLocation>, Discard>,
    /// When `location` was read (monotonic).
    read_at: Duration,
    /// Since when it has had no usable location (an error or conflicting cgroups).
    unresolved_since: Option<Duration>,
    /// The last cycle in which the process was listed and alive.
    last_seen: u64,
}

impl CgroupCache {
    /// Begins a cycle at `now` (monotonic) and evicts processes that have not been listed for
    /// [`CGROUP_LOCATION_UNLISTED_CYCLES`].
    pub fn begin_cycle(&mut self, now: Duration) {
        self.cycle += 1;
        self.now = now;
        let cycle = self.cycle;
        self.entries.retain(|_, entry| cycle - entry.last_seen <= CGROUP_LOCATION_UNLISTED_CYCLES);
    }

    /// The location of a listed, living process. Calls `read` only if there is no cached location
    /// or it is due for another read.
    ///
    /// # Errors
    /// The location could not be read. An earlier location is not used then, unless the process
    /// has just exited.
    pub fn get_or_read(
        &mut self,
        id: ProcessId,
        read: impl FnOnce(ProcessId) -> Result<CgroupLocation, Discard>,
    ) -> Result<Arc<CgroupLocation>, Discard> {
        let (cycle, now) = (self.cycle, self.now);
        let entry = match self.entries.get_mut(&id) {
            Some(entry) => {
                if entry.due(cycle, now) {
                    entry.update(read(id), now);
                }
                entry
            }
            None => self.entries.entry(id).or_insert(CachedLocation::new(read(id), now)),
        };
        entry.last_seen = cycle;
        entry.location.clone()
    }

    /// Identity and location of the process that had `pid`, if it was alive in this cycle or the
    /// previous one: the driver may list a process for a while after it is gone from `/proc`.
    #[must_use]
    pub fn recently_exited(&self, pid: u32) -> Option<(ProcessId, Arc<CgroupLocation>)> {
        let of_pid = ProcessId { pid, started: 0 }..=ProcessId { pid, started: u64::MAX };
        let (id, entry) = self.entries.range(of_pid).next_back()?;
        let placement = entry.location.as_ref().ok()?;
        (self.cycle - entry.last_seen <= 1).then(|| (*id, Arc::clone(placement)))
    }

    /// Cgroup of a process that is exiting and has no readable one any more.
    pub fn get_exiting(&mut self, id: ProcessId) -> Option<Arc<CgroupLocation>> {
        let entry = self.entries.get_mut(&id)?;
        entry.last_seen = self.cycle;
        entry.location.as_ref().ok().cloned()
    }

    /// Number of cached processes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the cache is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl CachedLocation {
    fn new(location: Result<CgroupLocation, Discard>, now: Duration) -> Self {
        let location = location.map(Arc::new);
        let unresolved_since = is_unresolved(&location).then_some(now);
        Self { location, read_at: now, unresolved_since, last_seen: 0 }
    }

    /// A process that is listed twice in one cycle is read once.
    fn due(&self, cycle: u64, now: Duration) -> bool {
        let unresolved = self.unresolved_since.map(|since| now.saturating_sub(since));
        self.last_seen < cycle && cgroup_location_due(now.saturating_sub(self.read_at), unresolved)
    }

    fn update(&mut self, location: Result<CgroupLocation, Discard>, now: Duration) {
        self.read_at = now;
        match location {
            // It exited after it was identified: its location did not change.
            Err(Discard::Gone | Discard::Zombie) if self.location.is_ok() => {}
            // Unchanged: keep the shared value.
            Ok(placement) if self.location.as_deref() == Ok(&placement) => {}
            location => self.location = location.map(Arc::new),
        }
        self.unresolved_since =
            is_unresolved(&self.location).then(|| self.unresolved_since.unwrap_or(now));
    }
}

fn is_unresolved(location: &Result<Arc<CgroupLocation>, Discard>) -> bool {
    match location.as_deref() {
        Ok(CgroupLocation::Pod(_) | CgroupLocation::Container(_) | CgroupLocation::Host) => false,
        Ok(CgroupLocation::Conflict) | Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ContainerId;
    use std::cell::Cell;

    const A: ProcessId = ProcessId { pid: 7, started: 1 };
    const SUCCESSOR: ProcessId = ProcessId { pid: 7, started: 2 };

    fn container(digits: &str) -> CgroupLocation {
        CgroupLocation::Container(ContainerId::parse(digits.repeat(32).as_bytes()).unwrap())
    }

    /// A cache under virtual time, with a settable read result and a read counter.
    struct Fixture {
        cache: CgroupCache,
        reads: Cell<u32>,
        now: u64,
        location: Result<CgroupLocation, Discard>,
    }

    impl Fixture {
        fn new(location: Result<CgroupLocation, Discard>) -> Self {
            Self { cache: CgroupCache::default(), reads: Cell::new(0), now: 0, location }
        }

        /// Begins a cycle `seconds` after the last one.
        fn begin(&mut self, seconds: u64) {
            self.now += seconds;
            self.cache.begin_cycle(Duration::from_secs(self.now));
        }

        fn get(&mut self, id: ProcessId) -> Result<CgroupLocation, Discard> {
            let placement = self.cache.get_or_read(id, |requested| {
                assert_eq!(requested, id);
                self.reads.set(self.reads.get() + 1);
                self.location.clone()
            });
            placement.map(|placement| (*placement).clone())
        }

        fn cycle(&mut self, seconds: u64) -> Result<CgroupLocation, Discard> {
            self.begin(seconds);
            self.get(A)
        }

        fn departed(&self) -> Option<(ProcessId, CgroupLocation)> {
            let departed = self.cache.recently_exited(A.pid);
            departed.map(|(id, placement)| (id, (*placement).clone()))
        }
    }

    #[test]
    fn cached_process_is_read_once_a_minute() {
        let mut fixture = Fixture::new(Ok(container("aa")));
        for _ in 0..12 {
            assert_eq!(fixture.cycle(5), Ok(container("aa")));
        }
        assert_eq!(fixture.reads.get(), 1);
        fixture.location = Ok(container("bb"));
        assert_eq!(fixture.cycle(5), Ok(container("bb")), "the move is detected after a minute");
        assert_eq!(fixture.reads.get(), 2);
    }

    #[test]
    fn cached_processes_cost_no_read() {
        let mut fixture = Fixture::new(Ok(CgroupLocation::Host));
        for _ in 0..10 {
            fixture.begin(5);
            for pid in 1..=64 {
                let id = ProcessId { pid, started: 1 };
                assert_eq!(fixture.get(id), Ok(CgroupLocation::Host));
                assert_eq!(fixture.get(id), Ok(CgroupLocation::Host));
            }
        }
        assert_eq!(fixture.reads.get(), 64);
    }

    #[test]
    fn unresolved_process_is_retried_every_cycle_then_rarely() {
        for location in
            [Ok(CgroupLocation::Conflict), Err(Discard::Denied), Err(Discard::Unreadable)]
        {
            let mut fixture = Fixture::new(location.clone());
            for _ in 0..=12 {
                assert_eq!(fixture.cycle(5), location);
                assert_eq!(fixture.get(A), location, "twice in one cycle");
            }
            assert_eq!(fixture.reads.get(), 13, "each cycle of the first minute");
            for _ in 0..12 {
                assert_eq!(fixture.cycle(5), location);
            }
            assert_eq!(fixture.reads.get(), 15, "twice in the next");
            fixture.location = Ok(CgroupLocation::Host);
            fixture.cycle(30).unwrap();
            fixture.location = location.clone();
            assert_eq!(
                fixture.cycle(59),
                Ok(CgroupLocation::Host),
                "resolved, so cached for a minute"
            );
            assert_eq!(
                fixture.cycle(1),
                location,
                "an unresolved read replaces the cached location"
            );
            let reads = fixture.reads.get();
            assert_eq!(fixture.cycle(5), location);
            assert_eq!(
                fixture.reads.get(),
                reads + 1,
                "a newly unresolved process is retried at once"
            );
        }
    }

    #[test]
    fn unlisted_process_is_evicted() {
        let mut fixture = Fixture::new(Ok(CgroupLocation::Host));
        fixture.cycle(5).unwrap();
        fixture.begin(5);
        fixture.begin(5);
        assert_eq!(fixture.cache.len(), 1);
        fixture.cycle(5).unwrap();
        assert_eq!(
            (fixture.reads.get(), fixture.cache.len()),
            (2, 1),
            "it is read as a new process"
        );
        for _ in 0..3 {
            fixture.begin(5);
        }
        assert!(fixture.cache.is_empty());
    }

    #[test]
    fn process_alive_in_previous_cycle_keeps_its_location() {
        let mut fixture = Fixture::new(Ok(container("aa")));
        assert_eq!(fixture.departed(), None);
        fixture.cycle(5).unwrap();
        fixture.begin(5);
        assert_eq!(fixture.departed(), Some((A, container("aa"))));
        fixture.begin(5);
        assert_eq!(
            fixture.departed(),
            None,
            "the driver still lists it, but it is no longer cached as recent"
        );
    }

    #[test]
    fn process_that_exits_during_a_read_keeps_its_location() {
        for end in [Discard::Gone, Discard::Zombie] {
            let mut fixture = Fixture::new(Ok(container("aa")));
            fixture.cycle(5).unwrap();
            fixture.begin(5);
            fixture.get(A).unwrap();
            fixture.location = Err(end);
            assert_eq!(fixture.cycle(60), Ok(container("aa")));
            assert_eq!(fixture.reads.get(), 2);
            let mut unknown = Fixture::new(Err(end));
            assert_eq!(unknown.cycle(5), Err(end));
            unknown.begin(5);
            assert_eq!(unknown.departed(), None);
        }
    }

    #[test]
    fn reused_pid_does_not_inherit_a_location() {
        let mut fixture = Fixture::new(Ok(container("aa")));
        fixture.cycle(5).unwrap();
        fixture.begin(5);
        fixture.location = Ok(container("bb"));
        assert_eq!(fixture.get(SUCCESSOR), Ok(container("bb")));
        fixture.begin(5);
        assert_eq!(fixture.departed(), Some((SUCCESSOR, container("bb"))));
    }
}
