//! The entries in question, parted by the hard constraints.
//!
//! Nearly every entry passes, and nearly every request constrains nothing about places, so the common way through looks at each distinct
//! body once and at no entry but those that something happened to lately.

use std::collections::BTreeMap;

use super::decision::{EXCLUDED_MAX, Excluded};
use super::feedback::{Experience, Feedback};
use super::filter::{self, Ability, Entry, Exclusion};
use crate::exemplars::SetId;
use crate::intent::{Intent, ModelChoice};
use crate::view::RoutingView;

/// What passes and what does not.
pub(super) struct Screened<'a> {
    pub view: &'a RoutingView,
    pub intent: &'a Intent,
    /// How many entries pass.
    pub eligible_total: usize,
    /// What happened lately, by position.
    pub experiences: BTreeMap<u32, Experience>,
    /// For each body, whether somebody who offers it passes.
    pub bodies: Vec<bool>,
    passing: Passing,
    ability: Ability,
    /// The first of those that do not pass.
    excluded: Vec<(u32, Exclusion)>,
    excluded_total: usize,
}

/// Which entries pass, of bodies that do.
enum Passing {
    /// Those that can be reached, but for these, which ascend.
    Reachable { barred: Vec<u32> },
    /// Those marked.
    Marked(Vec<bool>),
}

impl<'a> Screened<'a> {
    /// Parts the entries at the positions in `scope`, which ascend; all there are where it is `None`.
    pub fn new(view: &'a RoutingView, intent: &'a Intent, feedback: &Feedback, scope: Option<&[u32]>) -> Self {
        let mut screened = Self {
            view,
            intent,
            eligible_total: 0,
            experiences: feedback.by_position(view.roster()),
            bodies: vec![false; view.roster().bodies().len()],
            passing: Passing::Reachable { barred: Vec::new() },
            ability: Ability::asked_by(intent),
            excluded: Vec::new(),
            excluded_total: 0,
        };
        let everybody = 0..view.entries().len() as u32;
        match scope {
            Some(scope) => screened.part_each(scope.iter().copied()),
            None if intent.constraints.restrict_places() => screened.part_each(everybody.clone()),
            None => screened.part_bodies(),
        }
        if intent.model == ModelChoice::Auto {
            screened.set_demonstration_aside();
        }
        match scope {
            Some(scope) => screened.list_excluded(scope.len(), scope.iter().copied()),
            None => screened.list_excluded(everybody.len(), everybody),
        }
        screened
    }

    /// Whether the entry at `position` may answer.
    #[inline]
    pub fn passes(&self, position: u32) -> bool {
        self.bodies[self.view.roster().body_of(position as usize)]
            && match &self.passing {
                Passing::Reachable { barred } => {
                    self.view.fitness()[position as usize].reachable && barred.binary_search(&position).is_err()
                }
                Passing::Marked(marked) => marked[position as usize],
            }
    }

    fn part_bodies(&mut self) {
        let (traits, traits_of) = self.view.roster().distinct_traits();
        let able: Vec<bool> = traits.iter().map(|traits| self.ability.is_met(traits)).collect();
        for ((traits, offers), passes) in traits_of.iter().zip(self.view.offers()).zip(&mut self.bodies) {
            *passes = able[*traits as usize] & (offers.reachable > 0);
            self.eligible_total += if *passes { offers.reachable as usize } else { 0 };
        }
        let barred: Vec<u32> = self.experiences.keys().copied().filter(|position| self.is_barred(*position)).collect();
        self.eligible_total -= barred.len();
        self.passing = Passing::Reachable { barred: barred.clone() };
        for position in barred {
            let body = self.view.roster().body_of(position as usize);
            self.bodies[body] = self.view.roster().entries_of(body).iter().any(|entry| self.passes(*entry));
        }
    }

    /// Whether an entry that would pass does not, for what happened to it.
    fn is_barred(&self, position: u32) -> bool {
        self.passes(position) && self.exclusion(position).is_some()
    }

    fn part_each(&mut self, scope: impl Iterator<Item = u32>) {
        let mut marked = vec![false; self.view.entries().len()];
        for position in scope {
            if self.exclusion(position).is_some() {
                continue;
            }
            marked[position as usize] = true;
            self.eligible_total += 1;
            self.bodies[self.view.roster().body_of(position as usize)] = true;
        }
        self.passing = Passing::Marked(marked);
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
        for body in aside {
            self.eligible_total -= roster.entries_of(body).iter().filter(|entry| self.passes(**entry)).count();
            self.bodies[body] = false;
        }
    }

    fn exclusion(&self, position: u32) -> Option<Exclusion> {
        let entry = Entry {
            routable: &self.view.entries()[position as usize],
            condition: &self.view.conditions()[position as usize],
            traits: self.view.roster().traits(self.view.roster().body_of(position as usize)),
            experience: self.experiences.get(&position).copied().unwrap_or_default(),
        };
        filter::exclusion(entry, &self.intent.constraints, &self.ability, self.view.me)
    }

    fn list_excluded(&mut self, total: usize, scope: impl Iterator<Item = u32>) {
        self.excluded_total = total - self.eligible_total;
        let listed = self.excluded_total.min(EXCLUDED_MAX);
        // What no constraint excludes and yet does not pass is the demonstration model.
        let reason = |position| (position, self.exclusion(position).unwrap_or(Exclusion::StandsAside));
        self.excluded = scope.filter(|position| !self.passes(*position)).map(reason).take(listed).collect();
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
