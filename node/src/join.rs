//! Joining a mesh: dial the nodes that a code names, redeem it, come back with a certificate or with what every address gave. Renewing one
//! is the same with another purpose.
//!
//! Needs no swarm and no running node: a bare transport, one connection, one handshake. The connection ends with the join; as a member the
//! node dials again.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use atmo_protocol::admission::{Joined, Purpose, Refusal, Refused, Side};
use atmo_protocol::invitation::{Introducer, JoinCode};
use atmo_protocol::{Chain, NodeId, NodeKey, Revocations};
use futures::StreamExt as _;
use futures::future::{self, Either};
use futures::stream::FuturesUnordered;
use libp2p::core::Endpoint;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{DialOpts, PortUse, Transport as _};
use libp2p::{Multiaddr, PeerId};

use crate::admission::channel::Channel;
use crate::admission::{self, End, NotAdmitted};
use crate::peer;
use crate::revoke;
use crate::swarm::{self, Authenticated, HANDSHAKE_MAX};

/// The whole attempt, all addresses together.
pub const JOIN_MAX: Duration = Duration::from_secs(14);
/// Each further address is tried this much later (RFC 8305 suggests 250 ms): the first usually works, and a code is redeemed by one
/// connection only.
const HEAD_START: Duration = Duration::from_millis(250);

/// Why a node did not join, address by address.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The node that answers the code said no: trying other addresses of it would not help.
    #[error("{}", answered(.refused, .me))]
    Refused { address: String, refused: Refused, me: NodeId },
    /// Nobody who could answer was reached.
    #[error("{}", told(.tried, .expired))]
    NotReached { tried: Vec<Tried>, expired: bool },
    #[error("this machine cannot open a connection at all ({0})")]
    NoTransport(#[from] io::Error),
}

impl JoinError {
    /// Whether the same code may work a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::NotReached { .. })
    }
}

/// What one address gave.
#[derive(Debug, Clone)]
pub struct Tried {
    pub address: String,
    pub outcome: String,
}

fn answered(refused: &Refused, me: &NodeId) -> String {
    match refused.refusal.revocation() {
        Some(revocation) if refused.by == Side::Peer => {
            format!("{}; no code admits it: ask an admin of the mesh", revoke::told(revocation, me))
        }
        _ => refused.refusal.to_string(),
    }
}

struct Advice(bool);

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 {
            return f.write_str("the code has expired, too, by this machine's clock; ask for a new one with `atmo invite`");
        }
        f.write_str("is the node that made the code running (`atmo up`), and can this machine reach it? Firewalls must let UDP or TCP through")
    }
}

fn told(tried: &[Tried], expired: &bool) -> String {
    let mut text = "the node that made the code could not be reached".to_owned();
    for Tried { address, outcome } in tried {
        text.push_str(&format!("\n  {address}: {outcome}"));
    }
    if tried.is_empty() {
        text.push_str("\n  the code holds no address");
    }
    text.push_str(&format!("\n{}", Advice(*expired)));
    text
}

/// Redeems `code` as the holder of `identity`. Changes nothing on disk. Takes at most [`JOIN_MAX`]; dropping the future gives up.
pub async fn join_once(identity: &NodeKey, code: &JoinCode, name: &str) -> Result<Joined, JoinError> {
    let purpose = Purpose::Join { code: code.clone(), name: name.to_owned() };
    let expired = || crate::driver::clock::wall_ms() / 1000 > code.expires_s;
    ask(identity, &purpose, &targets(code), &Arc::default()).await.map_err(|error| match error {
        JoinError::NotReached { tried, .. } => JoinError::NotReached { tried, expired: expired() },
        other => other,
    })
}

/// Has `node` renew the certificate that `chain` ends in. Changes nothing on disk; dropping the future gives up.
pub async fn renew_once(
    identity: &NodeKey,
    chain: &Arc<Chain>,
    node: NodeId,
    addresses: &[String],
    revocations: &Arc<Revocations>,
) -> Result<Joined, JoinError> {
    let targets: Vec<_> = addresses.iter().filter_map(|text| Some((node, text.parse().ok()?))).collect();
    ask(identity, &Purpose::Renew(Arc::clone(chain)), &targets, revocations).await
}

