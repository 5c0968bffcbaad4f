//! What was decided and why: for the request handler, for people, and as JSON.

use std::sync::Arc;

use atmo_protocol::CapabilityId;
use atmo_protocol::record::Load;
use serde::ser::{Serialize, Serializer};

use crate::explain::{CandidateRow, Explanation};
use crate::score::Factors;
use crate::score::price::Estimate;
use crate::score::wait::Expected;

/// Most candidates that a decision lists; more than anyone tries or reads.
pub const CANDIDATES_MAX: usize = 16;
/// Most exclusions that a decision lists with their reasons.
pub const EXCLUDED_MAX: usize = 64;
/// Most names offered when a name is unknown or ambiguous.
pub const NAMES_MAX: usize = 5;

/// The outcome of [`decide`](super::decide).
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// Which of `candidates` answers; [`Decision::in_order`] gives who to try next.
    pub chosen: Option<usize>,
    /// Best first, at most [`CANDIDATES_MAX`].
    pub candidates: Vec<Candidate>,
    /// How many candidates there were before the list was cut.
    pub candidates_total: usize,
    /// How many of them one was drawn among.
    pub near_equals: usize,
    /// At most [`EXCLUDED_MAX`].
    pub excluded: Vec<Excluded>,
    pub excluded_total: usize,
    /// All that were excluded, by what excluded them, the most frequent first.
    pub excluded_by: Vec<ExcludedBy>,
    /// Who was asked for its load before this was decided, because what was known of it was stale.
    pub quotes: Vec<Quote>,
    pub reason: Reason,
}

/// One capability that could answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Candidate {
    pub id: CapabilityId,
    /// `node/slug`
    pub name: String,
    pub node_name: Arc<str>,
    /// What users call the model.
    pub model: String,
    pub kind: String,
    /// Whether it would do for the request; who would not is listed for the explanation alone.
    pub fits: bool,
    /// The product of `factors`.
    pub score: f32,
    pub hops: u8,
    pub factors: Factors,
    /// Probability that it is what was asked for; `None` where meaning was not asked.
    pub probability: Option<f32>,
    /// The probability with which it was to be drawn; 0 for who is no near-equal of the best.
    pub chance: f32,
    pub expected: Expected,
    /// What it would take at most by estimate.
    pub cost: Estimate,
}

/// What a candidate's node was asked of its load, and what it said.
#[derive(Clone, PartialEq, Debug)]
pub struct Quote {
    pub id: CapabilityId,
    /// `node/slug`
    pub name: String,
    /// How old the load was that was known before; `None` where none was.
    pub known_ms: Option<u32>,
    /// `None` where no answer came in time.
    pub load: Option<Load>,
}

/// One capability that a hard constraint ruled out.
#[derive(Clone, PartialEq, Debug)]
pub struct Excluded {
    pub id: CapabilityId,
    /// `node/slug`
    pub name: String,
    /// The name of the constraint, or a word for what keeps it away: `max_cost`, `dead`.
    pub by: &'static str,
    /// In words, with the figures.
    pub reason: String,
}

/// Those that the same thing excluded.
#[derive(Clone, PartialEq, Debug)]
pub struct ExcludedBy {
    pub total: usize,
    pub first: Excluded,
}

/// Why it was decided so.
#[derive(Clone, PartialEq, Debug)]
pub enum Reason {
    /// It fits what was asked.
    Matched,
    /// It was asked for by name.
    Named,
    /// Nothing fits well; an ordinary text request goes to a general model.
    FallbackGeneral {
        /// What would have fitted better, where that is known: "SQL".
        instead_of: Option<&'static str>,
    },
    /// The same where no model for anything may answer: one for something tries.
    FallbackSpecialised {
        /// What would have fitted better, where that is known.
        instead_of: Option<&'static str>,
    },
    /// Nobody is chosen.
    Refused(Refusal),
}

/// Why nobody was chosen. Nothing was sent anywhere.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("nobody in the mesh offers anything; start a backend, or `atmo join` a mesh that has one")]
    NothingOffered,
    #[error("nothing offered may answer: {0}")]
    AllExcluded(String),
    #[error("needs {needs}; nobody in the mesh offers that")]
    Missing { needs: &'static str },
    #[error("needs {needs}; who offers that is excluded: {because}")]
    MissingExcluded { needs: &'static str, because: String },
    #[error("nothing offered fits this, and there is no language model to fall back to")]
    NothingFits,
    #[error("no model named {name:?} in the mesh{}", nearest(.near))]
    NoSuchModel { name: String, near: Vec<String> },
    #[error("{name:?} could be any of {}; say which", .candidates.join(", "))]
    Ambiguous { name: String, candidates: Vec<String> },
}

fn nearest(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}

impl Decision {
    /// A decision for nobody, before anything was scored.
    pub fn refused(refusal: Refusal) -> Self {
        Self {
            chosen: None,
            candidates: Vec::new(),
            candidates_total: 0,
            near_equals: 0,
            excluded: Vec::new(),
            excluded_total: 0,
            excluded_by: Vec::new(),
            quotes: Vec::new(),
            reason: Reason::Refused(refusal),
        }
    }

    pub fn chosen(&self) -> Option<&Candidate> {
        self.candidates.get(self.chosen?)
    }

    /// Why nobody was chosen, if so.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.reason {
            Reason::Refused(refusal) => Some(refusal),
            Reason::Matched | Reason::Named | Reason::FallbackGeneral { .. } | Reason::FallbackSpecialised { .. } => None,
        }
    }

    /// The best of the others that would do.
    pub fn runner_up(&self) -> Option<&Candidate> {
        self.chosen()?;
        self.in_order().nth(1)
    }

    /// The chosen candidate, then the others that would do, best first: who to try when one fails.
    pub fn in_order(&self) -> impl Iterator<Item = &Candidate> {
        let others = self.candidates.iter().enumerate().filter(|(place, other)| Some(*place) != self.chosen && other.fits);
        self.chosen().into_iter().chain(others.map(|(_, other)| other))
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Matched => f.write_str("matched"),
            Self::Named => f.write_str("named"),
            Self::FallbackGeneral { .. } => f.write_str("fallback: general"),
            Self::FallbackSpecialised { .. } => f.write_str("fallback: specialised"),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Candidate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        CandidateRow::of(self).serialize(serializer)
    }
}

/// As its [`Explanation`].
impl Serialize for Decision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Explanation::of(self).serialize(serializer)
    }
}
