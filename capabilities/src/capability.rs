//! What a capability is to routing: a wire body with its facts read, its kinds known and its vectors ready to compare.
//!
//! A [`CapabilityBody`] comes from another machine, so nothing in it is trusted to be well-formed: a fact that does not parse is absent,
//! a vector that is not a unit vector of our embedding space is left out and counted. Reading happens once per distinct body.

use atmo_protocol::record::{BODY_BYTES_MAX, BodyVector, CapabilityBody, Cost, EXEMPLAR_SETS_MAX, OWN_VECTORS_MAX};
use atmo_protocol::{BodyHash, Slug, codec};

use crate::embed::{EmbedError, Embedder, EmbeddingSpace, UnitVector, quantise};
use crate::exemplars::{self, SetId};
use crate::index::Query;
use crate::score;
use crate::score::price::Energy;
use crate::score::words::Words;

/// Characters of what is embedded for a body itself: more than the embedder reads tells nothing.
const DESCRIBED_CHARS_MAX: usize = 1_000;
/// The same in bytes: a description stands three times in a body, which is to have room for its vectors too.
const DESCRIBED_BYTES_MAX: usize = 1_600;
/// Words below which a description needs the name beside it.
const DESCRIPTION_WORDS_MIN: usize = 3;
/// Facts in words that say nothing of what a thing is for.
const UNTELLING: [&str; 2] = [facts::FAMILY, facts::QUANTIZATION];

/// The keys of [`CapabilityBody::facts`] that routing understands. Values are text; a fact that does not parse is as good as absent.
pub mod facts {
    /// Tokens a request and its answer may take together.
    pub const CONTEXT_LENGTH: &str = "context_length";
    /// Billions of parameters, as a decimal number.
    pub const PARAMETERS_BILLIONS: &str = "parameters_b";
    /// Model family: `qwen2`, `llama`.
    pub const FAMILY: &str = "family";
    /// `Q4_K_M`, `F16`.
    pub const QUANTIZATION: &str = "quantization";
    /// `true` where the model can call tools.
    pub const TOOLS: &str = "tools";
    /// `true` where the model takes images.
    pub const VISION: &str = "vision";
    /// `true` for the built-in demonstration model: the lowest quality there is.
    pub const DEMONSTRATION: &str = "demonstration";
    /// What its owner thinks of it, from 0 to 1.
    pub const QUALITY: &str = "quality";
    /// Length of the vectors an embedding model gives.
    pub const DIMENSIONS: &str = "dimensions";
    /// Joules that 1,000 written tokens take, as a decimal number.
    pub const ENERGY_JOULES_PER_1K: &str = "energy_joules_per_1k";
    /// Watts that are drawn while tokens are written, as a decimal number: for who does not know the joules.
    pub const ENERGY_WATTS: &str = "energy_watts";
    /// Millionths of a currency unit that a kilowatt-hour costs, as a whole number.
    pub const ENERGY_MICROS_PER_KWH: &str = "energy_micros_per_kwh";
    /// The most joules or watts that are believed.
    pub const ENERGY_MAX: f32 = 1e7;
}

/// Something a backend can do on this machine, before it is embedded and announced.
#[derive(Clone, PartialEq, Debug)]
pub struct Offer {
    pub slug: Slug,
    /// Without vectors: they are made where the embedder is.
    pub body: CapabilityBody,
    pub cost: Cost,
    /// Requests executed at once before others wait.
    pub slots: u16,
    /// Of the documents that it answers from, where its engine was asked. No part of the body: they leave the node only where its owner
    /// wants that.
    pub titles: Vec<String>,
}

/// One distinct body, read. Shared by everyone who offers the same thing.
#[derive(Clone, PartialEq, Debug)]
pub struct Capability {
    pub hash: BodyHash,
    /// The open word of the body: `llm`, `embedding`, `rag`, ...
    pub kind: String,
    /// What users call the model: `qwen2.5:7b`.
    pub name: String,
    pub description: String,
    pub facts: Facts,
    /// Exemplar sets that stand for it: those it names, or those recognised from its name and description.
    pub sets: Vec<SetId>,
    /// Its own vectors in our embedding space: its description first, turned towards the requests it stands for.
    pub vectors: Vec<UnitVector>,
    /// The words of its type, name, description and facts.
    pub words: Words,
    /// Announced vectors that were malformed, of another space or too many.
    pub vectors_refused: usize,
}

/// The facts that routing weighs. `None` is "not said", which is not "no".
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Facts {
    pub context_length: Option<u32>,
    pub parameters_billions: Option<f32>,
    pub family: Option<String>,
    pub quantization: Option<String>,
    pub tools: Option<bool>,
    pub vision: Option<bool>,
    pub demonstration: bool,
    pub quality: Option<f32>,
    pub dimensions: Option<u32>,
    pub energy: Energy,
}

