//! Limits the number of connections and the memory that response bodies of slow clients take, and
//! selects the connections to evict.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, getrlimit};
use tokio::time::Instant;

use super::Timeouts;
use super::connection::{ConnectionState, PageRef};
use super::peer::Peer;
use crate::policy;

/// All open connections.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    limit: usize,
    timeouts: Timeouts,
    /// Oldest first.
    open: Mutex<Vec<Arc<ConnectionState>>>,
}

/// Permission to serve one connection; dropping it removes the connection from the limiter.
pub(super) struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    pub(super) connection: Arc<ConnectionState>,
}

/// The result of a request for a connection.
pub(super) enum Admission {
    /// Below the limit.
    Admitted(ConnectionPermit),
    /// Another connection was evicted.
    AdmittedByEviction(ConnectionPermit),
    /// The new connection is refused.
    Refused,
}

impl ConnectionLimiter {
    /// Allows [`policy::HTTP_CONNECTIONS`], but at most a quarter of the limit of open files: clients
    /// must not keep the exporter from opening files of `/proc` and of the driver.
    pub(super) fn new(timeouts: Timeouts) -> Arc<Self> {
        Self::with_limit(connection_limit(getrlimit(Resource::Nofile).current), timeouts)
    }

    fn with_limit(limit: usize, timeouts: Timeouts) -> Arc<Self> {
        Arc::new(Self { limit, timeouts, open: Mutex::default() })
    }

    /// Admits a new connection of `peer`. At the limit, another one is evicted: see
    /// [`select_eviction`].
    pub(super) fn admit(self: &Arc<Self>, peer: Peer, now: Instant) -> Admission {
        let mut open = self.open();
        let mut has_evicted = false;
        if open.len() >= self.limit {
            let Some(index) = select_eviction(&open, peer, now) else { return Admission::Refused };
            open.remove(index).evicted.notify_one();
            has_evicted = true;
        }
        let connection = Arc::new(ConnectionState::new(peer, self.timeouts));
        open.push(Arc::clone(&connection));
        let permit = ConnectionPermit { limiter: Arc::clone(self), connection };
        if has_evicted {
            Admission::AdmittedByEviction(permit)
        } else {
            Admission::Admitted(permit)
        }
    }

    /// Evicts the connection that has been idle longest, if any, to free its file descriptor.
    pub(super) fn evict_idle(&self) {
        let mut open = self.open();
        if let Some(idle) = longest_idle(open.iter().enumerate()) {
            open.remove(idle).evicted.notify_one();
        }
    }

