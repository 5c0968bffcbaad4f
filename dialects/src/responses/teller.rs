//! The answer, event by event.
//!
//! Thoughts and texts end where the next item begins. Calls stay open until the answer is finished, for engines may send their
//! arguments by turns.

use serde_json::{Value, json};

use super::Fields;
use super::answer::{Item, Part, Said, Status, Voice, usage};
use crate::{Event, Teller, Usage, WHOLE_BYTES_MAX};

/// Items and parts that one answer may hold. An answer beyond this or [`WHOLE_BYTES_MAX`] is cut there and told as too long.
const PIECES_MAX: usize = 4_096;

/// Tells one response, streamed or whole.
pub struct ResponseTeller {
    id: String,
    /// The response object, as far as the request decides it.
    frame: Value,
    streams: bool,
    sequence: u64,
    begun: bool,
    ended: bool,
    items: Vec<Item>,
    /// Which item thoughts or texts go on in.
    speaking: Option<usize>,
    pieces: usize,
    bytes: usize,
    finish: Option<String>,
    usage: Usage,
    error: Option<String>,
}

impl Teller for ResponseTeller {
    fn content_type(&self) -> &'static str {
        if self.streams { "text/event-stream" } else { "application/json" }
    }

    fn streams(&self) -> bool {
        self.streams
    }

    fn tell(&mut self, event: Event, out: &mut Vec<u8>) {
        if self.ended || self.error.is_some() {
            return;
        }
        self.begin(out);
        match event {
            Event::Thought(text) => self.say(Voice::Thought, &text, out),
            Event::Text(text) => self.say(Voice::Text, &text, out),
            Event::Refusal(text) => self.say(Voice::Refusal, &text, out),
            Event::Call { place, id, name } => self.call(place, id, name, out),
            Event::Arguments { place, json } => self.argue(place, &json, out),
            Event::Finish(reason) => {
                self.finish.get_or_insert(reason);
                self.close_all(out);
            }
            Event::Usage(usage) => self.usage = usage,
            Event::Vector { .. } => {}
            Event::Fault { message } => {
                self.error = Some(message);
                if self.streams {
                    self.conclude(out);
                }
            }
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if !self.ended {
            self.begin(out);
            self.close_all(out);
            self.conclude(out);
        }
    }

    fn broken_off(&mut self, cause: &str, out: &mut Vec<u8>) {
        if !self.ended {
            self.begin(out);
            self.error.get_or_insert_with(|| cause.to_owned());
            self.conclude(out);
        }
    }
}

