//! What routing looks at: everything that can be routed to, frozen.
//!
//! A view has two halves. The [`Roster`] (who offers what, the names, the index over distinct bodies) changes when somebody joins,
//! leaves or announces something new. The conditions (hops, load, round trips, standing) are a column beside it: a change of load makes a
//! new view that shares the old roster.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use atmo_protocol::record::{Cost, Load};
use atmo_protocol::{BodyHash, CapabilityId, Mode, NodeId};
use serde::{Deserialize, Serialize};

use crate::capability::{Capability, Task};
use crate::embed::EmbeddingSpace;
use crate::exemplars::SetId;
use crate::index::Index;
use crate::route::Experience;
use crate::score::price::Energy;
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

/// The age of a load that nobody spoke of.
pub const UNHEARD_MS: u32 = u32::MAX;

/// How a capability is doing: what does change from second to second.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Condition {
    /// Fewest hops to its node; 0 is this node.
    pub hops: u8,
    /// As its node said last; all zero where nothing was heard.
    pub load: Load,
    /// How old `load` is; [`UNHEARD_MS`] where none was heard.
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
    /// The entries, body by body.
    by_body: Box<[u32]>,
    /// Where each body begins in `by_body`, and where the last one ends.
    starts: Box<[u32]>,
    bodies: Bodies,
    /// What decisions ask of bodies: many bodies have the same traits, and each decision judges them once.
    traits: Box<[Traits]>,
    /// For each body, the number of its traits.
    traits_of: Box<[u32]>,
    /// The exemplar sets of each kind of thing that is offered. Bodies of the same sets do not compete for what was meant.
    groups: Box<[Vec<SetId>]>,
    /// For each body, the number of its group.
    group_of: Box<[u32]>,
    /// Bodies of one group that follow each other: nearly always all there are.
    runs: Box<[Run]>,
    /// The bodies that are models for anything.
    general: Box<[u32]>,
    by_name: BTreeMap<String, Vec<u32>>,
    index: Index,
    /// The words of the bodies.
    words: Arc<WordIndex>,
    space: Arc<EmbeddingSpace>,
}

/// Bodies of one group that follow each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub group: usize,
    pub bodies: Range<usize>,
}

/// Tombstones that are never worth a new index.
const TOMBSTONES_FREE: usize = 64;

/// Distinct bodies, numbered in the order in which they came.
#[derive(Debug, Clone, Default)]
struct Bodies {
    list: Vec<Arc<Capability>>,
    numbers: BTreeMap<BodyHash, u32>,
}

impl Bodies {
    fn number(&mut self, body: &Arc<Capability>) -> u32 {
        *self.numbers.entry(body.hash).or_insert_with(|| {
            self.list.push(Arc::clone(body));
            self.list.len() as u32 - 1
        })
    }
}

/// What decisions ask of a body again and again.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Traits {
    pub task: Task,
    pub general: bool,
    pub language_model: bool,
    pub demonstration: bool,
    pub tools: Option<bool>,
    pub vision: Option<bool>,
    pub context_length: Option<u32>,
    /// From [`fit::size`](crate::score::fit::size).
    pub size: f32,
    pub quality: f32,
    pub energy: Energy,
}

impl Traits {
    fn of(capability: &Capability) -> Self {
        let facts = &capability.facts;
        Self {
            task: capability.task(),
            general: capability.is_general(),
            language_model: capability.is_language_model(),
            demonstration: facts.demonstration,
            tools: facts.tools,
            vision: facts.vision,
            context_length: facts.context_length,
            size: fit::size(facts),
            quality: fit::quality(facts),
            energy: facts.energy,
        }
    }
}

/// An immutable picture of the mesh for [`decide`](crate::route::decide). Cheap to clone.
#[derive(Clone, Debug)]
pub struct RoutingView {
    pub me: NodeId,
    /// When the conditions were so, in monotonic milliseconds of whoever made the view.
    pub made_ms: u64,
    roster: Arc<Roster>,
    conditions: Arc<[Condition]>,
    /// For each entry, what every decision would make of its condition.
    fitness: Arc<[Fitness]>,
    /// For each body, the same of all who offer it.
    offers: Arc<[Offers]>,
    /// Positions of the entries that cannot be reached, ascending.
    unreachable: Arc<[u32]>,
}

