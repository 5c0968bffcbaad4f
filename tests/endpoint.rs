//! The OpenAI-compatible endpoint: what it lists, streams, passes on and refuses.

use serde_json::{Value, json};

use crate::support::node::{client, question};
use crate::support::{MockOpenAi, Node, Setup, mesh};

/// A node that offers a stand-in's models, and one that offers nothing, in one mesh.
async fn provider_and_visitor(engine: &MockOpenAi, model: &str) -> (Node, Node) {
    let provider = Setup::new("provider").config(&engine.config()).start().await;
    let visitor = Setup::new("visitor").start().await;
    mesh::form(&provider, &[&visitor]).await;
    mesh::offers(&visitor, model).await;
    (provider, visitor)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_model_streams_from_the_other_node_and_says_where_it_ran() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (provider, visitor) = provider_and_visitor(&engine, "far-model").await;
    let answer = visitor.chat("far-model", true).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.headers()["content-type"].to_str().expect("text").starts_with("text/event-stream"));
    let header = |name: &str| answer.headers()[name].to_str().expect("a header is text").to_owned();
    assert!(provider.is_named_by(&header("x-atmo-node")), "{}", header("x-atmo-node"));
    assert!(header("x-atmo-capability").contains("far-model"), "{}", header("x-atmo-capability"));
    assert_eq!(header("x-atmo-hops"), "1");
    header("x-atmo-score").parse::<f64>().expect("the score is a number");

    let text = answer.text().await.expect("the stream ends properly");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(said(&text), engine.answer());
}

/// The words in a stream of chat chunks.
fn said(events: &str) -> String {
    let chunks = events.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let content = |chunk: &str| -> Option<String> {
        let chunk: Value = serde_json::from_str(chunk).expect("an event is JSON");
        Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned())
    };
    chunks.filter_map(content).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_the_node_does_not_know_pass_through_both_ways() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (_provider, visitor) = provider_and_visitor(&engine, "far-model").await;
    let mut request = question("far-model", false);
    request["x_of_this_client"] = json!({"deep": [1, 2.5, "three", null]});
    request["logit_bias"] = json!({"42": -100});
    let answer: Value = visitor.post("/v1/chat/completions", &request).await.json().await.expect("an answer is JSON");
    assert_eq!(answer["x_of_this_engine"], request["x_of_this_client"]);
    assert_eq!(answer["choices"][0]["message"]["content"], engine.answer());
    let received = engine.requests().remove(0);
    for field in ["x_of_this_client", "logit_bias", "messages", "model"] {
        assert_eq!(received[field], request[field], "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_two_nodes_have_is_listed_once() {
    let (one, two) =
        (MockOpenAi::start("one", &["shared", "only-one"]).await, MockOpenAi::start("two", &["shared", "only-two"]).await);
    let first = Setup::new("first").config(&one.config()).start().await;
    let second = Setup::new("second").config(&two.config()).start().await;
    mesh::form(&first, &[&second]).await;
    for node in [&first, &second] {
        mesh::offers(node, "only-one").await;
        mesh::offers(node, "only-two").await;
        let mut models = node.models().await;
        models.sort();
        assert_eq!(models, ["only-one", "only-two", "shared"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_errors_in_the_shape_that_clients_know() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "near-model").await;
    let messages = json!([{"role": "user", "content": "Hello"}]);
    let cases = [
        (json!({"messages": messages}), 400, Value::Null),
        (json!({"model": "near-model"}), 400, Value::Null),
        (json!({"model": "near-model", "messages": "Hello"}), 400, Value::Null),
        (json!({"model": "no-such-model", "messages": messages}), 404, json!("model_not_found")),
    ];
    for (body, status, code) in cases {
        let answer = node.post("/v1/chat/completions", &body).await;
        assert_eq!(answer.status(), status, "{body}");
        let error: Value = answer.json().await.expect("an error is JSON");
        assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
        assert!(error["error"]["type"].is_string(), "{error}");
        assert!(code.is_null() || error["error"]["code"] == code, "{error}");
    }
    let broken = client().post(node.url("/v1/chat/completions")).body("{\"model\":").send().await.expect("an answer comes");
    assert_eq!(broken.status(), 400);
    assert_eq!(engine.requests().len(), 0);
}

/// A web page in the user's browser must not be able to use the endpoint.
#[tokio::test(flavor = "multi_thread")]
async fn other_sites_are_turned_away() {
    let node = Setup::new("node").start().await;
    for (header, value) in [("host", "evil.example"), ("origin", "https://evil.example"), ("origin", "null")] {
        let answer = client().get(node.url("/v1/models")).header(header, value).send().await.expect("an answer comes");
        assert_eq!(answer.status(), 403, "{header}: {value}");
    }
    assert_eq!(node.get("/v1/models").await.status(), 200);
}
