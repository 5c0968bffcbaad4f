//! How many tokens a text has, without a tokenizer: every model has its own, and routing knows none of them.

use std::ops::Add;

/// Tokens of an answer whose length is left open. A guess: most chat answers are shorter.
pub const ANSWER_TOKENS_UNSAID: u32 = 1_024;
/// What a chat template and the special tokens add to a message at most, as far as common ones go.
const PER_MESSAGE: u32 = 8;

/// The length of a prompt, estimated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PromptTokens {
    /// About as many as common tokenizers make.
    pub likely: u32,
    /// More than they make of prose, code and numbers: what a budget is reckoned with.
    pub pessimistic: u32,
}

/// The length of a request and its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestTokens {
    pub prompt: PromptTokens,
    /// `None` leaves the length of the answer open.
    pub answer_max: Option<u32>,
}

impl PromptTokens {
    /// Of one message. A likely token is a word of up to six letters, three digits, a mark, a wide character; pessimistically three
    /// letters, a digit, and as many as a character has bytes after its first.
    pub fn of(text: &str) -> Self {
        let (mut likely, mut pessimistic) = (0u64, 0u64);
        for word in text.split_ascii_whitespace() {
            let run = Run::of(word);
            likely += run.letters.div_ceil(6) + run.digits.div_ceil(3) + run.marks + run.beyond_ascii_bytes.div_ceil(3);
            pessimistic += run.letters.div_ceil(3) + run.digits + run.marks + run.beyond_ascii_bytes;
        }
        let lines = text.bytes().filter(|byte| *byte == b'\n').count() as u64;
        let cut = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX).saturating_add(PER_MESSAGE);
        Self { likely: cut(likely), pessimistic: cut(pessimistic + lines) }
    }
}

impl Add for PromptTokens {
    type Output = Self;

    /// Of two messages.
    fn add(self, other: Self) -> Self {
        Self { likely: self.likely.saturating_add(other.likely), pessimistic: self.pessimistic.saturating_add(other.pessimistic) }
    }
}

impl RequestTokens {
    /// What an answer costs at most, if it may be as long as [`ANSWER_TOKENS_UNSAID`] where nothing is said.
    pub fn answer(&self) -> u32 {
        self.answer_max.unwrap_or(ANSWER_TOKENS_UNSAID)
    }
}

/// The characters of one word by sort.
#[derive(Default)]
struct Run {
    letters: u64,
    digits: u64,
    marks: u64,
    beyond_ascii_bytes: u64,
}

impl Run {
    fn of(word: &str) -> Self {
        word.bytes().fold(Self::default(), |mut run, byte| {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' => run.letters += 1,
                b'0'..=b'9' => run.digits += 1,
                0x80.. => run.beyond_ascii_bytes += 1,
                _ => run.marks += 1,
            }
            run
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_longer_text_is_never_shorter_and_no_text_has_more_tokens_than_bytes(text in any::<String>(), more in any::<String>()) {
            let (short, long) = (PromptTokens::of(&text), PromptTokens::of(&format!("{text} {more}")));
            prop_assert!(short.likely <= long.likely && short.pessimistic <= long.pessimistic);
            prop_assert!(short.likely <= short.pessimistic && short.pessimistic as usize <= text.len() + PER_MESSAGE as usize);
        }
    }

    /// Against the well-known counts of `cl100k_base`, a tokenizer of a hundred thousand tokens.
    #[test]
    fn estimates_lie_about_what_a_tokenizer_makes() {
        for (text, tokens) in [("The quick brown fox jumps over the lazy dog.", 10), ("Hello, world!", 4), ("1234567", 3)] {
            let estimate = PromptTokens::of(text);
            let (likely, pessimistic) = (estimate.likely - PER_MESSAGE, estimate.pessimistic - PER_MESSAGE);
            assert!(likely >= tokens - 1 && likely <= tokens + tokens / 2 && pessimistic >= tokens, "{text:?} {estimate:?}");
        }
    }
}
