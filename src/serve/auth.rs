//! Passwords: checked without telling by the time it takes who exists, and without keeping the scrapes
//! of others waiting.

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

/// Answers that are remembered: a scraper asks again and again, and a hash takes a tenth of a second.
const REMEMBERED: usize = 100;
/// The least cost that bcrypt knows.
const LEAST_COST: u32 = 4;

/// Checks users and passwords of one configuration.
pub(super) struct Doorkeeper {
    users: BTreeMap<String, String>,
    /// The cost of the hash that costs most.
    cost: u32,
    key: hmac::Key,
    /// Kept apart, so that who guesses cannot push out who knows.
    admitted: Mutex<HashSet<Mark>>,
    refused: Mutex<HashSet<Mark>>,
    /// One check at a time: more would take the cores from what is being monitored.
    turn: Arc<Semaphore>,
    /// One client waits for its turn with one check at a time: whoever guesses waits for itself.
    queues: Mutex<HashMap<Peer, Weak<Semaphore>>>,
    /// Rounds of bcrypt so far.
    rounds: AtomicU64,
}

/// Stands for a user, a hash and a password.
type Mark = [u8; 32];

/// A user and a password, as they were sent.
struct Credentials {
    user: String,
    password: String,
}

impl Doorkeeper {
    /// One who knows these users with the bcrypt hashes of their passwords; none if everybody is let
    /// in.
    pub(super) fn new(users: BTreeMap<String, String>) -> Option<Self> {
        let cost = users.values().map(|hash| cost(hash)).max()?;
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        // Without a key nothing can be remembered safely; a fixed one lives as long as this process
        // and leaves it in no form.
        let key = key.unwrap_or_else(|_| hmac::Key::new(hmac::HMAC_SHA256, SALT.as_bytes()));
        Some(Self {
            users,
            cost,
            key,
            admitted: Mutex::default(),
            refused: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            queues: Mutex::default(),
            rounds: AtomicU64::default(),
        })
    }

    /// Whether the request comes from a user with the right password.
    pub(super) async fn admits(self: &Arc<Self>, peer: Peer, headers: &HeaderMap) -> bool {
        let Some(credentials) = credentials(headers) else { return false };
        let hash = self.users.get(&credentials.user).cloned();
        let mark = self.mark(&credentials, hash.as_deref().unwrap_or_default());
        if let Some(admitted) = self.recall(mark) {
            return admitted;
        }
        let queue = self.queue(peer);
        let Ok(_first) = queue.acquire().await else { return false };
        let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else { return false };
        // Whoever waited for the same answer has it now.
        if let Some(admitted) = self.recall(mark) {
            return admitted;
        }
        let door = Arc::clone(self);
        // The turn ends with the check and not with the connection: one that is closed meanwhile
        // must not begin another.
        let check = move || {
            let _turn = turn;
            let admitted = door.check(&credentials.password, hash.as_deref());
            door.remember(mark, admitted);
            admitted
        };
        task::spawn_blocking(check).await.unwrap_or_default()
    }

