//! The gradient table: what this node holds about every origin.
//!
//! A slot per origin. Records are immutable and shared; what is kept of its own for each origin lies in columns (a pointer, a standing, a
//! place in the order of ids) and takes a few dozen bytes with distances and loads, 80 at most. Distances live beside the table by slot
//! number ([`Distances`](crate::distance::Distances)). A slot without a record is a name that somebody told a distance for before the
//! record arrived: it is never shown and never passed on, so a ghost cannot enter by hearsay.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{ORIGIN_BURST, ORIGIN_REFILL_MS, ORIGINS_MAX};
use crate::gossip::ranges::EVERYTHING;
use crate::identity::NodeId;
use crate::liveness::short_number;
use crate::mesh::DeathCause;
use crate::record::Announcement;
use crate::wire::{RangeDigest, Stamp};

mod near;

pub use near::NearLoads;

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

/// One origin, as it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub id: NodeId,
    pub record: Option<&'a Arc<Announcement>>,
    pub standing: Standing,
}

/// How many changes of its record an origin may still make.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    spent: u16,
    /// In units of [`ORIGIN_REFILL_MS`].
    refilled_at: u32,
}

impl Bucket {
    fn is_full(&self, now_ms: u64) -> bool {
        ((now_ms / ORIGIN_REFILL_MS) as u32).wrapping_sub(self.refilled_at) >= u32::from(self.spent)
    }

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
#[derive(Clone, Debug, Default)]
pub struct Gradient {
    /// Slots in use, in order of id; each with the first four bytes of it, which settle almost every comparison.
    order: Vec<(u32, Slot)>,
    records: Vec<Option<Arc<Announcement>>>,
    standings: Vec<Standing>,
    /// Ids of the slots without a record.
    names: BTreeMap<Slot, NodeId>,
    free: Vec<Slot>,
    /// Of origins whose record changed lately.
    buckets: BTreeMap<Slot, Bucket>,
    /// Count and sum of everything leased, as long as nothing changes and until when.
    whole: Cell<Option<(usize, u128, u64)>>,
    refused: u64,
}

impl Gradient {
    pub fn slot(&self, id: &NodeId) -> Option<Slot> {
        self.place(id).ok().map(|at| self.order[at].1)
    }

    /// The slot of `id`, a new one if need be; `None` when the table is full.
    pub fn slot_or_new(&mut self, id: NodeId) -> Option<Slot> {
        let at = match self.place(&id) {
            Ok(at) => return Some(self.order[at].1),
            Err(at) => at,
        };
        if self.is_full() {
            self.refused += 1;
            return None;
        }
        let slot = self.free.pop().unwrap_or(Slot(self.records.len() as u32));
        if slot.0 as usize == self.records.len() {
            make_room(&mut self.records);
            make_room(&mut self.standings);
            self.records.push(None);
            self.standings.push(Standing::Suspected);
        }
        self.standings[slot.0 as usize] = Standing::Suspected;
        self.names.insert(slot, id);
        make_room(&mut self.order);
        self.order.insert(at, (prefix(&id), slot));
        Some(slot)
    }

    pub fn is_full(&self) -> bool {
        self.order.len() >= ORIGINS_MAX
    }

    pub fn get(&self, slot: Slot) -> Option<Origin<'_>> {
        let record = self.records.get(slot.0 as usize)?.as_ref();
        let id = record.map(|held| held.record.node).or_else(|| self.names.get(&slot).copied())?;
        Some(Origin { id, record, standing: self.standings[slot.0 as usize] })
    }

    pub fn record(&self, slot: Slot) -> Option<&Arc<Announcement>> {
        self.records.get(slot.0 as usize)?.as_ref()
    }

    /// The record held of `id`.
    pub fn record_of(&self, id: &NodeId) -> Option<&Arc<Announcement>> {
        self.record(self.slot(id)?)
    }

    pub fn has_record(&self, slot: Slot) -> bool {
        self.record(slot).is_some()
    }

    /// Puts a record in the place of the one before, which is returned. `slot` is that of its node.
    pub fn put_record(&mut self, slot: Slot, record: Arc<Announcement>) -> Option<Arc<Announcement>> {
        self.whole.set(None);
        self.names.remove(&slot);
        self.records[slot.0 as usize].replace(record)
    }

    pub fn standing(&self, slot: Slot) -> Option<Standing> {
        self.standings.get(slot.0 as usize).copied()
    }

    pub fn set_standing(&mut self, slot: Slot, standing: Standing) {
        self.standings[slot.0 as usize] = standing;
    }

    /// Counts one more change of the origin's record; whether it is within its rate.
    pub fn within_rate(&mut self, slot: Slot, now_ms: u64) -> bool {
        self.buckets.entry(slot).or_default().take(now_ms)
    }

