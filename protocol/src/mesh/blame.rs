//! How much each peer has misbehaved lately. Kept by peer, not by link: who hangs up and comes back is still the one it was.

use std::collections::BTreeMap;

use crate::config::{BLAME_FORGIVEN_MS, OFFENDERS_MAX};
use crate::identity::NodeId;

/// Points against peers; time forgives.
#[derive(Debug, Default)]
pub(super) struct Offences(BTreeMap<NodeId, Offence>);

#[derive(Clone, Copy, Debug, Default)]
struct Offence {
    points: u32,
    at_ms: u64,
}

impl Offence {
    fn forgiven(self, now_ms: u64) -> Self {
        let forgiven = now_ms.saturating_sub(self.at_ms) / BLAME_FORGIVEN_MS;
        let points = self.points.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
        Self { points, at_ms: self.at_ms + forgiven * BLAME_FORGIVEN_MS }
    }
}

impl Offences {
    /// Adds to what `peer` is to blame for, less what time has forgiven, and returns the sum.
    pub fn blame(&mut self, peer: NodeId, points: u32, now_ms: u64) -> u32 {
        if self.0.len() >= OFFENDERS_MAX && !self.0.contains_key(&peer) {
            let least = self.0.iter().min_by_key(|(_, offence)| offence.points).map(|(peer, _)| *peer);
            least.map(|peer| self.0.remove(&peer));
        }
        let offence = self.0.entry(peer).or_insert(Offence { points: 0, at_ms: now_ms });
        *offence = offence.forgiven(now_ms);
        offence.points = offence.points.saturating_add(points);
        offence.points
    }

    /// Forgets those that were forgiven everything.
    pub fn sweep(&mut self, now_ms: u64) {
        self.0.retain(|_, offence| offence.forgiven(now_ms).points > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_add_up_over_links_and_time_forgives() {
        let peer = NodeId::from_bytes([1; 32]);
        let mut offences = Offences::default();
        assert_eq!(offences.blame(peer, 40, 0), 40);
        assert_eq!(offences.blame(peer, 40, 10 * BLAME_FORGIVEN_MS), 70);
        offences.sweep(100 * BLAME_FORGIVEN_MS);
        assert_eq!(offences.blame(peer, 1, 100 * BLAME_FORGIVEN_MS), 1);
        for number in 0..OFFENDERS_MAX + 10 {
            offences.blame(NodeId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes()), 5, 0);
        }
        assert_eq!(offences.0.len(), OFFENDERS_MAX);
    }
}
