//! One virtual machine: a key, a disk with one number and an address book on it, and, while it runs, the node's own [`Coordinator`].

use std::sync::Arc;

use atmo_capabilities::coordinator::{Coordinator, CoordinatorConfig, Input};
use atmo_capabilities::embed::EmbeddingSpace;
use atmo_protocol::mesh::{KnownNeighbour, MeshConfig, Now, Snapshot};
use atmo_protocol::record::{CapabilityBody, Cost, Load, Offered};
use atmo_protocol::wire::{Body, VerifiedChain};
use atmo_protocol::{Mode, NodeId, NodeKey, Revocation, Slug};
use serde::Deserialize;

use crate::adversary::Adversary;
use crate::chance::{Purpose, between, draw};

/// What a node offers: shared by all that offer the same.
pub type Model = (Offered, Arc<CapabilityBody>);

/// What the hosts of a world have in common.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostShape {
    /// Capabilities of each node, drawn from `models` different ones.
    pub capabilities: usize,
    pub models: usize,
    /// Bytes that every model's body has beside its few texts.
    pub body_bytes: usize,
    /// About how often one of a node's loads changes.
    pub load_every_ms: u64,
    /// Others whose address a node knows before it first starts; at most three of them older, as in a join code.
    pub introductions: usize,
    /// The share of nodes that start at the beginning, and within which time of each other.
    pub initial: f64,
    pub start_over_ms: u64,
    /// The share of nodes that nobody can dial, and that of those who can be dialled within one of a few houses alone.
    pub closed: f64,
    pub housed: f64,
    /// Clocks are off by up to this much either way.
    pub skew_ms: u64,
    /// The share of nodes that handle what happens only at every multiple of `slow_ms`.
    pub slow: f64,
    pub slow_ms: u64,
    /// The share of nodes whose network card flips a bit in a share of the frames that come in.
    pub garbling: f64,
    pub garbled: f64,
}

impl Default for HostShape {
    fn default() -> Self {
        Self {
            capabilities: 4,
            models: 36,
            body_bytes: 0,
            load_every_ms: 1_000,
            introductions: 8,
            initial: 1.0,
            start_over_ms: 1_000,
            closed: 0.0,
            housed: 0.0,
            skew_ms: 0,
            slow: 0.0,
            slow_ms: 400,
            garbling: 0.0,
            garbled: 0.01,
        }
    }
}

/// What orders the records of one origin.
pub type Number = (u64, u64);

pub struct Host {
    pub id: NodeId,
    pub number: u32,
    pub chain: Arc<VerifiedChain>,
    pub key: NodeKey,
    pub stored_incarnation: u64,
    /// What it knows to be revoked, on its disk.
    pub revocations: Vec<Arc<Revocation>>,
    /// When it was revoked itself.
    pub revoked_ms: Option<u64>,
    offers: Vec<Model>,
    /// Whom it knows by address: told of before it first started, and the address book on its disk.
    pub introductions: Vec<u32>,
    pub book: Vec<u32>,
    /// `None` while the process does not run.
    pub node: Option<Box<Coordinator>>,
    /// `None` for the honest.
    pub adversary: Option<Box<Adversary>>,
    /// Counts starts.
    pub life: u32,
    /// The earliest wake that is queued.
    pub wake_ms: Option<u64>,
    /// Handles what happens only at multiples of this; 1 for most.
    pub slow_ms: u64,
    /// Wall clock minus true time.
    pub skew_ms: i64,
    /// Share of the frames that come in with a bit flipped.
    pub garbled: f64,
    /// Since when it has run, awake and with nothing between it and the others.
    pub steady_since_ms: u64,
    /// The newest record of its former lives.
    pub newest_before: Option<Number>,
    /// The record it last held of itself when a publication was asked for, which is still to be signed.
    pub unsigned: Option<Number>,
    pub bytes_sent: u64,
    loads_told: u64,
}

impl Host {
    pub fn new(number: u32, key: NodeKey, chain: VerifiedChain, offers: Vec<Model>) -> Self {
        Self {
            id: key.id(),
            number,
            chain: Arc::new(chain),
            key,
            stored_incarnation: 0,
            revocations: Vec::new(),
            revoked_ms: None,
            offers,
            introductions: Vec::new(),
            book: Vec::new(),
            node: None,
            adversary: None,
            life: 0,
            wake_ms: None,
            slow_ms: 1,
            skew_ms: 0,
            garbled: 0.0,
            steady_since_ms: 0,
            newest_before: None,
            unsigned: None,
            bytes_sent: 0,
            loads_told: 0,
        }
    }

    pub fn is_honest(&self) -> bool {
        self.adversary.is_none()
    }

    /// Where others dial this host.
    pub fn address(&self) -> String {
        format!("/sim/{}", self.number)
    }

