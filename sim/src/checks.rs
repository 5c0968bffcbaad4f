//! What ought to hold, one named function each. They look at honest nodes alone, through what a node itself shows.

use std::collections::{BTreeMap, BTreeSet};

use atmo_protocol::config::{FRAME_BYTES_MAX, INTRODUCED_MAX, LINKS_MAX, ORIGINS_MAX};
use atmo_protocol::gradient::Standing;
use atmo_protocol::mesh::{Mesh, OriginView};

use crate::network::WINDOW_BYTES;
use crate::truth::{Bounds, Truth};
use crate::world::World;

/// Nobody honest may be missing from an honest node's routes for longer, whatever adversaries do.
const ABSENCE_MS_MAX: u64 = 2_000;
/// Who is revoked is gone from every reachable node after this long.
const REVOKED_MS_MAX: u64 = 5_000;
/// Who has run undisturbed for this long is known everywhere.
const STEADY_MS: u64 = 10_000;

/// Something that one node believes and should not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub observer: u32,
    /// Only the distance is wrong.
    pub is_distance: bool,
    pub what: String,
}

/// Whether a node would route to an origin.
pub fn is_shown(origin: &OriginView<'_>) -> bool {
    origin.standing == Standing::Alive && origin.hops.is_some()
}

/// Whether `observer` would route to `node`.
pub fn routes_to(world: &World, observer: u32, node: u32) -> bool {
    let id = world.hosts[node as usize].id;
    world.mesh_of(observer).and_then(|mesh| mesh.origin(&id)).is_some_and(|origin| is_shown(&origin))
}

/// All live, connected nodes converge: an observer shows exactly whom it can reach, with their newest records, and distances equal
/// breadth-first search. The first thing that is not so.
pub fn live_nodes_converge(world: &World, truth: &Truth, observer: u32) -> Option<Fault> {
    let bounds = truth.hops(observer);
    let mut seen = 0;
    let mut distance = None;
    for origin in world.mesh_of(observer)?.origins() {
        let Some(node) = world.number_of(&origin.id) else { continue };
        if !world.hosts[node as usize].is_honest() {
            continue;
        }
        let fault = |what: String| Some(Fault { observer, is_distance: false, what });
        match (is_shown(&origin), truth.is_reachable(observer, node)) {
            (false, false) => continue,
            (true, false) => return fault(format!("node {observer} still routes to {node}, which it cannot reach")),
            (false, true) => {
                let (standing, hops) = (origin.standing, origin.hops);
                return fault(format!("node {observer} does not route to {node} ({standing:?}, {hops:?} hops)"));
            }
            (true, true) => seen += 1,
        }
        let held = Some((origin.record.incarnation, origin.record.sequence));
        if held != truth.newest(node) {
            return fault(format!("node {observer} holds {held:?} of {node}, whose own is {:?}", truth.newest(node)));
        }
        distance = distance.or_else(|| distances_equal_breadth_first(&bounds, observer, node, origin.hops));
    }
    let missing = truth.reachable(observer) - seen;
    if missing > 0 {
        let what = format!("node {observer} knows {missing} of {} nodes not at all", truth.reachable(observer));
        return Some(Fault { observer, is_distance: false, what });
    }
    distance
}

fn distances_equal_breadth_first(bounds: &Bounds, observer: u32, node: u32, hops: Option<u8>) -> Option<Fault> {
    let hops = hops?;
    let (nearest, furthest) = bounds.of(node);
    let what = || format!("node {observer} believes {node} to be {hops} hops away, it is {nearest} to {furthest}");
    (!bounds.allow(node, hops)).then(|| Fault { observer, is_distance: true, what: what() })
}

/// No record of a non-member or of one whose certificate has expired counts anywhere.
pub fn only_members_are_known(world: &World, observer: u32) -> Vec<String> {
    let Some(mesh) = world.mesh_of(observer) else { return Vec::new() };
    let ours = world.hosts[observer as usize].chain.member.mesh;
    let is_member = |origin: &OriginView<'_>| {
        let number = world.number_of(&origin.id)?;
        let host = &world.hosts[number as usize];
        let admitted = host.adversary.as_ref().is_none_or(|adversary| adversary.kind.is_member());
        (admitted && origin.record.mesh == ours && origin.record.certificate == host.chain.hash()).then_some(())
    };
    let strangers = mesh.origins().filter(|origin| is_member(origin).is_none());
    strangers.map(|origin| format!("only members are known: node {observer} counts a record of {}", origin.id.short())).collect()
}

/// Nobody who was revoked a while ago counts anywhere, or is linked.
pub fn nobody_revoked_is_known(world: &World, observer: u32) -> Vec<String> {
    let Some(mesh) = world.mesh_of(observer) else { return Vec::new() };
    let revoked_at = |number: u32| world.hosts[number as usize].revoked_ms;
    let is_over = |at_ms: u64| world.now_ms() > at_ms + REVOKED_MS_MAX;
    let known = mesh.origins().map(|origin| origin.id).chain(mesh.peers()).filter_map(|id| world.number_of(&id));
    let known = known.filter(|number| revoked_at(*number).is_some_and(is_over));
    known.map(|number| format!("nobody revoked is known: node {observer} still knows {number}")).collect()
}

/// Whether nobody who is well knows a node any more.
pub fn is_forgotten(world: &World, node: u32) -> bool {
    let id = world.hosts[node as usize].id;
    let knows = |mesh: &Mesh| mesh.origin(&id).is_some() || mesh.is_linked(&id);
    !world.well().into_iter().filter_map(|observer| world.mesh_of(observer)).any(knows)
}

