//! Comparing tables with a neighbour, range by range, and asking for what is missing.

use rand::RngExt;

use super::Mesh;
use super::accept::Want;
use super::vocabulary::Now;
use crate::config::{
    CHAINS_SOUGHT_MAX, DIGEST_INTERVAL_MS, DIGEST_INTERVAL_MS_MAX, DIGEST_INTERVAL_PER_NODE_MS, DIGEST_JITTER_MS, FETCH_DELAY_MS,
    FETCH_RETRY_MS,
};
use crate::distance::LinkId;
use crate::gossip::ranges::{self, EVERYTHING};
use crate::timers::Timer;
use crate::wire::{Digest, Fetch};

impl Mesh {
    pub(super) fn arm_digest(&mut self, now: Now) {
        let interval_ms = (self.alive as u64 * DIGEST_INTERVAL_PER_NODE_MS).clamp(DIGEST_INTERVAL_MS, DIGEST_INTERVAL_MS_MAX);
        let jitter_ms = self.rng.random_range(0..=2 * DIGEST_JITTER_MS);
        self.timers.set(Timer::Digest, now.mono_ms + interval_ms - DIGEST_JITTER_MS + jitter_ms);
    }

    /// Begins to compare everything with one neighbour at random.
    pub(super) fn start_digest(&mut self, now: Now) {
        self.arm_digest(now);
        if self.links.is_empty() || self.active.is_bootstrapping() {
            return;
        }
        let at = self.rng.random_range(0..self.links.len());
        let summary = self.table.range_summary(EVERYTHING.0, EVERYTHING.1, now.wall_ms);
        if let Some(link) = self.links.values_mut().nth(at) {
            link.outbox.add_range(summary);
        }
    }

    pub(super) fn receive_digest(&mut self, id: LinkId, digest: Digest, now: Now) {
        if !self.active.may_reconcile(id) {
            return;
        }
        for range in &digest.ranges {
            let comparison = ranges::compare(&self.table, range, now.wall_ms);
            let Some(link) = self.links.get_mut(&id) else { return };
            for origin in comparison.push {
                if let Some(slot) = self.table.slot(&origin) {
                    link.outbox.records.insert(slot.0);
                }
            }
            comparison.fetch.into_iter().for_each(|origin| link.outbox.want_record(origin));
            comparison.ranges.into_iter().for_each(|range| link.outbox.add_range(range));
        }
    }

    /// What was asked for and is held is sent, even if we thought the peer had it.
    pub(super) fn receive_fetch(&mut self, id: LinkId, fetch: Fetch) {
        let Some(link) = self.links.get_mut(&id) else { return };
        for slot in fetch.records.iter().filter_map(|origin| self.table.slot(origin)) {
            if self.table.has_record(slot) {
                link.outbox.records.insert(slot.0);
            }
        }
        for number in fetch.bodies.iter().filter_map(|hash| self.bodies.number(hash)) {
            link.outbox.bodies.insert(number);
        }
        for slot in fetch.chains.iter().take(CHAINS_SOUGHT_MAX).filter_map(|hash| self.chains.find(hash)) {
            link.outbox.chains.insert(slot.0);
        }
    }

    /// Asks for every body and chain that is missing, of all links in turn. Who was asked and still sends is waited for; who fell silent is
    /// passed over for the next.
    pub(super) fn ask_for_missing(&mut self, now: Now) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        let mut more = false;
        for (turn, (want, asked)) in self.wants.iter_mut().enumerate() {
            let sends = |link: &LinkId| self.links.get(link).is_some_and(|link| now.mono_ms < link.brought_ms + FETCH_RETRY_MS);
            if asked.is_some_and(|asked| sends(&asked)) {
                continue;
            }
            let after = |asked: LinkId| links.iter().find(|link| **link > asked).or(links.first());
            let next = asked.map_or_else(|| links.get(turn % links.len().max(1)), after);
            let Some(link) = next.and_then(|next| self.links.get_mut(next)) else { break };
            let is_asked = match want {
                Want::Chain(hash) => link.outbox.want_chain(*hash),
                Want::Body(hash) => link.outbox.want_body(*hash),
            };
            if is_asked { *asked = Some(link.id) } else { more = true }
        }
        if !self.wants.is_empty() {
            self.timers.set(Timer::Fetch, now.mono_ms + if more { FETCH_DELAY_MS } else { FETCH_RETRY_MS });
        }
    }

    /// Bytes that this node keeps of its own for each known origin, on average: table, distances, loads and what links remember.
    pub fn table_bytes(&self) -> usize {
        let links: usize = self.links.values().map(|link| link.outbox.bytes() + link.introduced.bytes()).sum();
        let bytes = self.table.bytes() + self.distances.bytes() + self.near_loads.bytes() + self.chains.bytes() + links;
        bytes / self.table.len().max(1)
    }
}
