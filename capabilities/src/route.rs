//! The choice: one pure function from what is offered and what is asked to who answers, and why.
//!
//! [`decide`] filters by hard constraints, scores what is left by meaning and by fit, and picks among near-equals at random by weight, so
//! that many who see the same stale picture do not all run to the same node. It says no when nothing fits.

pub mod decision;
pub mod eval;
pub mod feedback;
pub mod filter;
mod ground;
mod meaning;
mod named;
#[cfg(all(test, feature = "rten"))]
mod plain_requests;
mod screen;
#[cfg(test)]
mod tests;

use rand::{Rng, RngExt};

pub use decision::{Candidate, Decision, Excluded, Reason, Refusal};
pub use feedback::{Breaker, Experience, Feedback};
pub use ground::{FALLBACK_SIMILARITY, FLOOR};

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
        ModelChoice::Auto => (0..view.entries().len() as u32).collect(),
        ModelChoice::Named(name) => match named::positions(view.roster(), name) {
            Ok(positions) => positions,
            Err(refusal) => return Decision::refused(refusal),
        },
    };
    let screened = Screened::new(view, intent, feedback, &scope);
    if screened.eligible.is_empty() {
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
    /// Those that would do before those that would not, then by score.
    fn beats(&self, other: &Self) -> bool {
        if self.fits == other.fits { self.score > other.score } else { self.fits }
    }
}

/// The best of the eligible entries in order, equals by id; at most [`CANDIDATES_MAX`].
fn best(screened: &Screened<'_>, grounds: &Grounds<'_>) -> Vec<Scored> {
    let mut best: Vec<Scored> = Vec::with_capacity(CANDIDATES_MAX + 1);
    for scored in scored(screened, grounds) {
        if best.len() < CANDIDATES_MAX || scored.beats(&best[CANDIDATES_MAX - 1]) {
            best.insert(best.partition_point(|better| !scored.beats(better)), scored);
            best.truncate(CANDIDATES_MAX);
        }
    }
    best
}

fn scored(screened: &Screened<'_>, grounds: &Grounds<'_>) -> Vec<Scored> {
    let (roster, fitness) = (screened.view.roster(), screened.view.fitness());
    let scored = |position: &u32| {
        let ground = grounds.of(roster.body_of(*position as usize));
        let score = ground.similarity * ground.complexity * fitness[*position as usize].product;
        Scored { position: *position, score, fits: ground.fits }
    };
    let mut all: Vec<Scored> = screened.eligible.iter().map(scored).collect();
    for (position, experience) in &screened.experiences {
        if let Ok(place) = screened.eligible.binary_search(position) {
            let ground = grounds.of(roster.body_of(*position as usize));
            all[place].score = ground.similarity * ground.complexity * factors(screened.view, *position, experience).product();
        }
    }
    all
}

/// The factors of an entry that do not depend on the request.
fn factors(view: &RoutingView, position: u32, experience: &Experience) -> Factors {
    let position = position as usize;
    let traits = &view.roster().traits()[view.roster().body_of(position)];
    Factors::of(&view.entries()[position], &view.conditions()[position], traits, experience)
}

/// Puts into words what was found; nobody is chosen yet.
fn in_words(screened: &Screened<'_>, candidates: Vec<Candidate>, reason: Reason) -> Decision {
    let (excluded, excluded_total) = screened.in_words();
    Decision { chosen: None, candidates, candidates_total: screened.eligible.len(), excluded, excluded_total, reason }
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
