//! A client that hangs up frees the engine at once, wherever the engine is.

use std::time::Duration;

use crate::support::{MockOpenAi, Node, PATIENCE, Setup, mesh, until};

/// From hanging up to the engine's slot being free.
const FREED_WITHIN: Duration = Duration::from_secs(2);

async fn hang_up_frees_the_slot(asker: &Node, engine: &MockOpenAi) {
    engine.speaks(600, Duration::from_millis(50));
    let mut answer = asker.chat("slow", true).await;
    assert_eq!(answer.status(), 200);
    let first = answer.chunk().await.expect("the stream works");
    assert!(first.is_some(), "the first token arrives long before the last");
    until(PATIENCE, "the engine is at work", async || engine.active() == 1).await;
    drop(answer);
    until(FREED_WITHIN, "the engine is free again", async || engine.active() == 0).await;
    assert_eq!(engine.abandoned(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_frees_the_slot_on_this_node() {
    let engine = MockOpenAi::start("engine", &["slow"]).await;
    let node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "slow").await;
    hang_up_frees_the_slot(&node, &engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_frees_the_slot_on_the_other_node() {
    let engine = MockOpenAi::start("engine", &["slow"]).await;
    let provider = Setup::new("provider").config(&engine.config()).start().await;
    let visitor = Setup::new("visitor").start().await;
    mesh::form(&provider, &[&visitor]).await;
    mesh::offers(&visitor, "slow").await;
    hang_up_frees_the_slot(&visitor, &engine).await;
}

/// Also while the whole answer is still being waited for.
#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_before_the_first_byte_frees_the_slot_too() {
    let engine = MockOpenAi::start("engine", &["slow"]).await;
    engine.speaks(600, Duration::from_millis(50));
    let provider = Setup::new("provider").config(&engine.config()).start().await;
    let visitor = Setup::new("visitor").start().await;
    mesh::form(&provider, &[&visitor]).await;
    mesh::offers(&visitor, "slow").await;
    let impatient = tokio::time::timeout(Duration::from_secs(1), visitor.chat("slow", false)).await;
    assert!(impatient.is_err(), "the answer takes half a minute");
    until(FREED_WITHIN, "the engine is free again", async || engine.active() == 0 && engine.abandoned() == 1).await;
}
