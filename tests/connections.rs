//! Who is connected to whom, and what over: gossip with a few, requests with anyone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atmo::admission::Gate;
use atmo::mesh_change::Current;
use atmo::store::Store;
use atmo::swarm::streams::{Accepted, CONTROL, Opener};
use atmo::{membership, peer, swarm};
use atmo_protocol::NodeId;
use atmo_protocol::wire::Frame;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::PeerId;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{Stream, SwarmEvent};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::support::{MockOpenAi, Node, PATIENCE, Setup, in_time, mesh, until};

/// Looks for no second node to gossip with.
const ONE_LINK: &str = "[network]\nlinks = 1\nunused_seconds = 2\n";
/// Longer than a node waits before it opens a broken control stream again.
const QUIET: Duration = Duration::from_secs(1);

/// Two that gossip with a third alone.
struct Line {
    left: Node,
    middle: Node,
    right: Node,
}

/// `right` runs with `more` in its configuration.
async fn line(more: &str) -> Line {
    let middle = Setup::new("middle").start().await;
    let left = Setup::new("left").config(ONE_LINK).start().await;
    let right = Setup::new("right").config(&format!("{ONE_LINK}{more}")).start().await;
    mesh::form(&middle, &[&left, &right]).await;
    Line { left, middle, right }
}

/// What `node` says of `other`.
async fn entry(node: &Node, other: &Node) -> Value {
    let listed = node.json(&["nodes", "--all"]).await;
    let mine = listed.as_array().and_then(|nodes| nodes.iter().find(|entry| entry["id"] == other.id()));
    mine.cloned().unwrap_or_default()
}

