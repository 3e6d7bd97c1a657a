//! Rate limits of requests (token buckets).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::peer::Peer;
use super::routes::Route;
use crate::policy;
use crate::web_config::RequestRate;

/// The rate limit of requests, and that of readiness probes, which is per client: no client can use up
/// that of the kubelet.
pub(super) struct RateLimit {
    requests: Mutex<TokenBucket>,
    readiness: Mutex<HashMap<Peer, TokenBucket>>,
}

const READINESS: RequestRate =
    RequestRate { interval: policy::HTTP_READINESS_INTERVAL, burst: policy::HTTP_READINESS_BURST };

struct TokenBucket {
    rate: RequestRate,
    /// Requests that are allowed at `updated`.
    tokens: f64,
    updated: Instant,
}

impl RateLimit {
    pub(super) fn new(rate: RequestRate, now: Instant) -> Self {
        let requests = Mutex::new(TokenBucket::full(rate, now));
        Self { requests, readiness: Mutex::default() }
    }

    /// Whether a request of `peer` for `route` is allowed at `now`; consumes a token.
    pub(super) fn try_acquire(&self, peer: Peer, route: Option<Route>, now: Instant) -> bool {
        match route {
            // A refusal would cost as much as the response, and the kubelet would restart the exporter.
            Some(Route::Liveness) => true,
            Some(Route::Readiness | Route::Startup) => {
                let mut peers = self.readiness.lock().unwrap_or_else(PoisonError::into_inner);
                if peers.len() >= policy::HTTP_CONNECTIONS && !peers.contains_key(&peer) {
                    peers.retain(|_, bucket| !bucket.is_full(now));
                    // More active clients than connections: all begin again.
                    if peers.len() >= policy::HTTP_CONNECTIONS {
                        peers.clear();
                    }
                }
                peers.entry(peer).or_insert_with(|| TokenBucket::full(READINESS, now)).try_take(now)
            }
            Some(Route::Metrics(_) | Route::View(_)) | None => {
                self.requests.lock().unwrap_or_else(PoisonError::into_inner).try_take(now)
            }
        }
    }
}

impl TokenBucket {
    fn full(rate: RequestRate, now: Instant) -> Self {
        Self { rate, tokens: f64::from(rate.burst), updated: now }
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= f64::from(self.rate.burst)
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = now;
        let tokens = self.tokens + elapsed / self.rate.interval.as_secs_f64();
        self.tokens = tokens.min(f64::from(self.rate.burst));
    }

    fn try_take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let is_allowed = self.tokens >= 1.0;
        if is_allowed {
            self.tokens -= 1.0;
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use super::*;
    use crate::render::PageScope;

    fn hourly(burst: u32) -> RequestRate {
        RequestRate { interval: Duration::from_secs(3600), burst }
    }

    fn peer(n: u32) -> Peer {
        IpAddr::V4(Ipv4Addr::from_bits(n)).into()
    }

    #[test]
    fn rate_limit_allows_a_burst_and_then_one_request_per_interval() {
        let start = Instant::now();
        let rate = RequestRate { interval: Duration::from_secs(1), burst: 2 };
        let mut bucket = TokenBucket::full(rate, start);
        let mut at = |ms: u64| bucket.try_take(start + Duration::from_millis(ms));
        assert!(at(0) && at(0) && !at(0) && !at(999));
        assert!(at(1000) && !at(1500) && at(2000));
        assert!(at(60_000) && at(60_000) && !at(60_000), "no more than the burst");
    }

    #[test]
    fn readiness_probes_are_limited_per_client_and_liveness_probes_are_not() {
        let (limit, now) = (RateLimit::new(hourly(1), Instant::now()), Instant::now());
        let scrape = Some(Route::Metrics(PageScope::All));
        assert!(limit.try_acquire(peer(1), scrape, now));
        assert!(!limit.try_acquire(peer(2), scrape, now), "one limit for all clients");
        let flood = |route| (0..1000).filter(|_| limit.try_acquire(peer(1), route, now)).count();
        assert_eq!(flood(Some(Route::Liveness)), 1000);
        assert_eq!(flood(Some(Route::Readiness)), policy::HTTP_READINESS_BURST as usize);
        assert!(limit.try_acquire(peer(2), Some(Route::Readiness), now));
    }

    #[test]
    fn number_of_limited_clients_is_bounded() {
        let (limit, now) = (RateLimit::new(hourly(1), Instant::now()), Instant::now());
        for n in 0..10_000 {
            assert!(limit.try_acquire(peer(n), Some(Route::Readiness), now));
        }
        assert!(limit.readiness.lock().unwrap().len() <= policy::HTTP_CONNECTIONS);
    }
}
