//! A scenario's steps, one after the other, with what is measured in each and what is checked after each.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::seq::SliceRandom;

mod settle;
mod steps;

use crate::action::Action;
use crate::checks::{self, NewestWins, NobodyHonestIsAbsent};
use crate::report::{Report, Spread};
use crate::scenario::{Scenario, Step};
use crate::truth::Truth;
use crate::world::World;

/// How often conditions are looked at.
const STEP_MS: u64 = 100;
/// How often routes are looked at where there are adversaries.
const WATCH_MS: u64 = 500;
/// Observers that are looked through after each step, and in whose routes nobody may be missing. All in a small world.
const OBSERVERS_MAX: usize = 64;
/// After this long nobody may route to a killed node again.
const GONE_MS: u64 = 10_000;
/// Two looks at the same links: whatever is on its way has arrived between them.
const SECOND_LOOK_MS: u64 = 1_000;

/// One scenario under way.
pub struct Run<'a> {
    pub world: World,
    scenario: &'a Scenario,
    report: Report,
    /// Who was killed, and when.
    dead: Vec<(u32, u64)>,
    observers: Vec<u32>,
    newest_wins: NewestWins,
    absent: NobodyHonestIsAbsent,
    /// The node whose table was wrong when it was last looked at.
    witness: usize,
}

impl<'a> Run<'a> {
    pub fn new(scenario: &'a Scenario, nodes: usize, seed: u64, lines_max: usize) -> Self {
        let mut world = World::new(scenario, nodes, seed, lines_max);
        let mut observers: Vec<u32> = (0..nodes as u32).filter(|node| world.hosts[*node as usize].is_honest()).collect();
        observers.shuffle(&mut world.rng);
        observers.truncate(OBSERVERS_MAX);
        Self {
            world,
            scenario,
            report: Report { seed, nodes, scenario: scenario.name.clone(), hop_exact: true, ..Report::default() },
            dead: Vec::new(),
            observers,
            newest_wins: NewestWins::default(),
            absent: NobodyHonestIsAbsent::default(),
            witness: 0,
        }
    }

    /// Takes every step. `progress` is told of each.
    pub fn finish(mut self, mut progress: impl FnMut(&World, &str)) -> (Report, World) {
        let scenario = self.scenario;
        for step in &scenario.steps {
            progress(&self.world, &format!("{step:?}"));
            self.step(step);
            self.check();
            if matches!(step, Step::Form { .. } | Step::Converge { .. }) {
                self.check_links();
            }
        }
        self.look_through();
        self.close_books();
        (self.report, self.world)
    }

    fn close_books(&mut self) {
        let (world, report) = (&self.world, &mut self.report);
        report.delivery_ms = world.meter.delivery_ms.clone();
        report.redundancy = world.meter.redundancy().map(|share| (share * 1e4).round() / 1e4);
        report.last_delivery_hop = world.meter.last_delivery_hop();
        report.false_deaths = world.meter.false_deaths;
        report.table_bytes = table_bytes(world);
        if self.scenario.no_false_deaths && report.false_deaths > 0 {
            let count = report.false_deaths;
            self.world.violate(format!("nobody alive is taken for dead: {count} times"));
        }
        let world = &self.world;
        report.refused = world.well().iter().filter_map(|node| world.mesh_of(*node)).map(|mesh| mesh.refused().1).sum();
        report.violations = world.log.violations().iter().map(ToString::to_string).collect();
        report.virtual_ms = world.now_ms();
        report.trace = world.log.trace();
    }

    /// Lets time pass, watching routes where somebody attacks them.
    fn advance(&mut self, ms: u64) {
        let until_ms = self.world.now_ms() + ms;
        while self.world.is_hostile() && self.world.now_ms() + WATCH_MS < until_ms {
            self.world.run_for(WATCH_MS);
            self.watch();
        }
        let left_ms = until_ms - self.world.now_ms();
        self.world.run_for(left_ms);
    }

