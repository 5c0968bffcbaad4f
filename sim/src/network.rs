//! Virtual links: ordered and reliable, as the streams of a real connection are, with latency and jitter.
//!
//! A cut link does not lose what was said, it holds it back, as a connection does that retransmits; whoever waits too long gives up on it.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use crate::topology::{Edges, edge};

/// One-way delay of a link, drawn once per link: what a home to a continent takes.
const LATENCY_MS: std::ops::RangeInclusive<u64> = 10..=50;
/// Added to each frame anew.
const JITTER_MS: std::ops::RangeInclusive<u64> = 0..=5;
/// A transport notices after this long that the other side is gone: the idle time-out of a QUIC connection.
pub const TRANSPORT_TIMEOUT_MS: u64 = 10_000;

/// A connection between two nodes.
#[derive(Debug)]
struct Connection {
    /// Tells this connection from an earlier one between the same nodes.
    number: u64,
    /// Earliest delivery of the next frame, for each direction.
    next_ms: [u64; 2],
    held: Vec<Flight>,
}

/// A frame under way.
#[derive(Clone, Debug)]
pub struct Flight {
    pub from: usize,
    pub to: usize,
    pub connection: u64,
    pub bytes: Vec<u8>,
}

/// All connections, and what is possible between nodes.
#[derive(Debug)]
pub struct Network {
    edges: Edges,
    latency_ms: BTreeMap<(usize, usize), u64>,
    cut: BTreeSet<(usize, usize)>,
    connections: BTreeMap<(usize, usize), Connection>,
    opened: u64,
    pub frames: u64,
    pub bytes: u64,
}

impl Network {
    pub fn new(edges: Edges, rng: &mut ChaCha12Rng) -> Self {
        let latency_ms = edges.iter().map(|edge| (*edge, rng.random_range(LATENCY_MS))).collect();
        Self { edges, latency_ms, cut: BTreeSet::new(), connections: BTreeMap::new(), opened: 0, frames: 0, bytes: 0 }
    }

    pub fn edges(&self) -> &Edges {
        &self.edges
    }

    /// Whether a dial from `a` to `b` can succeed at the moment.
    pub fn joins(&self, a: usize, b: usize) -> bool {
        self.edges.contains(&edge(a, b)) && !self.cut.contains(&edge(a, b))
    }

    pub fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&edge(a, b))
    }

    pub fn latency_ms(&self, a: usize, b: usize) -> u64 {
        self.latency_ms.get(&edge(a, b)).copied().unwrap_or(*LATENCY_MS.end())
    }

    /// The number of the connection between two nodes, if there is one.
    pub fn connection(&self, a: usize, b: usize) -> Option<u64> {
        self.connections.get(&edge(a, b)).map(|connection| connection.number)
    }

    /// Connects two nodes; `None` if they are connected already.
    pub fn open(&mut self, a: usize, b: usize, now_ms: u64) -> Option<u64> {
        if self.connections.contains_key(&edge(a, b)) {
            return None;
        }
        self.opened += 1;
        let connection = Connection { number: self.opened, next_ms: [now_ms; 2], held: Vec::new() };
        self.connections.insert(edge(a, b), connection);
        Some(self.opened)
    }

    pub fn close(&mut self, a: usize, b: usize) -> bool {
        self.connections.remove(&edge(a, b)).is_some()
    }

    /// Connections that can carry something at the moment.
    pub fn carrying(&self) -> impl Iterator<Item = (usize, usize)> {
        self.connections.keys().copied().filter(|edge| !self.cut.contains(edge))
    }

    /// Peers that `node` is connected to.
    pub fn peers(&self, node: usize) -> Vec<usize> {
        let other = |edge: &(usize, usize)| if edge.0 == node { Some(edge.1) } else { (edge.1 == node).then_some(edge.0) };
        self.connections.keys().filter_map(other).collect()
    }

    /// Sends a frame: when it arrives, unless it is held back by a cut.
    pub fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>, now_ms: u64, rng: &mut ChaCha12Rng) -> Option<(u64, Flight)> {
        let delay_ms = self.latency_ms(from, to) + rng.random_range(JITTER_MS);
        let cut = self.is_cut(from, to);
        let connection = self.connections.get_mut(&edge(from, to))?;
        self.frames += 1;
        self.bytes += bytes.len() as u64;
        let flight = Flight { from, to, connection: connection.number, bytes };
        if cut {
            connection.held.push(flight);
            return None;
        }
        Some((connection.arrival(from > to, now_ms + delay_ms), flight))
    }

    pub fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert(edge(a, b));
    }

    /// Ends a cut; what was held back arrives now.
    pub fn heal(&mut self, a: usize, b: usize, now_ms: u64) -> Vec<(u64, Flight)> {
        self.cut.remove(&edge(a, b));
        let delay_ms = self.latency_ms(a, b);
        let Some(connection) = self.connections.get_mut(&edge(a, b)) else { return Vec::new() };
        let held = std::mem::take(&mut connection.held);
        held.into_iter().map(|flight| (connection.arrival(flight.from > flight.to, now_ms + delay_ms), flight)).collect()
    }
}

impl Connection {
    /// Never before what was sent earlier in the same direction.
    fn arrival(&mut self, backwards: bool, at_ms: u64) -> u64 {
        let next_ms = &mut self.next_ms[usize::from(backwards)];
        *next_ms = at_ms.max(*next_ms);
        *next_ms
    }
}
