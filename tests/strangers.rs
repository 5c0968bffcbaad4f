//! Who is not a member learns nothing and breaks nothing: not a stock libp2p peer, not somebody who sends noise.

use std::time::Duration;

use futures::StreamExt;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, identify, noise, ping, tcp, yamux};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

use crate::support::{Node, Setup, mesh};

/// On loopback an ordinary peer has the other side's identify message in a few milliseconds.
const LISTENS_FOR: Duration = Duration::from_secs(4);

#[derive(NetworkBehaviour)]
struct Curious {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

fn stock_peer() -> Swarm<Curious> {
    libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("noise has its keys")
        .with_quic()
        .with_behaviour(|key| Curious {
            identify: identify::Behaviour::new(identify::Config::new("/stranger/1".to_owned(), key.public())),
            ping: ping::Behaviour::default(),
        })
        .expect("the behaviour can be built")
        .with_swarm_config(|config| config.with_idle_connection_timeout(LISTENS_FOR))
        .build()
}

/// What a stock peer learns by dialling an address: the other side's identify message and pings answered.
async fn learned(address: Multiaddr, for_long: Duration) -> usize {
    let mut swarm = stock_peer();
    swarm.dial(DialOpts::unknown_peer_id().address(address).build()).expect("the address can be dialled");
    let mut learned = 0;
    tokio::time::timeout(for_long, async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(CuriousEvent::Identify(identify::Event::Received { .. })) => learned += 1,
                SwarmEvent::Behaviour(CuriousEvent::Ping(ping::Event { result: Ok(_), .. })) => learned += 1,
                _ => {}
            }
        }
    })
    .await
    .expect_err("the loop has no end of its own");
    learned
}

/// Another stock peer, to show that the question is one that can be answered.
async fn stock_listener(listen: &str) -> (Multiaddr, tokio::task::JoinHandle<()>) {
    let mut swarm = stock_peer();
    swarm.listen_on(listen.parse().expect("an address")).expect("loopback has a free port");
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let task = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    (address, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_peer_learns_nothing_over_quic_or_tcp() {
    let node = Setup::new("node").start().await;
    for (listen, transport) in [("/ip4/127.0.0.1/udp/0/quic-v1", "quic"), ("/ip4/127.0.0.1/tcp/0", "tcp")] {
        let (control, task) = stock_listener(listen).await;
        assert!(learned(control, Duration::from_secs(2)).await > 0, "stock peers talk to each other over {transport}");
        task.abort();
        let address =
            node.listen_addresses().into_iter().find(|address| address.contains(transport)).expect("it listens on both");
        let bare: Multiaddr = address.split("/p2p/").next().expect("there is a first part").parse().expect("an address");
        assert_eq!(learned(bare, LISTENS_FOR).await, 0, "over {transport}");
    }
    assert_eq!(mesh::node_ids(&node).await, [node.id()]);
}

fn socket_address(node: &Node, transport: &str) -> String {
    let address = node.listen_addresses().into_iter().find(|address| address.contains(transport)).expect("it listens on both");
    let parts: Vec<&str> = address.split('/').collect();
    format!("{}:{}", parts[2], parts[4])
}

/// Bytes without sense, the same on each run.
fn noise(length: usize) -> Vec<u8> {
    let mut state: u32 = 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_on_the_wire_hurts_nobody() {
    let founder = Setup::new("founder").start().await;
    let (tcp, udp) = (socket_address(&founder, "/tcp/"), socket_address(&founder, "/udp/"));
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has a free port");
    for length in [0, 1, 20, 1200, 1472] {
        socket.send_to(&noise(length), &udp).await.expect("loopback takes a datagram");
    }
    let mut held = Vec::new();
    for length in [0, 1, 20, 100_000] {
        let mut stream = TcpStream::connect(&tcp).await.expect("the node listens");
        // The node may hang up in the middle of it.
        stream.write_all(&noise(length)).await.ok();
        held.push(stream);
    }
    let member = Setup::new("member").start().await;
    mesh::form(&founder, &[&member]).await;
}
