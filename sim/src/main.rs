//! `atmo-sim`: a seeded world of virtual nodes that drives the very state machine the node runs.
//!
//! Virtual time, one seed, ordered links with latency, kills, cuts and restarts. What is simulated is the outside (clocks, links, disks);
//! all decisions are those of [`Coordinator`](atmo_capabilities::coordinator::Coordinator) unchanged. Exit code 1 when what ought to hold
//! did not. Loss, bandwidth and adversaries are absent so far.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod checks;
mod herd;
mod host;
mod network;
mod report;
mod scenario;
mod topology;
mod world;

use herd::Herd;
use report::Report;
use scenario::Scenario;

#[derive(Parser)]
#[command(name = "atmo-sim", version, about = "Runs whole meshes in virtual time and checks what ought to hold")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one scenario.
    Run {
        #[arg(long, value_enum)]
        scenario: Scenario,
        #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=200))]
        nodes: u16,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print the report as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Let everybody ask for one model under loads as stale as gossip makes them, and see whom they run to.
    Herd {
        #[command(flatten)]
        herd: Herd,
        /// Print the figures as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Run every scenario over a few seeds and sizes; what continuous integration does.
    Smoke {
        #[arg(long, default_value_t = 3)]
        seeds: u64,
    },
}

fn main() -> ExitCode {
    let good = match Arguments::parse().command {
        Command::Run { scenario, nodes, seed, json } => run(scenario, nodes.into(), seed, json),
        Command::Herd { herd, json } => run_herd(herd, json),
        Command::Smoke { seeds } => smoke(seeds),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(scenario: Scenario, nodes: usize, seed: u64, json: bool) -> bool {
    eprintln!("scenario {scenario}, {nodes} nodes, seed {seed}");
    let report = scenario.run(nodes, seed);
    if json {
        println!("{}", report.json())
    } else {
        print!("{report}")
    }
    report.violations.is_empty()
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

/// Sizes that are even and odd, that are full meshes and that are not, and the least there is.
const SMOKE_NODES: [usize; 3] = [2, 7, 16];

fn smoke(seeds: u64) -> bool {
    let mut good = true;
    for scenario in Scenario::ALL {
        for nodes in SMOKE_NODES {
            for seed in 1..=seeds {
                let report = scenario.run(nodes, seed);
                good &= report.violations.is_empty();
                println!("{}", smoke_line(&report));
            }
        }
    }
    good
}

fn smoke_line(report: &Report) -> String {
    let verdict = if report.violations.is_empty() { "ok  " } else { "FAIL" };
    let removed = report.dead_removed_ms.p99.map_or("-".to_owned(), |ms| format!("{ms} ms"));
    let mut line = format!("{verdict} {} nodes {} seed {}: dead removed {removed}", report.scenario, report.nodes, report.seed);
    for violation in &report.violations {
        line.push_str(&format!("\n     {violation}"));
    }
    line
}
