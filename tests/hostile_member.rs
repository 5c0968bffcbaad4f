//! A member that lies: it was admitted by a valid code and then sends forged, damaged and oversized frames. Nobody believes it, everybody
//! else goes on, and the node says what it refused.

use std::sync::Arc;

use atmo::admission::Gate;
use atmo::mesh_change::Current;
use atmo::store::Store;
use atmo::swarm::streams::CONTROL;
use atmo::{membership, peer, swarm};
use atmo_protocol::record::{Mode, NodeRecord};
use atmo_protocol::wire::{Blob, Frame, Push};
use atmo_protocol::{NodeId, NodeKey, codec, envelope};
use futures::{AsyncWriteExt as _, StreamExt as _};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{Stream, SwarmEvent};

use crate::support::{Node, PATIENCE, Setup, mesh, until};

/// What the liar claims to be: a node that nobody admitted.
const GHOST: [u8; 32] = [66; 32];

/// A control stream to `node`, opened by the member whose folder `data` is.
async fn control_stream(node: &Node, data: &std::path::Path) -> (Stream, Arc<Store>) {
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
    (opener.open(target, CONTROL).await.expect("members may speak"), store)
}

async fn send(stream: &mut Stream, frame: &[u8]) {
    // The node may have hung up already, which is what this is about.
    _ = stream.write_all(&[&(frame.len() as u32).to_be_bytes()[..], frame].concat()).await;
    _ = stream.flush().await;
}

/// A record of a node that does not exist, signed by somebody else.
fn forged_record(store: &Store) -> Blob {
    let current = membership::current(store).expect("it reads").expect("it joined");
    let record = NodeRecord {
        mesh: current.mesh,
        node: NodeKey::from_seed(GHOST).id(),
        certificate: current.chain.hash(),
        incarnation: 1 << 40,
        sequence: 1,
        lease_until_ms: u64::MAX / 2,
        mode: Mode::Participant,
        name: "ghost".to_owned(),
        labels: Vec::new(),
        addresses: Vec::new(),
        neighbours: Vec::new(),
        capabilities: Vec::new(),
        extensions: Vec::new(),
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
