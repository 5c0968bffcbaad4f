//! The turns of a conversation, read from `system` and `messages` and told as OpenAI's messages.
//!
//! Anthropic puts what tools answered into the user's turn, OpenAI into messages of their own before it. Consecutive turns of one role
//! are one turn, as Anthropic reads them; many chat templates insist on that.

use serde_json::{Value, json};

use super::{Fields, given, list, text_in, wrong};
use crate::RequestError;

/// Stands where a tool answered with an image alone: a message of a tool holds text, so the image follows in the user's turn.
const IMAGE_FOLLOWS: &str = "The image follows.";

enum Part {
    Text(String),
    /// By its address, which may be a `data:` one.
    Image(String),
}

enum Said {
    Turn {
        role: &'static str,
        turn: Turn,
    },
    /// A message that says what a tool answered.
    Result(Value),
}

#[derive(Default)]
struct Turn {
    parts: Vec<Part>,
    calls: Vec<Value>,
    results: Vec<Value>,
}

/// All messages, the system's first.
pub fn read(fields: &Fields) -> Result<Vec<Value>, RequestError> {
    let mut said = Vec::new();
    if let Some(system) = given(fields, "system") {
        let parts = parts(system).map_err(wrong("system"))?;
        add("system", Turn { parts, ..Turn::default() }, &mut said);
    }
    let error = wrong("messages");
    let messages = given(fields, "messages").ok_or_else(|| error("Field required".to_owned()))?;
    let messages = list(messages).map_err(&error)?;
    if messages.is_empty() {
        return Err(error("at least one message is required".to_owned()));
    }
    for (place, message) in messages.iter().enumerate() {
        let (role, turn) = read_message(message).map_err(|what| error(format!("{place}: {what}")))?;
        add(role, turn, &mut said);
    }
    Ok(said.into_iter().map(Said::told).collect())
}

fn read_message(message: &Value) -> Result<(&'static str, Turn), String> {
    let role = match text_in(message, "role")? {
        "user" => "user",
        "assistant" => "assistant",
        "system" => "system",
        role => return Err(format!("role: `{role}` is not one of `user`, `assistant` and `system`")),
    };
    let mut turn = Turn::default();
    match message.get("content") {
        None | Some(Value::Null) => return Err("content: Field required".to_owned()),
        Some(Value::String(text)) => turn.parts.push(Part::Text(text.clone())),
        Some(blocks) => {
            for (place, block) in list(blocks).map_err(|what| format!("content: {what}"))?.iter().enumerate() {
                turn.read(block, role).map_err(|what| format!("content.{place}: {what}"))?;
            }
        }
    }
    Ok((role, turn))
}

/// Adds a turn, to the one before where both have the same role. One that says nothing is left out.
fn add(role: &'static str, turn: Turn, said: &mut Vec<Said>) {
    let Turn { parts, calls, results } = turn;
    said.extend(results.into_iter().map(Said::Result));
    if let Some(Said::Turn { role: last, turn }) = said.last_mut()
        && *last == role
    {
        turn.parts.extend(parts);
        turn.calls.extend(calls);
    } else if !parts.is_empty() || !calls.is_empty() {
        said.push(Said::Turn { role, turn: Turn { parts, calls, results: Vec::new() } });
    }
}

impl Turn {
    fn read(&mut self, block: &Value, role: &str) -> Result<(), String> {
        match text_in(block, "type")? {
            "thinking" | "redacted_thinking" => {}
            "tool_use" if role == "assistant" => self.calls.push(call(block)?),
            "tool_result" if role == "user" => self.read_result(block)?,
            kind @ ("tool_use" | "tool_result") => return Err(format!("a message of `{role}` cannot hold a `{kind}`")),
            kind => read_part(kind, block, &mut self.parts)?,
        }
        Ok(())
    }

    fn read_result(&mut self, block: &Value) -> Result<(), String> {
        let id = text_in(block, "tool_use_id")?;
        let content = block.get("content").filter(|content| !content.is_null());
        let mut texts = Vec::new();
        let before = self.parts.len();
        for part in content.map(parts).transpose().map_err(|what| format!("content.{what}"))?.unwrap_or_default() {
            match part {
                Part::Text(text) => texts.push(text),
                image @ Part::Image(_) => self.parts.push(image),
            }
        }
        let mut text = texts.join("\n");
        if text.is_empty() && self.parts.len() > before {
            IMAGE_FOLLOWS.clone_into(&mut text);
        }
        if block.get("is_error").is_some_and(|error| error == true) {
            // OpenAI has no field for it, and a model should know.
            text = format!("Error: {text}");
        }
        self.results.push(json!({ "role": "tool", "tool_call_id": id, "content": text }));
        Ok(())
    }
}

