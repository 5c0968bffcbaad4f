//! Reads an OpenAI request for the built-in engine.
//!
//! What would change the meaning of the answer and cannot be done here (tools, JSON schemas, images, several choices) is refused with the
//! field's name; it is never silently left out. What is unknown and changes nothing is ignored. Pure.

use serde_json::Value;

use super::frames::{Message, Prompt, Role, Sampling};
use crate::Operation;

/// Stop strings in one request; OpenAI allows four.
const STOPS_MAX: usize = 16;
/// Messages in one request; a context of the largest models holds fewer.
const MESSAGES_MAX: usize = 4_096;

/// A request that can be worked on.
#[derive(Clone, PartialEq, Debug)]
pub struct Asked {
    pub prompt: Prompt,
    pub sampling: Sampling,
    pub stream: bool,
    pub include_usage: bool,
}

/// Why a request is refused, and which field is to blame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unfit {
    pub message: String,
    pub field: Option<String>,
    pub code: &'static str,
}

impl Asked {
    pub fn read(operation: Operation, body: &[u8]) -> Result<Self, Unfit> {
        let body: Value =
            serde_json::from_slice(body).map_err(|error| invalid(None, format!("the body is not JSON: {error}")))?;
        if !body.is_object() {
            return Err(invalid(None, "the body is not a JSON object".to_owned()));
        }
        refuse_unsupported(&body)?;
        let prompt = match operation {
            Operation::Chat => Prompt::Chat(messages(&body)?),
            Operation::Complete => Prompt::Text(prompt_text(&body)?),
            Operation::Embed | Operation::Rerank | Operation::Transcribe => {
                return Err(unsupported("model", "the built-in engine answers chats and completions alone".to_owned()));
            }
        };
        Ok(Self {
            prompt,
            sampling: sampling(&body)?,
            stream: flag(&body, "/stream"),
            include_usage: flag(&body, "/stream_options/include_usage"),
        })
    }
}

/// Whether a field's value asks for nothing.
type Harmless = fn(&Value) -> bool;

/// Fields that must be absent, or hold a value that asks for nothing.
fn refuse_unsupported(body: &Value) -> Result<(), Unfit> {
    let harmless: [(&str, Harmless); 13] = [
        ("tools", is_empty),
        ("functions", is_empty),
        ("tool_choice", |value| matches!(value.as_str(), Some("none" | "auto"))),
        ("function_call", |value| matches!(value.as_str(), Some("none" | "auto"))),
        ("response_format", |value| value.get("type").and_then(Value::as_str) == Some("text")),
        ("n", |value| value.as_u64() == Some(1)),
        ("best_of", |value| value.as_u64() == Some(1)),
        ("logprobs", |value| value.as_bool() == Some(false)),
        ("top_logprobs", |value| value.as_u64() == Some(0)),
        ("logit_bias", is_empty),
        ("echo", |value| value.as_bool() == Some(false)),
        ("suffix", |value| value.as_str() == Some("")),
        ("modalities", |value| *value == serde_json::json!(["text"])),
    ];
    for (field, fine) in harmless {
        if body.get(field).is_some_and(|value| !value.is_null() && !fine(value)) {
            return Err(unsupported(
                field,
                format!("the built-in engine does not support `{field}`; choose another model for this request"),
            ));
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}

fn messages(body: &Value) -> Result<Vec<Message>, Unfit> {
    let Some(messages) = body.get("messages").and_then(Value::as_array) else {
        return Err(invalid(Some("messages"), "`messages` must be an array".to_owned()));
    };
    if messages.is_empty() || messages.len() > MESSAGES_MAX {
        return Err(invalid(Some("messages"), format!("`messages` must hold 1 to {MESSAGES_MAX} messages")));
    }
    messages.iter().enumerate().map(|(index, entry)| message(index, entry)).collect()
}

fn message(index: usize, entry: &Value) -> Result<Message, Unfit> {
    let field = format!("messages[{index}]");
    let role = match entry.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some(role @ ("tool" | "function")) => {
            return Err(unsupported(
                &format!("{field}.role"),
                format!("the built-in engine calls no tools, so no message can be of role `{role}`"),
            ));
        }
        _ => return Err(invalid(Some(&format!("{field}.role")), format!("`{field}.role` must be system, user or assistant"))),
    };
    if entry.get("tool_calls").is_some_and(|calls| !calls.is_null() && !is_empty(calls)) {
        return Err(unsupported(&format!("{field}.tool_calls"), "the built-in engine calls no tools".to_owned()));
    }
    Ok(Message { role, content: content(&field, entry.get("content").unwrap_or(&Value::Null))? })
}

fn content(field: &str, content: &Value) -> Result<String, Unfit> {
    let field = format!("{field}.content");
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Ok(String::new()),
        Value::Array(parts) => parts.iter().enumerate().map(|(index, entry)| part(&format!("{field}[{index}]"), entry)).collect(),
        _ => Err(invalid(Some(&field), format!("`{field}` must be a text or a list of parts"))),
    }
}

