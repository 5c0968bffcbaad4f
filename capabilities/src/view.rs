//! What routing looks at: everything that can be routed to, frozen.
//!
//! A view has two halves. The [`Roster`] (who offers what, the names, the index over distinct bodies) changes when somebody joins,
//! leaves or announces something new. The conditions (hops, load, round trips, standing) are a column beside it: a change of load makes a
//! new view that shares the old roster.

use std::collections::BTreeMap;
use std::sync::Arc;

use atmo_protocol::record::{Cost, Load};
use atmo_protocol::{BodyHash, CapabilityId, Mode, NodeId};
use serde::{Deserialize, Serialize};

use crate::capability::Capability;
use crate::embed::EmbeddingSpace;
use crate::exemplars::SetId;
use crate::index::ExactIndex;
use crate::route::Experience;
use crate::score::words::WordIndex;
use crate::score::{Factors, fit};

/// One capability of one node: what does not change from second to second.
#[derive(Clone, PartialEq, Debug)]
pub struct Routable {
    pub id: CapabilityId,
    /// What people call the node; need not be unique.
    pub node_name: Arc<str>,
    pub capability: Arc<Capability>,
    pub mode: Mode,
    /// Labels of the node.
    pub labels: Arc<[(String, String)]>,
    pub cost: Cost,
    /// Requests it executes at once, as announced.
    pub slots: u16,
}

impl Routable {
    /// As people are shown it: `node/slug`.
    pub fn shown(&self) -> String {
        format!("{}/{}", self.node_name, self.id.slug)
    }
}

/// From this many hops on there is no path.
pub const UNREACHABLE_HOPS: u8 = 32;

/// How a capability is doing: what does change from second to second.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Condition {
    /// Fewest hops to its node; 0 is this node.
    pub hops: u8,
    /// As its node said last; all zero where nothing was heard.
    pub load: Load,
    /// How old `load` is.
    pub load_age_ms: u32,
    /// Measured round trip to its node, where there is a path.
    pub rtt_ms: Option<f32>,
    pub standing: Standing,
}

/// What is believed about a node's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    #[default]
    Alive,
    Suspected,
    Dead,
}

/// The slow half of a view: entries in order of their ids, their names, and the index over distinct bodies.
#[derive(Debug)]
pub struct Roster {
    entries: Box<[Routable]>,
    /// For each entry, which distinct body it offers.
    body_of: Box<[u32]>,
    bodies: Box<[Arc<Capability>]>,
    /// For each body, what every decision asks of it.
    traits: Box<[Traits]>,
    /// The exemplar sets of each kind of thing that is offered.
    groups: Box<[Vec<SetId>]>,
    by_name: BTreeMap<String, Vec<u32>>,
    index: ExactIndex,
    words: WordIndex,
    space: Arc<EmbeddingSpace>,
}

/// What decisions ask of a body again and again, close together in memory.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Traits {
    pub can_chat: bool,
    pub can_embed: bool,
    pub general: bool,
    pub demonstration: bool,
    pub tools: Option<bool>,
    pub vision: Option<bool>,
    pub context_length: Option<u32>,
    /// From [`fit::size`](crate::score::fit::size).
    pub size: f32,
    pub quality: f32,
    /// Bodies of the same exemplar sets are the same kind of thing, and do not compete for what was meant. Numbered from 0.
    pub group: u32,
}

impl Traits {
    fn of(capability: &Capability, group: u32) -> Self {
        let facts = &capability.facts;
        Self {
            can_chat: capability.can_chat(),
            can_embed: capability.can_embed(),
            general: capability.is_general(),
            demonstration: facts.demonstration,
            tools: facts.tools,
            vision: facts.vision,
            context_length: facts.context_length,
            size: fit::size(facts),
            quality: fit::quality(facts),
            group,
        }
    }
}

/// An immutable picture of the mesh for [`decide`](crate::route::decide). Cheap to clone.
#[derive(Clone, Debug)]
pub struct RoutingView {
    pub me: NodeId,
    roster: Arc<Roster>,
    conditions: Arc<[Condition]>,
    /// For each entry, what every decision would make of its condition.
    fitness: Arc<[Fitness]>,
}

/// The factors that no request changes, worked out once per view and not once per decision.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Fitness {
    /// Alive, or at least not dead, and with a path to it.
    pub reachable: bool,
    /// The product of distance, load, cost, quality and reliability, without our own experience.
    pub product: f32,
    /// One factor of it.
    pub load: f32,
}

impl Fitness {
    fn of(routable: &Routable, condition: &Condition, traits: &Traits) -> Self {
        let factors = Factors::of(routable, condition, traits, &Experience::default());
        Self {
            reachable: condition.standing != Standing::Dead && condition.hops < UNREACHABLE_HOPS,
            product: factors.product(),
            load: factors.load,
        }
    }
}

