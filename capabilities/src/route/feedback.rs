//! What request handlers know before gossip does: their own requests in flight, recent failures, open circuits, how much later than
//! announced somebody answers, and who has computed the beginning of which conversation.
//!
//! Loads are announced, and announcements can be old or untrue. What counts in the end is when the first token came: the difference is
//! learnt by an exponentially weighted mean for each capability, fades in a minute after one surprise (stale news are nobody's fault) and
//! in ever longer times after several (who always says that it is idle is not believed again soon).

use std::collections::BTreeMap;

use atmo_protocol::CapabilityId;

use crate::intent::Conversation;
use crate::view::Roster;

/// Capabilities and conversations remembered; the longest unused goes first.
pub const EXPERIENCES_MAX: usize = 512;
pub const CONVERSATIONS_MAX: usize = 1_024;
/// What a new observation counts for against all before it.
const GAIN: f32 = 0.5;
/// A first token this much later than announced is a surprise, if it is also twice as late.
const SURPRISE_MS: f32 = 1_000.0;
/// Less than this is no news, and takes no room.
const NOTEWORTHY_MS: f32 = 50.0;
/// The time in which what was learnt counts half, after one surprise or none; each further one doubles it.
const FADING_MS: f32 = 60_000.0;
const DOUBLINGS_MAX: u8 = 5;
/// What a refusal for want of room counts for at least, and any observation at most.
const BUSY_MS_MIN: f32 = 4_000.0;
const LATE_MS_MAX: f32 = 120_000.0;

/// Owned by the handlers, handed to each decision.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Feedback {
    now_ms: u64,
    experiences: BTreeMap<CapabilityId, Experience>,
    /// By their heads: who answered last, and the number of that answer.
    conversations: BTreeMap<u64, (CapabilityId, u64)>,
    answers: u64,
}

/// What happened lately with one capability. The default is "nothing".
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Experience {
    /// Our requests that it is executing or has queued now.
    pub in_flight: u16,
    /// Failures in a row since the last success.
    pub failures: u8,
    pub breaker: Breaker,
    pub late: Lateness,
}

/// How much later than announced first tokens came.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Lateness {
    pub ms: f32,
    /// Surprises in a row, less half of them for each answer in time.
    pub surprises: u8,
    /// When that was so.
    pub at_ms: u64,
}

/// The circuit to one capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Breaker {
    #[default]
    Closed,
    /// One request may try.
    HalfOpen,
    /// Nothing is sent for this long.
    Open { retry_in_ms: u32 },
}

impl Experience {
    /// How much later than announced a first token is to be expected, in milliseconds.
    pub fn late_ms(&self) -> f32 {
        self.late.ms
    }

    fn at(self, now_ms: u64) -> Self {
        Self { late: self.late.at(now_ms), ..self }
    }

    /// Nothing runs and nothing failed: what is left fades by itself.
    fn is_idle(&self) -> bool {
        Self { late: Lateness::default(), ..*self } == Self::default()
    }

    fn is_noteworthy(&self) -> bool {
        !self.is_idle() || self.late.ms >= NOTEWORTHY_MS
    }
}

impl Lateness {
    /// Faded until `now_ms`.
    fn at(self, now_ms: u64) -> Self {
        let doublings = self.surprises.saturating_sub(1).min(DOUBLINGS_MAX);
        let halvings = now_ms.saturating_sub(self.at_ms) as f32 / (FADING_MS * f32::from(1u8 << doublings));
        Self { ms: self.ms * (-halvings).exp2(), at_ms: self.at_ms.max(now_ms), ..self }
    }

    /// With one more first token, which came `late_ms` later than in `announced_ms`.
    fn learn(self, late_ms: f32, announced_ms: f32, now_ms: u64) -> Self {
        let Self { ms, surprises, at_ms } = self.at(now_ms);
        let late_ms = if late_ms.is_finite() { late_ms.clamp(0.0, LATE_MS_MAX) } else { 0.0 };
        let surprising = late_ms > announced_ms.max(SURPRISE_MS);
        let surprises = if surprising { surprises.saturating_add(1) } else { surprises / 2 };
        Self { ms: ms + GAIN * (late_ms - ms), surprises, at_ms }
    }
}

impl Feedback {
    /// Tells the time, on a clock that never goes back: what was learnt fades. Call it before a decision.
    pub fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    pub fn get(&self, id: &CapabilityId) -> Experience {
        self.experiences.get(id).copied().unwrap_or_default().at(self.now_ms)
    }

    /// Sets what is known of `id`; nothing noteworthy takes no room.
    pub fn set(&mut self, id: CapabilityId, experience: Experience) {
        if !experience.is_noteworthy() {
            self.experiences.remove(&id);
            return;
        }
        self.experiences.insert(id, experience);
        if self.experiences.len() > EXPERIENCES_MAX {
            self.forget_oldest();
        }
    }

    /// A request to `id` starts.
    pub fn started(&mut self, id: &CapabilityId) {
        let experience = self.get(id);
        self.set(id.clone(), Experience { in_flight: experience.in_flight.saturating_add(1), ..experience });
    }

    /// A request to `id` ended, however it ended.
    pub fn ended(&mut self, id: &CapabilityId) {
        let experience = self.get(id);
        self.set(id.clone(), Experience { in_flight: experience.in_flight.saturating_sub(1), ..experience });
    }

