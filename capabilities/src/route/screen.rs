//! The entries in question, parted by the hard constraints.
//!
//! Nearly every entry passes, and nearly every request constrains nothing about places, so the common way through reads two small columns
//! and no entry itself.

use std::collections::BTreeMap;

use super::decision::{EXCLUDED_MAX, Excluded};
use super::feedback::{Experience, Feedback};
use super::filter::{self, Ability, Entry, Exclusion};
use crate::exemplars::SetId;
use crate::intent::{Intent, ModelChoice};
use crate::view::{RoutingView, Traits};

/// What passes and what does not.
pub(super) struct Screened<'a> {
    pub view: &'a RoutingView,
    pub intent: &'a Intent,
    /// Positions of what passes, ascending.
    pub eligible: Vec<u32>,
    /// What happened lately, by position.
    pub experiences: BTreeMap<u32, Experience>,
    /// For each body, whether somebody who offers it passes.
    pub bodies: Vec<bool>,
    /// The first of those that do not pass.
    excluded: Vec<(u32, Exclusion)>,
    excluded_total: usize,
}

impl<'a> Screened<'a> {
    /// Parts `scope`, which ascends.
    pub fn new(view: &'a RoutingView, intent: &'a Intent, feedback: &Feedback, scope: &[u32]) -> Self {
        let mut screened = Self {
            view,
            intent,
            eligible: Vec::with_capacity(scope.len()),
            experiences: feedback.by_position(view.roster()),
            bodies: vec![false; view.roster().bodies().len()],
            excluded: Vec::new(),
            excluded_total: 0,
        };
        let ability = Ability::asked_by(intent);
        let anywhere = !intent.constraints.restrict_places() && screened.experiences.is_empty();
        for position in scope {
            screened.part(*position, anywhere, &ability);
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

    fn part(&mut self, position: u32, anywhere: bool, ability: &Ability) {
        let body = self.view.roster().body_of(position as usize);
        let able = ability.is_met(&self.view.roster().traits()[body]);
        let passes = anywhere && able && self.view.fitness()[position as usize].reachable;
        if !passes && let Some(exclusion) = self.exclusion(position, ability) {
            return self.exclude(position, exclusion);
        }
        self.eligible.push(position);
        self.bodies[body] = true;
    }

    fn exclusion(&self, position: u32, ability: &Ability) -> Option<Exclusion> {
        let entry = Entry {
            routable: &self.view.entries()[position as usize],
            condition: &self.view.conditions()[position as usize],
            traits: &self.view.roster().traits()[self.view.roster().body_of(position as usize)],
            experience: self.experiences.get(&position).copied().unwrap_or_default(),
        };
        filter::exclusion(entry, &self.intent.constraints, ability, self.view.me)
    }

    fn exclude(&mut self, position: u32, exclusion: Exclusion) {
        self.excluded_total += 1;
        if self.excluded.len() < EXCLUDED_MAX {
            self.excluded.push((position, exclusion));
        }
    }

    /// The first of those excluded, in words; empty where none was.
    pub fn first_exclusion(&self) -> String {
        self.excluded.first().map_or(String::new(), |(_, exclusion)| exclusion.to_string())
    }

    /// Why the first who belongs to `set` does not pass, if somebody does.
    pub fn exclusion_of_set(&self, set: SetId) -> Option<String> {
        let offers = |(position, _): &&(u32, Exclusion)| self.view.entries()[*position as usize].capability.sets.contains(&set);
        self.excluded.iter().find(offers).map(|(_, exclusion)| exclusion.to_string())
    }

    /// Whom it excluded, in words: the first of them, and how many in all.
    pub fn in_words(&self) -> (Vec<Excluded>, usize) {
        let word = |(position, exclusion): &(u32, Exclusion)| {
            let routable = &self.view.entries()[*position as usize];
            Excluded { id: routable.id.clone(), name: routable.shown(), reason: exclusion.to_string() }
        };
        (self.excluded.iter().map(word).collect(), self.excluded_total)
    }
}
