//! Input items as messages.
//!
//! A model's text and its calls are items of their own here and one message there. Developers are told as the system, which
//! every chat template knows; what system and developers say before the first turn is one message, for many templates take no
//! second.

use serde_json::{Value, json};

use super::{Fields, given, short};
use crate::RequestError;

/// Items that one request may hold, a guess far above any conversation that fits a model.
const ITEMS_MAX: usize = 16_384;
/// Parts that one item may hold, a guess.
const PARTS_MAX: usize = 4_096;

/// The conversation that `instructions` and `input` make.
pub fn messages(request: &Fields) -> Result<Vec<Value>, RequestError> {
    let mut conversation = Conversation::default();
    match given(request, "instructions") {
        None => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(text @ Value::String(_)) => conversation.system(text.clone()),
        Some(_) => return Err(RequestError::new(Some("instructions"), "`instructions` must be a text")),
    }
    let wrong = |message: String| RequestError::new(Some("input"), message);
    match given(request, "input") {
        Some(text @ Value::String(_)) => conversation.say("user", text.clone()),
        Some(Value::Array(items)) if items.len() <= ITEMS_MAX => {
            for (index, item) in items.iter().enumerate() {
                conversation.item(item).map_err(|message| wrong(format!("`input[{index}]`: {message}")))?;
            }
        }
        _ => return Err(wrong(format!("`input` must be a text or a list of at most {ITEMS_MAX} items"))),
    }
    if conversation.0.is_empty() {
        return Err(wrong("`input` is empty".to_owned()));
    }
    Ok(conversation.0)
}

#[derive(Default)]
struct Conversation(Vec<Value>);

impl Conversation {
    fn item(&mut self, item: &Value) -> Result<(), String> {
        match word(item, "type").or(word(item, "role").map(|_| "message")) {
            Some("message") => self.message(item),
            Some("function_call") => self.call(item),
            Some("function_call_output") => self.output(item),
            Some("reasoning") => Ok(()),
            Some("item_reference") => Err("nothing is stored, so no item can be referred to: send the item itself".to_owned()),
            Some(kind) => Err(format!("items of type `{}` are not supported", short(kind))),
            None => Err("an item needs a `type`, a message a `role`".to_owned()),
        }
    }

    fn message(&mut self, item: &Value) -> Result<(), String> {
        let content = content(item.get("content"))?;
        match word(item, "role") {
            Some("user") => self.say("user", content),
            Some("system" | "developer") => self.system(content),
            Some("assistant") => self.answer(content),
            _ => return Err("`role` must be user, assistant, system or developer".to_owned()),
        }
        Ok(())
    }

    fn call(&mut self, item: &Value) -> Result<(), String> {
        let arguments = match item.get("arguments") {
            Some(Value::String(json)) => json.clone(),
            Some(object @ Value::Object(_)) => object.to_string(),
            _ => "{}".to_owned(),
        };
        let function = json!({ "name": text(item, "name")?, "arguments": arguments });
        let call = json!({ "id": text(item, "call_id")?, "type": "function", "function": function });
        let Some(message) = self.last_answer() else {
            self.0.push(json!({ "role": "assistant", "content": null, "tool_calls": [call] }));
            return Ok(());
        };
        match message.get_mut("tool_calls").and_then(Value::as_array_mut) {
            Some(calls) => calls.push(call),
            None => drop(message.insert("tool_calls".to_owned(), json!([call]))),
        }
        Ok(())
    }

    fn output(&mut self, item: &Value) -> Result<(), String> {
        let content = content(item.get("output")).map_err(|message| format!("`output`: {message}"))?;
        self.0.push(json!({ "role": "tool", "tool_call_id": text(item, "call_id")?, "content": content }));
        Ok(())
    }

    fn system(&mut self, content: Value) {
        if let ([first], Some(text)) = (&mut self.0[..], content.as_str())
            && first["role"] == "system"
            && let Some(before) = first["content"].as_str()
        {
            first["content"] = Value::String(format!("{before}\n\n{text}"));
            return;
        }
        self.say("system", content);
    }

    fn answer(&mut self, content: Value) {
        match self.last_answer() {
            Some(message) if message.get("content") == Some(&Value::Null) => drop(message.insert("content".to_owned(), content)),
            _ => self.say("assistant", content),
        }
    }

    fn last_answer(&mut self) -> Option<&mut Fields> {
        self.0.last_mut().filter(|message| message["role"] == "assistant").and_then(Value::as_object_mut)
    }

    fn say(&mut self, role: &str, content: Value) {
        self.0.push(json!({ "role": role, "content": content }));
    }
}

/// One text where all of it is text, as engines would join it; else a list of parts.
fn content(content: Option<&Value>) -> Result<Value, String> {
    let parts = match content {
        None | Some(Value::Null) => return Ok(Value::String(String::new())),
        Some(text @ Value::String(_)) => return Ok(text.clone()),
        Some(Value::Array(parts)) if parts.len() <= PARTS_MAX => parts,
        Some(_) => return Err(format!("a content must be a text or a list of at most {PARTS_MAX} parts")),
    };
    let parts: Vec<Value> = parts.iter().map(part).collect::<Result<_, _>>()?;
    let texts: Option<Vec<&str>> = parts.iter().map(|part| word(part, "text")).collect();
    Ok(texts.map_or_else(|| Value::Array(parts.clone()), |texts| Value::String(texts.join("\n"))))
}

fn part(part: &Value) -> Result<Value, String> {
    match word(part, "type") {
        Some("input_text" | "output_text" | "text") => Ok(json!({ "type": "text", "text": text(part, "text")? })),
        Some("refusal") => Ok(json!({ "type": "text", "text": text(part, "refusal")? })),
        Some("input_image") => image(part),
        Some("input_audio") => {
            Ok(json!({ "type": "input_audio", "input_audio": part.get("input_audio").unwrap_or(&Value::Null) }))
        }
        Some("input_file") => Err("files (`input_file`) are not supported: send their text as `input_text`".to_owned()),
        Some(kind) => Err(format!("parts of type `{}` are not supported", short(kind))),
        None => Err("a part needs a `type`".to_owned()),
    }
}

fn image(part: &Value) -> Result<Value, String> {
    let url = word(part, "image_url").ok_or("`input_image` needs an `image_url`: nothing is stored, so there is no `file_id`")?;
    let mut image = json!({ "url": url });
    if let Some(detail) = word(part, "detail") {
        image["detail"] = detail.into();
    }
    Ok(json!({ "type": "image_url", "image_url": image }))
}

fn word<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str, String> {
    word(value, key).ok_or_else(|| format!("`{key}` is missing or no text"))
}
