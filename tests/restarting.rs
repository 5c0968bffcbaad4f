//! What a node keeps on disk, and what a sudden end may not break.

use std::time::Duration;

use crate::support::{MockOpenAi, Setup, mesh, processes, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_comes_back_as_itself_and_as_a_member() {
    let founder = Setup::new("founder").start().await;
    let member = Setup::new("member").start().await;
    mesh::form(&founder, &[&member]).await;
    let (identity, home) = (member.id().to_owned(), member.json(&["status"]).await["mesh"].clone());

    let member = member.restart().await;
    assert_eq!(member.id(), identity);
    assert_eq!(member.json(&["status"]).await["mesh"], home);
    mesh::knows(&member, &[&founder, &member]).await;
    mesh::knows(&founder, &[&founder, &member]).await;
}

/// Whoever of the two was away, the other one's new address is learned.
#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_finds_together_again_when_both_were_killed() {
    let founder = Setup::new("founder").start().await;
    let port = founder.listen_addresses().into_iter().find(|address| address.contains("quic")).expect("it listens on QUIC");
    let listen = port.split("/p2p/").next().expect("there is a first part").to_owned();
    let mut member = Setup::new("member").start().await;
    mesh::form(&founder, &[&member]).await;
    member.kill().await;
    let mut founder = founder;
    founder.kill().await;
    let founder = founder.setup().argument("--listen", &listen).start().await;
    let member = member.restart().await;
    mesh::knows(&founder, &[&founder, &member]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_in_use_is_refused_in_one_line() {
    let node = Setup::new("first").start().await;
    let second = node.setup().up_and_down_again().await;
    let line = second.one_clear_line();
    assert!(line.contains("data"), "{line}");
    node.json(&["status"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_node_lets_a_running_answer_finish() {
    let engine = MockOpenAi::start("engine", &["twin"]).await;
    engine.speaks(10, Duration::from_millis(100));
    let mut node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "twin").await;
    let answer = node.chat("twin", true).await;
    assert_eq!(answer.status(), 200);
    let process = node.process_id();
    processes::signal(process, libc::SIGINT);
    let text = answer.text().await.expect("the stream is not cut");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(node.ended().await, Some(0), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn down_ends_the_node_and_then_says_that_there_is_none() {
    let mut node = Setup::new("node").start().await;
    node.json(&["down"]).await;
    assert_eq!(node.ended().await, Some(0), "{}", node.log());
    let again = node.atmo(&["nodes"]).await;
    again.refused_with(&["atmo up", "not running", "no node"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_leaves_no_worker_behind() {
    let mut node = Setup::new("node").built_in().start().await;
    let model = mesh::any_model(&node).await;
    assert_eq!(node.chat(&model, false).await.status(), 200);
    let workers = processes::children(node.process_id());
    assert!(!workers.is_empty(), "the built-in model runs in a process of its own");
    node.kill().await;
    until(Duration::from_secs(5), "the workers end", async || !workers.iter().any(|worker| processes::is_running(*worker))).await;
}
