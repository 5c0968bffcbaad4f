//! The OpenAI-compatible endpoint: what it lists, streams, passes on and refuses.

use serde_json::{Value, json};

use crate::support::node::{client, question};
use crate::support::{MockOpenAi, Setup, events, mesh};

#[tokio::test(flavor = "multi_thread")]
async fn a_named_model_streams_from_the_other_node_and_says_where_it_ran() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
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
    assert_eq!(events::said(&text), engine.answer());
}

/// The owner may say to a backend whatever it understands.
#[tokio::test(flavor = "multi_thread")]
async fn fields_that_the_node_does_not_know_pass_through_both_ways() {
    let engine = MockOpenAi::start("engine", &["near-model"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "near-model").await;
    let request = with_unknown_fields("near-model");
    let answer: Value = node.post("/v1/chat/completions", &request).await.json().await.expect("an answer is JSON");
    assert_eq!(answer["x_of_this_engine"], request["x_of_this_client"]);
    assert_eq!(answer["choices"][0]["message"]["content"], engine.answer());
    let received = engine.requests().remove(0);
    assert_eq!(received, request, "the atmo object alone is for the node");
}

/// What another node asks may break an engine that knows more than OpenAI's API: it is told what is known to be harmless.
#[tokio::test(flavor = "multi_thread")]
async fn from_another_node_known_fields_pass_and_answers_are_untouched() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (_provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    let request = with_unknown_fields("far-model");
    let answer: Value = visitor.post("/v1/chat/completions", &request).await.json().await.expect("an answer is JSON");
    assert!(answer.get("x_of_this_engine").is_some(), "what the node does not know of an answer passes: {answer}");
    assert_eq!(answer["choices"][0]["message"]["content"], engine.answer());
    let received = engine.requests().remove(0);
    for field in ["logit_bias", "messages", "model", "seed", "response_format"] {
        assert_eq!(received[field], request[field], "{field}");
    }
    for field in ["x_of_this_client", "n_discard", "id_slot", "grammar"] {
        assert!(received.get(field).is_none(), "{field}: {received}");
    }
}

fn with_unknown_fields(model: &str) -> Value {
    let mut request = question(model, false);
    request["x_of_this_client"] = json!({"deep": [1, 2.5, "three", null]});
    request["logit_bias"] = json!({"42": -100});
    request["seed"] = json!(7);
    request["response_format"] = json!({"type": "json_object"});
    request["n_discard"] = json!(-1);
    request["id_slot"] = json!(3);
    request["grammar"] = json!("root ::= \"a\"");
    request
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
