//! Writes answers in OpenAI's shapes: whole, or chunk by chunk. Pure.

use bytes::Bytes;
use serde_json::{Value, json};

use super::frames::FinishReason;
use crate::Operation;
use crate::observe::Usage;
use crate::openai::types::error_body;
use atmo_dialects::sse::{DONE, write_event};

/// One answer in the making.
#[derive(Clone, Debug)]
pub struct Answer {
    pub operation: Operation,
    /// `chatcmpl-7`.
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    pub model: String,
    pub include_usage: bool,
}

impl Answer {
    /// The chunk that says who speaks; chats alone have one.
    pub fn opening(&self) -> Bytes {
        match self.operation {
            Operation::Chat => {
                self.chunk(json!({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}))
            }
            _ => Bytes::new(),
        }
    }

    pub fn text(&self, text: &str) -> Bytes {
        self.chunk(match self.operation {
            Operation::Chat => json!({"index": 0, "delta": {"content": text}, "finish_reason": null}),
            _ => json!({"index": 0, "text": text, "logprobs": null, "finish_reason": null}),
        })
    }

    /// The last chunks: why it ended, what it used where that was asked for, and the end mark.
    pub fn closing(&self, reason: FinishReason, usage: Usage) -> Bytes {
        let last = match self.operation {
            Operation::Chat => json!({"index": 0, "delta": {}, "finish_reason": reason.word()}),
            _ => json!({"index": 0, "text": "", "logprobs": null, "finish_reason": reason.word()}),
        };
        let mut bytes = self.chunk(last).to_vec();
        if self.include_usage {
            let mut chunk = self.envelope("chunk", json!([]));
            chunk["usage"] = usage_body(usage);
            bytes.extend_from_slice(&write_event(&chunk.to_string()));
        }
        bytes.extend_from_slice(&write_event(DONE));
        bytes.into()
    }

    /// An error after the first byte, when no status can tell it any more.
    pub fn broken(&self, message: &str) -> Bytes {
        write_event(&error_body(message, "server_error", None, Some("backend_failed")).to_string())
    }

    pub fn whole(&self, text: &str, reason: FinishReason, usage: Usage) -> Value {
        let choice = match self.operation {
            Operation::Chat => {
                json!({"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": null, "finish_reason": reason.word()})
            }
            _ => json!({"index": 0, "text": text, "logprobs": null, "finish_reason": reason.word()}),
        };
        let mut answer = self.envelope("whole", json!([choice]));
        answer["usage"] = usage_body(usage);
        answer
    }

    fn chunk(&self, choice: Value) -> Bytes {
        let mut chunk = self.envelope("chunk", json!([choice]));
        // With `include_usage` every chunk but the last has the field, empty.
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        write_event(&chunk.to_string())
    }

    fn envelope(&self, form: &str, choices: Value) -> Value {
        let object = match (self.operation, form) {
            (Operation::Chat, "chunk") => "chat.completion.chunk",
            (Operation::Chat, _) => "chat.completion",
            _ => "text_completion",
        };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices})
    }
}

fn usage_body(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Observer;

    fn answer(operation: Operation, include_usage: bool) -> Answer {
        Answer { operation, id: "chatcmpl-1".into(), created: 1, model: "m".into(), include_usage }
    }

    #[test]
    fn a_stream_reads_as_openai_writes_it() {
        let usage = Usage { prompt_tokens: 3, completion_tokens: 2 };
        let answer = answer(Operation::Chat, true);
        let stream =
            [answer.opening(), answer.text("Hel"), answer.text("lo\n"), answer.closing(FinishReason::Length, usage)].concat();
        let text = String::from_utf8(stream.clone()).unwrap();
        assert!(text.starts_with(
            "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":\
             {\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n"
        ));
        assert!(text.ends_with("data: [DONE]\n\n"));
        let mut observer = Observer::new("text/event-stream");
        observer.push(&stream);
        assert_eq!((observer.reported(), observer.finish_reason(), observer.pieces()), (Some(usage), Some("length"), 2));
    }

    #[test]
    fn usage_is_streamed_only_when_asked_for() {
        let closing = answer(Operation::Complete, false).closing(FinishReason::Stop, Usage::default());
        assert!(!String::from_utf8_lossy(&closing).contains("usage"));
        assert!(answer(Operation::Complete, false).opening().is_empty());
    }

    #[test]
    fn a_whole_answer_has_its_usage() {
        let body =
            answer(Operation::Chat, false).whole("Hi", FinishReason::Stop, Usage { prompt_tokens: 1, completion_tokens: 2 });
        assert_eq!(body["choices"][0]["message"]["content"], "Hi");
        assert_eq!(body["usage"]["total_tokens"], 3);
        assert_eq!(body["object"], "chat.completion");
    }
}
