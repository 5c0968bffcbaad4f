//! Whom to dial, and when.
//!
//! Targets are nodes that were found outside the mesh (multicast DNS, a join code, the address book), all nodes of a small mesh, and
//! whomever the active view draws. They are dialled while there are fewer links than wanted. Of two nodes that learn of each other the
//! lower id goes first. Failures back off exponentially; peers that were linked before and lost come back one at a time, every
//! [`REDIAL_INTERVAL_MS`], the one not tried for longest first.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::seq::IteratorRandom;
use rand_chacha::ChaCha12Rng;

use crate::config::{
    ADDRESS_BYTES_MAX, DIAL_BACKOFF_MS, DIAL_BACKOFF_MS_MAX, DIAL_TARGETS_MAX, DIAL_TIE_BREAK_MS, DIAL_TIMEOUT_MS,
    DIALS_IN_FLIGHT_MAX, REDIAL_INTERVAL_MS,
};
use crate::identity::NodeId;
use crate::record::ADDRESSES_MAX;

#[derive(Debug)]
pub(super) struct Dialler {
    me: NodeId,
    targets: BTreeMap<NodeId, Target>,
    redial_at_ms: u64,
    /// Grows with every change: [`Dialler::next_ms`] looks at every target.
    generation: u64,
}

#[derive(Debug)]
struct Target {
    /// What the node itself signed last.
    signed: Vec<String>,
    /// What others say, the latest first.
    heard: Vec<String>,
    state: State,
    failures: u32,
    /// Was linked before: comes back by turns instead of by back-off.
    lost: bool,
    tried_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting { until_ms: u64 },
    InFlight { since_ms: u64 },
    Linked,
}

impl Dialler {
    pub fn new(me: NodeId) -> Self {
        Self { me, targets: BTreeMap::new(), redial_at_ms: 0, generation: 0 }
    }

    /// Where somebody unproven (multicast DNS, a join code, the address book) says that `node` may be dialled. Kept beside what the node
    /// signed itself, and in place of nothing but older hearsay.
    pub fn hear(&mut self, node: NodeId, addresses: Vec<String>, mutual: bool, now_ms: u64) {
        let addresses = usable(addresses);
        if let Some(target) = self.target(node, &addresses, mutual, now_ms) {
            target.heard.retain(|address| !addresses.contains(address));
            target.heard = [addresses, std::mem::take(&mut target.heard)].concat();
            target.heard.truncate(ADDRESSES_MAX);
        }
    }

    /// Where `node` itself says, and signs, that it may be dialled: in place of what it signed before. `mutual`: it may know of us too, so
    /// the lower id goes first.
    pub fn learn(&mut self, node: NodeId, addresses: Vec<String>, mutual: bool, now_ms: u64) {
        let addresses = usable(addresses);
        if let Some(target) = self.target(node, &addresses, mutual, now_ms) {
            target.signed = addresses;
        }
    }

    /// What a node signed last, where it is a target.
    pub fn update(&mut self, node: &NodeId, addresses: &[String]) {
        if let Some(target) = self.targets.get_mut(node) {
            target.signed = usable(addresses.to_vec());
        }
    }

    pub fn knows(&self, node: &NodeId) -> bool {
        self.targets.contains_key(node)
    }

    pub fn in_flight(&self) -> usize {
        self.targets.values().filter(|target| target.is_in_flight()).count()
    }

    pub fn is_dialling(&self, node: &NodeId) -> bool {
        self.targets.get(node).is_some_and(Target::is_in_flight)
    }

    /// Whether a node is neither being dialled nor failed a moment ago.
    pub fn may_try(&self, node: &NodeId, now_ms: u64) -> bool {
        let rested = |target: &Target| matches!(target.state, State::Waiting { until_ms } if until_ms <= now_ms);
        self.targets.get(node).is_none_or(rested)
    }

    /// The target to be told of `addresses`, a new one if need be and if there is room.
    fn target(&mut self, node: NodeId, addresses: &[String], mutual: bool, now_ms: u64) -> Option<&mut Target> {
        self.generation += 1;
        if node == self.me || addresses.is_empty() || !(self.targets.contains_key(&node) || self.make_room()) {
            return None;
        }
        let state = State::Waiting { until_ms: now_ms + self.courtesy_ms(&node, mutual) };
        Some(self.targets.entry(node).or_insert_with(|| Target::new(state)))
    }

