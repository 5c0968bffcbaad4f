//! Routes labelled sets (JSON files named as arguments) and prints one line for each: what `atmo route eval` says in full. With `--ablate`
//! first, one line for each kind of evidence that is left out, over all sets together.

use std::collections::BTreeMap;

use atmo_capabilities::embed::rten::RtenEmbedder;
use atmo_capabilities::route::eval::{LeftOut, Outcome, Report, ablate, evaluate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let embedder = RtenEmbedder::load()?;
    let (flags, paths): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|argument| argument == "--ablate");
    let mut lines: BTreeMap<String, Vec<Outcome>> = BTreeMap::new();
    for path in &paths {
        let json = std::fs::read_to_string(path)?;
        if flags.is_empty() {
            let (report, left_out) = evaluate(&json, &embedder, &|| 0)?;
            lines.insert(path.rsplit('/').next().unwrap_or(path).to_owned(), vec![Outcome { report, left_out }]);
            continue;
        }
        let ablation = ablate(&json, &embedder, &|| 0)?;
        lines.entry("(nothing)".to_owned()).or_default().push(ablation.full);
        for (name, outcome) in ablation.without {
            lines.entry(name.to_owned()).or_default().push(outcome);
        }
    }
    let heads = ["top-1", "top-3", "coverage", "precision", "unserved", "left out"];
    println!("{:28} {}", if flags.is_empty() { "set" } else { "without" }, heads.map(|head| format!("{head:>9}")).join(" "));
    for (name, outcomes) in &lines {
        println!("{name:28} {}", in_all(outcomes).map(|figure| format!("{figure:>9}")).join(" "));
    }
    Ok(())
}

/// Over several sets: shares of all their requests, and how many of those that nobody serves, or whose only answer was taken away, were
/// claimed.
fn in_all(outcomes: &[Outcome]) -> [String; 6] {
    let sum = |of: &dyn Fn(&Report) -> f32| outcomes.iter().map(|Outcome { report, .. }| of(report)).sum::<f32>();
    let n = sum(&|report| report.n as f32);
    let chosen = sum(&|report| report.coverage * report.n as f32);
    let share = |of: &dyn Fn(&Report) -> f32| format!("{:.3}", sum(&|report| of(report) * report.n as f32) / n);
    let right = sum(&|report| report.precision * report.coverage * report.n as f32);
    let accepted: usize = outcomes.iter().map(|outcome| outcome.report.unserved.accepted).sum();
    let unserved: usize = outcomes.iter().map(|outcome| outcome.report.unserved.n).sum();
    let left_out = |of: &dyn Fn(&LeftOut) -> usize| outcomes.iter().map(|outcome| of(&outcome.left_out)).sum::<usize>();
    [
        share(&|report| report.top1),
        share(&|report| report.top3),
        share(&|report| report.coverage),
        format!("{:.3}", right / chosen),
        format!("{accepted}/{unserved}"),
        format!("{}/{}", left_out(&|left_out| left_out.claimed), left_out(&|left_out| left_out.n)),
    ]
}
