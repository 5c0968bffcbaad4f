//! Why someone was not let in: as a number on the wire, as a sentence with the next step for people.
//!
//! Some reasons travel: those that help whoever proved to belong to the mesh or to hold a code of it. All others stay with the node that
//! found them, and the stranger hears [`Refusal::NotAdmitted`], whatever was wrong: who cannot prove anything learns nothing.

use std::fmt;
use std::sync::Arc;

use crate::membership::{ChainError, Revocation};

/// Which node refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Us,
    Peer,
}

/// The end of a handshake that let nobody in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{refusal}", match .by { Side::Us => "", Side::Peer => "the other node refused: " })]
pub struct Refused {
    pub by: Side,
    pub refusal: Refusal,
}

/// A reason. Those of the first group can travel and are worded for the refused; the others are worded for the one who found them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// What strangers are told.
    NotAdmitted,
    CodeExpired {
        ago_ms: u64,
    },
    CodeUsedUp {
        uses: u32,
    },
    CodeRevoked,
    CodeUnknown,
    /// The redeemer's certificate lacks the role `issue`, or ends before it could be used.
    MayNotAdmit,
    /// The redeemer could not write the redemption to disk.
    CouldNotSave,
    /// Too many handshakes at once.
    Busy,
    CertificateExpired {
        ago_ms: u64,
    },
    CertificateNotYet {
        in_ms: u64,
    },
    /// A certificate or code does not hold now, or might not, because one of the two clocks is wrong.
    ClocksDiffer {
        by_ms: u64,
    },
    /// The key or the certificate of one of the two, or of someone who admitted it, was revoked; by this record, where it is shown.
    Revoked(Option<Arc<Revocation>>),
    /// The certificate lasts so long that it is not renewed yet.
    NotDue {
        in_ms: u64,
    },
    /// A reason that only newer versions have a name for.
    Newer {
        code: u16,
        parameters: Vec<u64>,
    },

    // From here on: never sent.
    NotAHandshake,
    Malformed,
    FrameTooLong {
        bytes: usize,
    },
    OutOfOrder,
    /// The peer has this node's own key.
    Ourselves,
    BothJoining,
    NoCommonVersion {
        ours: u8,
        theirs: u8,
    },
    UnknownPurpose(u8),
    OtherMesh,
    BadChain(ChainError),
    /// The certificate is another node's.
    OtherNode,
    BadSignature,
    /// The code names another node as its redeemer.
    NotTheRedeemer,
}

impl Refusal {
    /// The number and parameters to send; strangers' reasons all become one.
    pub fn to_wire(&self) -> (u16, Vec<u64>) {
        match self {
            Self::CodeExpired { ago_ms } => (2, vec![*ago_ms]),
            Self::CodeUsedUp { uses } => (3, vec![u64::from(*uses)]),
            Self::CodeRevoked => (4, Vec::new()),
            Self::CodeUnknown => (5, Vec::new()),
            Self::MayNotAdmit => (6, Vec::new()),
            Self::CouldNotSave => (7, Vec::new()),
            Self::Busy => (8, Vec::new()),
            Self::CertificateExpired { ago_ms } => (9, vec![*ago_ms]),
            Self::CertificateNotYet { in_ms } => (10, vec![*in_ms]),
            Self::ClocksDiffer { by_ms } => (11, vec![*by_ms]),
            Self::Revoked(_) => (12, Vec::new()),
            Self::NotDue { in_ms } => (13, vec![*in_ms]),
            Self::Newer { code, parameters } => (*code, parameters.clone()),
            Self::NotAdmitted
            | Self::NotAHandshake
            | Self::Malformed
            | Self::FrameTooLong { .. }
            | Self::OutOfOrder
            | Self::Ourselves
            | Self::BothJoining
            | Self::NoCommonVersion { .. }
            | Self::UnknownPurpose(_)
            | Self::OtherMesh
            | Self::BadChain(_)
            | Self::OtherNode
            | Self::BadSignature
            | Self::NotTheRedeemer => (1, Vec::new()),
        }
    }

    /// The record behind it, to be shown to the refused.
    pub fn revocation(&self) -> Option<&Arc<Revocation>> {
        if let Self::Revoked(revocation) = self { revocation.as_ref() } else { None }
    }

    /// The reason behind a number, as far as it is known here. Parameters that are missing count as 0, further ones are passed over.
    pub fn from_wire(code: u16, parameters: &[u64]) -> Self {
        let first = parameters.first().copied().unwrap_or(0);
        match code {
            1 => Self::NotAdmitted,
            2 => Self::CodeExpired { ago_ms: first },
            3 => Self::CodeUsedUp { uses: u32::try_from(first).unwrap_or(u32::MAX) },
            4 => Self::CodeRevoked,
            5 => Self::CodeUnknown,
            6 => Self::MayNotAdmit,
            7 => Self::CouldNotSave,
            8 => Self::Busy,
            9 => Self::CertificateExpired { ago_ms: first },
            10 => Self::CertificateNotYet { in_ms: first },
            11 => Self::ClocksDiffer { by_ms: first },
            12 => Self::Revoked(None),
            13 => Self::NotDue { in_ms: first },
            _ => Self::Newer { code, parameters: parameters.to_vec() },
        }
    }
}

