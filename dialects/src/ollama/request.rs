//! Reads Ollama's requests into OpenAI's.

mod messages;
mod options;

use serde_json::{Map, Value, json};

use super::Route;
use super::tell::{Clock, Heard, Numbers, Vectors, Words};
use crate::{Asked, Operation, RequestError};
use messages::{Pictures, messages};

/// A JSON object.
type Object = Map<String, Value>;

/// Texts that one request may have embedded.
const INPUTS_MAX: usize = 16_384;
const TOOLS_MAX: usize = 1_024;
/// Fields that Ollama does not name, but OpenAI does beside `tools`.
const BESIDE_TOOLS: [&str; 2] = ["tool_choice", "parallel_tool_calls"];

/// `POST /api/chat`. `now` is RFC 3339 and told as `created_at`.
pub fn chat(body: &[u8], now: &str, clock: Clock) -> Result<Asked, RequestError> {
    let body = read(body)?;
    let mut asked = Object::new();
    asked.insert("messages".to_owned(), json!(messages(&body)?));
    add_tools(&body, &mut asked)?;
    words(Operation::Chat, Route::Chat, &body, asked, now, clock)
}

/// `POST /api/generate`. A prompt that is to be taken as it is (`raw`) or that has something behind it (`suffix`) is completed; any
/// other is a chat of one message, as Ollama puts it into the model's template too. `now` is RFC 3339 and told as `created_at`.
pub fn generate(body: &[u8], now: &str, clock: Clock) -> Result<Asked, RequestError> {
    let body = read(body)?;
    let prompt = prompt(&body)?;
    if list(&body, "context")?.is_some_and(|tokens| !tokens.is_empty()) {
        return Err(RequestError::new(Some("context"), "`context` is not supported; send the conversation to /api/chat"));
    }
    let mut asked = Object::new();
    let suffix = text(&body, "suffix")?;
    let operation = if flag(&body, "raw")?.unwrap_or(false) || !suffix.is_empty() {
        complete(&body, prompt, suffix, &mut asked)?;
        Operation::Complete
    } else {
        asked.insert("messages".to_owned(), json!(prompted(&body, prompt)?));
        Operation::Chat
    };
    words(operation, Route::Generate, &body, asked, now, clock)
}

/// `POST /api/embed`: one text or many. The clock tells `total_duration`.
pub fn embed(body: &[u8], clock: Clock) -> Result<Asked, RequestError> {
    let body = read(body)?;
    let wrong = || RequestError::new(Some("input"), "`input` must be a text or a list of texts");
    let input = match body.get("input") {
        Some(Value::Array(texts)) if texts.len() > INPUTS_MAX => {
            return Err(RequestError::new(Some("input"), format!("`input` holds more than {INPUTS_MAX} texts")));
        }
        Some(Value::Array(texts)) if texts.is_empty() || !texts.iter().all(Value::is_string) => return Err(wrong()),
        Some(input @ (Value::String(_) | Value::Array(_))) if input != "" => input,
        _ => return Err(wrong()),
    };
    let mut asked = json!({ "model": model(&body)?, "input": input });
    match body.get("dimensions") {
        None | Some(Value::Null) => {}
        Some(dimensions) if dimensions.is_u64() => asked["dimensions"] = dimensions.clone(),
        Some(_) => return Err(RequestError::new(Some("dimensions"), "`dimensions` must be a whole number")),
    }
    vectors(Route::Embed, &body, asked, clock)
}

/// `POST /api/embeddings`, which [`embed`] replaced: one text, one vector.
pub fn embeddings(body: &[u8]) -> Result<Asked, RequestError> {
    let body = read(body)?;
    let asked = json!({ "model": model(&body)?, "input": prompt(&body)? });
    vectors(Route::Embeddings, &body, asked, Box::new(|| 0))
}

fn read(body: &[u8]) -> Result<Object, RequestError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err(RequestError::new(None, "the body is not a JSON object")),
        Err(error) => Err(RequestError::new(None, format!("the body is not JSON: {error}"))),
    }
}

fn words(
    operation: Operation,
    route: Route,
    body: &Object,
    asked: Object,
    now: &str,
    clock: Clock,
) -> Result<Asked, RequestError> {
    let model = model(body)?;
    let streams = flag(body, "stream")?.unwrap_or(true);
    let mut asked = asked;
    asked.insert("model".to_owned(), json!(model));
    asked.insert("stream".to_owned(), json!(streams));
    if streams {
        asked.insert("stream_options".to_owned(), json!({ "include_usage": true }));
    }
    add_format(body, &mut asked)?;
    options::add(body, &mut asked)?;
    add_think(body, &mut asked)?;
    let teller = Words { route, model: model.to_owned(), now: now.to_owned(), clock, streams, heard: Heard::default() };
    Ok(Asked { operation, body: Value::Object(asked), teller: Box::new(teller) })
}

fn vectors(route: Route, body: &Object, asked: Value, clock: Clock) -> Result<Asked, RequestError> {
    let teller = Vectors { route, model: model(body)?.to_owned(), clock, heard: Numbers::default() };
    Ok(Asked { operation: Operation::Embed, body: asked, teller: Box::new(teller) })
}

