//! The libp2p swarm: which transports there are, what runs over them, and the gate that stands before all of it.
//!
//! QUIC first, TCP + noise + yamux behind it. The [`Gate`] is the *last* layer of the transport, over every
//! transport: a connection exists for the swarm (and so for identify, ping and our streams) only once the peer was admitted. Nothing
//! here decides anything about the mesh.

pub mod streams;
pub mod usage;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, Transport as _};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{self, NetworkBehaviour};
use libp2p::{PeerId, Swarm, connection_limits, identify, mdns, noise, ping, quic, tcp, yamux};
use tokio::sync::mpsc;

use crate::admission::Gate;
use streams::{Accepted, Opener};

/// From the first packet to an authenticated connection, and again for admission.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Strangers in the middle of a handshake, at most; the design's bound.
const PENDING_INCOMING_MAX: u32 = 32;
/// Dials under way at once: twice the links of a full mesh.
const PENDING_OUTGOING_MAX: u32 = 32;
/// Two nodes that dial each other at once end up with two, and a peer that crashed and came back leaves one behind until it times out.
const CONNECTIONS_PER_PEER_MAX: u32 = 8;
/// Established connections in all.
const CONNECTIONS_MAX: u32 = 256;
/// A quiet connection sends this often, so that NAT mappings and the peer's idle timer stay alive.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// A connection on which nothing arrives for this long is lost: the mesh takes its peer for dead by then.
const QUIC_IDLE_MAX: Duration = Duration::from_secs(6);
/// A connection without gossip and without requests is kept this long for the next request.
pub const UNUSED_MAX: Duration = Duration::from_secs(60);
/// What a peer may have open towards us at once.
const QUIC_STREAMS_MAX: u32 = 2048;

/// Everything that runs over an admitted connection.
#[derive(NetworkBehaviour)]
pub struct Behaviour {
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub mdns: Toggle<mdns::tokio::Behaviour>,
    streams: streams::Behaviour,
}

/// A connection that is authenticated (the peer's key is proved) and multiplexed, nothing more.
pub type Authenticated = Boxed<(PeerId, StreamMuxerBox)>;

/// QUIC, then TCP + noise + yamux, without the gate: for the swarm below and for a joiner, who is not admitted anywhere yet.
pub fn transport(key: &Keypair) -> io::Result<Authenticated> {
    let mut quic = quic::Config::new(key);
    quic.handshake_timeout = HANDSHAKE_MAX;
    quic.keep_alive_interval = QUIC_KEEP_ALIVE;
    quic.max_idle_timeout = QUIC_IDLE_MAX.as_millis() as u32;
    quic.max_concurrent_stream_limit = QUIC_STREAMS_MAX;
    let quic = quic::tokio::Transport::new(quic).map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key).map_err(io::Error::other)?)
        .multiplex(yamux::Config::default())
        .boxed();
    let either = quic.or_transport(tcp).map(|either, _| either.into_inner());
    Ok(TransportTimeout::new(either, HANDSHAKE_MAX).boxed())
}

/// The swarm of a node, with the handle that opens streams and the queue of accepted ones.
pub fn build(
    key: &Keypair,
    gate: Arc<Gate>,
    with_mdns: bool,
) -> io::Result<(Swarm<Behaviour>, Opener, mpsc::Receiver<Accepted>)> {
    build_keeping(key, gate, with_mdns, UNUSED_MAX)
}

/// The same where unused connections are kept for another time than [`UNUSED_MAX`].
pub fn build_keeping(
    key: &Keypair,
    gate: Arc<Gate>,
    with_mdns: bool,
    unused_max: Duration,
) -> io::Result<(Swarm<Behaviour>, Opener, mpsc::Receiver<Accepted>)> {
    let me = key.public().to_peer_id();
    let gated = transport(key)?
        .and_then(move |(peer, muxer), _| gate.clone().admit(peer, muxer).boxed())
        .map_err(|error| error.into_inner())
        .boxed();
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_INCOMING_MAX))
        .with_max_pending_outgoing(Some(PENDING_OUTGOING_MAX))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX))
        .with_max_established(Some(CONNECTIONS_MAX));
    let (streams, opener, accepted) = streams::Behaviour::new();
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        identify: identify::Behaviour::new(identify::Config::new("/atmosphere/1".into(), key.public())),
        ping: ping::Behaviour::default(),
        mdns: with_mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), me)).transpose()?.into(),
        streams,
    };
    let config = swarm::Config::with_tokio_executor()
        .with_substream_upgrade_protocol_override(Version::V1Lazy)
        .with_idle_connection_timeout(unused_max);
    Ok((Swarm::new(gated, behaviour, me, config), opener, accepted))
}
