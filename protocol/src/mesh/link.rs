//! One live link: what is known of the peer, and what is still to be said to it.
//!
//! The [`Outbox`] holds no frames. It holds which records, bodies and distances are out of date at the other end, one bit each, and the
//! frame is made from the table when the link can take it.

use std::collections::{BTreeSet, VecDeque};

use crate::config::{FETCH_ITEMS_MAX, RANGES_QUEUED_MAX, UNASKED_BYTES, UNASKED_BYTES_PER_MS};
use crate::distance::LinkId;
use crate::gossip::Bits;
use crate::gradient::Slot;
use crate::identity::{BodyHash, CertificateHash, NodeId};
use crate::wire::{Fetch, RangeDigest};

#[derive(Debug)]
pub(super) struct Link {
    pub id: LinkId,
    pub peer: NodeId,
    pub slot: Slot,
    pub rtt_ms: u32,
    pub heard_ms: u64,
    /// Since when nothing was heard for too long.
    pub silent_since: Option<u64>,
    /// Before this, changed distances are gathered.
    pub distances_at_ms: u64,
    /// When the peer last brought something that was asked for.
    pub brought_ms: u64,
    /// When something was last said on the link.
    pub said_ms: u64,
    pub up_ms: u64,
    pub nonce: u64,
    /// Links that the peer says it has.
    pub peer_links: Option<u8>,
    pub closing: bool,
    pub outbox: Outbox,
    pub unasked: Unasked,
    /// Origins without a record that the peer told a distance of, by slot.
    pub introduced: Bits,
}

/// What is to be said to one peer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The driver knows that there is something.
    pub announced: bool,
    pub probe: Option<u64>,
    pub reply: Option<u64>,
    /// To say that we are here, where nothing else is said.
    pub alive: bool,
    /// The last word: the link ends after it.
    pub bye: bool,
    /// Origins to accuse, by slot.
    pub suspects: Bits,
    /// Origins whose record the peer lacks, by slot.
    pub records: Bits,
    /// Origins whose stamp the peer is to be told, by slot.
    pub haves: Bits,
    /// Origins of which some record was sent to the peer or came from it, by slot.
    pub has_records: Bits,
    /// Origins whose loads are to be passed on, by slot.
    pub near_loads: Bits,
    /// By number in the mesh's stores.
    pub bodies: Bits,
    /// What the peer has shown or been sent.
    pub has_bodies: Bits,
    /// By slot.
    pub chains: Bits,
    pub has_chains: Bits,
    pub loads: bool,
    pub ranges: VecDeque<RangeDigest>,
    wanted_chains: BTreeSet<CertificateHash>,
    wanted_bodies: BTreeSet<BodyHash>,
    wanted_records: BTreeSet<NodeId>,
}

impl Link {
    pub fn new(id: LinkId, peer: NodeId, slot: Slot, rtt_ms: u32, now_ms: u64) -> Self {
        Self {
            id,
            peer,
            slot,
            rtt_ms,
            heard_ms: now_ms,
            silent_since: None,
            distances_at_ms: 0,
            brought_ms: 0,
            said_ms: now_ms,
            up_ms: now_ms,
            nonce: 0,
            peer_links: None,
            closing: false,
            outbox: Outbox::default(),
            unasked: Unasked::new(now_ms),
            introduced: Bits::default(),
        }
    }

    /// The slot goes to another origin.
    pub fn forget_slot(&mut self, slot: Slot) {
        self.introduced.remove(slot.0);
        self.outbox.records.remove(slot.0);
        self.outbox.suspects.remove(slot.0);
        self.outbox.haves.remove(slot.0);
        self.outbox.has_records.remove(slot.0);
        self.outbox.near_loads.remove(slot.0);
        self.outbox.chains.remove(slot.0);
        self.outbox.has_chains.remove(slot.0);
    }
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        let asks = self.wanted_chains.is_empty() && self.wanted_bodies.is_empty() && self.wanted_records.is_empty();
        let says = self.records.is_empty() && self.bodies.is_empty() && self.chains.is_empty() && self.suspects.is_empty();
        let small = self.probe.is_none() && self.reply.is_none() && !self.alive && !self.bye;
        // Stamps wait for the next keep-alive.
        asks && says && small && !self.loads && self.near_loads.is_empty() && self.ranges.is_empty()
    }

    /// Bytes that the bits of known origins take.
    pub fn bytes(&self) -> usize {
        let records = [&self.records, &self.has_records, &self.chains, &self.has_chains];
        let rest = [&self.suspects, &self.haves, &self.near_loads];
        records.into_iter().chain(rest).map(Bits::bytes).sum()
    }

    /// Whether there was room to ask for it.
    pub fn want_chain(&mut self, hash: CertificateHash) -> bool {
        bounded_insert(&mut self.wanted_chains, hash)
    }

    /// Whether there was room to ask for it.
    pub fn want_body(&mut self, hash: BodyHash) -> bool {
        bounded_insert(&mut self.wanted_bodies, hash)
    }

    pub fn want_record(&mut self, origin: NodeId) {
        bounded_insert(&mut self.wanted_records, origin);
    }

    /// Everything to be asked for, which then counts as asked.
    pub fn take_fetch(&mut self) -> Option<Fetch> {
        let take = Fetch {
            chains: std::mem::take(&mut self.wanted_chains).into_iter().collect(),
            bodies: std::mem::take(&mut self.wanted_bodies).into_iter().collect(),
            records: std::mem::take(&mut self.wanted_records).into_iter().collect(),
        };
        (take != Fetch::default()).then_some(take)
    }

    pub fn add_range(&mut self, range: RangeDigest) {
        if self.ranges.len() < RANGES_QUEUED_MAX {
            self.ranges.push_back(range);
        }
    }
}

/// Three sets of at most a third of what a frame may ask for.
fn bounded_insert<T: Ord>(set: &mut BTreeSet<T>, item: T) -> bool {
    let has_room = set.len() < FETCH_ITEMS_MAX / 3;
    if has_room {
        set.insert(item);
    }
    has_room
}

/// Bytes that may be sent without having been asked for.
#[derive(Debug)]
pub(super) struct Unasked {
    left: usize,
    at_ms: u64,
}

impl Unasked {
    fn new(now_ms: u64) -> Self {
        Self { left: UNASKED_BYTES, at_ms: now_ms }
    }

    /// Whether there is room for `bytes`, which then count as sent.
    pub fn take(&mut self, bytes: usize, now_ms: u64) -> bool {
        let regained = now_ms.saturating_sub(self.at_ms).saturating_mul(UNASKED_BYTES_PER_MS);
        self.left = UNASKED_BYTES.min(self.left.saturating_add(usize::try_from(regained).unwrap_or(usize::MAX)));
        self.at_ms = now_ms;
        let has_room = bytes <= self.left;
        self.left -= if has_room { bytes } else { 0 };
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_has_a_bound_that_grows_back() {
        let mut unasked = Unasked::new(0);
        assert!(unasked.take(UNASKED_BYTES, 0));
        assert!(!unasked.take(1, 0));
        assert!(unasked.take(10 * UNASKED_BYTES_PER_MS as usize, 10));
        assert!(!unasked.take(1, 10));
        assert!(!unasked.take(UNASKED_BYTES + 1, u64::MAX), "never more than the bound");
        assert!(unasked.take(UNASKED_BYTES, u64::MAX));
    }
}
