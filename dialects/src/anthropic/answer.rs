//! An answer told as a message, whole or in the events of a stream.

use serde_json::{Value, json};

use super::blocks::{Blocks, Key};
use super::error;
use crate::{Event, Teller, Usage};

/// Tells one answer.
pub struct Telling {
    id: String,
    model: String,
    streams: bool,
    /// Whether thoughts are told.
    thinks: bool,
    blocks: Blocks,
    /// The place of the first block among all that were told.
    index: usize,
    started: bool,
    /// After an error nothing more is told.
    over: bool,
    finish: String,
    refused: bool,
    called: bool,
    usage: Usage,
    fault: Option<String>,
}

impl Telling {
    /// `id` is what comes behind `msg_`.
    pub fn new(id: &str, model: String, streams: bool, thinks: bool) -> Self {
        Self {
            id: id.to_owned(),
            model,
            streams,
            thinks,
            blocks: Blocks::default(),
            index: 0,
            started: false,
            over: false,
            finish: String::new(),
            refused: false,
            called: false,
            usage: Usage::default(),
            fault: None,
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Text(text) => self.blocks.say(Key::Text, &text),
            Event::Thought(text) if self.thinks => self.blocks.say(Key::Thought, &text),
            Event::Refusal(text) => {
                self.refused = true;
                self.blocks.say(Key::Text, &text);
            }
            Event::Call { place, id, name } => {
                self.called = true;
                let id = self.call_id(place, id);
                self.blocks.call(place, id, name);
            }
            Event::Arguments { place, json } => self.blocks.say(Key::Call(place), &json),
            Event::Finish(reason) => self.finish = reason,
            Event::Usage(usage) => self.usage = usage,
            Event::Fault { message } => self.fault = Some(message),
            Event::Thought(_) | Event::Vector { .. } => {}
        }
    }

    /// A call that its backend gave no id would have the same one in the next turn; clients tell them apart by it.
    fn call_id(&self, place: usize, id: String) -> String {
        if id == format!("call_{place}") { format!("toolu_{}_{place}", self.id) } else { id }
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.started, true) {
            write(json!({ "type": "message_start", "message": self.message(json!([]), Value::Null) }), out);
            write(json!({ "type": "ping" }), out);
        }
    }

    /// Tells what the first block said, and the next ones where it has ended.
    fn tell_blocks(&mut self, out: &mut Vec<u8>) {
        loop {
            self.tell_first(out);
            if !self.blocks.has_next() {
                return;
            }
            self.stop_first(out);
        }
    }

    fn tell_first(&mut self, out: &mut Vec<u8>) {
        let said = self.blocks.take_said();
        let Some(block) = self.blocks.first() else { return };
        if !std::mem::replace(&mut block.open, true) {
            write(json!({ "type": "content_block_start", "index": self.index, "content_block": block.start() }), out);
        }
        if let Some(piece) = said {
            write(json!({ "type": "content_block_delta", "index": self.index, "delta": block.delta(&piece) }), out);
        }
    }

    fn stop_first(&mut self, out: &mut Vec<u8>) {
        let Some(block) = self.blocks.pop() else { return };
        if block.is_thought() {
            let delta = json!({ "type": "signature_delta", "signature": "" });
            write(json!({ "type": "content_block_delta", "index": self.index, "delta": delta }), out);
        }
        write(json!({ "type": "content_block_stop", "index": self.index }), out);
        self.index += 1;
    }

    fn end_stream(&mut self, out: &mut Vec<u8>) {
        self.start(out);
        while self.blocks.first().is_some() {
            self.tell_first(out);
            self.stop_first(out);
        }
        let delta = json!({ "stop_reason": self.stop_reason(), "stop_sequence": null });
        write(json!({ "type": "message_delta", "delta": delta, "usage": self.usage() }), out);
        write(json!({ "type": "message_stop" }), out);
    }

    fn break_off(&mut self, kind: &str, message: &str, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.over, true) {
            write(error(kind, message), out);
        }
    }

    fn message(&self, content: Value, stop_reason: Value) -> Value {
        json!({
            "id": format!("msg_{}", self.id),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": null,
            "usage": self.usage(),
        })
    }

    fn stop_reason(&self) -> &'static str {
        match self.finish.as_str() {
            "content_filter" => "refusal",
            _ if self.refused => "refusal",
            "length" => "max_tokens",
            _ if self.blocks.cut => "max_tokens",
            _ if self.called => "tool_use",
            _ => "end_turn",
        }
    }

    /// Anthropic counts what was read from a cache apart from the rest.
    fn usage(&self) -> Value {
        json!({
            "input_tokens": self.usage.prompt.saturating_sub(self.usage.cached),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": self.usage.cached,
            "output_tokens": self.usage.completion,
        })
    }
}

impl Teller for Telling {
    fn content_type(&self) -> &'static str {
        if self.streams { "text/event-stream" } else { "application/json" }
    }

    fn streams(&self) -> bool {
        self.streams
    }

    fn tell(&mut self, event: Event, out: &mut Vec<u8>) {
        if self.over {
            return;
        }
        self.take(event);
        if !self.streams {
            return;
        }
        if let Some(message) = self.fault.take() {
            return self.break_off("api_error", &message, out);
        }
        self.start(out);
        self.tell_blocks(out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if self.streams {
            return self.end_stream(out);
        }
        let answer = match &self.fault {
            Some(message) => error("api_error", message),
            None => {
                let stop_reason = self.stop_reason().into();
                let content = self.blocks.take_content();
                self.message(content, stop_reason)
            }
        };
        out.extend_from_slice(answer.to_string().as_bytes());
    }

    /// As an error of the API, which it is for whoever asked.
    fn broken_off(&mut self, cause: &str, out: &mut Vec<u8>) {
        self.break_off("api_error", cause, out);
    }
}

/// Writes one event under the name that its data has as `type`.
fn write(data: Value, out: &mut Vec<u8>) {
    let name = data["type"].as_str().unwrap_or_default();
    out.extend_from_slice(format!("event: {name}\ndata: {data}\n\n").as_bytes());
}
