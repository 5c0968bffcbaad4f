//! What will happen, by millisecond: a calendar (Brown 1988) of one bucket for each of the next milliseconds, and a map for what is further
//! away. Taking and adding cost the same however much waits. What falls on one millisecond happens in the order in which it was added.

use std::collections::{BTreeMap, VecDeque};

/// Milliseconds that have a bucket of their own: retransmissions, probes and transport time-outs lie within.
const RING_MS: usize = 1 << 14;
/// Emptied buckets whose memory is used again; the others give it back.
const SPARE_MAX: usize = 1 << 10;

#[derive(Debug)]
pub struct Calendar<T> {
    now_ms: u64,
    due: VecDeque<T>,
    ring: Vec<Vec<T>>,
    spare: Vec<Vec<T>>,
    far: BTreeMap<u64, Vec<T>>,
}

impl<T> Calendar<T> {
    pub fn new() -> Self {
        let ring = (0..RING_MS).map(|_| Vec::new()).collect();
        Self { now_ms: 0, due: VecDeque::new(), ring, spare: Vec::new(), far: BTreeMap::new() }
    }

    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Adds something for `at_ms`, or for this very millisecond if that is over.
    pub fn add(&mut self, at_ms: u64, item: T) {
        if at_ms <= self.now_ms {
            self.due.push_back(item);
        } else if at_ms < self.now_ms + RING_MS as u64 {
            let bucket = &mut self.ring[at_ms as usize % RING_MS];
            if bucket.capacity() == 0 {
                *bucket = self.spare.pop().unwrap_or_default();
            }
            bucket.push(item);
        } else {
            self.far.entry(at_ms).or_default().push(item);
        }
    }

    /// The next thing that happens not after `until_ms`; the clock moves to it, or to `until_ms` when there is none.
    pub fn next(&mut self, until_ms: u64) -> Option<T> {
        loop {
            if let Some(item) = self.due.pop_front() {
                return Some(item);
            }
            if self.now_ms >= until_ms {
                return None;
            }
            self.now_ms += 1;
            // What was far away when it was added was added before whatever found the millisecond near.
            if self.far.first_key_value().is_some_and(|(at_ms, _)| *at_ms == self.now_ms) {
                self.due.extend(self.far.pop_first().into_iter().flat_map(|(_, items)| items));
            }
            let mut bucket = std::mem::take(&mut self.ring[self.now_ms as usize % RING_MS]);
            self.due.extend(bucket.drain(..));
            if bucket.capacity() > 0 && self.spare.len() < SPARE_MAX {
                self.spare.push(bucket);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_order_of_time_and_then_of_addition() {
        let mut calendar = Calendar::new();
        let far_ms = 3 * RING_MS as u64;
        for (at_ms, item) in [(5, "b"), (far_ms, "d"), (5, "c"), (0, "a")] {
            calendar.add(at_ms, item);
        }
        assert_eq!([calendar.next(4), calendar.next(4)], [Some("a"), None]);
        assert_eq!(calendar.now_ms(), 4);
        assert_eq!([calendar.next(5), calendar.next(5), calendar.next(5)], [Some("b"), Some("c"), None]);
        assert_eq!(calendar.next(far_ms - 1), None);
        calendar.add(far_ms, "e");
        assert_eq!([calendar.next(far_ms), calendar.next(far_ms)], [Some("d"), Some("e")]);
    }
}
