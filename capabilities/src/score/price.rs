//! What a request would cost: per-token prices as announced and the electricity it takes, times tokens as estimated.
//!
//! An owner says what a kilowatt-hour costs and either how many joules 1,000 tokens take or how many watts are drawn while they are
//! written; of the latter the observed speed makes the former. What costs nothing in tokens and in electricity is free.

use std::fmt;

use atmo_protocol::record::{Cost, Load};

use super::wait::{self, READING};
use crate::intent::RequestTokens;

/// Joules in a kilowatt-hour.
const JOULES_PER_KWH: f32 = 3.6e6;

/// Millionths of a currency unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Micros(pub u64);

/// What a capability takes in electricity, as its owner says; all zero where nothing is said.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Energy {
    /// For 1,000 tokens that it writes; 0 leaves it to `watts`.
    pub joules_per_1k: f32,
    /// Drawn while it writes.
    pub watts: f32,
    /// Millionths of a currency unit for a kilowatt-hour.
    pub micros_per_kwh: u32,
}

/// What 1,000 tokens cost now, in millionths of a currency unit.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Rates {
    /// Taken by the owner.
    pub announced: Cost,
    /// Electricity for 1,000 tokens that are written; for those that are read a tenth of it, as for the time.
    pub energy: f32,
}

/// What a request costs at most by estimate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Estimate {
    pub total: Micros,
    /// What of it is electricity.
    pub energy: Micros,
}

impl Energy {
    /// Joules for 1,000 tokens, written as fast as `load` says.
    fn joules(&self, load: &Load) -> f32 {
        if self.joules_per_1k > 0.0 { self.joules_per_1k } else { self.watts * 1_000.0 / wait::speed(load) }
    }
}

impl Rates {
    pub fn of(cost: &Cost, energy: &Energy, load: &Load) -> Self {
        Self { announced: *cost, energy: energy.joules(load) / JOULES_PER_KWH * energy.micros_per_kwh as f32 }
    }

    pub fn is_free(&self) -> bool {
        self.announced == Cost::default() && self.energy == 0.0
    }

    /// The mean of what 1,000 tokens read and 1,000 tokens written cost.
    pub fn mean(&self) -> f32 {
        let written = self.announced.completion_micros_per_1k as f32 + self.energy;
        (self.announced.prompt_micros_per_1k as f32 + self.energy / READING + written) / 2.0
    }

    /// What answering costs at most: the prompt reckoned pessimistically, the answer as long as it may be, each part rounded up.
    pub fn estimate(&self, tokens: RequestTokens) -> Estimate {
        let part = |price: u32, tokens: u32| u64::from(price) * u64::from(tokens);
        let prompt = part(self.announced.prompt_micros_per_1k, tokens.prompt.pessimistic);
        let answer = part(self.announced.completion_micros_per_1k, tokens.answer());
        let written = f64::from(tokens.prompt.pessimistic) / f64::from(READING) + f64::from(tokens.answer());
        let energy = (f64::from(self.energy) * written / 1_000.0).ceil() as u64;
        let total = prompt.saturating_add(answer).div_ceil(1_000).saturating_add(energy);
        Estimate { total: Micros(total), energy: Micros(energy) }
    }
}

impl fmt::Display for Rates {
    /// Per million tokens, as prices are usually given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let price = |micros_per_1k: u32| f64::from(micros_per_1k) / 1_000.0;
        let Cost { prompt_micros_per_1k, completion_micros_per_1k } = self.announced;
        write!(f, "{} in, {} out per million tokens", price(prompt_micros_per_1k), price(completion_micros_per_1k))?;
        if self.energy > 0.0 { write!(f, " and {:.4} of electricity", self.energy / 1_000.0) } else { Ok(()) }
    }
}

impl fmt::Display for Estimate {
    /// `0.0124`, or `0.0124 (0.0004 of it electricity)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.energy {
            Micros(0) => self.total.fmt(f),
            energy => write!(f, "{} ({energy} of it electricity)", self.total),
        }
    }
}

