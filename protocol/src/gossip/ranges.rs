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
