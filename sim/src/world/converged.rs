//! A mesh long after it formed: everyone linked as a random graph, everything known and told, leases at every age.

use std::sync::Arc;

use atmo_protocol::Mode;
use atmo_protocol::config::{LEASE_MS, LEASE_RENEWAL_MS, UNREACHABLE};
use atmo_protocol::distance::THROUGH_YOU;
use atmo_protocol::liveness::short_number;
use atmo_protocol::mesh::{KnownMember, KnownNeighbour, Snapshot};
use atmo_protocol::record::{Announcement, NodeRecord};
use atmo_protocol::wire::Body;
use rand::RngExt;

use super::{LINKED_DEGREE, WALL_MS, World};
use crate::topology::{self, Neighbours, breadth_first};

/// The incarnation that everyone has.
const INCARNATION: u64 = WALL_MS / 1_000;

/// By node: fewest hops to everyone, and the neighbour on the way, by place among its neighbours.
struct Ways {
    hops: Vec<Vec<u8>>,
    parents: Vec<Vec<u8>>,
}

impl World {
    pub(super) fn start_converged(&mut self) {
        let mut neighbours = vec![Vec::new(); self.nodes()];
        for (a, b) in topology::sparse(self.nodes() as u32, LINKED_DEGREE, &mut self.rng) {
            neighbours[a as usize].push(b);
            neighbours[b as usize].push(a);
        }
        let snapshot = self.snapshot(&neighbours);
        let ways = self.ways(&neighbours);
        for node in 0..self.nodes() as u32 {
            let links = self.known_neighbours(node, &neighbours, &ways);
            let (now, seed) = (self.now(node), self.seed);
            self.hosts[node as usize].restore(&self.space, seed, now, &snapshot, links, INCARNATION);
            self.lead_life(node);
        }
        for (a, peers) in neighbours.iter().enumerate() {
            for b in peers.iter().filter(|b| a < **b as usize) {
                let lives = [self.hosts[a].life, self.hosts[*b as usize].life];
                self.network.open(a as u32, *b, lives, 0);
            }
        }
        for node in 0..self.nodes() as u32 {
            self.drain(node);
        }
    }

    fn snapshot(&mut self, neighbours: &Neighbours) -> Snapshot {
        let mut members = Vec::with_capacity(self.nodes());
        for (host, peers) in self.hosts.iter().zip(neighbours) {
            let signed_ago_ms = self.rng.random_range(0..LEASE_RENEWAL_MS);
            let ids = peers.iter().map(|peer| short_number(&self.hosts[*peer as usize].id)).collect();
            let record = NodeRecord {
                mesh: host.chain.member.mesh,
                node: host.id,
                certificate: host.chain.hash(),
                incarnation: INCARNATION,
                sequence: 1,
                lease_until_ms: WALL_MS + LEASE_MS - signed_ago_ms,
                mode: Mode::Participant,
                name: host.name(),
                labels: Vec::new(),
                addresses: vec![host.address()],
                neighbours: ids,
                capabilities: host.offered(),
                extensions: Vec::new(),
            };
            let announcement = Announcement::seal(record, &host.key).expect("a record within every limit");
            members.push(KnownMember { announcement: Arc::new(announcement), chain: Arc::clone(&host.chain) });
        }
        let bodies = crate::host::models(&self.shape).into_iter().filter_map(|(_, body)| Body::new(body).ok().map(Arc::new));
        Snapshot::new(members, bodies.collect())
    }

    /// Fewest hops, and of the neighbours that are nearest the quickest.
    fn ways(&self, neighbours: &Neighbours) -> Ways {
        let hops: Vec<Vec<u8>> = (0..self.nodes() as u32).map(|node| breadth_first(neighbours, node, UNREACHABLE)).collect();
        let parents = neighbours.iter().enumerate().map(|(node, peers)| {
            let mut order: Vec<usize> = (0..peers.len()).collect();
            order.sort_by_key(|at| self.network.latency_ms(node as u32, peers[*at]));
            let nearer = |origin: usize, at: &usize| hops[peers[*at] as usize][origin] < hops[node][origin];
            let parent = |origin: usize| order.iter().copied().find(|at| nearer(origin, at)).map_or(u8::MAX, |at| at as u8);
            (0..self.nodes()).map(parent).collect()
        });
        let parents = parents.collect();
        Ways { hops, parents }
    }

    fn known_neighbours(&self, node: u32, neighbours: &Neighbours, ways: &Ways) -> Vec<KnownNeighbour> {
        let peers = &neighbours[node as usize];
        let known = peers.iter().map(|peer| KnownNeighbour {
            member: *peer as usize,
            rtt_ms: 2 * self.network.latency_ms(node, *peer) as u32,
            heard: ways.said(*peer, node, neighbours),
            told: ways.said(node, *peer, neighbours),
        });
        known.collect()
    }
}

impl Ways {
    /// What `from` has told `to` of everyone.
    fn said(&self, from: u32, to: u32, neighbours: &Neighbours) -> Vec<u8> {
        let (hops, parents) = (&self.hops[from as usize], &self.parents[from as usize]);
        let towards = neighbours[from as usize].iter().position(|peer| *peer == to).map_or(u8::MAX, |at| at as u8);
        let said = |origin: usize| match parents[origin] {
            _ if origin == from as usize || origin == to as usize => UNREACHABLE,
            parent if parent == towards => THROUGH_YOU,
            _ => hops[origin].min(UNREACHABLE),
        };
        (0..hops.len()).map(said).collect()
    }
}
