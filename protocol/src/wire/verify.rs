//! From bytes that anyone could have written to contents whose signatures hold.
//!
//! [`Unverified::verify`] is a pure function of the frame and a [`Verifier`]. The verifier is a seam: a node remembers what it has checked
//! (no signature is checked twice), a simulation lets a thousand nodes share one memory. What fails is left out and reported beside what
//! holds, so that the state machine can blame whoever sent it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::codec::{self, CodecError};
use crate::envelope::EnvelopeError;
use crate::identity::{BodyHash, CertificateHash, MeshId};
use crate::membership::{Chain, ChainError, Member, Revocation, RevocationError};
use crate::mesh::Blame;
use crate::record::{Announcement, BODY_BYTES_MAX, CapabilityBody, EXEMPLAR_SETS_MAX, INLINE_VECTORS_MAX, RecordError};
use crate::wire::{Blob, Frame};

/// A frame as it came in.
#[derive(Clone, PartialEq, Debug)]
pub struct Unverified(Frame);

/// A frame whose contents were checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Verified {
    pub(crate) content: Content,
    pub(crate) faults: Vec<Blame>,
}

/// What a [`Verified`] says.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Content {
    Push {
        chains: Vec<Arc<VerifiedChain>>,
        bodies: Vec<Arc<Body>>,
        records: Vec<Arc<Announcement>>,
    },
    Revocations {
        digest: [u8; 32],
        held: Option<Vec<u64>>,
        records: Vec<Arc<Revocation>>,
    },
    /// Frames without signatures of their own: the link vouches for who said them.
    Plain(Frame),
}

/// A certificate chain that holds, as far as signatures go; whether it has expired or was revoked is asked each time it is used.
#[derive(Clone, PartialEq, Debug)]
pub struct VerifiedChain {
    pub member: Member,
    pub bytes: Blob,
}

/// A capability body and its address.
#[derive(Clone, PartialEq, Debug)]
pub struct Body {
    pub hash: BodyHash,
    pub body: Arc<CapabilityBody>,
    pub bytes: Blob,
}

