//! The places of connections: how many there are, whom to let go when there are too many, and how much
//! memory the slow may hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, getrlimit};
use tokio::time::Instant;

use super::connection::{Held, Line};
use super::peer::Peer;
use crate::policy;

/// The connections of the moment, the oldest first.
#[derive(Debug)]
pub(super) struct Places {
    room: usize,
    open: Mutex<Vec<Arc<Line>>>,
}

/// A connection's place among others, for as long as it is open.
pub(super) struct Place {
    places: Arc<Places>,
    pub(super) line: Arc<Line>,
}

/// Whether there was room for a connection.
pub(super) enum Room {
    /// There was.
    Free(Place),
    /// Another connection has made some.
    Made(Place),
    /// The new one is refused.
    None,
}

impl Places {
    /// As many as there are to be, and no more than a quarter of the files that may be open: whoever
    /// connects must not keep the exporter from reading `/proc` and asking the driver.
    pub(super) fn new() -> Arc<Self> {
        Self::with_room(room(getrlimit(Resource::Nofile).current))
    }

    fn with_room(room: usize) -> Arc<Self> {
        Arc::new(Self { room, open: Mutex::default() })
    }

    /// A place for a new connection of `peer`. Where there is none, another one goes: see [`victim`].
    pub(super) fn enter(self: &Arc<Self>, peer: Peer, now: Instant) -> Room {
        let mut open = self.open();
        let mut made = false;
        if open.len() >= self.room {
            let Some(victim) = victim(&open, peer, now) else { return Room::None };
            open.remove(victim).let_go.notify_one();
            made = true;
        }
        let line = Arc::new(Line::new(peer));
        open.push(Arc::clone(&line));
        let place = Place { places: Arc::clone(self), line };
        if made { Room::Made(place) } else { Room::Free(place) }
    }

    /// Lets the oldest connection without a response in flight go, to have its file.
    pub(super) fn spare_one(&self) {
        let mut open = self.open();
        if let Some(idle) = open.iter().position(|line| line.busy_since().is_none()) {
            open.remove(idle).let_go.notify_one();
        }
    }