/// Those who offer one body and can be reached.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Offers {
    pub reachable: u32,
    /// The position of the first of them, where there is one.
    pub first: u32,
    /// The best fitness among them.
    pub best: f32,
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
        let entries = ordered(entries);
        let mut bodies = Bodies::default();
        let mut by_group: Vec<&Arc<Capability>> = entries.iter().map(|entry| &entry.capability).collect();
        by_group.sort_by(|a, b| (&a.sets, a.hash).cmp(&(&b.sets, b.hash)));
        by_group.into_iter().for_each(|body| _ = bodies.number(body));
        let mut index = Index::new(space.mean());
        index.extend(bodies.list.iter().map(|body| body.vectors.as_slice()));
        let mut words = WordIndex::default();
        words.extend(bodies.list.iter().map(|body| &body.words));
        Self::with_bodies(entries, bodies, index, Arc::new(words), space)
    }

    /// The roster that comes after `self`. Bodies keep their numbers, new ones are added to the index, and those that nobody offers any
    /// more stay in it as tombstones until they outweigh the living.
    pub fn followed_by(&self, entries: impl IntoIterator<Item = Routable>) -> Self {
        let entries = ordered(entries);
        let next =
            Self::with_bodies(entries, self.bodies.clone(), self.index.clone(), Arc::clone(&self.words), Arc::clone(&self.space));
        let living = (0..next.bodies.list.len()).filter(|body| !next.entries_of(*body).is_empty()).count();
        let tombstones = next.bodies.list.len() - living;
        if tombstones > living + TOMBSTONES_FREE { Self::new(next.entries, next.space) } else { next }
    }

    fn with_bodies(
        entries: Box<[Routable]>,
        mut bodies: Bodies,
        mut index: Index,
        mut words: Arc<WordIndex>,
        space: Arc<EmbeddingSpace>,
    ) -> Self {
        let indexed = index.exact().len();
        let body_of: Box<[u32]> = entries.iter().map(|entry| bodies.number(&entry.capability)).collect();
        index.extend(bodies.list[indexed..].iter().map(|body| body.vectors.as_slice()));
        if bodies.list.len() > indexed {
            Arc::make_mut(&mut words).extend(bodies.list[indexed..].iter().map(|body| &body.words));
        }
        let (groups, group_of) = groups_of(&bodies.list);
        let runs = runs_of(&group_of);
        let (traits, traits_of) = distinct_traits(&bodies.list);
        let is_general = |body: &u32| traits[traits_of[*body as usize] as usize].general;
        let general = (0..bodies.list.len() as u32).filter(is_general).collect();
        let (by_body, starts) = sorted_by_body(&body_of, bodies.list.len());
        let by_name = names_of(&entries);
        Self {
            entries,
            body_of,
            by_body,
            starts,
            bodies,
            traits,
            traits_of,
            groups,
            group_of,
            runs,
            general,
            by_name,
            index,
            words,
            space,
        }
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

    /// The distinct bodies, and among them tombstones: those that nobody offers any more.
    pub fn bodies(&self) -> &[Arc<Capability>] {
        &self.bodies.list
    }

    #[inline]
    pub(crate) fn body_of(&self, entry: usize) -> usize {
        self.body_of[entry] as usize
    }

    /// Positions of the entries that offer `body`, ascending.
    #[inline]
    pub(crate) fn entries_of(&self, body: usize) -> &[u32] {
        &self.by_body[self.starts[body] as usize..self.starts[body + 1] as usize]
    }

    #[inline]
    pub(crate) fn traits(&self, body: usize) -> &Traits {
        &self.traits[self.traits_of[body] as usize]
    }

    /// The traits that there are, and for each body the number of its own.
    pub(crate) fn distinct_traits(&self) -> (&[Traits], &[u32]) {
        (&self.traits, &self.traits_of)
    }

    /// For each body, the number of its group.
    #[inline]
    pub(crate) fn group_of(&self) -> &[u32] {
        &self.group_of
    }

    /// Bodies of one group that follow each other, in order.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The bodies that are models for anything, ascending.
    pub(crate) fn general(&self) -> &[u32] {
        &self.general
    }

    pub(crate) fn groups(&self) -> &[Vec<SetId>] {
        &self.groups
    }

    /// The bodies' own vectors, one group for each body in order.
    pub fn index(&self) -> &Index {
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

fn ordered(entries: impl IntoIterator<Item = Routable>) -> Box<[Routable]> {
    let entries: BTreeMap<CapabilityId, Routable> = entries.into_iter().map(|entry| (entry.id.clone(), entry)).collect();
    entries.into_values().collect()
}

/// The entries in order of their bodies, and where each of the `bodies` bodies begins; one more says where the last one ends.
fn sorted_by_body(body_of: &[u32], bodies: usize) -> (Box<[u32]>, Box<[u32]>) {
    let mut by_body: Vec<u32> = (0..body_of.len() as u32).collect();
    by_body.sort_by_key(|entry| body_of[*entry as usize]);
    let start = |body: u32| by_body.partition_point(|entry| body_of[*entry as usize] < body) as u32;
    let starts = (0..=bodies as u32).map(start).collect();
    (by_body.into(), starts)
}

/// The distinct lists of exemplar sets in order of first appearance, and for each body the number of its list.
fn groups_of(bodies: &[Arc<Capability>]) -> (Box<[Vec<SetId>]>, Box<[u32]>) {
    numbered(bodies, |body| body.sets.as_slice(), |body| body.sets.clone())
}

fn runs_of(group_of: &[u32]) -> Box<[Run]> {
    let mut end = 0;
    let run = |bodies: &[u32]| {
        end += bodies.len();
        Run { group: bodies[0] as usize, bodies: end - bodies.len()..end }
    };
    group_of.chunk_by(|a, b| a == b).map(run).collect()
}

/// The distinct traits in order of first appearance, and for each body the number of its traits.
fn distinct_traits(bodies: &[Arc<Capability>]) -> (Box<[Traits]>, Box<[u32]>) {
    let key = |body: &Arc<Capability>| {
        let facts = &body.facts;
        let (size, quality) = (facts.parameters_billions.map(f32::to_bits), facts.quality.map(f32::to_bits));
        let said = (facts.demonstration, facts.tools, facts.vision, facts.context_length, size, quality);
        let Energy { joules_per_1k, watts, micros_per_kwh } = facts.energy;
        (
            said,
            (joules_per_1k.to_bits(), watts.to_bits(), micros_per_kwh),
            body.task(),
            body.is_general(),
            body.is_language_model(),
        )
    };
    numbered(bodies, key, |body| Traits::of(body))
}

/// What `value` makes of the first body of each `key`, and for each body the number of its key.
fn numbered<'a, K: Ord, V>(
    bodies: &'a [Arc<Capability>],
    key: impl Fn(&'a Arc<Capability>) -> K,
    value: impl Fn(&'a Arc<Capability>) -> V,
) -> (Box<[V]>, Box<[u32]>) {
    let mut numbers: BTreeMap<K, u32> = BTreeMap::new();
    let mut values = Vec::new();
    let mut number = |body| {
        values.push(value(body));
        values.len() as u32 - 1
    };
    let number_of = bodies.iter().map(|body| *numbers.entry(key(body)).or_insert_with(|| number(body))).collect();
    (values.into(), number_of)
}

fn names_of(entries: &[Routable]) -> BTreeMap<String, Vec<u32>> {
    let mut names: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (position, entry) in entries.iter().enumerate() {
        names.entry(entry.capability.name.clone()).or_default().push(position as u32);
    }
    names
}

fn offers(roster: &Roster, fitness: &[Fitness]) -> Arc<[Offers]> {
    let of_body = |body: usize| {
        let mut reachable = roster.entries_of(body).iter().copied().filter(|entry| fitness[*entry as usize].reachable);
        let best = reachable.clone().fold(0f32, |best, entry| best.max(fitness[entry as usize].product));
        Offers { reachable: reachable.clone().count() as u32, first: reachable.next().unwrap_or(0), best }
    };
    (0..roster.bodies.list.len()).map(of_body).collect()
}

impl RoutingView {
    /// A view of `roster` under the conditions that `of` gives for each entry.
    pub fn new(me: NodeId, roster: Arc<Roster>, of: impl FnMut(&Routable) -> Condition) -> Self {
        let conditions: Arc<[Condition]> = roster.entries.iter().map(of).collect();
        let entries = roster.entries.iter().zip(conditions.iter()).zip(&roster.body_of);
        let fitness: Arc<[Fitness]> = entries
            .map(|((routable, condition), body)| Fitness::of(routable, condition, roster.traits(*body as usize)))
            .collect();
        let offers = offers(&roster, &fitness);
        let unreachable =
            (0u32..).zip(fitness.iter()).filter(|(_, fitness)| !fitness.reachable).map(|(entry, _)| entry).collect();
        Self { me, made_ms: 0, roster, conditions, fitness, offers, unreachable }
    }

    /// A view of nothing.
    pub fn empty(me: NodeId, space: Arc<EmbeddingSpace>) -> Self {
        Self::new(me, Arc::new(Roster::new([], space)), |_| Condition::default())
    }

    /// The same roster under new conditions: what a change of load, hops or standing costs.
    pub fn with_conditions(&self, of: impl FnMut(&Routable) -> Condition) -> Self {
        Self { made_ms: self.made_ms, ..Self::new(self.me, Arc::clone(&self.roster), of) }
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

    #[inline]
    pub(crate) fn offers(&self) -> &[Offers] {
        &self.offers
    }

    /// Positions of the entries that cannot be reached, ascending.
    pub(crate) fn unreachable(&self) -> &[u32] {
        &self.unreachable
    }

    /// How old the load that is known of an entry is now; `None` where none was heard.
    pub fn load_age_ms(&self, id: &CapabilityId, now_ms: u64) -> Option<u32> {
        let (_, condition) = self.get(id).filter(|(_, condition)| condition.load_age_ms != UNHEARD_MS)?;
        let since = u32::try_from(now_ms.saturating_sub(self.made_ms)).unwrap_or(UNHEARD_MS);
        Some(condition.load_age_ms.saturating_add(since))
    }

    /// The same view with what some nodes have just said of their loads.
    pub fn with_loads(&self, heard: &BTreeMap<CapabilityId, Load>) -> Self {
        let mut before = self.conditions.iter();
        self.with_conditions(|entry| {
            let condition = *before.next().expect("there is one for each entry, in the same order");
            match heard.get(&entry.id) {
                Some(load) => Condition { load: *load, load_age_ms: 0, ..condition },
                None => condition,
            }
        })
    }

    pub fn get(&self, id: &CapabilityId) -> Option<(&Routable, &Condition)> {
        let position = self.roster.position(id)?;
        Some((&self.entries()[position], &self.conditions[position]))
    }
}