impl Capability {
    /// Reads a body. Never fails: what cannot be used is left out, and a body without usable vectors is still known by its kinds.
    pub fn read(hash: BodyHash, body: &CapabilityBody, space: &EmbeddingSpace) -> Self {
        let own = body.own_vectors();
        let mut vectors: Vec<UnitVector> =
            own.iter().take(OWN_VECTORS_MAX).filter_map(|own| space.read(&own.space, &own.vector).ok()).collect();
        let vectors_refused = own.len() - vectors.len();
        let described = own.first().and_then(|own| space.read(&own.space, &own.vector).ok());
        if let Some(described) = &described {
            let is_named = own.get(1).is_some_and(|own| own.text == named(body)) && vectors.len() > 1;
            let named = is_named.then(|| vectors.remove(1));
            vectors[0] = space.turned(described, named.as_ref());
        }
        Self {
            hash,
            kind: body.kind.clone(),
            name: body.name.clone(),
            description: body.description.clone(),
            facts: Facts::read(&body.facts),
            sets: sets_of(body, described.as_ref(), space),
            words: Words::of(&told(body)),
            vectors_refused,
            vectors,
        }
    }

    /// Whether this is a chat model for anything, which an ordinary request may fall back to.
    pub fn is_general(&self) -> bool {
        self.can_chat() && self.sets.iter().any(|set| set.id() == SetId::GENERAL)
    }

    /// Whether it is a language model, for anything or for something.
    pub fn is_language_model(&self) -> bool {
        exemplars::recognise::is_language_model(&self.kind)
    }

    /// What kind of request it answers, by its type.
    pub fn task(&self) -> Task {
        match self.kind.trim().to_lowercase().as_str() {
            "llm" | "chat" | "slm" | "language-model" | "text-generation" | "instruct" | "rag" | "agent" | "vision-llm" => {
                Task::Chat
            }
            "embedding" | "embeddings" => Task::Embed,
            "rerank" | "reranker" | "cross-encoder" => Task::Rerank,
            "speech-to-text" | "asr" | "stt" | "transcription" => Task::Transcribe,
            _ => Task::Other,
        }
    }

    /// Whether it answers chat requests.
    pub fn can_chat(&self) -> bool {
        self.task() == Task::Chat
    }
}

/// What kind of request a capability answers through the endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Task {
    Chat,
    Embed,
    Rerank,
    Transcribe,
    /// Nothing that the endpoint has a path for.
    Other,
}

/// `body` as it is announced: with its texts placed by `embedder`, and without the last of its owner's texts where it would be larger than
/// a body may be. Who reads it recognises its kinds, unless it names some.
pub fn embedded(mut body: CapabilityBody, embedder: &dyn Embedder) -> Result<CapabilityBody, EmbedError> {
    body.description.truncate(body.description.floor_char_boundary(DESCRIBED_BYTES_MAX));
    let texts = own_texts(&body);
    let vectors = embedder.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>())?;
    let placed =
        |(text, vector): (String, &Vec<f32>)| BodyVector { text, space: embedder.space().to_owned(), vector: quantise(vector) };
    let mut own: Vec<BodyVector> = texts.into_iter().zip(&vectors).map(placed).collect();
    body.set_own_vectors(own.clone());
    while codec::encode(&body).len() > BODY_BYTES_MAX && own.pop().is_some() {
        body.set_own_vectors(own.clone());
    }
    Ok(body)
}

/// The texts that stand for a body: what it says of itself, the same with its name, then the texts its owner gave it.
fn own_texts(body: &CapabilityBody) -> Vec<String> {
    [described(body), named(body)].into_iter().chain(given_texts(body)).take(OWN_VECTORS_MAX).collect()
}

/// The texts that stand for a body beside what it says of itself: those of its owner.
pub fn given_texts(body: &CapabilityBody) -> Vec<String> {
    let said = [described(body), named(body)];
    body.own_vectors().into_iter().map(|own| own.text).filter(|text| !said.contains(text)).collect()
}

/// Name and description.
fn named(body: &CapabilityBody) -> String {
    shortened(&format!("{}: {}", body.name, body.description))
}

/// Everything that a body says of itself.
fn told(body: &CapabilityBody) -> String {
    shortened(&format!("{} {}", body.name, described(body)))
}

/// With single spaces, and no more than is read.
fn shortened(text: &str) -> String {
    let mut text: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(DESCRIBED_CHARS_MAX).collect();
    text.truncate(text.floor_char_boundary(DESCRIBED_BYTES_MAX));
    text
}

/// What is embedded for a body itself: its type, its description and those of its facts that are words. A name only where there is nothing
/// else: most are made up.
fn described(body: &CapabilityBody) -> String {
    let name = if body.description.split_whitespace().count() < DESCRIPTION_WORDS_MIN { body.name.as_str() } else { "" };
    let words =
        body.facts.iter().filter(|(key, value)| !UNTELLING.contains(&key.as_str()) && value.contains(char::is_alphabetic));
    let words = words.filter(|(_, value)| !matches!(value.as_str(), "true" | "false"));
    let facts: Vec<String> =
        words.map(|(key, value)| format!("{key} {}", value.replace(['[', ']', '{', '}', '"'], "").replace(',', ", "))).collect();
    shortened(&format!("{} {name} {} {}", body.kind, body.description, facts.join("; ")))
}

