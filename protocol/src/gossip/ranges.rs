//! Reconciliation by ranges: two tables find their differences at a cost that grows with the difference.
//!
//! After Meyer's range-based set reconciliation (2022). A range of origins is told as one sum; where the sums differ the range is split,
//! and once it is small its stamps are listed. A listed range is compared entry by entry: what is newer here is pushed, what is newer there
//! is fetched. Nothing is concluded from what lies outside the range that was named.

use crate::config::{RANGE_LISTED_MAX, RANGE_PARTS};
use crate::gradient::Gradient;
use crate::identity::NodeId;
use crate::wire::{RangeDigest, Stamp};

/// The least and the greatest id: the range of everything.
pub const EVERYTHING: (NodeId, NodeId) = (NodeId::from_bytes([0; 32]), NodeId::from_bytes([0xff; 32]));

/// What comparing one range leads to.
#[derive(Debug, Default, PartialEq)]
pub struct Comparison {
    /// Held newer here, or only here.
    pub push: Vec<NodeId>,
    /// Held newer there, or only there.
    pub fetch: Vec<NodeId>,
    /// To be sent back.
    pub ranges: Vec<RangeDigest>,
}

/// Compares what a peer said about one range with our table.
pub fn compare(table: &Gradient, theirs: &RangeDigest, wall_ms: u64) -> Comparison {
    let mut comparison = Comparison::default();
    let (count, sum) = table.summary(theirs.from, theirs.to, wall_ms);
    if sum == theirs.fingerprint {
        return comparison;
    }
    match &theirs.entries {
        Some(entries) => compare_entries(table, theirs, entries, wall_ms, &mut comparison),
        None if count <= RANGE_LISTED_MAX => comparison.ranges.push(listed(table, theirs.from, theirs.to, wall_ms)),
        None => comparison.ranges = split(table, theirs.from, theirs.to, wall_ms),
    }
    comparison
}

fn listed(table: &Gradient, from: NodeId, to: NodeId, wall_ms: u64) -> RangeDigest {
    RangeDigest { entries: Some(table.stamps(from, to, wall_ms)), ..table.range_summary(from, to, wall_ms) }
}

/// Parts of equal size by our own table; together they cover the range without gaps.
fn split(table: &Gradient, from: NodeId, to: NodeId, wall_ms: u64) -> Vec<RangeDigest> {
    let stamps = table.stamps(from, to, wall_ms);
    let part = stamps.len().div_ceil(RANGE_PARTS).max(1);
    let mut starts: Vec<NodeId> = stamps.iter().step_by(part).map(|stamp| stamp.origin).collect();
    starts[0] = from;
    let ends = starts.iter().skip(1).map(|start| before(*start)).chain([to]);
    starts.iter().zip(ends).map(|(start, end)| table.range_summary(*start, end, wall_ms)).collect()
}

/// The greatest id below `id`, which is not the least.
fn before(id: NodeId) -> NodeId {
    let mut bytes = *id.as_bytes();
    for byte in bytes.iter_mut().rev() {
        let borrow = *byte == 0;
        *byte = byte.wrapping_sub(1);
        if !borrow {
            break;
        }
    }
    NodeId::from_bytes(bytes)
}

