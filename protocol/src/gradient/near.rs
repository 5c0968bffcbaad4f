//! Loads of origins that are near enough to tell, packed: six bytes for each of the first four capabilities, more only for those with more.

use std::collections::BTreeMap;

use super::Slot;
use crate::record::{Load, Offered};

/// Capabilities of an origin whose loads lie in line.
const INLINE: usize = 4;
/// What one tick of a packed time is, milliseconds: it wraps after more than an hour, and loads are let go of long before.
const TICK_MS: u64 = 64;
/// Loads older than this say nothing.
const FORGET_MS: u64 = 15 * 60 * 1_000;

/// What one capability said: running and waiting requests (255 stands for more), tenths of tokens per second, time in ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Packed([u16; 3]);

const NOTHING: Packed = Packed([0, u16::MAX, 0]);

impl Packed {
    fn new(load: &Load, said_ms: u64) -> Self {
        let requests = load.running.min(255) << 8 | load.waiting.min(255);
        let speed = (load.tokens_per_second.max(0.0) * 10.0).min(f32::from(u16::MAX - 1)) as u16;
        Self([requests, speed, (said_ms / TICK_MS) as u16])
    }

    fn load(self, slots: u16) -> Option<Load> {
        let [requests, speed, _] = self.0;
        let tokens_per_second = f32::from(speed) / 10.0;
        (self != NOTHING).then_some(Load { running: requests >> 8, waiting: requests & 0xff, slots, tokens_per_second })
    }

    fn age_ms(self, now_ms: u64) -> u64 {
        u64::from(((now_ms / TICK_MS) as u16).wrapping_sub(self.0[2])) * TICK_MS
    }
}

/// One origin's loads, by position of the capability in its record.
#[derive(Clone, Debug)]
struct Near {
    slot: Slot,
    /// When they were last passed on, in ticks.
    relayed: u16,
    inline: [Packed; INLINE],
}

/// Loads by origin.
#[derive(Clone, Debug, Default)]
pub struct NearLoads {
    /// In order of slot.
    origins: Vec<Near>,
    more: BTreeMap<Slot, Vec<Packed>>,
}

impl NearLoads {
    /// Keeps what a capability said at `said_ms`, unless something fresher is known.
    pub fn put(&mut self, slot: Slot, position: usize, load: &Load, said_ms: u64, now_ms: u64) {
        let at = self.make(slot, now_ms);
        let cell = match position.checked_sub(INLINE) {
            None => &mut self.origins[at].inline[position],
            Some(beyond) => {
                let more = self.more.entry(slot).or_default();
                if more.len() <= beyond {
                    more.resize(beyond + 1, NOTHING);
                }
                &mut more[beyond]
            }
        };
        let age_ms = now_ms.saturating_sub(said_ms);
        if *cell == NOTHING || cell.age_ms(now_ms) + TICK_MS > age_ms {
            *cell = Packed::new(load, said_ms);
        }
    }

    /// What is known of the capability at `position`, and how many milliseconds old it is.
    pub fn get(&self, slot: Slot, position: usize, slots: u16, now_ms: u64) -> Option<(Load, u64)> {
        let cell = match position.checked_sub(INLINE) {
            None => self.near(slot)?.inline[position],
            Some(beyond) => *self.more.get(&slot)?.get(beyond)?,
        };
        Some((cell.load(slots)?, cell.age_ms(now_ms)))
    }

    /// The origin's offers changed: what is still offered keeps what was said of it.
    pub fn moved(&mut self, slot: Slot, before: &[Offered], after: &[Offered], now_ms: u64) {
        if self.near(slot).is_none() || before.iter().map(|offered| &offered.slug).eq(after.iter().map(|offered| &offered.slug)) {
            return;
        }
        let kept: Vec<(usize, Load, u64)> = after
            .iter()
            .enumerate()
            .filter_map(|(to, offered)| {
                let from = before.iter().position(|old| old.slug == offered.slug)?;
                let (load, age_ms) = self.get(slot, from, offered.slots, now_ms)?;
                Some((to, load, age_ms))
            })
            .collect();
        self.forget(slot);
        kept.iter().for_each(|(to, load, age_ms)| self.put(slot, *to, load, now_ms.saturating_sub(*age_ms), now_ms));
    }