/// The sets a body names, where this binary has them; otherwise what its kind, name and description say.
fn sets_of(body: &CapabilityBody, described: Option<&UnitVector>, space: &EmbeddingSpace) -> Vec<SetId> {
    let mut named: Vec<SetId> = Vec::new();
    for set in body.exemplars.iter().take(EXEMPLAR_SETS_MAX).filter_map(|id| SetId::parse(id)) {
        if !named.contains(&set) {
            named.push(set);
        }
    }
    if !named.is_empty() {
        return named;
    }
    let near = described.and_then(|described| Query::new(&described.to_f32(), space)).map(|query| {
        let evidence = space.abouts().scan(&query, score::weigh);
        evidence.into_iter().map(|about| score::similarity(score::own_weight(about))).collect::<Vec<f32>>()
    });
    exemplars::recognise(&body.kind, &body.name, &body.description, near.as_deref())
}

impl Facts {
    /// Reads the facts that routing knows; the last of a repeated key counts.
    pub fn read(facts: &[(String, String)]) -> Self {
        let mut read = Self::default();
        for (key, value) in facts {
            read.set(key, value.trim());
        }
        read
    }

    fn set(&mut self, key: &str, value: &str) {
        match key {
            facts::CONTEXT_LENGTH => self.context_length = value.parse().ok(),
            facts::PARAMETERS_BILLIONS => {
                self.parameters_billions = value.parse().ok().filter(|size: &f32| *size > 0.0 && size.is_finite())
            }
            facts::FAMILY => self.family = Some(value.to_owned()),
            facts::QUANTIZATION => self.quantization = Some(value.to_owned()),
            facts::TOOLS => self.tools = value.parse().ok(),
            facts::VISION => self.vision = value.parse().ok(),
            facts::DEMONSTRATION => self.demonstration = value == "true",
            facts::QUALITY => self.quality = value.parse().ok().filter(|share| (0.0..=1.0).contains(share)),
            facts::DIMENSIONS => self.dimensions = value.parse().ok(),
            facts::ENERGY_JOULES_PER_1K => self.energy.joules_per_1k = amount(value),
            facts::ENERGY_WATTS => self.energy.watts = amount(value),
            facts::ENERGY_MICROS_PER_KWH => self.energy.micros_per_kwh = value.parse().unwrap_or(0),
            _ => {}
        }
    }
}

/// Joules or watts; 0, as if nothing was said, for what cannot be.
fn amount(value: &str) -> f32 {
    value.parse().ok().filter(|amount| (0.0..=facts::ENERGY_MAX).contains(amount)).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use atmo_protocol::record::{OWN_TEXTS_MAX, QuantizedVector};
    use atmo_protocol::wire::Body;

    use super::*;
    use crate::embed::scripted::ScriptedEmbedder;

    /// A body with this description and, yet to be placed, these texts of its owner's.
    fn body(description: &str, texts: &[String]) -> CapabilityBody {
        let unplaced = |text: &String| BodyVector {
            text: text.clone(),
            space: String::new(),
            vector: QuantizedVector { scale: 0.0, values: Vec::new() },
        };
        CapabilityBody {
            kind: "llm".into(),
            name: "m".into(),
            description: description.to_owned(),
            facts: Vec::new(),
            exemplars: Vec::new(),
            vectors: texts.iter().map(unplaced).collect(),
            extensions: Vec::new(),
        }
    }

    #[test]
    fn four_texts_of_the_owners_come_through_and_no_more() {
        let given =
            ["draft a contract", "review this clause", "sum up a lease", "find the notice period", "a fifth"].map(String::from);
        let made = embedded(body("a lawyer's assistant", &given), &ScriptedEmbedder).unwrap();
        assert_eq!(given_texts(&made), given[..OWN_TEXTS_MAX]);
        let sent = Body::new(made.into()).unwrap();
        let read = Capability::read(sent.hash, &sent.body, &EmbeddingSpace::scripted());
        assert_eq!((read.vectors.len(), read.vectors_refused), (1 + OWN_TEXTS_MAX, 0));
    }

    #[test]
    fn whatever_an_owner_writes_fits_into_a_body() {
        let long = "ネコ ".repeat(600);
        let given = [1, 2, 3, 4].map(|number| format!("{number} {}", "long ".repeat(100)));
        for description in ["", "short", long.as_str()] {
            let made = embedded(body(description, &given), &ScriptedEmbedder).unwrap();
            assert!(given_texts(&made).iter().zip(&given).all(|(kept, given)| kept == given));
            assert!(Body::new(made.into()).is_ok(), "{description:.9}");
        }
    }
}
