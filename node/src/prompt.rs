//! What routing needs to know of an OpenAI request body, and nothing more: the rest is passed on unread.

use atmo_adapters::Operation;
use atmo_adapters::openai::form::Form;
use atmo_capabilities::intent::constraints::BODY_FIELD;
use atmo_capabilities::intent::{Conversation, PromptTokens};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Longest text that decides a route, in bytes; the embedder reads less than that.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// A request as routing sees it.
#[derive(Debug, PartialEq, Default)]
pub struct Prompt {
    pub model: String,
    /// The last user message, the prompt, or the first text to embed.
    pub text: String,
    /// Tools are offered to the model.
    pub tools: bool,
    /// Some message holds an image.
    pub vision: bool,
    /// How long all of it is.
    pub tokens: PromptTokens,
    /// The longest answer that was asked for.
    pub max_tokens: Option<u32>,
    pub conversation: Option<Conversation>,
    /// The field `atmo`, which no engine knows.
    pub atmo: Option<Value>,
}

/// What is wrong with a request body.
#[derive(Debug, PartialEq)]
pub struct PromptError {
    /// The field at fault.
    pub param: Option<&'static str>,
    pub message: String,
}

/// The fields that matter, still as the client wrote them.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    query: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(default)]
    max_tokens: Value,
    #[serde(default)]
    max_completion_tokens: Value,
    atmo: Option<Value>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    role: Value,
    #[serde(default)]
    content: Value,
}

/// Reads the body of a request for `operation`.
pub fn read(operation: Operation, body: &[u8]) -> Result<Prompt, PromptError> {
    if operation == Operation::Transcribe {
        return transcription(body);
    }
    let fields = fields(body)?;
    let model =
        fields.model.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok()).filter(|model| !model.trim().is_empty());
    let model = model.ok_or_else(|| wrong(Some("model"), "`model` is missing or no text: name a model, or \"auto\""))?;
    let tools = fields.tools.is_some_and(|raw| !matches!(raw.get().trim(), "null" | "[]"));
    let max_tokens = [&fields.max_completion_tokens, &fields.max_tokens].into_iter().find_map(Value::as_u64);
    let asked = match operation {
        Operation::Chat => chat(fields.messages)?,
        Operation::Complete => Prompt::of_text(first_text("prompt", fields.prompt)?),
        Operation::Embed => Prompt::of_text(first_text("input", fields.input)?),
        Operation::Rerank => Prompt::of_text(first_text("query", fields.query)?),
        Operation::Transcribe => Prompt::default(),
    };
    let max_tokens = max_tokens.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
    Ok(Prompt { model, text: cut(asked.text), tools, max_tokens, atmo: fields.atmo, ..asked })
}

/// A form with a file has a model, and no text before it was heard.
fn transcription(body: &[u8]) -> Result<Prompt, PromptError> {
    let form = Form::parse(body).map_err(|error| wrong(None, error.to_string()))?;
    let model = form.field("model").map(str::trim).filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| wrong(Some("model"), "the field `model` is missing: name a model, or \"auto\""))?;
    Ok(Prompt { model: model.to_owned(), ..Prompt::default() })
}

/// `body` without the field that is meant for this node alone: engines that refuse what they do not know would refuse the request. Every
/// other field stays as the client wrote it, in its order.
pub fn without_atmo(body: &[u8]) -> serde_json::Result<Vec<u8>> {
    let fields: Ordered<'_> = serde_json::from_slice(body)?;
    let kept: Vec<_> = fields.0.iter().filter(|(name, _)| name != BODY_FIELD).collect();
    let mut writer = serde_json::Serializer::new(Vec::with_capacity(body.len()));
    serde::Serializer::collect_map(&mut writer, kept.into_iter().map(|(name, value)| (name, value)))?;
    Ok(writer.into_inner())
}

/// The fields of an object in their order, unread.
struct Ordered<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Ordered<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> serde::de::Visitor<'de> for Fields {
            type Value = Ordered<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Ordered(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Prompt {
    fn of_text(text: String) -> Self {
        Self { tokens: PromptTokens::of(&text), text, ..Self::default() }
    }
}

fn fields(body: &[u8]) -> Result<Fields<'_>, PromptError> {
    // A list would be taken for the fields in their order.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'{') {
        return Err(wrong(None, "the body is no JSON object"));
    }
    let fields: Fields =
        serde_json::from_slice(body).map_err(|error| wrong(None, format!("the body is no JSON object: {error}")))?;
    match fields.stream.map(|raw| raw.get().trim()) {
        None | Some("true" | "false" | "null") => Ok(fields),
        Some(_) => Err(wrong(Some("stream"), "`stream` is neither true nor false")),
    }
}

fn wrong(param: Option<&'static str>, message: impl Into<String>) -> PromptError {
    PromptError { param, message: message.into() }
}

