//! How a request is put: whether its first words ask for words, ask a question, or ask for a deed.
//!
//! Meaning alone confuses talking about a thing with doing it: "write a poem about the sea" lies nearer to examples of image generation
//! than to most examples of writing, and "draft an email" nearer to sending mail. Who begins with a verb of speech wants text, and a
//! general model can give it; only overwhelming evidence that something else is meant counts against that. Rules for English, where the
//! embedding model is at home; anything else counts as a deed, which is what meaning alone would say.

/// What the beginning of a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asking {
    /// "write ...", "explain ...", "why ..."
    Words,
    /// "what is ...", "which ...", "when ..."
    Question,
    /// "turn on ...", "play ...", and whatever is not recognised.
    Deed,
}

/// What people say before they say what they want.
const PREAMBLES: [&str; 18] = [
    "please",
    "can you",
    "could you",
    "would you",
    "will you",
    "hey",
    "hi",
    "hello",
    "ok",
    "okay",
    "now",
    "kindly",
    "i want you to",
    "i need you to",
    "i'd like you to",
    "i would like you to",
    "help me to",
    "help me",
];

/// Beginnings that ask for text.
const WORDS: [&str; 55] = [
    "analyse",
    "analyze",
    "answer",
    "argue",
    "brainstorm",
    "calculate",
    "classify",
    "comment",
    "compare",
    "complete",
    "compose",
    "compute",
    "continue",
    "correct",
    "count",
    "critique",
    "define",
    "describe",
    "discuss",
    "draft",
    "elaborate",
    "evaluate",
    "explain",
    "finish",
    "give",
    "imagine",
    "improve",
    "interpret",
    "justify",
    "list",
    "name",
    "outline",
    "paraphrase",
    "plan",
    "proofread",
    "prove",
    "recommend",
    "refactor",
    "rephrase",
    "reply",
    "review",
    "rewrite",
    "say",
    "shorten",
    "simplify",
    "solve",
    "spell",
    "suggest",
    "summarise",
    "summarize",
    "teach",
    "tell",
    "think",
    "translate",
    "write",
];

/// Beginnings that ask for a fact, which may be one that only a sensor, a document or the network knows.
const QUESTIONS: [&str; 15] =
    ["what", "what's", "when", "where", "where's", "which", "is", "are", "does", "do", "did", "was", "were", "should", "how"];

/// Beginnings that ask how the world is: a model knows, unless they ask of the here and now. "How many", "how full" and the like are for
/// somebody to count or to measure.
const EXPLANATIONS: [&str; 14] = [
    "how do",
    "how does",
    "how did",
    "how to",
    "how can",
    "how could",
    "how come",
    "how would",
    "how should",
    "how is",
    "how are",
    "what makes",
    "who",
    "why",
];

/// What speaks of the here and now.
const HERE_AND_NOW: [&str; 12] = [
    "right now",
    "just now",
    "at the moment",
    "this minute",
    "this very minute",
    "currently",
    "today",
    "tonight",
    "yesterday",
    "this morning",
    "this week",
    "our",
];

/// What says that words are meant, whatever the verb: "paint me a sunset in words".
const IN_WORDS: [&str; 5] = ["in words", "in writing", "in a sentence", "as text", "as a poem"];

impl Asking {
    pub fn of(text: &str) -> Self {
        let text = text.trim_start().chars().take(200).collect::<String>().to_lowercase();
        let request = without_preamble(&text);
        let begins = |beginnings: &[&str]| beginnings.iter().any(|beginning| begins_with(request, beginning).is_some());
        if says(request, &IN_WORDS) {
            return Self::Words;
        }
        if begins(&EXPLANATIONS) {
            return if says(request, &HERE_AND_NOW) { Self::Question } else { Self::Words };
        }
        // One word is a greeting or a test more often than an order.
        let alone = !request.is_empty() && request.is_ascii() && !request.contains(char::is_whitespace);
        if alone || begins(&WORDS) {
            return Self::Words;
        }
        if begins(&QUESTIONS) { Self::Question } else { Self::Deed }
    }
}

fn without_preamble(text: &str) -> &str {
    let mut rest = text;
    while let Some(shorter) = PREAMBLES.iter().find_map(|preamble| begins_with(rest, preamble)) {
        rest = shorter;
    }
    rest
}

/// What follows `beginning` in `text`, if that is how it begins, as whole words.
fn begins_with<'a>(text: &'a str, beginning: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(beginning)?;
    let word_ends = rest.chars().next().is_none_or(|c| !c.is_alphanumeric() && c != '\'');
    word_ends.then(|| rest.trim_start_matches(|c: char| !c.is_alphanumeric()))
}

/// Whether one of `phrases` stands in `text`, as whole words.
fn says(text: &str, phrases: &[&str]) -> bool {
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let stands = |phrase: &&str| {
        let phrase: Vec<&str> = phrase.split(' ').collect();
        words.windows(phrase.len()).any(|window| window == phrase)
    };
    phrases.iter().any(stands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_words_tell() {
        for (text, asking) in [
            ("Write a poem about the sea", Asking::Words),
            ("please, could you describe the ocean", Asking::Words),
            ("Hey! Can you explain how rainbows form?", Asking::Words),
            ("how does a microphone work", Asking::Words),
            ("what makes a good photograph", Asking::Words),
            ("paint me a sunset in words", Asking::Words),
            ("who won the world cup in 1998", Asking::Words),
            ("who has the keys to our office", Asking::Question),
            ("why is printer 2 taking so long tonight", Asking::Question),
            ("how many steps did I walk", Asking::Question),
            ("What's the weather right now", Asking::Question),
            ("which room is the warmest", Asking::Question),
            ("turn on the living room lights", Asking::Deed),
            ("please lock the front door", Asking::Deed),
            ("writers' block cure", Asking::Deed),
            ("ネコの絵を描いて", Asking::Deed),
            ("ping", Asking::Words),
            ("hello", Asking::Deed),
            ("", Asking::Deed),
        ] {
            assert_eq!(Asking::of(text), asking, "{text:?}");
        }
    }
}
