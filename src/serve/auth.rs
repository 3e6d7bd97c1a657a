//! Basic authentication with bcrypt. The time of a check does not reveal which users exist, and the
//! checks of one client do not delay the scrapes of others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{self, HeaderMap};
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;
use tokio::task;

use super::peer::Peer;

/// Maximum number of cached results: a scraper repeats its credentials, and a bcrypt check takes about
/// 0.1 s of CPU time.
const CACHED_MAX: usize = 100;
/// The minimum cost of bcrypt.
const MIN_COST: u32 = 4;

/// Checks the users and passwords of one configuration.
pub(super) struct BasicAuth {
    /// User name → bcrypt hash.
    users: BTreeMap<String, String>,
    /// The cost of the most expensive hash.
    cost: u32,
    key: hmac::Key,
    /// Cached results. Valid and invalid credentials are kept apart, so that guesses cannot evict valid
    /// ones.
    valid: Mutex<HashSet<CredentialDigest>>,
    invalid: Mutex<HashSet<CredentialDigest>>,
    /// One check at a time, because checks compete with the monitored workloads for CPU time.
    bcrypt_permit: Arc<Semaphore>,
    /// One waiting check per client, so that many guesses of one client do not delay others.
    queues: Mutex<HashMap<Peer, Weak<Semaphore>>>,
    /// Bcrypt rounds computed so far.
    rounds: AtomicU64,
}

/// Keyed digest of user, hash and password.
type CredentialDigest = [u8; 32];

/// User and password of a request.
struct Credentials {
    user: String,
    password: String,
}

impl BasicAuth {
    /// Returns `None` if there are no users: then no authentication is required.
    pub(super) fn new(users: BTreeMap<String, String>) -> Option<Self> {
        let cost = users.values().map(|hash| cost(hash)).max()?;
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        // If no random key is available, a fixed one is used: digests never leave this process.
        let key = key.unwrap_or_else(|_| hmac::Key::new(hmac::HMAC_SHA256, SALT.as_bytes()));
        Some(Self {
            users,
            cost,
            key,
            valid: Mutex::default(),
            invalid: Mutex::default(),
            bcrypt_permit: Arc::new(Semaphore::new(1)),
            queues: Mutex::default(),
            rounds: AtomicU64::default(),
        })
    }

    /// Whether the request has the credentials of a user.
    pub(super) async fn authenticate(self: &Arc<Self>, peer: Peer, headers: &HeaderMap) -> bool {
        let Some(credentials) = credentials(headers) else { return false };
        let hash = self.users.get(&credentials.user).cloned();
        let digest = self.digest(&credentials, hash.as_deref().unwrap_or_default());
        if let Some(is_valid) = self.cached(digest) {
            return is_valid;
        }
        let queue = self.queue(peer);
        let Ok(_first) = queue.acquire().await else { return false };
        let permit = Arc::clone(&self.bcrypt_permit).acquire_owned().await;
        let Ok(permit) = permit else { return false };
        // Another request with the same credentials may have been checked meanwhile.
        if let Some(is_valid) = self.cached(digest) {
            return is_valid;
        }
        let auth = Arc::clone(self);
        // The permit is held until the check ends, even if the connection is closed before: the check
        // cannot be cancelled, and a second one must not run beside it.
        let check = move || {
            let _permit = permit;
            let is_valid = auth.check(&credentials.password, hash.as_deref());
            auth.cache(digest, is_valid);
            is_valid
        };
        task::spawn_blocking(check).await.unwrap_or_default()
    }

    /// Whether the password matches the hash; `hash` is `None` for an unknown user. The work is the same
    /// for all users, known or not.
    fn check(&self, password: &str, hash: Option<&str>) -> bool {
        let matches = hash.is_some_and(|hash| {
            self.count(cost(hash));
            bcrypt::verify(password, hash).unwrap_or_default()
        });
        // Each step of the cost doubles the work: one dummy check of each step from the cost of this
        // hash on adds up to the work of the most expensive hash. An unknown user takes one dummy check
        // of the highest cost.
        let missing = hash.map_or(self.cost..=self.cost, |hash| cost(hash)..=self.cost - 1);
        for step in missing {
            self.count(step);
            let _ = bcrypt::verify(password, &dummy_hash(step));
        }
        matches
    }

    fn count(&self, cost: u32) {
        self.rounds.fetch_add(1 << cost, Ordering::Relaxed);
    }

