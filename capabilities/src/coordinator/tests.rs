//! Two coordinators on a perfect wire.

use atmo_protocol::membership::{Roles, issue_from_root};
use atmo_protocol::record::{CapabilityBody, Cost, Load, Offered};
use atmo_protocol::wire::{self, Body, DirectVerifier, VerifiedChain};
use atmo_protocol::{MeshId, NodeKey, Slug};

use super::*;

const START: Now = Now { mono_ms: 1_000, wall_ms: 1_800_000_000_000 };

fn later(ms: u64) -> Now {
    Now { mono_ms: START.mono_ms + ms, wall_ms: START.wall_ms + ms }
}

struct Pair {
    mesh: MeshId,
    nodes: [Coordinator; 2],
    views: usize,
}

fn chain(root: &NodeKey, node: &NodeKey) -> Arc<VerifiedChain> {
    let chain = issue_from_root(root, &node.id(), Roles::ALL, START.wall_ms, 1);
    Arc::new(VerifiedChain::new(&chain, &MeshId::of_root(&root.id())).unwrap())
}

fn space() -> Arc<EmbeddingSpace> {
    EmbeddingSpace::minilm()
}

impl Pair {
    fn linked() -> Self {
        let root = NodeKey::from_seed([9; 32]);
        let mesh = MeshId::of_root(&root.id());
        let keys = [1, 2].map(|n| NodeKey::from_seed([n; 32]));
        let chains = [&keys[0], &keys[1]].map(|key| chain(&root, key));
        let ids = [keys[0].id(), keys[1].id()];
        let mut number = 0;
        let nodes = keys.map(|key| {
            number += 1;
            let chain = Arc::clone(&chains[number - 1]);
            let name = format!("node{number}");
            let (mode, labels) = (Mode::Participant, Vec::new());
            let mesh = MeshConfig { key, mesh, chain, name, mode, labels, stored_incarnation: 0, seed: number as u64 };
            Coordinator::new(CoordinatorConfig { mesh, space: space() }, START)
        });
        let mut pair = Self { mesh, nodes, views: 0 };
        for at in 0..2 {
            let chain = Arc::clone(&chains[1 - at]);
            pair.nodes[at].handle(START, Input::LinkUp { peer: ids[1 - at], chain, rtt_ms: 1 });
        }
        pair
    }

    /// Carries everything to and fro until both are quiet.
    fn run(&mut self, now: Now) {
        let ids = [self.nodes[0].mesh().id(), self.nodes[1].mesh().id()];
        let mut busy = true;
        while busy {
            busy = false;
            for at in 0..2 {
                self.nodes[at].handle_timeout(now);
                while let Some(output) = self.nodes[at].poll_output() {
                    busy = true;
                    match output {
                        Output::Mesh(mesh::Output::PersistIncarnation(n)) => {
                            self.nodes[at].handle(now, Input::IncarnationPersisted(n))
                        }
                        Output::ViewStale => {
                            self.nodes[at].take_view(now);
                            self.views += usize::from(at == 0);
                        }
                        Output::Mesh(_) | Output::Event(_) => {}
                    }
                }
                while let Some(bytes) = self.nodes[at].poll_send(now, ids[1 - at], 1 << 16) {
                    busy = true;
                    let frame = wire::decode(&bytes).unwrap().verify(&DirectVerifier(self.mesh));
                    self.nodes[1 - at].handle(now, Input::Frame { peer: ids[at], frame });
                }
            }
        }
    }
}

fn model(name: &str) -> (Offered, Arc<CapabilityBody>) {
    let body = Arc::new(CapabilityBody {
        kind: "llm".to_owned(),
        name: name.to_owned(),
        description: String::new(),
        facts: Vec::new(),
        exemplars: Vec::new(),
        vectors: Vec::new(),
        extensions: Vec::new(),
    });
    let hash = Body::new(Arc::clone(&body)).unwrap().hash;
    (Offered { slug: Slug::from_name(name), body: hash, cost: Cost::default(), slots: 2 }, body)
}

#[test]
fn what_one_offers_the_other_can_route_to() {
    let mut pair = Pair::linked();
    pair.nodes[1].handle(later(1), Input::Offer(vec![model("small"), model("large")]));
    pair.run(later(300));
    pair.run(later(600));
    let view = pair.nodes[0].view();
    let names: Vec<&str> = view.roster().names().collect();
    assert_eq!(names, ["large", "small"]);
    assert!(view.conditions().iter().all(|condition| condition.hops == 1 && condition.standing == Standing::Alive));
    assert_eq!(pair.nodes[1].view().conditions()[0].hops, 0, "its own are in its view too");
}

#[test]
fn a_change_of_load_keeps_the_roster() {
    let mut pair = Pair::linked();
    pair.nodes[1].handle(later(1), Input::Offer(vec![model("small")]));
    pair.run(later(300));
    pair.run(later(600));
    let before = pair.nodes[0].view();
    let load = Load { running: 2, waiting: 3, slots: 2, tokens_per_second: 9.0 };
    pair.nodes[1].handle(later(700), Input::Load(vec![(Slug::from_name("small"), load)]));
    pair.run(later(700));
    pair.run(later(900));
    let after = pair.nodes[0].view();
    assert_eq!(after.conditions()[0].load, load);
    assert!(Arc::ptr_eq(before.roster(), after.roster()));
}

#[test]
fn views_are_published_at_once_and_then_by_turns() {
    let mut pair = Pair::linked();
    pair.run(later(0));
    let quiet = pair.views;
    for step in 0..100 {
        let load = Load { running: step, ..Load::default() };
        let now = later(1_000 + u64::from(step));
        pair.nodes[0].handle(now, Input::Load(vec![(Slug::from_name("own"), load)]));
        pair.run(now);
        if step == 0 {
            assert_eq!(pair.views, quiet + 1, "the first change after quiet is published at once");
        }
    }
    assert!(pair.views <= quiet + 2, "{} views in 100 ms", pair.views - quiet);
}

#[test]
fn nodes_are_listed_by_distance() {
    let mut pair = Pair::linked();
    pair.run(later(300));
    let nodes = pair.nodes[0].nodes(later(300));
    let seen: Vec<_> = nodes.iter().map(|node| (node.name.as_str(), node.hops, node.standing)).collect();
    assert_eq!(seen, [("node1", Some(0), Standing::Alive), ("node2", Some(1), Standing::Alive)]);
}