/// Waits until `node` is in touch with `other` like this, and sees it so many hops away.
async fn in_touch(node: &Node, other: &Node, contact: Option<&str>, hops: u64) {
    let what = format!("{} has {contact:?} with {}, {hops} hops away", node.name(), other.name());
    until(PATIENCE, &what, async || {
        let entry = entry(node, other).await;
        entry["contact"].as_str() == contact && entry["hops"] == hops
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_gossip_with_a_third_know_each_other_and_become_neighbours_once_it_is_gone() {
    let Line { left, mut middle, right } = line("").await;
    in_touch(&left, &middle, Some("link"), 1).await;
    in_touch(&left, &right, None, 2).await;
    in_touch(&right, &left, None, 2).await;
    let status = left.json(&["status"]).await;
    assert_eq!((&status["peers"], &status["links"], &status["connections"]), (&2.into(), &1.into(), &1.into()), "{status}");
    assert_eq!(middle.json(&["status"]).await["links"], 2);
    assert_eq!((left.metric("atmo_links").await, left.metric("atmo_connections").await), (1.0, 1.0));
    middle.kill().await;
    in_touch(&left, &right, Some("link"), 1).await;
    in_touch(&right, &left, Some("link"), 1).await;
}

const REQUEST_DIALS: &str = "atmo_dials_total{outcome=\"reached\",purpose=\"request\"}";
/// What is unused for two seconds is closed when it is looked at: at the latest with the next ping, every 15 s.
const CLOSED_WITHIN: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread")]
async fn a_request_dials_its_executor_once_and_gossip_takes_no_notice() {
    let engine = MockOpenAi::start("engine", &["twin"]).await;
    let Line { left, middle, right } = line(&engine.config()).await;
    mesh::offers(&left, "twin").await;
    in_touch(&left, &right, None, 2).await;
    let answers = futures::future::join_all((0..8).map(|_| left.chat("twin", false))).await;
    for answer in answers {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-atmo-node"], right.name());
    }
    assert_eq!(left.metric(REQUEST_DIALS).await, 1.0);
    for (node, other) in [(&left, &right), (&right, &left)] {
        in_touch(node, other, Some("connection"), 2).await;
        let status = node.json(&["status"]).await;
        assert_eq!((&status["links"], &status["connections"]), (&1.into(), &2.into()), "{status}");
    }
    until(CLOSED_WITHIN, "the connection is closed once it is unused", async || {
        entry(&left, &right).await["contact"].is_null() && entry(&right, &left).await["contact"].is_null()
    })
    .await;
    mesh::knows(&left, &[&left, &middle, &right]).await;
    assert_eq!(left.chat("twin", false).await.status(), 200);
    assert_eq!(left.metric(REQUEST_DIALS).await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_comes_to_be_over_a_busy_connection_disturbs_nothing() {
    let engine = MockOpenAi::start("engine", &["twin"]).await;
    let Line { left, mut middle, right } = line(&engine.config()).await;
    mesh::offers(&left, "twin").await;
    engine.speaks(80, Duration::from_millis(100));
    let answer = left.chat("twin", true).await;
    assert_eq!(answer.status(), 200);
    in_touch(&left, &right, Some("connection"), 2).await;
    middle.kill().await;
    in_touch(&left, &right, Some("link"), 1).await;
    in_touch(&right, &left, Some("link"), 1).await;
    assert_eq!(engine.active(), 1, "the answer still runs");
    let text = answer.text().await.expect("the stream is not cut");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    until(PATIENCE, "one connection is left", async || counts(&left).await == (1.0, 1.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_cannot_be_dialled_costs_no_request() {
    let (near, far) = (MockOpenAi::start("engine", &["twin"]).await, MockOpenAi::start("engine", &["twin"]).await);
    let middle = Setup::new("middle").config(&near.config()).start().await;
    let left = Setup::new("left").config(ONE_LINK).start().await;
    let mut right = Setup::new("right").config(&format!("{ONE_LINK}{}", far.config())).start().await;
    mesh::form(&middle, &[&left, &right]).await;
    mesh::capability(&left, &middle, "twin").await;
    mesh::capability(&left, &right, "twin").await;
    in_touch(&left, &right, None, 2).await;
    right.kill().await;
    let killed = Instant::now();
    for _ in 0..8 {
        let answer = left.chat("twin", false).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-atmo-node"], middle.name());
    }
    assert!(killed.elapsed() < Duration::from_secs(8), "{:?}", killed.elapsed());
}

/// A member that is played by the test: it is admitted, and its mesh does what the test does.
struct Played {
    opener: Opener,
    accepted: mpsc::Receiver<Accepted>,
    target: PeerId,
}

impl Played {
    /// Connects the member whose folder `data` is to `node`, without a word of gossip.
    async fn connect(node: &Node, data: &std::path::Path) -> Self {
        let store = Arc::new(Store::open(data).expect("the folder was filled by `atmo join`"));
        let current = Current::new(membership::current(&store).expect("it reads").expect("it joined")).expect("its chain holds");
        let gate = Arc::new(Gate::new(store.identity().clone(), Arc::clone(&store), &current));
        let keypair = peer::keypair(store.identity());
        let (mut swarm, opener, accepted) = swarm::build(&keypair, gate, false).expect("loopback is there");
        let target = peer::peer_id(&node.id().parse::<NodeId>().expect("a node id"));
        let addresses = node.listen_addresses().iter().map(|address| address.parse().expect("an address")).collect();
        swarm.dial(DialOpts::peer_id(target).addresses(addresses).build()).expect("it can be dialled");
        while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Self { opener, accepted, target }
    }

    /// Asks for a link and takes the answer: the streams to write to and to read from.
    async fn link(&mut self) -> (Stream, Stream) {
        let mut question = self.opener.open(self.target, CONTROL).await.expect("members may speak");
        question.flush().await.expect("the connection stands");
        let answer = in_time(PATIENCE, "the answer", self.accepted.recv()).await.expect("the swarm runs");
        assert_eq!(answer.protocol, CONTROL);
        (question, answer.stream)
    }
}

async fn counts(node: &Node) -> (f64, f64) {
    (node.metric("atmo_links").await, node.metric("atmo_connections").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_begins_by_a_question_and_ends_by_a_goodbye_on_a_connection_that_stays() {
    let founder = Setup::new("founder").start().await;
    let member = Setup::new("member");
    let code = mesh::invite(&founder, 1).await;
    assert_eq!(member.atmo(&["join", &code]).await.code, Some(0));
    let mut member = Played::connect(&founder, &member.data_folder()).await;
    until(PATIENCE, "the founder is connected", async || counts(&founder).await == (0.0, 1.0)).await;
    assert!(tokio::time::timeout(QUIET, member.accepted.recv()).await.is_err(), "a connection alone is no link");
    for _ in 0..2 {
        let (mut question, mut answer) = member.link().await;
        until(PATIENCE, "the founder has a link", async || counts(&founder).await == (1.0, 1.0)).await;
        let bye = Frame::Bye.encode();
        let framed = [&(bye.len() as u32).to_be_bytes()[..], &bye].concat();
        question.write_all(&framed).await.expect("the link stands");
        question.flush().await.expect("the link stands");
        let mut rest = Vec::new();
        in_time(PATIENCE, "the founder ends its half", answer.read_to_end(&mut rest)).await.expect("it ends in order");
        until(PATIENCE, "the founder has no link", async || counts(&founder).await == (0.0, 1.0)).await;
        assert!(tokio::time::timeout(QUIET, member.accepted.recv()).await.is_err(), "nobody opens it again");
    }
    assert!(member.opener.open(member.target, CONTROL).await.is_ok(), "the connection stands");
}
