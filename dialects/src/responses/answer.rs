//! The answer as an object, and the items in its `output`.

use serde_json::{Value, json};

use super::{Fields, given};
use crate::Usage;

/// The response object before it says anything: what it tells of its request. `null` stands for what the engine decides.
pub fn frame(request: &Fields, id: &str, now_s: u64) -> Value {
    let echo = |field: &str, default: Value| given(request, field).cloned().unwrap_or(default);
    let reasoning = |field: &str| given(request, "reasoning").and_then(|reasoning| reasoning.get(field)).cloned();
    let mut text = echo("text", json!({}));
    if text["format"].is_null() {
        text["format"] = json!({ "type": "text" });
    }
    json!({
        "id": format!("resp_{id}"),
        "object": "response",
        "created_at": now_s,
        "status": "in_progress",
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": echo("instructions", Value::Null),
        "max_output_tokens": echo("max_output_tokens", Value::Null),
        "max_tool_calls": echo("max_tool_calls", Value::Null),
        "model": echo("model", Value::Null),
        "output": [],
        "parallel_tool_calls": echo("parallel_tool_calls", true.into()),
        "previous_response_id": null,
        "prompt_cache_key": echo("prompt_cache_key", Value::Null),
        "reasoning": { "effort": reasoning("effort"), "summary": reasoning("summary") },
        "safety_identifier": echo("safety_identifier", Value::Null),
        "service_tier": "default",
        "store": false,
        "temperature": echo("temperature", Value::Null),
        "text": text,
        "tool_choice": echo("tool_choice", "auto".into()),
        "tools": echo("tools", json!([])),
        "top_logprobs": echo("top_logprobs", 0.into()),
        "top_p": echo("top_p", Value::Null),
        "truncation": echo("truncation", "disabled".into()),
        "usage": null,
        "user": echo("user", Value::Null),
        "metadata": echo("metadata", json!({})),
    })
}

/// Tokens in the words of this API.
pub fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt,
        "input_tokens_details": { "cached_tokens": usage.cached, "cache_write_tokens": 0 },
        "output_tokens": usage.completion,
        "output_tokens_details": { "reasoning_tokens": usage.thought },
        "total_tokens": usage.prompt.saturating_add(usage.completion),
    })
}

/// One entry of `output`.
pub struct Item {
    pub id: String,
    pub said: Said,
    pub status: Status,
}

pub enum Said {
    Reasoning(Vec<Part>),
    Message(Vec<Part>),
    /// `place` is the call's among the events.
    Call {
        place: usize,
        call_id: String,
        name: String,
        arguments: String,
    },
}

pub struct Part {
    pub voice: Voice,
    pub text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    Thought,
    Text,
    Refusal,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Status {
    InProgress,
    Completed,
    Incomplete,
}

impl Item {
    /// Empty, for what is said in `voice`.
    pub fn of(voice: Voice, id: &str, index: usize) -> Self {
        let (prefix, said) = match voice {
            Voice::Thought => ("rs", Said::Reasoning(Vec::new())),
            Voice::Text | Voice::Refusal => ("msg", Said::Message(Vec::new())),
        };
        Self { id: format!("{prefix}_{id}_{index}"), said, status: Status::InProgress }
    }

    pub fn call(place: usize, call_id: String, name: String, id: &str, index: usize) -> Self {
        let said = Said::Call { place, call_id, name, arguments: String::new() };
        Self { id: format!("fc_{id}_{index}"), said, status: Status::InProgress }
    }

    /// The parts that `voice` may add to.
    pub fn parts(&mut self, voice: Voice) -> Option<&mut Vec<Part>> {
        match (&mut self.said, voice) {
            (Said::Reasoning(parts), Voice::Thought) | (Said::Message(parts), Voice::Text | Voice::Refusal) => Some(parts),
            _ => None,
        }
    }

    pub fn is_open(&self) -> bool {
        self.status == Status::InProgress
    }

    pub fn json(&self) -> Value {
        let status = match self.status {
            Status::InProgress => "in_progress",
            Status::Completed => "completed",
            Status::Incomplete => "incomplete",
        };
        let content = |parts: &[Part]| parts.iter().map(Part::json).collect::<Vec<_>>();
        match &self.said {
            Said::Reasoning(parts) => {
                json!({ "id": self.id, "type": "reasoning", "status": status, "summary": [], "content": content(parts) })
            }
            Said::Message(parts) => {
                json!({ "id": self.id, "type": "message", "status": status, "role": "assistant", "content": content(parts) })
            }
            Said::Call { call_id, name, arguments, .. } => {
                json!({
                    "id": self.id, "type": "function_call", "status": status,
                    "arguments": arguments, "call_id": call_id, "name": name,
                })
            }
        }
    }
}

impl Part {
    pub fn json(&self) -> Value {
        match self.voice {
            Voice::Thought => json!({ "type": "reasoning_text", "text": self.text }),
            Voice::Text => json!({ "type": "output_text", "annotations": [], "logprobs": [], "text": self.text }),
            Voice::Refusal => json!({ "type": "refusal", "refusal": self.text }),
        }
    }
}
