//! From Ollama's words to ours. Pure.

use atmo_capabilities::capability::facts;
use serde_json::Value;

use crate::model_name::{Kind, parameters_of_word};
use crate::offer::Listed;
use crate::openai::types::text;

/// Where Ollama listens unless told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:11434";
const DEFAULT_PORT: u16 = 11434;
/// Requests that Ollama executes at once for one model unless told otherwise (`OLLAMA_NUM_PARALLEL` is 1 in current versions); it
/// queues the rest itself, and its answers do not say.
const SLOTS: u16 = 1;

/// One entry of `GET /api/tags`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tag {
    pub name: String,
    /// Names the content; where a server gives none, the name stands in for it.
    pub digest: String,
    pub family: Option<String>,
    pub parameters: Option<String>,
    pub quantization: Option<String>,
}

/// What `POST /api/show` says of a model.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Shown {
    /// `completion`, `tools`, `vision`, `embedding`, ...; empty where an old server does not say.
    pub capabilities: Vec<String>,
    pub context_length: Option<u64>,
    pub embedding_length: Option<u64>,
}

pub fn read_tags(answer: &Value) -> Option<Vec<Tag>> {
    Some(answer.get("models")?.as_array()?.iter().filter_map(read_tag).collect())
}

fn read_tag(entry: &Value) -> Option<Tag> {
    let name = text(entry, "/model").or_else(|| text(entry, "/name"))?;
    Some(Tag {
        digest: text(entry, "/digest").unwrap_or_else(|| name.clone()),
        family: text(entry, "/details/family"),
        parameters: text(entry, "/details/parameter_size"),
        quantization: text(entry, "/details/quantization_level"),
        name,
    })
}

pub fn read_shown(answer: &Value) -> Shown {
    let words = answer.get("capabilities").and_then(Value::as_array);
    let family = text(answer, "/model_info/general.architecture").unwrap_or_default();
    let info = |key: &str| answer.get("model_info")?.get(format!("{family}.{key}"))?.as_u64();
    Shown {
        capabilities: words.map(|words| words.iter().filter_map(Value::as_str).map(str::to_owned).collect()).unwrap_or_default(),
        context_length: parameter(answer, "num_ctx").or_else(|| info("context_length")),
        embedding_length: info("embedding_length"),
    }
}

/// A number among the Modelfile's parameters, which come as lines of text.
fn parameter(answer: &Value, key: &str) -> Option<u64> {
    let lines = answer.get("parameters")?.as_str()?;
    lines.lines().find_map(|line| line.trim().strip_prefix(key)?.trim().parse().ok())
}

/// A model as it is offered: what Ollama says wins over what its name suggests.
pub fn listed(tag: &Tag, shown: Option<&Shown>) -> Listed {
    let mut listed = Listed::from_name(&described_name(tag), SLOTS);
    listed.engine_name.clone_from(&tag.name);
    listed.name = tag.name.strip_suffix(":latest").unwrap_or(&tag.name).to_owned();
    if let Some(family) = &tag.family {
        listed.set_fact(facts::FAMILY, family);
    }
    if let Some(parameters) = tag.parameters.as_deref().and_then(parameters_of_word) {
        listed.set_fact(facts::PARAMETERS_BILLIONS, parameters);
    }
    if let Some(quantization) = &tag.quantization {
        listed.set_fact(facts::QUANTIZATION, quantization);
    }
    if let Some(shown) = shown {
        add_shown(&mut listed, shown);
    }
    listed
}

/// The name with its size, if only Ollama knows it, so that the description can say it.
fn described_name(tag: &Tag) -> String {
    let stem = tag.name.strip_suffix(":latest").unwrap_or(&tag.name);
    match &tag.parameters {
        Some(size) if parameters_of_word(stem.rsplit([':', '-']).next().unwrap_or_default()).is_none() => {
            format!("{stem}:{size}")
        }
        _ => stem.to_owned(),
    }
}

