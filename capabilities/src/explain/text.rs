//! The screen for people. Plain text without colours, so that it can be piped. Names come from other machines: they are cut, and control
//! characters are shown as `?`, so that nobody's name can move the cursor.

use std::fmt::Write;

use super::change::{changes, milliseconds};
use crate::route::{Candidate, Decision, Quote, Reason};
use crate::score::price::Micros;

/// Widest line.
pub const COLUMNS: usize = 100;
/// Candidates side by side, and the width of each.
const SIDE_BY_SIDE: usize = 3;
const CELL: usize = 28;
/// A factor of 1.
const BAR: usize = 10;
/// Lines of the lists below, so that it all stays within 24.
const CHANGES_SHOWN: usize = 3;
const EXCLUDED_SHOWN: usize = 3;

pub fn screen(decision: &Decision) -> String {
    let mut lines = vec![headline(decision)];
    let said = meaning_of(&decision.reason).into_iter().chain(draw(decision)).chain(quoted(decision));
    lines.extend(said.map(|line| format!("  {line}")));
    if !decision.candidates.is_empty() {
        lines.extend(table(decision));
    }
    lines.extend(changes_of(decision));
    lines.extend(excluded(decision));
    lines.iter().map(|line| fitted(line, COLUMNS) + "\n").collect()
}

fn headline(decision: &Decision) -> String {
    let Some(chosen) = decision.chosen() else { return format!("nobody: {}", decision.reason) };
    let hops = if chosen.hops == 1 { "1 hop".to_owned() } else { format!("{} hops", chosen.hops) };
    let (name, model, node) = (fitted(&chosen.name, 34), fitted(&chosen.model, 20), fitted(&chosen.node_name, 16));
    format!("{name} ({model}) on {node}, {hops}, score {:.3}: {}", chosen.score, decision.reason)
}

/// What the reason says beyond its own words.
fn meaning_of(reason: &Reason) -> Option<String> {
    match reason {
        Reason::Matched => Some("it is likely enough to be what was asked for".to_owned()),
        Reason::Named => Some("asked for by name, so that meaning does not count".to_owned()),
        Reason::FallbackGeneral { instead_of: Some(wanted) } => Some(format!("nobody offers {wanted}; a general model tries")),
        Reason::FallbackSpecialised { instead_of: Some(wanted) } => {
            Some(format!("nobody offers {wanted}; the nearest language model tries"))
        }
        Reason::FallbackSpecialised { instead_of: None } => {
            Some("nothing offered fits well enough; the nearest language model tries".to_owned())
        }
        Reason::FallbackGeneral { instead_of: None } => {
            Some("nothing offered fits well enough; a general model tries".to_owned())
        }
        Reason::Refused(_) => None,
    }
}

/// How it was drawn, and how far it is ahead.
fn draw(decision: &Decision) -> Option<String> {
    let (chosen, runner_up) = (decision.chosen()?, decision.runner_up()?);
    let margin = chosen.score - runner_up.score;
    Some(match decision.near_equals {
        0 | 1 => format!("ahead of the runner-up by {margin:.3}"),
        near => {
            format!("drawn among {near} near-equals with a chance of {}, {margin:+.3} to the next", percent(chosen.chance).trim())
        }
    })
}

/// What was asked of the best before it was decided.
fn quoted(decision: &Decision) -> Option<String> {
    let one = |quote: &Quote| {
        let name = fitted(&quote.name, 24);
        match quote.load {
            Some(load) => format!("{name} has {} running, {} waiting", load.running, load.waiting),
            None => format!("{name} did not answer"),
        }
    };
    let said: Vec<String> = decision.quotes.iter().map(one).collect();
    (!said.is_empty()).then(|| format!("asked just now: {}", said.join("; ")))
}

