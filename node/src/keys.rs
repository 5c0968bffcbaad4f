//! Keys of the API: who may use it from another machine, how often, how much at once, and which models.
//!
//! A key is 256 random bits, shown once; what is kept is its BLAKE3 hash, compared in constant time. Limits hold from the next request on.
//! Revoking ends what the key has under way.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::audit::{Audit, Event, Text};
use crate::caller::Caller;
use crate::store::{Store, StoreError};

/// What every key begins with, so that a leaked one is recognised.
pub const KEY_PREFIX: &str = "atmo-key-";
/// More than any household or team hands out.
pub const KEYS_MAX: usize = 256;
const SECRET_BYTES: usize = 32;
const ID_CHARS: usize = 8;
const NAME_CHARS_MAX: usize = 64;
const MODELS_MAX: usize = 64;
const MINUTE: Duration = Duration::from_secs(60);

/// A key as it is kept: everything but the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredKey {
    /// The beginning of the hash.
    pub id: String,
    pub name: String,
    /// BLAKE3 of the whole key, hexadecimal.
    pub hash: String,
    pub created_s: u64,
    #[serde(flatten)]
    pub limits: KeyLimits,
}

/// What a key may do; `None` or empty is no limit of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLimits {
    /// Requests a minute, in bursts of as many.
    #[serde(default)]
    pub per_minute: Option<u32>,
    /// Requests at once.
    #[serde(default)]
    pub concurrent: Option<u32>,
    /// Names of models, `auto` among them; anything else is refused.
    #[serde(default)]
    pub models: Vec<String>,
}

