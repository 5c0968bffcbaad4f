//! What goes into a [`Mesh`](super::Mesh) and what comes out.
//!
//! Inputs are facts from the outside (a link is up, a frame was verified); outputs are effects that only the outside can have. Neither
//! carries a socket, a channel or a clock.

use std::sync::Arc;

use crate::identity::{MeshId, NodeId, NodeKey, Slug};
use crate::membership::{Revocation, Revocations};
use crate::record::{CapabilityBody, Load, Mode, Offered};
use crate::wire::{FrameError, Verified, VerifiedChain};

/// One moment, read once by whoever drives the machine. Monotonic time orders events, wall time is compared with leases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Milliseconds since any fixed point; never goes back.
    pub mono_ms: u64,
    /// Unix milliseconds; may jump.
    pub wall_ms: u64,
}

/// What a [`Mesh`](super::Mesh) is born with.
#[derive(Debug)]
pub struct MeshConfig {
    pub key: NodeKey,
    pub mesh: MeshId,
    /// The chain that admits this node.
    pub chain: Arc<VerifiedChain>,
    pub name: String,
    pub mode: Mode,
    pub labels: Vec<(String, String)>,
    /// The incarnation last written to disk; 0 where there is none.
    pub stored_incarnation: u64,
    /// Drawn by the caller; decides every random choice of this machine.
    pub seed: u64,
}

/// A fact from the outside.
#[derive(Debug)]
pub enum Input {
    /// An authenticated, admitted connection to `peer` stands. A second one to the same peer replaces the first.
    LinkUp {
        peer: NodeId,
        chain: Arc<VerifiedChain>,
        rtt_ms: u32,
    },
    /// That connection is gone.
    LinkDown {
        peer: NodeId,
        cause: LinkLoss,
    },
    /// A frame came in and went through [`Unverified::verify`](crate::wire::Unverified::verify).
    Frame {
        peer: NodeId,
        frame: Verified,
    },
    /// Bytes came in that are no frame.
    BadFrame {
        peer: NodeId,
        error: FrameError,
    },
    /// An [`Output::Dial`] came to nothing.
    DialFailed {
        node: NodeId,
    },
    /// Everything this node offers; replaces what it offered before. Slugs beyond the record's limits are left out.
    Offer(Vec<(Offered, Arc<CapabilityBody>)>),
    /// Where this node can be dialled, best first; replaces what was said before.
    Addresses(Vec<String>),
    /// The name people call this node.
    Rename(String),
    Mode(Mode),
    Labels(Vec<(String, String)>),
    /// This node's certificate from now on: renewed, or with other roles. One of another node or mesh is passed over.
    Certificate(Arc<VerifiedChain>),
    /// How busy all of this node's own capabilities are; replaces what was said.
    Load(Vec<(Slug, Load)>),
    /// A node said how busy one of its capabilities is, on a reply to a request: fresher than what the next frame will tell.
    LoadHeard {
        node: NodeId,
        slug: Slug,
        load: Load,
    },
    /// A measured round trip to a linked peer.
    Rtt {
        peer: NodeId,
        ms: u32,
    },
    /// Someone (multicast DNS, a join code, the address book) says where a node may be dialled.
    Found {
        node: NodeId,
        addresses: Vec<String>,
    },
    /// [`Output::PersistIncarnation`] reached the disk.
    IncarnationPersisted(u64),
    /// Revocations that came by another way than a link: from the disk (before anything else), from this node's user, or from a peer that
    /// refused this node and showed them.
    Revoke(Vec<Arc<Revocation>>),
    /// This node is about to stop: its last record offers nothing, so that its capabilities leave the mesh at once.
    Leave,
}

/// How a link ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkLoss {
    /// Either side closed it on purpose, or a better connection to the same peer replaced it: says nothing about the peer's health.
    Closed,
    /// Time-out, reset, refused keep-alive: the peer may be gone.
    Lost,
}

/// An effect for the outside to have. Drain with `poll_output` after every `handle`.
#[derive(Debug)]
pub enum Output {
    /// Connect and run admission; answer with [`Input::LinkUp`] or [`Input::DialFailed`].
    Dial {
        node: NodeId,
        addresses: Vec<String>,
    },
    /// End the link; answer with [`Input::LinkDown`].
    Close {
        peer: NodeId,
        reason: CloseReason,
    },
    /// Write this to disk, then answer with [`Input::IncarnationPersisted`]. Until then nothing signed with it leaves.
    PersistIncarnation(u64),
    /// `poll_send(peer)` has something. Said once until `poll_send` has returned `None`.
    WantsSend {
        peer: NodeId,
    },
    /// Keep in the on-disk address book; forget the least recently named beyond [`ADDRESS_BOOK_MAX`](crate::config::ADDRESS_BOOK_MAX).
    Remember {
        node: NodeId,
        addresses: Vec<String>,
    },
    /// What is revoked changed: write it to disk, and let admission ask this from now on.
    Revocations(Arc<Revocations>),
    Event(Event),
}

/// Why a link is to be ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CloseReason {
    #[error("the peer sent too many bad frames, records or signatures")]
    Misbehaved,
    #[error("nothing was heard from the peer for too long")]
    Silent,
    #[error("this node has as many links as it takes")]
    TooManyLinks,
    #[error("a frame that does not decode came in")]
    Garbled,
    /// Gossip alone ends: the peer was told so, and requests may go on over the same connection.
    #[error("this node gossips with enough others")]
    Surplus,
    #[error("the peer's certificate names another node or has expired")]
    NotAdmitted,
    #[error("the peer, or this node, was revoked")]
    Revoked,
}

/// Something people or other parts may want to know.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Seen for the first time, or again.
    NodeAlive {
        node: NodeId,
    },
    /// Routed to only where nothing better is left; may come back.
    NodeSuspected {
        node: NodeId,
    },
    NodeDead {
        node: NodeId,
        why: DeathCause,
    },
    /// What some node offers, or how far it is, changed.
    CapabilitiesChanged,
    /// Another live process uses this node's key. Both must stop and say so.
    SecondHolderOfKey,
    Blamed {
        peer: NodeId,
        why: Blame,
    },
    /// The wall clock and the monotonic clock parted by this many milliseconds.
    ClockDoubt {
        jump_ms: i64,
    },
    /// Somebody or something was revoked, this node perhaps: see [`Mesh::own_revocation`](super::Mesh::own_revocation).
    Revoked {
        revocation: Arc<Revocation>,
    },
    /// Record refused because the table is full.
    TableFull {
        node: NodeId,
    },
}

/// Why a node counts as dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeathCause {
    #[error("it went silent on this node's own link")]
    Silent,
    #[error("no path to it is left")]
    Unreachable,
    #[error("most of its neighbours say so")]
    Accused,
    #[error("it said goodbye, or its lease ran out")]
    LeaseExpired,
}

/// What a peer or an origin is blamed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Blame {
    #[error("it sent bytes that are no frame")]
    BadFrame,
    #[error("it passed on a record or chain whose signature does not hold")]
    BadSignature,
    #[error("it passed on a record or body that breaks a size limit")]
    BadContent,
    #[error("its record changes too fast")]
    ExcessRate,
    #[error("it signed two different records with one number")]
    Equivocation,
    #[error("it offers capabilities without the right to")]
    NoRightToProvide,
    #[error("it passed on a record of a node whose revocation it had acknowledged")]
    RevokedOrigin,
}
