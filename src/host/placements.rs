//! Where the processes of a GPU run, remembered from cycle to cycle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Discard, Placement, ProcessId};
use crate::policy::{PLACEMENT_UNLISTED_CYCLES, placement_due};

/// What was last read of every process that has been listed lately. Each reader has its own, and
/// begins each of its cycles.
#[derive(Debug, Default)]
pub struct Placements {
    cycle: u64,
    now: Duration,
    known: BTreeMap<ProcessId, Entry>,
}

#[derive(Debug)]
struct Entry {
    answer: Result<Arc<Placement>, Discard>,
    /// When `answer` was read.
    read_at: Duration,
    /// Since when nothing can be told of it.
    untold_since: Option<Duration>,
    /// The last cycle in which it was listed and alive.
    seen: u64,
}

impl Placements {
    /// Begins a cycle at `now` (monotonic), and forgets who has not been listed for long.
    pub fn begin(&mut self, now: Duration) {
        self.cycle += 1;
        self.now = now;
        let cycle = self.cycle;
        self.known.retain(|_, entry| cycle - entry.seen <= PLACEMENT_UNLISTED_CYCLES);
    }

    /// Where a listed process runs that is alive. `read` is asked only if that is not known, or no
    /// longer to be relied on.
    ///
    /// # Errors
    /// It could not be read. Nothing is told from an earlier reading then, except of a process
    /// that ended just now.
    pub fn of(
        &mut self,
        id: ProcessId,
        read: impl FnOnce(ProcessId) -> Result<Placement, Discard>,
    ) -> Result<Arc<Placement>, Discard> {
        let (cycle, now) = (self.cycle, self.now);
        let entry = match self.known.get_mut(&id) {
            Some(entry) => {
                if entry.due(cycle, now) {
                    entry.renew(read(id), now);
                }
                entry
            }
            None => self.known.entry(id).or_insert(Entry::first(read(id), now)),
        };
        entry.seen = cycle;
        entry.answer.clone()
    }

    /// Who had `pid` and where it ran, if it was alive in the cycle before or earlier in this one:
    /// the driver may list a process for a while after `/proc` has lost it.
    #[must_use]
    pub fn departed(&self, pid: u32) -> Option<(ProcessId, Arc<Placement>)> {
        let of_pid = ProcessId { pid, started: 0 }..=ProcessId { pid, started: u64::MAX };
        let (id, entry) = self.known.range(of_pid).next_back()?;
        let placement = entry.answer.as_ref().ok()?;
        (self.cycle - entry.seen <= 1).then(|| (*id, Arc::clone(placement)))
    }

    /// How many processes are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no process is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

impl Entry {
    fn first(answer: Result<Placement, Discard>, now: Duration) -> Self {
        let answer = answer.map(Arc::new);
        let untold_since = is_untold(&answer).then_some(now);
        Self { answer, read_at: now, untold_since, seen: 0 }
    }

    /// A process that is listed twice in a cycle is read once.
    fn due(&self, cycle: u64, now: Duration) -> bool {
        let untold = self.untold_since.map(|since| now.saturating_sub(since));
        self.seen < cycle && placement_due(now.saturating_sub(self.read_at), untold)
    }

