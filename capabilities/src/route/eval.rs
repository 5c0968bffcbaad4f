//! How well routing does on a labelled set, measured through the very router that serves requests.
//!
//! A set says which capabilities there are, what people ask and which capability should answer; and, to measure restraint, what is asked
//! while some capabilities are taken away. Owners tune their own descriptions with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atmo_protocol::record::{BodyVector, CapabilityBody, Cost, QuantizedVector};
use atmo_protocol::{BodyHash, CapabilityId, Mode, NodeId, Slug};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use super::{Decision, Feedback, Reason, decide};
use crate::capability::{Capability, embedded};
use crate::embed::space::Part;
use crate::embed::{EmbedError, Embedder, EmbeddingSpace};
use crate::intent::Intent;
use crate::score::Calibration;
use crate::view::{Condition, Roster, Routable, RoutingView};

/// How far down a ranking counts as "among the first".
const FIRST: usize = 3;
const MICROS_PER_MILLI: f32 = 1_000.0;

/// A labelled set, as its JSON file has it.
#[derive(Debug, Clone, Deserialize)]
pub struct LabelledSet {
    pub capabilities: Vec<LabelledCapability>,
    pub intents: Vec<LabelledIntent>,
    #[serde(default)]
    pub unserved: Unserved,
}

#[derive(Debug, Clone, Deserialize)]
pub struct LabelledCapability {
    pub id: String,
    /// Any word.
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    #[serde(default)]
    pub description: String,
    /// Becomes the capability's facts.
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Texts of its own; as many count as a node may announce.
    #[serde(default)]
    pub exemplars: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct LabelledIntent {
    pub text: String,
    /// Ids of the capabilities that are right.
    pub accept: Vec<String>,
}

/// What is asked with some capabilities taken away: nothing that is left should claim it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Unserved {
    #[serde(default)]
    pub without: Vec<String>,
    #[serde(default)]
    pub texts: Vec<String>,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub n: usize,
    /// Share of all intents whose likeliest capability is right, whether or not it is likely enough.
    pub top1: f32,
    /// Share of all intents with a right one among the three likeliest.
    pub top3: f32,
    /// Share of all intents for which somebody was chosen.
    pub coverage: f32,
    /// Share of those for which a right one was chosen.
    pub precision: f32,
    pub unserved: UnservedReport,
    /// What embedding one intent took.
    pub embed_ms: Percentiles,
    /// What deciding on one intent took.
    pub decide_us: Percentiles,
    /// Every intent whose likeliest capability is wrong.
    pub errors: Vec<Mistake>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UnservedReport {
    pub n: usize,
    /// For how many somebody was chosen.
    pub accepted: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mistake {
    pub text: String,
    pub got: Option<String>,
    pub wanted: Vec<String>,
    /// The likeliest, with their probabilities.
    pub scores: Vec<(String, f32)>,
}

/// What happens to intents whose only right capability is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LeftOut {
    pub n: usize,
    /// Claimed by something that is not right.
    pub claimed: usize,
    /// Given to a general model or, where there is none, to another language model, and said so.
    pub fallback: usize,
}

/// The middle of some durations, and what all but one of a hundred stay below.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Percentiles {
    pub p50: f32,
    pub p99: f32,
}

impl Percentiles {
    /// Of `micros`, in a unit of so many microseconds; 0 where there are none.
    fn of(mut micros: Vec<u64>, unit: f32) -> Self {
        micros.sort_unstable();
        let at =
            |share: usize| micros.get(micros.len().saturating_sub(1) * share / 100).map_or(0.0, |value| *value as f32 / unit);
        Self { p50: at(50), p99: at(99) }
    }
}

/// Why a set could not be evaluated. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    #[error("not a labelled set: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("the id {0:?} stands in the set but no capability has it")]
    UnknownId(String),
    #[error("two capabilities have the id {0:?}")]
    RepeatedId(String),
    #[error(transparent)]
    Embed(#[from] EmbedError),
}

