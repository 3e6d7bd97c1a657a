//! Passwords: checked without telling by the time it takes who exists, and without keeping the scrapes
//! of others waiting.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{self, HeaderMap};
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;
use tokio::task;

/// Answers that are remembered: a scraper asks again and again, and a hash takes a tenth of a second.
const REMEMBERED: usize = 100;
/// The hash of nobody's password, at the usual cost: users that do not exist take as long as others.
const NOBODY: &str = "$2b$10$7EqJtq98hPqEX7fNZaFWoOhi5CVvaDkyoSg5vQ3Jr2q1fWqRZ1E6i";

/// Checks users and passwords of one configuration.
pub(super) struct Doorkeeper {
    users: BTreeMap<String, String>,
    key: hmac::Key,
    remembered: Mutex<HashMap<[u8; 32], bool>>,
    /// One hash at a time: more would take the cores from what is being monitored.
    turn: Semaphore,
}

/// A user and a password, as they were sent.
struct Credentials {
    user: String,
    password: String,
}

impl Doorkeeper {
    /// One who knows these users with the bcrypt hashes of their passwords; none if everybody is let
    /// in, and none without a source of randomness, which refuses everybody.
    pub(super) fn new(users: BTreeMap<String, String>) -> Option<Self> {
        if users.is_empty() {
            return None;
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        // Without a key nothing can be remembered safely; a fixed one lives as long as this process
        // and leaves it in no form.
        let key = key.unwrap_or_else(|_| hmac::Key::new(hmac::HMAC_SHA256, NOBODY.as_bytes()));
        let remembered = Mutex::new(HashMap::with_capacity(REMEMBERED));
        Some(Self { users, key, remembered, turn: Semaphore::new(1) })
    }

    /// Whether the request comes from a user with the right password.
    pub(super) async fn admits(self: &Arc<Self>, headers: &HeaderMap) -> bool {
        let Some(credentials) = credentials(headers) else { return false };
        let known = self.users.get(&credentials.user);
        let hash = known.map_or(NOBODY, String::as_str).to_owned();
        let mark = self.mark(&credentials, &hash);
        if let Some(admitted) = self.recall(mark) {
            return admitted;
        }
        let Ok(_turn) = self.turn.acquire().await else { return false };
        // Whoever waited for the same answer has it now.
        if let Some(admitted) = self.recall(mark) {
            return admitted;
        }
        let exists = known.is_some();
        let check = move || bcrypt::verify(&credentials.password, &hash).unwrap_or_default();
        let matches = task::spawn_blocking(check).await.unwrap_or_default();
        let admitted = matches && exists;
        self.remember(mark, admitted);
        admitted
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

    fn recall(&self, mark: [u8; 32]) -> Option<bool> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(&mark).copied()
    }

    fn remember(&self, mark: [u8; 32], admitted: bool) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED {
            // A map's order is random, so nobody can choose whose answer goes.
            let any = remembered.keys().next().copied();
            any.map(|mark| remembered.remove(&mark));
        }
        remembered.insert(mark, admitted);
    }
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
            assert!(door.admits(&sent("alice:secret")).await);
            for wrong in
                ["alice:wrong", "alice:", "bob:secret", ":secret", "alice", "alice:secret:"]
            {
                assert!(!door.admits(&sent(wrong)).await, "{wrong}");
            }
        }
        assert!(!door.admits(&HeaderMap::new()).await);
        let mut bearer = HeaderMap::new();
        bearer.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer YWxpY2U6c2VjcmV0"));
        assert!(!door.admits(&bearer).await);
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
        for n in 0..=u8::MAX {
            door.remember([n; 32], false);
        }
        assert_eq!(door.remembered.lock().unwrap().len(), REMEMBERED);
    }

    #[test]
    fn nobody_has_a_hash_that_takes_its_time() {
        assert_eq!(NOBODY.parse::<bcrypt::HashParts>().unwrap().get_cost(), 10);
    }

    #[test]
    fn nobody_is_asked_where_there_are_no_users() {
        assert!(Doorkeeper::new(BTreeMap::new()).is_none());
    }
}
