//! Anthropic's Messages API: requests told as OpenAI's chat completions, answers told back as messages.
//!
//! After the API reference of Anthropic ("Messages", "Count Message tokens", "Streaming messages", "Errors") and the types of its Python
//! client. Left out, because chat completions cannot say it: which stop sequence ended an answer (it is told as `end_turn`), signatures
//! of thoughts (always empty, and thoughts of earlier turns are dropped), and how many tokens a request has before it is answered
//! (`message_start` says 0, `message_delta` says the truth).

mod answer;
mod blocks;
mod options;
mod turns;

use serde_json::{Map, Value, json};

use self::answer::Telling;
use crate::{Asked, Fault, Operation, RequestError};

/// Longest list that is read, in entries: Anthropic's limit for messages, taken for every list.
const LIST_MAX: usize = 100_000;

/// The fields of a request.
type Fields = Map<String, Value>;

/// `POST /v1/messages`. From `id`, a random text, come the ids of the answer.
pub fn messages(body: &[u8], id: &str) -> Result<Asked, RequestError> {
    let fields = read_fields(body)?;
    let model = options::model(&fields)?.to_owned();
    let thinking = options::Thinking::read(&fields)?;
    let streams = options::streams(&fields)?;
    let mut body = options::read(&fields)?;
    body.insert("messages".to_owned(), turns::read(&fields)?.into());
    if let Some(effort) = thinking.effort {
        body.insert("reasoning_effort".to_owned(), effort.into());
    }
    body.insert("stream".to_owned(), streams.into());
    if streams {
        body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
    }
    let teller = Box::new(Telling::new(id, model, streams, thinking.told));
    Ok(Asked { operation: Operation::Chat, body: Value::Object(body), teller })
}

/// `POST /v1/messages/count_tokens`: the text that a model would read, whose tokens the caller estimates. Images are no part of it.
pub fn count_tokens(body: &[u8]) -> Result<String, RequestError> {
    let fields = read_fields(body)?;
    options::model(&fields)?;
    let mut text = String::new();
    for message in turns::read(&fields)? {
        add_message(&message, &mut text);
    }
    for tool in options::tools(&fields)? {
        add_line(&tool["function"].to_string(), &mut text);
    }
    Ok(text)
}

/// The answer to a request for a count.
pub fn counted(tokens: u64) -> Value {
    json!({ "input_tokens": tokens })
}

/// Anthropic's shape of an error: `{"type": "error", "error": {"type", "message"}}`.
pub fn fault(fault: &Fault<'_>) -> Value {
    error(kind_of(fault.status), fault.message)
}

fn error(kind: &str, message: &str) -> Value {
    json!({ "type": "error", "error": { "type": kind, "message": message } })
}

fn kind_of(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    }
}

fn read_fields(body: &[u8]) -> Result<Fields, RequestError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(RequestError::new(None, "The request body is not a JSON object")),
        Err(error) => Err(RequestError::new(None, format!("The request body is not valid JSON: {error}"))),
    }
}

/// A field that is there and not `null`.
fn given<'a>(fields: &'a Fields, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

/// A field that must be a text.
fn text_in<'a>(value: &'a Value, name: &str) -> Result<&'a str, String> {
    match value.get(name) {
        None | Some(Value::Null) => Err(format!("{name}: Field required")),
        Some(field) => field.as_str().ok_or_else(|| format!("{name}: Input should be a valid string")),
    }
}

fn list(value: &Value) -> Result<&[Value], String> {
    match value.as_array() {
        None => Err("Input should be a valid list".to_owned()),
        Some(entries) if entries.len() > LIST_MAX => Err(format!("List should have at most {LIST_MAX} items")),
        Some(entries) => Ok(entries),
    }
}

/// Names the field to which `what` happened.
fn wrong(param: &'static str) -> impl Fn(String) -> RequestError {
    move |what| RequestError::new(Some(param), format!("{param}: {what}"))
}

fn add_message(message: &Value, text: &mut String) {
    add_line(message["role"].as_str().unwrap_or_default(), text);
    let content = &message["content"];
    add_line(content.as_str().unwrap_or_default(), text);
    for part in content.as_array().into_iter().flatten() {
        add_line(part["text"].as_str().unwrap_or_default(), text);
    }
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        add_line(call["function"]["name"].as_str().unwrap_or_default(), text);
        add_line(call["function"]["arguments"].as_str().unwrap_or_default(), text);
    }
}

fn add_line(line: &str, text: &mut String) {
    if !line.is_empty() {
        text.push_str(line);
        text.push('\n');
    }
}

#[cfg(test)]
mod tests;