impl LabelledSet {
    /// Reads a set from its JSON and checks that every id it speaks of exists once.
    pub fn parse(json: &str) -> Result<Self, EvalError> {
        let set: Self = serde_json::from_str(json)?;
        let mut ids = BTreeSet::new();
        for capability in &set.capabilities {
            if !ids.insert(&capability.id) {
                return Err(EvalError::RepeatedId(capability.id.clone()));
            }
        }
        let spoken = set.intents.iter().flat_map(|intent| &intent.accept).chain(&set.unserved.without);
        match spoken.into_iter().find(|id| !ids.contains(id)) {
            Some(unknown) => Err(EvalError::UnknownId(unknown.clone())),
            None => Ok(set),
        }
    }
}

/// Evaluates the set in `json` in the built-in model's space. `now_us` is a clock of any origin in microseconds.
pub fn evaluate(json: &str, embedder: &dyn Embedder, now_us: &dyn Fn() -> u64) -> Result<(Report, LeftOut), EvalError> {
    let set = LabelledSet::parse(json)?;
    let evaluation = Evaluation::new(&set, embedder, EmbeddingSpace::minilm(), now_us)?;
    Ok((evaluation.report(now_us), evaluation.left_out()))
}

/// What each kind of evidence adds: what comes out with all of it, and without each.
#[derive(Debug, Clone, Serialize)]
pub struct Ablation {
    pub full: Outcome,
    pub without: BTreeMap<&'static str, Outcome>,
}

/// What comes out of a set, in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Lists no errors.
    #[serde(flatten)]
    pub report: Report,
    pub left_out: LeftOut,
}

/// One kind of evidence, by what takes it away. Constraints are none of it: they exclude, and a labelled set has none.
#[derive(Clone, Copy)]
enum Factor {
    /// Of what lies in the binary.
    Part(Part),
    /// Of what counts for how much.
    Counts(fn(&mut Calibration)),
    /// Of what owners say.
    Told(fn(&mut LabelledCapability)),
    /// Of what is read from it.
    Read(fn(&mut Capability)),
}

const FACTORS: [(&str, Factor); 11] = [
    ("example requests of kinds", Factor::Part(Part::Exemplars)),
    ("kinds recognised by meaning", Factor::Part(Part::Abouts)),
    ("turned descriptions", Factor::Part(Part::Turning)),
    ("all vectors of its own", Factor::Read(|capability| capability.vectors.clear())),
    ("its owner's texts", Factor::Told(|capability| capability.exemplars.clear())),
    ("its name", Factor::Told(|capability| capability.name.clear())),
    ("its facts", Factor::Told(|capability| capability.metadata.clear())),
    ("sizes of models, and so complexity", Factor::Read(|capability| capability.facts.parameters_billions = None)),
    ("words in common", Factor::Counts(|counts| counts.words = 0.0)),
    ("kinds that nobody offers", Factor::Counts(|counts| counts.missing = 0.0)),
    ("how a request begins", Factor::Counts(|counts| counts.beyond_words = counts.beyond_deeds)),
];

/// Evaluates the set in `json` with everything and with one kind of evidence after the other left out.
pub fn ablate(json: &str, embedder: &dyn Embedder, now_us: &dyn Fn() -> u64) -> Result<Ablation, EvalError> {
    let set = LabelledSet::parse(json)?;
    let outcome = |set: &LabelledSet, factor| -> Result<Outcome, EvalError> {
        let evaluation = Evaluation::without(set, factor, embedder, now_us)?;
        let report = Report { errors: Vec::new(), ..evaluation.report(now_us) };
        Ok(Outcome { report, left_out: evaluation.left_out() })
    };
    let mut without = BTreeMap::new();
    for (name, factor) in FACTORS {
        let mut set = set.clone();
        if let Factor::Told(forget) = factor {
            set.capabilities.iter_mut().for_each(forget);
        }
        without.insert(name, outcome(&set, Some(factor))?);
    }
    Ok(Ablation { full: outcome(&set, None)?, without })
}

/// Embeds a labelled set once, to be asked several questions.
#[derive(Debug)]
pub struct Evaluation<'a> {
    set: &'a LabelledSet,
    offered: BTreeMap<&'a str, Routable>,
    space: Arc<EmbeddingSpace>,
    intents: Vec<Intent>,
    unserved: Vec<Intent>,
    /// What embedding each intent took.
    embed_us: Vec<u64>,
}