    /// Whether a password is that of a user with this hash. It takes as much work for all users, those
    /// that do not exist among them.
    fn check(&self, password: &str, hash: Option<&str>) -> bool {
        let matches = hash.is_some_and(|hash| {
            self.count(cost(hash));
            bcrypt::verify(password, hash).unwrap_or_default()
        });
        // A step of the cost doubles the work, so that one of each step makes up for the difference;
        // and nobody's hash costs the most there is.
        let missing = hash.map_or(self.cost..=self.cost, |hash| cost(hash)..=self.cost - 1);
        for step in missing {
            self.count(step);
            let _ = bcrypt::verify(password, &nobodys(step));
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

    /// What stands for user, hash and password: each with its length, so that no two of them can be
    /// told as another two, and under a key, so that no password can be guessed from it.
    fn mark(&self, credentials: &Credentials, hash: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [&credentials.user, hash, &credentials.password] {
            context.update(&part.len().to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut mark = [0; 32];
        for (to, from) in mark.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        mark
    }

    fn recall(&self, mark: Mark) -> Option<bool> {
        let knows = |of: &Mutex<HashSet<Mark>>| {
            of.lock().unwrap_or_else(PoisonError::into_inner).contains(&mark)
        };
        if knows(&self.admitted) { Some(true) } else { knows(&self.refused).then_some(false) }
    }

    fn remember(&self, mark: Mark, admitted: bool) {
        let of = if admitted { &self.admitted } else { &self.refused };
        let mut of = of.lock().unwrap_or_else(PoisonError::into_inner);
        if of.len() >= REMEMBERED {
            // A set's order is random, so nobody can choose whose answer goes.
            let any = of.iter().next().copied();
            any.map(|mark| of.remove(&mark));
        }
        of.insert(mark);
    }
}

/// The salt of nobody's hash, and the rest of it: nobody's password is not known.
const SALT: &str = "7EqJtq98hPqEX7fNZaFWoOhi5CVvaDkyoSg5vQ3Jr2q1fWqRZ1E6i";

/// The hash of nobody's password, at this cost.
fn nobodys(cost: u32) -> String {
    format!("$2b${cost:02}${SALT}")
}

/// How many doublings of work a hash takes.
fn cost(hash: &str) -> u32 {
    hash.parse::<bcrypt::HashParts>().map_or(LEAST_COST, |parts| parts.get_cost())
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

    fn doorkeeper() -> Arc<Doorkeeper> {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let users = BTreeMap::from([("alice".to_owned(), hash)]);
        Arc::new(Doorkeeper::new(users).unwrap())
    }

    fn sent(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = format!("Basic {}", STANDARD.encode(text));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&value).unwrap());
        headers
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_user_is_admitted() {
        let door = doorkeeper();
        for _ in 0..2 {
            assert!(door.admits(Peer::Unknown, &sent("alice:secret")).await);
            for wrong in
                ["alice:wrong", "alice:", "bob:secret", ":secret", "alice", "alice:secret:"]
            {
                assert!(!door.admits(Peer::Unknown, &sent(wrong)).await, "{wrong}");
            }
        }
        assert!(!door.admits(Peer::Unknown, &HeaderMap::new()).await);
        let mut bearer = HeaderMap::new();
        bearer.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer YWxpY2U6c2VjcmV0"));
        assert!(!door.admits(Peer::Unknown, &bearer).await);
    }

    #[tokio::test]
    async fn a_check_takes_the_same_work_whoever_is_asked_for() {
        let hash = |cost| bcrypt::hash("secret", cost).unwrap();
        let users = [("cheap", hash(4)), ("middle", hash(6)), ("dear", hash(7))];
        let users = users.map(|(user, hash)| (user.to_owned(), hash));
        let door = Arc::new(Doorkeeper::new(BTreeMap::from(users)).unwrap());
        for sent_text in [
            "cheap:secret",
            "cheap:wrong",
            "middle:secret",
            "middle:wrong",
            "dear:secret",
            "dear:wrong",
            "nobody:secret",
            ":",
        ] {
            let before = door.rounds.load(Ordering::Relaxed);
            let admitted = door.admits(Peer::Unknown, &sent(sent_text)).await;
            assert_eq!(admitted, sent_text.ends_with(":secret") && !sent_text.contains("nobody"));
            let work = door.rounds.load(Ordering::Relaxed) - before;
            assert_eq!(work, 1 << 7, "{sent_text}");
            door.admits(Peer::Unknown, &sent(sent_text)).await;
            assert_eq!(door.rounds.load(Ordering::Relaxed) - before, work, "it is remembered");
        }
    }

    #[tokio::test]
    async fn a_check_that_nobody_waits_for_any_more_keeps_its_turn() {
        // A check that is still going on when nobody waits for it any more.
        let slow = bcrypt::hash("secret", 4).unwrap().replace("$04$", "$12$");
        let users = BTreeMap::from([("alice".to_owned(), slow)]);
        let door = Arc::new(Doorkeeper::new(users).unwrap());
        let turn = Arc::clone(&door.turn).try_acquire_owned().unwrap();
        let asked = Arc::clone(&door);
        let waiting =
            tokio::spawn(async move { asked.admits(Peer::Unknown, &sent("alice:wrong")).await });
        while door.queues.lock().unwrap().is_empty() {
            task::yield_now().await;
        }
        assert_eq!(door.rounds.load(Ordering::Relaxed), 0, "one at a time");
        drop(turn);
        while door.rounds.load(Ordering::Relaxed) == 0 {
            task::yield_now().await;
        }
        waiting.abort();
        assert!(waiting.await.is_err());
        // The turn comes back with the answer, which is remembered all the same.
        let _turn = door.turn.acquire().await.unwrap();
        let mark = |door: &Doorkeeper| {
            let sent = credentials(&sent("alice:wrong")).unwrap();
            door.mark(&sent, &door.users["alice"])
        };
        assert_eq!(door.recall(mark(&door)), Some(false));
    }

    #[tokio::test]
    async fn one_client_waits_with_one_check_and_takes_nobodys_turn() {
        let door = doorkeeper();
        let turn = Arc::clone(&door.turn).try_acquire_owned().unwrap();
        let ask = |peer: &str, n: usize| {
            let (door, peer) = (Arc::clone(&door), peer.parse::<std::net::IpAddr>().unwrap());
            tokio::spawn(async move {
                door.admits(peer.into(), &sent(&format!("alice:{n}"))).await;
            })
        };
        let guesses: Vec<_> = (0..20).map(|n| ask("10.0.0.1", n)).collect();
        task::yield_now().await;
        let scraper = ask("10.0.0.2", 100);
        task::yield_now().await;
        drop(turn);
        scraper.await.unwrap();
        let checked = door.refused.lock().unwrap().len();
        assert!(checked <= 3, "{checked} before the scraper, of whom one waited");
        for guess in guesses {
            guess.await.unwrap();
        }
        assert_eq!(door.refused.lock().unwrap().len(), 21);
        drop(door.queue(Peer::Unknown));
        door.queue(Peer::Unknown);
        assert_eq!(door.queues.lock().unwrap().len(), 1, "the queues of those who left are gone");
    }

    #[test]
    fn no_two_pairs_have_one_mark() {
        let door = doorkeeper();
        let mark = |user: &str, hash: &str, password: &str| {
            let (user, password) = (user.to_owned(), password.to_owned());
            door.mark(&Credentials { user, password }, hash)
        };
        // Joined without their lengths these would be one text.
        assert_ne!(mark("a", "b", "cd"), mark("a", "bc", "d"));
        assert_ne!(mark("ab", "c", "d"), mark("a", "bc", "d"));
        assert_eq!(mark("a", "b", "c"), mark("a", "b", "c"));
    }

    #[test]
    fn the_memory_is_bounded() {
        let door = doorkeeper();
        door.remember([0; 32], true);
        for n in 1..=u8::MAX {
            door.remember([n; 32], false);
        }
        assert_eq!(door.refused.lock().unwrap().len(), REMEMBERED);
        assert_eq!(door.recall([0; 32]), Some(true), "guesses push out no right answer");
        for n in 1..=u8::MAX {
            door.remember([n; 32], true);
        }
        assert_eq!(door.admitted.lock().unwrap().len(), REMEMBERED);
    }

    #[test]
    fn nobody_has_a_hash_that_takes_its_time() {
        for cost in [4, 10, 17] {
            assert_eq!(super::cost(&nobodys(cost)), cost);
        }
        assert!(
            !bcrypt::verify("secret", &nobodys(4)).unwrap(),
            "it is a hash that can be checked"
        );
    }

    #[test]
    fn nobody_is_asked_where_there_are_no_users() {
        assert!(Doorkeeper::new(BTreeMap::new()).is_none());
    }
}