    fn let_go_of_past(&self, present: Held) -> usize {
        let mut open = self.open();
        let past = past(&open, present);
        let gone = |line: &Arc<Line>| line.held().is_some_and(|(held, _)| past.contains(&held));
        let before = open.len();
        open.retain(|line| {
            let gone = gone(line);
            if gone {
                line.let_go.notify_one();
            }
            !gone
        });
        before - open.len()
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<Line>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The connection is answered with a page. Pages of the past live for as long as somebody is slow
    /// to take them: beyond some memory, those with the oldest one are let go. Returns how many.
    pub(super) fn hold(&self, page: Held) -> usize {
        self.line.holds(page);
        self.places.let_go_of_past(page)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open().retain(|line| !Arc::ptr_eq(line, &self.line));
    }
}

/// How many places there are where a process may open so many files.
fn room(files: Option<u64>) -> usize {
    let quarter = files.and_then(|files| usize::try_from(files / 4).ok()).unwrap_or(usize::MAX);
    quarter.clamp(1, policy::HTTP_CONNECTIONS)
}

/// Who goes for a newcomer. Whoever has the most places gives one up, so that nobody can have them
/// all: of its connections the oldest without a response in flight, which is a scraper that comes back
/// or somebody who asks nothing, else the one that has been slowest to take its response. Between
/// equals, and so among the newcomer's own, nobody goes whose response was begun only now.
fn victim(open: &[Arc<Line>], newcomer: Peer, now: Instant) -> Option<usize> {
    let mut shares: BTreeMap<Peer, usize> = BTreeMap::from([(newcomer, 1)]);
    for line in open {
        *shares.entry(line.peer).or_default() += 1;
    }
    let most = shares.values().copied().max()?;
    let greedy = |line: &Line| shares.get(&line.peer) == Some(&most);
    let of_greedy = || open.iter().enumerate().filter(|(_, line)| greedy(line));
    if let Some((idle, _)) = of_greedy().find(|(_, line)| line.busy_since().is_none()) {
        return Some(idle);
    }
    let busy = of_greedy().filter_map(|(at, line)| Some((line.busy_since()?, at)));
    let (since, slowest) = busy.min()?;
    let equals = shares.get(&newcomer) == Some(&most);
    let just_begun = now.saturating_duration_since(since) < policy::HTTP_UNDISTURBED;
    (!(equals && just_begun)).then_some(slowest)
}

/// The pages of the past that are too many beside the `present` one.
fn past(open: &[Arc<Line>], present: Held) -> Vec<Held> {
    let mut since: BTreeMap<Held, Instant> = BTreeMap::new();
    for (page, at) in open.iter().filter_map(|line| line.held()) {
        since.entry(page).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }
    since.remove(&present);
    let mut pages: Vec<(Instant, Held)> = since.into_iter().map(|(page, at)| (at, page)).collect();
    pages.sort_unstable();
    // The newest are kept as far as they fit; the page before this one may be as large as it likes.
    let mut memory = 0;
    let fits = |(at, (_, page)): &(usize, &(Instant, Held))| {
        memory += page.length;
        *at == 0 || memory <= policy::HTTP_PAST_PAGES
    };
    let kept = pages.iter().rev().enumerate().take_while(fits).count();
    pages.truncate(pages.len() - kept);
    pages.into_iter().map(|(_, page)| page).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn peer(n: u8) -> Peer {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)).into()
    }

    fn enter(places: &Arc<Places>, n: u8) -> Place {
        match places.enter(peer(n), Instant::now()) {
            Room::Free(place) | Room::Made(place) => place,
            Room::None => panic!("no room for {n}"),
        }
    }

    fn is_open(places: &Places, place: &Place) -> bool {
        places.open().iter().any(|line| Arc::ptr_eq(line, &place.line))
    }

    #[test]
    fn the_oldest_idle_connection_makes_room_and_busy_ones_stay() {
        let places = Places::with_room(2);
        let (first, second) = (enter(&places, 1), enter(&places, 1));
        first.line.answering(LONG);
        let third = enter(&places, 1);
        assert!(is_open(&places, &first) && !is_open(&places, &second));
        third.line.answering(LONG);
        assert!(matches!(places.enter(peer(1), Instant::now()), Room::None), "all are busy");
        drop(second);
        assert!(is_open(&places, &third), "the second had made room already");
        drop(first);
        assert!(matches!(places.enter(peer(1), Instant::now()), Room::Free(_)));
    }

    #[test]
    fn whoever_has_the_most_places_gives_one_up_even_if_all_of_its_are_busy() {
        let places = Places::with_room(4);
        let scraper = enter(&places, 9);
        let greedy = [0; 3].map(|_| enter(&places, 1));
        for place in &greedy {
            place.line.answering(LONG);
        }
        let other = enter(&places, 2);
        assert!(is_open(&places, &scraper), "it is idle, but it has one place only");
        assert!(!is_open(&places, &greedy[0]) && is_open(&places, &greedy[1]));
        // The greedy one comes back, and takes nobody's place but its own.
        other.line.answering(LONG);
        scraper.line.answering(LONG);
        assert!(matches!(places.enter(peer(1), Instant::now()), Room::None));
        assert!(is_open(&places, &scraper) && is_open(&places, &other));
    }

    #[test]
    fn among_equals_the_slowest_goes_once_it_is_slow() {
        let places = Places::with_room(2);
        let slow = [enter(&places, 1), enter(&places, 1)];
        for place in &slow {
            place.line.answering(LONG);
        }
        let now = Instant::now();
        assert!(matches!(places.enter(peer(1), now), Room::None));
        let Room::Made(_newcomer) = places.enter(peer(1), now + policy::HTTP_UNDISTURBED) else {
            panic!("the first is slow");
        };
        assert!(!is_open(&places, &slow[0]) && is_open(&places, &slow[1]));
    }

    #[test]
    fn pages_of_the_past_take_no_more_than_some_memory() {
        let places = Places::with_room(8);
        let size = policy::HTTP_PAST_PAGES / 2;
        let pages: Vec<Bytes> = (0..5).map(|_| Bytes::from(vec![0; size])).collect();
        let lines: Vec<Place> = (0..6).map(|_| enter(&places, 1)).collect();
        let answer = |at: usize, page: usize| {
            lines[at].line.answering(LONG);
            lines[at].hold(Held::from(&pages[page]))
        };
        assert_eq!([answer(0, 0), answer(1, 0), answer(2, 1), answer(3, 2)], [0; 4]);
        assert_eq!(answer(4, 3), 2, "both that hold the oldest");
        assert_eq!(answer(5, 3), 0);
        let open: Vec<bool> = lines.iter().map(|place| is_open(&places, place)).collect();
        assert_eq!(open, [false, false, true, true, true, true]);
    }

    #[test]
    fn the_page_before_the_present_one_may_be_of_any_size() {
        let places = Places::with_room(8);
        let pages: Vec<Bytes> =
            (0..3).map(|_| Bytes::from(vec![0; policy::HTTP_PAST_PAGES + 1])).collect();
        let answer = |place: &Place, page: usize| {
            place.line.answering(LONG);
            place.hold(Held::from(&pages[page]))
        };
        let lines = [0; 3].map(|_| enter(&places, 1));
        let gone: Vec<usize> = (0..3).map(|at| answer(&lines[at], at)).collect();
        assert_eq!(gone, [0, 0, 1]);
        assert!(!is_open(&places, &lines[0]) && is_open(&places, &lines[1]));
    }

    #[test]
    fn an_idle_connection_is_spared_and_a_busy_one_is_not() {
        let places = Places::with_room(3);
        let (busy, idle) = (enter(&places, 1), enter(&places, 2));
        busy.line.answering(LONG);
        places.spare_one();
        places.spare_one();
        assert!(is_open(&places, &busy) && !is_open(&places, &idle));
    }

    #[test]
    fn connections_leave_most_files_to_the_exporter() {
        let rooms = [Some(20), Some(3), Some(100), Some(1_048_576), None].map(room);
        assert_eq!(rooms, [5, 1, 25, policy::HTTP_CONNECTIONS, policy::HTTP_CONNECTIONS]);
    }
}
