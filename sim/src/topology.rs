//! Who could connect to whom, and distances over what is connected.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;
use serde::Deserialize;

/// A shape of the underlying network. A dial between nodes that it does not join fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    #[default]
    Full,
    Line,
    Ring,
    /// A random tree with half as many extra edges as nodes.
    Random,
}

/// For each node those it is joined to.
pub type Neighbours = Vec<Vec<u32>>;

/// No way.
pub const FAR: u8 = u8::MAX;

impl Topology {
    /// `None` where everyone is joined to everyone.
    pub fn neighbours(self, nodes: usize, rng: &mut ChaCha12Rng) -> Option<Neighbours> {
        let edges: BTreeSet<(u32, u32)> = match self {
            Self::Full => return None,
            Self::Line => (1..nodes as u32).map(|b| (b - 1, b)).collect(),
            Self::Ring => (0..nodes as u32).map(|a| edge(a, (a + 1) % nodes as u32)).filter(|(a, b)| a != b).collect(),
            Self::Random => random(nodes as u32, rng),
        };
        let mut neighbours = vec![Vec::new(); nodes];
        for (a, b) in edges {
            neighbours[a as usize].push(b);
            neighbours[b as usize].push(a);
        }
        Some(neighbours)
    }
}

fn edge(a: u32, b: u32) -> (u32, u32) {
    (a.min(b), a.max(b))
}

fn random(nodes: u32, rng: &mut ChaCha12Rng) -> BTreeSet<(u32, u32)> {
    let mut edges: BTreeSet<(u32, u32)> = (1..nodes).map(|b| (rng.random_range(0..b), b)).collect();
    for _ in 0..nodes / 2 {
        let (a, b) = (rng.random_range(0..nodes), rng.random_range(0..nodes));
        if a != b {
            edges.insert(edge(a, b));
        }
    }
    edges
}

/// How often a ring is changed until it repeats no link of another: enough where nodes are many times the degree.
const SWAPS_MAX: usize = 10_000;

/// A random graph in which everyone has `degree` links, or a little less where nodes are few: the union of random rings. It is connected.
pub fn sparse(nodes: u32, degree: u32, rng: &mut ChaCha12Rng) -> BTreeSet<(u32, u32)> {
    let mut edges = BTreeSet::new();
    let mut ring: Vec<u32> = (0..nodes).collect();
    for _ in 0..degree / 2 {
        ring.shuffle(rng);
        for _ in 0..SWAPS_MAX {
            let Some(repeats) = around(&ring).position(|link| edges.contains(&link)) else { break };
            ring.swap(repeats, rng.random_range(0..nodes) as usize);
        }
        edges.extend(around(&ring).filter(|(a, b)| a != b));
    }
    edges
}

fn around(ring: &[u32]) -> impl Iterator<Item = (u32, u32)> + '_ {
    ring.iter().zip(ring.iter().cycle().skip(1)).map(|(a, b)| edge(*a, *b))
}

/// Hops from `from` to every node by breadth-first search, [`FAR`] where there is no way of fewer than `limit` hops.
pub fn breadth_first(neighbours: &[Vec<u32>], from: u32, limit: u8) -> Vec<u8> {
    let mut hops = vec![FAR; neighbours.len()];
    hops[from as usize] = 0;
    let mut queue = vec![from];
    let mut next = 0;
    while let Some(at) = queue.get(next).copied() {
        next += 1;
        let further = hops[at as usize] + 1;
        if further >= limit {
            break;
        }
        for peer in &neighbours[at as usize] {
            if hops[*peer as usize] == FAR {
                hops[*peer as usize] = further;
                queue.push(*peer);
            }
        }
    }
    hops
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn shapes_are_what_they_are_called() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let mut hops = |topology: Topology| breadth_first(&topology.neighbours(6, &mut rng).unwrap(), 0, 32);
        assert_eq!(hops(Topology::Line), [0, 1, 2, 3, 4, 5]);
        assert_eq!(hops(Topology::Ring), [0, 1, 2, 3, 2, 1]);
        assert!(hops(Topology::Random).iter().all(|hops| *hops < FAR));
    }

    #[test]
    fn a_sparse_graph_is_near_and_even() {
        let edges = sparse(1_000, 8, &mut ChaCha12Rng::seed_from_u64(1));
        let mut neighbours = vec![Vec::new(); 1_000];
        for (a, b) in edges {
            neighbours[a as usize].push(b);
            neighbours[b as usize].push(a);
        }
        assert!(neighbours.iter().all(|peers| peers.len() == 8));
        assert!(breadth_first(&neighbours, 0, 32).iter().all(|hops| *hops <= 6));
    }

    #[test]
    fn what_is_too_far_is_out_of_reach() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let line = Topology::Line.neighbours(5, &mut rng).unwrap();
        assert_eq!(breadth_first(&line, 0, 3), [0, 1, 2, FAR, FAR]);
    }
}
