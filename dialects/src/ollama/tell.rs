//! Tells answers as Ollama does: lines of JSON, or one object.

use serde::Serialize;
use serde_json::{Value, json};

use super::Route;
use crate::{Event, Teller, Usage, WHOLE_BYTES_MAX};

/// Nanoseconds since the request came.
pub type Clock = Box<dyn Fn() -> u64 + Send>;

/// Tells a chat or a completion.
pub(super) struct Words {
    pub route: Route,
    pub model: String,
    /// RFC 3339.
    pub now: String,
    pub clock: Clock,
    pub streams: bool,
    pub heard: Heard,
}

/// What an answer said so far and is still to be told.
#[derive(Default)]
pub(super) struct Heard {
    text: String,
    thought: String,
    calls: Vec<Call>,
    /// When the first word came.
    first_ns: Option<u64>,
    cut: bool,
    usage: Usage,
    fault: Option<String>,
}

struct Call {
    id: String,
    name: String,
    arguments: String,
}

impl Teller for Words {
    fn content_type(&self) -> &'static str {
        if self.streams { "application/x-ndjson" } else { "application/json" }
    }

    fn streams(&self) -> bool {
        self.streams
    }

    fn tell(&mut self, event: Event, out: &mut Vec<u8>) {
        if self.heard.fault.is_some() {
            return;
        }
        let finishes = matches!(event, Event::Finish(_));
        self.hear(event);
        match &self.heard.fault {
            _ if !self.streams => {}
            Some(message) => self.write(json!({ "error": message }), out),
            None => self.tell_heard(finishes, out),
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        match &self.heard.fault {
            Some(_) if self.streams => return,
            Some(message) => return self.write(json!({ "error": message }), out),
            None if self.streams => self.tell_heard(true, out),
            None => {}
        }
        let mut line = self.line(true);
        for (field, value) in self.outcome() {
            line[field] = value;
        }
        self.write(line, out);
    }

    fn broken_off(&mut self, cause: &str, out: &mut Vec<u8>) {
        if self.heard.fault.is_none() {
            self.write(json!({ "error": cause }), out);
        }
    }
}

impl Words {
    fn hear(&mut self, event: Event) {
        let heard = &mut self.heard;
        if matches!(event, Event::Text(_) | Event::Thought(_) | Event::Refusal(_) | Event::Call { .. }) {
            heard.first_ns.get_or_insert_with(&self.clock);
        }
        match event {
            Event::Text(text) | Event::Refusal(text) => append(&mut heard.text, &text),
            Event::Thought(text) => append(&mut heard.thought, &text),
            Event::Call { id, name, .. } => heard.calls.push(Call { id, name, arguments: String::new() }),
            Event::Arguments { place, json } => {
                if let Some(call) = heard.calls.get_mut(place) {
                    append(&mut call.arguments, &json);
                }
            }
            Event::Finish(reason) => heard.cut = reason == "length",
            Event::Usage(usage) => heard.usage = usage,
            Event::Vector { .. } => {}
            Event::Fault { message } => heard.fault = Some(message),
        }
    }

    /// One line with what there is to say, if anything. Calls are told once they are `complete`: their arguments may come in
    /// turns, so that only the reason to end says so.
    fn tell_heard(&mut self, complete: bool, out: &mut Vec<u8>) {
        let calls = complete && !self.heard.calls.is_empty();
        if calls || !self.heard.text.is_empty() || !self.heard.thought.is_empty() {
            let line = self.line(complete);
            self.write(line, out);
        }
    }

    /// Takes what was heard into a line; the calls too, if they are complete.
    fn line(&mut self, complete: bool) -> Value {
        let mut text = std::mem::take(&mut self.heard.text);
        let thought = std::mem::take(&mut self.heard.thought);
        let calls = if complete { std::mem::take(&mut self.heard.calls) } else { Vec::new() };
        let calls: Vec<Value> = calls.into_iter().enumerate().filter_map(|(place, call)| call.tell(place, &mut text)).collect();
        let chats = self.route == Route::Chat;
        let mut line = json!({ "model": self.model, "created_at": self.now });
        let said = if chats { &mut line["message"] } else { &mut line };
        if chats {
            said["role"] = json!("assistant");
        }
        said[if chats { "content" } else { "response" }] = json!(text);
        if !thought.is_empty() {
            said["thinking"] = json!(thought);
        }
        if !calls.is_empty() {
            said["tool_calls"] = json!(calls);
        }
        line["done"] = json!(false);
        line
    }

