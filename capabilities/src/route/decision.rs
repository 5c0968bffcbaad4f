//! What was decided and why: for the request handler, for people, and as JSON.

use std::sync::Arc;

use atmo_protocol::CapabilityId;
use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::score::Factors;

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
    /// At most [`EXCLUDED_MAX`].
    pub excluded: Vec<Excluded>,
    pub excluded_total: usize,
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
}

/// One capability that a hard constraint ruled out.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Excluded {
    pub id: CapabilityId,
    /// `node/slug`
    pub name: String,
    pub reason: String,
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
    /// Nobody is chosen.
    Refused(Refusal),
}

/// Why nobody was chosen. Nothing was sent anywhere.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("nobody in the mesh offers anything; start a backend, or `atmo join` a mesh that has one")]
    NothingOffered,
    #[error("nothing offered passes the constraints: {0}")]
    AllExcluded(String),
    #[error("needs {needs}; nobody in the mesh offers that")]
    Missing { needs: &'static str },
    #[error("needs {needs}; who offers that is excluded: {because}")]
    MissingExcluded { needs: &'static str, because: String },
    #[error("nothing offered fits this, and there is no general model to fall back to")]
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
            excluded: Vec::new(),
            excluded_total: 0,
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
            Reason::Matched | Reason::Named | Reason::FallbackGeneral { .. } => None,
        }
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
        let mut fields = serializer.serialize_struct("Candidate", 10)?;
        fields.serialize_field("capability", &self.name)?;
        fields.serialize_field("node", &*self.node_name)?;
        fields.serialize_field("node_id", &self.id.node.to_string())?;
        fields.serialize_field("model", &self.model)?;
        fields.serialize_field("type", &self.kind)?;
        fields.serialize_field("fits", &self.fits)?;
        fields.serialize_field("score", &self.score)?;
        fields.serialize_field("hops", &self.hops)?;
        fields.serialize_field("probability", &self.probability)?;
        fields.serialize_field("factors", &self.factors)?;
        fields.end()
    }
}

/// The chosen candidate in short, as JSON.
struct Chosen<'a>(&'a Candidate);

impl Serialize for Chosen<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Chosen", 5)?;
        fields.serialize_field("capability", &self.0.name)?;
        fields.serialize_field("node", &*self.0.node_name)?;
        fields.serialize_field("model", &self.0.model)?;
        fields.serialize_field("score", &self.0.score)?;
        fields.serialize_field("hops", &self.0.hops)?;
        fields.end()
    }
}

impl Serialize for Decision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Decision", 6)?;
        fields.serialize_field("chosen", &self.chosen().map(Chosen))?;
        fields.serialize_field("reason", &self.reason)?;
        fields.serialize_field("candidates", &self.candidates)?;
        fields.serialize_field("candidates_total", &self.candidates_total)?;
        fields.serialize_field("excluded", &self.excluded)?;
        fields.serialize_field("excluded_total", &self.excluded_total)?;
        fields.end()
    }
}
