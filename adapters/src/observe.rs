//! Reads what an answer used out of its bytes as they pass, without holding any of them back.
//!
//! Engines say `usage` at the end of a JSON answer, and in the last chunks of a stream when asked to. Where they do not, the pieces of
//! text are counted instead: most engines send one per token, so the count is near enough for a speed, not for a bill.

use serde_json::Value;

use crate::openai::types::ChatChunk;
pub use crate::openai::types::Usage;
use atmo_dialects::sse::SseParser;

/// How much of the end of a JSON answer is kept to find `usage` in; it stands behind the text, and little follows it.
const TAIL_BYTES: usize = 4 << 10;

/// The last event of a stream.
const DONE: &str = "[DONE]";

/// Fed with the chunks of one answer. Pure: knows no clock, changes no byte.
#[derive(Debug)]
pub struct Observer {
    form: Form,
    usage: Option<Usage>,
    pieces: u32,
    finish_reason: Option<String>,
    /// The stream said that it was over.
    done: bool,
}

#[derive(Debug)]
enum Form {
    Events(SseParser),
    /// The end of the body so far.
    Json(Vec<u8>),
}

impl Observer {
    /// For an answer of this content type: `text/event-stream` or anything else, taken as JSON.
    pub fn new(content_type: &str) -> Self {
        let events = content_type.trim_start().starts_with("text/event-stream");
        let form = if events { Form::Events(SseParser::new()) } else { Form::Json(Vec::new()) };
        Self { form, usage: None, pieces: 0, finish_reason: None, done: false }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        match &mut self.form {
            Form::Events(parser) => {
                let events = parser.push(bytes);
                self.done |= events.iter().any(|event| event.data.trim() == DONE);
                events.iter().filter_map(|event| ChatChunk::read(&event.data)).for_each(|chunk| self.take(chunk));
            }
            Form::Json(tail) => keep_tail(tail, bytes),
        }
    }

    /// What the engine said, or what was counted where it said nothing. At the end of the answer.
    pub fn usage(&self) -> Usage {
        self.reported().unwrap_or(Usage { prompt_tokens: 0, completion_tokens: self.pieces })
    }

    /// What the engine said itself.
    pub fn reported(&self) -> Option<Usage> {
        match &self.form {
            Form::Events(_) => self.usage,
            Form::Json(tail) => usage_in(tail),
        }
    }

    /// Pieces of text so far; streams only.
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// Why a stream ended: `stop`, `length`. Absent where it broke off.
    pub fn finish_reason(&self) -> Option<&str> {
        self.finish_reason.as_deref()
    }

    /// Whether what was read so far is a whole answer. A stream whose connection merely ends looks like one that is over.
    pub fn is_complete(&self) -> bool {
        match &self.form {
            Form::Events(_) => self.done || self.finish_reason.is_some(),
            Form::Json(tail) => !tail.is_empty(),
        }
    }

    fn take(&mut self, chunk: ChatChunk) {
        self.pieces += u32::from(chunk.content.is_some_and(|text| !text.is_empty()));
        self.usage = chunk.usage.or(self.usage);
        self.finish_reason = chunk.finish_reason.or(self.finish_reason.take());
    }
}

fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
    let excess = tail.len().saturating_sub(TAIL_BYTES);
    tail.drain(..excess);
}

/// The last `"usage":{...}` in the end of a body. Text inside the answer cannot pass for it: its quotes are escaped there.
fn usage_in(tail: &[u8]) -> Option<Usage> {
    const KEY: &[u8] = b"\"usage\"";
    let at = tail.windows(KEY.len()).rposition(|window| window == KEY)?;
    let rest = tail[at + KEY.len()..].trim_ascii_start().strip_prefix(b":")?;
    let object = serde_json::Deserializer::from_slice(rest).into_iter::<Value>().next()?.ok()?;
    Usage::read(&object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(content_type: &str, body: &str, piece: usize) -> Observer {
        let mut observer = Observer::new(content_type);
        body.as_bytes().chunks(piece).for_each(|bytes| observer.push(bytes));
        observer
    }

    #[test]
    fn usage_is_read_from_a_stream_wherever_it_is_cut() {
        let body = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
                    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":9}}\n\ndata: [DONE]\n\n";
        for piece in [1, 7, 1000] {
            let observer = observed("text/event-stream; charset=utf-8", body, piece);
            assert_eq!(observer.usage(), Usage { prompt_tokens: 4, completion_tokens: 9 });
            assert_eq!((observer.pieces(), observer.finish_reason()), (1, Some("stop")));
            assert!(observer.is_complete());
        }
    }

    #[test]
    fn pieces_are_counted_where_a_stream_says_nothing() {
        let body = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n".repeat(3);
        let observer = observed("text/event-stream", &body, 11);
        assert_eq!((observer.usage().completion_tokens, observer.reported()), (3, None));
        assert!(!observer.is_complete(), "it only stopped");
    }

    #[test]
    fn usage_is_read_from_json_and_not_from_its_text() {
        let long = "say \\\"usage\\\": {\\\"prompt_tokens\\\":1} ".repeat(500);
        let body = format!(
            r#"{{"choices":[{{"message":{{"content":"{long}"}}}}],"usage" : {{"prompt_tokens":2,"completion_tokens":3}},"x":1}}"#
        );
        assert_eq!(observed("application/json", &body, 100).usage(), Usage { prompt_tokens: 2, completion_tokens: 3 });
        assert_eq!(observed("application/json", "{\"usage\":", 3).reported(), None);
        assert_eq!(observed("application/json", &format!(r#"{{"content":"{long}"}}"#), 900).reported(), None);
    }
}
