//! Nodes that someone still offers a way to although others say that they are gone.
//!
//! Distances alone cannot tell a liar's way to a dead node from a real one. Whoever lost the node says so to its neighbours; the accusation
//! follows the ways that are offered, and if the node lives it refutes it once, for all who ask, with a newer record. Where none comes
//! the node is dialled, and if that fails too it is dead: here the way is no longer believed, passed on, or taken for life. So a ghost is
//! laid by everyone who meets it, and a living node needs one honest way to be heard.

use rand::seq::IteratorRandom;

use super::vocabulary::{DeathCause, Now, Output};
use super::{Mesh, Slot};
use crate::config::{ASK_WAYS, DIALS_IN_FLIGHT_MAX};
use crate::distance::LinkId;
use crate::gradient::Standing;
use crate::identity::NodeId;
use crate::liveness::short_number;

impl Mesh {
    /// A node was found dead: if others must know it too, nothing but a newer record undoes it.
    pub(super) fn confirm_death(&mut self, slot: Slot, cause: DeathCause, now: Now) {
        if cause != DeathCause::LeaseExpired && self.is_missed(slot) {
            self.bury(slot, cause, now);
        }
    }

    fn bury(&mut self, slot: Slot, cause: DeathCause, now: Now) {
        self.suspicions.confirm(slot, cause);
        self.distances.condemn(slot, now.mono_ms);
    }

    /// Whether at least half of the neighbours that the node names, this one aside, are there: then it is the node that is gone and not
    /// the way to its part of the mesh.
    fn is_missed(&self, slot: Slot) -> bool {
        let Some(held) = self.table.record(slot) else { return false };
        let me = short_number(&self.own.id);
        let others: Vec<u64> = held.record.neighbours.iter().copied().filter(|short| *short != me).collect();
        let is_there = |short: &&u64| {
            let neighbour = self.table.slot_of_short(**short);
            neighbour.and_then(|slot| self.table.standing(slot)) == Some(Standing::Alive)
        };
        !others.is_empty() && others.iter().filter(is_there).count() * 2 >= others.len()
    }

    /// The node itself was heard, or something newer that it signed: whatever spoke against it is refuted.
    pub(super) fn refuted(&mut self, slot: Slot, now: Now) {
        self.suspicions.refuted(slot);
        self.distances.pardon(slot, now.mono_ms);
    }

    /// Sends the accusation along ways that are offered to the node, for it to refute.
    pub(super) fn ask(&mut self, slot: Slot, but: NodeId) {
        let first = self.distances.next_hop(slot);
        let open = |id: &LinkId| self.links.get(id).is_some_and(|link| link.peer != but);
        let others: Vec<LinkId> = self.distances.offering(slot).filter(|id| Some(*id) != first && open(id)).collect();
        let ways: Vec<LinkId> = first.filter(open).into_iter().collect();
        let more = others.into_iter().sample(&mut self.rng, ASK_WAYS - ways.len());
        for id in ways.into_iter().chain(more) {
            self.links.get_mut(&id).into_iter().for_each(|link| _ = link.outbox.suspects.insert(slot.0));
        }
    }

    /// Tells everyone who offers a way to the accused that it does not answer: they may know no more of it than we do. Whether anybody does.
    fn warn(&mut self, slot: Slot) -> bool {
        let offering: Vec<LinkId> = self.distances.offering(slot).collect();
        for id in &offering {
            self.links.get_mut(id).into_iter().for_each(|link| _ = link.outbox.suspects.insert(slot.0));
        }
        !offering.is_empty()
    }

    /// Asks one of those who offer a way to a dead node: who lives again is known to all of them.
    fn ask_nearest(&mut self, slot: Slot) -> bool {
        let nearest = self.distances.nearest_offer(slot).and_then(|id| self.links.get_mut(&id));
        nearest.map(|link| link.outbox.suspects.insert(slot.0)).is_some()
    }

    /// Asks whoever offers ways to a dead node, and dials one that is accused and does not refute it.
    pub(super) fn resolve_doubt(&mut self, slot: Slot, now: Now) {
        if let Some(again) = self.suspicions.take_ask(slot, now.mono_ms) {
            let asked = if again { self.warn(slot) } else { self.ask_nearest(slot) };
            if asked {
                self.suspicions.ask_soon(slot, now.mono_ms);
            }
        }
        if self.suspicions.is_to_be_dialled(slot, now.mono_ms) && !self.hears(slot) {
            let is_dialled = self.table.get(slot).is_some_and(|origin| self.dialler.is_dialling(&origin.id));
            let has_room = self.dialler.in_flight() < DIALS_IN_FLIGHT_MAX;
            if is_dialled || has_room && self.dial_slot(slot, now) {
                self.suspicions.dialled(slot);
                self.warn(slot);
            }
        }
    }

    /// Nobody answers where a node in doubt should be.
    pub(super) fn dial_confirms_doubt(&mut self, node: &NodeId, now: Now) {
        let Some(slot) = self.table.slot(node) else { return };
        if self.suspicions.is_convicted(slot) && !self.doubts_itself(now) && !self.hears(slot) {
            self.bury(slot, DeathCause::Silent, now);
            self.judge(slot, now);
        }
    }

    /// Whether a dial was begun.
    pub(super) fn dial_slot(&mut self, slot: Slot, now: Now) -> bool {
        let Some(held) = self.table.record(slot) else { return false };
        let (node, addresses) = (held.record.node, held.record.addresses.clone());
        self.dialler.learn(node, addresses, false, now.mono_ms);
        let addresses = self.dialler.begin(&node, now.mono_ms);
        let begun = addresses.is_some();
        self.outputs.extend(addresses.map(|addresses| Output::Dial { node, addresses }));
        begun
    }
}
