//! `messages`: a conversation. Ollama's calls of tools have no ids and their results name the tool; OpenAI's need both.

use serde_json::{Value, json};

use super::{Object, list, text};
use crate::RequestError;

const MESSAGES_MAX: usize = 4_096;
/// Calls in one message.
const CALLS_MAX: usize = 128;
/// Images in one message.
const PICTURES_MAX: usize = 64;

/// The messages of a chat as OpenAI writes them.
pub fn messages(body: &Object) -> Result<Vec<Value>, RequestError> {
    let messages = list(body, "messages")?.map_or(&[][..], Vec::as_slice);
    if messages.is_empty() || messages.len() > MESSAGES_MAX {
        return Err(wrong(format!("`messages` must hold 1 to {MESSAGES_MAX} messages")));
    }
    let mut calls = Calls::default();
    messages.iter().map(|message| read(message, &mut calls)).collect()
}

fn read(message: &Value, calls: &mut Calls) -> Result<Value, RequestError> {
    let message = message.as_object().ok_or_else(|| wrong("every one of `messages` must be an object"))?;
    let role = text(message, "role")?.to_lowercase();
    let content = match message.get("content") {
        None | Some(Value::Null) => json!(""),
        // A list of parts is OpenAI's, and passed on.
        Some(content @ (Value::String(_) | Value::Array(_))) => content.clone(),
        Some(_) => return Err(wrong("`content` of a message must be a text")),
    };
    let mut told = json!({ "role": role, "content": Pictures::read(message)?.before(content) });
    match role.as_str() {
        "" => return Err(wrong("every one of `messages` must have a `role`")),
        "assistant" => add_said(message, calls, &mut told)?,
        "tool" => add_result(message, calls, &mut told)?,
        _ => {}
    }
    Ok(told)
}

/// What an assistant thought and called.
fn add_said(message: &Object, calls: &mut Calls, told: &mut Value) -> Result<(), RequestError> {
    let thought = text(message, "thinking")?;
    if !thought.is_empty() {
        told["reasoning_content"] = json!(thought);
    }
    let called = list(message, "tool_calls")?.map_or(&[][..], Vec::as_slice);
    if called.len() > CALLS_MAX {
        return Err(wrong(format!("`tool_calls` of a message holds more than {CALLS_MAX} calls")));
    }
    if !called.is_empty() {
        told["tool_calls"] = json!(called.iter().map(|call| calls.begin(call)).collect::<Result<Vec<_>, _>>()?);
        if told["content"] == "" {
            told["content"] = Value::Null;
        }
    }
    Ok(())
}

fn add_result(message: &Object, calls: &mut Calls, told: &mut Value) -> Result<(), RequestError> {
    let name = match text(message, "tool_name")? {
        "" => text(message, "name")?,
        name => name,
    };
    told["tool_call_id"] = json!(calls.answer(text(message, "tool_call_id")?, name));
    if !name.is_empty() {
        told["name"] = json!(name);
    }
    Ok(())
}

/// The calls of a conversation, so that results find theirs.
#[derive(Default)]
struct Calls {
    made: usize,
    unanswered: Vec<Unanswered>,
}

struct Unanswered {
    id: String,
    name: String,
}

impl Calls {
    /// A call as OpenAI writes it.
    fn begin(&mut self, call: &Value) -> Result<Value, RequestError> {
        let function = call.get("function").unwrap_or(&Value::Null);
        let name = function.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| wrong("every one of `tool_calls` must have a `function` with a `name`"))?;
        let arguments = match function.get("arguments") {
            None | Some(Value::Null) => "{}".to_owned(),
            Some(Value::String(arguments)) => arguments.clone(),
            Some(arguments @ Value::Object(_)) => arguments.to_string(),
            Some(_) => return Err(wrong("`arguments` of a call must be an object")),
        };
        let id = call.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
        let id = id.unwrap_or_else(|| self.next_id());
        self.unanswered.push(Unanswered { id: id.clone(), name: name.to_owned() });
        Ok(json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } }))
    }

    /// The id of the call that a result answers: what it says, else that of the first open call of its tool, else of the first.
    fn answer(&mut self, id: &str, name: &str) -> String {
        let find = |matches: &dyn Fn(&Unanswered) -> bool| self.unanswered.iter().position(matches);
        let place =
            if id.is_empty() { find(&|call| call.name == name).or_else(|| find(&|_| true)) } else { find(&|call| call.id == id) };
        match place.map(|place| self.unanswered.remove(place)) {
            Some(call) => call.id,
            None if id.is_empty() => self.next_id(),
            None => id.to_owned(),
        }
    }

    fn next_id(&mut self) -> String {
        self.made += 1;
        format!("call_{}", self.made - 1)
    }
}

/// The images of a message or a prompt, as data URLs.
pub struct Pictures(Vec<String>);

impl Pictures {
    pub fn read(message: &Object) -> Result<Self, RequestError> {
        let images = list(message, "images")?.map_or(&[][..], Vec::as_slice);
        if images.len() > PICTURES_MAX {
            return Err(RequestError::new(Some("images"), format!("`images` holds more than {PICTURES_MAX} images")));
        }
        let url = |image: &Value| {
            let message = "every one of `images` must be a PNG, JPEG, GIF or WebP image in base64";
            image.as_str().and_then(data_url).ok_or_else(|| RequestError::new(Some("images"), message))
        };
        Ok(Self(images.iter().map(url).collect::<Result<_, _>>()?))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The content of a message: the images stand before its text, as Ollama puts them.
    pub fn before(self, content: Value) -> Value {
        if self.is_empty() {
            return content;
        }
        let image = |url| json!({ "type": "image_url", "image_url": { "url": url } });
        let mut parts: Vec<Value> = self.0.into_iter().map(image).collect();
        match content {
            Value::Array(more) => parts.extend(more),
            Value::String(text) if text.is_empty() => {}
            text => parts.push(json!({ "type": "text", "text": text })),
        }
        Value::Array(parts)
    }
}

fn data_url(image: &str) -> Option<String> {
    if image.starts_with("data:image/") {
        return Some(image.to_owned());
    }
    let lines: String = image.split_ascii_whitespace().collect();
    let is_base64 = lines.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
    let mime = mime_type(&lines).filter(|_| is_base64)?;
    Some(format!("data:{mime};base64,{lines}"))
}

/// By the first bytes of the image, as base64 writes them. Those of WebP are `RIFF`, four bytes of length, and `WEBP`.
fn mime_type(base64: &str) -> Option<&'static str> {
    let is_webp = base64.starts_with("UklGR") && base64.get(11..16) == Some("XRUJQ");
    match base64 {
        _ if base64.starts_with("iVBORw0KGgo") => Some("image/png"),
        _ if base64.starts_with("/9j/") => Some("image/jpeg"),
        _ if base64.starts_with("R0lGOD") => Some("image/gif"),
        _ if is_webp => Some("image/webp"),
        _ => None,
    }
}

fn wrong(message: impl Into<String>) -> RequestError {
    RequestError::new(Some("messages"), message)
}
