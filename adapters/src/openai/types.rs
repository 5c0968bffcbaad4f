//! The shapes of the OpenAI API that are read or written here, and nothing of the rest.
//!
//! Requests pass through as bytes: [`RequestBody`] knows the top level's keys and order and keeps every value as it was written, so that
//! a number that no float can hold, or a field of next year, reaches the engine untouched. What engines answer is read leniently, field
//! by field: a field of the wrong type is as good as absent.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Most fields that a request body may have at its top level; the API has about fifty.
pub const REQUEST_FIELDS_MAX: usize = 256;

/// A request body, its values untouched.
#[derive(Debug, Default)]
pub struct RequestBody {
    fields: Vec<(String, Box<RawValue>)>,
}

/// The request body is not a JSON object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request body is not a JSON object: {0}")]
pub struct NotAnObject(String);

impl RequestBody {
    pub fn parse(body: &[u8]) -> Result<Self, NotAnObject> {
        serde_json::from_slice(body).map_err(|error| NotAnObject(error.to_string()))
    }

    pub fn get(&self, key: &str) -> Option<&RawValue> {
        self.fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }

    /// Replaces a field where it stands, or appends it. A key that came twice remains once, so that no two readers see two values.
    pub fn set(&mut self, key: &str, value: &Value) {
        let raw = serde_json::value::to_raw_value(value).expect("a JSON value is always writable as JSON");
        let at = self.fields.iter().position(|(name, _)| name == key);
        self.remove(key);
        self.fields.insert(at.unwrap_or(self.fields.len()), (key.to_owned(), raw));
    }

    pub fn remove(&mut self, key: &str) {
        self.fields.retain(|(name, _)| name != key);
    }

    /// Whether the answer is wanted as a stream.
    pub fn streams(&self) -> bool {
        self.get("stream").is_some_and(|value| value.get() == "true")
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![b'{'];
        for (index, (key, value)) in self.fields.iter().enumerate() {
            if index > 0 {
                bytes.push(b',');
            }
            serde_json::to_writer(&mut bytes, key).expect("a string is always writable as JSON");
            bytes.push(b':');
            bytes.extend_from_slice(value.get().as_bytes());
        }
        bytes.push(b'}');
        bytes
    }
}

impl<'de> serde::Deserialize<'de> for RequestBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = RequestBody;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<RequestBody, M::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = map.next_entry::<String, Box<RawValue>>()? {
            if fields.len() == REQUEST_FIELDS_MAX {
                return Err(serde::de::Error::custom(format!("more than {REQUEST_FIELDS_MAX} fields")));
            }
            fields.push(entry);
        }
        Ok(RequestBody { fields })
    }
}

/// What another node's request may say to a backend: the fields of OpenAI's API that shape an answer, and the samplers that engines added.
/// Engines know more, some of it dangerous: a negative `n_discard` broke llama-server's memory (CVE-2026-21869), and slots, grammars or
/// file names are the owner's alone.
const MESSAGES: &[&str] =
    &["messages", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "modalities"];
const ANSWERS: &[&str] = &[
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "n",
    "best_of",
    "echo",
    "suffix",
    "user",
    "metadata",
    "response_format",
    "logprobs",
    "top_logprobs",
    "reasoning_effort",
    "verbosity",
    "prediction",
    "think",
    "chat_template_kwargs",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "structured_outputs",
    "guided_json",
    "guided_choice",
];
const SAMPLING: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "repeat_penalty",
    "repetition_penalty",
    "logit_bias",
];
const INPUTS: &[&str] = &["prompt", "input", "encoding_format", "dimensions", "input_type"];
const RANKING: &[&str] = &["query", "documents", "top_n", "return_documents"];

/// `body` with those of its fields that a member may set, or `None` where it is no JSON object.
pub fn known_fields(body: &[u8]) -> Option<Vec<u8>> {
    let mut request = RequestBody::parse(body).ok()?;
    let known = |name: &str| [MESSAGES, ANSWERS, SAMPLING, INPUTS, RANKING].iter().any(|fields| fields.contains(&name));
    request.fields.retain(|(name, _)| known(name));
    Some(request.to_bytes())
}

/// One entry of `GET /v1/models`, with what some engines add to it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ModelEntry {
    pub id: String,
    pub owned_by: Option<String>,
    /// vLLM and SGLang: `max_model_len`; llama-server: `meta.n_ctx_train`; LM Studio: `max_context_length`.
    pub context_length: Option<u64>,
    /// llama-server: `meta.n_params`.
    pub parameters: Option<u64>,
    /// llama-server: `meta.n_embd`.
    pub dimensions: Option<u64>,
}

