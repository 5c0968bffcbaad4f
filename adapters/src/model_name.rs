//! What a model's name tells about it, for engines that tell no more.
//!
//! Routing embeds the description written here, so a speciality must be spelled out in words that people use when they ask for it.
//! Names follow no standard: everything here is a guess from habit, and what an engine says itself always wins over it. A model in
//! whose name nothing is recognised is a general-purpose chat model, which is what most are.

use atmo_capabilities::capability::facts;

use crate::offer::Facts;

/// Longest name that is looked at; the rest says nothing about a model.
const NAME_CHARS_MAX: usize = 200;
/// Billions of parameters beyond which a number in a name is something else (a date, a context length).
const PARAMETERS_BILLIONS_MAX: f64 = 3_000.0;

/// What a capability is for, as the `kind` of its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Chat,
    Embedding,
    Rerank,
    SpeechToText,
    TextToSpeech,
    ImageGeneration,
}

impl Kind {
    /// The open word used in capability bodies.
    pub fn word(self) -> &'static str {
        match self {
            Self::Chat => "llm",
            Self::Embedding => "embedding",
            Self::Rerank => "rerank",
            Self::SpeechToText => "speech-to-text",
            Self::TextToSpeech => "text-to-speech",
            Self::ImageGeneration => "image-generation",
        }
    }
}

/// What was read out of a name.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelName {
    pub kind: Kind,
    /// `Qwen 2.5 Coder`, as it stands in the description.
    pub display: String,
    /// `qwen2.5`; the first word of the name.
    pub family: String,
    pub parameters_billions: Option<f64>,
    pub quantization: Option<String>,
    pub vision: bool,
    specialities: Vec<&'static str>,
}

/// Words in a name, the kind they mean. The first that is found decides.
const KINDS: &[(Kind, &[&str])] = &[
    (Kind::Rerank, &["rerank", "reranker"]),
    (Kind::SpeechToText, &["whisper", "parakeet", "canary", "asr", "stt"]),
    (Kind::TextToSpeech, &["tts", "kokoro", "piper"]),
    (Kind::ImageGeneration, &["flux", "sdxl", "diffusion"]),
    (
        Kind::Embedding,
        &["embed", "embedding", "embeddings", "bge", "nomic", "minilm", "e5", "gte", "arctic-embed", "mxbai", "paraphrase"],
    ),
];

/// Words in a name, what the model is then specialised in. All that are found count.
const SPECIALITIES: &[(&[&str], &str)] = &[
    (&["sqlcoder", "sql", "text2sql", "nsql", "duckdb"], "writing SQL queries and working with databases"),
    (
        &[
            "coder",
            "code",
            "codellama",
            "codestral",
            "codegemma",
            "codeqwen",
            "starcoder",
            "starcoder2",
            "devstral",
            "granite-code",
            "codegen",
            "wizardcoder",
            "sqlcoder",
        ],
        "programming and writing code",
    ),
    (&["math", "mathstral", "numina", "wizardmath", "wizard-math"], "mathematics: calculation, equations and proofs"),
    (
        &["med", "medical", "meditron", "medllama", "medllama2", "medgemma", "biomistral", "clinical", "medicine"],
        "medicine: symptoms, diagnoses and health questions",
    ),
    (&["law", "legal", "saul"], "law: contracts, statutes and legal questions"),
    (&["finance", "fin", "fingpt"], "finance: markets, accounting and investment questions"),
    (
        &["translate", "translation", "translator", "nllb", "madlad", "alma", "towerinstruct", "seamless"],
        "translation between languages",
    ),
    (
        &["r1", "qwq", "reasoner", "reasoning", "thinking", "think", "o1", "magistral", "deepthink", "phi4-reasoning"],
        "step-by-step reasoning over hard problems",
    ),
    (&["guard", "shield", "shieldgemma", "moderation", "llamaguard"], "content moderation: judging whether a text is safe"),
    (&["story", "storyteller", "novel", "roleplay", "rp", "fimbulvetr"], "creative writing, stories and role play"),
    (&["summarize", "summarise", "summary", "summarizer"], "summarising long texts"),
    (&["functionary", "firefunction", "xlam", "tool"], "calling tools and functions"),
];

