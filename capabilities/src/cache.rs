//! Where texts lie, remembered: the same intent again need not be embedded again.
//!
//! Bounded by entries and by bytes; what was asked for longest ago goes first. Keys are blake3 hashes of whole texts, so that a long prompt
//! takes no more room than a short one and two prompts are never taken for each other. One cache serves one embedding space.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Intents that are remembered: with the built-in model's vectors of 1.5 KB, some 3.5 MB.
pub const ENTRIES_MAX: usize = 2_048;
/// Bytes of all vectors together, whatever the model.
pub const BYTES_MAX: usize = 4 << 20;
/// What an entry takes beside its vector: the key twice, the time twice, the pointer, and what trees and allocator add.
const ENTRY_BYTES: usize = 160;

type Key = [u8; 32];

/// Vectors by text, the least recently used forgotten first.
#[derive(Debug)]
pub struct IntentCache {
    entries: BTreeMap<Key, Entry>,
    /// Keys by when they were last used.
    used: BTreeMap<u64, Key>,
    /// Counts uses; no clock.
    now: u64,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
    hits: u64,
    misses: u64,
}

#[derive(Debug)]
struct Entry {
    vector: Arc<[f32]>,
    used: u64,
}

impl Entry {
    fn bytes(&self) -> usize {
        size_of_val(&*self.vector) + ENTRY_BYTES
    }
}

impl Default for IntentCache {
    fn default() -> Self {
        Self::new(ENTRIES_MAX, BYTES_MAX)
    }
}

impl IntentCache {
    /// Never holds more than `entries_max` vectors, nor more than `bytes_max` bytes.
    pub fn new(entries_max: usize, bytes_max: usize) -> Self {
        let (entries, used) = (BTreeMap::new(), BTreeMap::new());
        Self { entries, used, now: 0, bytes: 0, entries_max, bytes_max, hits: 0, misses: 0 }
    }

    /// Where `text` lies, if that is remembered.
    pub fn get(&mut self, text: &str) -> Option<Arc<[f32]>> {
        let key = key(text);
        self.now += 1;
        let Some(entry) = self.entries.get_mut(&key) else {
            self.misses += 1;
            return None;
        };
        self.hits += 1;
        self.used.remove(&entry.used);
        entry.used = self.now;
        self.used.insert(self.now, key);
        Some(Arc::clone(&entry.vector))
    }

    /// Remembers where `text` lies. A vector too large for the cache is not kept.
    pub fn insert(&mut self, text: &str, vector: Arc<[f32]>) {
        let key = key(text);
        self.forget(&key);
        self.now += 1;
        let entry = Entry { vector, used: self.now };
        self.bytes += entry.bytes();
        self.used.insert(self.now, key);
        self.entries.insert(key, entry);
        while self.entries.len() > self.entries_max || self.bytes > self.bytes_max {
            let Some((_, oldest)) = self.used.first_key_value() else { return };
            let oldest = *oldest;
            self.forget(&oldest);
        }
    }

    /// Forgets everything: the space has changed.
    pub fn clear(&mut self) {
        *self = Self::new(self.entries_max, self.bytes_max);
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that it takes, with what trees and allocator add estimated.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How often it knew, and how often not, since it was last cleared.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.used.remove(&entry.used);
            self.bytes -= entry.bytes();
        }
    }
}

fn key(text: &str) -> Key {
    *blake3::hash(text.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector(length: usize, value: f32) -> Arc<[f32]> {
        vec![value; length].into()
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = IntentCache::new(2, BYTES_MAX);
        cache.insert("a", vector(4, 1.0));
        cache.insert("b", vector(4, 2.0));
        assert_eq!(cache.get("a"), Some(vector(4, 1.0)));
        cache.insert("c", vector(4, 3.0));
        assert_eq!((cache.get("a").is_some(), cache.get("b"), cache.get("c").is_some()), (true, None, true));
        assert_eq!(cache.hits_and_misses(), (3, 1));
        cache.clear();
        assert!(cache.is_empty() && cache.bytes() == 0);
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let mut cache = IntentCache::new(10, 1_000);
        cache.insert("small", vector(100, 1.0));
        cache.insert("large", vector(10_000, 1.0));
        assert_eq!(cache.get("large"), None);
        assert!(cache.bytes() <= 1_000);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_and_never_mixes_texts_up(
            steps in prop::collection::vec((any::<bool>(), 0u8..12, 1usize..64), 0..200), entries_max in 0usize..8, bytes_max in 0usize..2_000,
        ) {
            let mut cache = IntentCache::new(entries_max, bytes_max);
            for (insert, text, length) in steps {
                let name = format!("text {text}");
                if insert {
                    cache.insert(&name, vector(length, f32::from(text)));
                } else if let Some(found) = cache.get(&name) {
                    prop_assert!(found.iter().all(|value| *value == f32::from(text)));
                }
                prop_assert!(cache.len() <= entries_max && cache.bytes() <= bytes_max);
                prop_assert_eq!(cache.len(), cache.used.len());
                prop_assert_eq!(cache.bytes(), cache.entries.values().map(Entry::bytes).sum::<usize>());
            }
        }
    }
}
