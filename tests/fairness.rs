//! Who goes next where there are more requests than slots.

use std::time::Duration;

use reqwest::Response;
use tokio::task::JoinHandle;

use crate::support::node::{client, question};
use crate::support::{Manner, MockOpenAi, Node, PATIENCE, in_time, mesh, until};

/// A stand-in with one slot that holds what it is asked.
async fn holding_engine() -> MockOpenAi {
    let engine = MockOpenAi::with_slots("engine", &["far-model"], 1).await;
    engine.behaves(Manner::Held);
    engine
}

/// Sends a question with this text, from the owner or with a key.
fn ask(node: &Node, text: &str, key: Option<&str>) -> JoinHandle<Response> {
    let mut body = question("far-model", false);
    body["messages"][0]["content"] = text.into();
    let mut request = client().post(node.url("/v1/chat/completions")).json(&body);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    tokio::spawn(async move { request.send().await.expect("an answer comes") })
}

async fn waiting(node: &Node, requests: u32) {
    let what = format!("{requests} requests wait");
    until(PATIENCE, &what, async || node.metric("atmo_waiting_requests").await == f64::from(requests)).await;
}

async fn all_answered(asked: Vec<JoinHandle<Response>>) {
    for answer in asked {
        assert_eq!(in_time(PATIENCE, "an answer", answer).await.expect("no panic").status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_goes_before_a_member() {
    let engine = holding_engine().await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    let mut asked = vec![ask(&visitor, "running", None)];
    until(PATIENCE, "the engine is at work", async || engine.active() == 1).await;
    for (at, (node, text)) in [(&visitor, "member 1"), (&visitor, "member 2"), (&provider, "owner")].into_iter().enumerate() {
        asked.push(ask(node, text, None));
        waiting(&provider, at as u32 + 1).await;
    }
    engine.lets_go(4);
    all_answered(asked).await;
    assert_eq!(engine.questions(), ["running", "owner", "member 1", "member 2"]);
    assert_eq!(provider.metric("atmo_served_total{caller=\"member\",outcome=\"accepted\"}").await, 3.0);
    assert_eq!(provider.metric("atmo_served_total{caller=\"owner\",outcome=\"accepted\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_keys_and_a_member_take_turns() {
    let engine = holding_engine().await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    let (a, b) = (provider.key("a", &[]).await, provider.key("b", &[]).await);
    let mut asked = vec![ask(&provider, "running", None)];
    until(PATIENCE, "the engine is at work", async || engine.active() == 1).await;
    let order = [
        (&provider, "a1", Some(a.as_str())),
        (&provider, "a2", Some(a.as_str())),
        (&provider, "b1", Some(b.as_str())),
        (&visitor, "member", None),
    ];
    for (at, (node, text, key)) in order.into_iter().enumerate() {
        asked.push(ask(node, text, key));
        waiting(&provider, at as u32 + 1).await;
    }
    engine.lets_go(5);
    all_answered(asked).await;
    assert_eq!(engine.questions(), ["running", "a1", "b1", "member", "a2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_back() {
    let engine = holding_engine().await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    let key = provider.key("a", &[]).await;
    let mut asked = vec![ask(&provider, "running", Some(&key))];
    until(PATIENCE, "the engine is at work", async || engine.active() == 1).await;
    for number in 1..=4 {
        asked.push(ask(&provider, &format!("a{number}"), Some(&key)));
        waiting(&provider, number).await;
    }
    // Whoever has the whole queue already makes no room for itself.
    let refused = in_time(PATIENCE, "an answer", ask(&provider, "a5", Some(&key))).await.expect("no panic");
    assert_eq!(refused.status(), 503);
    let seconds: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("a number");
    assert!((1..=3600).contains(&seconds), "{seconds}");
    let error: serde_json::Value = refused.json().await.expect("an error is JSON");
    assert_eq!(error["error"]["code"], "busy");
    // Somebody with fewer requests takes the place of the last.
    asked.push(ask(&visitor, "member", None));
    let sent_away = in_time(PATIENCE, "an answer", &mut asked[4]).await.expect("no panic");
    assert_eq!(sent_away.status(), 503);
    assert!(sent_away.headers().contains_key("retry-after"));
    asked.remove(4);
    waiting(&provider, 4).await;
    engine.lets_go(6);
    all_answered(asked).await;
    assert_eq!(engine.questions(), ["running", "a1", "member", "a2", "a3"]);
}

/// Whoever gives up waiting leaves the queue.
#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_in_the_queue_gives_the_place_back() {
    let engine = holding_engine().await;
    let (provider, visitor) = mesh::provider_and_visitor(&engine, "far-model").await;
    let running = ask(&provider, "running", None);
    until(PATIENCE, "the engine is at work", async || engine.active() == 1).await;
    let (here, there) = (ask(&provider, "here", None), ask(&visitor, "there", None));
    waiting(&provider, 2).await;
    here.abort();
    there.abort();
    in_time(Duration::from_secs(2), "both places are given back", waiting(&provider, 0)).await;
    engine.lets_go(1);
    all_answered(vec![running]).await;
    assert_eq!(engine.questions(), ["running"]);
}
