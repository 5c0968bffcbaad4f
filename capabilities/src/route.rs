//! The choice: one pure function from what is offered and what is asked to who answers, and why.
//!
//! [`decide`] filters by hard constraints, scores what is left by meaning and by fit, and picks among near-equals at random by weight, so
//! that many who see the same stale picture do not all run to the same node. It says no when nothing fits.

mod contest;
pub mod decision;
pub mod eval;
pub mod feedback;
pub mod filter;
mod ground;
#[cfg(test)]
mod many;
mod meaning;
mod named;
mod pick;
#[cfg(all(test, feature = "rten"))]
mod plain_requests;
mod screen;
mod shortlist;
#[cfg(test)]
mod tests;

use rand::Rng;

pub use decision::{Candidate, Decision, Excluded, ExcludedBy, Quote, Reason, Refusal};
pub use feedback::{Breaker, Experience, Feedback, Lateness};
pub use ground::{FALLBACK_SIMILARITY, FLOOR};
pub use pick::NEAR_EQUAL;
pub use shortlist::PROMISING;

use self::contest::Contest;
use self::ground::Grounds;
use self::pick::Draw;
use self::screen::Screened;
use crate::intent::{Intent, ModelChoice};
use crate::score::price::Rates;
use crate::score::wait::Expected;
use crate::score::{Factors, fit};
use crate::view::RoutingView;

/// Chooses who answers `intent`. Pure: the same view, intent, feedback and random numbers give the same decision.
pub fn decide(view: &RoutingView, intent: &Intent, feedback: &Feedback, rng: &mut impl Rng) -> Decision {
    if view.entries().is_empty() {
        return Decision::refused(Refusal::NothingOffered);
    }
    let scope = match &intent.model {
        ModelChoice::Auto => None,
        ModelChoice::Named(name) => match named::positions(view.roster(), name) {
            Ok(positions) => Some(positions),
            Err(refusal) => return Decision::refused(refusal),
        },
    };
    let screened = Screened::new(view, intent, feedback, scope);
    if screened.eligible_total == 0 {
        let refusal = Refusal::AllExcluded(screened.exclusions());
        return in_words(&screened, Reason::Refused(refusal));
    }
    let grounds = Grounds::new(&screened);
    let affinity = Affinity::of(&screened, feedback);
    let contest = Contest::new(&screened, &grounds, &affinity);
    let mut decision = in_words(&screened, grounds.reason.clone());
    let draw = if decision.refusal().is_none() { Draw::among(view, &contest.near) } else { None };
    let drawn = draw.as_ref().map(|draw| draw.draw(view, &contest.near, rng));
    let best = contest.listed(drawn);
    let candidate = |scored: &Scored| candidate(&screened, &grounds, &affinity, draw.as_ref(), scored);
    decision.candidates = best.iter().map(candidate).collect();
    decision.near_equals = draw.as_ref().map_or(0, |draw| draw.near_equals);
    decision.chosen = drawn.and_then(|drawn| best.iter().position(|scored| scored.position == drawn.position));
    decision
}

/// One eligible entry with its score.
#[derive(Clone, Copy)]
struct Scored {
    position: u32,
    score: f32,
    /// One factor of it.
    load: f32,
    /// Whether it would do for the request.
    fits: bool,
}

impl Scored {
    /// Those that would do before those that would not, then by score, equals by id.
    fn beats(&self, other: &Self) -> bool {
        let (mine, theirs) = ((self.fits, self.score), (other.fits, other.score));
        if mine == theirs { self.position < other.position } else { mine > theirs }
    }
}

/// Who has computed the beginning of the conversation, and what is left for the others.
struct Affinity {
    holder: Option<u32>,
    elsewhere: f32,
}

impl Affinity {
    fn of(screened: &Screened<'_>, feedback: &Feedback) -> Self {
        let holder = screened.intent.conversation.and_then(|conversation| feedback.holder(&conversation).cloned());
        let position = holder.and_then(|id| screened.view.roster().position(&id)).map(|position| position as u32);
        let holder = position.filter(|position| screened.passes(*position));
        Self { holder, elsewhere: if holder.is_some() { fit::elsewhere(screened.tokens) } else { 1.0 } }
    }

    #[inline]
    fn factor(&self, position: u32) -> f32 {
        if self.holder == Some(position) { 1.0 } else { self.elsewhere }
    }
}

/// The factors of an entry that do not depend on the request.
fn factors(view: &RoutingView, position: u32, experience: &Experience) -> Factors {
    let position = position as usize;
    let traits = view.roster().traits(view.roster().body_of(position));
    Factors::of(&view.entries()[position], &view.conditions()[position], traits, experience)
}

/// Puts into words what was found; nobody is chosen yet.
fn in_words(screened: &Screened<'_>, reason: Reason) -> Decision {
    let excluded_by = screened.excluded_by();
    Decision {
        chosen: None,
        candidates: Vec::new(),
        candidates_total: screened.eligible_total,
        near_equals: 0,
        excluded: screened.excluded_in_words(),
        excluded_total: excluded_by.iter().map(|by| by.total).sum(),
        excluded_by,
        quotes: Vec::new(),
        reason,
    }
}

fn candidate(
    screened: &Screened<'_>,
    grounds: &Grounds<'_>,
    affinity: &Affinity,
    draw: Option<&Draw>,
    scored: &Scored,
) -> Candidate {
    let view = screened.view;
    let (routable, condition) = (&view.entries()[scored.position as usize], &view.conditions()[scored.position as usize]);
    let ground = grounds.of(view.roster().body_of(scored.position as usize));
    let experience = screened.experience(scored.position);
    let factors = Factors {
        similarity: ground.similarity,
        complexity: ground.complexity,
        affinity: affinity.factor(scored.position),
        ..factors(view, scored.position, &experience)
    };
    Candidate {
        id: routable.id.clone(),
        name: routable.shown(),
        node_name: routable.node_name.clone(),
        model: routable.capability.name.clone(),
        kind: routable.capability.kind.clone(),
        fits: scored.fits,
        score: scored.score,
        hops: condition.hops,
        factors,
        probability: ground.probability,
        chance: draw.map_or(0.0, |draw| draw.chance(view, scored)),
        expected: Expected::of(condition, routable.slots, &experience, screened.tokens),
        cost: Rates::of(&routable.cost, &routable.capability.facts.energy, &condition.load).estimate(screened.tokens),
    }
}