/// Words in a name of models that also take images.
const VISION: &[&str] = &[
    "llava",
    "bakllava",
    "vl",
    "vision",
    "moondream",
    "minicpm-v",
    "pixtral",
    "internvl",
    "cogvlm",
    "paligemma",
    "multimodal",
    "vlm",
    "smolvlm",
];

/// Words that say nothing to a reader of a description.
const NOISE: &[&str] = &[
    "instruct", "chat", "it", "latest", "gguf", "hf", "base", "fp16", "bf16", "awq", "gptq", "mlx", "int4", "int8", "f16", "f32",
    "fp8",
];

impl ModelName {
    /// Reads a name as engines write it: `qwen2.5-coder:7b`, `meta-llama/Llama-3.1-8B-Instruct`, `/models/phi-4-Q4_K_M.gguf`.
    pub fn parse(name: &str) -> Self {
        let name: String = name.trim().chars().take(NAME_CHARS_MAX).collect();
        let name = name.rsplit(['/', '\\']).next().unwrap_or_default().trim_end_matches(".gguf");
        let lower = name.to_lowercase();
        let words: Vec<&str> = lower.split(['-', '_', ':', ' ', '.', '@']).filter(|word| !word.is_empty()).collect();
        Self {
            kind: kind_of(&words),
            display: display(name),
            family: lower.split(['-', '_', ':', ' ', '@']).next().unwrap_or_default().to_owned(),
            parameters_billions: parameters_in(&lower),
            quantization: quantization_in(name),
            vision: VISION.iter().any(|word| names(&words, word)),
            specialities: SPECIALITIES
                .iter()
                .filter(|(marks, _)| marks.iter().any(|m| names(&words, m)))
                .map(|(_, text)| *text)
                .collect(),
        }
    }

    /// One or two sentences about the model, for people and for the embedder.
    pub fn description(&self) -> String {
        let size = self.parameters_billions.map(|size| format!("{} ", size_words(size))).unwrap_or_default();
        match self.kind {
            Kind::Chat => self.chat_description(&size),
            Kind::Embedding => {
                self.sentence(&size, "embedding model that turns text into vectors for semantic search and similarity")
            }
            Kind::Rerank => self.sentence(&size, "reranking model that sorts search results by how well they answer a query"),
            Kind::SpeechToText => self.sentence(&size, "speech recognition model that transcribes spoken audio into text"),
            Kind::TextToSpeech => self.sentence(&size, "text-to-speech model that reads text aloud as audio"),
            Kind::ImageGeneration => self.sentence(&size, "image generation model that draws pictures from a description"),
        }
    }

    /// The facts that the name states.
    pub fn facts(&self) -> Facts {
        let mut stated = Facts::new();
        if !self.family.is_empty() {
            stated.insert(facts::FAMILY.to_owned(), self.family.clone());
        }
        if let Some(size) = self.parameters_billions {
            stated.insert(facts::PARAMETERS_BILLIONS.to_owned(), size.to_string());
        }
        if let Some(quantization) = &self.quantization {
            stated.insert(facts::QUANTIZATION.to_owned(), quantization.clone());
        }
        if self.vision {
            stated.insert(facts::VISION.to_owned(), "true".to_owned());
        }
        stated
    }

    fn chat_description(&self, size: &str) -> String {
        let sight = if self.vision { " It also sees: it describes images and answers questions about pictures." } else { "" };
        if self.specialities.is_empty() {
            let what = if self.vision { "vision and language model" } else { "general-purpose chat model" };
            return format!("{} for conversation, questions, writing and everyday tasks.{sight}", self.opening(size, what));
        }
        format!("{} specialised in {}.{sight}", self.opening(size, "language model"), self.specialities.join(", and in "))
    }

    fn sentence(&self, size: &str, what: &str) -> String {
        format!("{}.", self.opening(size, what))
    }

    fn opening(&self, size: &str, what: &str) -> String {
        let article = if format!("{size}{what}").starts_with(['a', 'e', 'i', 'o', 'u', '8']) { "an" } else { "a" };
        format!("{}, {article} {size}{what}", self.display)
    }
}

fn kind_of(words: &[&str]) -> Kind {
    let found = KINDS.iter().find(|(_, marks)| marks.iter().any(|mark| names(words, mark)));
    found.map_or(Kind::Chat, |(kind, _)| *kind)
}

