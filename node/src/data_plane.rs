//! How bytes of a request reach another node: one bidirectional stream per request, to a peer that is admitted and connected.
//!
//! Requests go straight to their executor. Where there is no connection to it yet, it is dialled by the addresses in its record; gossip
//! takes no notice of that. What is behind the trait may change (a QUIC endpoint of our own with its own ALPN); what runs over it,
//! [`exchange`](crate::exchange), does not.

use std::io;
use std::time::Duration;

use atmo_protocol::NodeId;
use futures::{AsyncRead, AsyncWrite};

use crate::driver::DriverHandle;
use crate::peer::peer_id;
use crate::swarm::streams::{DATA, Opener};
use crate::swarm::usage::Usage;

/// To dial, prove both keys and open a stream takes a few round trips.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(3);

/// A stream to one node. Dropping it before the end tells the other side to stop.
pub type ByteStream = Box<dyn Duplex>;

/// Reads and writes, somewhere.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Opens streams to other nodes.
#[async_trait::async_trait]
pub trait DataPlane: Send + Sync {
    /// A fresh stream to `node`, whose key the connection has proved. Fails where `node` cannot be connected to within `wait`.
    async fn open(&self, node: &NodeId, wait: Duration) -> io::Result<ByteStream>;
}

/// The data plane over the libp2p swarm's own connections.
pub struct OverSwarm {
    pub opener: Opener,
    pub driver: DriverHandle,
    pub usage: Usage,
}

impl OverSwarm {
    async fn open_or_dial(&self, node: &NodeId) -> io::Result<ByteStream> {
        let stream = match self.opener.open(peer_id(node), DATA).await {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                self.driver.connect(*node).await.map_err(io::Error::other)??;
                self.opener.open(peer_id(node), DATA).await?
            }
            opened => opened?,
        };
        Ok(Box::new(self.usage.count(*node, stream)))
    }
}

#[async_trait::async_trait]
impl DataPlane for OverSwarm {
    async fn open(&self, node: &NodeId, wait: Duration) -> io::Result<ByteStream> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection within its time");
        tokio::time::timeout(wait.min(OPEN_WAIT_MAX), self.open_or_dial(node)).await.map_err(late)?
    }
}

/// A node in standalone mode: there is nobody to talk to.
pub struct Nowhere;

#[async_trait::async_trait]
impl DataPlane for Nowhere {
    async fn open(&self, _: &NodeId, _: Duration) -> io::Result<ByteStream> {
        Err(io::Error::new(io::ErrorKind::NotConnected, "this node runs standalone"))
    }
}