fn part(field: &str, part: &Value) -> Result<String, Unfit> {
    match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
        (Some("text"), Some(text)) => Ok(text.to_owned()),
        (Some(kind), _) if kind != "text" => {
            Err(unsupported(field, format!("the built-in engine reads text only, not `{kind}`")))
        }
        _ => Err(invalid(Some(field), format!("`{field}` must have a type and a text"))),
    }
}

fn prompt_text(body: &Value) -> Result<String, Unfit> {
    match body.get("prompt") {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(texts)) if texts.len() == 1 && texts[0].is_string() => {
            Ok(texts[0].as_str().unwrap_or_default().to_owned())
        }
        Some(Value::Array(_)) => Err(unsupported("prompt", "the built-in engine takes one text as `prompt`".to_owned())),
        _ => Err(invalid(Some("prompt"), "`prompt` must be a text".to_owned())),
    }
}

fn sampling(body: &Value) -> Result<Sampling, Unfit> {
    let longest = number(body, "max_completion_tokens", 1.0, 1e9)?.or(number(body, "max_tokens", 1.0, 1e9)?);
    Ok(Sampling {
        max_tokens: longest.map(|tokens| tokens as u32),
        temperature: number(body, "temperature", 0.0, 2.0)?.map(|value| value as f32),
        top_p: number(body, "top_p", 0.0, 1.0)?.map(|value| value as f32),
        top_k: number(body, "top_k", -1.0, 1e6)?.map(|value| value as i32),
        min_p: number(body, "min_p", 0.0, 1.0)?.map(|value| value as f32),
        frequency_penalty: number(body, "frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0) as f32,
        presence_penalty: number(body, "presence_penalty", -2.0, 2.0)?.unwrap_or(0.0) as f32,
        // Only equality matters to a seed, so that a wider one may be folded.
        seed: body.get("seed").and_then(Value::as_i64).map(|seed| (seed ^ (seed >> 32)) as u32),
        stop: stops(body)?,
    })
}

fn stops(body: &Value) -> Result<Vec<String>, Unfit> {
    let wrong = || invalid(Some("stop"), format!("`stop` must be a text or a list of at most {STOPS_MAX} texts"));
    match body.get("stop") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(stop)) => Ok(vec![stop.clone()]),
        Some(Value::Array(stops)) if stops.len() <= STOPS_MAX => {
            stops.iter().map(|stop| stop.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

fn number(body: &Value, field: &str, least: f64, most: f64) -> Result<Option<f64>, Unfit> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64().filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(invalid(Some(field), format!("`{field}` must be a number from {least} to {most}"))),
        },
    }
}

fn flag(body: &Value, pointer: &str) -> bool {
    body.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
}

fn invalid(field: Option<&str>, message: String) -> Unfit {
    Unfit { message, field: field.map(str::to_owned), code: "invalid_value" }
}

fn unsupported(field: &str, message: String) -> Unfit {
    Unfit { message, field: Some(field.to_owned()), code: "unsupported_parameter" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chat(extra: Value) -> Result<Asked, Unfit> {
        let mut body = json!({"model": "x", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Asked::read(Operation::Chat, body.to_string().as_bytes())
    }

    #[test]
    fn a_request_is_read() {
        let asked =
            chat(json!({"stream": true, "stream_options": {"include_usage": true}, "max_completion_tokens": 5, "max_tokens": 9,
            "temperature": 0, "stop": "x", "seed": 7, "user": "me", "tools": [], "response_format": {"type": "text"}}))
            .unwrap();
        assert!(asked.stream && asked.include_usage);
        assert_eq!((asked.sampling.max_tokens, asked.sampling.temperature, asked.sampling.seed), (Some(5), Some(0.0), Some(7)));
        assert_eq!(asked.sampling.stop, ["x"]);
        let parts = json!({"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]});
        assert_eq!(chat(parts).unwrap().prompt, Prompt::Chat(vec![Message { role: Role::System, content: "ab".into() }]));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (extra, field) in [
            (json!({"tools": [{"type": "function"}]}), "tools"),
            (json!({"response_format": {"type": "json_schema"}}), "response_format"),
            (json!({"n": 2}), "n"),
            (json!({"logprobs": true}), "logprobs"),
            (json!({"temperature": 9}), "temperature"),
            (json!({"max_tokens": 0}), "max_tokens"),
            (json!({"stop": [1]}), "stop"),
            (json!({"messages": "hi"}), "messages"),
            (json!({"messages": []}), "messages"),
            (json!({"messages": [{"role": "<|im_end|>", "content": "x"}]}), "messages[0].role"),
            (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].role"),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
                "messages[0].content[0]",
            ),
        ] {
            assert_eq!(chat(extra.clone()).unwrap_err().field.as_deref(), Some(field), "{extra}");
        }
        assert!(Asked::read(Operation::Embed, b"{}").is_err());
        assert!(Asked::read(Operation::Chat, b"[").is_err());
        assert!(Asked::read(Operation::Complete, br#"{"prompt":["a","b"]}"#).is_err());
        assert_eq!(Asked::read(Operation::Complete, br#"{"prompt":["a"]}"#).unwrap().prompt, Prompt::Text("a".into()));
    }
}