/// Whether `mark` stands among the words: as a word, a word with a version behind it (`llava1`), or several words in a row.
fn names(words: &[&str], mark: &str) -> bool {
    if mark.contains('-') {
        return words.windows(2).any(|pair| pair.join("-") == mark);
    }
    // `qwen2.5vl` falls into `qwen2` and `5vl`.
    words
        .iter()
        .any(|word| *word == mark || word.trim_start_matches(|c: char| c.is_ascii_digit()) == mark || versioned(word, mark))
}

/// `sqlcoder2` is `sqlcoder`. Short marks must match whole: `o12` is not `o1`.
fn versioned(word: &str, mark: &str) -> bool {
    let tail = word.strip_prefix(mark);
    mark.len() > 3
        && tail.is_some_and(|tail| !tail.is_empty() && tail.trim_start_matches('v').bytes().all(|b| b.is_ascii_digit()))
}

/// `7b`, `0.5b`, `8x7b` (taken as their product), `350m`.
fn parameters_in(lower: &str) -> Option<f64> {
    lower.split(['-', '_', ':', ' ', '@', '/']).find_map(parameters_of_word)
}

/// Billions of parameters of one word of a name or of an engine's `parameter_size` (`7.6B`, `137M`).
pub fn parameters_of_word(word: &str) -> Option<f64> {
    let word = word.to_lowercase();
    let (number, scale) = match (word.strip_suffix('b'), word.strip_suffix('m')) {
        (Some(number), _) => (number, 1.0),
        (_, Some(number)) => (number, 1e-3),
        _ => return None,
    };
    // `8x7b` is eight experts of seven; `a3b` is the active part of a larger whole, which is named before it.
    let size = match number.split_once('x') {
        Some((experts, each)) => plain_number(experts)? * plain_number(each)?,
        None => plain_number(number.strip_prefix('e').unwrap_or(number))?,
    };
    let billions = (size * scale * 1e6).round() / 1e6;
    (billions > 0.0 && billions <= PARAMETERS_BILLIONS_MAX).then_some(billions)
}

