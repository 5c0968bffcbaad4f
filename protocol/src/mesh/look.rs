//! Looking at the mesh without changing it: what the catalogue, `atmo nodes` and checks read.

use std::sync::Arc;

use super::vocabulary::Now;
use super::{Mesh, Refused, SpreadCount};
use crate::gradient::{Origin, Slot, Standing};
use crate::identity::{BodyHash, NodeId, Slug};
use crate::record::{Load, NodeRecord};
use crate::wire::Body;

/// What is believed about one node. Only nodes whose record counts are shown.
#[derive(Clone, Copy, Debug)]
pub struct OriginView<'a> {
    pub id: NodeId,
    pub record: &'a NodeRecord,
    pub standing: Standing,
    /// Fewest hops; 0 is this node, `None` is no path.
    pub hops: Option<u8>,
    /// The neighbour through whom the shortest path leads.
    pub next_hop: Option<NodeId>,
    /// How many neighbours offer a path.
    pub alternatives: usize,
    /// Of the link to it, where there is one.
    pub rtt_ms: Option<u32>,
    mesh: &'a Mesh,
    slot: Slot,
}

impl OriginView<'_> {
    /// What the node said last about one of its capabilities, and how many milliseconds ago.
    pub fn load(&self, slug: &Slug, now: Now) -> Option<(Load, u64)> {
        if self.slot == self.mesh.me {
            return self.mesh.own_loads.get(slug).map(|load| (*load, 0));
        }
        let position = self.record.capabilities.iter().position(|offered| offered.slug == *slug)?;
        self.mesh.near_loads.get(self.slot, position, self.record.capabilities[position].slots, now.mono_ms)
    }
}

impl Mesh {
    /// Every node whose record counts, this one included, in order of id.
    pub fn origins(&self) -> impl Iterator<Item = OriginView<'_>> {
        self.table.iter().filter_map(|(slot, origin)| self.look(slot, &origin))
    }

    pub fn origin(&self, id: &NodeId) -> Option<OriginView<'_>> {
        let slot = self.table.slot(id)?;
        self.look(slot, &self.table.get(slot)?)
    }

    fn look<'a>(&'a self, slot: Slot, origin: &Origin<'a>) -> Option<OriginView<'a>> {
        let next = self.distances.next_hop(slot).and_then(|link| self.links.get(&link));
        Some(OriginView {
            id: origin.id,
            record: &origin.record?.record,
            standing: origin.standing,
            hops: if slot == self.me { Some(0) } else { self.distances.hops(slot) },
            next_hop: next.map(|link| link.peer),
            alternatives: self.distances.alternatives(slot),
            rtt_ms: self.link_of.get(&origin.id).and_then(|link| self.links.get(link)).map(|link| link.rtt_ms),
            mesh: self,
            slot,
        })
    }

    /// A body that some record names, if it has arrived.
    pub fn body(&self, hash: &BodyHash) -> Option<&Arc<Body>> {
        self.bodies.get(hash)
    }

    /// Grows whenever who offers what changes.
    pub fn roster_generation(&self) -> u64 {
        self.roster_generation
    }

    /// Grows whenever hops, standings, round trips or loads change.
    pub fn condition_generation(&self) -> u64 {
        self.condition_generation
    }

    /// Where a node can be dialled: by its record, or by what was found elsewhere.
    pub fn addresses(&self, node: &NodeId) -> Vec<String> {
        let announced =
            self.table.record_of(node).map(|held| held.record.addresses.clone()).filter(|announced| !announced.is_empty());
        announced.or_else(|| self.dialler.addresses(node)).unwrap_or_default()
    }

    /// The incarnation this node signs with.
    pub fn incarnation(&self) -> u64 {
        self.own.incarnation()
    }

    /// Capabilities of this node that found no room in its record.
    pub fn offers_left_out(&self) -> usize {
        self.own.left_out()
    }

    /// What was not taken, and origins that found no room.
    pub fn refused(&self) -> (Refused, u64) {
        (self.refused, self.table.refused())
    }

    /// Records that came in, and how many of them were news.
    pub fn spread_count(&self) -> SpreadCount {
        self.spread
    }

    /// Known origins, with and without a record.
    pub fn origins_held(&self) -> usize {
        self.table.len()
    }

    pub fn bodies_held(&self) -> usize {
        self.bodies.len()
    }
}