impl fmt::Display for Micros {
    /// In whole units, with as many decimals as it takes: `0.0124`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:06}", self.0 % 1_000_000);
        let decimals = decimals.trim_end_matches('0');
        let point = if decimals.is_empty() { "" } else { "." };
        write!(f, "{}{point}{decimals}", self.0 / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::intent::PromptTokens;

    fn tokens(prompt: u32, answer: Option<u32>) -> RequestTokens {
        RequestTokens { prompt: PromptTokens { likely: prompt / 2, pessimistic: prompt }, answer_max: answer }
    }

    fn at_speed(tokens_per_second: f32) -> Load {
        Load { tokens_per_second, ..Load::default() }
    }

    #[test]
    fn a_request_costs_its_prompt_and_the_longest_answer() {
        let cost = Cost { prompt_micros_per_1k: 500, completion_micros_per_1k: 1_500 };
        let rates = Rates::of(&cost, &Energy::default(), &Load::default());
        let total = |tokens| rates.estimate(tokens).total;
        assert_eq!(total(tokens(2_000, Some(1_000))), Micros(2_500));
        assert!(total(tokens(2_000, None)) > Micros(2_500), "an answer without a limit may be long");
        assert_eq!(total(tokens(1, Some(0))), Micros(1), "rounded up");
        assert_eq!(rates.to_string(), "0.5 in, 1.5 out per million tokens");
        assert_eq!([Micros(12_400), Micros(3_000_000), Micros(0)].map(|micros| micros.to_string()), ["0.0124", "3", "0"]);
    }

    #[test]
    fn electricity_is_part_of_what_a_request_costs() {
        // A kilowatt-hour for 0.36 is a tenth of a millionth a joule.
        let drawn = Energy { watts: 250.0, micros_per_kwh: 360_000, ..Energy::default() };
        let slow = Rates::of(&Cost::default(), &drawn, &at_speed(25.0));
        let estimate = slow.estimate(tokens(1_000, Some(2_000)));
        assert_eq!((slow.energy, estimate.total, estimate.energy), (1_000.0, Micros(2_100), Micros(2_100)));
        assert_eq!(estimate.to_string(), "0.0021 (0.0021 of it electricity)");
        assert!(!slow.is_free() && slow.to_string().contains("1.0000 of electricity"), "{slow}");
        assert_eq!(Rates::of(&Cost::default(), &drawn, &at_speed(50.0)).energy, 500.0, "twice as fast, half the time");
        let measured = Energy { joules_per_1k: 4_000.0, ..drawn };
        assert_eq!(Rates::of(&Cost::default(), &measured, &at_speed(25.0)).energy, 400.0, "joules before watts");
        let of_the_sun = Energy { micros_per_kwh: 0, ..drawn };
        assert!(Rates::of(&Cost::default(), &of_the_sun, &Load::default()).is_free());
    }

    proptest! {
        #[test]
        fn more_of_anything_never_costs_less(prompt in any::<u32>(), answer in any::<u32>(), more in any::<u32>(), price in 0u32..1 << 20, watts in 0f32..1e6) {
            let energy = Energy { watts, micros_per_kwh: price, ..Energy::default() };
            let rates = Rates::of(&Cost { prompt_micros_per_1k: price, completion_micros_per_1k: price }, &energy, &Load::default());
            let dearer = Rates::of(&rates.announced, &Energy { watts: watts * 1.5 + 1.0, ..energy }, &Load::default());
            let [short, long] = [answer, answer.saturating_add(more)].map(|answer| tokens(prompt, Some(answer)));
            prop_assert!(rates.estimate(short) <= rates.estimate(long) && rates.estimate(short) <= dearer.estimate(short));
            prop_assert!(rates.estimate(short).energy <= rates.estimate(short).total && rates.mean() <= dearer.mean());
        }
    }
}
