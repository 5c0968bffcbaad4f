//! What clients speak: OpenAI's Responses, Ollama's and Anthropic's APIs, told as OpenAI's chat completions and back.
//!
//! Pure: bytes in, bytes out; no socket, no clock, no mesh. A dialect reads its request into the one shape that backends understand
//! ([`Asked`]) and tells their answer as its client expects it ([`Teller`]), event by event as it comes. [`chat`] reads answers, so that a
//! dialect never sees how they were cut or whether they were streamed.

pub mod anthropic;
pub mod chat;
pub mod ollama;
pub mod responses;
pub mod sse;

use serde_json::Value;

pub use chat::{Event, Reader, Usage};

/// Longest answer that is read as a whole before it is told, in bytes.
pub const WHOLE_BYTES_MAX: usize = 64 << 20;

/// What a request becomes: a path below `/v1` of the OpenAI API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    Chat,
    Complete,
    Embed,
}

/// A request as backends understand it, and who tells the client their answer.
pub struct Asked {
    pub operation: Operation,
    /// The OpenAI request. `stream` is set as the client wants it, with `stream_options.include_usage` where it is `true`.
    pub body: Value,
    pub teller: Box<dyn Teller>,
}

/// Tells one answer in a client's dialect. What it writes is complete after every event: nothing is held back that could be said.
pub trait Teller: Send {
    /// Of the answer: `text/event-stream`, `application/x-ndjson`, `application/json`.
    fn content_type(&self) -> &'static str;

    /// Whether the client gets the answer as it comes.
    fn streams(&self) -> bool;

    /// Appends what the next event means to `out`; nothing where the answer is told as a whole.
    fn tell(&mut self, event: Event, out: &mut Vec<u8>);

    /// Appends what stands behind the last event.
    fn end(&mut self, out: &mut Vec<u8>);

    /// Appends how a stream says that it broke off. Called instead of `end`, for streams alone.
    fn broken_off(&mut self, cause: &str, out: &mut Vec<u8>);
}

/// A request that a dialect does not understand.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// The field that is to blame.
    pub param: Option<&'static str>,
    pub message: String,
}

impl RequestError {
    pub fn new(param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { param, message: message.into() }
    }
}

/// Whose shape errors have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dialect {
    #[default]
    OpenAi,
    Ollama,
    Anthropic,
}

/// What went wrong, before it has a shape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault<'a> {
    pub status: u16,
    /// OpenAI's `type`: `invalid_request_error`, `server_error`.
    pub kind: &'a str,
    pub message: &'a str,
    pub param: Option<&'a str>,
    pub code: Option<&'a str>,
}

impl Dialect {
    /// The body of an answer that is an error.
    pub fn fault(self, fault: &Fault<'_>) -> Value {
        match self {
            Self::OpenAi => chat::fault(fault),
            Self::Ollama => ollama::fault(fault),
            Self::Anthropic => anthropic::fault(fault),
        }
    }
}
