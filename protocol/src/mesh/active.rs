//! Whom this node gossips with: everyone in a small mesh, a bounded active view in a large one.
//!
//! After HyParView (Leitão, Pereira, Rodrigues 2007): links are symmetric, a view that lost one is filled from a passive view, a view that
//! is too large lets go of one. The passive view is the gradient table itself: it holds signed addresses of every node, so no shuffles are
//! needed to keep a sample of them fresh, and nobody can fill it with inventions. A link is let go of only where the peer has enough
//! others and a short detour to it is left, so that a view never sheds the bridge between two halves that just found each other; the
//! quickest four always stay. Every so often one node that is believed gone is dialled again, whatever the view holds: this is how a
//! split heals. Requests do not use these links: they go straight to their executor.

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::link::Link;
use super::vocabulary::Now;
use super::{Mesh, Slot};
use crate::config::{
    ACTIVE_NEAR, ACTIVE_VIEW, ACTIVE_VIEW_ENOUGH, ACTIVE_VIEW_MAX, BOOTSTRAP_QUIET_MS, CANDIDATES_LOOKED_AT, DIALS_IN_FLIGHT_MAX,
    FULL_MESH_MAX, HEAL_INTERVAL_MS, LINKS_MAX, PARTIAL_MESH_MIN, REDIAL_INTERVAL_MS, SHED_AGE_MS, SHED_DETOUR_MAX,
    SHED_INTERVAL_MS, VIEW_INTERVAL_MS, VIEW_JITTER_MS,
};
use crate::distance::LinkId;
use crate::gossip::ranges::EVERYTHING;
use crate::gradient::{Origin, Standing};
use crate::identity::NodeId;
use crate::timers::Timer;

#[derive(Debug, Default)]
pub(super) struct Active {
    partial: bool,
    shed_at_ms: u64,
    heal_at_ms: u64,
    bootstrap: Option<Bootstrap>,
}

/// A newcomer fetches the table over its first link before it compares it with anybody else's: else every neighbour would send all of it.
#[derive(Clone, Copy, Debug)]
struct Bootstrap {
    link: LinkId,
    /// It is over if nothing new came by then.
    until_ms: u64,
}

impl Active {
    /// Whether the mesh is too large to connect everyone with everyone.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// Links that this node seeks. Who still learns how large the mesh is does not seek everyone.
    pub fn wanted(&self) -> usize {
        if self.partial || self.is_bootstrapping() { ACTIVE_VIEW } else { PARTIAL_MESH_MIN }
    }

    /// Whether tables are to be compared on `link` at the moment.
    pub fn may_reconcile(&self, link: LinkId) -> bool {
        self.bootstrap.is_none_or(|bootstrap| bootstrap.link == link)
    }

    pub fn is_bootstrapping(&self) -> bool {
        self.bootstrap.is_some()
    }
}

impl Mesh {
    /// Fills and trims the view, and looks for nodes that were lost.
    pub(super) fn tend(&mut self, now: Now) {
        self.choose_size(now);
        self.dial(now);
        self.fill(now);
        self.heal(now);
        self.shed(now);
        let jitter_ms = self.rng.random_range(0..=VIEW_JITTER_MS);
        self.timers.set(Timer::View, now.mono_ms + VIEW_INTERVAL_MS + jitter_ms);
    }

    /// A link or a dial is gone: others may take its place.
    pub(super) fn tend_soon(&mut self, now: Now) {
        let jitter_ms = self.rng.random_range(0..=VIEW_JITTER_MS);
        self.timers.sooner(Timer::View, now.mono_ms + jitter_ms);
    }

    fn choose_size(&mut self, now: Now) {
        let partial = match self.alive {
            PARTIAL_MESH_MIN.. => true,
            ..=FULL_MESH_MAX => false,
            _ => self.active.partial,
        };
        let shrunk = self.active.partial && !partial;
        self.active.partial = partial;
        if shrunk {
            self.learn_everyone(now);
        }
    }