impl Roster {
    /// Orders the entries by id (the last of a repeated id counts) and indexes their distinct bodies.
    pub fn new(entries: impl IntoIterator<Item = Routable>, space: Arc<EmbeddingSpace>) -> Self {
        let entries: BTreeMap<CapabilityId, Routable> = entries.into_iter().map(|entry| (entry.id.clone(), entry)).collect();
        let entries: Box<[Routable]> = entries.into_values().collect();
        let (bodies, body_of) = distinct_bodies(&entries);
        let mut index = ExactIndex::default();
        bodies.iter().for_each(|body| index.push(&body.vectors));
        let (groups, group_of) = groups_of(&bodies);
        let traits = bodies.iter().zip(group_of).map(|(body, group)| Traits::of(body, group)).collect();
        let words = WordIndex::new(bodies.iter().map(|body| &body.words));
        Self { by_name: names_of(&entries), index, words, body_of, traits, groups, bodies, entries, space }
    }

    pub fn entries(&self) -> &[Routable] {
        &self.entries
    }

    /// Positions of the entries whose model has exactly this name.
    pub fn named(&self, model: &str) -> &[u32] {
        self.by_name.get(model).map_or(&[], Vec::as_slice)
    }

    /// Every model name, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    pub fn position(&self, id: &CapabilityId) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.id.cmp(id)).ok()
    }

    /// The distinct bodies that are offered.
    pub fn bodies(&self) -> &[Arc<Capability>] {
        &self.bodies
    }

    #[inline]
    pub(crate) fn body_of(&self, entry: usize) -> usize {
        self.body_of[entry] as usize
    }

    #[inline]
    pub(crate) fn traits(&self) -> &[Traits] {
        &self.traits
    }

    pub(crate) fn groups(&self) -> &[Vec<SetId>] {
        &self.groups
    }

    /// The bodies' own vectors, one group for each body in order.
    pub fn index(&self) -> &ExactIndex {
        &self.index
    }

    /// The words of the bodies in order.
    pub(crate) fn words(&self) -> &WordIndex {
        &self.words
    }

    pub fn space(&self) -> &Arc<EmbeddingSpace> {
        &self.space
    }
}

/// The distinct bodies in order of first appearance, and for each entry the number of its body.
fn distinct_bodies(entries: &[Routable]) -> (Box<[Arc<Capability>]>, Box<[u32]>) {
    let mut numbers: BTreeMap<BodyHash, u32> = BTreeMap::new();
    let mut bodies = Vec::new();
    let body_of = entries
        .iter()
        .map(|entry| {
            *numbers.entry(entry.capability.hash).or_insert_with(|| {
                bodies.push(Arc::clone(&entry.capability));
                bodies.len() as u32 - 1
            })
        })
        .collect();
    (bodies.into(), body_of)
}

/// The distinct lists of exemplar sets in order of first appearance, and for each body the number of its list.
fn groups_of(bodies: &[Arc<Capability>]) -> (Box<[Vec<SetId>]>, Vec<u32>) {
    let mut numbers: BTreeMap<&[SetId], u32> = BTreeMap::new();
    let mut groups = Vec::new();
    let mut number = |sets: &[SetId]| {
        groups.push(sets.to_vec());
        groups.len() as u32 - 1
    };
    let group_of = bodies.iter().map(|body| *numbers.entry(&body.sets).or_insert_with(|| number(&body.sets))).collect();
    (groups.into(), group_of)
}

fn names_of(entries: &[Routable]) -> BTreeMap<String, Vec<u32>> {
    let mut names: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (position, entry) in entries.iter().enumerate() {
        names.entry(entry.capability.name.clone()).or_default().push(position as u32);
    }
    names
}

impl RoutingView {
    /// A view of `roster` under the conditions that `of` gives for each entry.
    pub fn new(me: NodeId, roster: Arc<Roster>, of: impl FnMut(&Routable) -> Condition) -> Self {
        let conditions: Arc<[Condition]> = roster.entries.iter().map(of).collect();
        let entries = roster.entries.iter().zip(conditions.iter()).zip(&roster.body_of);
        let fitness = entries
            .map(|((routable, condition), body)| Fitness::of(routable, condition, &roster.traits[*body as usize]))
            .collect();
        Self { me, roster, conditions, fitness }
    }

    /// A view of nothing.
    pub fn empty(me: NodeId, space: Arc<EmbeddingSpace>) -> Self {
        Self::new(me, Arc::new(Roster::new([], space)), |_| Condition::default())
    }

    /// The same roster under new conditions: what a change of load, hops or standing costs.
    pub fn with_conditions(&self, of: impl FnMut(&Routable) -> Condition) -> Self {
        Self::new(self.me, Arc::clone(&self.roster), of)
    }

    #[inline]
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// What can be routed to, in order of id.
    pub fn entries(&self) -> &[Routable] {
        &self.roster.entries
    }

    /// One for each entry, in the same order.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    #[inline]
    pub(crate) fn fitness(&self) -> &[Fitness] {
        &self.fitness
    }

    pub fn get(&self, id: &CapabilityId) -> Option<(&Routable, &Condition)> {
        let position = self.roster.position(id)?;
        Some((&self.entries()[position], &self.conditions[position]))
    }
}
