//! What this node's own requests teach it about others before gossip does: what is in flight, who answers later than announced, who has
//! computed the beginning of which conversation, and whose circuit is open.
//!
//! [`Feedback`] is the memory that routing reads; here it gets the time, and the circuit breakers are added. A breaker per (node,
//! capability), fed by requests alone: health pings say nothing about whether work gets done (Nygard, "Release It!"). It opens after a few
//! failures in a row, for a time that doubles, then lets a single request try.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use atmo_capabilities::intent::{Conversation, Intent};
use atmo_capabilities::route::{Breaker, Candidate, Decision, Experience, Feedback, decide};
use atmo_capabilities::view::RoutingView;
use atmo_protocol::CapabilityId;
use rand::Rng;

/// One failure may be chance, three in a row are not.
const FAILURES_TO_OPEN: u8 = 3;
/// How long an opened circuit rests at first, and at most.
const REST_FIRST: Duration = Duration::from_secs(2);
const REST_MAX: Duration = Duration::from_secs(60);
/// Circuits with failures remembered; the longest unused goes first.
const CIRCUITS_MAX: usize = 1024;

/// Shared by all request handlers.
#[derive(Clone)]
pub struct Experiences {
    known: Arc<Mutex<Known>>,
    since: Instant,
}

#[derive(Default)]
struct Known {
    feedback: Feedback,
    /// Those that failed since their last success.
    circuits: BTreeMap<CapabilityId, Circuit>,
}

/// One capability's failures.
struct Circuit {
    failures: u8,
    open_until: Option<Instant>,
    rest: Duration,
    touched: Instant,
}

/// A request in flight. Dropped without a word, it counts neither as success nor as failure (the client hung up).
pub struct InFlight {
    experiences: Experiences,
    id: CapabilityId,
    /// What was announced for its first token.
    announced_ms: f32,
    conversation: Option<Conversation>,
    since: Instant,
}

impl Default for Experiences {
    fn default() -> Self {
        Self { known: Arc::default(), since: Instant::now() }
    }
}

impl Experiences {
    /// Decides with everything that is known now. Decisions take turns: each takes microseconds, and a copy of what is known as long.
    pub fn decide(&self, view: &RoutingView, intent: &Intent, rng: &mut impl Rng) -> Decision {
        let mut known = self.lock();
        known.bring_up_to_date(self.now_ms());
        decide(view, intent, &known.feedback, rng)
    }

    /// Circuits that are not closed, for `atmo status`.
    pub fn open_circuits(&self) -> Vec<CapabilityId> {
        let now = Instant::now();
        let known = self.lock();
        let open = known.circuits.iter().filter(|(id, circuit)| circuit.breaker(known.in_flight(id), now) != Breaker::Closed);
        open.map(|(id, _)| id.clone()).collect()
    }

