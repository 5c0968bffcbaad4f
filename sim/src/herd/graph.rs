//! Who is how far from whom.

use std::collections::VecDeque;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;

/// Links of a node, as in a mesh that has outgrown full connection.
const LINKS: usize = 8;

/// A random graph in which nearly every node has [`LINKS`] links, as active views are bounded: random rings through all nodes.
pub fn links(nodes: usize, rng: &mut ChaCha12Rng) -> Vec<Vec<usize>> {
    let mut links = vec![Vec::new(); nodes];
    let mut ring: Vec<usize> = (0..nodes).collect();
    for _ in 0..LINKS / 2 {
        ring.shuffle(rng);
        for (place, node) in ring.iter().enumerate() {
            let next = ring[(place + 1) % nodes];
            links[*node].push(next);
            links[next].push(*node);
        }
    }
    links
}

/// By node, along the fewest links.
pub fn hops_from(start: usize, links: &[Vec<usize>]) -> Vec<u8> {
    let mut hops = vec![u8::MAX; links.len()];
    let mut queue = VecDeque::from([start]);
    hops[start] = 0;
    while let Some(node) = queue.pop_front() {
        for peer in &links[node] {
            if hops[*peer] == u8::MAX {
                hops[*peer] = hops[node] + 1;
                queue.push_back(*peer);
            }
        }
    }
    hops
}
