//! Requests that ask for nothing: Ollama's way to load a model into memory, or to let go of it.

use serde_json::{Map, Value, json};

/// Which of Ollama's inference routes a request came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// `/api/chat`
    Chat,
    /// `/api/generate`
    Generate,
    /// `/api/embed`
    Embed,
    /// `/api/embeddings`
    Embeddings,
}

/// A request to load a model, or to unload it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load {
    pub route: Route,
    pub model: String,
    /// `keep_alive` is 0.
    pub unload: bool,
}

/// Whether a request asks for nothing: no messages, no prompt, no input. Such a one is answered with [`Load::answer`], as a whole,
/// and the route's own function refuses it. `None` also where the body is no request: that function says why.
pub fn load_request(route: Route, body: &[u8]) -> Option<Load> {
    let body: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let asks = match route {
        Route::Chat => "messages",
        Route::Generate | Route::Embeddings => "prompt",
        Route::Embed => "input",
    };
    if !body.get(asks).is_none_or(is_nothing) {
        return None;
    }
    let model = body.get("model")?.as_str().filter(|model| !model.is_empty())?.to_owned();
    Some(Load { route, model, unload: body.get("keep_alive").is_some_and(is_no_time) })
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Seconds, or a duration as Go writes it: `0`, `"0"`, `"0s"`, `"0h0m"`.
fn is_no_time(keep_alive: &Value) -> bool {
    match keep_alive {
        Value::Number(seconds) => seconds.as_f64() == Some(0.0),
        Value::String(text) => text.contains('0') && !text.contains(|digit| matches!(digit, '1'..='9')),
        _ => false,
    }
}

impl Load {
    /// What Ollama answers when it is done. `now` is RFC 3339.
    pub fn answer(&self, now: &str) -> Value {
        let reason = if self.unload { "unload" } else { "load" };
        let mut answer = json!({ "model": self.model, "created_at": now, "done": true, "done_reason": reason });
        match self.route {
            Route::Chat => answer["message"] = json!({ "role": "assistant", "content": "" }),
            Route::Generate => answer["response"] = json!(""),
            Route::Embed => answer = json!({ "model": self.model, "embeddings": [] }),
            Route::Embeddings => answer = json!({ "embedding": [] }),
        }
        answer
    }
}
