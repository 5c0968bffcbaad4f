//! What a [`Mesh`](crate::mesh::Mesh) waits for, kept as data: a replay sees the same deadlines, a simulator jumps to the next one.
//!
//! After quinn-proto's timer table: one deadline per purpose, no wheel, no handles to cancel.

use std::collections::BTreeMap;

/// One purpose each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// Sign the own record again.
    Sign,
    /// Say that we are here, and notice silent links.
    Links,
    /// Believe longer ways again.
    Holds,
    /// Tell the distances that were gathered.
    Distances,
    /// Suspicions that become deaths, accusations to repeat.
    Verdicts,
    /// Reconcile with one link.
    Digest,
    /// Ask for missing bodies and chains.
    Fetch,
    Dial,
    /// Fill and trim the active view.
    View,
    /// The first link may have told everything.
    Bootstrap,
    /// Tell changed loads at once.
    Loads,
    /// Close revoked peers' connections, ask again what is revoked.
    Revocations,
    /// Expire leases, forget tombstones, sweep what nobody names.
    Sweep,
}

/// Deadlines in monotonic milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Timers(BTreeMap<Timer, u64>);

impl Timers {
    /// Sets or moves a deadline.
    pub fn set(&mut self, timer: Timer, at_ms: u64) {
        self.0.insert(timer, at_ms);
    }

    /// Moves a deadline forward in time only if it is not set or later.
    pub fn sooner(&mut self, timer: Timer, at_ms: u64) {
        let at = self.0.entry(timer).or_insert(at_ms);
        *at = (*at).min(at_ms);
    }

    /// Sets the deadline, or clears it with `None`.
    pub fn put(&mut self, timer: Timer, at_ms: Option<u64>) {
        match at_ms {
            Some(at_ms) => self.set(timer, at_ms),
            None => _ = self.0.remove(&timer),
        }
    }

    pub fn next_ms(&self) -> Option<u64> {
        self.0.values().min().copied()
    }

    /// Takes out the earliest timer that is due, ties in order of purpose.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<Timer> {
        let (at, timer) = self.0.iter().map(|(timer, at)| (*at, *timer)).min()?;
        (at <= now_ms).then(|| {
            self.0.remove(&timer);
            timer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_once() {
        let mut timers = Timers::default();
        timers.set(Timer::Digest, 50);
        timers.sooner(Timer::Digest, 70);
        timers.sooner(Timer::Sign, 50);
        timers.set(Timer::Dial, 10);
        timers.put(Timer::Dial, None);
        assert_eq!(timers.next_ms(), Some(50));
        assert_eq!(timers.pop_due(49), None);
        assert_eq!([timers.pop_due(50), timers.pop_due(50), timers.pop_due(50)], [Some(Timer::Sign), Some(Timer::Digest), None]);
    }
}
