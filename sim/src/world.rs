//! A whole mesh in virtual time. One seed draws everything; the same seed gives the same events in the same order, as one number proves.
//!
//! What is simulated is the outside: clocks, connections, disks. All decisions are those of the nodes' own
//! [`Coordinator`](atmo_capabilities::coordinator::Coordinator)s.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use atmo_capabilities::coordinator::Input;
use atmo_capabilities::embed::EmbeddingSpace;
use atmo_protocol::mesh::{LinkLoss, Now};
use atmo_protocol::{MeshId, NodeId, NodeKey};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

mod act;
mod connections;
mod converged;
mod effects;
mod frames;
mod people;

use crate::action::Action;
use crate::adversary::Ring;
use crate::chance::{Purpose, between, draw};
use crate::host::{Host, HostShape};
use crate::log::Log;
use crate::meter::Meter;
use crate::network::{ConnectionId, Flight, Network};
use crate::numbers::Numbers;
use crate::queue::Calendar;
use crate::scenario::{Scenario, Start};
use crate::topology::{self, Neighbours};
use crate::verifier::WorldVerifier;

/// When the virtual world begins, on the wall.
pub const WALL_MS: u64 = 1_800_000_000_000;
/// How often an adversary acts of its own accord.
const ATTACK_EVERY_MS: u64 = 200;
/// Links of each node where all are linked from the beginning.
const LINKED_DEGREE: u32 = 8;

/// Something that will happen.
#[derive(Debug)]
enum Event {
    Start {
        node: u32,
    },
    Wake {
        node: u32,
    },
    Arrive(Flight),
    Pull {
        node: u32,
        peer: u32,
    },
    Connected {
        from: u32,
        to: u32,
        lives: [u32; 2],
    },
    DialFailed {
        node: u32,
        target: u32,
        life: u32,
    },
    LinkDown {
        node: u32,
        peer: u32,
        connection: ConnectionId,
        life: u32,
        cause: LinkLoss,
    },
    /// A transport has heard nothing from `from` for too long.
    TimeOut {
        connection: ConnectionId,
        from: u32,
    },
    Load {
        node: u32,
        life: u32,
    },
    Attack {
        node: u32,
        life: u32,
    },
    Awake {
        node: u32,
    },
    /// A slow machine gets round to what happened since it last did.
    CatchUp {
        node: u32,
    },
    Act(Box<Action>),
}

pub struct World {
    pub hosts: Vec<Host>,
    pub network: Network,
    pub meter: Meter,
    pub log: Log,
    pub rng: ChaCha12Rng,
    /// Who could connect to whom; `None` for everyone to everyone.
    pub neighbours: Option<Neighbours>,
    /// Names of the honest that may be blamed, because their machines garble what they hear or their records change too fast.
    pub blamable: Vec<bool>,
    /// When something was last done to it from outside, starts included and publications aside.
    pub changed_ms: u64,
    /// Whether clocks are set so that nodes doubt them.
    pub clocks_jump: bool,
    numbers: Numbers,
    verifier: WorldVerifier,
    space: Arc<EmbeddingSpace>,
    shape: HostShape,
    ring: Ring,
    hostile: bool,
    root: NodeKey,
    queue: Calendar<Event>,
    /// What waits for a slow machine, in order: later frames do not overtake earlier ones.
    late: BTreeMap<u32, VecDeque<Event>>,
    /// What waits for a sleeping machine.
    postponed: Vec<(u32, Event)>,
    seed: u64,
}

