//! Keys of the API: who is let in beyond loopback, how often, how much at once, for which models, and until when.

use std::path::Path;
use std::time::Duration;

use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::node::{client, question};
use crate::support::{Manner, MockOpenAi, Node, PATIENCE, Setup, events, in_time, mesh, until};

/// From revoking a key to the end of what it has under way.
const ENDED_WITHIN: Duration = Duration::from_secs(2);

/// A node that other machines could reach, with a key of the given limits.
async fn open_node(engine: &MockOpenAi, limits: &[&str]) -> (Node, String) {
    let setup = Setup::new("node").argument("--api", "0.0.0.0:0").config(&engine.config());
    let key = setup.key("phone", limits).await;
    let node = setup.start().await;
    is_ready(&node).await;
    (node, key)
}

async fn is_ready(node: &Node) {
    until(PATIENCE, "the node is ready", async || node.get("/ready").await.status() == 200).await;
}

async fn send(request: RequestBuilder) -> Response {
    in_time(PATIENCE, "an answer", request.send()).await.expect("an answer comes")
}

async fn chat(node: &Node, key: &str, model: &str) -> Response {
    send(client().post(node.url("/v1/chat/completions")).bearer_auth(key).json(&question(model, false))).await
}

async fn error_of(answer: Response) -> Value {
    answer.json().await.expect("an error is JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_a_node_does_not_start_without_a_key() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let setup = Setup::new("node").argument("--api", address);
        let refused = setup.up_and_down_again().await;
        assert!(refused.one_clear_line().contains("atmo key create"), "{refused}");
    }
    let setup = Setup::new("node").argument("--api", "0.0.0.0:0");
    setup.key("phone", &[]).await;
    assert_eq!(setup.start().await.get("/health").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_every_request_needs_a_key() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let (node, key) = open_node(&engine, &[]).await;
    let said = json!([{"role": "user", "content": "Hello"}]);
    let requests = [
        ("/v1/chat/completions", question("near-model", false), "/error/code"),
        ("/v1/responses", json!({"model": "near-model", "input": "Hello"}), "/error/code"),
        ("/v1/messages", json!({"model": "near-model", "max_tokens": 9, "messages": said}), "/error/type"),
        ("/api/chat", json!({"model": "near-model", "messages": said, "stream": false}), "/error"),
    ];
    for (path, body, at) in requests {
        let request = || client().post(node.url(path)).json(&body);
        let wrong = format!("{}0", &key[..key.len() - 1]);
        for (request, code) in [(request(), "missing_api_key"), (request().bearer_auth(&wrong), "invalid_api_key")] {
            let refused = send(request).await;
            assert_eq!(refused.status(), 401, "{path}");
            assert_eq!(refused.headers()["www-authenticate"], "Bearer");
            let error = error_of(refused).await;
            match at {
                "/error/code" => assert_eq!(error["error"]["code"], code),
                "/error/type" => assert_eq!(error["error"]["type"], "authentication_error"),
                _ => assert!(error["error"].is_string(), "{error}"),
            }
        }
        let ways = [request().bearer_auth(&key), request().header("x-api-key", &key), request().header("api-key", &key)];
        for request in ways {
            assert_eq!(send(request).await.status(), 200, "{path}");
        }
    }
    for (path, status) in
        [("/v1/models", 401), ("/v1/jobs", 401), ("/api/tags", 401), ("/metrics", 401), ("/health", 200), ("/ready", 200)]
    {
        assert_eq!(node.get(path).await.status(), status, "{path}");
    }
    // Another machine calls this one by any name.
    let named = client().get(node.url("/v1/models")).header("host", "box.lan:11451").bearer_auth(&key);
    assert_eq!(send(named).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_ask_so_often() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "near-model").await;
    let key = node.key("phone", &["--per-minute", "2"]).await;
    for _ in 0..2 {
        assert_eq!(chat(&node, &key, "near-model").await.status(), 200);
    }
    let refused = chat(&node, &key, "near-model").await;
    assert_eq!(refused.status(), 429);
    let seconds: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("a number");
    assert!((1..=31).contains(&seconds), "two a minute are one every 30 s, not {seconds}");
    assert_eq!(error_of(refused).await["error"]["code"], "rate_limit_exceeded");
    let asked = json!({"model": "near-model", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]});
    let refused = send(client().post(node.url("/v1/messages")).header("x-api-key", &key).json(&asked)).await;
    assert_eq!(
        (refused.status(), error_of(refused).await["error"]["type"].clone()),
        (StatusCode::TOO_MANY_REQUESTS, json!("rate_limit_error"))
    );
    // Whoever sits at the machine has no limit, nor has another key.
    assert_eq!(node.chat("near-model", false).await.status(), 200);
    let other = node.key("tablet", &[]).await;
    assert_eq!(chat(&node, &other, "near-model").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_have_so_many_requests_at_once() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "near-model").await;
    let key = node.key("phone", &["--concurrent", "1"]).await;
    engine.behaves(Manner::Held);
    let held = client().post(node.url("/v1/chat/completions")).bearer_auth(&key).json(&question("near-model", true));
    let held = tokio::spawn(held.send());
    until(PATIENCE, "the engine is at work", async || engine.active() == 1).await;
    let refused = chat(&node, &key, "near-model").await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(error_of(refused).await["error"]["code"], "concurrency_limit_exceeded");
    engine.lets_go(1);
    let answered = held.await.expect("no panic").expect("an answer comes");
    assert_eq!(events::said(&answered.text().await.expect("the stream ends")), engine.answer());
    engine.behaves(Manner::Proper);
    until(PATIENCE, "the place is free again", async || chat(&node, &key, "near-model").await.status() == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_use_its_models_alone() {
    let engine = MockOpenAi::start("engine", &["qwen2.5-7b-instruct", "llama3.1-8b-instruct"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "qwen2.5-7b-instruct").await;
    mesh::offers(&node, "llama3.1-8b-instruct").await;
    let named = node.key("named", &["--model", "qwen2.5-7b-instruct"]).await;
    assert_eq!(chat(&node, &named, "qwen2.5-7b-instruct").await.status(), 200);
    for model in ["llama3.1-8b-instruct", "auto", "AUTO", "no-such-model"] {
        let refused = chat(&node, &named, model).await;
        assert_eq!(refused.status(), 403, "{model}");
        assert_eq!(error_of(refused).await["error"]["code"], "model_not_allowed");
    }
    let said = json!([{"role": "user", "content": "Hello"}]);
    for (path, body) in [
        ("/api/chat", json!({"model": "llama3.1-8b-instruct", "messages": said})),
        ("/v1/messages", json!({"model": "llama3.1-8b-instruct", "max_tokens": 9, "messages": said})),
        ("/v1/responses", json!({"model": "llama3.1-8b-instruct", "input": "Hello"})),
        ("/v1/jobs", json!({"intent": "Hello", "model": "llama3.1-8b-instruct"})),
        ("/v1/jobs", json!({"intent": "Hello"})),
    ] {
        let refused = send(client().post(node.url(path)).bearer_auth(&named).json(&body)).await;
        assert_eq!(refused.status(), 403, "{path} {body}");
    }
    let both = node.key("both", &["--model", "auto", "--model", "llama3.1-8b-instruct"]).await;
    for _ in 0..5 {
        let answer = chat(&node, &both, "auto").await;
        assert_eq!(answer.status(), 200);
        let by = answer.headers()["x-atmo-capability"].to_str().expect("text").to_owned();
        assert!(by.contains("llama3.1-8b-instruct"), "`auto` went to {by}");
    }
    assert_eq!(chat(&node, &both, "qwen2.5-7b-instruct").await.status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_key_ends_its_streams_and_lets_it_in_no_more() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let (node, key) = open_node(&engine, &[]).await;
    let other = node.key("tablet", &[]).await;
    engine.speaks(600, Duration::from_millis(50));
    let stream = |key: &str| client().post(node.url("/v1/chat/completions")).bearer_auth(key).json(&question("near-model", true));
    let (mut revoked, mut kept) = (send(stream(&key)).await, send(stream(&other)).await);
    events::read_until(&mut revoked, "word ").await;
    events::read_until(&mut kept, "word ").await;
    node.json(&["key", "revoke", "phone"]).await;
    let (text, _) = in_time(ENDED_WITHIN, "the stream ends", events::rest(revoked)).await;
    assert!(!text.contains(events::DONE), "half an answer is no whole one");
    until(ENDED_WITHIN, "the engine is told", async || engine.abandoned() == 1).await;
    assert_eq!(error_of(chat(&node, &key, "near-model").await).await["error"]["code"], "invalid_api_key");
    events::read_until(&mut kept, "word ").await;
    assert_eq!(engine.active(), 1);
}

/// Also what has not begun to be answered, and work that nobody waits for.
#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_key_ends_what_waits_for_an_answer() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let (node, key) = open_node(&engine, &[]).await;
    engine.behaves(Manner::Held);
    let held = client().post(node.url("/v1/chat/completions")).bearer_auth(&key).json(&question("near-model", false));
    let held = tokio::spawn(held.send());
    until(PATIENCE, "the engine is at work", async || engine.active() == 1).await;
    node.json(&["key", "revoke", "phone"]).await;
    until(ENDED_WITHIN, "the engine is told", async || engine.abandoned() == 1).await;
    let answer = in_time(ENDED_WITHIN, "the client is told", held).await.expect("no panic");
    assert!(answer.is_err() || answer.is_ok_and(|answer| !answer.status().is_success()));
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_key_ends_its_jobs() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let (node, key) = open_node(&engine, &[]).await;
    engine.behaves(Manner::Held);
    let wanted = json!({"intent": "Hello", "model": "near-model"});
    let made = send(client().post(node.url("/v1/jobs")).bearer_auth(&key).json(&wanted)).await;
    assert_eq!(made.status(), 202);
    until(PATIENCE, "the engine is at work", async || engine.active() == 1).await;
    node.json(&["key", "revoke", "phone"]).await;
    until(ENDED_WITHIN, "the engine is told", async || engine.abandoned() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_outlive_the_process_and_are_written_nowhere() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let (node, key) = open_node(&engine, &[]).await;
    let second = node.key("tablet", &["--per-minute", "60"]).await;
    assert_eq!(chat(&node, &second, "near-model").await.status(), 200);
    assert_eq!(chat(&node, &key, "near-model").await.status(), 200);
    let listed = node.json(&["key", "list"]).await;
    let names: Vec<&str> = listed["keys"].as_array().expect("a list").iter().filter_map(|key| key["name"].as_str()).collect();
    assert_eq!(names, ["phone", "tablet"]);
    assert_eq!(listed["keys"][1]["per_minute"], 60);

    let node = node.restart().await;
    is_ready(&node).await;
    for key in [&key, &second] {
        assert_eq!(chat(&node, key, "near-model").await.status(), 200);
        let secret = key.trim_start_matches("atmo-key-");
        assert!(!listed.to_string().contains(secret) && !node.log().contains(secret));
        assert_nowhere(&node.data_folder(), secret);
    }
    node.json(&["key", "revoke", "tablet"]).await;
    let node = node.restart().await;
    is_ready(&node).await;
    assert_eq!(chat(&node, &second, "near-model").await.status(), 401);
    assert_eq!(chat(&node, &key, "near-model").await.status(), 200);
}

/// Fails the test where a file below `folder` holds `secret`.
fn assert_nowhere(folder: &Path, secret: &str) {
    for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
        let kind = entry.file_type().expect("the folder can be read");
        if kind.is_dir() {
            assert_nowhere(&entry.path(), secret);
        } else if kind.is_file() {
            let bytes = std::fs::read(entry.path()).expect("the file can be read");
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "the key stands in {}", entry.path().display());
        }
    }
}

/// Clients made for OpenAI send some key because they must.
#[tokio::test(flavor = "multi_thread")]
async fn on_loopback_an_unknown_key_does_not_matter() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "near-model").await;
    for key in ["sk-anything", "ollama", ""] {
        assert_eq!(chat(&node, key, "near-model").await.status(), 200, "{key}");
    }
    // One of ours that is no more: whoever holds it is not the owner.
    let key = node.key("phone", &[]).await;
    node.json(&["key", "revoke", "phone"]).await;
    assert_eq!(error_of(chat(&node, &key, "near-model").await).await["error"]["code"], "invalid_api_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_allowed_origins_alone_may_ask() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let config = format!("api_origins = [\"https://app.example\"]\n{}", engine.config());
    let node = Setup::new("node").config(&config).start().await;
    mesh::offers(&node, "near-model").await;
    for (origin, allowed) in
        [("https://app.example", true), ("https://app.example.evil", false), ("http://app.example", false), ("null", false)]
    {
        let asked = client().post(node.url("/v1/chat/completions")).header("origin", origin).json(&question("near-model", false));
        let answer = send(asked).await;
        let told = answer.headers().get("access-control-allow-origin").map(|told| told.to_str().expect("text").to_owned());
        assert_eq!(
            (answer.status().as_u16(), told.as_deref()),
            if allowed { (200, Some(origin)) } else { (403, None) },
            "{origin}"
        );

        let preflight = client()
            .request(reqwest::Method::OPTIONS, node.url("/v1/chat/completions"))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization, content-type");
        let answer = send(preflight).await;
        assert_eq!(answer.status().is_success(), allowed, "{origin}");
        assert_eq!(answer.headers().contains_key("access-control-allow-origin"), allowed, "{origin}");
        if allowed {
            assert_eq!(answer.headers()["access-control-allow-headers"], "authorization, content-type");
            assert!(answer.headers()["access-control-allow-methods"].to_str().expect("text").contains("POST"));
            assert_eq!(answer.headers()["vary"], "origin");
        }
    }
    // A page must be able to read why it was refused.
    for path in ["/v1/chat/completions", "/api/chat", "/v1/messages"] {
        let wrong = send(client().post(node.url(path)).header("origin", "https://app.example").body("{")).await;
        assert_eq!(wrong.status(), 400);
        assert_eq!(wrong.headers()["access-control-allow-origin"], "https://app.example", "{path}");
    }
}