    fn renew(&mut self, answer: Result<Placement, Discard>, now: Duration) {
        self.read_at = now;
        match answer {
            // It ended since it was identified, where it ran.
            Err(Discard::Gone | Discard::Zombie) if self.answer.is_ok() => {}
            // Unchanged: whoever holds the old one holds the same one.
            Ok(placement) if self.answer.as_deref() == Ok(&placement) => {}
            answer => self.answer = answer.map(Arc::new),
        }
        self.untold_since = is_untold(&self.answer).then(|| self.untold_since.unwrap_or(now));
    }
}

fn is_untold(answer: &Result<Arc<Placement>, Discard>) -> bool {
    match answer.as_deref() {
        Ok(Placement::Pod(_) | Placement::Container(_) | Placement::Host) => false,
        Ok(Placement::Conflict) | Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ContainerId;
    use std::cell::Cell;

    const A: ProcessId = ProcessId { pid: 7, started: 1 };
    const SUCCESSOR: ProcessId = ProcessId { pid: 7, started: 2 };

    fn container(digits: &str) -> Placement {
        Placement::Container(ContainerId::parse(digits.repeat(32).as_bytes()).unwrap())
    }

    /// A process in a world where it can be moved, and where reads are counted.
    struct World {
        placements: Placements,
        reads: Cell<u32>,
        now: u64,
        answer: Result<Placement, Discard>,
    }

    impl World {
        fn new(answer: Result<Placement, Discard>) -> Self {
            Self { placements: Placements::default(), reads: Cell::new(0), now: 0, answer }
        }

        /// A cycle, `seconds` after the last one, in which nobody has been asked for yet.
        fn begin(&mut self, seconds: u64) {
            self.now += seconds;
            self.placements.begin(Duration::from_secs(self.now));
        }

        fn ask(&mut self, id: ProcessId) -> Result<Placement, Discard> {
            let placement = self.placements.of(id, |asked| {
                assert_eq!(asked, id);
                self.reads.set(self.reads.get() + 1);
                self.answer.clone()
            });
            placement.map(|placement| (*placement).clone())
        }

        fn cycle(&mut self, seconds: u64) -> Result<Placement, Discard> {
            self.begin(seconds);
            self.ask(A)
        }

        fn departed(&self) -> Option<(ProcessId, Placement)> {
            let departed = self.placements.departed(A.pid);
            departed.map(|(id, placement)| (id, (*placement).clone()))
        }
    }

    #[test]
    fn a_known_process_is_read_once_a_minute() {
        let mut world = World::new(Ok(container("aa")));
        for _ in 0..12 {
            assert_eq!(world.cycle(5), Ok(container("aa")));
        }
        assert_eq!(world.reads.get(), 1);
        world.answer = Ok(container("bb"));
        assert_eq!(world.cycle(5), Ok(container("bb")), "moved, and seen a minute later");
        assert_eq!(world.reads.get(), 2);
    }

    #[test]
    fn all_that_are_known_cost_no_read() {
        let mut world = World::new(Ok(Placement::Host));
        for _ in 0..10 {
            world.begin(5);
            for pid in 1..=64 {
                let id = ProcessId { pid, started: 1 };
                assert_eq!(world.ask(id), Ok(Placement::Host));
                assert_eq!(world.ask(id), Ok(Placement::Host));
            }
        }
        assert_eq!(world.reads.get(), 64);
    }

    #[test]
    fn what_cannot_be_told_is_asked_again_soon_and_later_seldom() {
        for answer in [Ok(Placement::Conflict), Err(Discard::Denied), Err(Discard::Unreadable)] {
            let mut world = World::new(answer.clone());
            for _ in 0..=12 {
                assert_eq!(world.cycle(5), answer);
                assert_eq!(world.ask(A), answer, "twice in one cycle");
            }
            assert_eq!(world.reads.get(), 13, "each cycle of the first minute");
            for _ in 0..12 {
                assert_eq!(world.cycle(5), answer);
            }
            assert_eq!(world.reads.get(), 15, "twice in the next");
            world.answer = Ok(Placement::Host);
            world.cycle(30).unwrap();
            world.answer = answer.clone();
            assert_eq!(world.cycle(59), Ok(Placement::Host), "told, so good for a minute");
            assert_eq!(world.cycle(1), answer, "a doubt replaces what was known");
            let reads = world.reads.get();
            assert_eq!(world.cycle(5), answer);
            assert_eq!(world.reads.get(), reads + 1, "a doubt that is new is looked into");
        }
    }

    #[test]
    fn who_is_not_listed_is_forgotten() {
        let mut world = World::new(Ok(Placement::Host));
        world.cycle(5).unwrap();
        world.begin(5);
        world.begin(5);
        assert_eq!(world.placements.len(), 1);
        world.cycle(5).unwrap();
        assert_eq!((world.reads.get(), world.placements.len()), (2, 1), "it is new again");
        for _ in 0..3 {
            world.begin(5);
        }
        assert!(world.placements.is_empty());
    }

    #[test]
    fn who_was_alive_a_cycle_ago_keeps_its_place() {
        let mut world = World::new(Ok(container("aa")));
        assert_eq!(world.departed(), None);
        world.cycle(5).unwrap();
        world.begin(5);
        assert_eq!(world.departed(), Some((A, container("aa"))));
        world.begin(5);
        assert_eq!(world.departed(), None, "the driver goes on listing it; we know it no more");
    }

    #[test]
    fn who_ends_while_it_is_read_again_keeps_its_place() {
        for end in [Discard::Gone, Discard::Zombie] {
            let mut world = World::new(Ok(container("aa")));
            world.cycle(5).unwrap();
            world.begin(5);
            world.ask(A).unwrap();
            world.answer = Err(end);
            assert_eq!(world.cycle(60), Ok(container("aa")));
            assert_eq!(world.reads.get(), 2);
            let mut unknown = World::new(Err(end));
            assert_eq!(unknown.cycle(5), Err(end));
            unknown.begin(5);
            assert_eq!(unknown.departed(), None);
        }
    }

    #[test]
    fn a_reused_pid_inherits_nothing() {
        let mut world = World::new(Ok(container("aa")));
        world.cycle(5).unwrap();
        world.begin(5);
        world.answer = Ok(container("bb"));
        assert_eq!(world.ask(SUCCESSOR), Ok(container("bb")));
        world.begin(5);
        assert_eq!(world.departed(), Some((SUCCESSOR, container("bb"))));
    }
}
