//! How busy capabilities are: news nearby, noise far away.
//!
//! A node tells its neighbours every [`LOAD_REFRESH_MS`], and in a small mesh at once when something changed. Neighbours pass it on down
//! the tree of its origin, ten times slower at each hop, and not beyond the third: what is further away counts as unknown, and whoever
//! wants to know asks. Loads are outside digests and records. A capability is named by four bytes of its slug's hash,
//! so that one takes about ten bytes.

use super::vocabulary::Now;
use super::{Mesh, Slot};
use crate::config::{BUSY_NODES_MAX, LOAD_INTERVAL_MS_MIN, LOAD_REFRESH_MS, LOAD_RELAY_MS};
use crate::distance::{Dependence, LinkId};
use crate::identity::{NodeId, Slug};
use crate::record::Load;
use crate::timers::Timer;
use crate::wire::{Busy, BusyNode, NodeLoads, SlugHash};

impl Mesh {
    pub(super) fn own_load(&mut self, loads: Vec<(Slug, Load)>, now: Now) {
        let before = std::mem::replace(&mut self.own_loads, loads.into_iter().collect());
        if self.own_loads == before {
            return;
        }
        self.condition_generation += 1;
        if !self.active.is_partial() {
            let earliest = self.loads_told_ms + LOAD_INTERVAL_MS_MIN;
            self.timers.sooner(Timer::Loads, earliest.max(now.mono_ms));
        }
    }

    /// Own loads to every neighbour, and those of others that are due to whoever hears of them through us.
    pub(super) fn tell_loads(&mut self, now: Now) {
        self.loads_told_ms = now.mono_ms;
        self.links.values_mut().for_each(|link| link.outbox.loads = true);
        self.timers.set(Timer::Loads, now.mono_ms + LOAD_REFRESH_MS);
        if now.mono_ms >= self.relayed_ms + LOAD_REFRESH_MS {
            self.relayed_ms = now.mono_ms;
            self.relay_loads(now);
        }
    }

    fn relay_loads(&mut self, now: Now) {
        let distances = &self.distances;
        let due = self.near_loads.due(now.mono_ms, |slot| match distances.hops(slot) {
            Some(hops @ 1..=2) => Some(LOAD_RELAY_MS[usize::from(hops) - 1]),
            _ => None,
        });
        for slot in due {
            for link in self.links.values_mut() {
                if self.distances.dependence(link.id, slot) == Dependence::Child {
                    link.outbox.near_loads.insert(slot.0);
                }
            }
        }
    }

    /// Everything to be said about loads on one link: our own first, in full.
    pub(super) fn take_busy(&mut self, id: LinkId, now: Now) -> Option<Busy> {
        let outbox = &mut self.links.get_mut(&id)?.outbox;
        let mut nodes = Vec::new();
        if std::mem::take(&mut outbox.loads) && !self.own_loads.is_empty() {
            let loads = self.own_loads.iter().map(|(slug, load)| (SlugHash::of(slug), *load));
            nodes.push(BusyNode::new(self.own.id, now.mono_ms.saturating_sub(self.loads_told_ms), loads));
        }
        while nodes.len() < BUSY_NODES_MAX
            && let Some(slot) = self.links.get_mut(&id)?.outbox.near_loads.pop()
        {
            nodes.extend(self.busy_node(Slot(slot), now));
        }
        (!nodes.is_empty()).then_some(Busy { nodes })
    }

    /// What is known of another node's loads, as old as the oldest of them.
    fn busy_node(&self, slot: Slot, now: Now) -> Option<BusyNode> {
        let record = &self.table.record(slot)?.record;
        let known = record.capabilities.iter().enumerate().filter_map(|(position, offered)| {
            let (load, age_ms) = self.near_loads.get(slot, position, offered.slots, now.mono_ms)?;
            Some((SlugHash::of(&offered.slug), load, age_ms))
        });
        let known: Vec<_> = known.collect();
        let age_ms = known.iter().map(|(_, _, age_ms)| *age_ms).max()?;
        Some(BusyNode::new(record.node, age_ms, known.into_iter().map(|(slug, load, _)| (slug, load))))
    }

    pub(super) fn receive_busy(&mut self, peer: NodeId, busy: Busy, now: Now) {
        for node in busy.nodes {
            let said_ms = now.mono_ms.saturating_sub(u64::from(node.age_ms));
            for told in node.loads {
                self.hear_load(peer, &node.node, |slug| SlugHash::of(slug) == told.slug, &told.load(), said_ms, now);
            }
        }
    }

    /// What the last release says of loads, and what comes with replies.
    pub(super) fn receive_loads(&mut self, peer: NodeId, loads: NodeLoads, now: Now) {
        let said_ms = now.mono_ms.saturating_sub(u64::from(loads.age_ms));
        for (slug, load) in loads.loads {
            self.hear_load(peer, &loads.node, |offered| *offered == slug, &load, said_ms, now);
        }
    }

    /// What is said of others counts only where they do not tell us themselves.
    fn hear_load(&mut self, by: NodeId, of: &NodeId, is: impl Fn(&Slug) -> bool, load: &Load, said_ms: u64, now: Now) {
        if *of == self.own.id || (*of != by && self.link_of.contains_key(of)) {
            return;
        }
        let Some(slot) = self.table.slot(of) else { return };
        let offers = self.table.record(slot).map(|held| held.record.capabilities.as_slice()).unwrap_or_default();
        if let Some(position) = offers.iter().position(|offered| is(&offered.slug)) {
            self.near_loads.put(slot, position, load, said_ms, now.mono_ms);
            self.condition_generation += 1;
        }
    }
}
