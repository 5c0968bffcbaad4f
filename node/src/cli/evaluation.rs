//! `atmo route eval`: measures routing on a labelled set with the very router that serves requests. Needs no node and no data folder.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use atmo_capabilities::embed::Embedder as _;
use atmo_capabilities::embed::rten::RtenEmbedder;
use atmo_capabilities::route::eval::{Ablation, EvalError, LeftOut, Outcome, Report, ablate, evaluate as measure};
use serde_json::json;

use super::print;
use super::session::{Session, Stop};
use crate::control::CommandError;

/// Longest set that is read; one of ten thousand intents is about a megabyte.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Mistakes that are shown to people; `--json` has all of them.
const MISTAKES_SHOWN: usize = 20;

pub fn evaluate(session: &Session, file: &Path, with_ablation: bool) -> Result<ExitCode, Stop> {
    let text = read(file)?;
    let embedder = RtenEmbedder::load().map_err(CommandError::failed)?;
    // The first run of a model allocates; it is no one's intent.
    embedder.embed(&["warm up"]).map_err(CommandError::failed)?;
    let began = Instant::now();
    let now_us = || u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let wrong = |error: EvalError| CommandError::failed(format_args!("{}: {error}", file.display()));
    let (report, left_out) = measure(&text, &embedder, &now_us).map_err(wrong)?;
    let ablation = with_ablation.then(|| ablate(&text, &embedder, &now_us)).transpose().map_err(wrong)?;
    if session.json {
        let mut value = serde_json::to_value(&report).map_err(CommandError::failed)?;
        value["left_out"] = json!(left_out);
        if let Some(ablation) = &ablation {
            value["ablation"] = json!(ablation.without);
        }
        print::json(&value)?;
    } else {
        print::line(&in_words(&report, &left_out))?;
        if let Some(ablation) = &ablation {
            print::line(&format!("\n{}", table(ablation)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> Result<String, Stop> {
    let wrong = |cause: &dyn std::fmt::Display| CommandError::failed(format_args!("{}: {cause}", file.display()));
    let length = std::fs::metadata(file).map_err(|error| wrong(&error))?.len();
    if length > FILE_BYTES_MAX {
        return Err(wrong(&format_args!("{length} bytes are more than a labelled set can have")).into());
    }
    Ok(std::fs::read_to_string(file).map_err(|error| wrong(&error))?)
}

fn in_words(report: &Report, left_out: &LeftOut) -> String {
    let Report { n, top1, top3, coverage, precision, unserved, embed_ms, decide_us, errors } = report;
    let mut lines = vec![
        format!("{n} intents"),
        format!("  right first              {:5.1} %", top1 * 100.0),
        format!("  right among first three  {:5.1} %", top3 * 100.0),
        format!("  somebody chosen          {:5.1} %, of these right {:.1} %", coverage * 100.0, precision * 100.0),
        format!("  unserved but accepted    {:5} of {}", unserved.accepted, unserved.n),
        format!(
            "  the only right one gone  {:5} of {} claimed by another, {} given to a general model",
            left_out.claimed, left_out.n, left_out.fallback
        ),
        format!("  embedding                {:5.1} ms p50, {:.1} ms p99", embed_ms.p50, embed_ms.p99),
        format!("  deciding                 {:5.0} us p50, {:.0} us p99", decide_us.p50, decide_us.p99),
    ];
    if !errors.is_empty() {
        lines.push(format!("\n{} mistakes", errors.len()));
    }
    for mistake in errors.iter().take(MISTAKES_SHOWN) {
        let scores: Vec<String> = mistake.scores.iter().map(|(id, score)| format!("{id} {score:.2}")).collect();
        lines.push(format!(
            "  {:?}\n      wanted {}; likeliest {}",
            mistake.text,
            mistake.wanted.join(" or "),
            scores.join(", ")
        ));
    }
    if errors.len() > MISTAKES_SHOWN {
        lines.push(format!("  and {} more; --json has them all", errors.len() - MISTAKES_SHOWN));
    }
    lines.join("\n")
}

/// What each kind of evidence adds.
fn table(ablation: &Ablation) -> String {
    let row = |name: &str, Outcome { report, left_out }: &Outcome| {
        let share = |value: f32| format!("{:.1}", value * 100.0);
        let figures = [report.top1, report.top3, report.coverage, report.precision].map(share);
        let refused = format!("{}/{}", report.unserved.accepted, report.unserved.n);
        let claimed = format!("{}/{}", left_out.claimed, left_out.n);
        std::iter::once(name.to_owned()).chain(figures).chain([refused, claimed]).collect::<Vec<_>>()
    };
    let heads =
        ["WITHOUT", "TOP 1 %", "TOP 3 %", "CHOSEN %", "RIGHT %", "UNSERVED TAKEN", "LEFT OUT TAKEN"].map(str::to_owned).to_vec();
    let full = row("nothing", &ablation.full);
    let others = ablation.without.iter().map(|(name, report)| row(name, report));
    print::align(&std::iter::once(heads).chain([full]).chain(others).collect::<Vec<_>>())
}