impl World {
    /// Nodes that know the addresses of a few others. Those that are there from the beginning start one after another.
    pub fn new(scenario: &Scenario, nodes: usize, seed: u64, lines_max: usize) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let root = NodeKey::from_seed(rng.random());
        let neighbours = scenario.topology.neighbours(nodes, &mut rng);
        let hosts = people::hosts(&scenario.hosts, neighbours.as_deref(), nodes, &root, &mut rng);
        let mut world = Self {
            network: Network::new(scenario.links, nodes, seed),
            meter: Meter::default(),
            log: Log::new(lines_max),
            blamable: vec![false; nodes],
            changed_ms: 0,
            clocks_jump: false,
            numbers: hosts.iter().map(|host| (host.id, host.number)).collect(),
            verifier: WorldVerifier::new(MeshId::of_root(&root.id()), nodes),
            space: EmbeddingSpace::minilm(),
            shape: scenario.hosts.clone(),
            ring: Ring::default(),
            hostile: false,
            root,
            queue: Calendar::new(),
            late: BTreeMap::new(),
            postponed: Vec::new(),
            neighbours,
            hosts,
            rng,
            seed,
        };
        world.equip();
        world.corrupt(&scenario.adversaries, scenario.hostile);
        match scenario.start {
            Start::Formed => world.start_apart(),
            Start::Linked => world.start_linked(),
            Start::Converged => world.start_converged(),
        }
        world
    }

    /// One after the other, each on its own.
    fn start_apart(&mut self) {
        let initial = ((self.nodes() as f64 * self.shape.initial).round() as usize).clamp(1, self.nodes());
        for node in 0..initial as u32 {
            let at_ms = self.rng.random_range(0..=self.shape.start_over_ms);
            self.queue.add(at_ms, Event::Start { node });
        }
    }

    /// All at once, and linked. Every way into a running mesh but this one leads through dials.
    fn start_linked(&mut self) {
        let links = topology::sparse(self.nodes() as u32, LINKED_DEGREE, &mut self.rng);
        (0..self.nodes() as u32).for_each(|node| self.start(node));
        for (a, b) in links {
            let lives = [self.hosts[a as usize].life, self.hosts[b as usize].life];
            self.connected(a, b, lives);
        }
    }

    pub fn now_ms(&self) -> u64 {
        self.queue.now_ms()
    }

    /// One moment, as a node's own clocks show it.
    pub fn now(&self, node: u32) -> Now {
        let mono_ms = self.now_ms();
        Now { mono_ms, wall_ms: (WALL_MS + mono_ms).saturating_add_signed(self.hosts[node as usize].skew_ms) }
    }

    pub fn nodes(&self) -> usize {
        self.hosts.len()
    }

    pub fn number_of(&self, id: &NodeId) -> Option<u32> {
        self.numbers.get(id)
    }

    pub fn mesh_of(&self, node: u32) -> Option<&atmo_protocol::mesh::Mesh> {
        self.hosts[node as usize].node.as_ref().map(|node| node.mesh())
    }

    pub fn is_running(&self, node: u32) -> bool {
        self.hosts[node as usize].node.is_some()
    }

    /// Runs, awake, and plays by the rules.
    pub fn is_well(&self, node: u32) -> bool {
        let host = &self.hosts[node as usize];
        self.is_running(node) && host.is_honest() && host.revoked_ms.is_none() && !self.network.barriers.is_asleep(node)
    }

    /// Those who are well.
    pub fn well(&self) -> Vec<u32> {
        (0..self.nodes() as u32).filter(|node| self.is_well(*node)).collect()
    }

    /// Whether there are adversaries.
    pub fn is_hostile(&self) -> bool {
        self.hostile
    }

    /// Whether nodes may hear of nodes that do not exist, from liars or through broken network cards.
    pub fn hears_inventions(&self) -> bool {
        self.hostile || self.hosts.iter().any(|host| host.garbled > 0.0)
    }

    /// Whether two nodes that run could be connected, whoever dials.
    pub fn could_connect(&self, a: u32, b: u32) -> bool {
        self.is_running(a) && self.is_running(b) && (self.may_dial(a, b) || self.may_dial(b, a))
    }

    /// Records that a correct world would not contain.
    pub fn violate(&mut self, what: String) {
        let now_ms = self.now_ms();
        self.log.violate(now_ms, what);
    }

    /// Lets something be done later.
    pub fn schedule(&mut self, at_ms: u64, action: Action) {
        self.queue.add(at_ms, Event::Act(Box::new(action)));
    }

    pub fn run_for(&mut self, ms: u64) {
        let until_ms = self.now_ms() + ms;
        while let Some(event) = self.queue.next(until_ms) {
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some(event) = self.postpone(event) {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        self.trace(&event);
        match event {
            Event::Start { node } => self.start(node),
            Event::Wake { node } => self.wake(node),
            Event::Arrive(flight) => self.arrive(flight),
            Event::Pull { node, peer } => self.pull(node, peer),
            Event::Connected { from, to, lives } => self.connected(from, to, lives),
            Event::DialFailed { node, target, life } if self.lives(node) == Some(life) => self.dial_failed(node, target),
            Event::LinkDown { node, peer, connection, life, cause } if self.lives(node) == Some(life) => {
                self.link_down(node, peer, connection, cause);
            }
            Event::TimeOut { connection, from } => self.time_out(connection, from),
            Event::Load { node, life } if self.lives(node) == Some(life) => self.change_load(node),
            Event::Attack { node, life } if self.lives(node) == Some(life) => self.attack(node),
            Event::Awake { node } => self.awake(node),
            Event::CatchUp { node } => self.catch_up(node),
            Event::Act(action) => self.act(&action),
            // Meant for an earlier life.
            Event::DialFailed { .. } | Event::LinkDown { .. } | Event::Load { .. } | Event::Attack { .. } => {}
        }
    }

    /// Which life of a node runs.
    fn lives(&self, node: u32) -> Option<u32> {
        self.is_running(node).then(|| self.hosts[node as usize].life)
    }

    /// Who handles an event, if it is somebody's.
    fn handler(event: &Event) -> Option<u32> {
        match event {
            Event::Wake { node } | Event::Load { node, .. } | Event::Attack { node, .. } | Event::Pull { node, .. } => {
                Some(*node)
            }
            Event::DialFailed { node, .. } | Event::LinkDown { node, .. } => Some(*node),
            Event::Arrive(flight) => Some(flight.to),
            Event::Connected { from, .. } => Some(*from),
            Event::Start { .. } | Event::TimeOut { .. } | Event::Awake { .. } | Event::CatchUp { .. } | Event::Act(_) => None,
        }
    }

    /// Puts off what a sleeping machine cannot handle and what a slow one handles later; gives back what happens now.
    fn postpone(&mut self, event: Event) -> Option<Event> {
        let Some(node) = Self::handler(&event) else { return Some(event) };
        if self.network.barriers.is_asleep(node) {
            self.postponed.push((node, event));
            return None;
        }
        let (slow_ms, now_ms) = (self.hosts[node as usize].slow_ms, self.now_ms());
        if slow_ms == 1 {
            return Some(event);
        }
        let late = self.late.entry(node).or_default();
        if late.is_empty() {
            self.queue.add(now_ms.next_multiple_of(slow_ms), Event::CatchUp { node });
        }
        late.push_back(event);
        None
    }

    fn catch_up(&mut self, node: u32) {
        for event in self.late.remove(&node).unwrap_or_default() {
            self.handle(event);
        }
    }

    fn trace(&mut self, event: &Event) {
        let (what, bytes): (u64, &[u8]) = match event {
            Event::Start { node } => (1 << 40 | u64::from(*node), &[]),
            Event::Wake { node } => (2 << 40 | u64::from(*node), &[]),
            Event::Arrive(flight) => (3 << 40 | u64::from(flight.from) << 20 | u64::from(flight.to), &flight.bytes),
            Event::Pull { node, peer } => (4 << 40 | u64::from(*node) << 20 | u64::from(*peer), &[]),
            Event::Connected { from, to, .. } => (5 << 40 | u64::from(*from) << 20 | u64::from(*to), &[]),
            Event::DialFailed { node, target, .. } => (6 << 40 | u64::from(*node) << 20 | u64::from(*target), &[]),
            Event::LinkDown { node, peer, .. } => (7 << 40 | u64::from(*node) << 20 | u64::from(*peer), &[]),
            Event::TimeOut { from, .. } => (8 << 40 | u64::from(*from), &[]),
            Event::Load { node, .. } => (9 << 40 | u64::from(*node), &[]),
            Event::Attack { node, .. } => (10 << 40 | u64::from(*node), &[]),
            Event::Awake { node } => (11 << 40 | u64::from(*node), &[]),
            Event::CatchUp { node } => (13 << 40 | u64::from(*node), &[]),
            Event::Act(_) => (12 << 40, &[]),
        };
        let now_ms = self.now_ms();
        self.log.count(now_ms, what, bytes);
    }

    fn start(&mut self, node: u32) {
        if self.is_running(node) {
            return;
        }
        self.forget_connections(node);
        let (now, now_ms, seed) = (self.now(node), self.now_ms(), self.seed);
        let host = &mut self.hosts[node as usize];
        host.start(&self.space, seed, now);
        let life = host.life;
        let known: Vec<u32> = host.introductions.iter().chain(&host.book).copied().collect();
        self.changed_ms = now_ms;
        self.log.note(now_ms, || format!("node {node} starts its life {life}"));
        for peer in known {
            let peer = &self.hosts[peer as usize];
            let found = Input::Found { node: peer.id, addresses: vec![peer.address()] };
            self.tell(node, found);
        }
        self.drain(node);
        self.lead_life(node);
    }

    /// What a node does of its own accord from now on.
    fn lead_life(&mut self, node: u32) {
        let (now_ms, seed, life) = (self.now_ms(), self.seed, self.hosts[node as usize].life);
        let bits = draw(seed, Purpose::Load, u64::from(node), u64::from(life) << 32);
        self.queue.add(now_ms + between(bits, 0, self.shape.load_every_ms), Event::Load { node, life });
        if !self.hosts[node as usize].is_honest() {
            self.queue.add(now_ms + between(bits, 0, ATTACK_EVERY_MS), Event::Attack { node, life });
        }
    }

    fn change_load(&mut self, node: u32) {
        let (seed, every_ms, now_ms) = (self.seed, self.shape.load_every_ms, self.now_ms());
        let host = &mut self.hosts[node as usize];
        let (loads, life) = (host.loads(seed), host.life);
        self.tell(node, Input::Load(loads));
        let bits = draw(seed, Purpose::Load, node.into(), now_ms | 1 << 63);
        self.queue.add(now_ms + between(bits, every_ms / 2, every_ms * 3 / 2), Event::Load { node, life });
    }

    fn wake(&mut self, node: u32) {
        let (now, now_ms) = (self.now(node), self.now_ms());
        let host = &mut self.hosts[node as usize];
        if host.wake_ms.is_none_or(|at_ms| at_ms > now_ms) {
            return;
        }
        host.wake_ms = None;
        let Some(coordinator) = &mut host.node else { return };
        if coordinator.poll_timeout().is_some_and(|at_ms| at_ms <= now_ms) {
            coordinator.handle_timeout(now);
        }
        self.drain(node);
    }

    fn tell(&mut self, node: u32, input: Input) {
        let now = self.now(node);
        if let Some(coordinator) = &mut self.hosts[node as usize].node {
            coordinator.handle(now, input);
            self.drain(node);
        }
    }
}
