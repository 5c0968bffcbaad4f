//! What would have changed a choice: for the runner-up, which single factor would have put it first; for the chosen one, how long a wait
//! would have cost it its lead.

use serde::{Deserialize, Serialize};

use crate::route::{Candidate, Decision, FLOOR};
use crate::score::fit;
use crate::score::price::Micros;

/// One thing that would have changed the choice, all else being equal.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// `node/slug`
    pub capability: String,
    /// The factor that would have to change.
    pub factor: String,
    pub now: f32,
    /// From where on this capability would be first, or no longer be.
    pub needed: f32,
    /// The same in words.
    pub text: String,
}

/// Beginning with what is easiest to change: a load passes, a price can be talked about, the rest is what it is.
const EASIEST: [&str; 8] = ["load", "cost", "affinity", "distance", "reliability", "similarity", "complexity", "quality"];

pub fn changes(decision: &Decision) -> Vec<Change> {
    match (decision.chosen(), decision.runner_up()) {
        (Some(chosen), Some(runner_up)) if runner_up.score > 0.0 && chosen.score > runner_up.score => {
            rises(chosen, runner_up).chain(falls(chosen, runner_up)).collect()
        }
        (Some(_), _) => Vec::new(),
        (None, _) => decision.candidates.first().and_then(below_the_floor).into_iter().collect(),
    }
}

/// Which single factor of the runner-up would have put it first.
fn rises<'a>(chosen: &Candidate, runner_up: &'a Candidate) -> impl Iterator<Item = Change> + use<'a> {
    let ratio = chosen.score / runner_up.score;
    let factors = runner_up.factors.named();
    let named = move |name: &str| factors.into_iter().find(|(factor, _)| *factor == name);
    let enough = move |(factor, now): (&'static str, f32)| (now * ratio <= 1.0).then_some((factor, now, now * ratio));
    EASIEST.into_iter().filter_map(move |name| named(name).and_then(enough)).map(move |(factor, now, needed)| {
        let text = format!("{} would be first {}", runner_up.name, rise_in_words(runner_up, factor, now, needed));
        Change { capability: runner_up.name.clone(), factor: factor.to_owned(), now, needed, text }
    })
}

fn rise_in_words(candidate: &Candidate, factor: &str, now: f32, needed: f32) -> String {
    match factor {
        "load" => {
            format!(
                "if its wait fell below {}, now {}",
                milliseconds(fit::wait_of(needed)),
                milliseconds(candidate.expected.wait_ms)
            )
        }
        "cost" => {
            let price = |factor| fit::price_of(factor) / 1_000.0;
            let (less, now) = (price(needed), price(now));
            let energy = if candidate.cost.energy > Micros(0) { ", electricity included" } else { "" };
            format!("if it took less than {less:.2} per million tokens, now {now:.2} (mean of in and out{energy})")
        }
        _ => format!("if its {factor} were {needed:.3}, now {now:.3}"),
    }
}

/// How long a wait would have cost the chosen one its lead.
fn falls(chosen: &Candidate, runner_up: &Candidate) -> Option<Change> {
    let now = chosen.factors.load;
    let needed = now * runner_up.score / chosen.score;
    let (wait, limit) = (milliseconds(chosen.expected.wait_ms), milliseconds(fit::wait_of(needed)));
    let text = format!("{} would no longer be first if its wait rose above {limit}, now {wait}", chosen.name);
    (needed > 0.0).then(|| Change { capability: chosen.name.clone(), factor: "load".to_owned(), now, needed, text })
}

/// What the likeliest lacks, where it is not likely enough.
fn below_the_floor(candidate: &Candidate) -> Option<Change> {
    let now = candidate.probability.filter(|probability| *probability < FLOOR)?;
    let text = format!("{} would do if it fitted with a probability of {FLOOR}, now {now:.2}", candidate.name);
    Some(Change { capability: candidate.name.clone(), factor: "similarity".to_owned(), now, needed: FLOOR, text })
}

/// `420 ms`, `4.2 s`
pub fn milliseconds(ms: f32) -> String {
    if ms < 999.5 { format!("{ms:.0} ms") } else { format!("{:.1} s", ms / 1_000.0) }
}