impl Said {
    fn told(self) -> Value {
        let (role, turn) = match self {
            Self::Result(message) => return message,
            Self::Turn { role, turn } => (role, turn),
        };
        let mut message = json!({ "role": role, "content": content(role, turn.parts) });
        if !turn.calls.is_empty() {
            message["tool_calls"] = turn.calls.into();
        }
        message
    }
}

/// One text wherever that is enough: not every engine reads lists. What an assistant said goes on where its block ends; other blocks
/// stand on lines of their own.
fn content(role: &str, parts: Vec<Part>) -> Value {
    let between = if role == "assistant" { "" } else { "\n" };
    let texts: Option<Vec<&str>> = parts.iter().map(Part::text).collect();
    match texts {
        Some(texts) if texts.is_empty() => Value::Null,
        Some(texts) => texts.join(between).into(),
        None => parts.into_iter().map(Part::told).collect(),
    }
}

impl Part {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Image(_) => None,
        }
    }

    fn told(self) -> Value {
        match self {
            Self::Text(text) => json!({ "type": "text", "text": text }),
            Self::Image(url) => json!({ "type": "image_url", "image_url": { "url": url } }),
        }
    }
}

fn call(block: &Value) -> Result<Value, String> {
    let arguments = match block.get("input") {
        None | Some(Value::Null) => "{}".to_owned(),
        Some(input) => input.to_string(),
    };
    let function = json!({ "name": text_in(block, "name")?, "arguments": arguments });
    Ok(json!({ "id": text_in(block, "id")?, "type": "function", "function": function }))
}

/// A text, or blocks that are read as texts and images.
fn parts(content: &Value) -> Result<Vec<Part>, String> {
    if let Some(text) = content.as_str() {
        return Ok(vec![Part::Text(text.to_owned())]);
    }
    let mut parts = Vec::new();
    for (place, block) in list(content)?.iter().enumerate() {
        let read = text_in(block, "type").and_then(|kind| read_part(kind, block, &mut parts));
        read.map_err(|what| format!("{place}: {what}"))?;
    }
    Ok(parts)
}

fn read_part(kind: &str, block: &Value, out: &mut Vec<Part>) -> Result<(), String> {
    match kind {
        "text" => out.push(Part::Text(text_in(block, "text")?.to_owned())),
        "image" => out.push(Part::Image(image(&block["source"]).map_err(|what| format!("source.{what}"))?)),
        "document" => read_document(block, out)?,
        "search_result" => {
            add_texts(block, &["title", "source"], out);
            out.extend(parts(&block["content"]).map_err(|what| format!("content: {what}"))?);
        }
        kind => return Err(format!("blocks of the type `{kind}` cannot be read here")),
    }
    Ok(())
}

fn image(source: &Value) -> Result<String, String> {
    match text_in(source, "type")? {
        "base64" => Ok(format!("data:{};base64,{}", text_in(source, "media_type")?, text_in(source, "data")?)),
        "url" => text_in(source, "url").map(str::to_owned),
        kind => Err(format!("type: an image cannot be given as `{kind}` here")),
    }
}

fn read_document(block: &Value, out: &mut Vec<Part>) -> Result<(), String> {
    add_texts(block, &["title", "context"], out);
    let source = &block["source"];
    match text_in(source, "type").map_err(|what| format!("source.{what}"))? {
        "text" => out.push(Part::Text(text_in(source, "data").map_err(|what| format!("source.{what}"))?.to_owned())),
        "content" => out.extend(parts(&source["content"]).map_err(|what| format!("source.content: {what}"))?),
        kind => return Err(format!("source.type: a document cannot be given as `{kind}` here, only as `text` or `content`")),
    }
    Ok(())
}

fn add_texts(block: &Value, names: &[&str], out: &mut Vec<Part>) {
    let texts = names.iter().filter_map(|name| block.get(name).and_then(Value::as_str));
    out.extend(texts.map(|text| Part::Text(text.to_owned())));
}