/// What is wrong with a key that is to be made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("a key's name has 1 to {NAME_CHARS_MAX} characters and no control characters")]
    Name,
    #[error("there is a key named {0:?} already; revoke it first, or choose another name")]
    NameTaken(String),
    #[error("a limit of 0 would refuse every request; leave it out for no limit, or revoke the key")]
    ZeroLimit,
    #[error("at most {MODELS_MAX} models can be named")]
    TooManyModels,
    #[error("there are {KEYS_MAX} keys already; revoke some with `atmo key revoke`")]
    TooMany,
    #[error("no key has the id or name {0:?}; `atmo key list` shows them")]
    Unknown(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a key's request is not taken now.
#[derive(Debug, PartialEq, Eq)]
pub enum Denied {
    /// The key's requests of this minute are used up.
    TooOften { retry_after: Duration },
    /// The key has as many requests under way as it may.
    TooManyAtOnce { max: u32 },
}

/// All keys of a node.
pub struct Keys {
    store: Arc<Store>,
    known: ArcSwap<Vec<Arc<Key>>>,
}

/// One key in use.
pub struct Key {
    pub stored: StoredKey,
    hash: blake3::Hash,
    bucket: Mutex<Bucket>,
    places: Arc<Semaphore>,
    revoked: CancellationToken,
    /// When its use was recorded last.
    noted: Mutex<Option<Instant>>,
}

/// A token bucket: as many as a minute holds, refilled evenly.
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Keys {
    pub fn open(store: Arc<Store>) -> Result<Self, StoreError> {
        let known = store.keys()?.into_iter().filter_map(Key::new).map(Arc::new).collect();
        Ok(Self { store, known: ArcSwap::from_pointee(known) })
    }

    pub fn is_empty(&self) -> bool {
        self.known.load().is_empty()
    }

    pub fn list(&self) -> Vec<StoredKey> {
        self.known.load().iter().map(|key| key.stored.clone()).collect()
    }

    /// The key that `text` is.
    pub fn find(&self, text: &str) -> Option<Arc<Key>> {
        let hash = text.starts_with(KEY_PREFIX).then(|| blake3::hash(text.as_bytes()))?;
        self.known.load().iter().find(|key| key.hash == hash).cloned()
    }

    /// Makes a key; the text is shown here and never again. On disk when this returns.
    pub fn create(&self, name: &str, limits: KeyLimits) -> Result<(String, StoredKey), KeyError> {
        let _changing = self.store.change();
        let mut keys = self.list();
        let (text, key) = make(&keys, name, limits)?;
        keys.push(key.clone());
        self.store.save_keys(&keys)?;
        let mut known = self.known.load().to_vec();
        known.extend(Key::new(key.clone()).map(Arc::new));
        self.known.store(Arc::new(known));
        self.audit().note(key.created());
        Ok((text, key))
    }

    /// Forgets a key by its id or name, and ends what it has under way.
    pub fn revoke(&self, which: &str) -> Result<StoredKey, KeyError> {
        let _changing = self.store.change();
        let known = self.known.load();
        let is = |key: &&Arc<Key>| key.stored.id == which || key.stored.name == which;
        let revoked = known.iter().find(is).cloned().ok_or_else(|| KeyError::Unknown(which.to_owned()))?;
        let kept: Vec<_> = known.iter().filter(|key| key.stored.id != revoked.stored.id).cloned().collect();
        self.store.save_keys(&kept.iter().map(|key| key.stored.clone()).collect::<Vec<_>>())?;
        self.known.store(Arc::new(kept));
        revoked.revoked.cancel();
        let stored = revoked.stored.clone();
        self.audit().note(Event::KeyRevoked { id: stored.id.clone(), name: Text::new(&stored.name) });
        Ok(stored)
    }

    /// Where what happens with keys is recorded.
    pub fn audit(&self) -> &Audit {
        self.store.audit()
    }

    /// Records that a key is used, once a minute.
    pub fn note_use(&self, key: &Key) {
        let mut noted = key.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.is_none_or(|at| at.elapsed() >= MINUTE) {
            *noted = Some(Instant::now());
            self.audit().note(Event::KeyUsed { id: key.stored.id.clone(), name: Text::new(&key.stored.name) });
        }
    }
}

fn make(others: &[StoredKey], name: &str, limits: KeyLimits) -> Result<(String, StoredKey), KeyError> {
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(KeyError::Name);
    }
    if others.iter().any(|key| key.name == name) {
        return Err(KeyError::NameTaken(name.to_owned()));
    }
    if limits.per_minute == Some(0) || limits.concurrent == Some(0) {
        return Err(KeyError::ZeroLimit);
    }
    if limits.models.len() > MODELS_MAX {
        return Err(KeyError::TooManyModels);
    }
    if others.len() >= KEYS_MAX {
        return Err(KeyError::TooMany);
    }
    let text = format!("{KEY_PREFIX}{}", hex::encode(crate::chance::random_bytes::<SECRET_BYTES>()));
    let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
    let id = hash[..ID_CHARS].to_owned();
    let created_s = crate::driver::clock::wall_ms() / 1000;
    Ok((text, StoredKey { id, name: name.to_owned(), hash, created_s, limits }))
}

impl StoredKey {
    fn created(&self) -> Event {
        let KeyLimits { per_minute, concurrent, models } = &self.limits;
        Event::KeyCreated {
            id: self.id.clone(),
            name: Text::new(&self.name),
            per_minute: *per_minute,
            concurrent: *concurrent,
            models: models.iter().map(|model| Text::new(model)).collect(),
        }
    }
}

impl Key {
    /// `None` where the hash is damaged: such a key admits nobody.
    fn new(stored: StoredKey) -> Option<Self> {
        let hash = blake3::Hash::from_hex(&stored.hash).ok()?;
        let tokens = f64::from(stored.limits.per_minute.unwrap_or(0));
        let places = stored.limits.concurrent.map_or(Semaphore::MAX_PERMITS, |places| places as usize);
        Some(Self {
            stored,
            hash,
            bucket: Mutex::new(Bucket { tokens, filled: Instant::now() }),
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            revoked: CancellationToken::new(),
            noted: Mutex::default(),
        })
    }

    /// Its holder.
    pub fn caller(&self) -> Caller {
        Caller::Key { id: self.stored.id.clone(), name: self.stored.name.clone() }
    }

