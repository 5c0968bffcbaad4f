//! The entries in question, parted by the hard constraints.
//!
//! Nearly every entry passes, and nearly every request constrains nothing about places, so the common way through looks at each distinct
//! body once and at no entry but those that cannot be reached, whose circuit is open, or that are told of.

use std::collections::BTreeMap;

use super::decision::{EXCLUDED_MAX, Excluded, ExcludedBy};
use super::feedback::{Breaker, Experience, Feedback};
use super::filter::{self, Ability, Asked, Entry, Exclusion};
use crate::exemplars::SetId;
use crate::intent::{Intent, ModelChoice, RequestTokens};
use crate::view::RoutingView;

/// Different exclusions that a refusal tells of.
const EXCLUSIONS_TOLD: usize = 3;

/// What passes and what does not.
pub(super) struct Screened<'a> {
    pub view: &'a RoutingView,
    pub intent: &'a Intent,
    /// How many entries pass.
    pub eligible_total: usize,
    /// Of the prompt and its answer.
    pub tokens: RequestTokens,
    /// What happened lately, by position, ascending.
    experiences: Vec<(u32, Experience)>,
    /// Positions of those whose circuit is open, ascending.
    broken: Vec<u32>,
    /// For each body, whether somebody who offers it passes.
    pub bodies: Vec<bool>,
    passing: Passing,
    /// The first of those that do not pass.
    excluded: Vec<(u32, Exclusion)>,
    /// By the name of what excluded them: how many, and the first of them.
    excluded_by: BTreeMap<&'static str, (usize, u32, Exclusion)>,
}

/// Which entries pass, of bodies that do.
enum Passing {
    /// Those that can be reached and whose circuit is not open.
    Working,
    /// These.
    Listed { ascending: Vec<u32>, marked: Vec<bool> },
}

impl<'a> Screened<'a> {
    /// Parts the entries at the positions in `scope`, which ascend; all there are where it is `None`.
    pub fn new(view: &'a RoutingView, intent: &'a Intent, feedback: &Feedback, scope: Option<Vec<u32>>) -> Self {
        let tokens = intent.tokens();
        let experiences = feedback.by_position(view.roster());
        let is_broken = |(_, experience): &&(u32, Experience)| matches!(experience.breaker, Breaker::Open { .. });
        let mut screened = Self {
            view,
            intent,
            tokens,
            eligible_total: 0,
            broken: experiences.iter().filter(is_broken).map(|(position, _)| *position).collect(),
            experiences,
            bodies: vec![false; view.roster().bodies().len()],
            passing: Passing::Working,
            excluded: Vec::new(),
            excluded_by: BTreeMap::new(),
        };
        let asked = Asked { constraints: &intent.constraints, ability: Ability::asked_by(intent, tokens), tokens, me: view.me };
        match scope {
            Some(scope) => screened.part_each(scope, &asked),
            None if intent.constraints.restrict_entries() => {
                screened.part_each((0..view.entries().len() as u32).collect(), &asked);
            }
            None => screened.part_bodies(&asked),
        }
        if intent.model == ModelChoice::Auto {
            screened.set_demonstration_aside();
        }
        screened
    }

    /// Whether the entry at `position` may answer.
    #[inline]
    pub fn passes(&self, position: u32) -> bool {
        self.bodies[self.view.roster().body_of(position as usize)]
            && match &self.passing {
                Passing::Working => self.works(position),
                Passing::Listed { marked, .. } => marked[position as usize],
            }
    }

    /// The entries that pass, ascending, where each was looked at.
    pub fn listed(&self) -> Option<&[u32]> {
        match &self.passing {
            Passing::Working => None,
            Passing::Listed { ascending, .. } => Some(ascending),
        }
    }

    #[inline]
    fn works(&self, position: u32) -> bool {
        self.view.fitness()[position as usize].reachable && self.broken.binary_search(&position).is_err()
    }

