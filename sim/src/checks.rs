//! What ought to hold, one named function each, computed the simple way from what the world itself knows.

use std::collections::{BTreeSet, VecDeque};

use atmo_capabilities::view::Standing;
use atmo_protocol::config::{FULL_MESH_MAX, UNREACHABLE};
use atmo_protocol::gradient;

use crate::world::World;

/// Hops from `from` to every node over connections that can carry something, by breadth-first search; what is too far for a distance
/// to say is out of reach.
pub fn breadth_first(world: &World, from: usize) -> Vec<Option<u8>> {
    let edges: Vec<(usize, usize)> = world.live_edges().collect();
    let mut hops = vec![None; world.hosts.len()];
    hops[from] = Some(0_u8);
    let mut queue = VecDeque::from([from]);
    while let Some(at) = queue.pop_front() {
        for (a, b) in &edges {
            let next = if *a == at {
                *b
            } else if *b == at {
                *a
            } else {
                continue;
            };
            let further = hops[at].map(|hops| hops + 1).filter(|hops| *hops < UNREACHABLE);
            if hops[next].is_none() && further.is_some() {
                hops[next] = further;
                queue.push_back(next);
            }
        }
    }
    hops
}

/// A small mesh connects everyone with everyone it can reach, and any mesh connects everyone with someone.
pub fn links_are_complete(world: &World) -> Vec<String> {
    let live: BTreeSet<(usize, usize)> = world.live_edges().collect();
    let small = world.hosts.len() <= FULL_MESH_MAX;
    let degree = |node: usize| live.iter().filter(|(a, b)| *a == node || *b == node).count();
    let missing = world.possible_edges().filter(|(a, b)| !live.contains(&(*a, *b)) && (small || degree(*a).min(degree(*b)) == 0));
    missing.map(|(a, b)| format!("nodes {a} and {b} are not connected")).collect()
}

/// Every running node's distance to every other equals breadth-first search; who cannot be reached is in no route.
pub fn hops_equal_breadth_first(world: &World) -> Vec<String> {
    let mut violations = Vec::new();
    for from in running(world) {
        let expected = breadth_first(world, from);
        for (to, expected) in expected.into_iter().enumerate() {
            let believed = believed_hops(world, from, to);
            if believed != expected {
                violations.push(format!("node {from} believes {to} to be {believed:?} hops away, it is {expected:?}"));
            }
        }
    }
    violations
}

/// Hops to a node that is believed to be alive.
fn believed_hops(world: &World, from: usize, to: usize) -> Option<u8> {
    let origin = world.hosts[from].node.as_ref()?.mesh().origin(&world.hosts[to].id)?;
    (origin.standing == gradient::Standing::Alive).then_some(origin.hops)?
}

/// Every running node holds the newest record of every node it can reach, and every capability is in its view.
pub fn records_are_everywhere(world: &World) -> Vec<String> {
    let mut violations = Vec::new();
    for holder in running(world) {
        let reachable = breadth_first(world, holder);
        for origin in running(world).filter(|origin| reachable[*origin].is_some()) {
            violations.extend(record_is_held(world, holder, origin));
        }
    }
    violations
}

fn record_is_held(world: &World, holder: usize, origin: usize) -> Option<String> {
    let (holder_node, origin_node) = (world.hosts[holder].node.as_ref()?, world.hosts[origin].node.as_ref()?);
    let id = world.hosts[origin].id;
    let held = holder_node.mesh().origin(&id).map(|held| (held.record.incarnation, held.record.sequence));
    let own = origin_node.mesh().origin(&id).map(|own| (own.record.incarnation, own.record.sequence));
    if held != own {
        return Some(format!("node {holder} holds {held:?} of {origin}, whose own is {own:?}"));
    }
    let routable = holder_node.view().entries().iter().filter(|entry| entry.id.node == id).count();
    let offered = world.hosts[origin].offers();
    (routable != offered).then(|| format!("node {holder} can route to {routable} of the {offered} capabilities of {origin}"))
}

/// Whether any running node would still route to a node.
pub fn is_routed_to(world: &World, node: usize) -> bool {
    let id = world.hosts[node].id;
    let routes = |host: usize| {
        let Some(coordinator) = &world.hosts[host].node else { return false };
        let view = coordinator.view();
        view.entries()
            .iter()
            .zip(view.conditions())
            .any(|(entry, condition)| entry.id.node == id && condition.standing == Standing::Alive)
    };
    running(world).any(routes)
}

/// Nobody honest is ever blamed, and no honest clock is doubted.
pub fn nobody_was_blamed(world: &World) -> Vec<String> {
    world.warnings.clone()
}

fn running(world: &World) -> impl Iterator<Item = usize> {
    (0..world.hosts.len()).filter(|node| world.is_running(*node))
}
