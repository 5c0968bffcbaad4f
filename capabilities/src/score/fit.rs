//! The factors beside meaning: how far, how busy, how dear, how good, how big, how reliable. Each a small function of its own inputs,
//! monotone in every one of them.

use atmo_protocol::record::{Cost, Load};

use crate::capability::Facts;
use crate::route::{Breaker, Experience};
use crate::view::{Condition, Standing};

/// What is left of a score after each hop.
const PER_HOP: f32 = 0.95;
/// The round trip that halves a score. A guess: people notice half a second before the first word.
const HALVING_RTT_MS: f32 = 500.0;
/// The age at which what was heard of a load counts half.
const HALVING_LOAD_AGE_MS: f32 = 30_000.0;
/// What is left of a score just before the last slot is taken; from there on a request has to wait.
const NEARLY_FULL: f32 = 0.8;
/// What is left once every slot is taken.
const FULL: f32 = 0.5;
/// The price (millionths per 1,000 tokens) that halves a score: 10 currency units per million tokens.
const HALVING_PRICE: f32 = 10_000.0;
/// The demonstration model loses to anything else, and still beats nobody.
const DEMONSTRATION: f32 = 0.02;
/// What is left of the quality of the smallest model there is.
const SMALLEST: f32 = 0.85;
/// Billions of parameters assumed where nothing is said.
const UNSAID_BILLIONS: f32 = 7.0;
const PER_FAILURE: f32 = 0.7;
const HALF_OPEN: f32 = 0.5;
const SUSPECTED: f32 = 0.5;
/// What a model far too small, or far too big, for a request loses at most.
const TOO_SMALL: f32 = 0.4;
const TOO_BIG: f32 = 0.15;

pub fn distance(condition: &Condition) -> f32 {
    let rtt = condition.rtt_ms.filter(|rtt| rtt.is_finite()).unwrap_or(0.0).max(0.0);
    PER_HOP.powi(i32::from(condition.hops)) / (1.0 + rtt / HALVING_RTT_MS)
}

/// How long a request would wait: `slots` as announced; our own requests in flight count even where the node has not yet said so.
pub fn load(condition: &Condition, slots: u16, experience: &Experience) -> f32 {
    let Load { running, waiting, .. } = condition.load;
    let slots = f32::from(if condition.load.slots > 0 { condition.load.slots } else { slots }.max(1));
    let freshness = 1.0 / (1.0 + condition.load_age_ms as f32 / HALVING_LOAD_AGE_MS);
    let said = (f32::from(running) + f32::from(waiting)) * freshness;
    let busy = said.max(f32::from(experience.in_flight)) / slots;
    if busy < 1.0 { 1.0 - (1.0 - NEARLY_FULL) * busy } else { FULL / busy }
}

pub fn cost(cost: &Cost) -> f32 {
    let price = (cost.prompt_micros_per_1k as f32 + cost.completion_micros_per_1k as f32) / 2.0;
    1.0 / (1.0 + price / HALVING_PRICE)
}

pub fn quality(facts: &Facts) -> f32 {
    if facts.demonstration { DEMONSTRATION } else { SMALLEST + (1.0 - SMALLEST) * size(facts) }
}

/// Whether a model of this size (from [`size`]) suits a request this hard (from [`complexity`](super::complexity::complexity)).
#[inline]
pub fn suits(size: f32, hard: f32) -> f32 {
    1.0 - TOO_SMALL * (hard - size).max(0.0) - TOO_BIG * (size - hard).max(0.0)
}

/// Parameters on a logarithmic scale: 0 at half a billion, 0.5 at eight, 1 at 128 and more.
pub fn size(facts: &Facts) -> f32 {
    ((facts.parameters_billions.unwrap_or(UNSAID_BILLIONS).log2() + 1.0) / 8.0).clamp(0.0, 1.0)
}

pub fn reliability(condition: &Condition, experience: &Experience) -> f32 {
    let standing = if condition.standing == Standing::Alive { 1.0 } else { SUSPECTED };
    let breaker = if experience.breaker == Breaker::Closed { 1.0 } else { HALF_OPEN };
    standing * breaker * PER_FAILURE.powi(i32::from(experience.failures))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn under(running: u16, waiting: u16, slots: u16) -> Condition {
        Condition { load: Load { running, waiting, slots, tokens_per_second: 0.0 }, ..Condition::default() }
    }

    proptest! {
        #[test]
        fn more_hops_and_longer_trips_never_help(hops in 0u8..40, more in 0u8..40, rtt in 0f32..1e4, longer in 0f32..1e4) {
            let near = Condition { hops, rtt_ms: Some(rtt), ..Condition::default() };
            let far = Condition { hops: hops + more, rtt_ms: Some(rtt + longer), ..Condition::default() };
            prop_assert!(distance(&far) <= distance(&near) && distance(&near) <= 1.0);
        }

        #[test]
        fn more_load_never_helps(
            running in 0u16..2_000, waiting in 0u16..2_000, more in 0u16..2_000, slots in 1u16..64, mine in 0u16..99, age in any::<u32>(),
        ) {
            let idle = Condition { load_age_ms: age, ..under(running, waiting, slots) };
            let busy = Condition { load_age_ms: age, ..under(running + more, waiting, slots) };
            let experience = Experience { in_flight: mine, ..Experience::default() };
            let busier = Experience { in_flight: mine + 1, ..experience };
            prop_assert!(load(&busy, 1, &experience) <= load(&idle, 1, &experience));
            prop_assert!(load(&idle, 1, &busier) <= load(&idle, 1, &experience));
            prop_assert!((0.0..=1.0).contains(&load(&busy, 1, &experience)));
        }

        #[test]
        fn dearer_never_helps(prompt in any::<u32>(), completion in 0u32..1 << 31, more in 0u32..1 << 31) {
            let cheap = Cost { prompt_micros_per_1k: prompt, completion_micros_per_1k: completion };
            let dear = Cost { completion_micros_per_1k: completion + more, ..cheap };
            prop_assert!(super::cost(&dear) <= super::cost(&cheap));
        }
    }

    #[test]
    fn a_full_provider_is_worth_half_at_most() {
        assert_eq!(load(&under(0, 0, 4), 1, &Experience::default()), 1.0);
        assert!(load(&under(3, 0, 4), 1, &Experience::default()) > 0.8);
        assert!(load(&under(4, 0, 4), 1, &Experience::default()) <= 0.5);
        assert!(load(&under(4, 4, 4), 1, &Experience::default()) <= 0.25);
        let ours = Experience { in_flight: 2, ..Experience::default() };
        assert!(load(&Condition::default(), 2, &ours) <= 0.5, "our own requests fill it too");
    }

    #[test]
    fn a_greeting_does_not_wake_the_largest_and_an_analysis_not_the_smallest() {
        let sized = |billions| size(&Facts { parameters_billions: Some(billions), ..Facts::default() });
        assert!(suits(sized(8.0), 0.0) > suits(sized(70.0), 0.0));
        assert!(suits(sized(70.0), 0.9) > suits(sized(3.0), 0.9));
        let tiny = Facts { parameters_billions: Some(0.1), ..Facts::default() };
        assert!(quality(&Facts { demonstration: true, ..Facts::default() }) < 0.1 * quality(&tiny));
    }
}
