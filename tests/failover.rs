//! What happens to the next request when a provider is busy, broken or dead.

use std::time::{Duration, Instant};

use crate::support::{Manner, MockOpenAi, Node, PATIENCE, Setup, in_time, mesh, processes, until};

/// A killed node leaves the routes within this.
const GONE_WITHIN: Duration = Duration::from_secs(5);

struct Trio {
    engines: [MockOpenAi; 2],
    providers: [Node; 2],
    visitor: Node,
}

/// Two equal providers of the model `twin`, and a visitor that has none.
async fn trio(mode: &str) -> Trio {
    let engines = [MockOpenAi::start("engine", &["twin"]).await, MockOpenAi::start("engine", &["twin"]).await];
    let first = Setup::new("first").argument("--mode", mode).config(&engines[0].config()).start().await;
    let second = Setup::new("second").argument("--mode", mode).config(&engines[1].config()).start().await;
    let visitor = Setup::new("visitor").start().await;
    mesh::form(&visitor, &[&first, &second]).await;
    mesh::capability(&visitor, &first, "twin").await;
    mesh::capability(&visitor, &second, "twin").await;
    Trio { engines, providers: [first, second], visitor }
}

impl Trio {
    /// Asks from the visitor and says which of the two providers answered.
    async fn ask(&self) -> usize {
        let answer = in_time(PATIENCE, "an answer", self.visitor.chat("twin", false)).await;
        let status = answer.status();
        let node = answer.headers().get("x-atmo-node").map(|node| node.to_str().expect("text").to_owned());
        let text = answer.text().await.expect("the answer arrives");
        assert_eq!(status, 200, "{text}");
        let node = node.expect("an answer names its node");
        self.providers.iter().position(|provider| provider.is_named_by(&node)).expect("one of the two answered")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saturated_provider_is_passed_over() {
    let trio = trio("provider").await;
    let idle = mesh::capability(&trio.visitor, &trio.providers[0], "twin").await;
    trio.engines[0].speaks(1200, Duration::from_millis(50));
    // A provider sends nothing out, so that these all stay with the first engine.
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let request = crate::support::node::client()
            .post(trio.providers[0].url("/v1/chat/completions"))
            .json(&crate::support::node::question("twin", true));
        held.spawn(async move { request.send().await.ok()?.bytes().await.ok() });
    }
    until(PATIENCE, "the first engine is at work", async || trio.engines[0].active() > 0).await;
    until(PATIENCE, "the visitor hears of the load", async || {
        mesh::capability(&trio.visitor, &trio.providers[0], "twin").await["load"] != idle["load"]
    })
    .await;
    for _ in 0..6 {
        assert_eq!(trio.ask().await, 1);
    }
    assert_eq!(trio.engines[1].requests().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_engine_costs_no_request() {
    let trio = trio("participant").await;
    trio.engines[0].behaves(Manner::Failing);
    for _ in 0..8 {
        assert_eq!(trio.ask().await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_provider_costs_no_request_and_leaves_the_routes() {
    let mut trio = trio("participant").await;
    let chosen = trio.ask().await;
    trio.providers[chosen].kill().await;
    let killed = Instant::now();
    assert_eq!(trio.ask().await, 1 - chosen);
    let survivors = [&trio.visitor, &trio.providers[1 - chosen]];
    for node in survivors {
        mesh::knows_within(GONE_WITHIN.saturating_sub(killed.elapsed()), node, &survivors).await;
    }
    assert_eq!(trio.ask().await, 1 - chosen);
}

/// A stopped process keeps its connections and says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_provider_costs_little_time() {
    let trio = trio("participant").await;
    let chosen = trio.ask().await;
    processes::signal(trio.providers[chosen].process_id(), libc::SIGSTOP);
    let stopped = Instant::now();
    for _ in 0..4 {
        assert_eq!(trio.ask().await, 1 - chosen);
    }
    // Once for whoever meets it first; gossip alone would take longer.
    assert!(stopped.elapsed() < Duration::from_secs(4), "{:?}", stopped.elapsed());
    processes::signal(trio.providers[chosen].process_id(), libc::SIGCONT);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_mesh_of_two_a_killed_provider_leaves_the_routes_too() {
    let engine = MockOpenAi::start("engine", &["twin"]).await;
    let mut provider = Setup::new("provider").config(&engine.config()).start().await;
    let visitor = Setup::new("visitor").start().await;
    mesh::form(&visitor, &[&provider]).await;
    mesh::offers(&visitor, "twin").await;
    assert_eq!(visitor.models().await, ["twin"]);
    provider.kill().await;
    mesh::knows_within(GONE_WITHIN, &visitor, &[&visitor]).await;
    until(GONE_WITHIN, "its model is no longer listed", async || visitor.models().await.is_empty()).await;
    // Clients try again by themselves what is merely away; what nobody ever offered is their mistake.
    let away = visitor.chat("twin", false).await;
    assert_eq!(away.status(), 503);
    assert!(away.headers().contains_key("retry-after"));
    let error: serde_json::Value = away.json().await.expect("an error is JSON");
    assert_eq!(error["error"]["code"], "model_unavailable");
    assert!(error["error"]["message"].as_str().is_some_and(|message| message.contains("provider")), "{error}");
    assert_eq!(visitor.chat("never-offered", false).await.status(), 404);
    let all = visitor.json(&["nodes", "--all"]).await;
    assert!(all.to_string().contains(provider.id()), "{all}");
}

/// After the first byte nothing can be taken back: the client is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_says_so() {
    let engine = MockOpenAi::start("engine", &["twin"]).await;
    let provider = Setup::new("provider").config(&engine.config()).start().await;
    let visitor = Setup::new("visitor").start().await;
    mesh::form(&visitor, &[&provider]).await;
    mesh::offers(&visitor, "twin").await;
    engine.behaves(Manner::Cutting { after: 2 });
    let answer = visitor.chat("twin", true).await;
    assert_eq!(answer.status(), 200);
    let text = in_time(PATIENCE, "the stream ends", answer.text()).await;
    assert!(text.as_ref().map_or(true, |text| text.contains("error") && !text.contains("[DONE]")), "{text:?}");
    // A server that crashes behind a proxy merely ends its answer.
    engine.behaves(Manner::Stopping { after: 2 });
    let text = in_time(PATIENCE, "the stream ends", visitor.chat("twin", true).await.text()).await.expect("it is text");
    assert!(text.contains("error") && !text.contains("[DONE]"), "{text}");
    let intent = visitor.atmo(&["intent", "--model", "twin", "hello"]).await;
    assert_eq!(intent.code, Some(1), "half an answer is no success: {intent}");
    let status = provider.json(&["status"]).await;
    assert_eq!(status["backends"][0]["state"], "degraded", "{status}");
    // Three answers that broke off are enough: the circuit rests, and says so.
    let resting = visitor.chat("twin", true).await;
    assert_eq!(resting.status(), 503);
    assert!(resting.headers().contains_key("retry-after"));
    engine.behaves(Manner::Proper);
    until(PATIENCE, "a rested circuit is tried again", async || visitor.chat("twin", true).await.status() == 200).await;
    assert_eq!(visitor.chat("twin", true).await.status(), 200);
}