/// Nobody holds a newer record of an honest node than it ever signed.
pub fn nothing_is_made_up(world: &World, truth: &Truth, observer: u32) -> Vec<String> {
    let Some(mesh) = world.mesh_of(observer) else { return Vec::new() };
    let mut faults = Vec::new();
    for origin in mesh.origins() {
        let Some(node) = world.number_of(&origin.id).filter(|node| truth.well[*node as usize]) else { continue };
        let held = (origin.record.incarnation, origin.record.sequence);
        if truth.newest_ever(node).is_some_and(|newest| held > newest) {
            faults.push(format!("nothing is made up: node {observer} holds {held:?} of {node}, newer than any it signed"));
        }
    }
    faults
}

/// Newest wins: what an observer holds of anyone never goes back while it runs.
#[derive(Debug, Default)]
pub struct NewestWins {
    held: BTreeMap<(u32, u32), BTreeMap<u32, (u64, u64)>>,
}

impl NewestWins {
    pub fn look(&mut self, world: &World, observer: u32) -> Vec<String> {
        let Some(mesh) = world.mesh_of(observer) else { return Vec::new() };
        let life = world.hosts[observer as usize].life;
        let before = self.held.entry((observer, life)).or_default();
        let mut faults = Vec::new();
        for origin in mesh.origins() {
            let Some(node) = world.number_of(&origin.id) else { continue };
            let now = (origin.record.incarnation, origin.record.sequence);
            if before.insert(node, now).is_some_and(|before| before > now) {
                faults.push(format!("newest wins: node {observer} went back to {now:?} of {node}"));
            }
        }
        faults
    }
}

/// Nothing dead returns: nobody routes to those who were killed a while ago and did not start again.
pub fn nothing_is_resurrected(world: &World, observer: u32, dead: &[u32]) -> Vec<String> {
    let returned = dead.iter().filter(|dead| !world.is_running(**dead) && routes_to(world, observer, **dead));
    returned.map(|dead| format!("nothing is resurrected: node {observer} routes to {dead}, which was killed long ago")).collect()
}

/// Both ends of a link agree that there is one. The pairs that do not; only what stays so is wrong.
pub fn one_sided_links(world: &World) -> BTreeSet<(u32, u32)> {
    let peers = |node: u32| -> BTreeSet<u32> {
        let peers = world.mesh_of(node).into_iter().flat_map(|mesh| mesh.peers());
        peers.filter_map(|peer| world.number_of(&peer)).collect()
    };
    let all: Vec<BTreeSet<u32>> = (0..world.nodes() as u32).map(peers).collect();
    let well = world.well();
    let pairs = well.iter().flat_map(|node| all[*node as usize].iter().map(move |peer| (*node, *peer)));
    let open = |a: u32, b: u32| world.network.barriers.passes(a, b) && world.network.barriers.passes(b, a);
    pairs.filter(|(a, b)| world.is_well(*b) && open(*a, *b) && !all[*b as usize].contains(a)).collect()
}

/// Nobody has more links than the bound.
pub fn views_are_bounded(world: &World, observer: u32) -> Vec<String> {
    let links = world.mesh_of(observer).map_or(0, |mesh| mesh.peers().count());
    let over = links > LINKS_MAX;
    over.then(|| format!("views are bounded: node {observer} has {links} links, more than {LINKS_MAX}")).into_iter().collect()
}

/// Tables hold no more than there is, names that liars invent aside, and no queue grows beyond its window.
pub fn memory_is_bounded(world: &World, observer: u32) -> Vec<String> {
    let Some(mesh) = world.mesh_of(observer) else { return Vec::new() };
    let links = mesh.peers().count();
    let invented = if world.hears_inventions() { links * INTRODUCED_MAX } else { 0 };
    let origins_max = (world.nodes() + invented).min(ORIGINS_MAX);
    let mut faults = Vec::new();
    if mesh.origins_held() > origins_max {
        faults.push(format!("memory is bounded: node {observer} holds {} origins", mesh.origins_held()));
    }
    let queued = world.network.queued_bytes(observer);
    if queued > links.max(1) * (WINDOW_BYTES + FRAME_BYTES_MAX) * 2 {
        faults.push(format!("memory is bounded: {queued} bytes wait between node {observer} and its {links} links"));
    }
    faults
}

/// No honest live node is absent from honest routes for longer than two seconds.
#[derive(Debug, Default)]
pub struct NobodyHonestIsAbsent {
    since: BTreeMap<(u32, u32), u64>,
}

impl NobodyHonestIsAbsent {
    pub fn look(&mut self, world: &World, observer: u32) -> Vec<String> {
        let now_ms = world.now_ms();
        let steady = |node: u32| world.is_well(node) && now_ms >= world.hosts[node as usize].steady_since_ms + STEADY_MS;
        let mut faults = Vec::new();
        for node in 0..world.nodes() as u32 {
            if !(steady(observer) && steady(node)) || routes_to(world, observer, node) {
                self.since.remove(&(observer, node));
                continue;
            }
            let since = *self.since.entry((observer, node)).or_insert(now_ms);
            if now_ms > since + ABSENCE_MS_MAX {
                faults.push(format!("nobody honest is absent: node {observer} has not routed to {node} since {since} ms"));
            }
        }
        faults
    }
}
