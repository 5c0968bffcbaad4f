//! The factors beside meaning: how far, how busy, how dear, how good, how big, how reliable. Each a small function of its own inputs,
//! monotone in every one of them.

use super::price::Rates;
use super::wait;
use crate::capability::Facts;
use crate::intent::RequestTokens;
use crate::route::{Breaker, Experience};
use crate::view::{Condition, Standing};

/// What is left of a score after each hop.
const PER_HOP: f32 = 0.95;
/// The round trip that halves a score. A guess: people notice half a second before the first word.
const HALVING_RTT_MS: f32 = 500.0;
/// The wait that halves a score. A guess: from a few seconds on people turn to something else.
const HALVING_WAIT_MS: f32 = 2_000.0;
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
const TOO_SMALL: f32 = 0.6;
const TOO_BIG: f32 = 0.8;
/// How much bigger than a request is hard a model may be at no loss: up to ten billions nothing is wasted on a greeting.
const ROOMY: f32 = 0.55;
/// How far an owner's word can move what a model's size says of its quality.
const WORD_OF_OWNER: f32 = 0.25;
/// What is left for who has not computed the beginning of a conversation. Below [`NEAR_EQUAL`](crate::route::NEAR_EQUAL), so that a
/// conversation stays where it is until somewhere else is plainly better, and then stays there.
const ELSEWHERE: f32 = 0.85;
/// What is left of that at most where the prefix is long, and the length at which half of the difference counts.
const ELSEWHERE_LONG: f32 = 0.6;
const HALVING_PREFIX_TOKENS: f32 = 4_000.0;

pub fn distance(condition: &Condition) -> f32 {
    let rtt = condition.rtt_ms.filter(|rtt| rtt.is_finite()).unwrap_or(0.0).max(0.0);
    PER_HOP.powi(i32::from(condition.hops)) / (1.0 + rtt / HALVING_RTT_MS)
}

/// The expected wait; `slots` as announced.
pub fn load(condition: &Condition, slots: u16, experience: &Experience) -> f32 {
    load_after(wait::wait_ms(condition, slots, experience))
}

/// The factor of a wait of so many milliseconds.
pub fn load_after(wait_ms: f32) -> f32 {
    1.0 / (1.0 + wait_ms / HALVING_WAIT_MS)
}

/// The wait that gives this factor: [`load_after`] turned round.
pub fn wait_of(load: f32) -> f32 {
    HALVING_WAIT_MS * (1.0 / load - 1.0)
}

/// For a conversation that somebody else has begun: what computing its prefix anew is worth.
pub fn elsewhere(tokens: RequestTokens) -> f32 {
    let prefix = tokens.prompt.likely as f32;
    ELSEWHERE - (ELSEWHERE - ELSEWHERE_LONG) * prefix / (prefix + HALVING_PREFIX_TOKENS)
}

/// The price, electricity included.
pub fn cost(rates: &Rates) -> f32 {
    1.0 / (1.0 + rates.mean() / HALVING_PRICE)
}

/// The price in millionths per 1,000 tokens, prompt and answer in the mean, that gives this factor: [`cost`] turned round.
pub fn price_of(cost: f32) -> f32 {
    HALVING_PRICE * (1.0 / cost - 1.0)
}

pub fn quality(facts: &Facts) -> f32 {
    if facts.demonstration { DEMONSTRATION } else { SMALLEST + (1.0 - SMALLEST) * quality_score(facts) }
}

/// From 0 (the demonstration model) to 1: the size, moved a little by what the owner says; where no size is said, as of a hosted model, the
/// owner's word alone.
pub fn quality_score(facts: &Facts) -> f32 {
    if facts.demonstration {
        return 0.0;
    }
    let size = size(facts);
    let believed = |said: f32| match facts.parameters_billions {
        Some(_) => said.clamp(size - WORD_OF_OWNER, size + WORD_OF_OWNER),
        None => said,
    };
    facts.quality.map_or(size, believed).clamp(0.0, 1.0)
}

/// Whether a model of this size (from [`size`]) suits a request this hard (from [`complexity`](super::complexity::complexity)).
#[inline]
pub fn suits(size: f32, hard: f32) -> f32 {
    1.0 - TOO_SMALL * (hard - size).max(0.0) - TOO_BIG * (size - hard - ROOMY).max(0.0)
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
    use atmo_protocol::record::{Cost, Load};
    use proptest::prelude::*;

    use super::*;
    use crate::route::Lateness;

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
            let later = Experience { late: Lateness { ms: f32::from(more), ..Lateness::default() }, ..experience };
            prop_assert!(load(&idle, 1, &later) <= load(&idle, 1, &experience));
            prop_assert!(load(&busy, 1, &experience) <= load(&idle, 1, &experience));
            prop_assert!(load(&idle, 1, &busier) <= load(&idle, 1, &experience));
            prop_assert!((0.0..=1.0).contains(&load(&busy, 1, &experience)));
        }

        #[test]
        fn dearer_never_helps(prompt in any::<u32>(), completion in 0u32..1 << 31, more in 0u32..1 << 31) {
            let cheap = Cost { prompt_micros_per_1k: prompt, completion_micros_per_1k: completion };
            let dear = Cost { completion_micros_per_1k: completion + more, ..cheap };
            let factor = |cost| super::cost(&Rates { announced: cost, ..Rates::default() });
            prop_assert!(factor(dear) <= factor(cheap));
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
    fn an_owner_moves_the_quality_of_a_model_a_little() {
        let quality =
            |billions, said| quality_score(&Facts { parameters_billions: Some(billions), quality: said, ..Facts::default() });
        assert!(quality(8.0, Some(1.0)) > quality(8.0, None) && quality(8.0, Some(0.0)) < quality(8.0, None));
        assert!(quality(1.0, Some(1.0)) < quality(70.0, None));
        assert_eq!(quality_score(&Facts { demonstration: true, quality: Some(1.0), ..Facts::default() }), 0.0);
    }

    #[test]
    fn a_wait_and_its_factor_are_one_another_turned_round() {
        for wait_ms in [0.0, 10.0, 2_000.0, 1e5] {
            assert!((wait_of(load_after(wait_ms)) - wait_ms).abs() <= 1e-3 * wait_ms);
        }
    }

    #[test]
    fn a_greeting_does_not_wake_the_largest_and_an_analysis_not_the_smallest() {
        let sized = |billions| size(&Facts { parameters_billions: Some(billions), ..Facts::default() });
        assert!(suits(sized(8.0), 0.0) > suits(sized(70.0), 0.0));
        assert!(suits(sized(70.0), 0.9) > suits(sized(3.0), 0.9));
        assert!(suits(sized(8.0), 0.0) == 1.0, "the usual model serves a greeting at no loss");
        let tiny = Facts { parameters_billions: Some(0.1), ..Facts::default() };
        assert!(quality(&Facts { demonstration: true, ..Facts::default() }) < 0.1 * quality(&tiny));
    }
}