fn plain_number(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

/// `Q4_K_M`, `IQ3_XS`, `F16`, `AWQ` as they stand in file names and tags.
fn quantization_in(name: &str) -> Option<String> {
    let upper = name.to_uppercase();
    upper.split(['-', ':', '.', '@']).find(|part| is_quantization(part)).map(str::to_owned)
}

fn is_quantization(part: &str) -> bool {
    let digits_then_underscore = |rest: &str| rest.len() > 1 && rest.as_bytes()[0].is_ascii_digit() && rest.as_bytes()[1] == b'_';
    let numbered = part.strip_prefix("IQ").or_else(|| part.strip_prefix('Q')).is_some_and(digits_then_underscore);
    numbered || matches!(part, "F16" | "BF16" | "FP16" | "F32" | "FP8" | "AWQ" | "GPTQ" | "INT4" | "INT8")
}

/// `qwen2.5-coder:7b` as a reader would write it: `Qwen 2.5 Coder`.
fn display(name: &str) -> String {
    let words = name.split(['-', '_', ':', ' ', '@']).filter(|word| shown(word));
    let text = words.map(spaced_capital).collect::<Vec<_>>().join(" ");
    if text.is_empty() { name.to_owned() } else { text }
}

fn shown(word: &str) -> bool {
    let lower = word.to_lowercase();
    !word.is_empty() && !NOISE.contains(&lower.as_str()) && parameters_of_word(&lower).is_none() && !is_quantization_word(&lower)
}

/// The pieces that a quantization falls into when a name is cut at underscores: `q4`, `k`, `m`.
fn is_quantization_word(lower: &str) -> bool {
    let numbered = lower
        .strip_prefix("iq")
        .or_else(|| lower.strip_prefix('q'))
        .is_some_and(|rest| rest.len() == 1 && rest.as_bytes()[0].is_ascii_digit());
    numbered || matches!(lower, "k" | "m" | "s" | "xs" | "xxs" | "0")
}

/// `qwen2.5` becomes `Qwen 2.5`, `phi` becomes `Phi`; `GPT` stays.
fn spaced_capital(word: &str) -> String {
    let digits = word.find(|c: char| c.is_ascii_digit()).filter(|at| *at > 1);
    let (letters, number) = word.split_at(digits.unwrap_or(word.len()));
    let mut chars = letters.chars();
    let first: String = chars.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    let gap = if number.is_empty() { "" } else { " " };
    format!("{first}{}{gap}{number}", chars.as_str())
}

fn size_words(billions: f64) -> String {
    if billions >= 1.0 {
        format!("{billions}-billion-parameter")
    } else {
        format!("{}-million-parameter", (billions * 1_000.0).round())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specialities_are_spelled_out() {
        for (name, description) in [
            (
                "qwen2.5-coder:7b",
                "Qwen 2.5 Coder, a 7-billion-parameter language model specialised in programming and writing code.",
            ),
            (
                "defog/sqlcoder-8b",
                "Sqlcoder, an 8-billion-parameter language model specialised in writing SQL queries and working with databases, and in \
                 programming and writing code.",
            ),
            (
                "meta-llama/Llama-3.1-8B-Instruct",
                "Llama 3.1, an 8-billion-parameter general-purpose chat model for conversation, questions, writing and everyday tasks.",
            ),
            (
                "nomic-embed-text:latest",
                "Nomic Embed Text, an embedding model that turns text into vectors for semantic search and similarity.",
            ),
            (
                "llava:13b",
                "Llava, a 13-billion-parameter vision and language model for conversation, questions, writing and everyday tasks. It also \
                 sees: it describes images and answers questions about pictures.",
            ),
            ("whisper-large-v3", "Whisper Large V3, a speech recognition model that transcribes spoken audio into text."),
        ] {
            assert_eq!(ModelName::parse(name).description(), description, "{name}");
        }
    }

    #[test]
    fn each_speciality_has_its_word() {
        for (name, word) in [
            ("mathstral:7b", "mathematics"),
            ("meditron:7b", "medicine"),
            ("deepseek-r1:14b", "reasoning"),
            ("towerinstruct-7b", "translation"),
            ("duckdb-nsql:7b", "SQL"),
            ("starcoder2:3b", "code"),
            ("saul-7b", "law"),
            ("llama-guard3:8b", "moderation"),
        ] {
            let description = ModelName::parse(name).description();
            assert!(description.contains(word), "{name}: {description}");
            assert!(!description.contains("general-purpose"), "{name}: {description}");
        }
    }

    #[test]
    fn sizes_are_read_and_other_numbers_are_not() {
        for (name, size) in [
            ("qwen2.5:0.5b", Some(0.5)),
            ("mixtral:8x7b", Some(56.0)),
            ("smollm2:135m", Some(0.135)),
            ("Qwen3-30B-A3B-Instruct-2507", Some(30.0)),
            ("gemma3n:e4b", Some(4.0)),
            ("gpt-4o", None),
            ("phi-4", None),
            ("claude-3-5-sonnet-20241022", None),
            ("x:b", None),
            ("99999999b", None),
        ] {
            assert_eq!(ModelName::parse(name).parameters_billions, size, "{name}");
        }
    }

    #[test]
    fn kinds_quantizations_and_sight() {
        for (name, kind) in [
            ("bge-m3", Kind::Embedding),
            ("intfloat/e5-large-v2", Kind::Embedding),
            ("all-minilm:33m", Kind::Embedding),
            ("bge-reranker-v2-m3", Kind::Rerank),
            ("kokoro-82m", Kind::TextToSpeech),
            ("qwen3:8b", Kind::Chat),
            ("", Kind::Chat),
        ] {
            assert_eq!(ModelName::parse(name).kind, kind, "{name}");
        }
        let name = ModelName::parse("/models/Qwen2.5-VL-7B-Instruct-Q4_K_M.gguf");
        assert_eq!(name.quantization.as_deref(), Some("Q4_K_M"));
        assert!(name.vision);
        assert_eq!(name.display, "Qwen 2.5 VL");
        assert_eq!(name.facts().get(facts::PARAMETERS_BILLIONS).map(String::as_str), Some("7"));
        assert!(!ModelName::parse("revolver-7b").vision);
    }

    #[test]
    fn hostile_names_are_only_names() {
        for name in ["\u{0}\u{1}", "💥💥💥", "::::", "////", "b", "q", "-b-m-", &"é7b-".repeat(5_000)] {
            assert!(ModelName::parse(name).description().len() < 2_000, "{name:.40}");
        }
    }
}
