//! Random graphs of distance tables on ordered wires: what holds when everything has been said.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

/// Nodes `0..n`; a node's slot is its number everywhere, a link's number at one end is the number of the node at the other.
struct Graph {
    nodes: Vec<Distances>,
    edges: BTreeSet<(usize, usize)>,
    now_ms: u64,
    frames: usize,
}

fn link(node: usize) -> LinkId {
    LinkId(node as u8)
}

impl Graph {
    fn new(nodes: usize) -> Self {
        let nodes = (0..nodes).map(|node| Distances::new(Slot(node as u32))).collect();
        Self { nodes, edges: BTreeSet::new(), now_ms: 0, frames: 0 }
    }

    fn flip(&mut self, a: usize, b: usize) {
        let edge = (a.min(b), a.max(b));
        if edge.0 == edge.1 {
            return;
        }
        if self.edges.remove(&edge) {
            self.nodes[a].link_down(link(b), self.now_ms);
            self.nodes[b].link_down(link(a), self.now_ms);
        } else {
            self.edges.insert(edge);
            self.nodes[a].link_up(link(b), Slot(b as u32), 0, self.now_ms);
            self.nodes[b].link_up(link(a), Slot(a as u32), 0, self.now_ms);
        }
    }

    /// One frame over every edge in both directions; whether anything was said.
    fn round(&mut self) -> bool {
        let edges: Vec<_> = self.edges.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect();
        let mut wire = VecDeque::new();
        for (from, to) in edges {
            if let Some((_, entries)) = self.nodes[from].tell(link(to), 1_000, |_| Some(true)) {
                wire.push_back((from, to, entries));
            }
        }
        self.frames += wire.len();
        let said = !wire.is_empty();
        for (from, to, entries) in wire {
            for (slot, hops) in entries {
                self.nodes[to].heard(link(from), slot, hops, self.now_ms);
            }
        }
        said
    }

    /// Talks until there is nothing to say and nothing is held.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            let said = self.round();
            self.now_ms += 20;
            self.nodes.iter_mut().for_each(|node| node.release(self.now_ms));
            let held = self.nodes.iter().any(|node| node.release_at_ms().is_some());
            let mute = self
                .edges
                .iter()
                .all(|(a, b)| !self.nodes[*a].wants_to_tell(link(*b)) && !self.nodes[*b].wants_to_tell(link(*a)));
            if !said && !held && mute {
                return;
            }
        }
        panic!("still counting after 1,000 rounds");
    }

    fn breadth_first(&self, from: usize) -> Vec<Option<u8>> {
        let mut hops = vec![None; self.nodes.len()];
        hops[from] = Some(0);
        let mut queue = VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            for next in 0..self.nodes.len() {
                if hops[next].is_none() && self.edges.contains(&(at.min(next), at.max(next))) {
                    hops[next] = hops[at].map(|hops: u8| hops + 1);
                    queue.push_back(next);
                }
            }
        }
        hops
    }

    fn check(&self) {
        for (from, node) in self.nodes.iter().enumerate() {
            let expected = self.breadth_first(from);
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                assert_eq!(node.hops(Slot(to as u32)), expected[to], "from {from} to {to} over {:?}", self.edges);
            }
        }
    }
}

#[test]
fn a_triangle_that_loses_its_common_neighbour_does_not_count() {
    let mut graph = Graph::new(4);
    for (a, b) in [(0, 1), (1, 2), (2, 0), (0, 3)] {
        graph.flip(a, b);
    }
    graph.settle();
    graph.check();
    graph.frames = 0;
    graph.flip(0, 3);
    graph.settle();
    graph.check();
    assert!(graph.frames <= 6, "{} frames", graph.frames);
}

#[test]
fn a_full_mesh_that_loses_a_node_says_so_once() {
    let mut graph = Graph::new(12);
    (0..12).for_each(|a| (a + 1..12).for_each(|b| graph.flip(a, b)));
    graph.settle();
    graph.frames = 0;
    (0..11).for_each(|a| graph.flip(a, 11));
    graph.settle();
    graph.check();
    assert!(graph.frames <= 11 * 10 * 2, "{} frames", graph.frames);
}

#[test]
fn a_ring_finds_the_long_way_round() {
    let mut graph = Graph::new(12);
    (0..12).for_each(|a| graph.flip(a, (a + 1) % 12));
    graph.settle();
    graph.check();
    graph.flip(0, 1);
    graph.settle();
    graph.check();
    assert_eq!(graph.nodes[0].hops(Slot(1)), Some(11));
}

#[test]
fn a_silent_neighbour_is_no_way() {
    let mut graph = Graph::new(3);
    for (a, b) in [(0, 1), (1, 2), (2, 0)] {
        graph.flip(a, b);
    }
    graph.settle();
    graph.nodes[0].mute(link(1), true, graph.now_ms);
    graph.settle();
    assert_eq!(graph.nodes[0].hops(Slot(1)), Some(2));
    graph.nodes[0].mute(link(1), false, graph.now_ms);
    graph.settle();
    graph.check();
}

#[test]
fn a_slot_given_away_keeps_nothing() {
    let mut graph = Graph::new(3);
    graph.flip(0, 1);
    graph.flip(1, 2);
    graph.settle();
    assert_eq!(graph.nodes[0].hops(Slot(2)), Some(2));
    graph.nodes[0].forget_slot(Slot(2));
    assert_eq!((graph.nodes[0].hops(Slot(2)), graph.nodes[0].alternatives(Slot(2))), (None, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hops_equal_breadth_first_search_after_any_changes(
        nodes in 2_usize..10,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_usize..4), 1..60),
    ) {
        let mut graph = Graph::new(nodes);
        for (a, b, rounds) in flips {
            graph.flip(a.index(nodes), b.index(nodes));
            (0..rounds).for_each(|_| _ = graph.round());
        }
        graph.settle();
        graph.check();
    }
}
