//! Ollama's API.

use serde_json::{Value, json};

use super::{streamed, weather_tool, whole};
use crate::support::{Manner, MockOpenAi, events, mesh};

const EMBEDDER: &str = "nomic-embed-text";

#[tokio::test(flavor = "multi_thread")]
async fn ollama_clients_chat_here_and_from_another_node() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    let mut asked = json!({
        "model": "far-model", "stream": false, "options": {"temperature": 0.5, "num_predict": 7, "stop": ["x"]},
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}],
    });
    for node in [&provider, &visitor] {
        let told = whole(node.post("/api/chat", &asked).await, &provider).await;
        assert_eq!((&told["model"], &told["message"]["role"]), (&json!("far-model"), &json!("assistant")), "{told}");
        assert_eq!(told["message"]["content"], engine.answer());
        assert_finished(&told);
        let received = engine.requests().pop().expect("it was asked");
        assert_eq!(
            (&received["temperature"], &received["max_tokens"], &received["stop"]),
            (&json!(0.5), &json!(7), &json!(["x"]))
        );
        assert_eq!(received["messages"], asked["messages"]);
    }
    // Ollama streams where nothing is said about it.
    asked.as_object_mut().expect("it is an object").remove("stream");
    for node in [&provider, &visitor] {
        let text = streamed(node.post("/api/chat", &asked).await, "application/x-ndjson").await;
        let mut lines = events::lines(&text);
        let said: String = lines.iter().filter_map(|line| line["message"]["content"].as_str()).collect();
        assert_eq!(said, engine.answer());
        assert_finished(&lines.pop().expect("there is a last line"));
        assert!(lines.len() > 2 && lines.iter().all(|line| line["done"] == false), "it comes in pieces: {text}");
    }
}

/// The last object of an answer has every number that clients divide by.
fn assert_finished(told: &Value) {
    assert_eq!((&told["done"], &told["done_reason"]), (&json!(true), &json!("stop")), "{told}");
    assert_eq!((&told["prompt_eval_count"], &told["eval_count"]), (&json!(7), &json!(4)), "{told}");
    for duration in ["total_duration", "prompt_eval_duration", "eval_duration"] {
        assert!(told[duration].as_u64().is_some_and(|nanoseconds| nanoseconds > 0), "{duration}: {told}");
    }
    assert!(told["created_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ollama_clients_generate_here_and_from_another_node() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    for node in [&provider, &visitor] {
        let asked = json!({"model": "far-model:latest", "prompt": "Hello", "system": "Be short.", "stream": false});
        let told = whole(node.post("/api/generate", &asked).await, &provider).await;
        assert_eq!(told["response"], engine.answer());
        assert_finished(&told);
        let received = engine.requests().pop().expect("it was asked");
        assert_eq!((&received["model"], &received["messages"][1]["content"]), (&json!("far-model"), &json!("Hello")));

        let text =
            streamed(node.post("/api/generate", &json!({"model": "far-model", "prompt": "Hello"})).await, "application/x-ndjson");
        let lines = events::lines(&text.await);
        assert_eq!(lines.iter().filter_map(|line| line["response"].as_str()).collect::<String>(), engine.answer());
        assert_finished(lines.last().expect("there is a last line"));
    }
    // Nothing asked is how Ollama's clients load a model.
    let loaded: Value = visitor.post("/api/generate", &json!({"model": "far-model"})).await.json().await.expect("it is JSON");
    assert_eq!((&loaded["done"], &loaded["done_reason"]), (&json!(true), &json!("load")));
}

#[tokio::test(flavor = "multi_thread")]
async fn ollama_clients_embed_here_and_from_another_node() {
    let engine = MockOpenAi::start("engine", &[EMBEDDER]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, EMBEDDER).await;
    for node in [&provider, &visitor] {
        let many = json!({"model": EMBEDDER, "input": ["four", "seventeen letters"]});
        let told = whole(node.post("/api/embed", &many).await, &provider).await;
        assert_eq!(told["embeddings"], json!([[4.0, 0.5, -0.25], [17.0, 0.5, -0.25]]));
        assert_eq!(told["prompt_eval_count"], 7);
        let one = whole(node.post("/api/embeddings", &json!({"model": EMBEDDER, "prompt": "four"})).await, &provider).await;
        assert_eq!(one, json!({"embedding": [4.0, 0.5, -0.25]}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ollama_clients_find_the_models_of_the_mesh() {
    let engine = MockOpenAi::start("engine", &["qwen2.5-7b-instruct", EMBEDDER]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, EMBEDDER).await;
    for node in [&provider, &visitor] {
        for path in ["/api/tags", "/api/ps"] {
            let listed: Value = node.get(path).await.json().await.expect("a list is JSON");
            let mut names: Vec<&str> =
                listed["models"].as_array().expect("a list").iter().filter_map(|model| model["name"].as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, [EMBEDDER, "qwen2.5-7b-instruct"], "{path}");
            assert!(listed["models"][0]["digest"].as_str().is_some_and(|digest| digest.len() == 64), "{listed}");
        }
        let shown: Value =
            node.post("/api/show", &json!({"model": "qwen2.5-7b-instruct"})).await.json().await.expect("it is JSON");
        assert!(shown["capabilities"].as_array().is_some_and(|all| all.contains(&json!("completion"))), "{shown}");
        assert_eq!(
            (&shown["details"]["family"], &shown["details"]["parameter_size"]),
            (&json!("qwen2.5"), &json!("7B")),
            "{shown}"
        );
        let embedder: Value =
            node.post("/api/show", &json!({"model": format!("{EMBEDDER}:latest")})).await.json().await.expect("it is JSON");
        assert_eq!(embedder["capabilities"], json!(["embedding"]));
        let version: Value = node.get("/api/version").await.json().await.expect("it is JSON");
        assert!(version["version"].as_str().is_some_and(|version| version.split('.').count() == 3), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ollama_clients_get_calls_of_tools_in_one_piece() {
    let engine = MockOpenAi::start("engine", &["qwen2.5-7b-instruct"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "qwen2.5-7b-instruct").await;
    engine.behaves(Manner::Calling);
    for node in [&provider, &visitor] {
        let mut asked = json!({"model": "qwen2.5-7b-instruct", "stream": false, "tools": [weather_tool()],
            "messages": [{"role": "user", "content": "Weather in Bern?"}]});
        let told = whole(node.post("/api/chat", &asked).await, &provider).await;
        assert_called(&told["message"]["tool_calls"]);
        asked["stream"] = json!(true);
        let lines = events::lines(&streamed(node.post("/api/chat", &asked).await, "application/x-ndjson").await);
        let calls: Vec<&Value> = lines.iter().filter_map(|line| line["message"]["tool_calls"].as_array()).flatten().collect();
        assert_called(&json!(calls));
        assert_eq!(engine.requests().pop().expect("it was asked")["tools"], json!([weather_tool()]));
    }
}

fn assert_called(calls: &Value) {
    assert_eq!(calls.as_array().map(Vec::len), Some(1), "{calls}");
    assert_eq!(calls[0]["function"]["name"], "get_weather");
    assert_eq!(calls[0]["function"]["arguments"], json!({"city": "Bern"}));
}