impl<'a> Evaluation<'a> {
    /// Describes the capabilities as a node would announce them and embeds what is asked.
    pub fn new(
        set: &'a LabelledSet,
        embedder: &dyn Embedder,
        space: Arc<EmbeddingSpace>,
        now_us: &dyn Fn() -> u64,
    ) -> Result<Self, EmbedError> {
        let mut offered = BTreeMap::new();
        for (number, capability) in set.capabilities.iter().enumerate() {
            offered.insert(capability.id.as_str(), routable(capability, number, embedder, &space)?);
        }
        let mut embed_us = Vec::new();
        let mut intents = Vec::new();
        for intent in &set.intents {
            let start = now_us();
            intents.push(embed_one(embedder, &intent.text)?);
            embed_us.push(now_us().saturating_sub(start));
        }
        let unserved = set.unserved.texts.iter().map(|text| embed_one(embedder, text)).collect::<Result<_, _>>()?;
        Ok(Self { set, offered, space, intents, unserved, embed_us })
    }

    /// The same without one kind of evidence, as far as that is not taken from the set itself.
    fn without(
        set: &'a LabelledSet,
        factor: Option<Factor>,
        embedder: &dyn Embedder,
        now_us: &dyn Fn() -> u64,
    ) -> Result<Self, EmbedError> {
        let mut space = EmbeddingSpace::minilm();
        match factor {
            Some(Factor::Part(part)) => space = Arc::new(space.without(part)),
            Some(Factor::Counts(change)) => change(&mut Arc::make_mut(&mut space).calibration),
            Some(Factor::Told(_) | Factor::Read(_)) | None => {}
        }
        let mut evaluation = Self::new(set, embedder, space, now_us)?;
        if let Some(Factor::Read(forget)) = factor {
            evaluation.offered.values_mut().for_each(|routable| forget(Arc::make_mut(&mut routable.capability)));
        }
        Ok(evaluation)
    }

    /// Asks everything.
    pub fn report(&self, now_us: &dyn Fn() -> u64) -> Report {
        let (asked, decide_us) = self.timed_decisions(now_us);
        let labelled = || asked.iter().zip(&self.set.intents);
        let share = |count: usize, of: usize| if of == 0 { 0.0 } else { count as f32 / of as f32 };
        let among_first =
            |first: usize| labelled().filter(|(decision, intent)| self.right_among(decision, first, intent)).count();
        let accepted = labelled().filter(|(decision, _)| decision.chosen().is_some()).count();
        let right =
            labelled().filter(|(decision, intent)| self.chosen(decision).is_some_and(|id| intent.accept.contains(id))).count();
        let refused = self.decisions(&self.set.unserved.without, &self.unserved);
        Report {
            n: asked.len(),
            top1: share(among_first(1), asked.len()),
            top3: share(among_first(FIRST), asked.len()),
            coverage: share(accepted, asked.len()),
            precision: share(right, accepted),
            unserved: UnservedReport {
                n: refused.len(),
                accepted: refused.iter().filter(|decision| decision.chosen.is_some()).count(),
            },
            embed_ms: Percentiles::of(self.embed_us.clone(), MICROS_PER_MILLI),
            decide_us: Percentiles::of(decide_us, 1.0),
            errors: labelled()
                .filter(|(decision, intent)| !self.right_among(decision, 1, intent))
                .map(|pair| self.mistake(pair))
                .collect(),
        }
    }

    /// Takes away each capability in turn and asks what only it could have answered.
    pub fn left_out(&self) -> LeftOut {
        let mut sum = LeftOut::default();
        for capability in &self.set.capabilities {
            let only = |intent: &LabelledIntent| intent.accept.iter().all(|id| *id == capability.id);
            let asked: Vec<Intent> = self
                .set
                .intents
                .iter()
                .zip(&self.intents)
                .filter(|(label, _)| only(label))
                .map(|(_, intent)| intent.clone())
                .collect();
            let is_fallback =
                |reason: &Reason| matches!(reason, Reason::FallbackGeneral { .. } | Reason::FallbackSpecialised { .. });
            for decision in self.decisions(std::slice::from_ref(&capability.id), &asked) {
                sum.n += 1;
                let fell_back = is_fallback(&decision.reason);
                sum.fallback += usize::from(fell_back);
                sum.claimed += usize::from(decision.chosen.is_some() && !fell_back);
            }
        }
        sum
    }

