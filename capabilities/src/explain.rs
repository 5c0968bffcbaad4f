//! A decision as a person reads it at a terminal: who was chosen, why, what every candidate's score is made of, who was excluded.
//!
//! Plain text without colours, so that it can be piped. Names come from other machines: they are cut, and control characters are shown as
//! `?`, so that nobody's name can move the cursor.

use std::fmt::Write;

use crate::route::{Candidate, Decision, Reason};

/// Candidates and exclusions that fit on one screen together with the rest.
const CANDIDATES_SHOWN: usize = 12;
const EXCLUDED_SHOWN: usize = 6;
/// Widest name in the table.
const NAME_CHARS: usize = 34;

/// One screen of text that ends in a line break.
pub fn explain(decision: &Decision) -> String {
    let mut text = headline(decision);
    if let Some(meaning) = meaning_of(&decision.reason) {
        let _ = writeln!(text, "  {meaning}");
    }
    if !decision.candidates.is_empty() {
        text.push_str(&table(decision));
    }
    text.push_str(&excluded(decision));
    text
}

fn headline(decision: &Decision) -> String {
    match decision.chosen() {
        Some(chosen) => {
            let hops = if chosen.hops == 1 { "1 hop".to_owned() } else { format!("{} hops", chosen.hops) };
            format!(
                "{} ({}) on {}, {hops}, score {:.3}: {}\n",
                plain(&chosen.name),
                plain(&chosen.model),
                plain(&chosen.node_name),
                chosen.score,
                decision.reason
            )
        }
        None => format!("nobody: {}\n", decision.reason),
    }
}

/// What the reason says beyond its own words.
fn meaning_of(reason: &Reason) -> Option<String> {
    match reason {
        Reason::Matched => Some("it is likely enough to be what was asked for; near-equals are drawn by their score".to_owned()),
        Reason::Named => Some("asked for by name, so that meaning does not count".to_owned()),
        Reason::FallbackGeneral { instead_of: Some(wanted) } => Some(format!("nobody offers {wanted}; a general model tries")),
        Reason::FallbackGeneral { instead_of: None } => {
            Some("nothing offered fits well enough; a general model tries".to_owned())
        }
        Reason::Refused(_) => None,
    }
}

fn table(decision: &Decision) -> String {
    let mut text = format!("\n    {:NAME_CHARS$} {:>6} ", "candidate", "score");
    for (name, _) in decision.candidates[0].factors.named() {
        let _ = write!(text, " {name:>11}");
    }
    text.push('\n');
    for (place, candidate) in decision.candidates.iter().enumerate().take(CANDIDATES_SHOWN) {
        text.push_str(&row(candidate, Some(place) == decision.chosen));
    }
    let more = decision.candidates_total.saturating_sub(CANDIDATES_SHOWN);
    if more > 0 {
        let _ = writeln!(text, "    and {more} more");
    }
    text.push_str("  score = the product of its factors; > is chosen, - would not do\n");
    text
}

fn row(candidate: &Candidate, chosen: bool) -> String {
    let mark = match (chosen, candidate.fits) {
        (true, _) => '>',
        (false, true) => ' ',
        (false, false) => '-',
    };
    let name: String = plain(&candidate.name).chars().take(NAME_CHARS).collect();
    let mut text = format!("  {mark} {name:NAME_CHARS$} {:>6.3} ", candidate.score);
    for (_, factor) in candidate.factors.named() {
        let _ = write!(text, " {factor:>11.3}");
    }
    text.push('\n');
    text
}

fn excluded(decision: &Decision) -> String {
    let mut text = String::new();
    if decision.excluded_total > 0 {
        text.push_str("\n  excluded:\n");
    }
    for excluded in decision.excluded.iter().take(EXCLUDED_SHOWN) {
        let _ = writeln!(text, "    {}: {}", plain(&excluded.name), excluded.reason);
    }
    let more = decision.excluded_total.saturating_sub(EXCLUDED_SHOWN);
    if more > 0 {
        let _ = writeln!(text, "    and {more} more");
    }
    text
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