fn compare_entries(table: &Gradient, range: &RangeDigest, entries: &[Stamp], wall_ms: u64, into: &mut Comparison) {
    let ours = table.stamps(range.from, range.to, wall_ms);
    let theirs = |id: &NodeId| entries.binary_search_by(|entry| entry.origin.cmp(id)).ok().map(|at| entries[at]);
    for stamp in &ours {
        if theirs(&stamp.origin).is_none_or(|theirs| theirs.number() < stamp.number()) {
            into.push.push(stamp.origin);
        }
    }
    for stamp in entries {
        let held = table.record_of(&stamp.origin).map(|held| held.stamp().number());
        if (range.from..=range.to).contains(&stamp.origin) && held.is_none_or(|held| held < stamp.number()) {
            into.fetch.push(stamp.origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::identity::{CertificateHash, MeshId};
    use crate::record::{Announcement, Mode, NodeRecord};
    use crate::wire::Blob;

    fn announcement(origin: u16, sequence: u64) -> Arc<Announcement> {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&origin.wrapping_mul(40_503).to_be_bytes());
        let record = NodeRecord {
            mesh: MeshId::from_bytes([0; 32]),
            node: NodeId::from_bytes(id),
            certificate: CertificateHash::from_bytes([0; 32]),
            incarnation: 1,
            sequence,
            lease_until_ms: 100,
            mode: Mode::Participant,
            name: String::new(),
            labels: Vec::new(),
            addresses: Vec::new(),
            neighbours: Vec::new(),
            capabilities: Vec::new(),
            extensions: Vec::new(),
        };
        let stamp = Stamp { origin: record.node, incarnation: 1, sequence };
        Arc::new(Announcement { record, bytes: Blob(Arc::from([])), fingerprint: stamp.fingerprint() })
    }

    fn put(table: &mut Gradient, announcement: &Arc<Announcement>) {
        let slot = table.slot_or_new(announcement.record.node).unwrap();
        table.put_record(slot, Arc::clone(announcement));
    }

    /// Lets two tables talk, each pushing and being asked for what it holds; returns the bytes of digests.
    fn reconcile(tables: &mut [Gradient; 2]) -> usize {
        let (mut bytes, mut turn) = (0, 0);
        let mut ranges = vec![tables[0].range_summary(EVERYTHING.0, EVERYTHING.1, 0)];
        while !ranges.is_empty() {
            turn = 1 - turn;
            bytes += crate::codec::encode(&ranges).len();
            let mut back = Vec::new();
            for range in &ranges {
                let comparison = compare(&tables[turn], range, 0);
                copy(tables, turn, 1 - turn, &comparison.push);
                copy(tables, 1 - turn, turn, &comparison.fetch);
                back.extend(comparison.ranges);
            }
            ranges = back;
        }
        bytes
    }

    fn copy(tables: &mut [Gradient; 2], from: usize, to: usize, origins: &[NodeId]) {
        for origin in origins {
            let held = Arc::clone(tables[from].record_of(origin).unwrap());
            put(&mut tables[to], &held);
        }
    }

    fn stamps(table: &Gradient) -> Vec<Stamp> {
        table.stamps(EVERYTHING.0, EVERYTHING.1, 0)
    }

    #[test]
    fn the_cost_grows_with_the_difference() {
        let mut tables = [Gradient::default(), Gradient::default()];
        for origin in 0..2_000 {
            let announcement = announcement(origin, 1);
            tables.iter_mut().for_each(|table| put(table, &announcement));
        }
        let nothing = reconcile(&mut tables);
        put(&mut tables[0], &announcement(700, 2));
        let one = reconcile(&mut tables);
        assert_eq!(stamps(&tables[0]), stamps(&tables[1]));
        assert!(nothing < 100 && one < 8_000, "{nothing} and {one} bytes, the whole list takes 80,000");
    }

    #[test]
    fn what_was_not_named_is_not_missing() {
        let mut table = Gradient::default();
        (0..10).for_each(|origin| put(&mut table, &announcement(origin, 1)));
        let all = stamps(&table);
        let range = RangeDigest { from: all[3].origin, to: all[5].origin, fingerprint: 0, entries: Some(Vec::new()) };
        assert_eq!(compare(&table, &range, 0).push, [all[3].origin, all[4].origin, all[5].origin]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn two_tables_agree_afterwards(
            both in proptest::collection::vec(any::<u16>(), 0..400),
            differences in proptest::collection::vec((any::<u16>(), 0_u64..3, 0_usize..2), 0..60),
        ) {
            let mut tables = [Gradient::default(), Gradient::default()];
            let mut seen = BTreeSet::new();
            for origin in both.into_iter().filter(|origin| seen.insert(*origin)) {
                tables.iter_mut().for_each(|table| put(table, &announcement(origin, 1)));
            }
            for (origin, sequence, table) in differences {
                put(&mut tables[table], &announcement(origin, sequence));
            }
            reconcile(&mut tables);
            prop_assert_eq!(stamps(&tables[0]), stamps(&tables[1]));
        }
    }
}