    /// Whether there is room for one more; the target that failed most often gives way, then one that was linked once.
    fn make_room(&mut self) -> bool {
        if self.targets.len() < DIAL_TARGETS_MAX {
            return true;
        }
        let idle = |target: &Target| matches!(target.state, State::Waiting { .. }) && (target.failures > 0 || target.lost);
        let spare = self.targets.iter().filter(|(_, target)| idle(target));
        let worst = spare.max_by_key(|(_, target)| target.failures).map(|(node, _)| *node);
        worst.is_some_and(|node| self.targets.remove(&node).is_some())
    }

    fn courtesy_ms(&self, node: &NodeId, mutual: bool) -> u64 {
        if mutual && *node < self.me { DIAL_TIE_BREAK_MS } else { 0 }
    }

    pub fn addresses(&self, node: &NodeId) -> Option<Vec<String>> {
        self.targets.get(node).map(Target::addresses)
    }

    pub fn linked(&mut self, node: &NodeId) {
        self.generation += 1;
        if let Some(target) = self.targets.get_mut(node) {
            target.state = State::Linked;
            target.failures = 0;
            target.lost = false;
        }
    }

    /// The link is gone: both sides may dial again.
    pub fn lost(&mut self, node: &NodeId, now_ms: u64) {
        self.generation += 1;
        let until_ms = now_ms + self.courtesy_ms(node, true);
        if let Some(target) = self.targets.get_mut(node) {
            target.state = State::Waiting { until_ms };
            target.lost = true;
        }
    }

    /// A lost peer is alive by other accounts: it is worth dialling now instead of by turns.
    pub fn revived(&mut self, node: &NodeId, now_ms: u64) {
        self.generation += 1;
        let until_ms = now_ms + self.courtesy_ms(node, true);
        if let Some(target) =
            self.targets.get_mut(node).filter(|target| target.lost && matches!(target.state, State::Waiting { .. }))
        {
            target.lost = false;
            target.failures = 0;
            target.state = State::Waiting { until_ms };
        }
    }

    pub fn failed(&mut self, node: &NodeId, now_ms: u64, rng: &mut ChaCha12Rng) {
        self.generation += 1;
        if let Some(target) = self.targets.get_mut(node).filter(|target| target.state != State::Linked) {
            let base_ms = (DIAL_BACKOFF_MS << target.failures.min(16)).min(DIAL_BACKOFF_MS_MAX);
            let wait_ms = if target.lost { 0 } else { base_ms + rng.random_range(0..=base_ms / 4) };
            target.state = State::Waiting { until_ms: now_ms + wait_ms };
            target.failures = target.failures.saturating_add(1);
        }
    }

    pub fn forget(&mut self, node: &NodeId) {
        self.generation += 1;
        self.targets.remove(node);
    }

    /// Forgets whom `keep` does not name.
    pub fn retain(&mut self, keep: impl Fn(&NodeId) -> bool) {
        self.generation += 1;
        self.targets.retain(|node, _| keep(node));
    }

    /// The dials to begin now, given how many links are wanted and stand.
    pub fn due(&mut self, wanted: usize, links: usize, now_ms: u64, rng: &mut ChaCha12Rng) -> Vec<(NodeId, Vec<String>)> {
        self.generation += 1;
        self.time_out(now_ms, rng);
        let in_flight = self.in_flight();
        let room = wanted.saturating_sub(links + in_flight).min(DIALS_IN_FLIGHT_MAX.saturating_sub(in_flight));
        // At random: many who learn of the same nodes at once must not all call the first of them.
        let mut chosen: Vec<NodeId> = self.waiting(false, now_ms).map(|(node, _)| *node).sample(rng, room);
        if chosen.len() < room && now_ms >= self.redial_at_ms {
            let longest = self.waiting(true, now_ms).min_by_key(|(_, target)| target.tried_ms).map(|(node, _)| *node);
            self.redial_at_ms = if longest.is_some() { now_ms + REDIAL_INTERVAL_MS } else { self.redial_at_ms };
            chosen.extend(longest);
        }
        chosen.into_iter().filter_map(|node| Some((node, self.begin(&node, now_ms)?))).collect()
    }

