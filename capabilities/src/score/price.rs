//! What a request would cost: per-token prices as announced, times tokens as estimated.

use std::fmt;

use atmo_protocol::record::Cost;

use crate::intent::RequestTokens;

/// Millionths of a currency unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Micros(pub u64);

/// What answering costs at most by estimate: the prompt reckoned pessimistically, the answer as long as it may be, rounded up.
pub fn estimate(cost: &Cost, tokens: RequestTokens) -> Micros {
    let part = |price: u32, tokens: u32| u64::from(price) * u64::from(tokens);
    let prompt = part(cost.prompt_micros_per_1k, tokens.prompt.pessimistic);
    Micros(prompt.saturating_add(part(cost.completion_micros_per_1k, tokens.answer())).div_ceil(1_000))
}

/// The longest answer that `budget` pays for beside the prompt, in tokens: what `max_tokens` may be so that it is kept. `None` where
/// answers cost nothing.
pub fn answer_tokens_within(budget: Micros, cost: &Cost, tokens: RequestTokens) -> Option<u32> {
    let per_1k = u64::from(cost.completion_micros_per_1k);
    let prompt = u64::from(cost.prompt_micros_per_1k) * u64::from(tokens.prompt.pessimistic);
    let left = budget.0.saturating_mul(1_000).saturating_sub(prompt);
    left.checked_div(per_1k).map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX))
}

pub fn is_free(cost: &Cost) -> bool {
    cost.prompt_micros_per_1k == 0 && cost.completion_micros_per_1k == 0
}

/// Prices per million tokens, as they are usually given.
pub fn per_million(cost: &Cost) -> String {
    let price = |micros_per_1k: u32| f64::from(micros_per_1k) / 1_000.0;
    format!("{} in, {} out per million tokens", price(cost.prompt_micros_per_1k), price(cost.completion_micros_per_1k))
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

    #[test]
    fn a_request_costs_its_prompt_and_the_longest_answer() {
        let cost = Cost { prompt_micros_per_1k: 500, completion_micros_per_1k: 1_500 };
        assert_eq!(estimate(&cost, tokens(2_000, Some(1_000))), Micros(2_500));
        assert!(estimate(&cost, tokens(2_000, None)) > Micros(2_500), "an answer without a limit may be long");
        assert_eq!(estimate(&cost, tokens(1, Some(0))), Micros(1), "rounded up");
        assert_eq!(per_million(&cost), "0.5 in, 1.5 out per million tokens");
        assert_eq!([Micros(12_400), Micros(3_000_000), Micros(0)].map(|micros| micros.to_string()), ["0.0124", "3", "0"]);
    }

    proptest! {
        #[test]
        fn an_answer_within_the_budget_keeps_it(prompt in any::<u32>(), completion in 1u32.., length in any::<u32>(), budget in any::<u64>()) {
            let cost = Cost { prompt_micros_per_1k: prompt, completion_micros_per_1k: completion };
            let answer = answer_tokens_within(Micros(budget), &cost, tokens(length, None)).unwrap();
            prop_assert!(answer == 0 || estimate(&cost, tokens(length, Some(answer))) <= Micros(budget));
        }
    }
}
