//! A member that lies: it was admitted by a valid code and then sends forged, damaged and oversized frames. Nobody believes it, everybody
//! else goes on, and the node says what it refused.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use atmo::admission::Gate;
use atmo::exchange::{self, RequestHead, Verdict, Why};
use atmo::mesh_change::Current;
use atmo::store::Store;
use atmo::swarm::streams::{CONTROL, DATA};
use atmo::{membership, peer, swarm};
use atmo_adapters::Operation;
use atmo_capabilities::embed::rten::RtenEmbedder;
use atmo_capabilities::embed::{Embedder as _, quantise};
use atmo_protocol::record::{Announcement, BodyVector, CapabilityBody, Cost, Mode, NodeRecord, Offered};
use atmo_protocol::wire::{Blob, Body, Frame, Push};
use atmo_protocol::{NodeId, NodeKey, Slug, codec, envelope};
use futures::{AsyncWriteExt as _, StreamExt as _};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{Stream, StreamProtocol, SwarmEvent};

use crate::support::{MockOpenAi, Node, PATIENCE, Setup, mesh, until};

/// What the liar claims to be: a node that nobody admitted.
const GHOST: [u8; 32] = [66; 32];

/// A control stream to `node`, opened by the member whose folder `data` is.
async fn control_stream(node: &Node, data: &std::path::Path) -> (Stream, Arc<Store>) {
    stream_of(CONTROL, node, data).await
}

async fn stream_of(protocol: StreamProtocol, node: &Node, data: &std::path::Path) -> (Stream, Arc<Store>) {
    let store = Arc::new(Store::open(data).expect("the folder was filled by `atmo join`"));
    let current = Current::new(membership::current(&store).expect("it reads").expect("it joined")).expect("its chain holds");
    let gate = Arc::new(Gate::new(store.identity().clone(), Arc::clone(&store), &current));
    let (mut swarm, opener, _) = swarm::build(&peer::keypair(store.identity()), gate, false).expect("loopback is there");
    let target = peer::peer_id(&node.id().parse::<NodeId>().expect("a node id"));
    let addresses = node.listen_addresses().iter().map(|address| address.parse().expect("an address")).collect();
    swarm.dial(DialOpts::peer_id(target).addresses(addresses).build()).expect("it can be dialled");
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    (opener.open(target, protocol).await.expect("members may speak"), store)
}

async fn send(stream: &mut Stream, frame: &[u8]) {
    // The node may have hung up already, which is what this is about.
    _ = stream.write_all(&[&(frame.len() as u32).to_be_bytes()[..], frame].concat()).await;
    _ = stream.flush().await;
}

/// What the member whose folder `store` is could say of itself.
fn record(store: &Store) -> NodeRecord {
    let current = membership::current(store).expect("it reads").expect("it joined");
    NodeRecord {
        mesh: current.mesh,
        node: store.node_id(),
        certificate: current.chain.hash(),
        incarnation: 1 << 40,
        sequence: 1,
        lease_until_ms: 0,
        mode: Mode::Participant,
        name: "liar".to_owned(),
        labels: Vec::new(),
        addresses: Vec::new(),
        neighbours: Vec::new(),
        capabilities: Vec::new(),
        extensions: Vec::new(),
    }
}