    /// A place for one request, held until its answer is out.
    pub fn admit(&self) -> Result<OwnedSemaphorePermit, Denied> {
        let max = self.stored.limits.concurrent.unwrap_or(u32::MAX);
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Denied::TooManyAtOnce { max })?;
        if let Some(per_minute) = self.stored.limits.per_minute {
            self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(per_minute, Instant::now())?;
        }
        Ok(place)
    }

    /// Whether requests for this model are allowed.
    pub fn allows(&self, model: &str) -> bool {
        let models = &self.stored.limits.models;
        models.is_empty() || models.iter().any(|allowed| allowed.eq_ignore_ascii_case(model))
    }

    /// Resolves once the key is revoked.
    pub fn revoked(&self) -> CancellationToken {
        self.revoked.clone()
    }
}

impl Bucket {
    fn take(&mut self, per_minute: u32, now: Instant) -> Result<(), Denied> {
        let rate = f64::from(per_minute) / MINUTE.as_secs_f64();
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate).min(f64::from(per_minute));
        self.filled = now;
        if self.tokens < 1.0 {
            return Err(Denied::TooOften { retry_after: Duration::from_secs_f64((1.0 - self.tokens) / rate) });
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (tempfile::TempDir, Keys) {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path()).unwrap());
        (dir, Keys::open(store).unwrap())
    }

    #[test]
    fn a_key_is_known_until_it_is_revoked_and_is_written_nowhere() {
        let (dir, keys) = keys();
        let (text, stored) = keys.create("phone", KeyLimits::default()).unwrap();
        assert_eq!(keys.find(&text).unwrap().stored, stored);
        for wrong in ["", KEY_PREFIX, &text[..text.len() - 1], &format!("{text}0"), &text.to_uppercase()] {
            assert!(keys.find(wrong).is_none(), "{wrong}");
        }
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
            let secret = text.strip_prefix(KEY_PREFIX).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains(secret));
        }
        let again = Keys::open(Arc::clone(&keys.store)).unwrap();
        assert_eq!(again.list(), std::slice::from_ref(&stored));
        assert!(matches!(keys.create("phone", KeyLimits::default()), Err(KeyError::NameTaken(_))));
        let ends = keys.find(&text).unwrap().revoked();
        keys.revoke(&stored.id).unwrap();
        assert!(ends.is_cancelled() && keys.find(&text).is_none());
        assert!(matches!(keys.revoke("phone"), Err(KeyError::Unknown(_))));
        assert!(Keys::open(Arc::clone(&keys.store)).unwrap().is_empty());
    }

    #[test]
    fn limits_hold() {
        let (_dir, keys) = keys();
        let limits = KeyLimits { per_minute: Some(2), concurrent: Some(1), models: vec!["qwen".into(), "auto".into()] };
        let (text, _) = keys.create("app", limits).unwrap();
        let key = keys.find(&text).unwrap();
        let place = key.admit().unwrap();
        assert_eq!(key.admit().err(), Some(Denied::TooManyAtOnce { max: 1 }));
        drop(place);
        drop(key.admit().unwrap());
        let Some(Denied::TooOften { retry_after }) = key.admit().err() else { panic!("two a minute") };
        assert!(retry_after > Duration::from_secs(25) && retry_after <= Duration::from_secs(30), "{retry_after:?}");
        assert!(key.allows("Qwen") && key.allows("auto") && !key.allows("llama"));
        assert!(matches!(keys.create("x", KeyLimits { per_minute: Some(0), ..KeyLimits::default() }), Err(KeyError::ZeroLimit)));
    }

    #[test]
    fn a_bucket_fills_evenly() {
        let now = Instant::now();
        let mut bucket = Bucket { tokens: 0.0, filled: now };
        assert!(bucket.take(60, now).is_err());
        assert_eq!(bucket.take(60, now + Duration::from_millis(1_001)), Ok(()));
        assert!(bucket.take(60, now + Duration::from_millis(1_500)).is_err());
    }
}
