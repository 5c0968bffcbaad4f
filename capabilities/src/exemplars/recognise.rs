//! Which sets a capability belongs to, read from what its owner calls it.
//!
//! Three kinds of evidence, strongest first: the word of its type, words of the model's name that mean one thing (`qwen2.5-coder`,
//! `bge-reranker`), words and phrases of the description. Where the description is embedded, how near it lies to what owners of each kind
//! say counts beside them, so that a thing described in words that stand in no list still finds its kinds.

use atmo_protocol::record::EXEMPLAR_SETS_MAX;

use super::SetId;

const TYPE_WEIGHT: u32 = 3;
const NAME_WEIGHT: u32 = 3;
/// Description words of one set that count; more say nothing new.
const WORDS_COUNTED_MAX: u32 = 3;
/// Words of evidence beyond which more say nothing new: a type and a name.
const EVIDENCE_COUNTED_MAX: u32 = 6;
/// What one word of evidence counts for beside the similarity of descriptions.
const WORD_SIMILARITY: f32 = 0.2 / 3.0;
/// A set without a word in its favour is one of a capability's kinds if it is this near to the best.
const NEAR_BEST: f32 = 0.15;
/// Characters of a description that are read.
const DESCRIPTION_CHARS_MAX: usize = 1_000;

/// The sets that a type, a name and a description speak of, best first, at most [`EXEMPLAR_SETS_MAX`]. `near` says for each set how similar
/// the description is to what owners say of such things; without it words alone tell. `general` is among them for a language model that says
/// nothing special of itself, or only that it sees, and for no other.
pub fn recognise(kind: &str, name: &str, description: &str, near: Option<&[f32]>) -> Vec<SetId> {
    let text = Text::new(kind, name, description);
    let general = text.is_general();
    let mut found: Vec<Found> = SetId::all()
        .filter(|set| set.id() != SetId::GENERAL || general)
        .map(|set| Found::new(&text, set, near.and_then(|near| near.get(set.position()).copied())))
        .filter(|found| found.similarity > 0.0)
        .collect();
    found.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.set.cmp(&b.set)));
    let enough = found.first().map_or(0.0, |best| best.similarity - NEAR_BEST);
    let speak = |found: &Found| found.similarity >= enough || found.by_words;
    let mut sets: Vec<SetId> = found.into_iter().take(EXEMPLAR_SETS_MAX).filter(speak).map(|found| found.set).collect();
    if general && let Some(set) = SetId::parse(SetId::GENERAL).filter(|set| !sets.contains(set)) {
        sets.truncate(EXEMPLAR_SETS_MAX - 1);
        sets.push(set);
    }
    sets
}

/// One set and how much is in its favour.
struct Found {
    set: SetId,
    similarity: f32,
    /// Whether a word speaks of it.
    by_words: bool,
}

impl Found {
    fn new(text: &Text, set: SetId, near: Option<f32>) -> Self {
        let words = text.evidence(set);
        let by_words = words > 0;
        let words = words.min(EVIDENCE_COUNTED_MAX) as f32 * WORD_SIMILARITY;
        Self { set, similarity: near.unwrap_or(0.0) + words, by_words }
    }
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

    /// Whether it is a language model for anything: it says so more than it says anything special, or says nothing, or only that it sees.
    fn is_general(&self) -> bool {
        let special = || SetId::all().filter(|set| set.specialised()).map(|set| (self.evidence(set), set));
        let (strongest, set) = special().max_by_key(|(evidence, _)| *evidence).map_or((0, None), |(most, set)| (most, Some(set)));
        let general = SetId::parse(SetId::GENERAL).map_or(0, |general| self.evidence(general));
        let sees = set.is_some_and(|set| set.id() == SetId::VISION);
        is_language_model(&self.kind) && (sees || strongest < NAME_WEIGHT && strongest <= general)
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

/// Whether this type is that of a language model.
pub fn is_language_model(kind: &str) -> bool {
    let kind = kind.trim().to_lowercase();
    matches!(kind.as_str(), "llm" | "chat" | "slm" | "language-model" | "text-generation" | "instruct")
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
        recognise(kind, name, description, None).into_iter().map(SetId::id).collect()
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
            for near in [None, Some(vec![f32::NAN; 7]), Some(vec![0.5; 500])] {
                prop_assert!(recognise(&kind, &name, &description, near.as_deref()).len() <= EXEMPLAR_SETS_MAX);
            }
        }
    }
}
