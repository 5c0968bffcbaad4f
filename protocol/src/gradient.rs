//! The gradient table: what this node holds about every origin.
//!
//! A slot per origin, 80 bytes of its own at most; the record itself is immutable and shared. Distances live beside it by slot number
//! ([`Distances`](crate::distance::Distances)). A slot without a record is a name that somebody told a distance for before the record
//! arrived: it is never shown and never passed on, so a ghost cannot enter by hearsay.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{ORIGIN_BURST, ORIGIN_REFILL_MS, ORIGINS_MAX};
use crate::identity::{NodeId, Slug};
use crate::mesh::DeathCause;
use crate::record::{Announcement, Load};
use crate::wire::{RangeDigest, Stamp};

/// Number of an origin in the table, used again after it was forgotten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Slot(pub u32);

/// What is believed about an origin's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    Alive,
    /// The last choice of routing, and out of lists of what is there, until something newer is heard.
    Suspected,
    Dead(DeathCause),
    /// It signed two records with one number; nothing it says counts.
    Quarantined,
}

/// One origin.
#[derive(Clone, Debug)]
pub struct Origin {
    pub id: NodeId,
    pub record: Option<Arc<Announcement>>,
    pub standing: Standing,
    /// Where it is near enough to tell.
    pub loads: Option<Box<Loads>>,
    bucket: Bucket,
}

/// What an origin said about how busy it is, and when (monotonic milliseconds).
pub type Loads = BTreeMap<Slug, (Load, u64)>;

/// How many changes of its record an origin may still make.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    spent: u16,
    /// In units of [`ORIGIN_REFILL_MS`].
    refilled_at: u32,
}

impl Bucket {
    fn take(&mut self, now_ms: u64) -> bool {
        let at = (now_ms / ORIGIN_REFILL_MS) as u32;
        let regained = at.wrapping_sub(self.refilled_at);
        self.spent = u32::from(self.spent).saturating_sub(regained) as u16;
        self.refilled_at = at;
        let within = u32::from(self.spent) < ORIGIN_BURST;
        self.spent += u16::from(within);
        within
    }
}

/// All origins, this node among them.
#[derive(Debug, Default)]
pub struct Gradient {
    index: BTreeMap<NodeId, Slot>,
    origins: Vec<Option<Origin>>,
    free: Vec<Slot>,
    refused: u64,
}

impl Gradient {
    pub fn slot(&self, id: &NodeId) -> Option<Slot> {
        self.index.get(id).copied()
    }

    /// The slot of `id`, a new one if need be; `None` when the table is full.
    pub fn slot_or_new(&mut self, id: NodeId) -> Option<Slot> {
        if let Some(slot) = self.slot(&id) {
            return Some(slot);
        }
        if self.is_full() {
            self.refused += 1;
            return None;
        }
        let slot = self.free.pop().unwrap_or(Slot(self.origins.len() as u32));
        if slot.0 as usize == self.origins.len() {
            self.origins.push(None);
        }
        let bucket = Bucket { spent: 0, refilled_at: 0 };
        self.origins[slot.0 as usize] = Some(Origin { id, record: None, standing: Standing::Suspected, loads: None, bucket });
        self.index.insert(id, slot);
        Some(slot)
    }

    pub fn is_full(&self) -> bool {
        self.index.len() >= ORIGINS_MAX
    }

    pub fn get(&self, slot: Slot) -> Option<&Origin> {
        self.origins.get(slot.0 as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Origin> {
        self.origins.get_mut(slot.0 as usize)?.as_mut()
    }

    pub fn record(&self, slot: Slot) -> Option<&Arc<Announcement>> {
        self.get(slot)?.record.as_ref()
    }

    /// The record held of `id`.
    pub fn record_of(&self, id: &NodeId) -> Option<&Arc<Announcement>> {
        self.record(self.slot(id)?)
    }

    pub fn has_record(&self, slot: Slot) -> bool {
        self.record(slot).is_some()
    }

    /// Counts one more change of the origin's record; whether it is within its rate.
    pub fn within_rate(&mut self, slot: Slot, now_ms: u64) -> bool {
        self.get_mut(slot).is_none_or(|origin| origin.bucket.take(now_ms))
    }

    pub fn remove(&mut self, slot: Slot) {
        if let Some(origin) = self.origins.get_mut(slot.0 as usize).and_then(Option::take) {
            self.index.remove(&origin.id);
            self.free.push(slot);
        }
    }

    /// Every slot in order of id, those without a record too.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Origin)> {
        self.index.values().filter_map(|slot| Some((*slot, self.get(*slot)?)))
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many origins found no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The records in a range that are still leased at `wall_ms`, in order of origin.
    fn leased_in(&self, from: NodeId, to: NodeId, wall_ms: u64) -> impl Iterator<Item = &Arc<Announcement>> {
        let slots = (from <= to).then(|| self.index.range(from..=to)).into_iter().flatten();
        slots.filter_map(|(_, slot)| self.record(*slot)).filter(move |held| held.record.lease_until_ms > wall_ms)
    }

    /// How many records lie in a range, and the sum that stands for them.
    pub fn summary(&self, from: NodeId, to: NodeId, wall_ms: u64) -> (usize, u128) {
        self.leased_in(from, to, wall_ms).fold((0, 0), |(count, sum), held| (count + 1, sum.wrapping_add(held.fingerprint)))
    }

    /// The stamps in a range.
    pub fn stamps(&self, from: NodeId, to: NodeId, wall_ms: u64) -> Vec<Stamp> {
        self.leased_in(from, to, wall_ms).map(|held| held.stamp()).collect()
    }

    /// The sum alone, ready to be sent.
    pub fn range_summary(&self, from: NodeId, to: NodeId, wall_ms: u64) -> RangeDigest {
        RangeDigest { from, to, fingerprint: self.summary(from, to, wall_ms).1, entries: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_of_its_own_is_small() {
        assert!(size_of::<Option<Origin>>() <= 80, "{} bytes", size_of::<Option<Origin>>());
    }

    #[test]
    fn slots_are_reused_and_bounded() {
        let mut table = Gradient::default();
        let id = |n: u8| NodeId::from_bytes([n; 32]);
        let first = table.slot_or_new(id(1));
        assert_eq!(first, table.slot_or_new(id(1)));
        table.remove(first.unwrap());
        assert_eq!(table.slot(&id(1)), None);
        assert_eq!(table.slot_or_new(id(2)), first);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_fast_origin_runs_out_and_recovers() {
        let mut bucket = Bucket { spent: 0, refilled_at: 0 };
        let now = 1_000_000;
        assert_eq!((0..100).filter(|_| bucket.take(now)).count(), ORIGIN_BURST as usize);
        assert_eq!((0..100).filter(|_| bucket.take(now + 3 * ORIGIN_REFILL_MS)).count(), 3);
    }
}
