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

/// What a certificate does not allow is said before somebody wonders.
#[tokio::test(flavor = "multi_thread")]
async fn roles_are_kept_and_said() {
    let (near, far) = (MockOpenAi::start("near", &["near-model"]).await, MockOpenAi::start("far", &["far-model"]).await);
    let founder = Setup::new("founder").config(&far.config()).start().await;
    let code = async |roles: &str| founder.json(&["invite", "--roles", roles]).await;
    let consumer = Setup::new("consumer").config(&near.config()).start().await;
    let provider = Setup::new("provider").config(&near.config()).start().await;
    for (node, code) in [(&consumer, code("consume").await), (&provider, code("provide").await)] {
        node.json(&["join", code["code"].as_str().expect("a code is text")]).await;
    }
    mesh::offers(&consumer, "far-model").await;
    mesh::offers(&founder, "near-model").await;
    mesh::offers(&provider, "near-model").await;
    assert_eq!(consumer.chat("far-model", false).await.status(), 200);
    let said = async |node: &crate::support::Node| node.json(&["status"]).await["warnings"].to_string();
    assert!(said(&consumer).await.contains("lacks the role `provide`"));
    assert!(said(&provider).await.contains("lacks the role `consume`"));
    assert_eq!(provider.models().await, ["near-model"], "what it may not ask it does not list");
    assert_eq!(provider.chat("near-model", false).await.status(), 200);
    let refused = provider.chat("far-model", false).await;
    assert_eq!(refused.status(), 403);
    assert!(refused.text().await.expect("it is text").contains("lacks the role `consume`"));
}

/// A member whose mesh is switched off says so, and whom it tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_reaches_nobody_says_whom_it_tried() {
    let mut founder = Setup::new("founder").start().await;
    let member = Setup::new("member").start().await;
    mesh::form(&founder, &[&member]).await;
    founder.kill().await;
    let member = member.restart().await;
    let status = member.json(&["status"]).await;
    let address = founder.listen_addresses().remove(0);
    let address = address.split("/p2p/").next().expect("there is a first part");
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("can be reached") && warnings.contains(address), "{warnings}");
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
        assert!(
            text.contains("atmo_served_total{caller=\"member\",outcome=\"accepted\"} 1"),
            "the other's request is counted: {text}"
        );
    }
}
