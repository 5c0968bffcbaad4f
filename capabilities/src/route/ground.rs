//! On what ground somebody may be chosen: because it was named, because it means what was asked, because a general model has to do; or
//! that nobody may.

use super::decision::{Reason, Refusal};
use super::meaning::{Asked, Meaning};
use super::screen::Screened;
use crate::capability::Task;
use crate::exemplars::{Needs, SetId};
use crate::intent::ModelChoice;
use crate::score::asking::Asking;
use crate::score::complexity::complexity;
use crate::score::fit;
use crate::view::{Roster, Traits};

/// The probability from which a candidate is taken to be what was asked for.
pub const FLOOR: f32 = 0.5;
/// What the likeliest general model's meaning counts for where nothing fits and it is fallen back to.
pub const FALLBACK_SIMILARITY: f32 = 0.25;
/// The share of that which even the least likely general model has: who is idle matters more than who is likelier.
const FALLBACK_SHARE_MIN: f32 = 0.7;

/// The reason of a decision, and what it makes of every body.
pub(super) struct Grounds<'a> {
    pub reason: Reason,
    /// `None` where meaning was not asked.
    meaning: Option<Meaning>,
    meaning_counts: Counts,
    roster: &'a Roster,
    /// For each of the roster's distinct traits, the factor of a body that has them.
    complexities: Vec<f32>,
    /// The probability of the likeliest general model that may answer.
    likeliest: f32,
}

/// What meaning counts for.
#[derive(Clone, Copy)]
enum Counts {
    Nothing,
    Fully,
    /// Nothing fits: it orders the general models, which all would do.
    AmongGeneral,
}

/// What speaks for one body, whoever offers it.
#[derive(Clone, Copy)]
pub(super) struct Ground {
    /// Whether it would do for the request.
    pub fits: bool,
    /// The factor.
    pub similarity: f32,
    /// The factor.
    pub complexity: f32,
    /// What meaning says; `None` where it was not asked.
    pub probability: Option<f32>,
}

impl<'a> Grounds<'a> {
    pub fn new(screened: &Screened<'a>) -> Self {
        let roster = screened.view.roster();
        let intent = screened.intent;
        let by_meaning = intent.model == ModelChoice::Auto && intent.operation.says_what_is_wanted();
        let vector = intent.vector.as_ref().filter(|_| by_meaning);
        let hard = complexity(&intent.text, screened.tokens.prompt.likely);
        let suits = |traits: &Traits| if traits.task == Task::Chat { fit::suits(traits.size, hard) } else { 1.0 };
        let complexities: Vec<f32> = roster.distinct_traits().0.iter().map(suits).collect();
        let asked = vector.and_then(|vector| Asked::new(roster, &intent.text, vector));
        let meaning = asked.and_then(|asked| Meaning::of(screened.view, &asked, &screened.bodies, &complexities));
        let reason = match intent.model {
            ModelChoice::Named(_) => Reason::Named,
            ModelChoice::Auto if !by_meaning => Reason::Matched,
            ModelChoice::Auto => reason(screened, meaning.as_ref()),
        };
        let likeliest = likeliest_general(screened, meaning.as_ref());
        let meaning_counts = match reason {
            _ if !by_meaning => Counts::Nothing,
            Reason::FallbackGeneral { .. } => Counts::AmongGeneral,
            Reason::Matched | Reason::Named | Reason::Refused(_) => Counts::Fully,
        };
        Self { reason, meaning, meaning_counts, roster, complexities, likeliest }
    }

    /// The bodies that meaning left in the running; `None` where meaning was not asked and all are.
    pub fn weighed(&self) -> Option<&[u32]> {
        self.meaning.as_ref().map(|meaning| meaning.weighed.as_slice())
    }

    #[inline]
    pub fn of(&self, body: usize) -> Ground {
        let probability = self.meaning.as_ref().map(|meaning| meaning.probabilities[body]);
        let likely = probability.unwrap_or(0.0);
        let (fits, similarity) = match self.meaning_counts {
            Counts::Nothing => (true, 1.0),
            Counts::Fully => (likely >= FLOOR, likely),
            Counts::AmongGeneral if self.roster.traits(body).general => (true, fallback_similarity(likely, self.likeliest)),
            Counts::AmongGeneral => (false, likely),
        };
        let complexity = self.complexities[self.roster.distinct_traits().1[body] as usize];
        Ground { fits, similarity, complexity, probability }
    }
}

/// Whether something fits, something is missing, or a general model has to do: it can try whatever words would do for, and nothing that is
/// plainly about something else.
fn reason(screened: &Screened<'_>, meaning: Option<&Meaning>) -> Reason {
    if meaning.is_some_and(Meaning::is_sure) {
        return Reason::Matched;
    }
    let missing = meaning.and_then(|meaning| meaning.missing).filter(|missing| missing.probability >= FLOOR);
    let general = screened.view.roster().general().iter().any(|body| screened.bodies[*body as usize]);
    let words_would_do = meaning.is_none_or(|meaning| meaning.beyond_words < Asking::of(&screened.intent.text).margin());
    if general && words_would_do {
        let text = missing.filter(|missing| missing.set.needs() == Needs::Text);
        return Reason::FallbackGeneral { instead_of: text.map(|missing| missing.set.title()) };
    }
    match missing {
        Some(missing) if missing.set.needs() != Needs::Text => Reason::Refused(missing_refusal(screened, missing.set)),
        _ => Reason::Refused(Refusal::NothingFits),
    }
}

/// Nobody offers it, or those who do were excluded.
fn missing_refusal(screened: &Screened<'_>, set: SetId) -> Refusal {
    match screened.exclusion_of_set(set) {
        None => Refusal::Missing { needs: set.title() },
        Some(because) => Refusal::MissingExcluded { needs: set.title(), because },
    }
}

/// The probability of the likeliest general model that may answer.
fn likeliest_general(screened: &Screened<'_>, meaning: Option<&Meaning>) -> f32 {
    let Some(meaning) = meaning else { return 0.0 };
    let roster = screened.view.roster();
    let general = meaning.weighed.iter().map(|body| *body as usize).filter(|body| roster.traits(*body).general);
    general.fold(0.0, |best, body| best.max(meaning.probabilities[body]))
}

/// Nothing fits, so that probabilities say little: only their ratio among the general models counts, and not much.
#[inline]
pub(super) fn fallback_similarity(probability: f32, likeliest: f32) -> f32 {
    let ratio = if likeliest > 0.0 { probability / likeliest } else { 1.0 };
    FALLBACK_SIMILARITY * (FALLBACK_SHARE_MIN + (1.0 - FALLBACK_SHARE_MIN) * ratio)
}
