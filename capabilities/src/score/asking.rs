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
const WORDS: [&str; 59] = [
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
    "how",
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
    "what makes",
    "who",
    "why",
    "write",
];

/// Beginnings that ask for a fact, which may be one that only a sensor, a document or the network knows.
const QUESTIONS: [&str; 14] =
    ["what", "what's", "when", "where", "where's", "which", "is", "are", "does", "do", "did", "was", "were", "should"];

impl Asking {
    pub fn of(text: &str) -> Self {
        let text = text.trim_start().chars().take(200).collect::<String>().to_lowercase();
        let request = without_preamble(&text);
        // One word is a greeting or a test more often than an order.
        let alone = !request.is_empty() && request.is_ascii() && !request.contains(char::is_whitespace);
        if alone || WORDS.iter().any(|beginning| begins_with(request, beginning).is_some()) {
            return Self::Words;
        }
        let asks = QUESTIONS.iter().any(|beginning| begins_with(request, beginning).is_some());
        if asks { Self::Question } else { Self::Deed }
    }

    /// By how much more similar to something that nobody offers than to any kind of text work a request must be before it is refused
    /// rather than handed to a general model. Set by hand between two dozen requests of each sort, none of them of the development set.
    pub fn margin(self) -> f32 {
        match self {
            Self::Words => 0.5,
            Self::Question => 0.1,
            Self::Deed => 0.2,
        }
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