    /// Where nothing counts but what bodies can do and who works.
    fn part_bodies(&mut self, asked: &Asked<'_>) {
        let roster = self.view.roster();
        let (traits, traits_of) = roster.distinct_traits();
        let able: Vec<bool> = traits.iter().map(|traits| asked.ability.is_met(traits)).collect();
        for ((traits, offers), passes) in traits_of.iter().zip(self.view.offers()).zip(&mut self.bodies) {
            *passes = able[*traits as usize] & (offers.reachable > 0);
            self.eligible_total += if *passes { offers.reachable as usize } else { 0 };
        }
        for position in &self.broken {
            let body = roster.body_of(*position as usize);
            let passed = able[roster.distinct_traits().1[body] as usize] && self.view.fitness()[*position as usize].reachable;
            self.eligible_total -= usize::from(passed);
            self.bodies[body] &= roster.entries_of(body).iter().any(|entry| self.works(*entry));
        }
        if self.eligible_total < self.view.entries().len() {
            self.tell_of_each(&able, asked);
        }
    }

    /// Tells of those whom [`Self::part_bodies`] let not pass.
    fn tell_of_each(&mut self, able: &[bool], asked: &Asked<'_>) {
        let view = self.view;
        let broken = self.broken.iter().filter(|position| view.fitness()[**position as usize].reachable);
        let idle: Vec<u32> = view.unreachable().iter().chain(broken).copied().collect();
        for position in &idle {
            if let Some(exclusion) = self.exclusion(*position, asked) {
                self.count(1, *position, exclusion);
            }
        }
        let mut first = First::default();
        idle.into_iter().for_each(|position| _ = first.offer(position));
        let traits_of = view.roster().distinct_traits().1;
        let mut lacking = vec![(0, u32::MAX); able.len()];
        for (body, traits) in traits_of.iter().enumerate().filter(|(_, traits)| !able[**traits as usize]) {
            let (total, earliest) = self.working(body);
            let lacking = &mut lacking[*traits as usize];
            *lacking = (lacking.0 + total, lacking.1.min(earliest));
            if earliest < first.floor() {
                let mut working = view.roster().entries_of(body).iter().filter(|position| self.works(**position));
                working.all(|position| first.offer(*position));
            }
        }
        for (total, position) in lacking.into_iter().filter(|(total, _)| *total > 0) {
            if let Some(exclusion) = self.exclusion(position, asked) {
                self.count(total, position, exclusion);
            }
        }
        let told = |position| Some((position, self.exclusion(position, asked)?));
        self.excluded = first.ascending.into_iter().filter_map(told).collect();
    }

    /// How many of those who offer `body` work, and the first of them; the greatest number where there is none.
    fn working(&self, body: usize) -> (usize, u32) {
        let offers = self.view.offers()[body];
        if self.broken.is_empty() {
            return (offers.reachable as usize, if offers.reachable > 0 { offers.first } else { u32::MAX });
        }
        let mut working = self.view.roster().entries_of(body).iter().copied().filter(|position| self.works(*position));
        (working.clone().count(), working.next().unwrap_or(u32::MAX))
    }

    fn part_each(&mut self, scope: Vec<u32>, asked: &Asked<'_>) {
        let anyone = !self.intent.constraints.restrict_entries();
        let mut marked = vec![false; self.view.entries().len()];
        let passes = |position: &u32| {
            let passes = self.part(*position, anyone, asked);
            marked[*position as usize] = passes;
            passes
        };
        let ascending: Vec<u32> = scope.into_iter().filter(passes).collect();
        self.eligible_total = ascending.len();
        self.passing = Passing::Listed { ascending, marked };
    }

    fn part(&mut self, position: u32, anyone: bool, asked: &Asked<'_>) -> bool {
        let body = self.view.roster().body_of(position as usize);
        let passes = anyone && self.works(position) && asked.ability.is_met(self.view.roster().traits(body));
        if !passes && let Some(exclusion) = self.exclusion(position, asked) {
            self.exclude(&[position], exclusion);
            return false;
        }
        self.bodies[body] = true;
        true
    }

    /// The demonstration model answers only where no other general model can.
    fn set_demonstration_aside(&mut self) {
        let roster = self.view.roster();
        if !roster.distinct_traits().0.iter().any(|traits| traits.demonstration) {
            return;
        }
        let (aside, others): (Vec<usize>, Vec<usize>) =
            (0..self.bodies.len()).filter(|body| self.bodies[*body]).partition(|body| roster.traits(*body).demonstration);
        if !others.iter().any(|body| roster.traits(*body).general) {
            return;
        }
        let mut positions: Vec<u32> = aside.iter().flat_map(|body| roster.entries_of(*body)).copied().collect();
        positions.retain(|position| self.passes(*position));
        positions.sort_unstable();
        aside.iter().for_each(|body| self.bodies[*body] = false);
        if let Passing::Listed { ascending, marked } = &mut self.passing {
            positions.iter().for_each(|position| marked[*position as usize] = false);
            ascending.retain(|position| marked[*position as usize]);
        }
        self.eligible_total -= positions.len();
        self.exclude(&positions, Exclusion::StandsAside);
    }