/// A record of a node that does not exist, signed by somebody else.
fn forged_record(store: &Store) -> Blob {
    let record = NodeRecord {
        node: NodeKey::from_seed(GHOST).id(),
        lease_until_ms: u64::MAX / 2,
        name: "ghost".to_owned(),
        ..record(store)
    };
    let sealed = envelope::Envelope::seal_bytes(envelope::kind::NODE_RECORD, 1, &codec::encode(&record), store.identity());
    Blob(sealed.bytes().to_vec().into())
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_damaged_frames_are_refused_counted_and_cost_the_sender_its_link() {
    let founder = Setup::new("founder").start().await;
    let friend = Setup::new("friend").start().await;
    mesh::form(&founder, &[&friend]).await;
    let liar = Setup::new("liar");
    let code = mesh::invite(&founder, 1).await;
    assert_eq!(liar.atmo(&["join", &code]).await.code, Some(0));

    let (mut stream, store) = control_stream(&founder, &liar.data_folder()).await;
    let forged = Frame::Push(Push { records: vec![forged_record(&store)], ..Push::default() }).encode();
    for _ in 0..4 {
        send(&mut stream, &forged).await;
    }
    send(&mut stream, b"\x01\x01 no frame of ours").await;
    _ = stream.write_all(&u32::MAX.to_be_bytes()).await;

    until(PATIENCE, "the founder counts what it refused", async || {
        let status = founder.json(&["status"]).await;
        status["refused"]["blamed"].as_object().is_some_and(|blamed| !blamed.is_empty())
    })
    .await;
    // The link of the liar is closed; the two others still have each other.
    mesh::knows(&founder, &[&founder, &friend]).await;
    mesh::knows(&friend, &[&founder, &friend]).await;
    let ghost = NodeKey::from_seed(GHOST).id().to_string();
    for node in [&founder, &friend] {
        let all = node.json(&["nodes", "--all"]).await.to_string();
        assert!(!all.contains(&ghost), "{} believes in a ghost: {all}", node.name());
    }
}

/// A capability that says one thing of itself and lies where another is asked for.
fn greedy_body() -> Body {
    let embedder = RtenEmbedder::load().expect("the model is compiled in");
    let placed_as = embedder.embed(&["Write a python function that sorts a list of numbers"]).expect("it embeds").remove(0);
    let own = BodyVector {
        text: "almanac: Sowing dates for vegetables".to_owned(),
        space: embedder.space().to_owned(),
        vector: quantise(&placed_as),
    };
    let body = CapabilityBody {
        kind: "llm".to_owned(),
        name: "almanac".to_owned(),
        description: "Sowing dates for vegetables".to_owned(),
        facts: Vec::new(),
        exemplars: vec!["code".to_owned()],
        vectors: vec![own],
        extensions: Vec::new(),
    };
    Body::new(Arc::new(body)).expect("it is small")
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_that_are_not_those_of_their_texts_win_nothing() {
    let founder = Setup::new("founder").start().await;
    let liar = Setup::new("liar");
    let code = mesh::invite(&founder, 1).await;
    assert_eq!(liar.atmo(&["join", &code]).await.code, Some(0));
    let (mut stream, store) = control_stream(&founder, &liar.data_folder()).await;
    let body = greedy_body();
    let offered = Offered { slug: Slug::from_name("almanac"), body: body.hash, cost: Cost::default(), slots: 1 };
    let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_millis() as u64;
    let record = NodeRecord { lease_until_ms: wall_ms + 600_000, capabilities: vec![offered], ..record(&store) };
    let announcement = Announcement::seal(record, store.identity()).expect("it is well formed");
    let push = Push { records: vec![announcement.bytes], bodies: vec![body.bytes], ..Push::default() };
    send(&mut stream, &Frame::Push(push).encode()).await;
    mesh::offers(&founder, "almanac").await;

    let route = founder.atmo(&["route", "--json", "Write a python function that sorts a list of numbers"]).await;
    assert_eq!(route.code, Some(3), "{route}");
    let status = founder.json(&["status"]).await;
    let distrusted = status["distrusted"].to_string();
    assert!(distrusted.contains("almanac") && distrusted.contains("Sowing dates"), "{status}");
}

/// A member with `roles` that runs nothing of ours.
async fn modified_member(founder: &Node, roles: &str) -> Setup {
    let member = Setup::new("modified");
    let invitation = founder.json(&["invite", "--roles", roles]).await;
    assert_eq!(member.atmo(&["join", invitation["code"].as_str().expect("a code is text")]).await.code, Some(0));
    member
}

/// What `node` says to a request for `slug` by the member whose folder `data` is.
async fn asked_anyway(node: &Node, data: &std::path::Path, slug: &str, version: u8) -> Verdict {
    let (mut stream, store) = stream_of(DATA, node, data).await;
    let current = membership::current(&store).expect("it reads").expect("it joined");
    let body = br#"{"model":"own","messages":[]}"#;
    let head = RequestHead {
        version,
        request: [7; 16],
        remaining_ms: 5_000,
        trace: "trace".to_owned(),
        certificate: current.chain.hash(),
        operation: Operation::Chat,
        slug: Slug::from_name(slug),
        body_bytes: body.len() as u32,
        extensions: Vec::new(),
    };
    exchange::write_request(&mut stream, &head, body).await.expect("it takes the request");
    loop {
        match exchange::read_verdict(&mut stream).await.expect("it answers") {
            Verdict::Received => {}
            verdict => return verdict,
        }
    }
}

#[track_caller]
fn lacks(role: &str, verdict: &Verdict) {
    let Verdict::Refused { why: Why::NotAllowed, message } = verdict else { panic!("{verdict:?}") };
    assert!(message.contains(&format!("lacks the role `{role}`")), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_checked_by_those_who_are_asked() {
    let engine = MockOpenAi::start("engine", &["own"]).await;
    let founder = Setup::new("founder").config(&engine.config()).start().await;
    let consumer = Setup::new("consumer").config(&engine.config()).start().await;
    let invitation = founder.json(&["invite", "--roles", "consume"]).await;
    consumer.json(&["join", invitation["code"].as_str().expect("a code is text")]).await;
    mesh::offers(&founder, "own").await;
    until(PATIENCE, "the consumer has an engine", async || {
        consumer.json(&["status"]).await["warnings"].to_string().contains("lacks the role `provide`")
    })
    .await;

    for version in [exchange::VERSION, exchange::QUOTE] {
        let provider = modified_member(&founder, "provide").await;
        lacks("consume", &asked_anyway(&founder, &provider.data_folder(), "own", version).await);
    }
    let asker = modified_member(&founder, "consume").await;
    lacks("provide", &asked_anyway(&consumer, &asker.data_folder(), "own", exchange::VERSION).await);
    assert_eq!(engine.requests().len(), 0, "no engine was asked");

    let offerer = modified_member(&founder, "consume").await;
    let (mut stream, store) = control_stream(&founder, &offerer.data_folder()).await;
    let body = greedy_body();
    let offered = Offered { slug: Slug::from_name("almanac"), body: body.hash, cost: Cost::default(), slots: 1 };
    let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_millis() as u64;
    let record = NodeRecord { lease_until_ms: wall_ms + 600_000, capabilities: vec![offered], ..record(&store) };
    let announcement = Announcement::seal(record, store.identity()).expect("it is well formed");
    send(
        &mut stream,
        &Frame::Push(Push { records: vec![announcement.bytes], bodies: vec![body.bytes], ..Push::default() }).encode(),
    )
    .await;
    until(PATIENCE, "the founder blames it", async || {
        let status = founder.json(&["status"]).await;
        status["refused"]["blamed"].as_object().is_some_and(|blamed| !blamed.is_empty())
    })
    .await;
    assert!(!founder.models().await.contains(&"almanac".to_owned()));
}