    /// Origins whose loads were not passed on for as long as `period_ms` says; they count as passed on. `None` is not to be passed on.
    pub fn due(&mut self, now_ms: u64, period_ms: impl Fn(Slot) -> Option<u64>) -> Vec<Slot> {
        let tick = (now_ms / TICK_MS) as u16;
        let mut due = Vec::new();
        for near in &mut self.origins {
            let waited_ms = u64::from(tick.wrapping_sub(near.relayed)) * TICK_MS;
            if period_ms(near.slot).is_some_and(|period_ms| waited_ms >= period_ms) {
                near.relayed = tick;
                due.push(near.slot);
            }
        }
        due
    }

    pub fn forget(&mut self, slot: Slot) {
        if let Ok(at) = self.place(slot) {
            self.origins.remove(at);
        }
        self.more.remove(&slot);
    }

    /// Lets go of what is too old to say anything.
    pub fn sweep(&mut self, now_ms: u64) {
        let old = |cell: &Packed| *cell == NOTHING || cell.age_ms(now_ms) > FORGET_MS;
        let more = &mut self.more;
        self.origins.retain(|near| {
            let beyond = more.get(&near.slot).is_some_and(|more| !more.iter().all(old));
            beyond || !near.inline.iter().all(old)
        });
        let origins = &self.origins;
        more.retain(|slot, _| origins.binary_search_by_key(slot, |near| near.slot).is_ok());
    }

    /// Bytes that all of this takes.
    pub fn bytes(&self) -> usize {
        let more = self.more.values().map(|more| more.capacity() * size_of::<Packed>() + 48).sum::<usize>();
        self.origins.capacity() * size_of::<Near>() + more
    }

    fn near(&self, slot: Slot) -> Option<&Near> {
        self.place(slot).ok().map(|at| &self.origins[at])
    }

    fn make(&mut self, slot: Slot, now_ms: u64) -> usize {
        self.place(slot).unwrap_or_else(|at| {
            if self.origins.len() == self.origins.capacity() {
                self.origins.reserve_exact(self.origins.len() / 16 + 4);
            }
            let relayed = (now_ms / TICK_MS) as u16;
            self.origins.insert(at, Near { slot, relayed, inline: [NOTHING; INLINE] });
            at
        })
    }

    fn place(&self, slot: Slot) -> Result<usize, usize> {
        self.origins.binary_search_by_key(&slot, |near| near.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{BodyHash, Slug};
    use crate::record::Cost;

    fn load(running: u16) -> Load {
        Load { running, waiting: 2, slots: 4, tokens_per_second: 12.5 }
    }

    fn offered(name: &str) -> Offered {
        Offered { slug: Slug::from_name(name), body: BodyHash::from_bytes([0; 32]), cost: Cost::default(), slots: 4 }
    }

    #[test]
    fn what_was_put_in_comes_out_with_its_age() {
        let mut near = NearLoads::default();
        for position in [0, 3, 4, 63] {
            near.put(Slot(7), position, &load(position as u16), 10_000, 12_000);
            let (found, age_ms) = near.get(Slot(7), position, 4, 14_000).unwrap();
            assert_eq!(found, load(position as u16));
            assert!((3_900..4_200).contains(&age_ms), "{age_ms}");
        }
        assert_eq!(near.get(Slot(7), 1, 4, 14_000), None);
        assert_eq!(near.get(Slot(8), 0, 4, 14_000), None);
    }

    #[test]
    fn what_is_older_does_not_replace_what_is_fresher() {
        let mut near = NearLoads::default();
        near.put(Slot(1), 0, &load(5), 9_000, 10_000);
        near.put(Slot(1), 0, &load(1), 4_000, 10_000);
        assert_eq!(near.get(Slot(1), 0, 4, 10_000).unwrap().0.running, 5);
    }

    #[test]
    fn loads_follow_their_capability_when_offers_change() {
        let mut near = NearLoads::default();
        let (before, after) = ([offered("a"), offered("b")], [offered("0"), offered("b")]);
        near.put(Slot(1), 0, &load(1), 9_000, 10_000);
        near.put(Slot(1), 1, &load(2), 9_000, 10_000);
        near.moved(Slot(1), &before, &after, 10_000);
        assert_eq!(near.get(Slot(1), 0, 4, 10_000), None);
        assert_eq!(near.get(Slot(1), 1, 4, 10_000).unwrap().0.running, 2);
    }

    #[test]
    fn what_is_old_is_let_go_of() {
        let mut near = NearLoads::default();
        near.put(Slot(1), 5, &load(1), 0, 0);
        near.put(Slot(2), 0, &load(1), 600_000, 600_000);
        near.sweep(FORGET_MS + 1_000);
        assert_eq!((near.origins.len(), near.more.len()), (1, 0));
        assert_eq!(size_of::<Near>(), 30 + 2);
    }
}