    fn exclusion(&self, position: u32, asked: &Asked<'_>) -> Option<Exclusion> {
        let entry = Entry {
            routable: &self.view.entries()[position as usize],
            condition: &self.view.conditions()[position as usize],
            traits: self.view.roster().traits(self.view.roster().body_of(position as usize)),
            experience: self.experience(position),
        };
        filter::exclusion(entry, asked)
    }

    /// What happened lately with the entry at `position`.
    pub fn experience(&self, position: u32) -> Experience {
        self.experienced(position).unwrap_or_default()
    }

    /// The same, where anything did.
    #[inline]
    pub fn experienced(&self, position: u32) -> Option<Experience> {
        let place = self.experiences.binary_search_by_key(&position, |(position, _)| *position);
        place.ok().map(|place| self.experiences[place].1)
    }

    /// Excludes the entries at `positions`, which ascend, for one reason.
    fn exclude(&mut self, positions: &[u32], exclusion: Exclusion) {
        if let Some(first) = positions.first() {
            self.count(positions.len(), *first, exclusion.clone());
        }
        let room = EXCLUDED_MAX - self.excluded.len();
        self.excluded.extend(positions.iter().take(room).map(|position| (*position, exclusion.clone())));
    }

    fn count(&mut self, more: usize, position: u32, exclusion: Exclusion) {
        let (total, first, of_first) =
            self.excluded_by.entry(exclusion.name()).or_insert_with(|| (0, position, exclusion.clone()));
        *total += more;
        if position < *first {
            (*first, *of_first) = (position, exclusion);
        }
    }

    /// What excluded them, in words: for each thing the first of those, the most frequent first. Empty where nobody was.
    pub fn exclusions(&self) -> String {
        let all = self.excluded_by();
        let [first] = all.as_slice() else {
            let each =
                all.iter().take(EXCLUSIONS_TOLD).map(|by| format!("{} by {} ({})", by.total, by.first.by, by.first.reason));
            return each.collect::<Vec<_>>().join(", ");
        };
        first.first.reason.clone()
    }

    /// Why the first who belongs to `set` does not pass, if somebody does.
    pub fn exclusion_of_set(&self, set: SetId) -> Option<String> {
        let offers = |(position, _): &&(u32, Exclusion)| self.view.entries()[*position as usize].capability.sets.contains(&set);
        self.excluded.iter().find(offers).map(|(_, exclusion)| exclusion.to_string())
    }

    /// The first of those excluded, in words.
    pub fn excluded_in_words(&self) -> Vec<Excluded> {
        self.excluded.iter().map(|(position, exclusion)| self.in_words(*position, exclusion)).collect()
    }

    /// By what they were excluded, the most frequent first.
    pub fn excluded_by(&self) -> Vec<ExcludedBy> {
        let by = |(total, position, exclusion): &(usize, u32, Exclusion)| ExcludedBy {
            total: *total,
            first: self.in_words(*position, exclusion),
        };
        let mut all: Vec<ExcludedBy> = self.excluded_by.values().map(by).collect();
        all.sort_by_key(|by| std::cmp::Reverse(by.total));
        all
    }

    fn in_words(&self, position: u32, exclusion: &Exclusion) -> Excluded {
        let routable = &self.view.entries()[position as usize];
        Excluded { id: routable.id.clone(), name: routable.shown(), by: exclusion.name(), reason: exclusion.to_string() }
    }
}

/// The least of some positions, in order; at most [`EXCLUDED_MAX`].
#[derive(Default)]
struct First {
    ascending: Vec<u32>,
}

impl First {
    /// What is not less is not among them.
    fn floor(&self) -> u32 {
        self.ascending.get(EXCLUDED_MAX - 1).copied().unwrap_or(u32::MAX)
    }

    /// Whether `position` is among them now.
    fn offer(&mut self, position: u32) -> bool {
        let is_among = position < self.floor();
        if is_among {
            self.ascending.insert(self.ascending.partition_point(|earlier| *earlier < position), position);
            self.ascending.truncate(EXCLUDED_MAX);
        }
        is_among
    }
}