    /// Starts the process: it knows its key, its disk and its own models.
    pub fn start(&mut self, space: &Arc<EmbeddingSpace>, seed: u64, now: Now) {
        self.life += 1;
        self.wake_ms = None;
        self.unsigned = None;
        self.steady_since_ms = now.mono_ms;
        let mesh = self.mesh_config(draw(seed, Purpose::Life, self.number.into(), self.life.into()));
        let mut node = Coordinator::new(CoordinatorConfig { mesh, space: Arc::clone(space) }, now);
        node.handle(now, Input::Revoke(self.revocations.clone()));
        node.handle(now, Input::Addresses(vec![self.address()]));
        node.handle(now, Input::Offer(self.offers.clone()));
        node.handle(now, Input::Load(self.loads(seed)));
        self.node = Some(Box::new(node));
    }

    /// Goes on as a member of a mesh that formed long ago.
    pub fn restore(
        &mut self,
        space: &Arc<EmbeddingSpace>,
        seed: u64,
        now: Now,
        from: &Snapshot,
        links: Vec<KnownNeighbour>,
        incarnation: u64,
    ) {
        self.life += 1;
        self.steady_since_ms = now.mono_ms;
        self.stored_incarnation = incarnation;
        let mesh = self.mesh_config(draw(seed, Purpose::Life, self.number.into(), self.life.into()));
        let config = CoordinatorConfig { mesh, space: Arc::clone(space) };
        let mut node = Coordinator::restore(config, now, from, self.number as usize, links);
        node.handle(now, Input::Load(self.loads(seed)));
        self.node = Some(Box::new(node));
    }

    pub fn name(&self) -> String {
        format!("node{}", self.number)
    }

    /// What its record says that it offers, in order.
    pub fn offered(&self) -> Vec<Offered> {
        let mut offered: Vec<Offered> = self.offers.iter().map(|(offered, _)| offered.clone()).collect();
        offered.sort_by(|a, b| a.slug.cmp(&b.slug));
        offered
    }

    fn mesh_config(&self, seed: u64) -> MeshConfig {
        MeshConfig {
            key: self.key.clone(),
            mesh: self.chain.member.mesh,
            chain: Arc::clone(&self.chain),
            name: self.name(),
            mode: Mode::Participant,
            labels: Vec::new(),
            stored_incarnation: self.stored_incarnation,
            seed,
        }
    }

    /// How busy its capabilities are the next time it says so: one of them is busier or less busy than before.
    pub fn loads(&mut self, seed: u64) -> Vec<(Slug, Load)> {
        self.loads_told += 1;
        let (told, offers) = (self.loads_told, self.offers.len() as u64);
        let load = |(at, (offered, _)): (usize, &Model)| {
            // Grows for one of them each time.
            let changes = (told + at as u64) / offers;
            let bits = draw(seed, Purpose::Load, u64::from(self.number) << 8 | at as u64, changes);
            let running = between(bits, 0, u64::from(offered.slots)) as u16;
            (offered.slug.clone(), Load { running, waiting: 0, slots: offered.slots, tokens_per_second: 0.0 })
        };
        self.offers.iter().enumerate().map(load).collect()
    }

    /// The record that it holds of itself, while it runs.
    pub fn own_number(&self) -> Option<Number> {
        self.node.as_ref().and_then(|node| held_number(node, &self.id))
    }

    /// Notes in the address book that `peer` can be dialled.
    pub fn remember(&mut self, peer: u32, entries_max: usize) {
        self.book.retain(|other| *other != peer);
        self.book.push(peer);
        if self.book.len() > entries_max {
            self.book.remove(0);
        }
    }
}

/// The number of the record that a node holds of `id`.
pub fn held_number(node: &Coordinator, id: &NodeId) -> Option<Number> {
    node.mesh().origin(id).map(|origin| (origin.record.incarnation, origin.record.sequence))
}

/// The models that the nodes of a world offer between them: most models of a mesh are on several machines.
pub fn models(shape: &HostShape) -> Vec<Model> {
    (0..shape.models).map(|number| model(number, shape.body_bytes)).collect()
}

fn model(number: usize, body_bytes: usize) -> Model {
    let name = format!("model{number}");
    let padding = if body_bytes == 0 { Vec::new() } else { vec![(1, vec![number as u8; body_bytes])] };
    let body = Arc::new(CapabilityBody {
        kind: "llm".to_owned(),
        description: format!("answers questions of kind {number}"),
        name: name.clone(),
        facts: vec![("context".to_owned(), "8192".to_owned()), ("parameters".to_owned(), "8000000000".to_owned())],
        exemplars: Vec::new(),
        vectors: Vec::new(),
        extensions: padding,
    });
    let hash = Body::new(Arc::clone(&body)).expect("a small body is within every limit").hash;
    (Offered { slug: Slug::from_name(&name), body: hash, cost: Cost::default(), slots: 4 }, body)
}
