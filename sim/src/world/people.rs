//! Who is in a world: keys, certificates, models, acquaintances, and what is wrong with some of them.

use std::collections::BTreeSet;

use atmo_protocol::membership::{Roles, issue_from_root};
use atmo_protocol::wire::VerifiedChain;
use atmo_protocol::{MeshId, NodeKey};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;

use super::{WALL_MS, World};
use crate::adversary::{Adversary, Crowd, Kind};
use crate::barriers::Nat;
use crate::host::{Host, HostShape, Model, models};

/// Introducers in a join code.
const INTRODUCERS: usize = 3;
/// Up to this many nodes are taken to find each other by multicast DNS.
const NEARBY_MAX: usize = 17;
/// Houses with an address translation of their own.
const HOUSES: u16 = 4;

pub fn hosts(
    shape: &HostShape,
    neighbours: Option<&[Vec<u32>]>,
    nodes: usize,
    root: &NodeKey,
    rng: &mut ChaCha12Rng,
) -> Vec<Host> {
    let models = models(shape);
    let mut hosts: Vec<Host> = (0..nodes as u32).map(|number| host(number, shape, &models, root, rng)).collect();
    for (number, host) in hosts.iter_mut().enumerate() {
        host.introductions = match neighbours {
            Some(neighbours) => neighbours[number].clone(),
            None => introductions(number, nodes, shape.introductions, rng),
        };
    }
    hosts
}

fn host(number: u32, shape: &HostShape, models: &[Model], root: &NodeKey, rng: &mut ChaCha12Rng) -> Host {
    let key = NodeKey::from_seed(rng.random());
    let chain = issue_from_root(root, &key.id(), Roles::MEMBER, WALL_MS, u64::from(number) + 1);
    let chain = VerifiedChain::new(&chain, &MeshId::of_root(&root.id())).expect("a chain just issued holds");
    let mut offered: BTreeSet<usize> = BTreeSet::new();
    while offered.len() < shape.capabilities.min(models.len()) {
        offered.insert(rng.random_range(0..models.len()));
    }
    Host::new(number, key, chain, offered.into_iter().map(|model| models[model].clone()).collect())
}

/// Whom a node knows of before it starts: in a small world everyone, else a few who were there before and a few at random.
fn introductions(number: usize, nodes: usize, wanted: usize, rng: &mut ChaCha12Rng) -> Vec<u32> {
    if nodes <= NEARBY_MAX {
        return (0..nodes as u32).filter(|other| *other as usize != number).collect();
    }
    let mut known = BTreeSet::new();
    for _ in 0..INTRODUCERS.min(number) {
        known.insert(rng.random_range(0..number) as u32);
    }
    while known.len() < wanted.min(nodes - 1) {
        known.insert(rng.random_range(0..nodes) as u32);
        known.remove(&(number as u32));
    }
    known.into_iter().collect()
}

impl World {
    /// Gives clocks their skew, and some nodes a router, a slow processor or a broken network card. The first node has none of these, so
    /// that somebody can be dialled.
    pub(super) fn equip(&mut self) {
        let shape = self.shape.clone();
        let skew_ms = shape.skew_ms.cast_signed();
        for node in 1..self.hosts.len() {
            let host = &mut self.hosts[node];
            host.skew_ms = self.rng.random_range(-skew_ms..=skew_ms);
            let (router, slow, garbling): (f64, f64, f64) = (self.rng.random(), self.rng.random(), self.rng.random());
            if slow < shape.slow {
                host.slow_ms = shape.slow_ms;
            }
            if garbling < shape.garbling {
                host.garbled = shape.garbled;
                self.blamable[node] = true;
            }
            let nat = match router {
                share if share < shape.closed => Nat::Closed,
                share if share < shape.closed + shape.housed => Nat::House(self.rng.random_range(0..HOUSES)),
                _ => Nat::Open,
            };
            self.network.barriers.set_nat(node as u32, nat);
        }
    }

    /// Makes adversaries of some nodes; never of the first, whom newcomers ask.
    pub(super) fn corrupt(&mut self, crowds: &[Crowd], hostile: f64) {
        let mut candidates: Vec<u32> = (1..self.nodes() as u32).collect();
        candidates.shuffle(&mut self.rng);
        let named = crowds.iter().flat_map(|crowd| {
            let count = ((self.hosts.len() as f64 * crowd.share).round() as usize).max(crowd.least);
            std::iter::repeat_n(crowd.kind, count)
        });
        let mut kinds: Vec<Kind> = named.collect();
        let mixed = (self.nodes() as f64 * hostile).round() as usize;
        kinds.extend(Kind::mixed(mixed, &mut self.rng));
        for (kind, node) in kinds.into_iter().zip(candidates) {
            let host = &mut self.hosts[node as usize];
            host.adversary = Some(Box::new(Adversary::new(kind, host.key.clone())));
            kind.dress(host, &self.root, WALL_MS);
            self.hostile = true;
        }
    }
}
