//! A mesh that begins in the middle: everyone known, links up, distances told. For simulations of large meshes, which would otherwise
//! spend most of their time on growing.

use std::sync::Arc;

use rand::RngExt;

use super::link::Link;
use super::vocabulary::{MeshConfig, Now};
use super::{Mesh, Slot, Standing};
use crate::config::{LEASE_MS, LEASE_RENEWAL_MS, LOAD_REFRESH_MS, VIEW_INTERVAL_MS};
use crate::distance::LinkId;
use crate::gradient::Gradient;
use crate::record::Announcement;
use crate::timers::Timer;
use crate::wire::{Body, VerifiedChain};

/// Somebody whom everyone knows.
#[derive(Clone, Debug)]
pub struct KnownMember {
    pub announcement: Arc<Announcement>,
    pub chain: Arc<VerifiedChain>,
}

/// What all nodes of a converged mesh hold. Made once, shared by all.
#[derive(Debug)]
pub struct Snapshot {
    members: Vec<KnownMember>,
    bodies: Vec<Arc<Body>>,
    table: Gradient,
}

/// One link of a node, with the distances that were said on it: by member, [`UNREACHABLE`](crate::config::UNREACHABLE) where nothing was,
/// [`THROUGH_YOU`](crate::distance::THROUGH_YOU) where the way of the one who speaks leads through the other.
#[derive(Clone, Debug)]
pub struct KnownNeighbour {
    /// Place among the members.
    pub member: usize,
    pub rtt_ms: u32,
    pub heard: Vec<u8>,
    pub told: Vec<u8>,
}

impl Snapshot {
    pub fn new(members: Vec<KnownMember>, bodies: Vec<Arc<Body>>) -> Self {
        let mut table = Gradient::default();
        for member in &members {
            let slot = table.slot_or_new(member.announcement.record.node).expect("a snapshot fits a table");
            table.put_record(slot, Arc::clone(&member.announcement));
            table.set_standing(slot, Standing::Alive);
        }
        Self { members, bodies, table }
    }

    pub fn members(&self) -> &[KnownMember] {
        &self.members
    }
}

impl Mesh {
    /// The node of one of the members, as it would be long after the mesh formed. What it offers and says of itself is what its record in
    /// the snapshot says; its incarnation is the stored one.
    pub fn restore(config: MeshConfig, now: Now, snapshot: &Snapshot, me: usize, neighbours: Vec<KnownNeighbour>) -> Self {
        let mut mesh = Self::new(config, now);
        mesh.outputs.clear();
        let record = &snapshot.members[me].announcement.record;
        mesh.own.resume(record, now);
        mesh.me = Slot(me as u32);
        mesh.table = snapshot.table.clone();
        mesh.alive = snapshot.members.len();
        mesh.distances = crate::distance::Distances::new(mesh.me);
        for (at, member) in snapshot.members.iter().enumerate() {
            mesh.chains.put(Slot(at as u32), Arc::clone(&member.chain));
        }
        for body in &snapshot.bodies {
            mesh.bodies.insert(body.hash, Arc::clone(body));
        }
        for (at, neighbour) in neighbours.into_iter().enumerate() {
            mesh.restore_link(LinkId(at as u8), neighbour, snapshot, now);
        }
        mesh.distances.settle_restored();
        mesh.tend(now);
        mesh.restore_timers(record.lease_until_ms, now);
        mesh
    }

    fn restore_link(&mut self, id: LinkId, neighbour: KnownNeighbour, snapshot: &Snapshot, now: Now) {
        let (slot, peer) = (Slot(neighbour.member as u32), snapshot.members[neighbour.member].announcement.record.node);
        let mut link = Link::new(id, peer, slot, neighbour.rtt_ms, now.mono_ms);
        for (number, _) in snapshot.bodies.iter().enumerate() {
            link.outbox.has_bodies.insert(number as u32);
        }
        for number in 0..snapshot.members.len() as u32 {
            link.outbox.has_records.insert(number);
            link.outbox.has_chains.insert(number);
        }
        self.links.insert(id, link);
        self.link_of.insert(peer, id);
        self.revoking.link_up(peer, Arc::clone(&snapshot.members[neighbour.member].chain));
        self.distances.restore_link(id, slot, neighbour.rtt_ms, neighbour.heard, neighbour.told);
    }

    /// As if each had been set at its own time in the past.
    fn restore_timers(&mut self, lease_until_ms: u64, now: Now) {
        let signed_ago_ms = (now.wall_ms + LEASE_MS).saturating_sub(lease_until_ms);
        self.timers.set(Timer::Sign, now.mono_ms + LEASE_RENEWAL_MS.saturating_sub(signed_ago_ms).max(1));
        self.timers.set(Timer::View, now.mono_ms + self.rng.random_range(0..=VIEW_INTERVAL_MS));
        self.loads_told_ms = now.mono_ms.saturating_sub(self.rng.random_range(0..=LOAD_REFRESH_MS));
        self.relayed_ms = self.loads_told_ms;
    }
}
