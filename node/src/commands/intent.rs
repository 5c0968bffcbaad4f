//! `atmo intent`: run a text through the mesh and put the streamed answer together.

use std::time::Instant;

use atmo_adapters::observe::Observer;
use atmo_adapters::openai::types::ChatChunk;
use atmo_capabilities::explain::explain;
use atmo_capabilities::route::Decision;
use atmo_dialects::sse::SseParser;
use serde_json::{Value, json};

use crate::control::{CommandError, DeltaSender};
use crate::execute::{Answer, Ask, Attempt, ExecuteError};
use crate::node::Node;

/// Longest answer that is put together; a longer one is an error of the backend.
const ANSWER_BYTES_MAX: usize = 3 << 20;

/// Runs `ask`. With `deltas`, the pieces of the answer go there as they arrive.
pub async fn answer(node: &Node, ask: Ask, explained: bool, deltas: Option<DeltaSender>) -> Result<Value, CommandError> {
    let began = Instant::now();
    let answer = match node.executor.run(ask).await {
        Ok(answer) => answer,
        Err(ExecuteError::NothingFits(decision) | ExecuteError::Resting { decision, .. }) => {
            return Ok(nobody(&decision, began, explained));
        }
        Err(error @ (ExecuteError::Away { .. } | ExecuteError::NoRole(_))) => return Err(CommandError::failed(error)),
        Err(error @ ExecuteError::AllFailed(_)) => {
            return Err(CommandError::failed(format!("everyone who was asked failed: {error}")));
        }
    };
    let mut value = json!({ "route": route(&answer), "reason": answer.decision.reason, "failed": failures(&answer.failed) });
    if explained {
        value["explanation"] = explanation(&answer).into();
    }
    let mut reader = Reader::new(&answer, began, deltas);
    reader.read(answer).await?;
    value["answer"] = reader.text.into();
    value["usage"] = json!({
        "prompt_tokens": reader.observer.usage().prompt_tokens,
        "completion_tokens": reader.observer.usage().completion_tokens,
    });
    value["first_token_ms"] = reader.first_token_ms.into();
    value["total_ms"] = milliseconds(began).into();
    Ok(value)
}

fn nobody(decision: &Decision, began: Instant, explained: bool) -> Value {
    let mut value = json!({
        "answer": null, "route": null, "reason": decision.reason, "usage": null, "first_token_ms": null, "total_ms": milliseconds(began),
    });
    if explained {
        value["explanation"] = explain(decision).into();
    }
    value
}

fn route(answer: &Answer) -> Value {
    let by = &answer.by;
    json!({ "capability": by.name, "node": &*by.node_name, "model": by.model, "score": by.score, "hops": by.hops })
}

fn failures(attempts: &[Attempt]) -> Value {
    attempts.iter().map(|attempt| json!({ "capability": attempt.name, "message": attempt.message })).collect()
}

/// The decision, and what happened to it.
fn explanation(answer: &Answer) -> String {
    let mut text = explain(&answer.decision);
    for attempt in &answer.failed {
        text.push_str(&format!("\n{} was asked first and failed: {}", attempt.name, attempt.message));
    }
    if !answer.failed.is_empty() {
        text.push_str(&format!("\nanswered by {}", answer.by.name));
    }
    text
}

fn milliseconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1e5).round() / 100.0
}

/// Takes the answer's bytes apart.
struct Reader {
    status: u16,
    /// Events; `None` for a backend that answered with one JSON object although a stream was asked for.
    events: Option<SseParser>,
    whole: Vec<u8>,
    observer: Observer,
    text: String,
    began: Instant,
    first_token_ms: Option<f64>,
    deltas: Option<DeltaSender>,
}

impl Reader {
    fn new(answer: &Answer, began: Instant, deltas: Option<DeltaSender>) -> Self {
        let events = answer.content_type.starts_with("text/event-stream").then(SseParser::new);
        Self {
            status: answer.status,
            events,
            whole: Vec::new(),
            observer: Observer::new(&answer.content_type),
            text: String::new(),
            began,
            first_token_ms: None,
            deltas,
        }
    }

    async fn read(&mut self, mut answer: Answer) -> Result<(), CommandError> {
        let name = answer.by.name.clone();
        while let Some(piece) = answer.next().await {
            let bytes = piece.map_err(|error| CommandError::failed(format!("{name}: {error}")))?;
            self.observer.push(&bytes);
            self.take(&bytes).await?;
        }
        answer.finish();
        if self.events.is_none() {
            self.take_whole(&name).await?;
        }
        Ok(())
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        if self.text.len() + self.whole.len() + bytes.len() > ANSWER_BYTES_MAX {
            return Err(CommandError::failed(format!("the answer is longer than {} MiB", ANSWER_BYTES_MAX >> 20)));
        }
        let Some(parser) = &mut self.events else {
            self.whole.extend_from_slice(bytes);
            return Ok(());
        };
        for event in parser.push(bytes) {
            if let Some(message) = error_in(&event.data) {
                return Err(CommandError::failed(message));
            }
            if let Some(text) = ChatChunk::read(&event.data).and_then(|chunk| chunk.content) {
                self.say(text).await?;
            }
        }
        Ok(())
    }

    async fn take_whole(&mut self, name: &str) -> Result<(), CommandError> {
        let value: Value = serde_json::from_slice(&self.whole).map_err(|_| {
            CommandError::failed(format!("{name} answered with status {} and something that is not JSON", self.status))
        })?;
        if let Some(message) = error_in(&value.to_string()) {
            return Err(CommandError::failed(format!("{name} refused: {message}")));
        }
        let text = value["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
        self.say(text).await
    }

    async fn say(&mut self, text: String) -> Result<(), CommandError> {
        if text.is_empty() {
            return Ok(());
        }
        let began = self.began;
        self.first_token_ms.get_or_insert_with(|| milliseconds(began));
        self.text.push_str(&text);
        match &self.deltas {
            Some(deltas) => deltas.send(text).await.map_err(CommandError::failed),
            None => Ok(()),
        }
    }
}

/// The message of an error in OpenAI's or a related shape.
fn error_in(data: &str) -> Option<String> {
    let value: Value = serde_json::from_str(data).ok()?;
    let error = value.get("error").filter(|error| !error.is_null())?;
    Some(error["message"].as_str().or(error.as_str()).map_or_else(|| error.to_string(), str::to_owned))
}
