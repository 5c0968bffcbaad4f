//! What ought to be believed, computed the simple way from what the world itself knows: who is there, who can reach whom, which record is the
//! newest, and how far everyone is.

use std::collections::BTreeSet;

use atmo_protocol::config::UNREACHABLE;

use crate::host::Number;
use crate::topology::{FAR, breadth_first};
use crate::world::World;

/// Worlds up to this size have their reachability computed pair by pair.
const EXACT_MAX: usize = 64;

/// One moment of a world.
pub struct Truth {
    /// Over connections that carry something both ways, for each node.
    links: Vec<Vec<u32>>,
    /// Of these, those between the honest.
    honest_links: Vec<Vec<u32>>,
    /// Who runs, is awake and honest.
    pub well: Vec<bool>,
    /// The newest record of each, and the newest that it ever signed.
    newest: Vec<Option<Number>>,
    ever: Vec<Option<Number>>,
    /// Nodes of one component can reach each other, over whatever connections could be made.
    component: Vec<u32>,
    /// How many of the well are in each component.
    sizes: Vec<usize>,
    liars: Vec<u32>,
}

/// How far an observer may believe everyone to be: at least, and at most.
pub struct Bounds {
    nearest: Vec<u8>,
    furthest: Vec<u8>,
}

impl Truth {
    pub fn of(world: &World) -> Self {
        let nodes = world.nodes() as u32;
        let well: Vec<bool> = (0..nodes).map(|node| world.is_well(node)).collect();
        let mut links = vec![Vec::new(); world.nodes()];
        for (_, [a, b]) in world.network.connections() {
            let carries = world.network.barriers.passes(a, b) && world.network.barriers.passes(b, a);
            if carries && world.is_running(a) && world.is_running(b) {
                links[a as usize].push(b);
                links[b as usize].push(a);
            }
        }
        let honest = |node: u32| world.hosts[node as usize].is_honest();
        let liars: Vec<u32> = (0..nodes).filter(|node| shortens(world, *node)).collect();
        let honest_links = if (0..nodes).all(honest) { Vec::new() } else { between_honest(&links, honest) };
        let component = components(world);
        let mut sizes = vec![0; world.nodes()];
        (0..world.nodes()).filter(|node| well[*node]).for_each(|node| sizes[component[node] as usize] += 1);
        let newest: Vec<Option<Number>> = world.hosts.iter().map(|host| host.own_number()).collect();
        let ever = world.hosts.iter().zip(&newest).map(|(host, newest)| host.newest_before.max(*newest)).collect();
        Self { links, honest_links, well, newest, ever, component, sizes, liars }
    }

    /// Whether `observer` ought to see `node`.
    pub fn is_reachable(&self, observer: u32, node: u32) -> bool {
        self.well[node as usize] && self.component[node as usize] == self.component[observer as usize]
    }

    /// How many `observer` ought to see, itself included.
    pub fn reachable(&self, observer: u32) -> usize {
        self.sizes[self.component[observer as usize] as usize]
    }

    pub fn newest(&self, node: u32) -> Option<Number> {
        self.newest[node as usize]
    }

    /// The newest record that a node ever signed, in former lives too.
    pub fn newest_ever(&self, node: u32) -> Option<Number> {
        self.ever[node as usize]
    }

    /// Among the honest both bounds are the breadth-first distance. With liars about: never above it over honest nodes, and below the true
    /// distance only as far as the nearest liar can make it.
    pub fn hops(&self, observer: u32) -> Bounds {
        let nearest = breadth_first(&self.links, observer, UNREACHABLE);
        if self.honest_links.is_empty() {
            return Bounds { furthest: nearest.clone(), nearest };
        }
        let furthest = breadth_first(&self.honest_links, observer, UNREACHABLE);
        let claimed = self.liars.iter().map(|liar| nearest[*liar as usize].saturating_add(1)).min().unwrap_or(FAR);
        Bounds { nearest: nearest.into_iter().map(|hops| hops.min(claimed)).collect(), furthest }
    }
}

impl Bounds {
    /// Whether a distance may be believed of a node that can be reached.
    pub fn allow(&self, node: u32, hops: u8) -> bool {
        (self.nearest[node as usize]..=self.furthest[node as usize]).contains(&hops)
    }

    pub fn of(&self, node: u32) -> (u8, u8) {
        (self.nearest[node as usize], self.furthest[node as usize])
    }
}

fn shortens(world: &World, node: u32) -> bool {
    world.hosts[node as usize].adversary.as_ref().is_some_and(|adversary| adversary.kind.shortens())
}

fn between_honest(links: &[Vec<u32>], honest: impl Fn(u32) -> bool) -> Vec<Vec<u32>> {
    let of = |(node, peers): (usize, &Vec<u32>)| {
        let peers = peers.iter().copied().filter(|peer| honest(*peer) && honest(node as u32));
        peers.collect()
    };
    links.iter().enumerate().map(of).collect()
}

/// Who can reach whom over what could be connected.
fn components(world: &World) -> Vec<u32> {
    let nodes = world.nodes();
    if world.network.barriers.stands_open() && world.neighbours.is_none() {
        return vec![0; nodes];
    }
    if nodes <= EXACT_MAX || world.neighbours.is_some() {
        return labelled(nodes, |a, b| world.could_connect(a, b));
    }
    // In a large world only walls between groups matter: no few cuts part it.
    let barriers = &world.network.barriers;
    let used: BTreeSet<u8> = (0..nodes as u32).map(|node| barriers.side(node)).collect();
    let joined = |a: u8, b: u8| used.contains(&a) && used.contains(&b) && barriers.sides_join(a, b);
    let groups = labelled(usize::from(u8::MAX) + 1, |a, b| joined(a as u8, b as u8));
    (0..nodes as u32).map(|node| groups[usize::from(world.network.barriers.side(node))]).collect()
}

/// The lowest member of each one's component.
fn labelled(nodes: usize, joined: impl Fn(u32, u32) -> bool) -> Vec<u32> {
    let mut labels = vec![u32::MAX; nodes];
    for first in 0..nodes as u32 {
        if labels[first as usize] != u32::MAX {
            continue;
        }
        labels[first as usize] = first;
        let mut queue = vec![first];
        while let Some(at) = queue.pop() {
            for other in 0..nodes as u32 {
                if labels[other as usize] == u32::MAX && joined(at, other) {
                    labels[other as usize] = first;
                    queue.push(other);
                }
            }
        }
    }
    labels
}