/// What would have changed the choice, or that no single thing would.
fn changes_of(decision: &Decision) -> Vec<String> {
    let changes = changes(decision);
    let beaten = decision.runner_up().filter(|runner_up| runner_up.chance == 0.0);
    let hopeless = beaten.filter(|runner_up| changes.iter().all(|change| change.capability != runner_up.name));
    let hopeless = hopeless.map(|runner_up| format!("  * no single factor would have put {} first", fitted(&runner_up.name, 40)));
    let shown = changes.into_iter().map(|change| format!("  * {}", change.text));
    // What was asked takes a line, and so does energy.
    let energy_line = usize::from(decision.candidates.iter().any(takes_energy));
    let room = CHANGES_SHOWN - usize::from(!decision.quotes.is_empty()) - energy_line;
    hopeless.into_iter().chain(shown).take(room).collect()
}

/// The chosen one, the runner-up and the next, factor by factor.
fn table(decision: &Decision) -> Vec<String> {
    let others = decision.candidates.iter().filter(|candidate| !candidate.fits);
    let shown: Vec<&Candidate> = decision.in_order().chain(others).take(SIDE_BY_SIDE).collect();
    let row = |title: &str, cell: &dyn Fn(&Candidate) -> String| {
        let cells = shown.iter().map(|candidate| format!("{:CELL$}", fitted(&cell(candidate), CELL - 2)));
        format!("  {title:12}{}", cells.collect::<String>()).trim_end().to_owned()
    };
    let chosen = decision.chosen().map(|chosen| &chosen.id);
    let name = |candidate: &Candidate| match (chosen == Some(&candidate.id), candidate.fits && chosen.is_some()) {
        (true, _) => format!("> {}", candidate.name),
        (false, true) => format!("  {}", candidate.name),
        (false, false) => format!("- {}", candidate.name),
    };
    let mut lines = vec![String::new(), row("", &name)];
    for (place, (factor, _)) in shown[0].factors.named().into_iter().enumerate() {
        lines.push(row(factor, &|candidate| bar(candidate.factors.named()[place].1)));
    }
    lines.push(row("= product", &|candidate| bar(candidate.score)));
    lines.push(row("chance", &|candidate| format!("  {}", percent(candidate.chance).trim())));
    lines.push(row("expected", &expected));
    if shown.iter().any(|candidate| takes_energy(candidate)) {
        lines.push(row("electricity", &|candidate| format!("  {} of that", candidate.cost.energy)));
    }
    let more = decision.candidates_total.saturating_sub(shown.len());
    if more > 0 {
        lines.push(format!("  and {more} more candidates; > is chosen, - would not do"));
    }
    lines
}

/// Whether what it costs is electricity in part, which then has a line of its own in the table.
fn takes_energy(candidate: &Candidate) -> bool {
    candidate.cost.energy > Micros(0)
}

fn bar(share: f32) -> String {
    let full = (share * BAR as f32).round().clamp(0.0, BAR as f32) as usize;
    format!("  {share:.3} {}{}", "#".repeat(full), ".".repeat(BAR - full))
}

fn percent(share: f32) -> String {
    format!("{:3.0} %", share * 100.0)
}

fn expected(candidate: &Candidate) -> String {
    let total = candidate.cost.total;
    let cost = if total == Micros(0) { "free".to_owned() } else { format!("up to {total}") };
    format!("  {}, {cost}", milliseconds(candidate.expected.first_token_ms))
}

fn excluded(decision: &Decision) -> Vec<String> {
    if decision.excluded_total == 0 {
        return Vec::new();
    }
    let mut heading = format!("  excluded: {}", decision.excluded_total);
    let unseen = decision.excluded_by.iter().skip(EXCLUDED_SHOWN).map(|by| format!("{} by {}", by.total, by.first.by));
    for (place, rest) in unseen.enumerate() {
        _ = write!(heading, "{}{rest}", if place == 0 { ", also " } else { ", " });
    }
    let shown = decision.excluded_by.iter().take(EXCLUDED_SHOWN).map(|by| {
        let first = fitted(&by.first.name, 24);
        format!("    {:>4} {:14} {first}: {}", by.total, by.first.by, by.first.reason)
    });
    std::iter::once(heading).chain(shown).collect()
}

/// Without control characters, and cut to so many columns, in the belief that a character takes one.
fn fitted(text: &str, columns: usize) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    if text.chars().count() <= columns {
        return text.chars().map(plain).collect();
    }
    text.chars().take(columns - 3).map(plain).chain("...".chars()).collect()
}
