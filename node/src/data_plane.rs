//! How bytes of a request reach another node: one bidirectional stream per request, to a peer that is admitted and connected.
//!
//! What is behind the trait may change (a QUIC endpoint of our own with its own ALPN); what runs over it, [`exchange`](crate::exchange),
//! does not.

use std::io;
use std::time::Duration;

use atmo_protocol::NodeId;
use futures::{AsyncRead, AsyncWrite};

use crate::peer::peer_id;
use crate::swarm::streams::{DATA, Opener};

/// Opening a stream on a live connection needs no round trip of its own.
const OPEN_WAIT: Duration = Duration::from_secs(3);

/// A stream to one node. Dropping it before the end tells the other side to stop.
pub type ByteStream = Box<dyn Duplex>;

/// Reads and writes, somewhere.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Opens streams to other nodes.
#[async_trait::async_trait]
pub trait DataPlane: Send + Sync {
    /// A fresh stream to `node`, whose key the connection has proved. Fails with `NotConnected` where there is no connection.
    async fn open(&self, node: &NodeId) -> io::Result<ByteStream>;
}

/// The data plane over the libp2p swarm's own connections.
pub struct OverSwarm(pub Opener);

#[async_trait::async_trait]
impl DataPlane for OverSwarm {
    async fn open(&self, node: &NodeId) -> io::Result<ByteStream> {
        let stream = tokio::time::timeout(OPEN_WAIT, self.0.open(peer_id(node), DATA)).await??;
        Ok(Box::new(stream))
    }
}

/// A node in standalone mode: there is nobody to talk to.
pub struct Nowhere;

#[async_trait::async_trait]
impl DataPlane for Nowhere {
    async fn open(&self, _: &NodeId) -> io::Result<ByteStream> {
        Err(io::Error::new(io::ErrorKind::NotConnected, "this node runs standalone"))
    }
}