    fn learn_everyone(&mut self, now: Now) {
        let alive = self.table.iter().filter(|(slot, origin)| *slot != self.me && origin.standing == Standing::Alive);
        let records = alive.filter_map(|(_, origin)| origin.record);
        for held in records {
            self.dialler.learn(held.record.node, held.record.addresses.clone(), true, now.mono_ms);
        }
        for link in self.links.values() {
            self.dialler.linked(&link.peer);
        }
    }

    /// Dials nodes drawn at random from the table while the view is short of links that carry something: a node that lost all its
    /// neighbours at once must not wait until each is known to be dead.
    fn fill(&mut self, now: Now) {
        if !self.active.partial {
            return;
        }
        let in_flight = self.dialler.in_flight();
        let heard = self.links.values().filter(|link| link.silent_since.is_none()).count();
        let missing = ACTIVE_VIEW.saturating_sub(heard + in_flight).min(LINKS_MAX.saturating_sub(self.links.len()));
        for _ in 0..missing.min(DIALS_IN_FLIGHT_MAX.saturating_sub(in_flight)) {
            let start = self.rng.random_range(0..self.table.len().max(1));
            let Some(slot) = self.find_from(start, now, |origin| origin.standing == Standing::Alive) else { break };
            self.dial_slot(slot, now);
        }
    }

    /// Dials one node that is believed gone, now and then.
    fn heal(&mut self, now: Now) {
        if now.mono_ms < self.active.heal_at_ms || self.links.len() >= LINKS_MAX {
            return;
        }
        let hurry = self.links.is_empty() || !self.active.partial;
        let interval_ms = if hurry { REDIAL_INTERVAL_MS } else { HEAL_INTERVAL_MS };
        // Nodes that lost each other at one moment must not look for each other at one moment.
        self.active.heal_at_ms = now.mono_ms + interval_ms / 2 + self.rng.random_range(0..=interval_ms);
        let leased = |origin: &Origin<'_>| origin.record.is_some_and(|held| held.record.lease_until_ms > now.wall_ms);
        // In a small mesh the dialler comes back to those that were linked by itself.
        let forgotten = |origin: &Origin<'_>| self.active.partial || !self.dialler.knows(&origin.id);
        let gone = |origin: &Origin<'_>| leased(origin) && forgotten(origin) && matches!(origin.standing, Standing::Dead(_));
        let start = self.rng.random_range(0..self.table.len().max(1));
        if let Some(slot) = self.find_from(start, now, gone) {
            self.dial_slot(slot, now);
        }
    }