/// A completion of `prompt` as it stands.
fn complete(body: &Object, prompt: &str, suffix: &str, asked: &mut Object) -> Result<(), RequestError> {
    for (field, absent) in [("system", text(body, "system")?.is_empty()), ("images", Pictures::read(body)?.is_empty())] {
        if !absent {
            return Err(RequestError::new(Some(field), format!("`{field}` cannot be combined with `raw` or `suffix`")));
        }
    }
    asked.insert("prompt".to_owned(), json!(prompt));
    if !suffix.is_empty() {
        asked.insert("suffix".to_owned(), json!(suffix));
    }
    Ok(())
}

/// The messages that a prompt and its system prompt are.
fn prompted(body: &Object, prompt: &str) -> Result<Vec<Value>, RequestError> {
    let system = Some(text(body, "system")?).filter(|system| !system.is_empty());
    let mut messages: Vec<Value> = system.map(|system| json!({ "role": "system", "content": system })).into_iter().collect();
    messages.push(json!({ "role": "user", "content": Pictures::read(body)?.before(json!(prompt)) }));
    Ok(messages)
}

/// Tools have OpenAI's shape, but need not say their type.
fn add_tools(body: &Object, asked: &mut Object) -> Result<(), RequestError> {
    let tools = list(body, "tools")?.map_or(&[][..], Vec::as_slice);
    if tools.len() > TOOLS_MAX {
        return Err(RequestError::new(Some("tools"), format!("`tools` holds more than {TOOLS_MAX} tools")));
    }
    if tools.is_empty() {
        return Ok(());
    }
    let mut told = tools.to_vec();
    for tool in &mut told {
        let tool = tool.as_object_mut().filter(|tool| tool.get("function").is_some_and(Value::is_object));
        let tool = tool.ok_or_else(|| RequestError::new(Some("tools"), "every one of `tools` must have a `function`"))?;
        tool.entry("type").or_insert_with(|| json!("function"));
    }
    asked.insert("tools".to_owned(), json!(told));
    for field in BESIDE_TOOLS {
        if let Some(value) = body.get(field) {
            asked.insert(field.to_owned(), value.clone());
        }
    }
    Ok(())
}

fn add_format(body: &Object, asked: &mut Object) -> Result<(), RequestError> {
    let format = match body.get("format") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::String(word)) if word.is_empty() => return Ok(()),
        Some(Value::String(word)) if word == "json" => json!({ "type": "json_object" }),
        Some(schema @ Value::Object(_)) => {
            json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": schema } })
        }
        Some(_) => return Err(RequestError::new(Some("format"), "`format` must be \"json\" or a JSON schema")),
    };
    asked.insert("response_format".to_owned(), format);
    Ok(())
}

/// How much a model is to think, in the words of all backends at once: llama-server and vLLM read their templates' switches
/// (`enable_thinking` of most, `thinking` of DeepSeek and Granite, `reasoning_effort` of gpt-oss), Ollama and others the field
/// `reasoning_effort`. That one is not sent for a mere `true`: they think anyway, and some refuse an effort for models that know none.
fn add_think(body: &Object, asked: &mut Object) -> Result<(), RequestError> {
    let (thinks, effort) = match body.get("think") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Bool(true)) => (true, None),
        Some(Value::Bool(false)) => (false, Some("none")),
        Some(Value::String(effort)) if matches!(effort.as_str(), "low" | "medium" | "high" | "max") => {
            (true, Some(effort.as_str()))
        }
        Some(_) => {
            let message = "`think` must be true, false, \"low\", \"medium\", \"high\" or \"max\"";
            return Err(RequestError::new(Some("think"), message));
        }
    };
    let mut switches = json!({ "enable_thinking": thinks, "thinking": thinks });
    if let Some(effort) = effort {
        asked.insert("reasoning_effort".to_owned(), json!(effort));
        if thinks {
            switches["reasoning_effort"] = json!(effort);
        }
    }
    asked.insert("chat_template_kwargs".to_owned(), switches);
    Ok(())
}

fn model(body: &Object) -> Result<&str, RequestError> {
    match text(body, "model")? {
        "" => Err(RequestError::new(Some("model"), "`model` is required")),
        model => Ok(model),
    }
}

fn prompt(body: &Object) -> Result<&str, RequestError> {
    match text(body, "prompt")? {
        "" => Err(RequestError::new(Some("prompt"), "`prompt` is empty")),
        prompt => Ok(prompt),
    }
}

/// A text; empty where it is absent.
fn text<'a>(body: &'a Object, field: &'static str) -> Result<&'a str, RequestError> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(RequestError::new(Some(field), format!("`{field}` must be a text"))),
    }
}

fn flag(body: &Object, field: &'static str) -> Result<Option<bool>, RequestError> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(RequestError::new(Some(field), format!("`{field}` must be true or false"))),
    }
}

fn list<'a>(body: &'a Object, field: &'static str) -> Result<Option<&'a Vec<Value>>, RequestError> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(_) => Err(RequestError::new(Some(field), format!("`{field}` must be a list"))),
    }
}