    fn watch(&mut self) {
        let faults: Vec<String> = self.observers.iter().flat_map(|observer| self.absent.look(&self.world, *observer)).collect();
        self.violate(faults);
    }

    /// What holds at all times.
    fn check(&mut self) {
        let truth = Truth::of(&self.world);
        let now_ms = self.world.now_ms();
        let gone = self.dead.iter().filter(|(_, killed_ms)| now_ms > killed_ms + GONE_MS).map(|(node, _)| *node);
        let gone: Vec<u32> = gone.take(OBSERVERS_MAX).collect();
        let mut faults = Vec::new();
        for observer in self.observers.iter().filter(|observer| self.world.is_well(**observer)) {
            faults.extend(checks::only_members_are_known(&self.world, *observer));
            faults.extend(checks::nobody_revoked_is_known(&self.world, *observer));
            faults.extend(checks::nothing_is_made_up(&self.world, &truth, *observer));
            faults.extend(checks::nothing_is_resurrected(&self.world, *observer, &gone));
            faults.extend(checks::views_are_bounded(&self.world, *observer));
            faults.extend(checks::memory_is_bounded(&self.world, *observer));
            faults.extend(self.newest_wins.look(&self.world, *observer));
        }
        self.violate(faults);
    }

    /// Views are symmetric: what one end alone takes for a link is none a moment later.
    fn check_links(&mut self) {
        let first = checks::one_sided_links(&self.world);
        if first.is_empty() {
            return;
        }
        self.advance(SECOND_LOOK_MS);
        let second = checks::one_sided_links(&self.world);
        let still: BTreeSet<&(u32, u32)> = first.intersection(&second).collect();
        let faults = still.iter().map(|(a, b)| format!("views are symmetric: node {a} has a link to {b}, which has none to it"));
        let faults = faults.collect();
        self.violate(faults);
    }

    /// Notes the first fault of each name: the others say the same of other nodes.
    fn violate(&mut self, faults: Vec<String>) {
        let mut named = BTreeSet::new();
        for fault in faults {
            let name = fault.split(':').next().unwrap_or_default().to_owned();
            if named.insert(name) {
                self.world.violate(fault);
            }
        }
    }

    /// So many random nodes that are well: a share of them, at least one.
    fn some(&mut self, share: f64) -> Vec<u32> {
        let mut well = self.world.well();
        let count = ((well.len() as f64 * share).round() as usize).clamp(1, well.len().max(1));
        well.shuffle(&mut self.world.rng);
        well.truncate(count);
        well
    }

    fn someone(&mut self) -> Option<u32> {
        let well = self.world.well();
        (!well.is_empty()).then(|| well[self.world.rng.random_range(0..well.len())])
    }

    fn kill(&mut self, node: u32) {
        self.world.act(&Action::Kill { node });
        self.dead.push((node, self.world.now_ms()));
    }

    /// What each node that is well sends in a second while something goes on.
    fn count_bytes(&mut self, during: impl FnOnce(&mut Self)) {
        let (before_ms, well) = (self.world.now_ms(), self.world.well());
        let sent = |world: &World, node: u32| world.hosts[node as usize].bytes_sent as f64;
        let before: Vec<f64> = well.iter().map(|node| sent(&self.world, *node)).collect();
        during(self);
        let seconds = (self.world.now_ms() - before_ms) as f64 / 1_000.0;
        let after = well.iter().zip(&before).map(|(node, before)| (sent(&self.world, *node) - before) / seconds);
        self.report.bytes_per_node_s = Spread::of(after.collect());
    }
}

/// What a node holds of each node it knows and shares with nobody, on average.
fn table_bytes(world: &World) -> Option<u64> {
    let of = |node: &u32| world.mesh_of(*node).map(|mesh| mesh.table_bytes() as u64);
    let each: Vec<u64> = world.well().iter().filter_map(of).collect();
    (!each.is_empty()).then(|| each.iter().sum::<u64>() / each.len() as u64)
}

/// Real time, for whoever waits; nothing in a world depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "told to people, and to nobody else")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub fn ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
