//! Hard constraints: who may not answer at all, and why.

use std::fmt;

use super::feedback::{Breaker, Experience};
use crate::capability::Task;
use crate::intent::{Constraints, Intent, ModelChoice, RequestTokens};
use crate::score::fit;
use crate::score::price::{Estimate, Micros, Rates};
use crate::score::wait::Expected;
use crate::view::{Condition, Routable, Standing, Traits, UNREACHABLE_HOPS};
use atmo_protocol::NodeId;

/// The label of a node that says where it keeps what it is told; several places are parted by commas.
pub const RESIDENCY_LABEL: &str = "residency";

/// The first hard constraint that an entry fails.
#[derive(Clone, PartialEq, Debug)]
pub enum Exclusion {
    Dead,
    NoPath,
    CircuitOpen { retry_in_ms: u32 },
    NotLocal,
    OtherNode { wanted: String },
    NodeLeftOut,
    Tried,
    Label { wanted: String },
    Residency { wanted: String, is: Option<String> },
    OtherModel { wanted: String },
    OtherKind { kind: String, wanted: String },
    OtherTask { needed: Task },
    NoTools,
    NoVision,
    ContextTooShort { tokens: u32, needed: u32 },
    PoorQuality { quality: f32, min: f32 },
    NotFree { rates: Rates },
    TooDear { estimate: Estimate, max: Micros },
    TooSlow { expected_ms: f32, max_ms: u32 },
    StandsAside,
}

impl Exclusion {
    /// The constraint's own name where somebody set it, else a word for what keeps the entry away.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::NoPath => "no_path",
            Self::CircuitOpen { .. } => "circuit_open",
            Self::NotLocal => "local_only",
            Self::OtherNode { .. } => "node",
            Self::NodeLeftOut => "not_node",
            Self::Tried => "tried",
            Self::Label { .. } => "label",
            Self::Residency { .. } => "residency",
            Self::OtherModel { .. } => "model",
            Self::OtherKind { .. } => "type",
            Self::OtherTask { .. } => "operation",
            Self::NoTools => "tools",
            Self::NoVision => "vision",
            Self::ContextTooShort { .. } => "context_tokens",
            Self::PoorQuality { .. } => "min_quality",
            Self::NotFree { .. } => "require_free",
            Self::TooDear { .. } => "max_cost",
            Self::TooSlow { .. } => "max_latency_ms",
            Self::StandsAside => "stands_aside",
        }
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dead => f.write_str("its node is gone"),
            Self::NoPath => f.write_str("there is no path to its node"),
            Self::CircuitOpen { retry_in_ms } => {
                write!(f, "failed repeatedly; tried again in {:.1} s", *retry_in_ms as f32 / 1000.0)
            }
            Self::NotLocal => f.write_str("not on this node, which this request may not leave"),
            Self::OtherNode { wanted } => write!(f, "not on the node that was asked for ({wanted})"),
            Self::NodeLeftOut => f.write_str("on a node that was to be left out"),
            Self::Tried => f.write_str("left out by the request, or just tried"),
            Self::Label { wanted } => write!(f, "its node has no label {wanted}"),
            Self::Residency { wanted, is: Some(is) } => write!(f, "its node is in {is}, and {wanted} was asked for"),
            Self::Residency { wanted, is: None } => write!(f, "its node does not say where it is, and {wanted} was asked for"),
            Self::OtherModel { wanted } => write!(f, "another model than {wanted}"),
            Self::OtherKind { kind, wanted } => write!(f, "its type is {kind}, and {wanted} was asked for"),
            Self::OtherTask { needed } => f.write_str(match needed {
                Task::Chat => "does not answer chat requests",
                Task::Embed => "does not make embeddings",
                Task::Rerank => "does not rank passages",
                Task::Transcribe => "does not write down speech",
                Task::Other => "does something else",
            }),
            Self::NoTools => f.write_str("cannot call tools"),
            Self::NoVision => f.write_str("does not say that it takes images"),
            Self::ContextTooShort { tokens, needed } => {
                write!(f, "its context of {tokens} tokens is shorter than the {needed} needed")
            }
            Self::PoorQuality { quality, min } => write!(f, "its quality of {quality:.2} is below {min:.2}"),
            Self::NotFree { rates } => write!(f, "costs {rates}, and only free ones were asked for"),
            Self::TooDear { estimate, max } => write!(f, "would cost up to {estimate}, over the {max} allowed"),
            Self::TooSlow { expected_ms, max_ms } => {
                write!(f, "its first token is expected after {expected_ms:.0} ms, over the {max_ms} ms allowed")
            }
            Self::StandsAside => f.write_str("the demonstration model stands aside for any other general model"),
        }
    }
}