    /// Forgets the changes that were long ago.
    pub fn sweep(&mut self, now_ms: u64) {
        self.buckets.retain(|_, bucket| !bucket.is_full(now_ms));
    }

    pub fn remove(&mut self, slot: Slot) {
        let Some(at) = self.get(slot).and_then(|origin| self.place(&origin.id).ok()) else { return };
        self.order.remove(at);
        self.names.remove(&slot);
        self.buckets.remove(&slot);
        self.records[slot.0 as usize] = None;
        self.free.push(slot);
        self.whole.set(None);
    }

    /// Every slot in order of id, those without a record too.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, Origin<'_>)> {
        self.order.iter().filter_map(|(_, slot)| Some((*slot, self.get(*slot)?)))
    }

    /// The slot at a place in the order of ids.
    pub fn nth(&self, at: usize) -> Option<Slot> {
        self.order.get(at).map(|(_, slot)| *slot)
    }

    /// The slot of the first id that begins with these eight bytes.
    pub fn slot_of_short(&self, short: u64) -> Option<Slot> {
        let first = (short >> 32) as u32;
        let at = self
            .order
            .partition_point(|(other, slot)| *other < first || (*other == first && short_number(&self.id_at(*slot)) < short));
        self.nth(at).filter(|slot| short_number(&self.id_at(*slot)) == short)
    }

    /// Slots without a record.
    pub fn nameless(&self) -> impl Iterator<Item = Slot> {
        self.names.keys().copied()
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// How many origins found no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Bytes of its own that the table takes; records are shared.
    pub fn bytes(&self) -> usize {
        let columns = self.records.capacity() * size_of::<Option<Arc<Announcement>>>() + self.standings.capacity();
        let slots = self.order.capacity() * size_of::<(u32, Slot)>() + self.free.capacity() * size_of::<Slot>();
        columns + slots + self.names.len() * 48 + self.buckets.len() * 24
    }

    /// How many records lie in a range, and the sum that stands for them.
    pub fn summary(&self, from: NodeId, to: NodeId, wall_ms: u64) -> (usize, u128) {
        if (from, to) != EVERYTHING {
            let (count, sum, _) = self.add_up(from, to, wall_ms);
            return (count, sum);
        }
        let (count, sum, until_ms) =
            self.whole.get().filter(|whole| wall_ms < whole.2).unwrap_or_else(|| self.add_up(from, to, wall_ms));
        self.whole.set(Some((count, sum, until_ms)));
        (count, sum)
    }

    /// Count, sum and the first lease that runs out.
    fn add_up(&self, from: NodeId, to: NodeId, wall_ms: u64) -> (usize, u128, u64) {
        self.leased_in(from, to, wall_ms).fold((0, 0, u64::MAX), |(count, sum, until_ms), held| {
            (count + 1, sum.wrapping_add(held.fingerprint), until_ms.min(held.record.lease_until_ms))
        })
    }

    /// The stamps in a range.
    pub fn stamps(&self, from: NodeId, to: NodeId, wall_ms: u64) -> Vec<Stamp> {
        self.leased_in(from, to, wall_ms).map(|held| held.stamp()).collect()
    }

    /// The sum alone, ready to be sent.
    pub fn range_summary(&self, from: NodeId, to: NodeId, wall_ms: u64) -> RangeDigest {
        RangeDigest { from, to, fingerprint: self.summary(from, to, wall_ms).1, entries: None }
    }

    /// The records in a range that are still leased at `wall_ms`, in order of origin.
    fn leased_in(&self, from: NodeId, to: NodeId, wall_ms: u64) -> impl Iterator<Item = &Arc<Announcement>> {
        let start = self.place(&from).unwrap_or_else(|at| at);
        let slots = self.order[start..].iter().map(|(_, slot)| *slot);
        let inside = slots.take_while(move |slot| self.id_at(*slot) <= to);
        inside.filter_map(|slot| self.record(slot)).filter(move |held| held.record.lease_until_ms > wall_ms)
    }

    /// Where `id` stands in the order, or would.
    fn place(&self, id: &NodeId) -> Result<usize, usize> {
        let first = prefix(id);
        self.order.binary_search_by(|(other, slot)| other.cmp(&first).then_with(|| self.id_at(*slot).cmp(id)))
    }

    /// The id of a slot in use.
    fn id_at(&self, slot: Slot) -> NodeId {
        match &self.records[slot.0 as usize] {
            Some(held) => held.record.node,
            None => self.names[&slot],
        }
    }
}

fn prefix(id: &NodeId) -> u32 {
    let bytes = id.as_bytes();
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Room for one more, by sixteenths: a column that doubles would cost up to twice what it holds.
fn make_room<T>(column: &mut Vec<T>) {
    if column.len() == column.capacity() {
        column.reserve_exact(column.len() / 16 + 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