    /// Evicts the connections that hold surplus bodies. Returns their number.
    fn evict_surplus(&self, newest: PageRef) -> usize {
        let mut open = self.open();
        let surplus = surplus_bodies(&open, newest);
        let is_surplus = |connection: &Arc<ConnectionState>| {
            connection.body().is_some_and(|(body, _)| surplus.contains(&body))
        };
        let before = open.len();
        open.retain(|connection| {
            let evict = is_surplus(connection);
            if evict {
                connection.evicted.notify_one();
            }
            !evict
        });
        before - open.len()
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<ConnectionState>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Records the body of the connection's response. Slow clients keep the bodies of earlier cycles in
    /// memory: if these exceed [`policy::HTTP_STALE_BODIES_MAX`], the connections with the oldest bodies are
    /// evicted. Returns their number.
    pub(super) fn set_body(&self, body: PageRef) -> usize {
        self.connection.set_body(body);
        self.limiter.evict_surplus(body)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limiter.open().retain(|connection| !Arc::ptr_eq(connection, &self.connection));
    }
}

/// Maximum number of connections for a limit of open files.
fn connection_limit(files: Option<u64>) -> usize {
    let quarter = files.and_then(|files| usize::try_from(files / 4).ok()).unwrap_or(usize::MAX);
    quarter.clamp(1, policy::HTTP_CONNECTIONS)
}

/// The index of the connection that has been idle longest, if any is idle.
fn longest_idle<'a>(
    connections: impl Iterator<Item = (usize, &'a Arc<ConnectionState>)>,
) -> Option<usize> {
    let idle =
        connections.filter_map(|(index, connection)| Some((connection.idle_since()?, index)));
    idle.min().map(|(_, index)| index)
}

/// Selects the connection to evict for a new one of `peer`; `None` refuses the new one.
///
/// Only peers with the most connections lose one, so that no peer can occupy all of them. Of their
/// connections, the one that is idle longest is selected: its client can connect again. If none is idle, it is
/// the one with the slowest response. If the new peer itself has the most connections, a response that
/// began less than [`policy::HTTP_EVICTION_GRACE`] ago is not evicted.
fn select_eviction(open: &[Arc<ConnectionState>], peer: Peer, now: Instant) -> Option<usize> {
    let mut counts: BTreeMap<Peer, usize> = BTreeMap::from([(peer, 1)]);
    for connection in open {
        *counts.entry(connection.peer).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    let has_most = |connection: &ConnectionState| counts.get(&connection.peer) == Some(&most);
    let candidates = || open.iter().enumerate().filter(|(_, connection)| has_most(connection));
    if let Some(idle) = longest_idle(candidates()) {
        return Some(idle);
    }
    let busy =
        candidates().filter_map(|(index, connection)| Some((connection.busy_since()?, index)));
    let (since, slowest) = busy.min()?;
    let is_among_most = counts.get(&peer) == Some(&most);
    let is_recent = now.saturating_duration_since(since) < policy::HTTP_EVICTION_GRACE;
    (!(is_among_most && is_recent)).then_some(slowest)
}

/// The bodies of earlier cycles that exceed [`policy::HTTP_STALE_BODIES_MAX`], oldest first.
fn surplus_bodies(open: &[Arc<ConnectionState>], newest: PageRef) -> Vec<PageRef> {
    let mut since: BTreeMap<PageRef, Instant> = BTreeMap::new();
    for (body, at) in open.iter().filter_map(|connection| connection.body()) {
        since.entry(body).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }
    since.remove(&newest);
    let mut bodies: Vec<(Instant, PageRef)> =
        since.into_iter().map(|(body, at)| (at, body)).collect();
    bodies.sort_unstable();
    // Keeps the most recent bodies within the limit; the most recent one is kept whatever its size.
    let mut memory = 0;
    let fits = |(index, (_, body)): &(usize, &(Instant, PageRef))| {
        memory += body.length;
        *index == 0 || memory <= policy::HTTP_STALE_BODIES_MAX
    };
    let kept = bodies.iter().rev().enumerate().take_while(fits).count();
    bodies.truncate(bodies.len() - kept);
    bodies.into_iter().map(|(_, body)| body).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::io::AsyncWriteExt;

    use super::super::connection::DeadlineStream;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const TIMEOUTS: Timeouts = Timeouts { read: LONG, write: LONG };

    fn peer(n: u8) -> Peer {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)).into()
    }

    fn admit(limiter: &Arc<ConnectionLimiter>, n: u8) -> ConnectionPermit {
        match limiter.admit(peer(n), Instant::now()) {
            Admission::Admitted(permit) | Admission::AdmittedByEviction(permit) => permit,
            Admission::Refused => panic!("connection of peer {n} refused"),
        }
    }

    fn is_open(limiter: &ConnectionLimiter, permit: &ConnectionPermit) -> bool {
        limiter.open().iter().any(|connection| Arc::ptr_eq(connection, &permit.connection))
    }

    #[test]
    fn oldest_idle_connection_is_evicted_and_busy_ones_are_not() {
        let limiter = ConnectionLimiter::with_limit(2, TIMEOUTS);
        let (first, second) = (admit(&limiter, 1), admit(&limiter, 1));
        first.connection.start_response();
        let third = admit(&limiter, 1);
        assert!(is_open(&limiter, &first) && !is_open(&limiter, &second));
        third.connection.start_response();
        assert!(
            matches!(limiter.admit(peer(1), Instant::now()), Admission::Refused),
            "all are busy"
        );
        drop(second);
        assert!(is_open(&limiter, &third), "the second was evicted already");
        drop(first);
        assert!(matches!(limiter.admit(peer(1), Instant::now()), Admission::Admitted(_)));
    }

    #[tokio::test]
    async fn connection_that_is_used_is_not_the_longest_idle_one() {
        let limiter = ConnectionLimiter::with_limit(2, TIMEOUTS);
        let (scraper, other) = (admit(&limiter, 1), admit(&limiter, 2));
        let mut stream = DeadlineStream::new(tokio::io::sink(), Arc::clone(&scraper.connection));
        scraper.connection.start_response();
        stream.write_all(b"response").await.unwrap();
        stream.flush().await.unwrap();
        let _third = admit(&limiter, 3);
        assert!(is_open(&limiter, &scraper) && !is_open(&limiter, &other));
    }

