//! What a node in each mode does, and what it leaves alone.

use crate::support::node::client;
use crate::support::{MockOpenAi, Setup, mesh};

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_node_answers_without_a_network() {
    let engine = MockOpenAi::start("engine", &["alone"]).await;
    let node = Setup::new("node").argument("--mode", "standalone").config(&engine.config()).start().await;
    mesh::offers(&node, "alone").await;
    assert_eq!(node.chat("alone", false).await.status(), 200);
    assert!(node.listen_addresses().is_empty(), "{:?}", node.listen_addresses());
    node.atmo(&["invite"]).await.refused_with(&["standalone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_serves_others_and_sends_nothing_out() {
    let (near, far) = (MockOpenAi::start("near", &["near-model"]).await, MockOpenAi::start("far", &["far-model"]).await);
    let provider = Setup::new("provider").argument("--mode", "provider").config(&near.config()).start().await;
    let other = Setup::new("other").config(&far.config()).start().await;
    mesh::form(&provider, &[&other]).await;
    mesh::offers(&other, "near-model").await;
    assert_eq!(other.chat("near-model", false).await.status(), 200);
    assert_eq!(provider.chat("near-model", false).await.status(), 200);
    assert_eq!(provider.chat("far-model", false).await.status(), 404);
    assert_eq!(far.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_headless_node_serves_others_and_has_no_endpoint() {
    let engine = MockOpenAi::start("engine", &["served"]).await;
    let headless = Setup::new("headless").argument("--mode", "headless").config(&engine.config()).start().await;
    let other = Setup::new("other").start().await;
    mesh::form(&other, &[&headless]).await;
    mesh::offers(&other, "served").await;
    assert_eq!(other.chat("served", false).await.status(), 200);
    if headless.ready()["api"].is_string() {
        let models = client().get(headless.url("/v1/models")).send().await.expect("the address answers");
        assert_eq!(models.status(), 404);
        let health = client().get(headless.url("/health")).send().await.expect("the address answers");
        assert_eq!(health.status(), 200);
        let metrics = client().get(headless.url("/metrics")).send().await.expect("the address answers");
        let text = metrics.text().await.expect("metrics are text");
        assert!(text.contains("atmo_served_total{outcome=\"accepted\"} 1"), "the other's request is counted: {text}");
    }
}
