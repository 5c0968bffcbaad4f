//! Which sets a capability belongs to, read from what its owner calls it.
//!
//! Three kinds of evidence, strongest first: the word of its type, words of the model's name that mean one thing (`qwen2.5-coder`,
//! `bge-reranker`), words and phrases of the description. Pure text, no model: it runs before anything is embedded.

use atmo_protocol::record::EXEMPLAR_SETS_MAX;

use super::SetId;

const TYPE_WEIGHT: u32 = 3;
const NAME_WEIGHT: u32 = 3;
/// Description words of one set that count; more say nothing new.
const WORDS_COUNTED_MAX: u32 = 3;
/// Characters of a description that are read.
const DESCRIPTION_CHARS_MAX: usize = 1_000;

/// The sets that a type, a name and a description speak of, best first, at most [`EXEMPLAR_SETS_MAX`]; `general` too for a language
/// model that says nothing special of itself, or only that it sees.
pub fn recognise(kind: &str, name: &str, description: &str) -> Vec<SetId> {
    let text = Text::new(kind, name, description);
    let mut found: Vec<(u32, SetId)> =
        SetId::all().map(|set| (text.evidence(set), set)).filter(|(weight, _)| *weight > 0).collect();
    found.sort_by_key(|(weight, set)| (std::cmp::Reverse(*weight), *set));
    let strongest = found.first().map_or(0, |(weight, _)| *weight);
    let mut sets: Vec<SetId> =
        found.into_iter().filter(|(weight, _)| weight * 2 >= strongest).map(|(_, set)| set).take(EXEMPLAR_SETS_MAX).collect();
    let sees = sets.first().is_some_and(|set| set.id() == SetId::VISION);
    if text.is_language_model() && (sees || sets.iter().all(|set| !set.specialised())) {
        let general = SetId::parse(SetId::GENERAL).filter(|general| !sets.contains(general));
        sets.truncate(EXEMPLAR_SETS_MAX - 1);
        sets.extend(general);
    }
    sets
}

/// What is read, in lower case.
struct Text {
    kind: String,
    name: String,
    /// Name and description as words, one space before and after each.
    words: String,
}

impl Text {
    fn new(kind: &str, name: &str, description: &str) -> Self {
        let described: String = description.chars().take(DESCRIPTION_CHARS_MAX).collect();
        Self { kind: kind.trim().to_lowercase(), name: name.to_lowercase(), words: spaced(&format!("{name} {described}")) }
    }

    fn is_language_model(&self) -> bool {
        matches!(self.kind.as_str(), "llm" | "chat")
    }

    fn evidence(&self, set: SetId) -> u32 {
        let set = set.set();
        let by_kind = set.kinds.contains(&self.kind);
        let by_name = set.names.iter().any(|pattern| names(&self.name, pattern));
        let by_words = set.words.iter().filter(|phrase| self.speaks_of(phrase)).count() as u32;
        u32::from(by_kind) * TYPE_WEIGHT + u32::from(by_name) * NAME_WEIGHT + by_words.min(WORDS_COUNTED_MAX)
    }

    fn speaks_of(&self, phrase: &str) -> bool {
        match phrase.strip_suffix('*') {
            Some(beginning) => self.words.contains(spaced(beginning).trim_end()),
            None => self.words.contains(&spaced(phrase)),
        }
    }
}

/// `text` in lower case with everything but letters and digits as one space, and a space at both ends.
fn spaced(text: &str) -> String {
    let mut spaced = String::from(" ");
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            spaced.push(c);
        } else if !spaced.ends_with(' ') {
            spaced.push(' ');
        }
    }
    if !spaced.ends_with(' ') {
        spaced.push(' ');
    }
    spaced
}

/// Whether a word of `name` is `pattern`: with a number behind it, or with any ending where the pattern closes with `*`.
fn names(name: &str, pattern: &str) -> bool {
    let (beginning, any_ending) = pattern.strip_suffix('*').map_or((pattern, false), |beginning| (beginning, true));
    name.match_indices(beginning).any(|(start, _)| {
        let starts_a_word = !name[..start].ends_with(|c: char| c.is_alphanumeric());
        let ends_a_word = any_ending || !name[start + beginning.len()..].starts_with(char::is_alphabetic);
        starts_a_word && ends_a_word
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(kind: &str, name: &str, description: &str) -> Vec<&'static str> {
        recognise(kind, name, description).into_iter().map(SetId::id).collect()
    }

    #[test]
    fn names_of_real_models_are_recognised() {
        for (kind, name, set) in [
            ("llm", "qwen2.5-coder:7b", "code"),
            ("llm", "deepseek-coder-v2", "code"),
            ("llm", "codellama:13b", "code"),
            ("llm", "sqlcoder:15b", "sql"),
            ("llm", "llava:13b", "vision"),
            ("llm", "Qwen/Qwen2.5-VL-7B-Instruct", "vision"),
            ("audio", "openai/whisper-large-v3", "speech-to-text"),
            ("rerank", "BAAI/bge-reranker-v2-m3", "rerank"),
            ("embedding", "nomic-embed-text", "embedding"),
            ("llm", "llama-guard3:8b", "moderation"),
            ("llm", "mathstral", "math"),
            ("image", "flux.1-dev", "image-generation"),
            ("llm", "deepseek-r1:14b", "reasoning"),
            ("llm", "meditron:7b", "medicine"),
            ("other", "amazon/chronos-t5-large", "forecasting"),
        ] {
            assert_eq!(ids(kind, name, "").first(), Some(&set), "{kind} {name}: {:?}", ids(kind, name, ""));
        }
    }

    #[test]
    fn an_ordinary_language_model_is_general() {
        for name in
            ["llama3.1:8b", "qwen2.5:7b", "phi3:medium", "mistral-small", "gemma3", "final-fine-tune", "smollm2:135m-instruct"]
        {
            assert!(ids("llm", name, "").contains(&"general"), "{name}: {:?}", ids("llm", name, ""));
        }
        assert!(ids("gadget", "x", "").is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read(kind in any::<String>(), name in any::<String>(), description in any::<String>()) {
            prop_assert!(recognise(&kind, &name, &description).len() <= EXEMPLAR_SETS_MAX);
        }
    }
}