    #[test]
    fn peer_with_most_connections_loses_one_even_if_all_are_busy() {
        let limiter = ConnectionLimiter::with_limit(4, TIMEOUTS);
        let scraper = admit(&limiter, 9);
        let attacker = [0; 3].map(|_| admit(&limiter, 1));
        for permit in &attacker {
            permit.connection.start_response();
        }
        let other = admit(&limiter, 2);
        assert!(is_open(&limiter, &scraper), "idle, but the only one of its peer");
        assert!(!is_open(&limiter, &attacker[0]) && is_open(&limiter, &attacker[1]));
        // A new connection of the attacker evicts no connection of other peers.
        other.connection.start_response();
        scraper.connection.start_response();
        assert!(matches!(limiter.admit(peer(1), Instant::now()), Admission::Refused));
        assert!(is_open(&limiter, &scraper) && is_open(&limiter, &other));
    }

    #[test]
    fn peer_evicts_its_own_slowest_connection_after_a_while() {
        let limiter = ConnectionLimiter::with_limit(2, TIMEOUTS);
        let slow = [admit(&limiter, 1), admit(&limiter, 1)];
        for permit in &slow {
            permit.connection.start_response();
        }
        let now = Instant::now();
        assert!(matches!(limiter.admit(peer(1), now), Admission::Refused));
        let Admission::AdmittedByEviction(_permit) =
            limiter.admit(peer(1), now + policy::HTTP_EVICTION_GRACE)
        else {
            panic!("the first is slow");
        };
        assert!(!is_open(&limiter, &slow[0]) && is_open(&limiter, &slow[1]));
    }

    #[test]
    fn connections_with_the_oldest_bodies_are_evicted_beyond_the_memory_limit() {
        let limiter = ConnectionLimiter::with_limit(8, TIMEOUTS);
        let size = policy::HTTP_STALE_BODIES_MAX / 2;
        let bodies: Vec<Bytes> = (0..5).map(|_| Bytes::from(vec![0; size])).collect();
        let permits: Vec<ConnectionPermit> = (0..6).map(|_| admit(&limiter, 1)).collect();
        let respond = |permit: usize, body: usize| {
            permits[permit].connection.start_response();
            permits[permit].set_body(PageRef::from(&bodies[body]))
        };
        assert_eq!([respond(0, 0), respond(1, 0), respond(2, 1), respond(3, 2)], [0; 4]);
        assert_eq!(respond(4, 3), 2, "both that hold the oldest");
        assert_eq!(respond(5, 3), 0);
        let open: Vec<bool> = permits.iter().map(|permit| is_open(&limiter, permit)).collect();
        assert_eq!(open, [false, false, true, true, true, true]);
    }

    #[test]
    fn most_recent_earlier_body_is_kept_whatever_its_size() {
        let limiter = ConnectionLimiter::with_limit(8, TIMEOUTS);
        let bodies: Vec<Bytes> =
            (0..3).map(|_| Bytes::from(vec![0; policy::HTTP_STALE_BODIES_MAX + 1])).collect();
        let respond = |permit: &ConnectionPermit, body: usize| {
            permit.connection.start_response();
            permit.set_body(PageRef::from(&bodies[body]))
        };
        let permits = [0; 3].map(|_| admit(&limiter, 1));
        let evicted: Vec<usize> = (0..3).map(|n| respond(&permits[n], n)).collect();
        assert_eq!(evicted, [0, 0, 1]);
        assert!(!is_open(&limiter, &permits[0]) && is_open(&limiter, &permits[1]));
    }

    #[test]
    fn only_idle_connections_are_evicted_to_free_file_descriptors() {
        let limiter = ConnectionLimiter::with_limit(3, TIMEOUTS);
        let (busy, idle) = (admit(&limiter, 1), admit(&limiter, 2));
        busy.connection.start_response();
        limiter.evict_idle();
        limiter.evict_idle();
        assert!(is_open(&limiter, &busy) && !is_open(&limiter, &idle));
    }

    #[test]
    fn connections_are_limited_to_a_quarter_of_the_open_files() {
        let limits = [Some(20), Some(3), Some(100), Some(1_048_576), None].map(connection_limit);
        assert_eq!(limits, [5, 1, 25, policy::HTTP_CONNECTIONS, policy::HTTP_CONNECTIONS]);
    }
}
