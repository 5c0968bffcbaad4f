//! What is done to a world, and what is asked of it afterwards.

use std::fmt;

use clap::ValueEnum;

use crate::checks;
use crate::report::Report;
use crate::topology::Topology;
use crate::world::World;

/// Built-in scenarios.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Scenario {
    /// A line, a ring and a random graph: form, lose connections, lose a node; distances must equal breadth-first search.
    Hops,
    /// Everyone reaches everyone: form, stay quiet, kill one, bring it back.
    Home,
    /// Split in halves, each on its own for a while, then healed.
    Split,
}

/// A mesh must be whole this long after its last start.
const FORM_MS_MAX: u64 = 15_000;
/// After any change the truth is known everywhere this much later: silence, a hold, and redials by turns.
const SETTLE_MS_MAX: u64 = 60_000;
/// A killed node leaves every route within this.
const REMOVAL_MS_MAX: u64 = 5_000;
/// A stretch in which nothing happens.
const QUIET_MS: u64 = 20_000;
/// How long halves stay apart: every connection between them is given up by then.
const SPLIT_MS: u64 = 30_000;
/// How often a condition is looked at.
const STEP_MS: u64 = 100;
/// How many connections are cut and healed in one run.
const CUTS: usize = 3;

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hops => "hops",
            Self::Home => "home",
            Self::Split => "split",
        })
    }
}

impl Scenario {
    pub const ALL: [Self; 3] = [Self::Hops, Self::Home, Self::Split];

    pub fn run(self, nodes: usize, seed: u64) -> Report {
        let mut report = Report { seed, nodes, scenario: self.to_string(), ..Report::default() };
        match self {
            Self::Hops => {
                [Topology::Line, Topology::Ring, Topology::Random].iter().for_each(|topology| hops(*topology, &mut report))
            }
            Self::Home => home(&mut report),
            Self::Split => split(&mut report),
        }
        report.hop_exact = !report.violations.iter().any(|violation| violation.contains("hops away"));
        report
    }
}

fn hops(topology: Topology, report: &mut Report) {
    let mut world = form(topology, report);
    for _ in 0..CUTS {
        let Some((a, b)) = world.random_edge() else { break };
        world.cut(a, b);
        settle(&mut world, &format!("{topology:?} after cutting {a}-{b}"), report);
        world.heal(a, b);
        let healed_ms = settle(&mut world, &format!("{topology:?} after healing {a}-{b}"), report);
        report.heal_ms.add(healed_ms);
    }
    kill_one(&mut world, report);
    settle(&mut world, &format!("{topology:?} after a kill"), report);
    finish(&world, report);
}

fn home(report: &mut Report) {
    let mut world = form(Topology::Full, report);
    let bytes = world.network.bytes;
    world.run_for(QUIET_MS);
    let quiet_bytes = (world.network.bytes - bytes) as f64;
    report.bytes_per_node_s = Some(quiet_bytes * 1_000.0 / QUIET_MS as f64 / report.nodes as f64);
    let killed = kill_one(&mut world, report);
    world.restart(killed);
    let back_ms = settle(&mut world, "after a restart", report);
    report.heal_ms.add(back_ms);
    finish(&world, report);
}

fn split(report: &mut Report) {
    let mut world = form(Topology::Full, report);
    let half = report.nodes / 2;
    let across: Vec<(usize, usize)> = world.network.edges().iter().copied().filter(|(a, b)| *a < half && *b >= half).collect();
    across.iter().for_each(|(a, b)| world.cut(*a, *b));
    settle(&mut world, "while split", report);
    world.run_for(SPLIT_MS);
    across.iter().for_each(|(a, b)| world.heal(*a, *b));
    let healed_ms = settle(&mut world, "after the halves were joined", report);
    report.heal_ms.add(healed_ms);
    finish(&world, report);
}

/// A new world, until everyone can route to everything.
fn form(topology: Topology, report: &mut Report) -> World {
    let mut world = World::new(topology, report.nodes, report.seed);
    world.run_for(1_000);
    let formed_ms = until(&mut world, FORM_MS_MAX, |world| whole(world).is_empty());
    match formed_ms {
        Some(ms) => report.formed_ms.add(ms),
        None => {
            report.violations.extend(whole(&world).into_iter().take(3).map(|what| format!("{topology:?} never formed: {what}")))
        }
    }
    report.forming_frames += world.network.frames;
    report.forming_bytes += world.network.bytes;
    world
}

/// Waits until the truth is known everywhere; how long that took.
fn settle(world: &mut World, when: &str, report: &mut Report) -> u64 {
    // What was true before the change is not what we wait for.
    world.run_for(STEP_MS);
    let settled_ms = until(world, SETTLE_MS_MAX, |world| whole(world).is_empty());
    if settled_ms.is_none() {
        report.violations.extend(whole(world).into_iter().take(3).map(|what| format!("{when}: {what}")));
    }
    settled_ms.unwrap_or(SETTLE_MS_MAX) + STEP_MS
}

fn kill_one(world: &mut World, report: &mut Report) -> usize {
    let killed = world.random_node();
    world.kill(killed);
    match until(world, REMOVAL_MS_MAX, |world| !checks::is_routed_to(world, killed)) {
        Some(ms) => report.dead_removed_ms.add(ms),
        None => report.violations.push(format!("node {killed} was still routed to {REMOVAL_MS_MAX} ms after it was killed")),
    }
    world.run_for(SETTLE_MS_MAX / 2);
    if checks::is_routed_to(world, killed) {
        report.violations.push(format!("node {killed} came back from the dead"));
    }
    killed
}

fn finish(world: &World, report: &mut Report) {
    report.violations.extend(checks::nobody_was_blamed(world));
    report.virtual_ms += world.now_ms();
    report.trace = world.trace();
}

fn whole(world: &World) -> Vec<String> {
    let mut violations = checks::links_are_complete(world);
    violations.extend(checks::hops_equal_breadth_first(world));
    if violations.is_empty() {
        violations = checks::records_are_everywhere(world);
    }
    violations
}

/// Runs until `good`, looking every [`STEP_MS`]; how long it took, or `None` after `ms_max`.
fn until(world: &mut World, ms_max: u64, good: impl Fn(&World) -> bool) -> Option<u64> {
    let start_ms = world.now_ms();
    while world.now_ms() <= start_ms + ms_max {
        if good(world) {
            return Some(world.now_ms() - start_ms);
        }
        world.run_for(STEP_MS);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_trace() {
        let traces: Vec<String> = [1, 1, 2].iter().map(|seed| Scenario::Home.run(5, *seed).trace).collect();
        assert_eq!(traces[0], traces[1]);
        assert_ne!(traces[0], traces[2]);
    }

    #[test]
    fn distances_of_a_line_a_ring_and_a_random_graph_equal_breadth_first_search() {
        let report = Scenario::Hops.run(12, 1);
        assert_eq!(report.violations, Vec::<String>::new());
        assert!(report.hop_exact);
    }

    #[test]
    fn a_killed_node_leaves_the_routes_of_a_mesh_of_any_size() {
        for nodes in [2, 3, 16] {
            let report = Scenario::Home.run(nodes, 1);
            assert_eq!(report.violations, Vec::<String>::new(), "{nodes} nodes");
            assert!(report.dead_removed_ms.p99.is_some_and(|ms| ms <= REMOVAL_MS_MAX));
        }
    }

    #[test]
    fn halves_that_were_split_find_each_other_again() {
        assert_eq!(Scenario::Split.run(10, 1).violations, Vec::<String>::new());
    }
}