/// One entry with what is known of it.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub routable: &'a Routable,
    pub condition: &'a Condition,
    pub traits: &'a Traits,
    pub experience: Experience,
}

/// What is asked of every entry.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub constraints: &'a Constraints,
    pub ability: Ability,
    pub tokens: RequestTokens,
    pub me: NodeId,
}

/// Why `entry` may not answer, if so.
pub(super) fn exclusion(entry: Entry<'_>, asked: &Asked<'_>) -> Option<Exclusion> {
    let Asked { constraints, ability, tokens, me } = asked;
    reachability(entry)
        .or_else(|| place(entry.routable, constraints, *me))
        .or_else(|| sort(entry.routable, constraints))
        .or_else(|| ability.lacking(entry.traits).map(|lacking| lacking.into_exclusion(ability, entry.traits)))
        .or_else(|| worth(entry, constraints, *tokens))
        .or_else(|| latency(entry, constraints, *tokens))
}

fn reachability(entry: Entry<'_>) -> Option<Exclusion> {
    if entry.condition.standing == Standing::Dead {
        return Some(Exclusion::Dead);
    }
    if entry.condition.hops >= UNREACHABLE_HOPS {
        return Some(Exclusion::NoPath);
    }
    match entry.experience.breaker {
        Breaker::Open { retry_in_ms } => Some(Exclusion::CircuitOpen { retry_in_ms }),
        Breaker::HalfOpen | Breaker::Closed => None,
    }
}

/// Whose it is and where.
fn place(routable: &Routable, constraints: &Constraints, me: NodeId) -> Option<Exclusion> {
    let among = |nodes: &[String]| nodes.iter().any(|node| is_node(routable, node));
    if constraints.local_only && routable.id.node != me {
        return Some(Exclusion::NotLocal);
    }
    if !constraints.nodes.is_empty() && !among(&constraints.nodes) {
        return Some(Exclusion::OtherNode { wanted: constraints.nodes.join(" or ") });
    }
    if among(&constraints.not_nodes) {
        return Some(Exclusion::NodeLeftOut);
    }
    if constraints.exclude.contains(&routable.id) {
        return Some(Exclusion::Tried);
    }
    if let Some(label) = constraints.labels.iter().find(|label| !label.is_among(&routable.labels)) {
        return Some(Exclusion::Label { wanted: label.to_string() });
    }
    residency(routable, &constraints.residency)
}

fn residency(routable: &Routable, wanted: &[String]) -> Option<Exclusion> {
    let is = routable.labels.iter().find(|(key, _)| key == RESIDENCY_LABEL).map(|(_, places)| places);
    let within = |is: &String| is.split(',').any(|place| wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(place.trim())));
    (!wanted.is_empty() && !is.is_some_and(within)).then(|| Exclusion::Residency { wanted: wanted.join(" or "), is: is.cloned() })
}

/// What it is.
fn sort(routable: &Routable, constraints: &Constraints) -> Option<Exclusion> {
    let Constraints { models, kinds, .. } = constraints;
    let is = |wanted: &String| routable.capability.name.eq_ignore_ascii_case(wanted) || routable.id.slug.as_str() == wanted;
    if !models.is_empty() && !models.iter().any(is) {
        return Some(Exclusion::OtherModel { wanted: models.join(" or ") });
    }
    let kind = &routable.capability.kind;
    let other = !kinds.is_empty() && !kinds.iter().any(|wanted| kind.eq_ignore_ascii_case(wanted));
    other.then(|| Exclusion::OtherKind { kind: kind.clone(), wanted: kinds.join(" or ") })
}

