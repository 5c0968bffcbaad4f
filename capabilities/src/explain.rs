//! A decision taken apart: who was chosen, what every candidate's score is made of, who came next and by how much, what would have
//! changed the choice, who was excluded and by what. [`Explanation`] is the form for machines, [`explain`] the one for people.

mod change;
mod text;

use serde::{Deserialize, Serialize};

pub use change::Change;
pub use text::COLUMNS;

use crate::route::{Candidate, Decision, Excluded, ExcludedBy, Quote};
use crate::score::Factors;

/// One screen of text that ends in a line break, at most [`COLUMNS`] wide.
pub fn explain(decision: &Decision) -> String {
    text::screen(decision)
}

/// A decision as JSON has it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    pub chosen: Option<InShort>,
    pub reason: String,
    /// The best of the others that would do.
    pub runner_up: Option<InShort>,
    /// The chosen one's score less the runner-up's; below 0 where the draw among near-equals fell on a lesser one.
    pub margin: Option<f32>,
    /// What would have changed the choice.
    pub changes: Vec<Change>,
    /// Who was asked for its load first.
    #[serde(default)]
    pub quotes: Vec<QuoteRow>,
    /// Best first.
    pub candidates: Vec<CandidateRow>,
    pub candidates_total: usize,
    /// Among how many the chosen one was drawn.
    pub near_equals: usize,
    pub excluded: Vec<ExcludedRow>,
    pub excluded_total: usize,
    /// The most frequent first; they add up to `excluded_total`.
    pub excluded_by: Vec<ExcludedByRow>,
}

/// A candidate in short.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct InShort {
    /// `node/slug`
    pub capability: String,
    pub node: String,
    pub node_id: String,
    pub model: String,
    pub score: f32,
    pub hops: u8,
    pub chance: f32,
}

/// One candidate: `score` is the product of `factors`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CandidateRow {
    /// `node/slug`
    pub capability: String,
    pub node: String,
    pub node_id: String,
    pub model: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub fits: bool,
    pub score: f32,
    pub hops: u8,
    /// That it is what was asked for; `null` where meaning was not asked.
    pub probability: Option<f32>,
    /// That it was to be drawn.
    pub chance: f32,
    /// Expected before the request is begun.
    pub wait_ms: f32,
    /// Expected until the first token.
    pub first_token_ms: f32,
    /// At most, by estimate, in millionths of a currency unit, electricity included.
    pub cost_micros: u64,
    /// What of that is electricity.
    #[serde(default)]
    pub energy_micros: u64,
    pub factors: Factors,
}

/// What a candidate said of its load when it was asked; all `null` where it did not answer in time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct QuoteRow {
    /// `node/slug`
    pub capability: String,
    pub node_id: String,
    /// How old the load was that was known before; `null` where none was.
    pub known_ms: Option<u32>,
    pub running: Option<u16>,
    pub waiting: Option<u16>,
    pub slots: Option<u16>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ExcludedRow {
    /// `node/slug`
    pub capability: String,
    pub node_id: String,
    /// The constraint, or what else keeps it away: `max_cost`, `dead`.
    pub by: String,
    pub reason: String,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ExcludedByRow {
    pub by: String,
    pub total: usize,
    pub first: ExcludedRow,
}

impl Explanation {
    pub fn of(decision: &Decision) -> Self {
        let margin = |runner_up: &Candidate| Some(decision.chosen()?.score - runner_up.score);
        Self {
            chosen: decision.chosen().map(InShort::of),
            reason: decision.reason.to_string(),
            runner_up: decision.runner_up().map(InShort::of),
            margin: decision.runner_up().and_then(margin),
            changes: change::changes(decision),
            quotes: decision.quotes.iter().map(QuoteRow::of).collect(),
            candidates: decision.candidates.iter().map(CandidateRow::of).collect(),
            candidates_total: decision.candidates_total,
            near_equals: decision.near_equals,
            excluded: decision.excluded.iter().map(ExcludedRow::of).collect(),
            excluded_total: decision.excluded_total,
            excluded_by: decision.excluded_by.iter().map(ExcludedByRow::of).collect(),
        }
    }
}

impl InShort {
    fn of(candidate: &Candidate) -> Self {
        Self {
            capability: candidate.name.clone(),
            node: candidate.node_name.to_string(),
            node_id: candidate.id.node.to_string(),
            model: candidate.model.clone(),
            score: candidate.score,
            hops: candidate.hops,
            chance: candidate.chance,
        }
    }
}

impl CandidateRow {
    pub fn of(candidate: &Candidate) -> Self {
        Self {
            capability: candidate.name.clone(),
            node: candidate.node_name.to_string(),
            node_id: candidate.id.node.to_string(),
            model: candidate.model.clone(),
            kind: candidate.kind.clone(),
            fits: candidate.fits,
            score: candidate.score,
            hops: candidate.hops,
            probability: candidate.probability,
            chance: candidate.chance,
            wait_ms: candidate.expected.wait_ms,
            first_token_ms: candidate.expected.first_token_ms,
            cost_micros: candidate.cost.total.0,
            energy_micros: candidate.cost.energy.0,
            factors: candidate.factors,
        }
    }
}

impl QuoteRow {
    fn of(quote: &Quote) -> Self {
        Self {
            capability: quote.name.clone(),
            node_id: quote.id.node.to_string(),
            known_ms: quote.known_ms,
            running: quote.load.map(|load| load.running),
            waiting: quote.load.map(|load| load.waiting),
            slots: quote.load.map(|load| load.slots),
        }
    }
}

impl ExcludedRow {
    fn of(excluded: &Excluded) -> Self {
        Self {
            capability: excluded.name.clone(),
            node_id: excluded.id.node.to_string(),
            by: excluded.by.to_owned(),
            reason: excluded.reason.clone(),
        }
    }
}

impl ExcludedByRow {
    fn of(by: &ExcludedBy) -> Self {
        Self { by: by.first.by.to_owned(), total: by.total, first: ExcludedRow::of(&by.first) }
    }
}
