//! Byte streams between admitted peers: a libp2p behaviour that opens and accepts substreams of two protocols and does nothing else.
//!
//! Control frames and requests each have a protocol name. Unless a connection is named, a stream is opened on the *newest* one to the peer:
//! after a crash the older ones lead to a process that is gone, which takes QUIC seconds to notice. Accepted streams wait in a bounded
//! queue; when it is full the newest is reset, which the peer sees as "busy". Dialling is not done here: no connection, no stream.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::task::{Context, Poll};

use futures::future::{Ready, ready};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
    Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot};

/// Gossip frames: one stream in each direction for the life of the link.
pub const CONTROL: StreamProtocol = StreamProtocol::new("/atmosphere/control/1");
/// Requests: one stream each.
pub const DATA: StreamProtocol = StreamProtocol::new("/atmosphere/data/1");

/// Streams that may be asked for and not yet handed to a connection.
const OPENS_WAITING_MAX: usize = 256;
/// Accepted streams that wait for their task; a burst of requests fits, a flood is reset.
const ACCEPTED_WAITING_MAX: usize = 1024;

/// A stream that an admitted peer opened.
pub struct Accepted {
    pub peer: PeerId,
    pub connection: ConnectionId,
    pub protocol: StreamProtocol,
    pub stream: Stream,
}

/// Opens streams to connected peers. Cheap to clone.
#[derive(Clone)]
pub struct Opener {
    requests: mpsc::Sender<Open>,
}

/// One request for a stream, on its way to the connection's handler.
#[derive(Debug)]
pub struct Open {
    peer: PeerId,
    /// `None` is the newest.
    connection: Option<ConnectionId>,
    protocol: StreamProtocol,
    reply: oneshot::Sender<io::Result<Stream>>,
}

impl Opener {
    /// Opens a stream on the newest connection to `peer`. Fails at once with `NotConnected` where there is none. Dropping the future
    /// gives the stream up.
    pub async fn open(&self, peer: PeerId, protocol: StreamProtocol) -> io::Result<Stream> {
        self.open_on(peer, None, protocol).await
    }

    /// The same on one connection of several.
    pub async fn open_on(&self, peer: PeerId, connection: Option<ConnectionId>, protocol: StreamProtocol) -> io::Result<Stream> {
        let (reply, answer) = oneshot::channel();
        let gone = |_| io::Error::new(io::ErrorKind::NotConnected, "the connection closed");
        let open = Open { peer, connection, protocol, reply };
        self.requests.send(open).await.map_err(|_| io::Error::other("the node is stopping"))?;
        answer.await.map_err(gone)?
    }
}

/// See the module's head.
pub struct Behaviour {
    /// Oldest first.
    connections: BTreeMap<PeerId, Vec<ConnectionId>>,
    requests: mpsc::Receiver<Open>,
    accepted: mpsc::Sender<Accepted>,
    to_handlers: VecDeque<(PeerId, ConnectionId, Open)>,
}

impl Behaviour {
    pub fn new() -> (Self, Opener, mpsc::Receiver<Accepted>) {
        let (requests_in, requests) = mpsc::channel(OPENS_WAITING_MAX);
        let (accepted, accepted_out) = mpsc::channel(ACCEPTED_WAITING_MAX);
        let behaviour = Self { connections: BTreeMap::new(), requests, accepted, to_handlers: VecDeque::new() };
        (behaviour, Opener { requests: requests_in }, accepted_out)
    }

    fn handler(&self, peer: PeerId, connection: ConnectionId) -> Handler {
        Handler { peer, connection, accepted: self.accepted.clone(), asked: VecDeque::new(), negotiating: VecDeque::new() }
    }

    fn take_request(&mut self, open: Open) {
        let connections = self.connections.get(&open.peer).map_or(&[][..], Vec::as_slice);
        let wanted = |connection: &&ConnectionId| open.connection.is_none_or(|wanted| wanted == **connection);
        match connections.iter().rfind(wanted) {
            Some(&connection) => self.to_handlers.push_back((open.peer, connection, open)),
            None => _ = open.reply.send(Err(io::Error::new(io::ErrorKind::NotConnected, "no connection to the node"))),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, connection))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, connection))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(up) => self.connections.entry(up.peer_id).or_default().push(up.connection_id),
            FromSwarm::ConnectionClosed(down) => {
                if let Some(connections) = self.connections.get_mut(&down.peer_id) {
                    connections.retain(|connection| *connection != down.connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&down.peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        while self.to_handlers.is_empty() {
            match self.requests.poll_recv(cx) {
                Poll::Ready(Some(open)) => self.take_request(open),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
        let (peer_id, connection, event) = self.to_handlers.pop_front().expect("the loop above ends with one in the queue");
        Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event })
    }
}

/// One connection's share of [`Behaviour`].
pub struct Handler {
    peer: PeerId,
    connection: ConnectionId,
    accepted: mpsc::Sender<Accepted>,
    asked: VecDeque<Open>,
    /// In the order asked for; libp2p answers with the index given in `OutboundOpenInfo`.
    negotiating: VecDeque<(u64, oneshot::Sender<io::Result<Stream>>)>,
}

impl Handler {
    fn answer(&mut self, number: u64, result: io::Result<Stream>) {
        if let Some(at) = self.negotiating.iter().position(|(n, _)| *n == number)
            && let Some((_, reply)) = self.negotiating.remove(at)
        {
            _ = reply.send(result);
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = Either;
    type OutboundProtocol = One;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = u64;

    fn listen_protocol(&self) -> SubstreamProtocol<Either> {
        SubstreamProtocol::new(Either, ())
    }

    /// Streams keep a connection: gossip for as long as the mesh wants it, requests for as long as they run. One without either goes after
    /// a while.
    fn connection_keep_alive(&self) -> bool {
        false
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<One, u64, Infallible>> {
        let Some(open) = self.asked.pop_front() else { return Poll::Pending };
        let number = self.negotiating.back().map_or(0, |(n, _)| n.wrapping_add(1));
        self.negotiating.push_back((number, open.reply));
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
            protocol: SubstreamProtocol::new(One(open.protocol), number),
        })
    }

    fn on_behaviour_event(&mut self, open: Open) {
        self.asked.push_back(open);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Either, One, (), u64>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (protocol, stream), .. }) => {
                let accepted = Accepted { peer: self.peer, connection: self.connection, protocol, stream };
                if self.accepted.try_send(accepted).is_err() {
                    tracing::warn!(peer = %self.peer, "too many streams wait to be served: the newest was reset");
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info }) => {
                self.answer(info, Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => io::ErrorKind::TimedOut.into(),
                    StreamUpgradeError::Io(error) => error,
                    StreamUpgradeError::NegotiationFailed => {
                        io::Error::new(io::ErrorKind::Unsupported, "the node does not speak this protocol version")
                    }
                };
                self.answer(info, Err(error));
            }
            _ => {}
        }
    }
}

/// Accepts either protocol.
#[derive(Clone, Copy)]
pub struct Either;

/// Asks for exactly one protocol.
pub struct One(StreamProtocol);

impl UpgradeInfo for Either {
    type Info = StreamProtocol;
    type InfoIter = std::array::IntoIter<StreamProtocol, 2>;

    fn protocol_info(&self) -> Self::InfoIter {
        [CONTROL, DATA].into_iter()
    }
}

impl InboundUpgrade<Stream> for Either {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

impl UpgradeInfo for One {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(self.0.clone())
    }
}

impl OutboundUpgrade<Stream> for One {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}
