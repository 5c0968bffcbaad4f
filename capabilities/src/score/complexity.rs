//! How hard a request is, guessed from its text alone: how long it is, whether it has parts and code, and whether it asks to think.
//!
//! A guess by rules, meant to keep "hi" off the largest model and a long analysis off the smallest. Its weight in the score is small.

/// Characters that are looked at for words; the length counts in full.
const CHARS_READ_MAX: usize = 4_000;
/// A request of this many tokens is as hard as length alone can make it.
const TOKENS_HARD: f32 = 4_000.0;
/// Shorter requests are not hard by length at all.
const TOKENS_EASY: f32 = 24.0;
/// Words that ask for more than a fact; beginnings, in lower case.
const THINKING: [&str; 16] = [
    "analy",
    "prove",
    "compare",
    "evaluat",
    "design",
    "architect",
    "step by step",
    "derive",
    "reason",
    "trade-off",
    "optimi",
    "refactor",
    "critique",
    "strateg",
    "in depth",
    "argue",
];

/// From 0 (a greeting) to 1 (pages that want an analysis). `text` may be a part of the prompt: its length is `tokens`.
pub fn complexity(text: &str, tokens: u32) -> f32 {
    let read: String = text.chars().take(CHARS_READ_MAX).flat_map(char::to_lowercase).collect();
    let length = (tokens as f32 / TOKENS_EASY).max(1.0).ln() / (TOKENS_HARD / TOKENS_EASY).ln();
    let thinking = THINKING.iter().filter(|word| read.contains(*word)).count();
    let code = read.contains("```") || read.contains("();") || read.contains("def ") || read.contains("fn ");
    (0.6 * length.min(1.0) + 0.15 * thinking.min(3) as f32 + 0.05 * steps(&read).min(4) as f32 + if code { 0.15 } else { 0.0 })
        .min(1.0)
}

/// Numbered or dashed lines, and questions after the first.
fn steps(read: &str) -> usize {
    let listed =
        read.lines().filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '*')).count();
    listed + read.matches('?').count().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use crate::intent::PromptTokens;

    fn complexity(text: &str) -> f32 {
        super::complexity(text, PromptTokens::of(text).likely)
    }

    #[test]
    fn harder_requests_are_harder() {
        let greeting = complexity("hi");
        let question = complexity("what is the capital of Portugal?");
        let analysis = complexity(
            "analyse the trade-offs of these three designs step by step and argue for one:\n- first\n- second\n- third",
        );
        let pages = complexity(&"the committee finds, in view of the evidence presented, that ".repeat(1_000));
        assert!(greeting <= question && question < analysis, "{greeting} {question} {analysis}");
        assert!(pages > 0.5 && greeting < 0.05, "{pages} {greeting}");
        let cut = "summarise and compare these reports";
        assert!(super::complexity(cut, 40_000) >= 0.7, "sixty pages, of which routing sees a few words");
        for text in ["", "\u{0}", "????????", &"1.\n".repeat(9_999)] {
            assert!((0.0..=1.0).contains(&complexity(text)));
        }
    }
}