/// Asks at every address, each a little later than the one before, until one answers.
async fn ask(
    identity: &NodeKey,
    purpose: &Purpose,
    targets: &[(NodeId, Multiaddr)],
    revocations: &Arc<Revocations>,
) -> Result<Joined, JoinError> {
    let mut transport = swarm::transport(&peer::keypair(identity))?;
    let deadline = tokio::time::Instant::now() + JOIN_MAX;
    let mut attempts = FuturesUnordered::new();
    for (place, (node, address)) in targets.iter().enumerate() {
        let dialled = dial(&mut transport, address);
        let attempt = async move {
            tokio::time::sleep(HEAD_START * place as u32).await;
            let outcome = match dialled {
                Ok(dialled) => attempt(identity, purpose, revocations, *node, dialled).await,
                Err(error) => Err(Outcome::Other(error)),
            };
            (place, outcome)
        };
        attempts.push(attempt);
    }
    let mut outcomes: Vec<Option<String>> = vec![None; targets.len()];
    // The transport has to be polled for its dials to go on.
    let mut driven = std::pin::pin!(future::poll_fn(|cx| {
        while std::pin::Pin::new(&mut transport).poll(cx).is_ready() {}
        std::task::Poll::<std::convert::Infallible>::Pending
    }));
    loop {
        let next = future::select(attempts.next(), &mut driven);
        let next = match tokio::time::timeout_at(deadline, next).await {
            Ok(Either::Left((next, _))) => next,
            Ok(Either::Right((never, _))) => match never {},
            Err(_) => None,
        };
        match next {
            Some((_, Ok(joined))) => return Ok(joined),
            Some((place, Err(Outcome::Final(refused)))) => {
                return Err(JoinError::Refused { address: targets[place].1.to_string(), refused, me: identity.id() });
            }
            Some((place, Err(Outcome::Other(why)))) => outcomes[place] = Some(why),
            None => break,
        }
    }
    let tried = targets.iter().zip(outcomes).map(|((_, address), outcome)| Tried {
        address: address.to_string(),
        outcome: outcome.unwrap_or_else(|| "no answer in time".to_owned()),
    });
    Err(JoinError::NotReached { tried: tried.collect(), expired: false })
}

/// Every address of every introducer, in the code's order.
fn targets(code: &JoinCode) -> Vec<(NodeId, Multiaddr)> {
    let of = |introducer: &Introducer| {
        let node = introducer.node;
        introducer.addresses.iter().filter_map(move |text| Some((node, text.parse().ok()?))).collect::<Vec<_>>()
    };
    code.introducers.iter().flat_map(of).collect()
}

/// How one address failed.
enum Outcome {
    /// The right node answered: its word is final.
    Final(Refused),
    Other(String),
}

type Dialled = std::pin::Pin<Box<dyn Future<Output = io::Result<(PeerId, StreamMuxerBox)>> + Send>>;

fn dial(transport: &mut Authenticated, address: &Multiaddr) -> Result<Dialled, String> {
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    transport.dial(address.clone(), options).map_err(|error| format!("not an address this machine can dial ({error})"))
}

async fn attempt(
    identity: &NodeKey,
    purpose: &Purpose,
    revocations: &Arc<Revocations>,
    node: NodeId,
    dialled: Dialled,
) -> Result<Joined, Outcome> {
    let dialled = tokio::time::timeout(HANDSHAKE_MAX, dialled).await;
    let (found, muxer) =
        dialled.map_err(|_| Outcome::Other("no answer in time".into()))?.map_err(|error| Outcome::Other(plain(&error)))?;
    if peer::node_id(&found) != Some(node) {
        return Err(Outcome::Other("another node answers there than the one that was to be asked".into()));
    }
    let mut channel = Channel::new(muxer);
    let handshake = admission::begin(identity, node, purpose.clone(), Arc::clone(revocations), None);
    let outcome = tokio::time::timeout(HANDSHAKE_MAX, admission::converse(&mut channel, handshake, None)).await;
    channel.hang_up().await;
    match outcome {
        Ok(Ok(End::Joined(joined))) => Ok(joined),
        Ok(Ok(End::Admitted(_))) => Err(Outcome::Other("it took this node for a member already".into())),
        // Transient: another address, or another try, may do.
        Ok(Err(NotAdmitted::Refused(Refused { refusal: Refusal::Busy, .. }))) => Err(Outcome::Other(Refusal::Busy.to_string())),
        Ok(Err(NotAdmitted::Refused(refused))) => Err(Outcome::Final(refused)),
        Ok(Err(other)) => Err(Outcome::Other(other.to_string())),
        Err(_) => Err(Outcome::Other("it accepted the connection and then said nothing".into())),
    }
}

/// libp2p wraps errors several times over; the innermost says what happened.
fn plain(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut source: Option<&(dyn std::error::Error + 'static)> = error.get_ref().map(|inner| inner as _);
    while let Some(inner) = source {
        text = inner.to_string();
        source = match inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as _),
            None => inner.source(),
        };
    }
    match text.as_str() {
        text if text.contains("refused") => "connection refused: nothing listens there".to_owned(),
        text if text.contains("imed out") || text.contains("imeout") => "no answer in time".to_owned(),
        text => text.to_owned(),
    }
}
