//! What a node keeps on disk, and what a sudden end may not break.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::{MockOpenAi, PATIENCE, Setup, command, events, in_time, mesh, processes, until};

/// From its ready line on, whatever the others still believe.
const BACK_WITHIN: Duration = Duration::from_secs(5);

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

/// The others still hold a connection to the killed process when the new one knocks.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_killed_is_back_in_the_mesh_within_seconds() {
    let founder = Setup::new("founder").start().await;
    let other = Setup::new("other").start().await;
    let mut member = Setup::new("member").start().await;
    mesh::form(&founder, &[&other, &member]).await;
    for _ in 0..3 {
        member = member.restart().await;
        let all = [&founder, &other, &member];
        for node in all {
            mesh::knows_within(BACK_WITHIN, node, &all).await;
        }
    }
}

/// Whoever of the two hears of the other first stops; the other does as well where the last record still reaches it.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_from_one_copied_folder_one_stops_at_least_and_says_so() {
    let founder = Setup::new("founder").start().await;
    let other = Setup::new("other").start().await;
    let mut original = Setup::new("original").start().await;
    mesh::form(&founder, &[&other, &original]).await;
    let mut copy = Setup::new("copy").copy_of(&original).start().await;
    assert_eq!(copy.id(), original.id());
    let (code, log) = tokio::select! {
        code = original.ended() => (code, original.log()),
        code = copy.ended() => (code, copy.log()),
    };
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("another running node uses this node's key"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_nobody_reads_still_obeys_signals() {
    let setup = Setup::new("node");
    let mut command = setup.up();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    processes::end_with_this_thread(&mut command);
    let mut child = command.spawn().expect("the binary is there");
    drop(child.stderr.take());
    let stdout = child.stdout.take().expect("stdout is piped");
    in_time(PATIENCE, "it is ready", BufReader::new(stdout).lines().next_line()).await.expect("a pipe can be read");
    processes::signal(child.id().expect("it runs"), libc::SIGTERM);
    let status = in_time(PATIENCE, "it ends", child.wait()).await.expect("it can be waited for");
    assert_eq!(status.code(), Some(0));
}

/// A limit on the size of files stands in for a full disk: every write fails, and nothing but this process is in the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_takes_no_more_is_one_line_and_no_node() {
    let setup = Setup::new("node");
    let mut node = setup.clone().start().await;
    node.kill().await;
    let before = std::fs::read(setup.data_folder().join("node.key")).expect("the folder is there");
    let mut command = setup.up();
    processes::let_write_nothing(&mut command);
    let refusal = command::finish(&mut command).await;
    let line = refusal.one_clear_line();
    assert!(line.contains("state"), "it names the file: {line}");
    assert_eq!(std::fs::read(setup.data_folder().join("node.key")).expect("the folder is there"), before);
    let node = setup.start().await;
    node.json(&["status"]).await;
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

/// It waits ten seconds for them, and does not cut them without a word.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_outlasts_the_node_ends_with_an_error() {
    let engine = MockOpenAi::start("engine", &["twin"]).await;
    engine.speaks(600, Duration::from_millis(50));
    let mut node = Setup::new("node").config(&engine.config()).start().await;
    mesh::offers(&node, "twin").await;
    let answer = node.chat("twin", true).await;
    processes::signal(node.process_id(), libc::SIGTERM);
    let (text, properly) = in_time(PATIENCE, "the stream ends", events::rest(answer)).await;
    assert!(properly, "{text}");
    let last = events::sent(&text).pop().expect("there is a last event").json();
    assert!(last["error"]["message"].as_str().is_some_and(|message| message.contains("stopping")), "{last}");
    assert_eq!(node.ended().await, Some(0), "{}", node.log());
}

/// Browsers and probes open connections that they may never use.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_does_not_delay_the_end() {
    let mut node = Setup::new("node").start().await;
    let address = node.url("").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let _silent = tokio::net::TcpStream::connect(&address).await.expect("the API listens");
    assert_eq!(node.get("/health").await.status(), 200);
    processes::signal(node.process_id(), libc::SIGTERM);
    assert_eq!(in_time(Duration::from_secs(5), "the node ends", node.ended()).await, Some(0), "{}", node.log());
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
