//! Far away, gossip tells of load late or never: who would be tried first is asked.

use std::time::Duration;

use serde_json::Value;

use crate::support::node::{client, question};
use crate::support::{Manner, MockOpenAi, Node, PATIENCE, Setup, mesh, until};

/// Looks for no second node to gossip with.
const ONE_LINK: &str = "[network]\nlinks = 1\n";
/// What was heard is stale after half a second, or never.
const SOON_STALE: &str = "load_stale_ms = 500\n";
const NEVER_STALE: &str = "load_stale_ms = 4294967295\n";
/// Both are stale by then, and may be asked again.
const STALE: Duration = Duration::from_secs(3);
const SLOTS: u16 = 2;

/// Two providers of `twin` beyond the only neighbour of those who ask.
struct Far {
    engines: [MockOpenAi; 2],
    providers: [Node; 2],
    _neighbour: Node,
    /// Asks when in doubt.
    curious: Node,
    /// Believes what it heard.
    trusting: Node,
}

async fn far() -> Far {
    let engines =
        [MockOpenAi::with_slots("engine", &["twin"], SLOTS).await, MockOpenAi::with_slots("engine", &["twin"], SLOTS).await];
    let provider = async |name: &str, engine: &MockOpenAi| {
        let setup = Setup::new(name).argument("--mode", "provider");
        setup.config(&format!("{ONE_LINK}{}", engine.config())).start().await
    };
    let providers = [provider("first", &engines[0]).await, provider("second", &engines[1]).await];
    let neighbour = Setup::new("neighbour").start().await;
    let curious = Setup::new("curious").config(&format!("{ONE_LINK}{SOON_STALE}")).start().await;
    let trusting = Setup::new("trusting").config(&format!("{ONE_LINK}{NEVER_STALE}")).start().await;
    mesh::form(&neighbour, &[&providers[0], &providers[1], &curious, &trusting]).await;
    for asker in [&curious, &trusting] {
        for provider in &providers {
            assert_eq!(mesh::capability(asker, provider, "twin").await["hops"], 2);
        }
    }
    Far { engines, providers, _neighbour: neighbour, curious, trusting }
}

async fn route(node: &Node) -> Value {
    node.json(&["route", "hello", "--model", "twin"]).await
}

/// Fills the first provider from its own endpoint, which nobody else hears of.
async fn fill(far: &Far) -> tokio::task::JoinSet<()> {
    far.engines[0].behaves(Manner::Held);
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..4 * SLOTS {
        let request = client().post(far.providers[0].url("/v1/chat/completions")).json(&question("twin", true));
        held.spawn(async move { _ = request.send().await });
    }
    until(PATIENCE, "the first engine is full", async || far.engines[0].active() == usize::from(SLOTS)).await;
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_changes_the_choice_that_stale_load_would_have_made() {
    let far = far().await;
    // Both are heard of while they are idle: what rides on a reply is known.
    for asker in [&far.curious, &far.trusting] {
        for (provider, engine) in far.providers.iter().zip(&far.engines) {
            let before = engine.requests().len();
            until(PATIENCE, "both have answered", async || {
                assert_eq!(asker.chat("twin", false).await.status(), 200);
                engine.requests().len() > before
            })
            .await;
            until(PATIENCE, "it is known to be idle", async || mesh::capability(asker, provider, "twin").await["running"] == 0)
                .await;
        }
    }
    let _held = fill(&far).await;
    tokio::time::sleep(STALE).await;
    let believed = mesh::capability(&far.curious, &far.providers[0], "twin").await;
    assert_eq!(believed["running"], 0, "gossip has not told of it: {believed}");

    let trusting = route(&far.trusting).await;
    assert_eq!((&trusting["near_equals"], &trusting["quotes"]), (&2.into(), &Value::Array(Vec::new())), "{trusting}");
    let curious = route(&far.curious).await;
    assert!(far.providers[1].is_named_by(curious["chosen"]["node"].as_str().expect("somebody is chosen")), "{curious}");
    let quotes = curious["quotes"].as_array().expect("both were asked");
    let of = |node: &Node| quotes.iter().find(|quote| quote["node_id"] == node.id()).unwrap_or_else(|| panic!("{curious}"));
    assert_eq!(of(&far.providers[0])["running"], SLOTS);
    assert_eq!(of(&far.providers[1])["running"], 0);
    assert!(quotes.iter().all(|quote| quote["known_ms"].as_u64().is_some_and(|age| age > 500)), "{curious}");
    assert!(curious["explanation"].as_str().is_some_and(|text| text.contains("asked just now")), "{curious}");
    // The mesh's own picture has it now, and within two seconds nobody is asked again.
    until(PATIENCE, "the picture has what was asked", async || {
        mesh::capability(&far.curious, &far.providers[0], "twin").await["running"] == SLOTS
    })
    .await;
    let again = route(&far.curious).await;
    assert_eq!(again["quotes"], Value::Array(Vec::new()), "{again}");
    let answered = far.curious.chat("twin", false).await;
    assert!(far.providers[1].is_named_by(answered.headers()["x-atmo-node"].to_str().expect("text")));
}

/// Who does not answer within 150 ms is chosen, or not, by what was known.
#[tokio::test(flavor = "multi_thread")]
async fn a_quote_that_does_not_come_delays_a_request_by_little() {
    let far = far().await;
    for provider in &far.providers {
        crate::support::processes::signal(provider.process_id(), libc::SIGSTOP);
    }
    let began = std::time::Instant::now();
    let decided = route(&far.curious).await;
    let took = began.elapsed();
    for provider in &far.providers {
        crate::support::processes::signal(provider.process_id(), libc::SIGCONT);
    }
    let quotes = decided["quotes"].as_array().expect("both were asked");
    assert!(quotes.len() == 2 && quotes.iter().all(|quote| quote["running"].is_null()), "{decided}");
    assert!(decided["chosen"].is_object(), "{decided}");
    assert!(took < Duration::from_secs(1), "{took:?}");
}
