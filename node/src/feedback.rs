//! What this node's own requests teach it about others before gossip does: what is in flight, and whose circuit is open.
//!
//! A circuit breaker per (node, capability), fed by requests alone: health pings say nothing about whether work gets done (Nygard,
//! "Release It!"). It opens after a few failures in a row, for a time that doubles, then lets a single request try.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use atmo_capabilities::route::{Breaker, Experience, Feedback};
use atmo_protocol::CapabilityId;

/// One failure may be chance, three in a row are not.
const FAILURES_TO_OPEN: u8 = 3;
/// How long an opened circuit rests at first, and at most.
const REST_FIRST: Duration = Duration::from_secs(2);
const REST_MAX: Duration = Duration::from_secs(60);
/// Capabilities remembered; the longest unused goes first.
const REMEMBERED_MAX: usize = 4096;

/// Shared by all request handlers.
#[derive(Clone, Default)]
pub struct Experiences(Arc<Mutex<BTreeMap<CapabilityId, Record>>>);

/// What happened with one capability.
struct Record {
    in_flight: u16,
    failures: u8,
    open_until: Option<Instant>,
    rest: Duration,
    touched: Instant,
}

/// A request in flight. Dropped without a word, it counts neither as success nor as failure (the client hung up).
pub struct InFlight {
    experiences: Experiences,
    id: CapabilityId,
}

impl Experiences {
    /// What routing should know now.
    pub fn feedback(&self) -> Feedback {
        let now = Instant::now();
        let mut feedback = Feedback::default();
        for (id, record) in self.lock().iter() {
            feedback.set(id.clone(), record.experience(now));
        }
        feedback
    }

    /// Circuits that are not closed, for `atmo status`.
    pub fn open_circuits(&self) -> Vec<CapabilityId> {
        let now = Instant::now();
        self.lock()
            .iter()
            .filter(|(_, record)| record.experience(now).breaker != Breaker::Closed)
            .map(|(id, _)| id.clone())
            .collect()
    }

    pub fn start(&self, id: &CapabilityId) -> InFlight {
        let mut records = self.lock();
        let record = records.entry(id.clone()).or_insert_with(Record::new);
        record.in_flight = record.in_flight.saturating_add(1);
        record.touched = Instant::now();
        forget_oldest(&mut records);
        InFlight { experiences: self.clone(), id: id.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<CapabilityId, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget_oldest(records: &mut BTreeMap<CapabilityId, Record>) {
    if records.len() <= REMEMBERED_MAX {
        return;
    }
    let idle = records.iter().filter(|(_, record)| record.in_flight == 0);
    if let Some(id) = idle.min_by_key(|(_, record)| record.touched).map(|(id, _)| id.clone()) {
        records.remove(&id);
    }
}

impl Record {
    fn new() -> Self {
        Self { in_flight: 0, failures: 0, open_until: None, rest: REST_FIRST, touched: Instant::now() }
    }

    fn experience(&self, now: Instant) -> Experience {
        let breaker = match self.open_until {
            None => Breaker::Closed,
            Some(until) if until > now => Breaker::Open { retry_in_ms: (until - now).as_millis() as u32 },
            // Somebody is trying already: closed to the others until that is decided.
            Some(_) if self.in_flight > 0 => Breaker::Open { retry_in_ms: 0 },
            Some(_) => Breaker::HalfOpen,
        };
        Experience { in_flight: self.in_flight, failures: self.failures, breaker, ..Experience::default() }
    }

    fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_TO_OPEN {
            self.open_until = Some(Instant::now() + self.rest);
            self.rest = (self.rest * 2).min(REST_MAX);
        }
    }

    fn succeeded(&mut self) {
        *self = Self { in_flight: self.in_flight, ..Self::new() };
    }
}

impl InFlight {
    /// It answered: the circuit closes.
    pub fn succeeded(&self) {
        self.record(Record::succeeded);
    }

    /// It failed by its own fault. A busy provider has not failed.
    pub fn failed(&self) {
        self.record(Record::failed);
    }

    fn record(&self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.experiences.lock().get_mut(&self.id) {
            change(record);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.record(|record| record.in_flight = record.in_flight.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atmo_protocol::{NodeId, Slug};

    fn id() -> CapabilityId {
        CapabilityId { node: NodeId::from_bytes([1; 32]), slug: Slug::from_name("m") }
    }

    #[test]
    fn three_failures_in_a_row_open_the_circuit_and_a_success_closes_it() {
        let experiences = Experiences::default();
        for _ in 0..2 {
            experiences.start(&id()).failed();
        }
        assert_eq!(experiences.feedback().get(&id()).breaker, Breaker::Closed);
        experiences.start(&id()).failed();
        assert!(matches!(experiences.feedback().get(&id()).breaker, Breaker::Open { .. }));
        assert_eq!(experiences.open_circuits(), [id()]);
        experiences.start(&id()).succeeded();
        assert_eq!(experiences.feedback().get(&id()), Experience::default());
    }

    #[test]
    fn a_rested_circuit_lets_one_request_try() {
        let mut record = Record::new();
        (0..3).for_each(|_| record.failed());
        let later = Instant::now() + REST_MAX;
        assert_eq!(record.experience(later).breaker, Breaker::HalfOpen);
        record.in_flight = 1;
        assert_eq!(record.experience(later).breaker, Breaker::Open { retry_in_ms: 0 });
    }

    #[test]
    fn hanging_up_counts_as_nothing() {
        let experiences = Experiences::default();
        let flight = experiences.start(&id());
        assert_eq!(experiences.feedback().get(&id()).in_flight, 1);
        drop(flight);
        assert_eq!(experiences.feedback().get(&id()), Experience::default());
    }
}
