//! Many worlds at once, each on a thread of its own, and which of them failed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::report::Report;
use crate::run_quietly;
use crate::scenario::Scenario;

/// Failing runs and what was wrong: one line each, `scenario nodes seed`, with the fix behind a `#`.
const REGRESSIONS: &str = include_str!("../seeds/regressions.txt");
/// Words of a regression.
const WORDS: usize = 3;

/// One world to run.
pub struct Job {
    scenario: Scenario,
    nodes: usize,
    seed: u64,
}

pub struct Sweep {
    /// Worlds at once.
    pub jobs: usize,
    pub json: bool,
}

/// `1..100`, both included.
pub fn seeds(text: &str) -> Result<(u64, u64), String> {
    let (first, last) = text.split_once("..").ok_or("two numbers with `..` between them are needed")?;
    let number = |text: &str| text.trim_start_matches('=').parse::<u64>().map_err(|error| error.to_string());
    let (first, last) = (number(first)?, number(last)?);
    if first > last { Err("the first seed is larger than the last".to_owned()) } else { Ok((first, last)) }
}

pub fn each_seed(scenario: &Scenario, nodes: usize, first: u64, last: u64) -> Vec<Job> {
    (first..=last).map(|seed| Job { scenario: scenario.clone(), nodes, seed }).collect()
}

/// Every built-in scenario, small, with seeds of its own, and everything that failed once.
pub fn smoke(seeds: u64, nodes_max: usize) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (scenario, first) in Scenario::all().iter().zip((1..).step_by(seeds.max(1) as usize)) {
        jobs.extend(each_seed(scenario, scenario.nodes.min(nodes_max), first, first + seeds.max(1) - 1));
    }
    jobs.extend(regressions());
    jobs
}

fn regressions() -> Vec<Job> {
    let lines = REGRESSIONS.lines().map(|line| line.split('#').next().unwrap_or_default());
    let words = lines.map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|words| words.len() == WORDS);
    words.filter_map(|words| regression(&words)).collect()
}

fn regression(words: &[&str]) -> Option<Job> {
    Some(Job { scenario: Scenario::named(words[0]).ok()?, nodes: words[1].parse().ok()?, seed: words[2].parse().ok()? })
}

impl Sweep {
    /// How many failed.
    pub fn run(&self, jobs: Vec<Job>) -> usize {
        eprintln!("{} runs, {} at once", jobs.len(), self.jobs);
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let report = run_quietly(&job.scenario, job.nodes, job.seed);
                        self.tell(&report);
                        if !report.is_good() {
                            failed.lock().expect("nobody panics while holding it").push(job);
                        }
                    }
                });
            }
        });
        let mut failed: Vec<&Job> = failed.into_inner().expect("nobody panics while holding it");
        failed.sort_by_key(|job| job.seed);
        eprintln!("{} of {} runs failed", failed.len(), jobs.len());
        for Job { scenario, nodes, seed } in &failed {
            eprintln!("  atmo-sim replay {seed} --scenario {} --nodes {nodes}", scenario.source);
        }
        failed.len()
    }

    fn tell(&self, report: &Report) {
        eprintln!("{}", report.line());
        if self.json {
            println!("{}", report.json());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_seeds_are_read() {
        assert_eq!(seeds("1..100"), Ok((1, 100)));
        assert_eq!(seeds("7..=7"), Ok((7, 7)));
        assert!(seeds("7").is_err() && seeds("9..3").is_err() && seeds("a..b").is_err());
    }

    #[test]
    fn every_regression_can_be_read() {
        let lines = REGRESSIONS.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty());
        assert_eq!(regressions().len(), lines.count());
    }
}