/// Why bytes are no capability body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    #[error("a capability body of {0} bytes is larger than {BODY_BYTES_MAX}")]
    TooLarge(usize),
    #[error("a capability body: {0}")]
    Codec(#[from] CodecError),
    #[error("a capability body with more {0} than are allowed")]
    TooMany(&'static str),
}

/// Checks what carries signatures or is named by its hash. The same bytes must always get the same answer. `Err(None)` is something that
/// cannot be used but is nobody's fault, such as a record of a version that is not understood.
pub trait Verifier {
    fn announcement(&self, bytes: &Blob) -> Result<Arc<Announcement>, Option<Blame>>;
    fn chain(&self, bytes: &Blob) -> Result<Arc<VerifiedChain>, Option<Blame>>;
    fn body(&self, bytes: &Blob) -> Result<Arc<Body>, Option<Blame>>;
    fn revocation(&self, bytes: &Blob) -> Result<Arc<Revocation>, Option<Blame>>;
}

impl Unverified {
    pub(super) fn new(frame: Frame) -> Self {
        Self(frame)
    }

    /// Checks every signature and hash.
    pub fn verify(self, verifier: &dyn Verifier) -> Verified {
        let mut faults = Vec::new();
        let content = match self.0 {
            Frame::Push(push) => Content::Push {
                chains: checked(&push.chains, &mut faults, |bytes| verifier.chain(bytes)),
                bodies: checked(&push.bodies, &mut faults, |bytes| verifier.body(bytes)),
                records: checked(&push.records, &mut faults, |bytes| verifier.announcement(bytes)),
            },
            Frame::Revocations(news) => Content::Revocations {
                digest: news.digest,
                held: news.held,
                records: checked(&news.records, &mut faults, |bytes| verifier.revocation(bytes)),
            },
            other => Content::Plain(other),
        };
        Verified { content, faults }
    }
}

fn checked<T>(items: &[Blob], faults: &mut Vec<Blame>, check: impl Fn(&Blob) -> Result<T, Option<Blame>>) -> Vec<T> {
    let mut held = Vec::with_capacity(items.len());
    for item in items {
        match check(item) {
            Ok(item) => held.push(item),
            Err(fault) => faults.extend(fault),
        }
    }
    held
}

impl VerifiedChain {
    /// Checks every signature of `chain` up to the root of `mesh`.
    pub fn new(chain: &Chain, mesh: &MeshId) -> Result<Self, ChainError> {
        Ok(Self { member: chain.verify(mesh)?, bytes: Blob(Arc::clone(chain.bytes())) })
    }

    pub fn hash(&self) -> CertificateHash {
        self.member.certificate
    }
}

impl Body {
    /// `body` under the hash of its encoding.
    pub fn new(body: Arc<CapabilityBody>) -> Result<Self, BodyError> {
        let bytes = Blob(codec::encode(&*body).into());
        Self::within_limits(&body, &bytes)?;
        Ok(Self { hash: BodyHash::from_bytes(*blake3::hash(&bytes.0).as_bytes()), body, bytes })
    }

    fn open(bytes: &Blob) -> Result<Self, BodyError> {
        let (body, _) = codec::decode_front::<CapabilityBody>(&bytes.0)?;
        Self::within_limits(&body, bytes)?;
        Ok(Self { hash: BodyHash::from_bytes(*blake3::hash(&bytes.0).as_bytes()), body: Arc::new(body), bytes: bytes.clone() })
    }

    fn within_limits(body: &CapabilityBody, bytes: &Blob) -> Result<(), BodyError> {
        if bytes.0.len() > BODY_BYTES_MAX {
            return Err(BodyError::TooLarge(bytes.0.len()));
        }
        if body.vectors.len() > INLINE_VECTORS_MAX {
            return Err(BodyError::TooMany("vectors"));
        }
        if body.exemplars.len() > EXEMPLAR_SETS_MAX {
            return Err(BodyError::TooMany("exemplar sets"));
        }
        Ok(())
    }
}

/// Checks everything anew, each time.
#[derive(Clone, Copy, Debug)]
pub struct DirectVerifier(pub MeshId);

impl Verifier for DirectVerifier {
    fn announcement(&self, bytes: &Blob) -> Result<Arc<Announcement>, Option<Blame>> {
        Announcement::open(&bytes.0, &self.0).map(Arc::new).map_err(blame_for_record)
    }

    fn chain(&self, bytes: &Blob) -> Result<Arc<VerifiedChain>, Option<Blame>> {
        Chain::decode(&bytes.0).and_then(|chain| VerifiedChain::new(&chain, &self.0)).map(Arc::new).map_err(blame_for_chain)
    }

    fn body(&self, bytes: &Blob) -> Result<Arc<Body>, Option<Blame>> {
        Body::open(bytes).map(Arc::new).map_err(|_| Some(Blame::BadContent))
    }

    fn revocation(&self, bytes: &Blob) -> Result<Arc<Revocation>, Option<Blame>> {
        Revocation::open(&bytes.0, &self.0).map(Arc::new).map_err(blame_for_revocation)
    }
}

fn blame_for_record(error: RecordError) -> Option<Blame> {
    match error {
        RecordError::Envelope(EnvelopeError::TooOld { .. } | EnvelopeError::OtherKind { .. }) => None,
        RecordError::Envelope(_) | RecordError::OtherMesh | RecordError::TooMany(_) => Some(Blame::BadContent),
        RecordError::Signature => Some(Blame::BadSignature),
    }
}

fn blame_for_chain(error: ChainError) -> Option<Blame> {
    match error {
        ChainError::TooOld(_) | ChainError::UnknownRestriction { .. } => None,
        ChainError::Signature(_) => Some(Blame::BadSignature),
        _ => Some(Blame::BadContent),
    }
}

fn blame_for_revocation(error: RevocationError) -> Option<Blame> {
    match error {
        RevocationError::TooOld(_) | RevocationError::Record(EnvelopeError::TooOld { .. } | EnvelopeError::OtherKind { .. }) => {
            None
        }
        RevocationError::Chain(error) => blame_for_chain(error),
        RevocationError::Signature => Some(Blame::BadSignature),
        _ => Some(Blame::BadContent),
    }
}

/// Remembers answers by the hash of the bytes, the bad ones too. Bounded by two generations: when the young one is full it becomes the
/// old one and what was old is forgotten, so that whatever is still in use moves along.
#[derive(Debug)]
pub struct MemoVerifier<V = DirectVerifier> {
    /// Whoever is asked what is not remembered.
    verifier: V,
    announcements: Memo<Announcement>,
    chains: Memo<VerifiedChain>,
    bodies: Memo<Body>,
    revocations: Memo<Revocation>,
}

/// Answers in one generation of one kind: a mesh of a thousand nodes fits.
const MEMO_ENTRIES_MAX: usize = 2_048;

type Answer<T> = Result<Arc<T>, Option<Blame>>;

#[derive(Debug)]
struct Memo<T>(Mutex<Generations<T>>);

#[derive(Debug)]
struct Generations<T> {
    young: HashMap<[u8; 32], Answer<T>>,
    old: HashMap<[u8; 32], Answer<T>>,
}

impl<T> Memo<T> {
    fn new() -> Self {
        Self(Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }))
    }

    fn answer(&self, bytes: &Blob, check: impl FnOnce() -> Answer<T>) -> Answer<T> {
        let key = *blake3::hash(&bytes.0).as_bytes();
        if let Some(known) = self.generations().recall(&key) {
            return known;
        }
        let answer = check();
        self.generations().remember(key, answer.clone());
        answer
    }

    /// A panic while the lock was held cannot have left the two maps inconsistent.
    fn generations(&self) -> std::sync::MutexGuard<'_, Generations<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Generations<T> {
    fn recall(&mut self, key: &[u8; 32]) -> Option<Answer<T>> {
        if let Some(answer) = self.young.get(key) {
            return Some(answer.clone());
        }
        let answer = self.old.remove(key)?;
        self.remember(*key, answer.clone());
        Some(answer)
    }

    fn remember(&mut self, key: [u8; 32], answer: Answer<T>) {
        if self.young.len() >= MEMO_ENTRIES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, answer);
    }
}

impl MemoVerifier {
    pub fn new(mesh: MeshId) -> Self {
        Self::over(DirectVerifier(mesh))
    }
}

impl<V: Verifier> MemoVerifier<V> {
    /// Remembers what another verifier answers.
    pub fn over(verifier: V) -> Self {
        Self { verifier, announcements: Memo::new(), chains: Memo::new(), bodies: Memo::new(), revocations: Memo::new() }
    }
}

impl<V: Verifier> Verifier for MemoVerifier<V> {
    fn announcement(&self, bytes: &Blob) -> Answer<Announcement> {
        self.announcements.answer(bytes, || self.verifier.announcement(bytes))
    }

    fn chain(&self, bytes: &Blob) -> Answer<VerifiedChain> {
        self.chains.answer(bytes, || self.verifier.chain(bytes))
    }

    fn body(&self, bytes: &Blob) -> Answer<Body> {
        self.bodies.answer(bytes, || self.verifier.body(bytes))
    }

    fn revocation(&self, bytes: &Blob) -> Answer<Revocation> {
        self.revocations.answer(bytes, || self.verifier.revocation(bytes))
    }
}

#[cfg(test)]
mod tests;
