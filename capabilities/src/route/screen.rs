//! The entries in question, parted by the hard constraints.
//!
//! Nearly every entry passes, and nearly every request constrains nothing about places, so the common way through reads two small columns
//! and no entry itself.

use std::collections::BTreeMap;

use super::decision::{EXCLUDED_MAX, Excluded, ExcludedBy};
use super::feedback::{Breaker, Experience, Feedback};
use super::filter::{self, Ability, Asked, Entry, Exclusion};
use crate::exemplars::SetId;
use crate::intent::{Intent, ModelChoice, RequestTokens};
use crate::view::{RoutingView, Traits};

/// Different exclusions that a refusal tells of.
const EXCLUSIONS_TOLD: usize = 3;

/// What passes and what does not.
pub(super) struct Screened<'a> {
    pub view: &'a RoutingView,
    pub intent: &'a Intent,
    /// Positions of what passes, ascending.
    pub eligible: Vec<u32>,
    /// Of the prompt and its answer.
    pub tokens: RequestTokens,
    /// What happened lately, by position, ascending.
    pub experiences: Vec<(u32, Experience)>,
    /// Positions of those whose circuit is open, ascending.
    broken: Vec<u32>,
    /// For each body, whether somebody who offers it passes.
    pub bodies: Vec<bool>,
    /// The first of those that do not pass.
    excluded: Vec<(u32, Exclusion)>,
    /// By the name of what excluded them: how many, and the first of them.
    excluded_by: BTreeMap<&'static str, (usize, u32, Exclusion)>,
}

impl<'a> Screened<'a> {
    /// Parts `scope`, which ascends.
    pub fn new(view: &'a RoutingView, intent: &'a Intent, feedback: &Feedback, scope: &[u32]) -> Self {
        let tokens = intent.tokens();
        let experiences = feedback.by_position(view.roster());
        let is_broken = |(_, experience): &&(u32, Experience)| matches!(experience.breaker, Breaker::Open { .. });
        let mut screened = Self {
            view,
            intent,
            tokens,
            eligible: Vec::with_capacity(scope.len()),
            broken: experiences.iter().filter(is_broken).map(|(position, _)| *position).collect(),
            experiences,
            bodies: vec![false; view.roster().bodies().len()],
            excluded: Vec::new(),
            excluded_by: BTreeMap::new(),
        };
        let asked = Asked { constraints: &intent.constraints, ability: Ability::asked_by(intent, tokens), tokens, me: view.me };
        let anyone = !intent.constraints.restrict_entries();
        for position in scope {
            screened.part(*position, anyone, &asked);
        }
        if intent.model == ModelChoice::Auto {
            screened.set_demonstration_aside();
        }
        screened
    }

    /// The demonstration model answers only where no other general model can.
    fn set_demonstration_aside(&mut self) {
        let traits = self.view.roster().traits();
        let offered =
            |wanted: fn(&Traits) -> bool| traits.iter().zip(&self.bodies).any(|(traits, eligible)| *eligible && wanted(traits));
        if !offered(|traits| traits.demonstration) || !offered(|traits| traits.general && !traits.demonstration) {
            return;
        }
        let roster = self.view.roster();
        let is_demonstration = |position: &u32| traits[roster.body_of(*position as usize)].demonstration;
        let aside: Vec<u32> = self.eligible.extract_if(.., |position| is_demonstration(position)).collect();
        for position in aside {
            self.bodies[roster.body_of(position as usize)] = false;
            self.exclude(position, Exclusion::StandsAside);
        }
    }

    fn part(&mut self, position: u32, anyone: bool, asked: &Asked<'_>) {
        let body = self.view.roster().body_of(position as usize);
        let able = asked.ability.is_met(&self.view.roster().traits()[body]);
        let works = self.view.fitness()[position as usize].reachable && self.broken.binary_search(&position).is_err();
        let passes = anyone && able && works;
        if !passes && let Some(exclusion) = self.exclusion(position, asked) {
            return self.exclude(position, exclusion);
        }
        self.eligible.push(position);
        self.bodies[body] = true;
    }

    fn exclusion(&self, position: u32, asked: &Asked<'_>) -> Option<Exclusion> {
        let entry = Entry {
            routable: &self.view.entries()[position as usize],
            condition: &self.view.conditions()[position as usize],
            traits: &self.view.roster().traits()[self.view.roster().body_of(position as usize)],
            experience: self.experience(position),
        };
        filter::exclusion(entry, asked)
    }

    /// What happened lately with the entry at `position`.
    pub fn experience(&self, position: u32) -> Experience {
        let place = self.experiences.binary_search_by_key(&position, |(position, _)| *position);
        place.map_or(Experience::default(), |place| self.experiences[place].1)
    }

    fn exclude(&mut self, position: u32, exclusion: Exclusion) {
        let (total, ..) = self.excluded_by.entry(exclusion.name()).or_insert_with(|| (0, position, exclusion.clone()));
        *total += 1;
        if self.excluded.len() < EXCLUDED_MAX {
            self.excluded.push((position, exclusion));
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
