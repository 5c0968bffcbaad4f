//! The one state machine of a node: the mesh and what can be routed to, composed.
//!
//! Same contract as [`Mesh`]: `handle(now, input)`, drain `poll_output()`, sleep until `poll_timeout()`, pull
//! frames with `poll_send`. Beside the mesh's own outputs it says when the immutable [`RoutingView`] is out of date: at once for the first
//! change after quiet, then at most every [`VIEW_INTERVAL_MS`]. Views are *pulled* as frames are: whoever routes takes a new one, and one
//! that nobody takes is never built. A request never waits for gossip.

use std::collections::VecDeque;
use std::sync::Arc;

use atmo_protocol::config::LEASE_MS;
use atmo_protocol::mesh::{self, Event, KnownNeighbour, Mesh, MeshConfig, Now, OriginView, Snapshot};
use atmo_protocol::{Mode, NodeId};

use crate::catalogue::{Catalogue, standing};
use crate::embed::EmbeddingSpace;
use crate::view::{RoutingView, Standing};

/// Least time between two views.
pub const VIEW_INTERVAL_MS: u64 = 100;

/// What a [`Coordinator`] is born with.
#[derive(Debug)]
pub struct CoordinatorConfig {
    pub mesh: MeshConfig,
    /// The space that routing compares vectors in.
    pub space: Arc<EmbeddingSpace>,
}

/// A fact from the outside.
pub type Input = mesh::Input;

/// An effect for the outside to have.
#[derive(Debug)]
pub enum Output {
    /// From the mesh, passed on. Never [`mesh::Output::Event`].
    Mesh(mesh::Output),
    Event(Event),
    /// [`Coordinator::take_view`] has a newer view. Said once until it is taken.
    ViewStale,
}

/// One node as people are told about it.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeView {
    pub id: NodeId,
    pub name: String,
    pub mode: Mode,
    /// 0 = this node, 1 = a live link; `None` = no path.
    pub hops: Option<u8>,
    pub standing: Standing,
    /// Of the link, where there is one.
    pub rtt_ms: Option<u32>,
    pub addresses: Vec<String>,
    pub labels: Vec<(String, String)>,
    pub capabilities: usize,
    /// Since the node signed its record, by our clock.
    pub age_ms: u64,
}

/// The mesh and the catalogue of one node.
#[derive(Debug)]
pub struct Coordinator {
    mesh: Mesh,
    catalogue: Catalogue,
    published_ms: Option<u64>,
    /// That the view is stale was said, and no newer one was taken since.
    said_stale: bool,
    outputs: VecDeque<Output>,
}

impl Coordinator {
    pub fn new(config: CoordinatorConfig, now: Now) -> Self {
        let mesh = Mesh::new(config.mesh, now);
        let catalogue = Catalogue::new(mesh.id(), config.space);
        Self { mesh, catalogue, published_ms: None, said_stale: false, outputs: VecDeque::new() }
    }

    /// A node that begins in the middle, as one member of a converged mesh: see [`Mesh::restore`].
    pub fn restore(config: CoordinatorConfig, now: Now, from: &Snapshot, me: usize, neighbours: Vec<KnownNeighbour>) -> Self {
        let mesh = Mesh::restore(config.mesh, now, from, me, neighbours);
        let catalogue = Catalogue::new(mesh.id(), config.space);
        Self { mesh, catalogue, published_ms: None, said_stale: false, outputs: VecDeque::new() }
    }

    /// Takes one fact from outside, and whatever was due by `now`.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.mesh.handle(now, input);
        self.tell_if_stale(now);
    }

    /// Does whatever is due by `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.mesh.handle_timeout(now);
        self.tell_if_stale(now);
    }

    /// The next effect to have, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.mesh.poll_output().map(|output| match output {
            mesh::Output::Event(event) => Output::Event(event),
            effect => Output::Mesh(effect),
        });
        output.or_else(|| self.outputs.pop_front())
    }

    /// When to call [`Coordinator::handle_timeout`] at the latest, in monotonic milliseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        let publish = (!self.said_stale && self.catalogue.is_stale(&self.mesh)).then(|| self.publish_at_ms());
        self.mesh.poll_timeout().into_iter().chain(publish).min()
    }

    /// One encoded frame for `peer` of about `budget_bytes` at most, or `None` when there is nothing to say.
    pub fn poll_send(&mut self, now: Now, peer: NodeId, budget_bytes: usize) -> Option<Vec<u8>> {
        self.mesh.poll_send(now, peer, budget_bytes)
    }

    /// What handlers route by from now on, made anew if anything changed since the last one was taken.
    pub fn take_view(&mut self, now: Now) -> Arc<RoutingView> {
        self.said_stale = false;
        if self.catalogue.is_stale(&self.mesh) {
            self.published_ms = Some(now.mono_ms);
            return self.catalogue.refresh(&self.mesh, now);
        }
        self.view()
    }

    /// The view taken last.
    pub fn view(&self) -> Arc<RoutingView> {
        self.catalogue.view()
    }

    /// Every known node, this one first, then by distance and name; dead ones are flagged, not left out.
    pub fn nodes(&self, now: Now) -> Vec<NodeView> {
        let mut nodes: Vec<NodeView> = self.mesh.origins().map(|origin| NodeView::of(&origin, now)).collect();
        nodes.sort_by(|a, b| a.place().cmp(&b.place()));
        nodes
    }

    /// The mesh underneath, to look at.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    fn publish_at_ms(&self) -> u64 {
        self.published_ms.map_or(0, |published| published + VIEW_INTERVAL_MS)
    }

    fn tell_if_stale(&mut self, now: Now) {
        if !self.said_stale && self.catalogue.is_stale(&self.mesh) && now.mono_ms >= self.publish_at_ms() {
            self.said_stale = true;
            self.outputs.push_back(Output::ViewStale);
        }
    }
}

impl NodeView {
    fn of(origin: &OriginView<'_>, now: Now) -> Self {
        let record = origin.record;
        Self {
            id: origin.id,
            name: record.name.clone(),
            mode: record.mode,
            hops: origin.hops,
            standing: standing(origin.standing),
            rtt_ms: origin.rtt_ms,
            addresses: record.addresses.clone(),
            labels: record.labels.clone(),
            capabilities: record.capabilities.len(),
            age_ms: (now.wall_ms + LEASE_MS).saturating_sub(record.lease_until_ms),
        }
    }

    fn place(&self) -> (u8, &str, NodeId) {
        (self.hops.unwrap_or(u8::MAX), &self.name, self.id)
    }
}

#[cfg(test)]
mod tests;
