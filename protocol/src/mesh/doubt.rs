//! Nodes that someone still offers a way to although those who should know let go of them.
//!
//! Distances alone cannot tell a liar's way to a dead node from a real one. Signed records can raise the question: when most of the
//! neighbours that a node's record names have let go of it in their own lists since, it may be gone, or it may merely have changed its neighbours
//! and not said so yet. So it is asked, along the way that is offered: if it lives it signs a new list, once for all who ask. Where no
//! answer comes it is dialled. Only if that fails too, and nothing newer of it was heard meanwhile, does it count as silent.

use std::collections::BTreeMap;

use super::vocabulary::{Now, Output};
use super::{Mesh, Slot};
use crate::config::{DOUBT_AGE_MS, DOUBTS_MAX, NEIGHBOURS_MAX};
use crate::gradient::Standing;
use crate::identity::NodeId;
use crate::liveness::short_number;
use crate::record::Announcement;

/// Who let go of whom, and the nodes in doubt for it.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Of each origin those of the neighbours its record names, a bit each in the record's order, that named it too and do so no more.
    dropped: BTreeMap<Slot, u16>,
    doubted: BTreeMap<Slot, Doubt>,
}

#[derive(Clone, Copy, Debug)]
struct Doubt {
    since_ms: u64,
    dialled: bool,
}

impl Doubts {
    /// The origin said something new, or is forgotten: whatever was doubted of it is answered.
    pub fn settle(&mut self, slot: Slot) {
        self.dropped.remove(&slot);
        self.doubted.remove(&slot);
    }
}

impl Mesh {
    /// A neighbour list changed: whom it names no more may be gone.
    pub(super) fn doubt_dropped(&mut self, before: &Announcement, after: &Announcement, now: Now) {
        let by = short_number(&after.record.node);
        let dropped = before.record.neighbours.iter().filter(|short| !after.record.neighbours.contains(short));
        for short in dropped {
            let Some(slot) = self.table.slot_of_short(*short) else { continue };
            let Some(held) = self.table.record(slot) else { continue };
            let Some(at) = held.record.neighbours.iter().position(|named| *named == by) else { continue };
            *self.doubts.dropped.entry(slot).or_default() |= 1 << at.min(NEIGHBOURS_MAX - 1);
            let is_new = self.doubts.doubted.len() < DOUBTS_MAX && !self.doubts.doubted.contains_key(&slot);
            if is_new && self.is_doubtful(slot) {
                self.doubts.doubted.insert(slot, Doubt { since_ms: now.mono_ms, dialled: false });
                self.ask_whether_alive(slot);
            }
        }
    }

    /// Whether somebody offers a way to a node of whose neighbours most let go of it since it named them, or are gone themselves.
    fn is_doubtful(&self, slot: Slot) -> bool {
        let Some(dropped) = self.doubts.dropped.get(&slot).copied() else { return false };
        let Some(held) = self.table.record(slot).filter(|_| self.table.standing(slot) == Some(Standing::Alive)) else {
            return false;
        };
        let named = held.record.neighbours.iter().enumerate();
        let is_gone = |short: u64| {
            let standing = self.table.slot_of_short(short).and_then(|slot| self.table.standing(slot));
            standing != Some(Standing::Alive)
        };
        let lost = named.filter(|(at, short)| dropped & (1 << at.min(&(NEIGHBOURS_MAX - 1))) != 0 || is_gone(**short));
        lost.count() * 2 > held.record.neighbours.len()
    }

    fn ask_whether_alive(&mut self, slot: Slot) {
        if let Some(link) = self.distances.next_hop(slot).and_then(|id| self.links.get_mut(&id)) {
            link.outbox.suspects.insert(slot.0);
        }
    }

    /// Dials one node that was in doubt for long enough.
    pub(super) fn resolve_doubts(&mut self, now: Now) {
        let linked: Vec<Slot> = self.links.values().map(|link| link.slot).collect();
        let over = self.doubts.doubted.keys().copied().filter(|slot| linked.contains(slot) || !self.is_doubtful(*slot));
        let over: Vec<Slot> = over.collect();
        over.into_iter().for_each(|slot| _ = self.doubts.doubted.remove(&slot));
        let ripe = |doubt: &Doubt| !doubt.dialled && now.mono_ms >= doubt.since_ms + DOUBT_AGE_MS;
        let Some((slot, doubt)) = self.doubts.doubted.iter_mut().find(|(_, doubt)| ripe(doubt)) else { return };
        doubt.dialled = true;
        let slot = *slot;
        self.dial_slot(slot, now);
    }

    /// Nobody answers where a node in doubt should be.
    pub(super) fn dial_confirms_doubt(&mut self, node: &NodeId, now: Now) {
        let Some(slot) = self.table.slot(node) else { return };
        let dialled = self.doubts.doubted.get(&slot).is_some_and(|doubt| doubt.dialled);
        if dialled && !self.doubts_itself(now) && self.is_doubtful(slot) {
            self.suspicions.silent(slot, now.mono_ms);
            self.judge(slot, now);
        }
        self.doubts.settle(slot);
    }

    pub(super) fn dial_slot(&mut self, slot: Slot, now: Now) {
        let Some(held) = self.table.record(slot) else { return };
        let (node, addresses) = (held.record.node, held.record.addresses.clone());
        self.dialler.learn(node, addresses, false, now.mono_ms);
        if let Some(addresses) = self.dialler.begin(&node, now.mono_ms) {
            self.outputs.push_back(Output::Dial { node, addresses });
        }
    }
}
