//! Certificate chains: one beside the record of each origin, and a few that wait for the record that names them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{LOOSE_CHAINS_MAX, PENDING_MS};
use crate::gradient::Slot;
use crate::identity::CertificateHash;
use crate::wire::VerifiedChain;

/// Chains by slot, and loose ones.
#[derive(Clone, Debug, Default)]
pub struct Chains {
    held: Vec<Option<Arc<VerifiedChain>>>,
    /// With when each came.
    loose: BTreeMap<CertificateHash, (Arc<VerifiedChain>, u64)>,
}

impl Chains {
    /// The chain that the record of `slot` names.
    pub fn get(&self, slot: Option<Slot>, hash: &CertificateHash) -> Option<&Arc<VerifiedChain>> {
        let held = slot.and_then(|slot| self.at(slot)).filter(|chain| chain.hash() == *hash);
        held.or_else(|| self.loose.get(hash).map(|(chain, _)| chain))
    }

    /// The chain of an origin whose record is held.
    pub fn at(&self, slot: Slot) -> Option<&Arc<VerifiedChain>> {
        self.held.get(slot.0 as usize)?.as_ref()
    }

    /// Keeps a chain until the record comes that names it. In a full store the one that came first gives way.
    pub fn keep(&mut self, chain: Arc<VerifiedChain>, now_ms: u64) {
        let hash = chain.hash();
        if self.loose.len() >= LOOSE_CHAINS_MAX && !self.loose.contains_key(&hash) {
            let first = self.loose.iter().min_by_key(|(_, (_, since_ms))| *since_ms).map(|(hash, _)| *hash);
            first.map(|first| self.loose.remove(&first));
        }
        self.loose.insert(hash, (chain, now_ms));
    }

    /// The record of `slot` names this chain from now on; whether it named another before.
    pub fn settle(&mut self, slot: Slot, hash: &CertificateHash) -> bool {
        let Some((chain, _)) = self.loose.remove(hash) else { return false };
        self.put(slot, chain)
    }

    /// Puts a chain beside its origin; whether it was another before.
    pub fn put(&mut self, slot: Slot, chain: Arc<VerifiedChain>) -> bool {
        let at = slot.0 as usize;
        if self.held.len() <= at {
            self.held.reserve_exact(at + 1 + at / 16 - self.held.len());
            self.held.resize(at + 1, None);
        }
        let hash = chain.hash();
        self.held[at].replace(chain).is_some_and(|before| before.hash() != hash)
    }

    /// The slot beside which a chain lies: looks at all of them.
    pub fn find(&self, hash: &CertificateHash) -> Option<Slot> {
        let at = self.held.iter().position(|chain| chain.as_ref().is_some_and(|chain| chain.hash() == *hash))?;
        Some(Slot(at as u32))
    }

    pub fn forget(&mut self, slot: Slot) {
        if let Some(chain) = self.held.get_mut(slot.0 as usize) {
            *chain = None;
        }
    }

    /// Lets go of loose chains whose record never came.
    pub fn sweep(&mut self, now_ms: u64) {
        self.loose.retain(|_, (_, since_ms)| now_ms < *since_ms + PENDING_MS);
    }

    /// Bytes of its own that it takes.
    pub fn bytes(&self) -> usize {
        self.held.capacity() * size_of::<Option<Arc<VerifiedChain>>>() + self.loose.len() * 64
    }
}