    /// The first origin from a place in the order of ids on that can be dialled, is not linked, and `fits`.
    fn find_from(&self, start: usize, now: Now, fits: impl Fn(&Origin<'_>) -> bool) -> Option<Slot> {
        let len = self.table.len();
        (0..len.min(CANDIDATES_LOOKED_AT)).filter_map(|step| self.table.nth((start + step) % len)).find(|slot| {
            let Some(origin) = self.table.get(*slot) else { return false };
            let Some(held) = origin.record else { return false };
            let free = *slot != self.me && !self.link_of.contains_key(&origin.id) && !self.bans.contains_key(&origin.id);
            free && !held.record.addresses.is_empty() && self.dialler.may_try(&origin.id, now.mono_ms) && fits(&origin)
        })
    }

    /// Lets go of links that neither side needs: at once of those far too many, of one at a time otherwise.
    fn shed(&mut self, now: Now) {
        if !self.active.partial || self.links.len() <= ACTIVE_VIEW_ENOUGH || self.active.is_bootstrapping() {
            return;
        }
        for _ in ACTIVE_VIEW_MAX..self.links.len() {
            self.shed_one(now);
        }
        if now.mono_ms >= self.active.shed_at_ms {
            self.active.shed_at_ms = now.mono_ms + SHED_INTERVAL_MS + self.rng.random_range(0..=SHED_INTERVAL_MS);
            self.shed_one(now);
        }
    }

    fn shed_one(&mut self, now: Now) {
        let standing = self.links.values().filter(|link| !link.is_ending()).count();
        if standing <= ACTIVE_VIEW_ENOUGH {
            return;
        }
        let mut round_trips: Vec<u32> = self.links.values().map(|link| link.rtt_ms).collect();
        round_trips.sort_unstable();
        let near_ms = round_trips.get(ACTIVE_NEAR - 1).copied().unwrap_or(0);
        let spare: Vec<LinkId> =
            self.links.values().filter(|link| link.rtt_ms > near_ms && self.is_spare(link, now)).map(|link| link.id).collect();
        let spare = if spare.is_empty() { self.spare_links(now) } else { spare };
        let chosen = spare.choose(&mut self.rng).copied();
        if let Some(link) = chosen.and_then(|id| self.links.get_mut(&id)) {
            link.outbox.bye = true;
        }
    }

    fn spare_links(&self, now: Now) -> Vec<LinkId> {
        self.links.values().filter(|link| self.is_spare(link, now)).map(|link| link.id).collect()
    }

    /// Both sides have enough other links, and a short way round is left.
    fn is_spare(&self, link: &Link, now: Now) -> bool {
        let enough = link.peer_links.is_some_and(|links| usize::from(links) > ACTIVE_VIEW_ENOUGH);
        let settled = now.mono_ms >= link.up_ms + SHED_AGE_MS && link.silent_since.is_none() && !link.is_ending();
        settled && enough && self.distances.detour(link.id).is_some_and(|hops| hops <= SHED_DETOUR_MAX)
    }

    // The first link of a newcomer

    /// A new link: whether it is the one that this node learns the table from.
    pub(super) fn begin_bootstrap(&mut self, link: LinkId, now: Now) {
        let empty = self.table.len() <= 2 && self.links.len() == 1;
        if empty && self.active.bootstrap.is_none() {
            self.active.bootstrap = Some(Bootstrap { link, until_ms: now.mono_ms + 2 * BOOTSTRAP_QUIET_MS });
            self.timers.set(Timer::Bootstrap, now.mono_ms + 2 * BOOTSTRAP_QUIET_MS);
        }
    }

    /// Something new came over a link.
    pub(super) fn bootstrap_goes_on(&mut self, from: LinkId, now: Now) {
        if let Some(bootstrap) = self.active.bootstrap.as_mut().filter(|bootstrap| bootstrap.link == from) {
            bootstrap.until_ms = now.mono_ms + BOOTSTRAP_QUIET_MS;
        }
    }

    /// The first link has nothing more to tell, or is gone: now the others are asked for what is left.
    pub(super) fn end_bootstrap(&mut self, now: Now) {
        let Some(bootstrap) = self.active.bootstrap else { return };
        if self.links.contains_key(&bootstrap.link) && now.mono_ms < bootstrap.until_ms {
            self.timers.set(Timer::Bootstrap, bootstrap.until_ms);
            return;
        }
        self.active.bootstrap = None;
        self.choose_size(now);
        let nameless: Vec<Slot> = self.table.nameless().collect();
        nameless.into_iter().for_each(|slot| self.distances.touch(slot));
        let summary = self.table.range_summary(EVERYTHING.0, EVERYTHING.1, now.wall_ms);
        for link in self.links.values_mut().filter(|link| link.id != bootstrap.link) {
            link.outbox.add_range(summary.clone());
        }
        self.tend_soon(now);
    }

    /// Nodes this one is linked with, for whoever watches the bound.
    pub fn links_held(&self) -> usize {
        self.links.len()
    }

    /// Whether views are bounded, because the mesh is too large to connect everyone with everyone.
    pub fn is_partial(&self) -> bool {
        self.active.partial
    }

    /// Whether a node is linked.
    pub fn is_linked(&self, node: &NodeId) -> bool {
        self.link_of.contains_key(node)
    }
}

impl Link {
    fn is_ending(&self) -> bool {
        self.closing || self.outbox.bye
    }
}
