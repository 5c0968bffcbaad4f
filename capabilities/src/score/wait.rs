//! How long until the first token: the queue as announced, blended with what is usual as the news ages, our own requests, and how much
//! later than announced this provider was before.

use atmo_protocol::record::Load;

use crate::intent::RequestTokens;
use crate::route::Experience;
use crate::view::Condition;

/// Tokens of a usual answer. A guess, until lengths are announced.
const ANSWER_TOKENS: f32 = 200.0;
/// Tokens per second assumed where none were observed, and what is believed of an announcement.
const SPEED_UNSAID: f32 = 25.0;
const SPEEDS: (f32, f32) = (1.0, 1_000.0);
/// A prompt is read this much faster than an answer is written. A guess on the low side: batches of a GPU do better.
pub(super) const READING: f32 = 10.0;
/// What full company takes of a request's time. More than this, and whoever looks idle is run over: measured in the simulated herd.
const SHARED: f32 = 0.05;
/// The age at which what was heard of a load counts half: about the time of a usual answer, after which it is another load.
const HALVING_LOAD_AGE_MS: f32 = 10_000.0;
/// The share of its slots that a provider uses as far as nobody knows. A guess: most are idle most of the time.
const BUSY_UNHEARD: f32 = 0.25;
/// Between arrival and first token, of an idle provider with nothing to read.
const START_MS: f32 = 100.0;
/// A hop whose round trip was not measured.
const HOP_MS: f32 = 20.0;

/// What is to be expected of one capability, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Expected {
    /// Before the request is begun: what its node announced, and how much later it was than that before.
    pub wait_ms: f32,
    /// Until its first token, by announcements alone: what an observation is compared with.
    pub announced_ms: f32,
    /// Until its first token, all told.
    pub first_token_ms: f32,
}

impl Expected {
    pub fn of(condition: &Condition, slots: u16, experience: &Experience, tokens: RequestTokens) -> Self {
        let queue_ms = queue_ms(condition, slots, experience.in_flight);
        let reading_ms = tokens.prompt.likely as f32 * 1_000.0 / (speed(&condition.load) * READING);
        let announced_ms = trip_ms(condition) + START_MS + queue_ms + reading_ms;
        let late_ms = experience.late_ms();
        Self { wait_ms: queue_ms + late_ms, announced_ms, first_token_ms: announced_ms + late_ms }
    }
}

/// Before the request is begun.
pub fn wait_ms(condition: &Condition, slots: u16, experience: &Experience) -> f32 {
    queue_ms(condition, slots, experience.in_flight) + experience.late_ms()
}

/// Requests that can run at once, as heard last or as announced.
pub fn slots(condition: &Condition, announced: u16) -> f32 {
    f32::from(if condition.load.slots > 0 { condition.load.slots } else { announced }.max(1))
}

fn queue_ms(condition: &Condition, announced_slots: u16, in_flight: u16) -> f32 {
    let Load { running, waiting, .. } = condition.load;
    let slots = slots(condition, announced_slots);
    let freshness = 1.0 / (1.0 + condition.load_age_ms as f32 / HALVING_LOAD_AGE_MS);
    let said = (f32::from(running) + f32::from(waiting)) * freshness + BUSY_UNHEARD * slots * (1.0 - freshness);
    let busy = said.max(f32::from(in_flight));
    let request_ms = ANSWER_TOKENS * 1_000.0 / speed(&condition.load);
    request_ms * ((busy + 1.0 - slots).max(0.0) / slots + SHARED * (busy / slots).min(1.0))
}

/// Tokens that it writes in a second, as far as is known.
pub(super) fn speed(load: &Load) -> f32 {
    let observed = load.tokens_per_second;
    if observed.is_finite() && observed > 0.0 { observed.clamp(SPEEDS.0, SPEEDS.1) } else { SPEED_UNSAID }
}

fn trip_ms(condition: &Condition) -> f32 {
    let guessed = f32::from(condition.hops) * HOP_MS;
    condition.rtt_ms.filter(|rtt| rtt.is_finite() && *rtt >= 0.0).unwrap_or(guessed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::intent::PromptTokens;

    fn under(running: u16, waiting: u16, slots: u16, age_ms: u32) -> Condition {
        let load = Load { running, waiting, slots, tokens_per_second: 25.0 };
        Condition { load, load_age_ms: age_ms, ..Condition::default() }
    }

    #[test]
    fn a_request_waits_for_a_slot_and_a_queue_for_its_turn() {
        let wait = |running, waiting| wait_ms(&under(running, waiting, 4, 0), 4, &Experience::default());
        assert_eq!(wait(0, 0), 0.0);
        assert!(wait(3, 0) < 500.0, "a slot is free");
        assert_eq!(wait(4, 0), 2_400.0, "the first of four to end its eight seconds, and three beside");
        assert_eq!(wait(4, 4), 10_400.0);
    }

    #[test]
    fn old_news_of_a_full_and_of_an_idle_provider_come_to_the_same() {
        let wait = |running, age_ms| wait_ms(&under(running, 0, 4, age_ms), 4, &Experience::default());
        let unheard = wait(0, u32::MAX);
        assert!((wait(4, u32::MAX) / unheard - 1.0).abs() < 0.01);
        assert!(wait(0, 0) < unheard && unheard < wait(4, 0));
    }

    #[test]
    fn a_long_prompt_takes_time_to_read_and_a_slow_network_time_to_cross() {
        let expected = |tokens, condition: Condition| {
            let prompt = PromptTokens { likely: tokens, pessimistic: tokens };
            let tokens = RequestTokens { prompt, answer_max: None };
            Expected::of(&condition, 4, &Experience::default(), tokens).first_token_ms
        };
        let near = under(0, 0, 4, 0);
        assert!((expected(25_000, near) - expected(0, near) - 100_000.0).abs() < 1.0, "at ten times 25 tokens per second");
        assert_eq!(expected(0, Condition { rtt_ms: Some(300.0), ..near }) - expected(0, near), 300.0);
    }

    proptest! {
        #[test]
        fn any_announcement_gives_a_time(running in any::<u16>(), slots in any::<u16>(), speed in any::<f32>(), rtt in any::<f32>(), age in any::<u32>()) {
            let mut condition = under(running, 0, slots, age);
            condition.load.tokens_per_second = speed;
            condition.rtt_ms = Some(rtt);
            let expected = Expected::of(&condition, slots, &Experience::default(), RequestTokens::default());
            prop_assert!(expected.wait_ms >= 0.0 && expected.first_token_ms >= expected.wait_ms);
        }
    }
}
