//! A whole mesh in virtual time. One seed draws everything; the same seed gives the same events in the same order, as one hash proves.

use std::collections::BTreeMap;
use std::sync::Arc;

use atmo_capabilities::coordinator::{Coordinator, Input, Output};
use atmo_capabilities::embed::EmbeddingSpace;
use atmo_protocol::mesh::{self, LinkLoss, Now};
use atmo_protocol::wire::{self, MemoVerifier};
use atmo_protocol::{MeshId, NodeId, NodeKey};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::host::Host;
use crate::network::{Flight, Network, TRANSPORT_TIMEOUT_MS};
use crate::topology::Topology;

/// When the virtual world begins, on the wall.
const WALL_MS: u64 = 1_800_000_000_000;
/// Nodes start within this time of each other.
const START_SPREAD_MS: u64 = 1_000;
/// What a writer takes at once.
const SEND_BUDGET_BYTES: usize = 32 << 10;
/// A host answers a dial to a node that is not there after this long.
const DIAL_REFUSED_MS: u64 = 1_000;

/// Something that will happen.
#[derive(Debug)]
enum Event {
    Start { node: usize },
    Wake { node: usize },
    Arrive(Flight),
    Connected { from: usize, to: usize },
    DialFailed { node: usize, target: NodeId },
    LinkDown { node: usize, peer: usize, connection: u64, cause: LinkLoss },
}

pub struct World {
    pub hosts: Vec<Host>,
    pub network: Network,
    numbers: BTreeMap<NodeId, usize>,
    verifier: MemoVerifier,
    space: Arc<EmbeddingSpace>,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    /// For each host, the earliest wake that is queued.
    wakes: Vec<Option<u64>>,
    now_ms: u64,
    rng: ChaCha12Rng,
    trace: blake3::Hasher,
    pub warnings: Vec<String>,
}

