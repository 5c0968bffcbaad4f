//! Anthropic's Messages API.

use serde_json::{Value, json};

use super::{streamed, weather_schema, whole};
use crate::support::events::{self, SentEvent};
use crate::support::{Manner, MockOpenAi, mesh};

fn asked(model: &str, stream: bool) -> Value {
    json!({"model": model, "max_tokens": 64, "stream": stream, "system": "Be short.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropic_clients_are_answered_here_and_from_another_node() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    for node in [&provider, &visitor] {
        let told = whole(node.post("/v1/messages", &asked("far-model", false)).await, &provider).await;
        assert_eq!((&told["type"], &told["role"], &told["model"]), (&json!("message"), &json!("assistant"), &json!("far-model")));
        assert_eq!(told["content"], json!([{"type": "text", "text": engine.answer()}]));
        assert_eq!(told["stop_reason"], "end_turn");
        assert_eq!((&told["usage"]["input_tokens"], &told["usage"]["output_tokens"]), (&json!(7), &json!(4)));
        assert!(told["id"].as_str().is_some_and(|id| id.starts_with("msg_")), "{told}");
        let received = engine.requests().pop().expect("it was asked");
        assert_eq!(received["max_tokens"], 64);
        assert_eq!((&received["messages"][0]["role"], &received["messages"][1]["role"]), (&json!("system"), &json!("user")));
    }
    let counted: Value =
        visitor.post("/v1/messages/count_tokens", &asked("far-model", false)).await.json().await.expect("it is JSON");
    assert!(counted["input_tokens"].as_u64().is_some_and(|tokens| (1..100).contains(&tokens)), "{counted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropic_clients_get_events_in_their_order() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    for node in [&provider, &visitor] {
        let text = streamed(node.post("/v1/messages", &asked("far-model", true)).await, "text/event-stream").await;
        let sent = events::sent(&text);
        assert!(sent.iter().all(|event| event.name.as_deref() == event.json()["type"].as_str()), "{text}");
        let mut names = names(&sent);
        names.dedup();
        names.retain(|name| *name != "ping");
        let order = [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ];
        assert_eq!(names, order, "{text}");
        assert_eq!(deltas(&sent, "text"), engine.answer());
        let end = sent.iter().find(|event| event.name.as_deref() == Some("message_delta")).expect("it is there").json();
        assert_eq!((&end["delta"]["stop_reason"], &end["usage"]["output_tokens"]), (&json!("end_turn"), &json!(4)), "{text}");
    }
}

fn names(sent: &[SentEvent]) -> Vec<&str> {
    sent.iter().filter_map(|event| event.name.as_deref()).collect()
}

/// The pieces of this kind, put together.
fn deltas(sent: &[SentEvent], kind: &str) -> String {
    sent.iter().filter_map(|event| Some(event.json()["delta"][kind].as_str()?.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropic_clients_get_calls_of_tools_and_send_back_results() {
    let engine = MockOpenAi::start("engine", &["qwen2.5-7b-instruct"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "qwen2.5-7b-instruct").await;
    for node in [&provider, &visitor] {
        engine.behaves(Manner::Calling);
        let mut body = asked("qwen2.5-7b-instruct", false);
        body["tools"] = json!([{"name": "get_weather", "input_schema": weather_schema()}]);
        let told = whole(node.post("/v1/messages", &body).await, &provider).await;
        assert_eq!(told["stop_reason"], "tool_use");
        let call = told["content"][0].clone();
        assert_eq!(
            (&call["type"], &call["name"], &call["input"]),
            (&json!("tool_use"), &json!("get_weather"), &json!({"city": "Bern"}))
        );

        body["stream"] = json!(true);
        let sent = events::sent(&streamed(node.post("/v1/messages", &body).await, "text/event-stream").await);
        let begun = sent.iter().find(|event| event.name.as_deref() == Some("content_block_start")).expect("it is there").json();
        assert_eq!(
            (&begun["content_block"]["type"], &begun["content_block"]["name"]),
            (&json!("tool_use"), &json!("get_weather"))
        );
        assert_eq!(deltas(&sent, "partial_json"), "{\"city\":\"Bern\"}");
        assert_eq!(deltas(&sent, "stop_reason"), "tool_use");

        engine.behaves(Manner::Proper);
        body["stream"] = json!(false);
        let result = json!([{"type": "tool_result", "tool_use_id": call["id"], "content": "sunny"}]);
        for message in [json!({"role": "assistant", "content": [call]}), json!({"role": "user", "content": result})] {
            body["messages"].as_array_mut().expect("a list").push(message);
        }
        whole(node.post("/v1/messages", &body).await, &provider).await;
        let received = engine.requests().pop().expect("it was asked");
        let messages = received["messages"].as_array().expect("a list");
        let (called, answered) = (&messages[messages.len() - 2], &messages[messages.len() - 1]);
        assert_eq!(called["tool_calls"][0]["function"]["arguments"], "{\"city\":\"Bern\"}", "{received}");
        assert_eq!(answered["role"], "tool");
        assert_eq!(answered["tool_call_id"], called["tool_calls"][0]["id"]);
        assert_eq!(answered["content"], "sunny");
    }
}