    fn queue(&self, peer: Peer) -> Arc<Semaphore> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|_, queue| queue.strong_count() > 0);
        if let Some(queue) = queues.get(&peer).and_then(Weak::upgrade) {
            return queue;
        }
        let queue = Arc::new(Semaphore::new(1));
        queues.insert(peer, Arc::downgrade(&queue));
        queue
    }

    /// HMAC-SHA256 of user, hash and password, each preceded by its length, so that different
    /// credentials never have the same input.
    fn digest(&self, credentials: &Credentials, hash: &str) -> CredentialDigest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [&credentials.user, hash, &credentials.password] {
            context.update(&part.len().to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut digest = [0; 32];
        for (to, from) in digest.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        digest
    }

    /// The cached result of a check.
    fn cached(&self, digest: CredentialDigest) -> Option<bool> {
        let contains = |set: &Mutex<HashSet<CredentialDigest>>| {
            set.lock().unwrap_or_else(PoisonError::into_inner).contains(&digest)
        };
        if contains(&self.valid) { Some(true) } else { contains(&self.invalid).then_some(false) }
    }

    fn cache(&self, digest: CredentialDigest, is_valid: bool) {
        let set = if is_valid { &self.valid } else { &self.invalid };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        if set.len() >= CACHED_MAX {
            // The order of a set is random, so a client cannot choose which result is evicted.
            let any = set.iter().next().copied();
            any.map(|evicted| set.remove(&evicted));
        }
        set.insert(digest);
    }
}

/// Salt and hash of an unknown password, for dummy checks.
const SALT: &str = "7EqJtq98hPqEX7fNZaFWoOhi5CVvaDkyoSg5vQ3Jr2q1fWqRZ1E6i";

/// A valid bcrypt hash of this cost that no known password matches.
fn dummy_hash(cost: u32) -> String {
    format!("$2b${cost:02}${SALT}")
}

/// The cost of a bcrypt hash: the binary logarithm of its rounds.
fn cost(hash: &str) -> u32 {
    hash.parse::<bcrypt::HashParts>().map_or(MIN_COST, |parts| parts.get_cost())
}

fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(Credentials { user: user.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn basic_auth() -> Arc<BasicAuth> {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let users = BTreeMap::from([("alice".to_owned(), hash)]);
        Arc::new(BasicAuth::new(users).unwrap())
    }

    fn headers(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = format!("Basic {}", STANDARD.encode(text));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&value).unwrap());
        headers
    }

    #[tokio::test]
    async fn only_valid_credentials_are_accepted() {
        let auth = basic_auth();
        for _ in 0..2 {
            assert!(auth.authenticate(Peer::Unknown, &headers("alice:secret")).await);
            for wrong in
                ["alice:wrong", "alice:", "bob:secret", ":secret", "alice", "alice:secret:"]
            {
                assert!(!auth.authenticate(Peer::Unknown, &headers(wrong)).await, "{wrong}");
            }
        }
        assert!(!auth.authenticate(Peer::Unknown, &HeaderMap::new()).await);
        let mut bearer = HeaderMap::new();
        bearer.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer YWxpY2U6c2VjcmV0"));
        assert!(!auth.authenticate(Peer::Unknown, &bearer).await);
    }

    #[tokio::test]
    async fn check_takes_the_same_work_for_all_users() {
        let hash = |cost| bcrypt::hash("secret", cost).unwrap();
        let users = [("low", hash(4)), ("middle", hash(6)), ("high", hash(7))];
        let users = users.map(|(user, hash)| (user.to_owned(), hash));
        let auth = Arc::new(BasicAuth::new(BTreeMap::from(users)).unwrap());
        for sent in [
            "low:secret",
            "low:wrong",
            "middle:secret",
            "middle:wrong",
            "high:secret",
            "high:wrong",
            "unknown:secret",
            ":",
        ] {
            let before = auth.rounds.load(Ordering::Relaxed);
            let is_valid = auth.authenticate(Peer::Unknown, &headers(sent)).await;
            assert_eq!(is_valid, sent.ends_with(":secret") && !sent.contains("unknown"));
            let work = auth.rounds.load(Ordering::Relaxed) - before;
            assert_eq!(work, 1 << 7, "{sent}");
            auth.authenticate(Peer::Unknown, &headers(sent)).await;
            assert_eq!(auth.rounds.load(Ordering::Relaxed) - before, work, "cached");
        }
    }

    #[tokio::test]
    async fn check_of_a_closed_connection_keeps_its_permit() {
        // Slow enough to be still running when its connection is closed.
        let slow = bcrypt::hash("secret", 4).unwrap().replace("$04$", "$12$");
        let users = BTreeMap::from([("alice".to_owned(), slow)]);
        let auth = Arc::new(BasicAuth::new(users).unwrap());
        let permit = Arc::clone(&auth.bcrypt_permit).try_acquire_owned().unwrap();
        let checking = Arc::clone(&auth);
        let waiting = tokio::spawn(async move {
            let sent = headers("alice:wrong");
            checking.authenticate(Peer::Unknown, &sent).await
        });
        while auth.queues.lock().unwrap().is_empty() {
            task::yield_now().await;
        }
        assert_eq!(auth.rounds.load(Ordering::Relaxed), 0, "one at a time");
        drop(permit);
        while auth.rounds.load(Ordering::Relaxed) == 0 {
            task::yield_now().await;
        }
        waiting.abort();
        assert!(waiting.await.is_err());
        // The permit is released when the check ends, and the result is cached.
        let _permit = auth.bcrypt_permit.acquire().await.unwrap();
        let sent = credentials(&headers("alice:wrong")).unwrap();
        let digest = auth.digest(&sent, &auth.users["alice"]);
        assert_eq!(auth.cached(digest), Some(false));
    }

    #[tokio::test]
    async fn many_checks_of_one_client_do_not_delay_another_client() {
        let auth = basic_auth();
        let permit = Arc::clone(&auth.bcrypt_permit).try_acquire_owned().unwrap();
        let finished = Arc::new(Mutex::new(Vec::new()));
        let guess = |peer: &str, n: usize| {
            let (auth, peer) = (Arc::clone(&auth), peer.parse::<std::net::IpAddr>().unwrap());
            let finished = Arc::clone(&finished);
            tokio::spawn(async move {
                auth.authenticate(peer.into(), &headers(&format!("alice:{n}"))).await;
                finished.lock().unwrap().push(n);
            })
        };
        let guesses: Vec<_> = (0..20).map(|n| guess("10.0.0.1", n)).collect();
        task::yield_now().await;
        let scraper = guess("10.0.0.2", 100);
        task::yield_now().await;
        // Waits behind the first guess and the scraper; the other guesses wait behind it.
        let next = tokio::spawn(Arc::clone(&auth.bcrypt_permit).acquire_owned());
        task::yield_now().await;
        drop(permit);
        let next = next.await.unwrap().unwrap();
        scraper.await.unwrap();
        let checked = finished.lock().unwrap().len();
        assert!(checked <= 2, "{checked} checks ended with that of the scraper");
        drop(next);
        for guess in guesses {
            guess.await.unwrap();
        }
        assert_eq!(auth.invalid.lock().unwrap().len(), 21);
        drop(auth.queue(Peer::Unknown));
        auth.queue(Peer::Unknown);
        assert_eq!(auth.queues.lock().unwrap().len(), 1, "unused queues are removed");
    }

    #[test]
    fn different_credentials_have_different_digests() {
        let auth = basic_auth();
        let digest = |user: &str, hash: &str, password: &str| {
            let (user, password) = (user.to_owned(), password.to_owned());
            auth.digest(&Credentials { user, password }, hash)
        };
        // Concatenated without lengths, these would be the same text.
        assert_ne!(digest("a", "b", "cd"), digest("a", "bc", "d"));
        assert_ne!(digest("ab", "c", "d"), digest("a", "bc", "d"));
        assert_eq!(digest("a", "b", "c"), digest("a", "b", "c"));
    }

    #[test]
    fn cache_is_bounded() {
        let auth = basic_auth();
        auth.cache([0; 32], true);
        for n in 1..=u8::MAX {
            auth.cache([n; 32], false);
        }
        assert_eq!(auth.invalid.lock().unwrap().len(), CACHED_MAX);
        assert_eq!(auth.cached([0; 32]), Some(true), "guesses do not evict valid credentials");
        for n in 1..=u8::MAX {
            auth.cache([n; 32], true);
        }
        assert_eq!(auth.valid.lock().unwrap().len(), CACHED_MAX);
    }

    #[test]
    fn dummy_hash_is_a_valid_hash_of_its_cost() {
        for cost in [4, 10, 17] {
            assert_eq!(super::cost(&dummy_hash(cost)), cost);
        }
        assert!(!bcrypt::verify("secret", &dummy_hash(4)).unwrap());
    }

    #[test]
    fn no_authentication_without_users() {
        assert!(BasicAuth::new(BTreeMap::new()).is_none());
    }
}