impl ModelEntry {
    fn read(entry: &Value) -> Option<Self> {
        let number = |pointer: &str| entry.pointer(pointer).and_then(Value::as_u64);
        Some(Self {
            id: entry.get("id")?.as_str()?.to_owned(),
            owned_by: text(entry, "/owned_by"),
            context_length: number("/max_model_len").or(number("/meta/n_ctx_train")).or(number("/max_context_length")),
            parameters: number("/meta/n_params"),
            dimensions: number("/meta/n_embd"),
        })
    }
}

/// The entries of a model list; `None` where it is no such list.
pub fn read_models(list: &Value) -> Option<Vec<ModelEntry>> {
    let data = list.get("data").or_else(|| list.get("models"))?.as_array()?;
    Some(data.iter().filter_map(ModelEntry::read).collect())
}

/// A text somewhere in a JSON value.
pub fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

/// Tokens that a request took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
}

impl Usage {
    /// From the `usage` object of an answer or of a chunk.
    pub fn read(usage: &Value) -> Option<Self> {
        let count = |key: &str| usage.get(key).and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok());
        // Embeddings have no completion.
        Some(Self { prompt_tokens: count("prompt_tokens")?, completion_tokens: count("completion_tokens").unwrap_or(0) })
    }
}

/// What one chunk of a streamed answer says.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ChatChunk {
    pub role: Option<String>,
    /// Of the first choice; `text` for `/completions`.
    pub content: Option<String>,
    pub finish_reason: Option<String>,
    pub usage: Option<Usage>,
    pub error: Option<String>,
}

impl ChatChunk {
    /// From the data of an event; `None` where it is no JSON object (`[DONE]`).
    pub fn read(data: &str) -> Option<Self> {
        let chunk: Value = serde_json::from_str(data).ok()?;
        chunk.is_object().then(|| Self {
            role: text(&chunk, "/choices/0/delta/role"),
            content: text(&chunk, "/choices/0/delta/content")
                .or_else(|| text(&chunk, "/choices/0/delta/reasoning_content"))
                .or_else(|| text(&chunk, "/choices/0/text")),
            finish_reason: text(&chunk, "/choices/0/finish_reason"),
            usage: chunk.get("usage").and_then(Usage::read),
            error: text(&chunk, "/error/message").or_else(|| text(&chunk, "/error")),
        })
    }
}

/// An error in OpenAI's shape.
pub fn error_body(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Value {
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_model_changes() {
        let body = br#"{"z":1e400,"model":"auto", "big":123456789012345678901234567890,"messages":[ {"a" : 1} ],"stream":true,"n\u00e9":null}"#;
        let mut request = RequestBody::parse(body).unwrap();
        assert!(request.streams());
        request.set("model", &"qwen".into());
        assert_eq!(
            String::from_utf8(request.to_bytes()).unwrap(),
            r#"{"z":1e400,"model":"qwen","big":123456789012345678901234567890,"messages":[ {"a" : 1} ],"stream":true,"né":null}"#
        );
    }

    #[test]
    fn a_field_that_comes_twice_remains_once() {
        let mut request = RequestBody::parse(br#"{"model":"a","x":1,"model":"b"}"#).unwrap();
        assert_eq!(request.get("model").map(RawValue::get), Some("\"b\""));
        request.set("model", &"c".into());
        request.set("new", &true.into());
        assert_eq!(request.to_bytes(), br#"{"model":"c","x":1,"new":true}"#);
    }

    #[test]
    fn a_member_may_set_what_shapes_an_answer_and_nothing_else() {
        let body = br#"{"messages":[{"role":"user"}],"seed":7,"n_discard":-1,"id_slot":3,"logit_bias":{"1":-100}}"#;
        let kept = known_fields(body).unwrap();
        assert_eq!(String::from_utf8(kept).unwrap(), r#"{"messages":[{"role":"user"}],"seed":7,"logit_bias":{"1":-100}}"#);
        assert_eq!(known_fields(b"--boundary"), None);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["", "[]", "1", "{", "{\"a\":}", "null"] {
            assert!(RequestBody::parse(body.as_bytes()).is_err(), "{body}");
        }
        let many: Vec<String> = (0..=REQUEST_FIELDS_MAX).map(|i| format!("\"{i}\":0")).collect();
        assert!(RequestBody::parse(format!("{{{}}}", many.join(",")).as_bytes()).is_err());
    }

    #[test]
    fn chunks_are_read_leniently() {
        let chunk =
            ChatChunk::read(r#"{"choices":[{"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}],"usage":null}"#)
                .unwrap();
        assert_eq!((chunk.role.as_deref(), chunk.content.as_deref(), chunk.finish_reason), (Some("assistant"), Some("Hi"), None));
        let last =
            ChatChunk::read(r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}"#).unwrap();
        assert_eq!(last.usage, Some(Usage { prompt_tokens: 3, completion_tokens: 5 }));
        assert_eq!(ChatChunk::read("[DONE]"), None);
        assert_eq!(ChatChunk::read(r#"{"choices":7,"usage":{"prompt_tokens":-1}}"#), Some(ChatChunk::default()));
    }
}