    /// What is decided for every intent, and how long each took.
    fn timed_decisions(&self, now_us: &dyn Fn() -> u64) -> (Vec<Decision>, Vec<u64>) {
        let view = self.view(&[]);
        let mut rng = ChaCha12Rng::seed_from_u64(0);
        let timed = |intent| {
            let start = now_us();
            let decision = decide(&view, intent, &Feedback::default(), &mut rng);
            (decision, now_us().saturating_sub(start))
        };
        self.intents.iter().map(timed).unzip()
    }

    /// What is decided for `asked` while `without` is not offered.
    pub fn decisions(&self, without: &[String], asked: &[Intent]) -> Vec<Decision> {
        let view = self.view(without);
        let mut rng = ChaCha12Rng::seed_from_u64(0);
        asked.iter().map(|intent| decide(&view, intent, &Feedback::default(), &mut rng)).collect()
    }

    fn view(&self, without: &[String]) -> RoutingView {
        let offered =
            self.offered.iter().filter(|(id, _)| !without.iter().any(|gone| gone == *id)).map(|(_, routable)| routable.clone());
        let roster = Arc::new(Roster::new(offered, Arc::clone(&self.space)));
        RoutingView::new(NodeId::from_bytes([0; 32]), roster, |_| Condition::default())
    }

    fn right_among(&self, decision: &Decision, first: usize, intent: &LabelledIntent) -> bool {
        self.likeliest(decision).iter().take(first).any(|(id, _)| intent.accept.contains(id))
    }

    /// Ids with their probabilities, likeliest first.
    fn likeliest(&self, decision: &Decision) -> Vec<(String, f32)> {
        let mut likely: Vec<(String, f32)> = decision
            .candidates
            .iter()
            .map(|candidate| (self.label(&candidate.id).to_owned(), candidate.probability.unwrap_or(0.0)))
            .collect();
        likely.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        likely
    }

    fn chosen(&self, decision: &Decision) -> Option<&String> {
        decision.chosen().map(|candidate| self.label(&candidate.id))
    }

    /// The set's own id of a capability: its number is in its node's id.
    fn label(&self, id: &CapabilityId) -> &String {
        let mut number = [0; 8];
        number.copy_from_slice(&id.node.as_bytes()[..8]);
        &self.set.capabilities[u64::from_be_bytes(number) as usize].id
    }

    fn mistake(&self, (decision, intent): (&Decision, &LabelledIntent)) -> Mistake {
        let mut scores = self.likeliest(decision);
        scores.truncate(FIRST);
        Mistake { text: intent.text.clone(), got: self.chosen(decision).cloned(), wanted: intent.accept.clone(), scores }
    }
}

/// The capability as one node of its own offers it; the node's id carries its number.
fn routable(
    labelled: &LabelledCapability,
    number: usize,
    embedder: &dyn Embedder,
    space: &EmbeddingSpace,
) -> Result<Routable, EmbedError> {
    let body = embedded(body(labelled), embedder)?;
    let mut node = [0; 32];
    node[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Ok(Routable {
        id: CapabilityId { node: NodeId::from_bytes(node), slug: Slug::from_name(&labelled.id) },
        node_name: "set".into(),
        capability: Arc::new(Capability::read(BodyHash::from_bytes(node), &body, space)),
        mode: Mode::Provider,
        labels: Arc::new([]),
        cost: Cost::default(),
        slots: 1,
    })
}

fn body(labelled: &LabelledCapability) -> CapabilityBody {
    let own = |text: &String| BodyVector {
        text: text.clone(),
        space: String::new(),
        vector: QuantizedVector { scale: 0.0, values: Vec::new() },
    };
    let fact = |(key, value): (&String, &serde_json::Value)| {
        (key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    CapabilityBody {
        kind: labelled.kind.clone(),
        name: labelled.name.clone(),
        description: labelled.description.clone(),
        facts: labelled.metadata.iter().map(fact).collect(),
        exemplars: Vec::new(),
        vectors: labelled.exemplars.iter().map(own).collect(),
        extensions: Vec::new(),
    }
}

fn embed_one(embedder: &dyn Embedder, text: &str) -> Result<Intent, EmbedError> {
    let vector = embedder.embed(&[text])?.pop().unwrap_or_default();
    Ok(Intent { text: text.to_owned(), vector: Some(vector.into()), ..Intent::default() })
}

#[cfg(all(test, feature = "rten"))]
mod tests;
