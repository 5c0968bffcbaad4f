//! Hard constraints: who may not answer at all, and why.

use std::fmt;

use super::feedback::{Breaker, Experience};
use crate::intent::{Constraints, Intent, ModelChoice, Operation};
use crate::view::{Condition, Routable, Standing, Traits, UNREACHABLE_HOPS};
use atmo_protocol::NodeId;

/// The first hard constraint that an entry fails.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exclusion {
    Dead,
    NoPath,
    NotLocal,
    OtherNode,
    LeftOut,
    CircuitOpen { retry_in_ms: u32 },
    CannotChat,
    CannotEmbed,
    NoTools,
    NoVision,
    ContextTooShort { tokens: u32, needed: u32 },
    NotFree,
    Label { key: String },
    StandsAside,
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dead => f.write_str("its node is gone"),
            Self::NoPath => f.write_str("there is no path to its node"),
            Self::NotLocal => f.write_str("not on this node, and only local capabilities were asked for"),
            Self::OtherNode => f.write_str("not on the node that was asked for"),
            Self::LeftOut => f.write_str("left out by the request, or just tried"),
            Self::CircuitOpen { retry_in_ms } => {
                write!(f, "failed repeatedly; tried again in {:.1} s", *retry_in_ms as f32 / 1000.0)
            }
            Self::CannotChat => f.write_str("does not answer chat requests"),
            Self::CannotEmbed => f.write_str("does not make embeddings"),
            Self::NoTools => f.write_str("cannot call tools"),
            Self::NoVision => f.write_str("does not say that it takes images"),
            Self::ContextTooShort { tokens, needed } => {
                write!(f, "its context of {tokens} tokens is shorter than the {needed} needed")
            }
            Self::NotFree => f.write_str("costs something, and only free ones were asked for"),
            Self::StandsAside => f.write_str("the demonstration model stands aside for any other general model"),
            Self::Label { key } => write!(f, "its node's label {key:?} does not match"),
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

/// Why `entry` may not answer, if so.
pub(super) fn exclusion(entry: Entry<'_>, constraints: &Constraints, ability: &Ability, me: NodeId) -> Option<Exclusion> {
    reachability(entry)
        .or_else(|| place(entry.routable, constraints, me))
        .or_else(|| ability.lacking(entry.traits).map(|lacking| lacking.into_exclusion(ability, entry.traits)))
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

fn place(routable: &Routable, constraints: &Constraints, me: NodeId) -> Option<Exclusion> {
    if constraints.local_only && routable.id.node != me {
        return Some(Exclusion::NotLocal);
    }
    if constraints.node.as_deref().is_some_and(|node| !is_node(routable, node)) {
        return Some(Exclusion::OtherNode);
    }
    if constraints.exclude.contains(&routable.id) {
        return Some(Exclusion::LeftOut);
    }
    if constraints.require_free && !is_free(routable) {
        return Some(Exclusion::NotFree);
    }
    let (key, _) = constraints.labels.iter().find(|label| !routable.labels.contains(label))?;
    Some(Exclusion::Label { key: key.clone() })
}

/// Whether `routable` belongs to the node called `node`: its name, or the start of its id, long enough to mean one.
pub(super) fn is_node(routable: &Routable, node: &str) -> bool {
    /// Fewest characters of an id that are taken for one.
    const ID_CHARS_MIN: usize = 6;
    *routable.node_name == *node || (node.len() >= ID_CHARS_MIN && routable.id.node.to_string().starts_with(node))
}

fn is_free(routable: &Routable) -> bool {
    routable.cost.prompt_micros_per_1k == 0 && routable.cost.completion_micros_per_1k == 0
}

/// What a request needs its model to be able to do. Asked of every entry, so it is made once and only compares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ability {
    chat: bool,
    embed: bool,
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
    Chat,
    Embed,
    Tools,
    Vision,
    Tokens,
}

impl Ability {
    pub fn asked_by(intent: &Intent) -> Self {
        Self {
            chat: matches!(intent.operation, Operation::Chat | Operation::Complete),
            embed: intent.operation == Operation::Embed,
            tools: intent.constraints.tools,
            vision: intent.constraints.vision,
            tokens: intent.constraints.context_tokens.unwrap_or(0),
            unsaid: matches!(intent.model, ModelChoice::Named(_)),
        }
    }

    /// Whether a body lacks nothing: [`Self::lacking`] without saying what.
    #[inline]
    pub fn is_met(&self, traits: &Traits) -> bool {
        let said = |asked: bool, can: Option<bool>, unsaid: bool| !asked | can.unwrap_or(unsaid);
        (!self.chat | traits.can_chat)
            & (!self.embed | traits.can_embed)
            & said(self.tools, traits.tools, !traits.demonstration)
            & said(self.vision, traits.vision, self.unsaid)
            & (traits.context_length.unwrap_or(u32::MAX) >= self.tokens)
    }

    pub fn lacking(&self, traits: &Traits) -> Option<Lacking> {
        let lacking = [
            (self.chat && !traits.can_chat, Lacking::Chat),
            (self.embed && !traits.can_embed, Lacking::Embed),
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
            Self::Chat => Exclusion::CannotChat,
            Self::Embed => Exclusion::CannotEmbed,
            Self::Tools => Exclusion::NoTools,
            Self::Vision => Exclusion::NoVision,
            Self::Tokens => Exclusion::ContextTooShort { tokens: traits.context_length.unwrap_or(0), needed: ability.tokens },
        }
    }
}