    /// How long the circuit to `id` rests, if it is open.
    pub fn rests_for(&self, id: &CapabilityId) -> Option<Duration> {
        let until = self.lock().circuits.get(id)?.open_until?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    pub fn start(&self, candidate: &Candidate, conversation: Option<Conversation>) -> InFlight {
        self.begin(candidate.id.clone(), candidate.expected.announced_ms, conversation)
    }

    fn begin(&self, id: CapabilityId, announced_ms: f32, conversation: Option<Conversation>) -> InFlight {
        self.lock().feedback.started(&id);
        InFlight { experiences: self.clone(), id, announced_ms, conversation, since: Instant::now() }
    }

    fn now_ms(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn bring_up_to_date(&mut self, now_ms: u64) {
        self.feedback.advance(now_ms);
        let now = Instant::now();
        for (id, circuit) in &self.circuits {
            let experience = self.feedback.get(id);
            let breaker = circuit.breaker(experience.in_flight, now);
            self.feedback.set(id.clone(), Experience { failures: circuit.failures, breaker, ..experience });
        }
    }

    fn in_flight(&self, id: &CapabilityId) -> u16 {
        self.feedback.get(id).in_flight
    }

    fn failed(&mut self, id: &CapabilityId) {
        self.circuits.entry(id.clone()).or_insert_with(Circuit::new).failed();
        if self.circuits.len() > CIRCUITS_MAX
            && let Some(oldest) = self.circuits.iter().min_by_key(|(_, circuit)| circuit.touched).map(|(id, _)| id.clone())
        {
            self.close(&oldest);
        }
    }

    fn close(&mut self, id: &CapabilityId) {
        if self.circuits.remove(id).is_some() {
            let experience = self.feedback.get(id);
            self.feedback.set(id.clone(), Experience { failures: 0, breaker: Breaker::Closed, ..experience });
        }
    }
}

impl Circuit {
    fn new() -> Self {
        Self { failures: 0, open_until: None, rest: REST_FIRST, touched: Instant::now() }
    }

    fn breaker(&self, in_flight: u16, now: Instant) -> Breaker {
        match self.open_until {
            None => Breaker::Closed,
            Some(until) if until > now => Breaker::Open { retry_in_ms: (until - now).as_millis() as u32 },
            // Somebody is trying already: closed to the others until that is decided.
            Some(_) if in_flight > 0 => Breaker::Open { retry_in_ms: 0 },
            Some(_) => Breaker::HalfOpen,
        }
    }

    fn failed(&mut self) {
        self.touched = Instant::now();
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_TO_OPEN {
            self.open_until = Some(self.touched + self.rest);
            self.rest = (self.rest * 2).min(REST_MAX);
        }
    }
}

impl InFlight {
    /// Its first byte is here: others may try as well, and how late it came is learnt.
    pub fn began(&self) {
        let took_ms = self.since.elapsed().as_secs_f32() * 1_000.0;
        let mut known = self.experiences.lock();
        known.feedback.advance(self.experiences.now_ms());
        known.feedback.answered(&self.id, self.announced_ms, took_ms);
        if let Some(conversation) = self.conversation {
            known.feedback.served(conversation, &self.id);
        }
        if let Some(circuit) = known.circuits.get_mut(&self.id) {
            circuit.open_until = None;
        }
    }

    /// It answered to the end: earlier failures are forgotten.
    pub fn succeeded(&self) {
        self.experiences.lock().close(&self.id);
    }

    /// It had no room and spoke of `wait_ms`. A busy provider has not failed.
    pub fn busy(&self, wait_ms: u32) {
        let mut known = self.experiences.lock();
        known.feedback.advance(self.experiences.now_ms());
        known.feedback.busy(&self.id, self.announced_ms, wait_ms as f32);
    }

    /// It failed by its own fault.
    pub fn failed(&self) {
        self.experiences.lock().failed(&self.id);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.experiences.lock().feedback.ended(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atmo_protocol::{NodeId, Slug};

    fn id() -> CapabilityId {
        CapabilityId { node: NodeId::from_bytes([1; 32]), slug: Slug::from_name("m") }
    }

    fn experience(experiences: &Experiences) -> Experience {
        let mut known = experiences.lock();
        known.bring_up_to_date(0);
        known.feedback.get(&id())
    }

    fn start(experiences: &Experiences) -> InFlight {
        experiences.begin(id(), 100.0, None)
    }

    #[test]
    fn three_failures_in_a_row_open_the_circuit_and_a_success_closes_it() {
        let experiences = Experiences::default();
        for _ in 0..2 {
            start(&experiences).failed();
        }
        assert_eq!(experience(&experiences).breaker, Breaker::Closed);
        start(&experiences).failed();
        assert!(matches!(experience(&experiences).breaker, Breaker::Open { .. }));
        assert_eq!(experiences.open_circuits(), [id()]);
        assert!(experiences.rests_for(&id()).is_some());
        let working = start(&experiences);
        working.began();
        assert_eq!(experience(&experiences).breaker, Breaker::Closed);
        // Answers that break off again and again open it as well.
        working.failed();
        assert!(matches!(experience(&experiences).breaker, Breaker::Open { .. }));
        working.succeeded();
        drop(working);
        let after = experience(&experiences);
        assert_eq!((after.failures, after.breaker, after.in_flight), (0, Breaker::Closed, 0));
        assert!(experiences.open_circuits().is_empty());
    }

    #[test]
    fn a_rested_circuit_lets_one_request_try() {
        let mut circuit = Circuit::new();
        (0..3).for_each(|_| circuit.failed());
        let later = Instant::now() + REST_MAX;
        assert_eq!(circuit.breaker(0, later), Breaker::HalfOpen);
        assert_eq!(circuit.breaker(1, later), Breaker::Open { retry_in_ms: 0 });
    }

    #[test]
    fn hanging_up_counts_as_nothing() {
        let experiences = Experiences::default();
        let flight = start(&experiences);
        assert_eq!(experience(&experiences).in_flight, 1);
        drop(flight);
        assert_eq!(experience(&experiences).in_flight, 0);
    }

    #[test]
    fn who_says_that_it_is_busy_is_expected_to_be_late() {
        let experiences = Experiences::default();
        start(&experiences).busy(30_000);
        assert!(experience(&experiences).late_ms() > 1_000.0);
        assert_eq!(experience(&experiences).failures, 0);
    }
}
