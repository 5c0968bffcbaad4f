//! What the stand-in does besides speaking: vectors, ranking, speech to text, calls of tools.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Inner;

/// A form as it arrived.
#[derive(Clone, Debug)]
pub struct Upload {
    pub content_type: String,
    pub body: Vec<u8>,
}

/// As llama-server tells how much it can do at once.
pub async fn properties(State(inner): State<Arc<Inner>>) -> Response {
    match inner.slots {
        Some(slots) => Json(json!({"total_slots": slots, "default_generation_settings": {"n_ctx": 8192}})).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A vector for each text, that begins with the text's length.
pub async fn embed(State(inner): State<Arc<Inner>>, Json(body): Json<Value>) -> Json<Value> {
    let texts = body["input"].as_array().cloned().unwrap_or_else(|| vec![body["input"].clone()]);
    let vectors = texts.iter().enumerate().map(|(index, text)| {
        let length = text.as_str().map_or(0, str::len);
        json!({"object": "embedding", "index": index, "embedding": [length, 0.5, -0.25]})
    });
    let answer = json!({
        "object": "list", "model": body["model"], "data": vectors.collect::<Vec<_>>(),
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    });
    inner.remember(body);
    Json(answer)
}

/// The documents in reverse order.
pub async fn rerank(State(inner): State<Arc<Inner>>, Json(body): Json<Value>) -> Json<Value> {
    let documents = body["documents"].as_array().map_or(0, Vec::len);
    let results = (0..documents).rev().map(|index| json!({"index": index, "relevance_score": (index + 1) as f64 / 10.0}));
    let answer = json!({"model": body["model"], "results": results.collect::<Vec<_>>(), "usage": {"total_tokens": 7}});
    inner.remember(body);
    Json(answer)
}

/// Hears always the same, as text where the form asks for that.
pub async fn transcribe(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    let content_type = headers[header::CONTENT_TYPE].to_str().expect("a content type is text").to_owned();
    let plain = String::from_utf8_lossy(&body).contains("name=\"response_format\"\r\n\r\ntext\r\n");
    inner.uploads.lock().expect("no holder panics").push(Upload { content_type, body: body.to_vec() });
    if plain { "hello there\n".into_response() } else { Json(json!({"text": "hello there"})).into_response() }
}

/// A call of the first tool that is offered, as a whole answer has it.
pub fn call(body: &Value) -> Value {
    let name = &body["tools"][0]["function"]["name"];
    json!({"id": "call_of_engine", "type": "function", "function": {"name": name, "arguments": "{\"city\":\"Bern\"}"}})
}

/// The same in the pieces of a stream.
pub fn call_in_pieces(body: &Value) -> Vec<Value> {
    let name = &body["tools"][0]["function"]["name"];
    let piece = |arguments: &str| json!({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]});
    let begin = json!({"index": 0, "id": "call_of_engine", "type": "function", "function": {"name": name, "arguments": ""}});
    let begin = json!({"role": "assistant", "content": null, "tool_calls": [begin]});
    vec![begin, piece("{\"ci"), piece("ty\":\"Be"), piece("rn\"}")]
}

impl Inner {
    fn remember(&self, body: Value) {
        self.requests.lock().expect("no holder panics").push(body);
    }
}
