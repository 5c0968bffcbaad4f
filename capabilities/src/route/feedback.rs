//! What request handlers know before gossip does: their own requests in flight, recent failures, open circuits.

use std::collections::BTreeMap;

use atmo_protocol::CapabilityId;

use crate::view::Roster;

/// Owned by the handlers, handed to each decision.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Feedback {
    experiences: BTreeMap<CapabilityId, Experience>,
}

/// What happened lately with one capability. The default is "nothing".
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Experience {
    /// Our requests that it is executing or has queued now.
    pub in_flight: u16,
    /// Failures in a row since the last success.
    pub failures: u8,
    pub breaker: Breaker,
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

impl Feedback {
    pub fn get(&self, id: &CapabilityId) -> Experience {
        self.experiences.get(id).copied().unwrap_or_default()
    }

    /// Sets what is known of `id`; nothing noteworthy takes no room.
    pub fn set(&mut self, id: CapabilityId, experience: Experience) {
        if experience == Experience::default() {
            self.experiences.remove(&id);
        } else {
            self.experiences.insert(id, experience);
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

    /// What is known, by position in the roster.
    pub(super) fn by_position(&self, roster: &Roster) -> BTreeMap<u32, Experience> {
        let placed = |(id, experience): (&CapabilityId, &Experience)| Some((roster.position(id)? as u32, *experience));
        self.experiences.iter().filter_map(placed).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&CapabilityId, &Experience)> {
        self.experiences.iter()
    }
}