    /// What the last line says besides. Every number is there, and those that clients divide by are never 0. Of a whole answer
    /// nobody saw the first word, so that both parts are told as the whole time, which neither exceeds.
    fn outcome(&self) -> [(&'static str, Value); 8] {
        let total_ns = (self.clock)().max(1);
        let (prompt_ns, eval_ns) = match self.heard.first_ns.filter(|_| self.streams) {
            Some(first_ns) => (first_ns.max(1), total_ns.saturating_sub(first_ns).max(1)),
            None => (total_ns, total_ns),
        };
        [
            ("done", json!(true)),
            ("done_reason", json!(if self.heard.cut { "length" } else { "stop" })),
            ("total_duration", json!(total_ns)),
            ("load_duration", json!(0)),
            ("prompt_eval_count", json!(self.heard.usage.prompt)),
            ("prompt_eval_duration", json!(prompt_ns)),
            ("eval_count", json!(self.heard.usage.completion)),
            ("eval_duration", json!(eval_ns)),
        ]
    }

    fn write(&self, line: Value, out: &mut Vec<u8>) {
        out.extend_from_slice(line.to_string().as_bytes());
        if self.streams {
            out.push(b'\n');
        }
    }
}

impl Call {
    /// Arguments are an object. What is none (an answer cut off, a model that errs) is no call to Ollama but a part of the text.
    fn tell(self, place: usize, text: &mut String) -> Option<Value> {
        let arguments = match self.arguments.trim() {
            "" | "null" => json!({}),
            arguments => match serde_json::from_str(arguments) {
                Ok(object @ Value::Object(_)) => object,
                _ => {
                    append(text, arguments);
                    return None;
                }
            },
        };
        Some(json!({ "id": self.id, "function": { "index": place, "name": self.name, "arguments": arguments } }))
    }
}

fn append(text: &mut String, piece: &str) {
    if text.len() + piece.len() <= WHOLE_BYTES_MAX {
        text.push_str(piece);
    }
}

/// Tells vectors.
pub(super) struct Vectors {
    pub route: Route,
    pub model: String,
    pub clock: Clock,
    pub heard: Numbers,
}

#[derive(Default)]
pub(super) struct Numbers {
    vectors: Vec<Vec<f32>>,
    tokens: u64,
    fault: Option<String>,
}

/// The answer of `/api/embed`. Not a [`Value`], which would write every number with the digits of an `f64`.
#[derive(Serialize)]
struct Embedded<'a> {
    model: &'a str,
    embeddings: &'a [Vec<f32>],
    total_duration: u64,
    load_duration: u64,
    prompt_eval_count: u64,
}

/// The answer of `/api/embeddings`.
#[derive(Serialize)]
struct EmbeddedOne<'a> {
    embedding: &'a [f32],
}

impl Teller for Vectors {
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn streams(&self) -> bool {
        false
    }

    fn tell(&mut self, event: Event, _out: &mut Vec<u8>) {
        match event {
            // JSON has no word for what is not finite.
            Event::Vector { values, .. } => {
                self.heard.vectors.push(values.into_iter().map(|value| if value.is_finite() { value } else { 0.0 }).collect());
            }
            Event::Usage(usage) => self.heard.tokens = usage.prompt,
            Event::Fault { message } => self.heard.fault = Some(message),
            _ => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let answer = match (&self.heard.fault, self.route) {
            (Some(message), _) => serde_json::to_vec(&json!({ "error": message })),
            (None, Route::Embeddings) => {
                serde_json::to_vec(&EmbeddedOne { embedding: self.heard.vectors.first().map_or(&[], Vec::as_slice) })
            }
            (None, _) => serde_json::to_vec(&Embedded {
                model: &self.model,
                embeddings: &self.heard.vectors,
                total_duration: (self.clock)().max(1),
                load_duration: 0,
                prompt_eval_count: self.heard.tokens,
            }),
        };
        out.extend(answer.unwrap_or_default());
    }

    fn broken_off(&mut self, _cause: &str, _out: &mut Vec<u8>) {}
}