impl ResponseTeller {
    /// `frame` is the response object while it is in progress; the ids of its items are made of `id`.
    pub fn new(frame: Value, id: &str, streams: bool) -> Self {
        Self {
            id: id.to_owned(),
            frame,
            streams,
            sequence: 0,
            begun: false,
            ended: false,
            items: Vec::new(),
            speaking: None,
            pieces: 0,
            bytes: 0,
            finish: None,
            usage: Usage::default(),
            error: None,
        }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            self.emit("response.created", json!({ "response": self.frame }), out);
            self.emit("response.in_progress", json!({ "response": self.frame }), out);
        }
    }

    fn say(&mut self, voice: Voice, text: &str, out: &mut Vec<u8>) {
        if self.is_full(text) {
            return;
        }
        let place = self.speak(voice, out);
        let Some(parts) = self.items[place].parts(voice) else { return };
        if parts.last().is_none_or(|part| part.voice != voice) {
            self.end_part(place, out);
            self.begin_part(place, voice, out);
        }
        if let Some(part) = self.items[place].parts(voice).and_then(|parts| parts.last_mut()) {
            part.text.push_str(text);
        }
        let (name, logprobs) = match voice {
            Voice::Thought => ("response.reasoning_text.delta", None),
            Voice::Text => ("response.output_text.delta", Some(json!([]))),
            Voice::Refusal => ("response.refusal.delta", None),
        };
        self.emit_part(name, place, [("delta", Some(text.into())), ("logprobs", logprobs)], out);
    }

    /// The item that `voice` goes on in, begun if need be.
    fn speak(&mut self, voice: Voice, out: &mut Vec<u8>) -> usize {
        match self.speaking {
            Some(place) if self.items[place].parts(voice).is_some() => place,
            _ => {
                self.fall_silent(out);
                let place = self.add(Item::of(voice, &self.id, self.items.len()), out);
                self.speaking = Some(place);
                place
            }
        }
    }

    fn fall_silent(&mut self, out: &mut Vec<u8>) {
        if let Some(place) = self.speaking.take() {
            self.close(place, Status::Completed, out);
        }
    }

    fn call(&mut self, place: usize, call_id: String, name: String, out: &mut Vec<u8>) {
        if self.call_at(place).is_some() || self.is_full(&name) {
            return;
        }
        self.fall_silent(out);
        let index = self.items.len();
        // Clients tell calls apart by this id alone, and some engines repeat it.
        let taken = self.items.iter().any(|item| matches!(&item.said, Said::Call { call_id: other, .. } if *other == call_id));
        let call_id = if taken { format!("{call_id}_{index}") } else { call_id };
        self.add(Item::call(place, call_id, name, &self.id, index), out);
    }

    fn argue(&mut self, place: usize, json: &str, out: &mut Vec<u8>) {
        if let Some(index) = self.call_at(place).filter(|index| self.items[*index].is_open())
            && !self.is_full(json)
        {
            self.add_arguments(index, json, out);
        }
    }

    fn add_arguments(&mut self, index: usize, json: &str, out: &mut Vec<u8>) {
        if let Said::Call { arguments, .. } = &mut self.items[index].said {
            arguments.push_str(json);
        }
        let fields = json!({ "item_id": self.items[index].id, "output_index": index, "delta": json });
        self.emit("response.function_call_arguments.delta", fields, out);
    }

    fn call_at(&self, wanted: usize) -> Option<usize> {
        self.items.iter().position(|item| matches!(item.said, Said::Call { place, .. } if place == wanted))
    }

    /// Counts what is said. Once it is too much, the rest is left out.
    fn is_full(&mut self, text: &str) -> bool {
        self.bytes = self.bytes.saturating_add(text.len());
        let full = self.bytes > WHOLE_BYTES_MAX || self.pieces >= PIECES_MAX;
        if full {
            self.bytes = usize::MAX;
            self.finish = Some("length".to_owned());
        }
        full
    }

    fn add(&mut self, item: Item, out: &mut Vec<u8>) -> usize {
        let index = self.items.len();
        self.pieces += 1;
        self.emit("response.output_item.added", json!({ "output_index": index, "item": item.json() }), out);
        self.items.push(item);
        index
    }

    fn begin_part(&mut self, place: usize, voice: Voice, out: &mut Vec<u8>) {
        let part = Part { voice, text: String::new() };
        let json = part.json();
        if let Some(parts) = self.items[place].parts(voice) {
            parts.push(part);
        }
        self.pieces += 1;
        self.emit_part("response.content_part.added", place, [("part", Some(json))], out);
    }

    fn end_part(&mut self, place: usize, out: &mut Vec<u8>) {
        let (Said::Reasoning(parts) | Said::Message(parts)) = &self.items[place].said else { return };
        let Some(part) = parts.last() else { return };
        let (name, text, logprobs) = match part.voice {
            Voice::Thought => ("response.reasoning_text.done", "text", None),
            Voice::Text => ("response.output_text.done", "text", Some(json!([]))),
            Voice::Refusal => ("response.refusal.done", "refusal", None),
        };
        let said = part.text.as_str().into();
        let json = part.json();
        self.emit_part(name, place, [(text, Some(said)), ("logprobs", logprobs)], out);
        self.emit_part("response.content_part.done", place, [("part", Some(json))], out);
    }

    fn close_all(&mut self, out: &mut Vec<u8>) {
        self.speaking = None;
        let status = if self.is_cut() { Status::Incomplete } else { Status::Completed };
        for place in 0..self.items.len() {
            if self.items[place].is_open() {
                self.close(place, status, out);
            }
        }
    }

    fn close(&mut self, place: usize, status: Status, out: &mut Vec<u8>) {
        match &self.items[place].said {
            Said::Call { .. } => self.end_arguments(place, status, out),
            Said::Reasoning(_) | Said::Message(_) => self.end_part(place, out),
        }
        let item = &mut self.items[place];
        item.status = status;
        let json = item.json();
        self.emit("response.output_item.done", json!({ "output_index": place, "item": json }), out);
    }

    fn end_arguments(&mut self, place: usize, status: Status, out: &mut Vec<u8>) {
        let empty = matches!(&self.items[place].said, Said::Call { arguments, .. } if arguments.is_empty());
        if empty && status == Status::Completed {
            // Clients parse arguments, also those of a function that takes none.
            self.add_arguments(place, "{}", out);
        }
        let item = &self.items[place];
        if let Said::Call { name, arguments, .. } = &item.said {
            let fields = json!({ "item_id": item.id, "output_index": place, "name": name, "arguments": arguments });
            self.emit("response.function_call_arguments.done", fields, out);
        }
    }

    fn conclude(&mut self, out: &mut Vec<u8>) {
        self.ended = true;
        self.items.iter_mut().filter(|item| item.is_open()).for_each(|item| item.status = Status::Incomplete);
        let status = match &self.error {
            Some(_) => "failed",
            None if self.is_cut() => "incomplete",
            None => "completed",
        };
        let response = self.response(status);
        if self.streams {
            self.emit(&format!("response.{status}"), json!({ "response": response }), out);
        } else {
            out.extend_from_slice(response.to_string().as_bytes());
        }
    }

    fn response(&mut self, status: &str) -> Value {
        let mut response = self.frame.take();
        response["status"] = status.into();
        response["output"] = self.items.iter().map(Item::json).collect();
        match &self.error {
            Some(message) => response["error"] = json!({ "code": "server_error", "message": message }),
            // Some clients refuse an answer without it.
            None => response["usage"] = usage(&self.usage),
        }
        if let Some(reason) = self.cut_by().filter(|_| self.error.is_none()) {
            response["incomplete_details"] = json!({ "reason": reason });
        }
        response
    }

    fn is_cut(&self) -> bool {
        self.error.is_some() || self.cut_by().is_some()
    }

    fn cut_by(&self) -> Option<&'static str> {
        match self.finish.as_deref() {
            Some("length") => Some("max_output_tokens"),
            Some("content_filter") => Some("content_filter"),
            _ => None,
        }
    }

    /// An event about the last part of the item at `place`.
    fn emit_part<const N: usize>(&mut self, name: &str, place: usize, more: [(&str, Option<Value>); N], out: &mut Vec<u8>) {
        let item = &self.items[place];
        let (Said::Reasoning(parts) | Said::Message(parts)) = &item.said else { return };
        let index = parts.len().saturating_sub(1);
        let mut fields = json!({ "item_id": item.id, "output_index": place, "content_index": index });
        for (key, value) in more {
            if let Some(value) = value {
                fields[key] = value;
            }
        }
        self.emit(name, fields, out);
    }

    fn emit(&mut self, name: &str, fields: Value, out: &mut Vec<u8>) {
        if !self.streams {
            return;
        }
        let mut event = Fields::new();
        event.insert("type".to_owned(), name.into());
        event.insert("sequence_number".to_owned(), self.sequence.into());
        if let Value::Object(fields) = fields {
            event.extend(fields);
        }
        self.sequence += 1;
        out.extend_from_slice(format!("event: {name}\ndata: {}\n\n", Value::Object(event)).as_bytes());
    }
}
