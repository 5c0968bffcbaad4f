//! The entries in question, parted by the hard constraints.
//!
//! Nearly every entry passes, and nearly every request constrains nothing about places, so the common way through reads two small columns
//! and no entry itself.

use super::decision::{EXCLUDED_MAX, Excluded};
use super::feedback::{Experience, Feedback};
use super::filter::{self, Entry, Exclusion};
use crate::exemplars::SetId;
use crate::intent::Intent;
use crate::view::RoutingView;

/// What passes and what does not.
pub(super) struct Screened<'a> {
    pub view: &'a RoutingView,
    pub intent: &'a Intent,
    /// Positions of what passes, each with what happened with it lately; ascending.
    pub eligible: Vec<(u32, Option<Experience>)>,
    /// For each body, whether somebody who offers it passes.
    pub bodies: Vec<bool>,
    /// The first of those that do not pass.
    excluded: Vec<(u32, Exclusion)>,
    excluded_total: usize,
}

impl<'a> Screened<'a> {
    /// Parts `scope`, which ascends.
    pub fn new(view: &'a RoutingView, intent: &'a Intent, feedback: &Feedback, scope: &[u32]) -> Self {
        let bodies = vec![false; view.roster().bodies().len()];
        let mut screened =
            Self { view, intent, eligible: Vec::with_capacity(scope.len()), bodies, excluded: Vec::new(), excluded_total: 0 };
        let mut experiences = feedback.by_position(view.roster()).into_iter().peekable();
        let unrestricted = !intent.constraints.restrict_places() && !filter::asks_ability(intent);
        for position in scope {
            while experiences.next_if(|(earlier, _)| earlier < position).is_some() {}
            let experience = experiences.next_if(|(same, _)| same == position).map(|(_, experience)| experience);
            screened.part(*position, experience, unrestricted);
        }
        screened
    }

    fn part(&mut self, position: u32, experience: Option<Experience>, unrestricted: bool) {
        let body = self.view.roster().body_of(position as usize);
        let passes = unrestricted && experience.is_none() && self.view.fitness()[position as usize].reachable;
        if !passes && let Some(exclusion) = self.exclusion(position, experience) {
            return self.exclude(position, exclusion);
        }
        self.eligible.push((position, experience));
        self.bodies[body] = true;
    }

    fn exclusion(&self, position: u32, experience: Option<Experience>) -> Option<Exclusion> {
        let position = position as usize;
        let entry = Entry {
            routable: &self.view.entries()[position],
            condition: &self.view.conditions()[position],
            traits: &self.view.roster().traits()[self.view.roster().body_of(position)],
            experience: experience.unwrap_or_default(),
        };
        filter::exclusion(entry, self.intent, self.view.me)
    }

    fn exclude(&mut self, position: u32, exclusion: Exclusion) {
        self.excluded_total += 1;
        if self.excluded.len() < EXCLUDED_MAX {
            self.excluded.push((position, exclusion));
        }
    }

    /// What happened lately with what passes at `position`.
    pub fn experience(&self, position: u32) -> Experience {
        let place = self.eligible.binary_search_by_key(&position, |(position, _)| *position);
        place.ok().and_then(|place| self.eligible[place].1).unwrap_or_default()
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