impl World {
    /// Nodes that know the addresses of those they can reach, and start one after another.
    pub fn new(topology: Topology, nodes: usize, seed: u64) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let root = NodeKey::from_seed(rng.random());
        let hosts: Vec<Host> = (0..nodes).map(|number| Host::new(number, &root, WALL_MS, &mut rng)).collect();
        let network = Network::new(topology.edges(nodes, &mut rng), &mut rng);
        let mut world = Self {
            numbers: hosts.iter().map(|host| (host.id, host.number)).collect(),
            verifier: MemoVerifier::new(MeshId::of_root(&root.id())),
            space: EmbeddingSpace::minilm(),
            queue: BTreeMap::new(),
            queued: 0,
            wakes: vec![None; nodes],
            now_ms: 0,
            trace: blake3::Hasher::new(),
            warnings: Vec::new(),
            hosts,
            network,
            rng,
        };
        for node in 0..nodes {
            let at_ms = world.rng.random_range(0..START_SPREAD_MS);
            world.at(at_ms, Event::Start { node });
        }
        world
    }

    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, wall_ms: WALL_MS + self.now_ms }
    }

    /// Stands for everything that happened so far, in order.
    pub fn trace(&self) -> String {
        self.trace.finalize().to_hex().to_string()
    }

    pub fn random_node(&mut self) -> usize {
        self.rng.random_range(0..self.hosts.len())
    }

    /// One of the connections that could be, at random.
    pub fn random_edge(&mut self) -> Option<(usize, usize)> {
        let edges = self.network.edges().len();
        let at = (edges > 0).then(|| self.rng.random_range(0..edges))?;
        self.network.edges().iter().nth(at).copied()
    }

    pub fn run_for(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > until_ms {
                break;
            }
            let ((at_ms, _), event) = entry.remove_entry();
            self.now_ms = at_ms;
            self.happen(event);
        }
        self.now_ms = until_ms;
    }

    /// Ends the process as `kill -9` does: no word to anybody; transports time out much later.
    pub fn kill(&mut self, node: usize) {
        self.hosts[node].node = None;
        self.wakes[node] = None;
        for peer in self.network.peers(node) {
            if let Some(connection) = self.network.connection(node, peer) {
                let event = Event::LinkDown { node: peer, peer: node, connection, cause: LinkLoss::Lost };
                self.at(self.now_ms + TRANSPORT_TIMEOUT_MS, event);
            }
        }
    }

    pub fn restart(&mut self, node: usize) {
        for peer in self.network.peers(node) {
            self.close(node, peer);
        }
        self.at(self.now_ms, Event::Start { node });
    }

    pub fn cut(&mut self, a: usize, b: usize) {
        self.network.cut(a, b);
    }

    pub fn heal(&mut self, a: usize, b: usize) {
        for (at_ms, flight) in self.network.heal(a, b, self.now_ms) {
            self.at(at_ms, Event::Arrive(flight));
        }
    }

    pub fn is_running(&self, node: usize) -> bool {
        self.hosts[node].node.is_some()
    }

    /// Connections between running nodes that can carry something.
    pub fn live_edges(&self) -> impl Iterator<Item = (usize, usize)> {
        self.network.carrying().filter(|(a, b)| self.is_running(*a) && self.is_running(*b))
    }

    /// Pairs of running nodes that could be connected.
    pub fn possible_edges(&self) -> impl Iterator<Item = (usize, usize)> {
        let edges = self.network.edges().iter().copied();
        edges.filter(|(a, b)| self.is_running(*a) && self.is_running(*b) && self.network.joins(*a, *b))
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((at_ms, self.queued), event);
    }

    fn happen(&mut self, event: Event) {
        self.trace.update(&self.now_ms.to_le_bytes());
        match event {
            Event::Start { node } => self.start(node),
            Event::Wake { node } => self.wake(node),
            Event::Arrive(flight) => self.arrive(flight),
            Event::Connected { from, to } => self.connected(from, to),
            Event::DialFailed { node, target } => self.tell(node, Input::DialFailed { node: target }),
            Event::LinkDown { node, peer, connection, cause } => self.link_down(node, peer, connection, cause),
        }
    }

    fn start(&mut self, node: usize) {
        let (now, seed) = (self.now(), self.rng.random());
        self.hosts[node].start(&self.space, seed, now);
        let reachable = self.network.edges().iter().filter_map(|(a, b)| match node {
            _ if *a == node => Some(*b),
            _ if *b == node => Some(*a),
            _ => None,
        });
        let found: Vec<(NodeId, String)> = reachable.map(|peer| (self.hosts[peer].id, self.hosts[peer].address())).collect();
        for (peer, address) in found {
            self.tell(node, Input::Found { node: peer, addresses: vec![address] });
        }
        self.drain(node);
    }

    fn wake(&mut self, node: usize) {
        if self.wakes[node].is_some_and(|at_ms| at_ms <= self.now_ms) {
            self.wakes[node] = None;
            let now = self.now();
            self.with(node, |coordinator| coordinator.handle_timeout(now));
        }
    }

    fn tell(&mut self, node: usize, input: Input) {
        let now = self.now();
        self.with(node, |coordinator| coordinator.handle(now, input));
    }

    fn with(&mut self, node: usize, act: impl FnOnce(&mut Coordinator)) {
        if let Some(coordinator) = &mut self.hosts[node].node {
            act(coordinator);
            self.drain(node);
        }
    }

    /// Has the effects that a node asks for, and sees to it that it is woken.
    fn drain(&mut self, node: usize) {
        while let Some(output) = self.hosts[node].node.as_mut().and_then(Coordinator::poll_output) {
            match output {
                Output::Mesh(effect) => self.carry_out(node, effect),
                Output::Event(event) => self.note(node, &event),
                Output::ViewStale => {
                    let now = self.now();
                    self.hosts[node].node.as_mut().map(|coordinator| coordinator.take_view(now));
                }
            }
        }
        let Some(at_ms) = self.hosts[node].node.as_ref().and_then(Coordinator::poll_timeout) else { return };
        if self.wakes[node].is_none_or(|queued| at_ms < queued) {
            self.wakes[node] = Some(at_ms.max(self.now_ms));
            self.at(at_ms.max(self.now_ms), Event::Wake { node });
        }
    }

    /// No honest world blames anybody.
    fn note(&mut self, node: usize, event: &mesh::Event) {
        let unexpected = matches!(
            event,
            mesh::Event::Blamed { .. }
                | mesh::Event::SecondHolderOfKey
                | mesh::Event::ClockDoubt { .. }
                | mesh::Event::TableFull { .. }
        );
        if unexpected {
            self.warnings.push(format!("node {node} at {} ms: {event:?}", self.now_ms));
        }
    }

    fn carry_out(&mut self, node: usize, effect: mesh::Output) {
        match effect {
            mesh::Output::Dial { node: target, .. } => self.dial(node, target),
            mesh::Output::Close { peer, .. } => {
                if let Some(peer) = self.numbers.get(&peer).copied() {
                    self.close(node, peer);
                }
            }
            mesh::Output::PersistIncarnation(incarnation) => {
                self.hosts[node].persist(incarnation);
                self.tell(node, Input::IncarnationPersisted(incarnation));
            }
            mesh::Output::WantsSend { peer } => self.pull(node, peer),
            mesh::Output::Remember { .. } | mesh::Output::Revocations(_) | mesh::Output::Event(_) => {}
        }
    }

    fn dial(&mut self, from: usize, target: NodeId) {
        let Some(to) = self.numbers.get(&target).copied() else { return };
        if self.network.joins(from, to) && self.is_running(to) {
            let round_trips_ms = 4 * self.network.latency_ms(from, to);
            self.at(self.now_ms + round_trips_ms, Event::Connected { from, to });
        } else {
            self.at(self.now_ms + DIAL_REFUSED_MS, Event::DialFailed { node: from, target });
        }
    }

    fn connected(&mut self, from: usize, to: usize) {
        let possible = self.is_running(from) && self.is_running(to) && self.network.joins(from, to);
        if !possible {
            let target = self.hosts[to].id;
            self.tell(from, Input::DialFailed { node: target });
            return;
        }
        if self.network.open(from, to, self.now_ms).is_none() {
            return;
        }
        let rtt_ms = 2 * self.network.latency_ms(from, to) as u32;
        for (node, peer) in [(from, to), (to, from)] {
            let (peer, chain) = (self.hosts[peer].id, Arc::clone(&self.hosts[peer].chain));
            self.tell(node, Input::LinkUp { peer, chain, rtt_ms });
        }
    }

    /// Closed by `node`: it knows at once, the peer when word arrives.
    fn close(&mut self, node: usize, peer: usize) {
        let Some(connection) = self.network.connection(node, peer) else { return };
        let cut = self.network.is_cut(node, peer);
        self.network.close(node, peer);
        let id = self.hosts[peer].id;
        self.tell(node, Input::LinkDown { peer: id, cause: LinkLoss::Closed });
        let (delay_ms, cause) =
            if cut { (TRANSPORT_TIMEOUT_MS, LinkLoss::Lost) } else { (self.network.latency_ms(node, peer), LinkLoss::Closed) };
        self.at(self.now_ms + delay_ms, Event::LinkDown { node: peer, peer: node, connection, cause });
    }

    fn link_down(&mut self, node: usize, peer: usize, connection: u64, cause: LinkLoss) {
        match self.network.connection(node, peer) {
            Some(current) if current != connection => return,
            Some(_) => _ = self.network.close(node, peer),
            None => {}
        }
        let peer = self.hosts[peer].id;
        self.tell(node, Input::LinkDown { peer, cause });
    }

    fn pull(&mut self, node: usize, peer: NodeId) {
        let Some(to) = self.numbers.get(&peer).copied() else { return };
        let now = self.now();
        while let Some(bytes) = self.hosts[node].node.as_mut().and_then(|node| node.poll_send(now, peer, SEND_BUDGET_BYTES)) {
            if let Some((at_ms, flight)) = self.network.send(node, to, bytes, self.now_ms, &mut self.rng) {
                self.at(at_ms, Event::Arrive(flight));
            }
        }
    }

    fn arrive(&mut self, flight: Flight) {
        if self.network.connection(flight.from, flight.to) != Some(flight.connection) {
            return;
        }
        self.trace.update(&[flight.from as u8, flight.to as u8]).update(&flight.bytes);
        let peer = self.hosts[flight.from].id;
        let input = match wire::decode(&flight.bytes) {
            Ok(frame) => Input::Frame { peer, frame: frame.verify(&self.verifier) },
            Err(error) => Input::BadFrame { peer, error },
        };
        self.tell(flight.to, input);
    }
}
