//! How a new record travels: eagerly down the tree of its origin, lazily as a mere stamp to a few others.
//!
//! After Plumtree (Leitão, Pereira, Rodrigues 2007), with one difference: the tree is not grown by pruning duplicates but read off the
//! distances, one per origin ([`crate::distance`]). A record goes at once to every neighbour whose way to its origin leads through us, and
//! to those that have no way or never said; the rest hear of it from their own parent. A few of these get its stamp with the next
//! keep-alive, so that a parent that swallows news is noticed within a second. A neighbour that becomes our child just now may have missed
//! what changed a moment ago: it is sent what is [`Recent`]. What slips through all this is found by reconciliation.

use std::collections::VecDeque;

use rand::seq::IndexedRandom;

use super::vocabulary::Now;
use super::{Mesh, Slot};
use crate::config::{HAVE_LINKS, RECENT_MAX, RECENT_MS, UNREACHABLE};
use crate::distance::{Dependence, LinkId, THROUGH_YOU_UNSEEN};
use crate::gossip::Bits;
use crate::wire::{Have, ShortStamp};

/// Origins whose record changed a moment ago.
#[derive(Debug, Default)]
pub(super) struct Recent {
    slots: Bits,
    /// In order of time, with when each stops being recent.
    order: VecDeque<(u64, Slot)>,
}

impl Recent {
    fn note(&mut self, slot: Slot, now_ms: u64) {
        self.expire(now_ms);
        if self.order.len() < RECENT_MAX && self.slots.insert(slot.0) {
            self.order.push_back((now_ms + RECENT_MS, slot));
        }
    }

    fn contains(&mut self, slot: Slot, now_ms: u64) -> bool {
        self.expire(now_ms);
        self.slots.contains(slot.0)
    }

    fn expire(&mut self, now_ms: u64) {
        while let Some((_, slot)) = self.order.front().copied().filter(|(until_ms, _)| *until_ms <= now_ms) {
            self.order.pop_front();
            self.slots.remove(slot.0);
        }
    }
}

/// Records that came in and how many of them were news: their ratio says how good the trees are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SpreadCount {
    pub received: u64,
    pub news: u64,
}

impl Mesh {
    /// A record of `slot` is news since now; `from` brought it, or it is our own. `first`: of this life of its node. Then it may be in no
    /// tree yet, and is named to neighbours without a way by its distance: a flood would bring it to everyone many times.
    pub(super) fn spread(&mut self, slot: Slot, first: bool, from: Option<LinkId>, now: Now) {
        self.recent.note(slot, now.mono_ms);
        let mut others = Vec::new();
        for link in self.links.values_mut() {
            let dependence = self.distances.dependence(link.id, slot);
            if Some(link.id) == from {
                link.outbox.records.remove(slot.0);
            } else if slot == self.me || dependence == Dependence::Child || link.slot == slot {
                link.outbox.records.insert(slot.0);
            } else if dependence == Dependence::Independent {
                link.outbox.records.remove(slot.0);
                others.push(link.id);
            } else if !first || link.outbox.records.contains(slot.0) {
                link.outbox.records.insert(slot.0);
            }
        }
        let told: Vec<LinkId> = others.sample(&mut self.rng, HAVE_LINKS).copied().collect();
        for id in told {
            self.links.get_mut(&id).map(|link| link.outbox.haves.insert(slot.0));
        }
    }

    /// What a neighbour's word about its way to `slot` asks of us: the record, if it never had one; what is recent, if its way changed to
    /// lead through us or broke.
    pub(super) fn way_told(&mut self, id: LinkId, slot: Slot, before: Dependence, hops: u8, now: Now) {
        if hops < UNREACHABLE || slot == self.me || !self.table.has_record(slot) {
            return;
        }
        let changed = before != self.distances.dependence(id, slot);
        let recent = changed && self.recent.contains(slot, now.mono_ms);
        let Some(link) = self.links.get_mut(&id) else { return };
        let unseen = hops == THROUGH_YOU_UNSEEN && !link.outbox.has_records.contains(slot.0);
        if unseen || recent {
            link.outbox.records.insert(slot.0);
        }
    }

    /// Records that the sender holds: what is newer than ours is asked for. Of nodes that we do not know yet, distances tell.
    pub(super) fn receive_have(&mut self, id: LinkId, have: Have) {
        for stamp in have.records {
            let Some(slot) = self.table.slot_of_short(u64::from_be_bytes(stamp.origin)) else { continue };
            let Some(held) = self.table.record(slot).filter(|held| held.stamp().number() < stamp.number()) else { continue };
            let origin = held.record.node;
            if slot != self.me
                && let Some(link) = self.links.get_mut(&id)
            {
                link.outbox.want_record(origin);
            }
        }
    }

    /// What a link is still to be told of, at most as many as fit.
    pub(super) fn take_haves(&mut self, id: LinkId, max: usize) -> Option<Have> {
        let link = self.links.get_mut(&id)?;
        let mut records = Vec::new();
        while records.len() < max
            && let Some(slot) = link.outbox.haves.pop()
        {
            records.extend(self.table.record(Slot(slot)).map(|held| ShortStamp::from(held.stamp())));
        }
        (!records.is_empty()).then_some(Have { records })
    }
}