fn add_shown(listed: &mut Listed, shown: &Shown) {
    let can = |word: &str| shown.capabilities.iter().any(|capability| capability == word);
    if can("embedding") && !can("completion") {
        listed.kind = Kind::Embedding.word().to_owned();
    }
    if can("tools") {
        listed.set_fact(facts::TOOLS, true);
    }
    if can("vision") && !listed.facts.contains_key(facts::VISION) {
        listed.set_fact(facts::VISION, true);
        listed.description.push_str(" It also sees: it describes images and answers questions about pictures.");
    }
    if let Some(context) = shown.context_length {
        listed.set_fact(facts::CONTEXT_LENGTH, context);
    }
    if let Some(dimensions) = shown.embedding_length.filter(|_| listed.kind == Kind::Embedding.word()) {
        listed.set_fact(facts::DIMENSIONS, dimensions);
    }
}

/// The address behind what users write in `OLLAMA_HOST`: `0.0.0.0`, `:8080`, `box.lan:11434`, `https://ollama.example/`. An address
/// that means "listen everywhere" is asked on loopback.
pub fn host_url(ollama_host: Option<&str>) -> String {
    let Some(host) = ollama_host.map(str::trim).filter(|host| !host.is_empty()) else { return DEFAULT_URL.to_owned() };
    let (scheme, rest) = host.split_once("://").unwrap_or(("http", host));
    let authority = rest.split('/').next().unwrap_or_default();
    let (name, port) = split_port(authority);
    let name = match name {
        "" | "0.0.0.0" | "::" | "[::]" | "*" => "127.0.0.1",
        name => name,
    };
    let default_port = match (scheme, host.contains("://")) {
        ("https", _) => 443,
        ("http", true) => 80,
        _ => DEFAULT_PORT,
    };
    format!("{scheme}://{name}:{}", port.unwrap_or(default_port))
}

fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port.parse().ok()),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(text: &str) -> Value {
        serde_json::from_str(text).expect("a fixture is JSON")
    }

    #[test]
    fn a_chat_model_is_offered_with_what_ollama_says() {
        let tags = read_tags(&fixture(include_str!("../../testdata/ollama/tags.json"))).unwrap();
        let shown = read_shown(&fixture(include_str!("../../testdata/ollama/show_qwen.json")));
        let listed = listed(&tags[0], Some(&shown));
        assert_eq!(
            (listed.kind.as_str(), listed.name.as_str(), listed.engine_name.as_str()),
            ("llm", "qwen2.5-coder:7b", "qwen2.5-coder:7b")
        );
        for (key, value) in [
            ("context_length", "32768"),
            ("parameters_b", "7.6"),
            ("tools", "true"),
            ("quantization", "Q4_K_M"),
            ("family", "qwen2"),
        ] {
            assert_eq!(listed.facts.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert!(listed.description.contains("programming"), "{}", listed.description);
    }

    #[test]
    fn an_embedding_model_is_no_chat_model() {
        let tags = read_tags(&fixture(include_str!("../../testdata/ollama/tags.json"))).unwrap();
        let shown = read_shown(&fixture(include_str!("../../testdata/ollama/show_nomic.json")));
        let listed = listed(&tags[1], Some(&shown));
        assert_eq!((listed.kind.as_str(), listed.name.as_str()), ("embedding", "nomic-embed-text"));
        assert_eq!(listed.facts.get("dimensions").map(String::as_str), Some("768"));
        assert!(
            listed.description.starts_with("Nomic Embed Text, a 137-million-parameter embedding model"),
            "{}",
            listed.description
        );
    }

    #[test]
    fn hosts_as_users_write_them() {
        for (written, url) in [
            (None, "http://127.0.0.1:11434"),
            (Some(" "), "http://127.0.0.1:11434"),
            (Some("0.0.0.0"), "http://127.0.0.1:11434"),
            (Some("0.0.0.0:1234"), "http://127.0.0.1:1234"),
            (Some(":8080"), "http://127.0.0.1:8080"),
            (Some("box.lan"), "http://box.lan:11434"),
            (Some("http://box.lan"), "http://box.lan:80"),
            (Some("https://ollama.example/"), "https://ollama.example:443"),
            (Some("[::1]:99"), "http://[::1]:99"),
        ] {
            assert_eq!(host_url(written), url, "{written:?}");
        }
    }
}
