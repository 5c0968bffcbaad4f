//! Signatures are checked once in a world: whatever bytes one node verified are the same `Arc` for every other.
//!
//! The answer belongs to the exact bytes, so a forgery, being other bytes, is checked like anything else. What is no longer asked for is
//! forgotten in two generations, whose size goes with the world.

use std::borrow::Borrow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use atmo_protocol::mesh::Blame;
use atmo_protocol::record::Announcement;
use atmo_protocol::wire::{Blob, Body, DirectVerifier, VerifiedChain, Verifier};
use atmo_protocol::{MeshId, Revocation};

use crate::chance::fold;

type Answer<T> = Result<Arc<T>, Option<Blame>>;

pub struct WorldVerifier {
    direct: DirectVerifier,
    announcements: RefCell<Memo<Announcement>>,
    chains: RefCell<Memo<VerifiedChain>>,
    bodies: RefCell<Memo<Body>>,
    /// The good records of the frames since it was last taken, where somebody listens.
    heard: RefCell<Vec<Arc<Announcement>>>,
}

impl WorldVerifier {
    pub fn new(mesh: MeshId, nodes: usize) -> Self {
        let entries_max = 8 * nodes + 4_096;
        Self {
            direct: DirectVerifier(mesh),
            announcements: RefCell::new(Memo::new(entries_max)),
            chains: RefCell::new(Memo::new(entries_max)),
            bodies: RefCell::new(Memo::new(entries_max)),
            heard: RefCell::default(),
        }
    }

    /// The good records that were verified since this was last asked.
    pub fn take_heard(&self) -> Vec<Arc<Announcement>> {
        self.heard.take()
    }
}

impl Verifier for WorldVerifier {
    fn announcement(&self, bytes: &Blob) -> Answer<Announcement> {
        let answer = self.announcements.borrow_mut().answer(bytes, || self.direct.announcement(bytes));
        if let Ok(record) = &answer {
            self.heard.borrow_mut().push(Arc::clone(record));
        }
        answer
    }

    fn chain(&self, bytes: &Blob) -> Answer<VerifiedChain> {
        self.chains.borrow_mut().answer(bytes, || self.direct.chain(bytes))
    }

    fn body(&self, bytes: &Blob) -> Answer<Body> {
        self.bodies.borrow_mut().answer(bytes, || self.direct.body(bytes))
    }

    fn revocation(&self, bytes: &Blob) -> Answer<Revocation> {
        self.direct.revocation(bytes)
    }
}

/// Bytes as a key, hashed fast.
#[derive(PartialEq, Eq)]
struct Key(Arc<[u8]>);

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// Hashes one byte string.
#[derive(Default)]
struct Folder(u64);

impl Hasher for Folder {
    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= fold(bytes);
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

type Answers<T> = HashMap<Key, Answer<T>, BuildHasherDefault<Folder>>;

struct Memo<T> {
    young: Answers<T>,
    old: Answers<T>,
    entries_max: usize,
}

impl<T> Memo<T> {
    fn new(entries_max: usize) -> Self {
        Self { young: Answers::default(), old: Answers::default(), entries_max }
    }

    fn answer(&mut self, bytes: &Blob, check: impl FnOnce() -> Answer<T>) -> Answer<T> {
        if let Some(known) = self.young.get(&*bytes.0) {
            return known.clone();
        }
        let answer = self.old.remove(&*bytes.0).unwrap_or_else(check);
        if self.young.len() >= self.entries_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(Key(Arc::clone(&bytes.0)), answer.clone());
        answer
    }
}