/// The last user message's text, whether any message holds an image, how long they all are and which conversation they belong to.
fn chat(messages: Option<&RawValue>) -> Result<Prompt, PromptError> {
    let missing = || wrong(Some("messages"), "`messages` is missing or no list of messages");
    let messages: Vec<Message> = messages.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or_else(missing)?;
    if messages.is_empty() {
        return Err(wrong(Some("messages"), "`messages` is empty"));
    }
    let vision = messages.iter().any(|message| parts(&message.content).any(|part| part["type"] == "image_url"));
    let said: Vec<(&str, String)> =
        messages.iter().map(|message| (message.role.as_str().unwrap_or_default(), text_of(&message.content))).collect();
    let tokens = said.iter().map(|(_, text)| PromptTokens::of(text)).fold(PromptTokens::default(), |sum, one| sum + one);
    let conversation = Conversation::of(said.iter().map(|(role, text)| (*role, text.as_str())));
    let asked = said.iter().rev().find(|(role, _)| *role == "user").or(said.last());
    let text = asked.map(|(_, text)| text.clone()).unwrap_or_default();
    Ok(Prompt { text, vision, tokens, conversation, ..Prompt::default() })
}

fn parts(content: &Value) -> impl Iterator<Item = &Value> {
    content.as_array().into_iter().flatten()
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        _ => parts(content).filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
    }
}

/// A string, or the first of a list; lists of token numbers have no text.
fn first_text(param: &'static str, raw: Option<&RawValue>) -> Result<String, PromptError> {
    let missing = || wrong(Some(param), format!("`{param}` is missing: text, or a list of texts"));
    match raw.and_then(|raw| serde_json::from_str(raw.get()).ok()) {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(texts)) => Ok(texts.first().and_then(Value::as_str).unwrap_or_default().to_owned()),
        _ => Err(missing()),
    }
}

/// The beginning and the end of a long text: what is wanted usually stands first or last.
fn cut(text: String) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let head = text.floor_char_boundary(TEXT_BYTES_MAX / 2);
    let tail = text.ceil_char_boundary(text.len() - TEXT_BYTES_MAX / 2);
    format!("{}\n{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_user_message_decides() {
        let body = br#"{"model":"auto","messages":[{"role":"user","content":"first"},{"role":"assistant","content":"x"},
            {"role":"user","content":[{"type":"text","text":"second"},{"type":"image_url","image_url":{"url":"u"}}]},
            {"role":"tool","content":"y"}],"tools":[{"type":"function"}],"unknown":{"a":1}}"#;
        let prompt = read(Operation::Chat, body).unwrap();
        assert_eq!((prompt.model.as_str(), prompt.text.as_str(), prompt.tools, prompt.vision), ("auto", "second", true, true));
        assert!(prompt.conversation.is_some_and(|conversation| conversation.continued) && prompt.tokens.likely > 3);
    }

    #[test]
    fn what_is_meant_for_the_node_goes_no_further() {
        let body = br#"{"z":1.50,"atmo":{"max_cost":0.02},"messages":[{"role":"user","content":"a"}],"model":"m","max_tokens":7,"a":[ 1 ]}"#;
        let prompt = read(Operation::Chat, body).unwrap();
        assert_eq!((prompt.max_tokens, prompt.atmo.unwrap()["max_cost"].as_f64()), (Some(7), Some(0.02)));
        let kept = String::from_utf8(without_atmo(body).unwrap()).unwrap();
        assert_eq!(kept, r#"{"z":1.50,"messages":[{"role":"user","content":"a"}],"model":"m","max_tokens":7,"a":[ 1 ]}"#);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (body, param) in [
            (&br#"{"messages":[{"role":"user","content":"a"}]}"#[..], Some("model")),
            (br#"{"model":7,"messages":[]}"#, Some("model")),
            (br#"{"model":"m"}"#, Some("messages")),
            (br#"{"model":"m","messages":"hi"}"#, Some("messages")),
            (br#"{"model":"m","messages":[]}"#, Some("messages")),
            (br#"{"model":"m","messages":["hi"]}"#, Some("messages")),
            (br#"{"model":"m","messages":[{"role":"user","content":"a"}],"stream":"yes"}"#, Some("stream")),
            (b"not json", None),
            (b"[]", None),
        ] {
            assert_eq!(read(Operation::Chat, body).unwrap_err().param, param, "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(read(Operation::Embed, br#"{"model":"m"}"#).unwrap_err().param, Some("input"));
        assert_eq!(read(Operation::Embed, br#"{"model":"m","input":["a","b"]}"#).unwrap().text, "a");
    }

    #[test]
    fn a_long_text_keeps_both_ends() {
        let text = format!("start {} end", "ü".repeat(TEXT_BYTES_MAX));
        let kept = cut(text);
        assert!(kept.starts_with("start") && kept.ends_with("end") && kept.len() <= TEXT_BYTES_MAX + 1);
    }
}
