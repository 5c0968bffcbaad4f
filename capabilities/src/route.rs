//! The choice: one pure function from what is offered and what is asked to who answers, and why.
//!
//! [`decide`] filters by hard constraints, scores what is left by meaning and by fit, and picks among near-equals at random by weight, so
//! that many who see the same stale picture do not all run to the same node. It says no when nothing fits.

pub mod decision;
pub mod eval;
pub mod feedback;
pub mod filter;
mod ground;
#[cfg(test)]
mod many;
mod meaning;
mod named;
#[cfg(all(test, feature = "rten"))]
mod plain_requests;
mod screen;
mod shortlist;
#[cfg(test)]
mod tests;

use rand::{Rng, RngExt};

pub use decision::{Candidate, Decision, Excluded, Reason, Refusal};
pub use feedback::{Breaker, Experience, Feedback};
pub use ground::{FALLBACK_SIMILARITY, FLOOR};
pub use shortlist::PROMISING;

use self::decision::CANDIDATES_MAX;
use self::ground::Grounds;
use self::screen::Screened;
use crate::intent::{Intent, ModelChoice};
use crate::score::Factors;
use crate::view::RoutingView;

/// Candidates within this share of the best score are as good as the best.
pub const NEAR_EQUAL: f32 = 0.9;

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
    let screened = Screened::new(view, intent, feedback, scope.as_deref());
    if screened.eligible_total == 0 {
        let refusal = Refusal::AllExcluded(screened.first_exclusion());
        return in_words(&screened, Vec::new(), Reason::Refused(refusal));
    }
    let grounds = Grounds::new(&screened);
    let candidates = best(&screened, &grounds).iter().map(|scored| candidate(&screened, &grounds, scored)).collect();
    let mut decision = in_words(&screened, candidates, grounds.reason);
    if !matches!(decision.reason, Reason::Refused(_)) {
        decision.chosen = pick(&decision.candidates, rng);
    }
    decision
}

/// One eligible entry with its score.
#[derive(Clone, Copy)]
struct Scored {
    position: u32,
    score: f32,
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

/// The best of the eligible entries in order; at most [`CANDIDATES_MAX`].
fn best(screened: &Screened<'_>, grounds: &Grounds<'_>) -> Vec<Scored> {
    let mut best = Vec::with_capacity(CANDIDATES_MAX + 1);
    let bodies = &screened.bodies;
    match grounds.weighed() {
        Some(weighed) => weighed.iter().for_each(|body| offers(screened, grounds, *body as usize, &mut best)),
        None => (0..bodies.len()).filter(|body| bodies[*body]).for_each(|body| offers(screened, grounds, body, &mut best)),
    }
    best
}

/// Puts those who offer `body` among the `best`, where they belong there.
fn offers(screened: &Screened<'_>, grounds: &Grounds<'_>, body: usize, best: &mut Vec<Scored>) {
    /// What rounding may do to a product of seven factors.
    const ROUNDING: f32 = 1.0 + 1e-5;
    let (view, ground) = (screened.view, grounds.of(body));
    let earned = ground.similarity * ground.complexity;
    let is_among = |scored: &Scored, best: &[Scored]| best.len() < CANDIDATES_MAX || scored.beats(&best[CANDIDATES_MAX - 1]);
    // What happened to an entry lately only ever counts against it.
    let at_best = Scored { position: 0, score: earned * view.offers()[body].best * ROUNDING, fits: ground.fits };
    if !is_among(&at_best, best) {
        return;
    }
    for position in view.roster().entries_of(body).iter().copied().filter(|position| screened.passes(*position)) {
        let fitness = match screened.experiences.get(&position) {
            Some(experience) => factors(view, position, experience).product(),
            None => view.fitness()[position as usize].product,
        };
        let scored = Scored { position, score: earned * fitness, fits: ground.fits };
        if is_among(&scored, best) {
            best.insert(best.partition_point(|better| better.beats(&scored)), scored);
            best.truncate(CANDIDATES_MAX);
        }
    }
}

/// The factors of an entry that do not depend on the request.
fn factors(view: &RoutingView, position: u32, experience: &Experience) -> Factors {
    let position = position as usize;
    let traits = view.roster().traits(view.roster().body_of(position));
    Factors::of(&view.entries()[position], &view.conditions()[position], traits, experience)
}

/// Puts into words what was found; nobody is chosen yet.
fn in_words(screened: &Screened<'_>, candidates: Vec<Candidate>, reason: Reason) -> Decision {
    let (excluded, excluded_total) = screened.in_words();
    Decision { chosen: None, candidates, candidates_total: screened.eligible_total, excluded, excluded_total, reason }
}

fn candidate(screened: &Screened<'_>, grounds: &Grounds<'_>, scored: &Scored) -> Candidate {
    let view = screened.view;
    let routable = &view.entries()[scored.position as usize];
    let ground = grounds.of(view.roster().body_of(scored.position as usize));
    let fit = factors(view, scored.position, &screened.experiences.get(&scored.position).copied().unwrap_or_default());
    Candidate {
        id: routable.id.clone(),
        name: routable.shown(),
        node_name: routable.node_name.clone(),
        model: routable.capability.name.clone(),
        kind: routable.capability.kind.clone(),
        fits: scored.fits,
        score: scored.score,
        hops: view.conditions()[scored.position as usize].hops,
        factors: Factors { similarity: ground.similarity, complexity: ground.complexity, ..fit },
        probability: ground.probability,
    }
}

/// One of the near-equals, the better the likelier.
fn pick(candidates: &[Candidate], rng: &mut impl Rng) -> Option<usize> {
    let best = candidates.first().filter(|best| best.fits)?.score;
    let near = candidates.iter().take_while(|other| other.fits && other.score >= best * NEAR_EQUAL).count();
    let total: f32 = candidates[..near].iter().map(|candidate| candidate.score).sum();
    let mut left = rng.random::<f32>() * total;
    let chosen = candidates[..near].iter().position(|candidate| {
        left -= candidate.score;
        left < 0.0
    });
    Some(chosen.unwrap_or(0))
}