    /// When [`Dialler::due`] may next have something, while there are fewer links than wanted.
    pub fn next_ms(&self, wanted: usize, links: usize) -> Option<u64> {
        let wanted = links < wanted;
        let deadline = |target: &Target| match target.state {
            State::InFlight { since_ms } => Some(since_ms + DIAL_TIMEOUT_MS),
            State::Waiting { until_ms } if wanted && target.lost => Some(until_ms.max(self.redial_at_ms)),
            State::Waiting { until_ms } => wanted.then_some(until_ms),
            State::Linked => None,
        };
        self.targets.values().filter_map(deadline).min()
    }

    /// Stands for everything that [`Dialler::next_ms`] depends on here.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn waiting(&self, lost: bool, now_ms: u64) -> impl Iterator<Item = (&NodeId, &Target)> {
        let is_due = move |target: &Target| matches!(target.state, State::Waiting { until_ms } if until_ms <= now_ms);
        self.targets.iter().filter(move |(_, target)| target.lost == lost && is_due(target))
    }

    /// Begins to dial a target: its addresses.
    pub fn begin(&mut self, node: &NodeId, now_ms: u64) -> Option<Vec<String>> {
        self.generation += 1;
        let target = self.targets.get_mut(node)?;
        target.state = State::InFlight { since_ms: now_ms };
        target.tried_ms = now_ms;
        Some(target.addresses())
    }

    fn time_out(&mut self, now_ms: u64, rng: &mut ChaCha12Rng) {
        let late = |target: &Target| matches!(target.state, State::InFlight { since_ms } if now_ms >= since_ms + DIAL_TIMEOUT_MS);
        let late: Vec<NodeId> = self.targets.iter().filter(|(_, target)| late(target)).map(|(node, _)| *node).collect();
        late.iter().for_each(|node| self.failed(node, now_ms, rng));
    }
}

impl Target {
    fn new(state: State) -> Self {
        Self { signed: Vec::new(), heard: Vec::new(), state, failures: 0, lost: false, tried_ms: 0 }
    }

    /// At most [`ADDRESSES_MAX`]: what was signed goes first, and after a failure the two take turns, so that neither keeps the other out.
    fn addresses(&self) -> Vec<String> {
        let (first, second) =
            if self.failures.is_multiple_of(2) { (&self.signed, &self.heard) } else { (&self.heard, &self.signed) };
        let more = second.iter().filter(|address| !first.contains(address));
        first.iter().chain(more).take(ADDRESSES_MAX).cloned().collect()
    }

    fn is_in_flight(&self) -> bool {
        matches!(self.state, State::InFlight { .. })
    }
}

/// What may be dialled of a list that somebody made.
fn usable(mut addresses: Vec<String>) -> Vec<String> {
    addresses.retain(|address| !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX);
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_only_heard_stands_behind_what_was_signed_until_that_fails() {
        let texts = |of: &[&str]| Some(of.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let (me, peer) = (NodeId::from_bytes([9; 32]), NodeId::from_bytes([1; 32]));
        let mut dialler = Dialler::new(me);
        dialler.learn(peer, vec!["signed".into()], false, 0);
        dialler.hear(peer, vec!["heard".into(), "signed".into()], false, 0);
        assert_eq!(dialler.addresses(&peer), texts(&["signed", "heard"]));
        dialler.targets.get_mut(&peer).unwrap().failures = 1;
        dialler.hear(peer, vec!["new".into()], false, 0);
        assert_eq!(dialler.addresses(&peer).unwrap()[0], "new");
        for number in 0..20 {
            dialler.hear(peer, vec![format!("made up {number}")], false, 0);
        }
        assert_eq!(dialler.addresses(&peer).unwrap().len(), ADDRESSES_MAX);
        dialler.targets.get_mut(&peer).unwrap().failures = 2;
        assert_eq!(dialler.addresses(&peer).unwrap()[0], "signed", "nothing that is heard drives it out");
        dialler.learn(peer, vec!["moved".into()], false, 0);
        let addresses = dialler.addresses(&peer).unwrap();
        assert_eq!((addresses[0].as_str(), addresses.len()), ("moved", ADDRESSES_MAX));
        assert!(!addresses.contains(&"signed".to_owned()));
    }
}
