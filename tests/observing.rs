//! What others can watch of a node: whether it is ready, and what it counts.

use serde_json::{Value, json};

use crate::support::{Manner, MockOpenAi, PATIENCE, Setup, mesh, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_ready_once_a_request_would_find_a_model() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let mut provider = Setup::new("provider").config(&engine.config()).start().await;
    let visitor = Setup::new("visitor").start().await;
    let not_yet = visitor.get("/ready").await;
    assert_eq!(not_yet.status(), 503);
    assert_eq!(not_yet.json::<Value>().await.expect("it is JSON"), json!({"status": "no_models", "models": 0}));
    assert_eq!(visitor.get("/health").await.status(), 200);
    mesh::form(&provider, &[&visitor]).await;
    until(PATIENCE, "the visitor is ready", async || visitor.get("/ready").await.status() == 200).await;
    let ready: Value = visitor.get("/ready").await.json().await.expect("it is JSON");
    assert_eq!(ready, json!({"status": "ready", "models": 1}));
    assert_eq!(visitor.chat("far-model", false).await.status(), 200);
    provider.kill().await;
    until(PATIENCE, "the visitor is ready no more", async || visitor.get("/ready").await.status() == 503).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_counted() {
    let engine = MockOpenAi::start("engine", &["far-model"]).await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    for stream in [true, false] {
        visitor.chat("far-model", stream).await.bytes().await.expect("it arrives");
    }
    provider.chat("far-model", true).await.bytes().await.expect("it arrives");
    assert_eq!(visitor.chat("no-such-model", true).await.status(), 404);
    engine.behaves(Manner::Failing);
    assert_eq!(visitor.chat("far-model", true).await.status(), 502);
    engine.behaves(Manner::Cutting { after: 2 });
    visitor.chat("far-model", true).await.text().await.ok();

    let expected = [
        (&visitor, "atmo_asked_total{outcome=\"answered\"}", 3.0),
        (&visitor, "atmo_asked_total{outcome=\"nothing_fits\"}", 1.0),
        (&visitor, "atmo_asked_total{outcome=\"failed\"}", 1.0),
        (&visitor, "atmo_answers_total{end=\"whole\"}", 2.0),
        (&visitor, "atmo_answers_total{end=\"broken\"}", 1.0),
        (&visitor, "atmo_attempts_failed_total{cause=\"broken\"}", 1.0),
        (&visitor, "atmo_first_token_seconds_count", 3.0),
        (&provider, "atmo_asked_total{outcome=\"answered\"}", 1.0),
        (&provider, "atmo_served_total{caller=\"owner\",outcome=\"accepted\"}", 1.0),
        (&provider, "atmo_served_total{caller=\"member\",outcome=\"accepted\"}", 3.0),
        (&provider, "atmo_served_total{caller=\"member\",outcome=\"refused\"}", 1.0),
        (&provider, "atmo_queue_wait_seconds_count", 5.0),
        (&provider, "atmo_running_requests", 0.0),
        (&provider, "atmo_waiting_requests", 0.0),
    ];
    for (node, series, value) in expected {
        let what = format!("{} counts {value} as {series}", node.name());
        until(PATIENCE, &what, async || node.metric(series).await == value).await;
    }
    assert!(provider.metric("atmo_tokens_per_second_count").await >= 1.0);
    assert!(provider.metric("atmo_resident_bytes").await > 1e6);
    for node in [&provider, &visitor] {
        let answer = node.get("/metrics").await;
        assert!(answer.headers()["content-type"].to_str().expect("text").starts_with("text/plain"));
        let text = answer.text().await.expect("it is text");
        assert!(
            !text.contains("far-model") && !text.contains("provider") && !text.contains(provider.id()),
            "names of nobody: {text}"
        );
    }
}
