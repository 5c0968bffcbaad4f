//! OpenAI's Responses API.

use serde_json::{Value, json};

use super::{streamed, weather_schema, whole};
use crate::support::events::{self, SentEvent};
use crate::support::{Manner, MockOpenAi, mesh};

#[tokio::test(flavor = "multi_thread")]
async fn responses_are_told_here_and_from_another_node() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    let asked = json!({"model": "far-model", "instructions": "Be short.", "input": "Hello", "max_output_tokens": 64});
    for node in [&provider, &visitor] {
        let told = whole(node.post("/v1/responses", &asked).await, &provider).await;
        assert_eq!(
            (&told["object"], &told["status"], &told["model"]),
            (&json!("response"), &json!("completed"), &json!("far-model"))
        );
        assert_eq!((&told["output"][0]["type"], &told["output"][0]["role"]), (&json!("message"), &json!("assistant")));
        assert_eq!(told["output"][0]["content"][0]["text"], engine.answer());
        assert_eq!((&told["usage"]["input_tokens"], &told["usage"]["output_tokens"]), (&json!(7), &json!(4)));
        assert!(told["id"].as_str().is_some_and(|id| id.starts_with("resp_")), "{told}");
        let received = engine.requests().pop().expect("it was asked");
        assert_eq!(received["max_tokens"], 64);
        assert_eq!(
            (&received["messages"][0]["content"], &received["messages"][1]["content"]),
            (&json!("Be short."), &json!("Hello"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_stream_in_numbered_events() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    for node in [&provider, &visitor] {
        let asked = json!({"model": "far-model", "stream": true, "input": [{"role": "user", "content": "Hello"}]});
        let text = streamed(node.post("/v1/responses", &asked).await, "text/event-stream").await;
        let sent = events::sent(&text);
        for (number, event) in sent.iter().enumerate() {
            let data = event.json();
            assert_eq!(data["sequence_number"], number, "{text}");
            assert_eq!(data["type"].as_str(), event.name.as_deref());
        }
        let mut names: Vec<&str> = sent.iter().filter_map(|event| event.name.as_deref()).collect();
        names.dedup();
        let order = [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ];
        assert_eq!(names, order, "{text}");
        assert_eq!(deltas(&sent, "response.output_text.delta"), engine.answer());
        let last = sent.last().expect("there is a last event").json();
        assert_eq!(last["response"]["output"][0]["content"][0]["text"], engine.answer());
        assert_eq!(last["response"]["usage"]["total_tokens"], 11);
    }
}

fn deltas(sent: &[SentEvent], name: &str) -> String {
    let of_name = sent.iter().filter(|event| event.name.as_deref() == Some(name));
    of_name.filter_map(|event| Some(event.json()["delta"].as_str()?.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_hold_calls_of_functions() {
    let engine = MockOpenAi::start("engine", &["qwen2.5-7b-instruct"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "qwen2.5-7b-instruct").await;
    engine.behaves(Manner::Calling);
    for node in [&provider, &visitor] {
        let mut asked = json!({"model": "qwen2.5-7b-instruct", "input": "Weather in Bern?",
            "tools": [{"type": "function", "name": "get_weather", "parameters": weather_schema()}]});
        assert_called(&whole(node.post("/v1/responses", &asked).await, &provider).await);
        asked["stream"] = json!(true);
        let sent = events::sent(&streamed(node.post("/v1/responses", &asked).await, "text/event-stream").await);
        assert_eq!(deltas(&sent, "response.function_call_arguments.delta"), "{\"city\":\"Bern\"}");
        assert_called(&sent.last().expect("there is a last event").json()["response"]);
        let received = engine.requests().pop().expect("it was asked");
        assert_eq!(received["tools"][0]["function"]["name"], "get_weather", "{received}");
    }
}

fn assert_called(response: &Value) {
    let item = &response["output"][0];
    assert_eq!((&item["type"], &item["name"]), (&json!("function_call"), &json!("get_weather")), "{response}");
    assert_eq!(item["arguments"], "{\"city\":\"Bern\"}");
    assert!(item["call_id"].as_str().is_some_and(|id| !id.is_empty()), "{response}");
}