/// What one gets, and for how much.
fn worth(entry: Entry<'_>, constraints: &Constraints, tokens: RequestTokens) -> Option<Exclusion> {
    let quality = fit::quality_score(&entry.routable.capability.facts);
    if let Some(min) = constraints.min_quality.filter(|min| quality < *min) {
        return Some(Exclusion::PoorQuality { quality, min });
    }
    let rates = Rates::of(&entry.routable.cost, &entry.traits.energy, &entry.condition.load);
    if constraints.require_free && !rates.is_free() {
        return Some(Exclusion::NotFree { rates });
    }
    let (max, estimate) = (Micros(constraints.max_cost_micros?), rates.estimate(tokens));
    (estimate.total > max).then_some(Exclusion::TooDear { estimate, max })
}

fn latency(entry: Entry<'_>, constraints: &Constraints, tokens: RequestTokens) -> Option<Exclusion> {
    let max_ms = constraints.max_latency_ms?;
    let expected_ms = Expected::of(entry.condition, entry.routable.slots, &entry.experience, tokens).first_token_ms;
    (expected_ms > max_ms as f32).then_some(Exclusion::TooSlow { expected_ms, max_ms })
}

/// Whether `routable` belongs to the node called `node`: its name, or the start of its id, long enough to mean one.
pub(super) fn is_node(routable: &Routable, node: &str) -> bool {
    /// Fewest characters of an id that are taken for one.
    const ID_CHARS_MIN: usize = 6;
    *routable.node_name == *node || (node.len() >= ID_CHARS_MIN && routable.id.node.to_string().starts_with(node))
}

/// What a request needs its model to be able to do. Asked of every entry, so it is made once and only compares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ability {
    task: Option<Task>,
    tools: bool,
    vision: bool,
    tokens: u32,
    /// What counts where a body does not say whether it takes images: "no" for a choice by meaning; whoever names a model is taken to
    /// know it. Tools are another matter: servers of the OpenAI API take them without saying so.
    unsaid: bool,
}

/// The first ability that a body lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lacking {
    Task(Task),
    Tools,
    Vision,
    Tokens,
}

impl Ability {
    pub fn asked_by(intent: &Intent, tokens: RequestTokens) -> Self {
        let named = matches!(intent.model, ModelChoice::Named(_));
        // Whoever names a model knows how long its answers can be; `max_tokens` is then a ceiling and no need.
        let answer = if named { 0 } else { tokens.answer_max.unwrap_or(0) };
        Self {
            task: intent.operation.task(),
            tools: intent.constraints.tools,
            vision: intent.constraints.vision,
            tokens: tokens.prompt.likely.saturating_add(answer).max(intent.constraints.context_tokens.unwrap_or(0)),
            unsaid: named,
        }
    }

    /// Whether a body lacks nothing: [`Self::lacking`] without saying what.
    #[inline]
    pub fn is_met(&self, traits: &Traits) -> bool {
        let said = |asked: bool, can: Option<bool>, unsaid: bool| !asked | can.unwrap_or(unsaid);
        self.task.is_none_or(|task| task == traits.task)
            & said(self.tools, traits.tools, !traits.demonstration)
            & said(self.vision, traits.vision, self.unsaid)
            & (traits.context_length.unwrap_or(u32::MAX) >= self.tokens)
    }

    pub fn lacking(&self, traits: &Traits) -> Option<Lacking> {
        if let Some(task) = self.task.filter(|task| *task != traits.task) {
            return Some(Lacking::Task(task));
        }
        let lacking = [
            (self.tools && !traits.tools.unwrap_or(!traits.demonstration), Lacking::Tools),
            (self.vision && !traits.vision.unwrap_or(self.unsaid), Lacking::Vision),
            (traits.context_length.is_some_and(|tokens| tokens < self.tokens), Lacking::Tokens),
        ];
        lacking.into_iter().find(|(lacks, _)| *lacks).map(|(_, lacking)| lacking)
    }
}

impl Lacking {
    fn into_exclusion(self, ability: &Ability, traits: &Traits) -> Exclusion {
        match self {
            Self::Task(needed) => Exclusion::OtherTask { needed },
            Self::Tools => Exclusion::NoTools,
            Self::Vision => Exclusion::NoVision,
            Self::Tokens => Exclusion::ContextTooShort { tokens: traits.context_length.unwrap_or(0), needed: ability.tokens },
        }
    }
}