    /// The first token of `id` came `took_ms` after it was asked, where [`announced_ms`](crate::score::wait::Expected::announced_ms) was
    /// to be expected.
    pub fn answered(&mut self, id: &CapabilityId, announced_ms: f32, took_ms: f32) {
        self.learn(id, announced_ms, took_ms - announced_ms);
    }

    /// `id` had no room and spoke of `wait_ms`.
    pub fn busy(&mut self, id: &CapabilityId, announced_ms: f32, wait_ms: f32) {
        self.learn(id, announced_ms, (wait_ms - announced_ms).max(BUSY_MS_MIN));
    }

    /// `id` has answered in `conversation`: its next turn finds the prefix there.
    pub fn served(&mut self, conversation: Conversation, id: &CapabilityId) {
        self.answers += 1;
        self.conversations.insert(conversation.head, (id.clone(), self.answers));
        if self.conversations.len() > CONVERSATIONS_MAX {
            let oldest = self.conversations.iter().min_by_key(|(_, (_, answer))| *answer).map(|(head, _)| *head);
            oldest.map(|head| self.conversations.remove(&head));
        }
    }

    /// Who has computed the beginning of a conversation that goes on.
    pub fn holder(&self, conversation: &Conversation) -> Option<&CapabilityId> {
        self.conversations.get(&conversation.head).filter(|_| conversation.continued).map(|(id, _)| id)
    }

    /// What is worth knowing now, by position in the roster, ascending.
    pub(super) fn by_position(&self, roster: &Roster) -> Vec<(u32, Experience)> {
        let now = self.experiences.iter().map(|(id, experience)| (id, experience.at(self.now_ms)));
        let noteworthy = now.filter(|(_, experience)| experience.is_noteworthy());
        noteworthy.filter_map(|(id, experience)| Some((roster.position(id)? as u32, experience))).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&CapabilityId, &Experience)> {
        self.experiences.iter()
    }

    fn learn(&mut self, id: &CapabilityId, announced_ms: f32, late_ms: f32) {
        let experience = self.get(id);
        let late = experience.late.learn(late_ms, announced_ms, self.now_ms);
        self.set(id.clone(), Experience { late, ..experience });
    }

    /// Makes room: of those that only learning is known of, the longest unheard; else of all.
    fn forget_oldest(&mut self) {
        let oldest = self.experiences.iter().min_by_key(|(_, experience)| (!experience.is_idle(), experience.late.at_ms));
        if let Some(id) = oldest.map(|(id, _)| id.clone()) {
            self.experiences.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use atmo_protocol::{NodeId, Slug};

    use super::*;

    fn id(number: u16) -> CapabilityId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        CapabilityId { node: NodeId::from_bytes(bytes), slug: Slug::from_name("m") }
    }

    #[test]
    fn one_surprise_fades_in_minutes_and_many_stay() {
        let mut feedback = Feedback::default();
        feedback.answered(&id(1), 200.0, 20_200.0);
        assert_eq!(feedback.get(&id(1)).late_ms(), 10_000.0);
        for _ in 0..8 {
            feedback.busy(&id(2), 200.0, 20_200.0);
        }
        feedback.advance(300_000);
        assert!(feedback.get(&id(1)).late_ms() < 500.0);
        assert!(feedback.get(&id(2)).late_ms() > 15_000.0);
        for _ in 0..8 {
            feedback.answered(&id(2), 200.0, 250.0);
        }
        assert!(feedback.get(&id(2)).late_ms() < 200.0, "who keeps its word is believed again");
    }

    #[test]
    fn tables_are_bounded_and_what_runs_is_kept() {
        let mut feedback = Feedback::default();
        feedback.started(&id(0));
        let last = 2 * EXPERIENCES_MAX.max(CONVERSATIONS_MAX) as u16;
        for number in 1..=last {
            feedback.advance(u64::from(number));
            feedback.answered(&id(number), 0.0, 5_000.0);
            feedback.served(Conversation { head: u64::from(number), continued: true }, &id(number));
        }
        assert_eq!(feedback.iter().count(), EXPERIENCES_MAX);
        assert_eq!(feedback.get(&id(0)).in_flight, 1);
        assert_eq!(feedback.conversations.len(), CONVERSATIONS_MAX);
        assert_eq!(feedback.holder(&Conversation { head: 1, continued: true }), None);
        assert_eq!(feedback.holder(&Conversation { head: u64::from(last), continued: true }), Some(&id(last)));
        feedback.ended(&id(0));
        assert_eq!(
            feedback.get(&id(0)),
            Experience { late: Lateness { at_ms: u64::from(last), ..Lateness::default() }, ..Experience::default() }
        );
    }

    #[test]
    fn nonsense_is_not_learnt() {
        let mut feedback = Feedback::default();
        for (announced_ms, took_ms) in [(f32::NAN, 1.0), (1.0, f32::INFINITY), (f32::NEG_INFINITY, 1.0), (5.0, -1e30)] {
            feedback.answered(&id(1), announced_ms, took_ms);
            assert!((0.0..=LATE_MS_MAX).contains(&feedback.get(&id(1)).late_ms()));
        }
    }
}
