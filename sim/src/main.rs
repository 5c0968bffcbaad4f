//! `atmo-sim`: a seeded world of virtual nodes that drives the very state machine the node runs.
//!
//! Virtual time, one seed, connections with latency, jitter, loss and bandwidth, kills, cuts, sleep, skewed clocks and adversaries. What is
//! simulated is the outside; all decisions are those of [`Coordinator`](atmo_capabilities::coordinator::Coordinator) unchanged. Exit code 0
//! when everything that ought to hold did, 1 when something did not, 2 when the command line makes no sense.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod action;
mod adversary;
mod barriers;
mod chance;
mod checks;
mod compare;
mod herd;
mod host;
mod log;
mod meter;
#[cfg(test)]
mod model;
mod network;
mod numbers;
mod queue;
mod report;
mod run;
mod scenario;
mod sweep;
mod table;
mod topology;
mod truth;
mod verifier;
mod world;

use herd::Herd;
use report::Report;
use run::{Run, Stopwatch};
use scenario::{Scenario, ScenarioError};
use sweep::Sweep;

#[derive(Parser)]
#[command(name = "atmo-sim", version, about = "Runs whole meshes in virtual time and checks what ought to hold")]
#[command(after_help = "Exit codes: 0 everything held, 1 something did not, 2 the command line makes no sense.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one scenario once.
    Run {
        #[command(flatten)]
        which: Which,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print the report as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Run one scenario with many seeds and list those that fail.
    Sweep {
        #[command(flatten)]
        which: Which,
        /// First and last seed: `1..100`.
        #[arg(long, value_parser = sweep::seeds)]
        seeds: (u64, u64),
        /// Worlds at once.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
        jobs: u16,
        /// Print every report as one JSON object per line: what `compare` reads.
        #[arg(long)]
        json: bool,
    },
    /// Run a seed again and show what led to its first violation.
    Replay {
        seed: u64,
        #[command(flatten)]
        which: Which,
        /// How many of the last events before it to show.
        #[arg(long, default_value_t = 60)]
        events: usize,
    },
    /// Run what a file of JSON reports tells of again, and print the ratio of each figure to that in the file.
    Compare {
        baseline: PathBuf,
        /// How much worse a figure may be, as a share of the old one.
        #[arg(long, default_value_t = 0.1)]
        tolerance: f64,
    },
    /// Run every scenario once, small; what continuous integration does.
    Smoke {
        #[arg(long, default_value_t = 1)]
        seeds: u64,
        /// Most nodes of any of them.
        #[arg(long, default_value_t = 60)]
        nodes: u32,
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
        jobs: u16,
    },
    /// Print the figures that gossip is judged by, one row for each number of nodes.
    Table {
        #[arg(long, value_delimiter = ',', default_value = "100,1000", value_parser = clap::value_parser!(u32).range(24..=16_000))]
        nodes: Vec<u32>,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// List the built-in scenarios.
    Scenarios,
    /// Let everybody ask for one model under loads as stale as gossip makes them, and see whom they run to.
    Herd {
        #[command(flatten)]
        herd: Herd,
        /// Print the figures as one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Which world.
#[derive(Args)]
struct Which {
    /// A built-in scenario (see `atmo-sim scenarios`), or a TOML or JSON file.
    #[arg(long, default_value = "home")]
    scenario: String,
    /// Nodes, if not as many as the scenario itself says.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=16_000))]
    nodes: Option<u32>,
}

impl Which {
    fn read(&self) -> Result<(Scenario, usize), ScenarioError> {
        let scenario = Scenario::named(&self.scenario)?;
        let nodes = self.nodes.map_or(scenario.nodes, |nodes| nodes as usize);
        Ok((scenario, nodes))
    }
}

fn main() -> ExitCode {
    match obey(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether everything held.
fn obey(command: Command) -> Result<bool, Box<dyn std::error::Error>> {
    match command {
        Command::Run { which, seed, json } => {
            let (scenario, nodes) = which.read()?;
            Ok(run_one(&scenario, nodes, seed, json))
        }
        Command::Sweep { which, seeds: (first, last), jobs, json } => {
            let (scenario, nodes) = which.read()?;
            let failing = Sweep { jobs: jobs.into(), json }.run(sweep::each_seed(&scenario, nodes, first, last));
            Ok(failing == 0)
        }
        Command::Replay { seed, which, events } => {
            let (scenario, nodes) = which.read()?;
            Ok(replay(&scenario, nodes, seed, events))
        }
        Command::Compare { baseline, tolerance } => Ok(compare::run(&baseline, tolerance)?),
        Command::Smoke { seeds, nodes, jobs } => {
            let failing = Sweep { jobs: jobs.into(), json: false }.run(sweep::smoke(seeds, nodes as usize));
            Ok(failing == 0)
        }
        Command::Table { nodes, seed } => {
            let sizes: Vec<usize> = nodes.iter().map(|nodes| *nodes as usize).collect();
            Ok(table::print(&sizes, seed))
        }
        Command::Scenarios => {
            Scenario::all().iter().for_each(|one| println!("{:<16} {:>6} nodes  {}", one.name, one.nodes, one.about));
            Ok(true)
        }
        Command::Herd { herd, json } => Ok(run_herd(herd, json)),
    }
}

fn run_one(scenario: &Scenario, nodes: usize, seed: u64, json: bool) -> bool {
    let Scenario { name, links, hosts, hostile, adversaries, .. } = scenario;
    let options =
        format!("scenario {name}, {nodes} nodes, seed {seed}\n  {links:?}\n  {hosts:?}\n  hostile {hostile} {adversaries:?}");
    if json {
        eprintln!("{options}")
    } else {
        println!("{options}")
    }
    let stopwatch = Stopwatch::start();
    let (mut report, _) = Run::new(scenario, nodes, seed, 0).finish(|world, step| {
        eprintln!("{:>8} ms virtual, {:>7} ms real  {step}", world.now_ms(), stopwatch.ms());
    });
    report.wall_ms = stopwatch.ms();
    if json {
        println!("{}", report.json())
    } else {
        print!("{report}")
    }
    report.is_good()
}

fn replay(scenario: &Scenario, nodes: usize, seed: u64, events: usize) -> bool {
    println!("scenario {}, {nodes} nodes, seed {seed}", scenario.name);
    let (report, world) = Run::new(scenario, nodes, seed, events).finish(|_, _| {});
    match world.log.violations().first() {
        Some(violation) => {
            world.log.lines().for_each(|line| println!("{line}"));
            println!("{:>8} ms  VIOLATED {}\ntrace {}", violation.at_ms, violation.what, violation.trace);
        }
        None => println!("nothing was violated; trace {}", report.trace),
    }
    report.is_good()
}

fn run_herd(herd: Herd, json: bool) -> bool {
    eprintln!("herd of {} nodes, {} providers, seed {}", herd.nodes, herd.providers, herd.seed);
    let figures = herd.run();
    if json {
        println!("{}", serde_json::to_string(&figures).expect("figures serialise"));
    } else {
        print!("{figures}");
    }
    figures.is_good()
}

/// One run from beginning to end.
fn run_quietly(scenario: &Scenario, nodes: usize, seed: u64) -> Report {
    let stopwatch = Stopwatch::start();
    let (mut report, _) = Run::new(scenario, nodes, seed, 0).finish(|_, _| {});
    report.wall_ms = stopwatch.ms();
    report
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn ways_to_end_differ() {
        let obeyed = |line: &[&str]| obey(Arguments::try_parse_from(line).expect("parses").command);
        assert!(obeyed(&["atmo-sim", "run", "--scenario", "no-such-thing"]).is_err());
        assert!(obeyed(&["atmo-sim", "scenarios"]).expect("lists"));
    }
}
