//! Nodes that someone still offers a way to although those who should know let go of them.
//!
//! Distances alone cannot tell a liar's way to a dead node from a real one. Signed records can raise the question: when most of the
//! neighbours that a node's record names have signed newer lists without it, it may be gone, or it may merely have changed its neighbours
//! and not said so yet. So it is dialled. Only if that fails, and nothing newer of it was heard meanwhile, does it count as silent.

use std::collections::BTreeMap;

use super::vocabulary::{Now, Output};
use super::{Mesh, Slot};
use crate::config::{DOUBT_AGE_MS, DOUBTS_MAX};
use crate::gradient::Standing;
use crate::identity::NodeId;
use crate::liveness::short_number;
use crate::record::Announcement;

/// Nodes in doubt, and what is done about it.
#[derive(Debug, Default)]
pub(super) struct Doubts(BTreeMap<Slot, Doubt>);

#[derive(Clone, Copy, Debug)]
struct Doubt {
    since_ms: u64,
    dialled: bool,
}

impl Doubts {
    /// Whatever was doubted of the origin is answered, or it is forgotten.
    pub fn settle(&mut self, slot: Slot) {
        self.0.remove(&slot);
    }
}

impl Mesh {
    /// A neighbour list changed: whom it names no more may be gone.
    pub(super) fn doubt_dropped(&mut self, before: &Announcement, after: &Announcement, now: Now) {
        let dropped = before.record.neighbours.iter().filter(|short| !after.record.neighbours.contains(short));
        for short in dropped {
            let Some(slot) = self.table.slot_of_short(*short) else { continue };
            if self.doubts.0.len() < DOUBTS_MAX && self.is_dropped_by_most(slot) {
                self.doubts.0.entry(slot).or_insert(Doubt { since_ms: now.mono_ms, dialled: false });
            }
        }
    }

    /// Whether most of the neighbours that a node's record names hold newer records that do not name it.
    fn is_dropped_by_most(&self, slot: Slot) -> bool {
        let Some(held) = self.table.record(slot) else { return false };
        let own = short_number(&held.record.node);
        let dropped_by = |short: &&u64| {
            let neighbour = self.table.slot_of_short(**short);
            neighbour.and_then(|slot| self.table.record(slot)).is_some_and(|held| !held.record.neighbours.contains(&own))
        };
        let named = &held.record.neighbours;
        !named.is_empty() && named.iter().filter(dropped_by).count() * 2 > named.len()
    }

    /// Dials one node that was in doubt for long enough.
    pub(super) fn resolve_doubts(&mut self, now: Now) {
        let linked: Vec<Slot> = self.links.values().map(|link| link.slot).collect();
        let over: Vec<Slot> =
            self.doubts.0.keys().copied().filter(|slot| linked.contains(slot) || !self.is_doubtful(*slot)).collect();
        over.into_iter().for_each(|slot| self.doubts.settle(slot));
        let ripe = |doubt: &Doubt| !doubt.dialled && now.mono_ms >= doubt.since_ms + DOUBT_AGE_MS;
        let Some(slot) = self.doubts.0.iter().find(|(_, doubt)| ripe(doubt)).map(|(slot, _)| *slot) else { return };
        if let Some(doubt) = self.doubts.0.get_mut(&slot) {
            doubt.dialled = true;
        }
        self.dial_slot(slot, now);
    }

    fn is_doubtful(&self, slot: Slot) -> bool {
        self.table.standing(slot) == Some(Standing::Alive) && self.is_dropped_by_most(slot)
    }

    /// Nobody answers where a node in doubt should be.
    pub(super) fn dial_confirms_doubt(&mut self, node: &NodeId, now: Now) {
        let Some(slot) = self.table.slot(node) else { return };
        let dialled = self.doubts.0.get(&slot).is_some_and(|doubt| doubt.dialled);
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