const ASK_AGAIN: &str = "ask for a new one with `atmo invite`";

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAdmitted => f.write_str(
                "not admitted, and strangers are told no reason: it may be in another mesh, run another version, or not accept this \
                 code; compare `atmo status` on both nodes, or get a new code with `atmo invite`",
            ),
            Self::CodeExpired { ago_ms } => write!(f, "this code expired {} ago; {ASK_AGAIN}", Span(*ago_ms)),
            Self::CodeUsedUp { uses } => write!(f, "this code was already used up ({uses} of {uses}); {ASK_AGAIN}"),
            Self::CodeRevoked => write!(f, "this code was revoked; {ASK_AGAIN}"),
            Self::CodeUnknown => {
                write!(f, "that node does not know this code: it expired long ago, or its record was lost; {ASK_AGAIN}")
            }
            Self::MayNotAdmit => f.write_str(
                "the node that answers this code may not admit others now: its own certificate has expired, was revoked or lacks the role `issue`; \
                 get a code from another node with `atmo invite`",
            ),
            Self::CouldNotSave => f.write_str(
                "the node that answers this code could not save the admission (is its disk full?); the code was not spent on anyone else, \
                 try again",
            ),
            Self::Busy => f.write_str("the other node has too many newcomers at once; try again in a few seconds"),
            Self::CertificateExpired { ago_ms } => {
                write!(f, "the certificate of the refused node expired {} ago; it renews itself once it reaches a member with the role `issue`", Span(*ago_ms))
            }
            Self::CertificateNotYet { in_ms } => {
                write!(f, "the certificate of the refused node begins only in {}; check the clocks of both nodes", Span(*in_ms))
            }
            Self::NotDue { in_ms } => write!(f, "the certificate is renewed only in {}: in the last third of its life", Span(*in_ms)),
            Self::ClocksDiffer { by_ms } => {
                write!(f, "the clocks of the two nodes differ by {}; set them (NTP does) and try again", Span(*by_ms))
            }
            Self::Revoked(Some(revocation)) => write!(f, "{revocation}; ask an admin of the mesh"),
            Self::Revoked(None) => {
                f.write_str("the refused node, its certificate, or one who admitted it was revoked in this mesh; ask an admin of the mesh")
            }
            Self::Newer { code, parameters } => {
                write!(f, "reason {code} {parameters:?}, which this version of atmo does not know; update this node to read it")
            }
            Self::BadChain(error) => write!(f, "{error}"),
            Self::FrameTooLong { bytes } => write!(f, "the other side sent {bytes} bytes at once, more than any part of an admission takes"),
            Self::NoCommonVersion { ours, theirs } => write!(
                f,
                "the two nodes have no version of the admission protocol in common (ours is {ours}, theirs {theirs}); update the older one"
            ),
            Self::UnknownPurpose(purpose) => write!(f, "the other node came for something unknown here (number {purpose}); update this node"),
            other => f.write_str(other.plain()),
        }
    }
}

impl Refusal {
    /// The sentences without numbers in them.
    fn plain(&self) -> &'static str {
        match self {
            Self::NotAHandshake => "what answers there is not a node of this kind: check the address",
            Self::Malformed => "the other side sent something that is no part of an admission",
            Self::OutOfOrder => "the other side sent a part of the admission out of turn",
            Self::Ourselves => "that is this node itself: the address leads back here, or another node has a copy of its key",
            Self::BothJoining => "both nodes came to be given a certificate; start with the one that made the code",
            Self::OtherMesh => "the other node belongs to another mesh",
            Self::OtherNode => "the other node shows a certificate that is not its own",
            Self::BadSignature => "the other node could not prove that it holds its key",
            Self::NotTheRedeemer => {
                "the node at that address is not the one that made this code; wait until that one is online, or get a new code with `atmo invite`"
            }
            _ => "not admitted",
        }
    }
}

/// A span of time in the unit that people would choose.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        match seconds {
            0..120 => write!(f, "{seconds} s"),
            120..7200 => write!(f, "{} min", seconds / 60),
            7200..172_800 => write!(f, "{} h", seconds / 3600),
            _ => write!(f, "{} days", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_sentences_with_a_next_step() {
        let hour = 3_600_000;
        for (refusal, text) in [
            (Refusal::CodeExpired { ago_ms: 2 * hour }, "this code expired 2 h ago; ask for a new one with `atmo invite`"),
            (Refusal::CodeUsedUp { uses: 1 }, "this code was already used up (1 of 1); ask for a new one with `atmo invite`"),
            (
                Refusal::ClocksDiffer { by_ms: hour },
                "the clocks of the two nodes differ by 60 min; set them (NTP does) and try again",
            ),
        ] {
            assert_eq!(refusal.to_string(), text);
        }
        let by_peer = Refused { by: Side::Peer, refusal: Refusal::Busy };
        assert!(by_peer.to_string().starts_with("the other node refused: "));
        let newer = Refusal::from_wire(999, &[7]);
        assert_eq!(newer.to_string(), "reason 999 [7], which this version of atmo does not know; update this node to read it");
    }

    #[test]
    fn every_number_survives_the_wire() {
        for code in 1..=20 {
            let refusal = Refusal::from_wire(code, &[5]);
            assert_eq!(refusal.to_wire().0, code);
            assert_eq!(Refusal::from_wire(code, &refusal.to_wire().1), refusal);
            assert!(!refusal.to_string().is_empty());
        }
        assert_eq!(Refusal::from_wire(2, &[]), Refusal::CodeExpired { ago_ms: 0 });
    }

    #[test]
    fn what_strangers_could_learn_from_becomes_one_number() {
        for refusal in [Refusal::OtherMesh, Refusal::BadSignature, Refusal::BadChain(ChainError::OtherMesh), Refusal::Malformed] {
            assert_eq!(refusal.to_wire(), (1, Vec::new()));
            assert!(!refusal.to_string().is_empty());
        }
    }

    #[test]
    fn spans_are_short() {
        for (ms, text) in [(0, "0 s"), (119_999, "119 s"), (120_000, "2 min"), (7_200_000, "2 h"), (172_800_000, "2 days")] {
            assert_eq!(Span(ms).to_string(), text);
        }
    }
}
