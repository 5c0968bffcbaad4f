//! One virtual machine: a key, a disk with one number on it, and, while it runs, the node's own [`Coordinator`].

use std::sync::Arc;

use atmo_capabilities::coordinator::{Coordinator, CoordinatorConfig, Input};
use atmo_capabilities::embed::EmbeddingSpace;
use atmo_protocol::membership::{Roles, issue_from_root};
use atmo_protocol::mesh::{MeshConfig, Now};
use atmo_protocol::record::{CapabilityBody, Cost, Load, Offered};
use atmo_protocol::wire::{Body, VerifiedChain};
use atmo_protocol::{MeshId, Mode, NodeId, NodeKey, Slug};
use rand::RngExt;
use rand_chacha::ChaCha12Rng;

/// Different bodies that the nodes of a world offer between them: most models of a mesh are on several machines.
const MODELS: usize = 6;

pub struct Host {
    pub id: NodeId,
    pub number: usize,
    pub chain: Arc<VerifiedChain>,
    key: NodeKey,
    stored_incarnation: u64,
    offers: Vec<(Offered, Arc<CapabilityBody>)>,
    /// `None` while the process does not run.
    pub node: Option<Coordinator>,
}

impl Host {
    pub fn new(number: usize, root: &NodeKey, wall_ms: u64, rng: &mut ChaCha12Rng) -> Self {
        let key = NodeKey::from_seed(rng.random());
        let chain = issue_from_root(root, &key.id(), Roles::MEMBER, wall_ms, number as u64 + 1);
        let chain = VerifiedChain::new(&chain, &MeshId::of_root(&root.id())).expect("a chain just issued holds");
        let offers = (0..rng.random_range(1..=4)).map(|_| model(rng.random_range(0..MODELS))).collect();
        Self { id: key.id(), number, chain: Arc::new(chain), key, stored_incarnation: 0, offers, node: None }
    }

    /// Where others dial this host.
    pub fn address(&self) -> String {
        format!("/sim/{}", self.number)
    }

    /// Starts the process: it knows its key, its disk and its own models.
    pub fn start(&mut self, space: &Arc<EmbeddingSpace>, seed: u64, now: Now) {
        let mesh = MeshConfig {
            key: self.key.clone(),
            mesh: self.chain.member.mesh,
            chain: Arc::clone(&self.chain),
            name: format!("node{}", self.number),
            mode: Mode::Participant,
            labels: Vec::new(),
            stored_incarnation: self.stored_incarnation,
            seed,
        };
        let mut node = Coordinator::new(CoordinatorConfig { mesh, space: Arc::clone(space) }, now);
        node.handle(now, Input::Addresses(vec![self.address()]));
        node.handle(now, Input::Offer(self.offers.clone()));
        let idle = |(offered, _): &(Offered, _)| (offered.slug.clone(), Load { slots: offered.slots, ..Load::default() });
        node.handle(now, Input::Load(self.offers.iter().map(idle).collect()));
        self.node = Some(node);
    }

    pub fn persist(&mut self, incarnation: u64) {
        self.stored_incarnation = incarnation;
    }

    pub fn offers(&self) -> usize {
        let mut slugs: Vec<&Slug> = self.offers.iter().map(|(offered, _)| &offered.slug).collect();
        slugs.sort();
        slugs.dedup();
        slugs.len()
    }
}

fn model(number: usize) -> (Offered, Arc<CapabilityBody>) {
    let name = format!("model{number}");
    let body = Arc::new(CapabilityBody {
        kind: "llm".to_owned(),
        description: format!("answers questions of kind {number}"),
        name: name.clone(),
        facts: Vec::new(),
        exemplars: Vec::new(),
        vectors: Vec::new(),
        extensions: Vec::new(),
    });
    let hash = Body::new(Arc::clone(&body)).expect("a small body is within every limit").hash;
    (Offered { slug: Slug::from_name(&name), body: hash, cost: Cost::default(), slots: 1 }, body)
}
