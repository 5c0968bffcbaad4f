//! The APIs that clients speak, as those clients see them: each asks the node that has the model, and one that has not.

mod anthropic;
mod ollama;
mod responses;

use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::node::client;
use crate::support::{MockOpenAi, Node, Setup, events, in_time, mesh};

/// A killed node's streams end within this: its connection says nothing, and gossip has to notice.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

/// A tool as OpenAI and Ollama describe it.
fn weather_tool() -> Value {
    json!({"type": "function", "function": {"name": "get_weather", "parameters": weather_schema()}})
}

fn weather_schema() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
}

/// The answer's JSON. Fails the test unless it is one of status 200 that says which node made it.
async fn whole(answer: Response, by: &Node) -> Value {
    let status = answer.status();
    let node = answer.headers().get("x-atmo-node").map(|node| node.to_str().expect("text").to_owned());
    let text = answer.text().await.expect("the answer arrives");
    assert_eq!(status, 200, "{text}");
    assert!(node.is_some_and(|node| by.is_named_by(&node)), "the answer does not name its node");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
}

/// The whole stream. Fails the test unless it is one of this content type.
async fn streamed(answer: Response, content_type: &str) -> String {
    let status = answer.status();
    let given = answer.headers()["content-type"].to_str().expect("text").to_owned();
    let text = answer.text().await.expect("the stream ends properly");
    assert_eq!(status, 200, "{text}");
    assert!(given.starts_with(content_type), "{given}");
    text
}

/// Fails the test unless the error has the shape of the API that this path belongs to.
fn assert_shape(path: &str, kind: &str, error: &Value) {
    let message = if path.starts_with("/api/") {
        assert_eq!(error.as_object().map(serde_json::Map::len), Some(1), "{error}");
        &error["error"]
    } else if path.starts_with("/v1/messages") {
        assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!(kind)), "{error}");
        &error["error"]["message"]
    } else {
        assert!(error["error"]["type"].is_string(), "{error}");
        assert!(error["error"].get("param").is_some() && error["error"].get("code").is_some(), "{error}");
        &error["error"]["message"]
    };
    assert!(message.as_str().is_some_and(|message| !message.is_empty()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_shape_of_the_api_that_was_asked() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (_provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    let said = json!([{"role": "user", "content": "Hello"}]);
    let cases = [
        ("/api/chat", json!({"model": "no-such-model", "messages": said}), 404, ""),
        ("/api/chat", json!({"model": "far-model", "messages": "Hello"}), 400, ""),
        ("/api/generate", json!({"model": "no-such-model", "prompt": "Hello"}), 404, ""),
        ("/api/generate", json!({"model": "far-model", "prompt": "Hello", "context": [1, 2]}), 400, ""),
        ("/api/embed", json!({"model": "no-such-model", "input": "Hello"}), 404, ""),
        ("/api/show", json!({"model": "no-such-model"}), 404, ""),
        ("/api/nothing", json!({}), 404, ""),
        ("/api/version", json!({}), 405, ""),
        ("/v1/messages", json!({"model": "no-such-model", "max_tokens": 9, "messages": said}), 404, "not_found_error"),
        ("/v1/messages", json!({"model": "far-model", "messages": said}), 400, "invalid_request_error"),
        (
            "/v1/messages",
            json!({"model": "far-model", "max_tokens": 9, "messages": said, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
            400,
            "invalid_request_error",
        ),
        ("/v1/responses", json!({"model": "no-such-model", "input": "Hello"}), 404, ""),
        ("/v1/responses", json!({"model": "far-model", "input": "Hello", "previous_response_id": "resp_1"}), 400, ""),
        ("/v1/responses", json!({"model": "far-model", "input": "Hello", "tools": [{"type": "web_search"}]}), 400, ""),
        ("/v1/nothing", json!({}), 404, ""),
    ];
    for (path, body, status, kind) in cases {
        let answer = visitor.post(path, &body).await;
        assert_eq!(answer.status(), status, "{path} {body}");
        assert_shape(path, kind, &answer.json().await.expect("an error is JSON"));
    }
    for path in ["/api/chat", "/api/generate", "/api/embed", "/v1/messages", "/v1/responses", "/v1/chat/completions"] {
        for body in ["{\"model\":", "[1]", "", "\u{0}"] {
            let answer = client().post(visitor.url(path)).body(body).send().await.expect("an answer comes");
            assert_eq!(answer.status(), 400, "{path} {body:?}");
            assert_shape(path, "invalid_request_error", &answer.json().await.expect("an error is JSON"));
        }
    }
    assert_eq!(engine.requests().len(), 0);
}

/// What the backend itself refuses reaches the client with its status, in the client's shape.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_fails_is_told_in_every_dialect() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "far-model").await;
    for (path, body, kind) in requests() {
        engine.behaves(crate::support::Manner::Failing);
        let answer = node.post(path, &body).await;
        assert_eq!(answer.status(), 502, "{path}");
        let error: Value = answer.json().await.expect("an error is JSON");
        assert_shape(path, kind, &error);
        assert!(error.to_string().contains("out of memory"), "{path}: {error}");
        engine.behaves(crate::support::Manner::Proper);
        assert_eq!(node.chat("far-model", false).await.status(), 200, "a success keeps the circuit closed");
    }
}

/// A streaming request in each dialect, and what Anthropic calls a backend's failure.
fn requests() -> [(&'static str, Value, &'static str); 4] {
    let said = json!([{"role": "user", "content": "Hello"}]);
    [
        ("/v1/chat/completions", json!({"model": "far-model", "stream": true, "messages": said}), ""),
        ("/api/chat", json!({"model": "far-model", "messages": said}), ""),
        ("/v1/messages", json!({"model": "far-model", "max_tokens": 9000, "stream": true, "messages": said}), "api_error"),
        ("/v1/responses", json!({"model": "far-model", "stream": true, "input": "Hello"}), ""),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_killed_in_the_middle_is_told_in_every_dialect() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (mut provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    engine.speaks(2000, Duration::from_millis(50));
    let mut answers = Vec::new();
    for (path, body, _) in requests() {
        let mut answer = visitor.post(path, &body).await;
        assert_eq!(answer.status(), 200, "{path}");
        events::read_until(&mut answer, "word ").await;
        answers.push((path, answer));
    }
    provider.kill().await;
    let ends = answers.into_iter().map(|(path, answer)| async move { (path, events::rest(answer).await) });
    let ends = in_time(NOTICED_WITHIN, "all streams end", futures::future::join_all(ends)).await;
    for (path, (text, properly)) in ends {
        assert!(properly, "{path}: the connection broke instead of telling why: {text}");
        assert_told_as_broken(path, &text);
    }
    assert_eq!(visitor.get("/health").await.status(), 200);
}

/// Fails the test unless the stream's end says that it broke off, as this dialect says so.
fn assert_told_as_broken(path: &str, text: &str) {
    let sent = || events::sent(text).pop().unwrap_or_else(|| panic!("{path} says nothing"));
    match path {
        "/api/chat" => {
            let last = events::lines(text).pop().expect("there is a line");
            assert!(last["error"].is_string(), "{path}: {last}");
        }
        "/v1/messages" => {
            assert_eq!(sent().name.as_deref(), Some("error"), "{path}: {text}");
            assert_shape(path, "api_error", &sent().json());
        }
        "/v1/responses" => {
            assert_eq!(sent().name.as_deref(), Some("response.failed"), "{path}: {text}");
            assert!(sent().json()["response"]["error"]["message"].is_string(), "{path}: {text}");
        }
        _ => assert_shape(path, "", &sent().json()),
    }
}
