//! Who gets in: the handshake on a connection's first streams, before anything else is said on it.
//!
//! [`Handshake`] is sans-IO and symmetric: both sides send a hello at once, nobody is client or server (who dialled is not reliable when
//! two nodes punch through NATs towards each other). The driver sends [`Handshake::start`], gives every frame it reads to
//! [`Handshake::handle`], sends what the [`Step`] holds, and acts on its [`Progress`]. It also owns the deadline.
//!
//! Between members:         hello <-> hello, proof <-> proof, verdict <-> verdict
//! Newcomer and redeemer:   hello <-> hello, proof <-, join proof ->, grant <-
//! Renewal by an issuer:    hello <-> hello, proof <-, proof ->, grant <-
//! Anyone at any time:      refused
//!
//! A signature covers its purpose, the signer's id, its own body and a transcript of both ids and both hellos exactly as sent. The hellos
//! hold nonces, the versions offered and a tag of the mesh, so a proof that was replayed, reflected, taken to another mesh or talked down
//! to an older version does not verify; the scheme is SIGMA's (Krawczyk 2003) on top of a channel that has done the key exchange. The
//! redeemer proves itself first: a newcomer gives its proof to nobody but the node that its code names. A connection that was used to join
//! ends there; the new member dials again.
//!
//! Whoever can prove nothing is told [`Refusal::NotAdmitted`] and no more; whoever proved a key of the mesh that was revoked is shown the
//! record. A node that knows that it was revoked itself shows that record to members and lets nobody in. Whoever
//! comes for renewal gets that or nothing, so that an expired certificate does no harm: its hello says so, and the hello is in what it
//! signs. Absent: short codes (purposes, frames and extensions leave room), and relaying by an introducer, for which a join proof is already complete without the
//! channel's.

pub mod frame;
mod refusal;

use std::mem;
use std::sync::Arc;

pub use refusal::{Refusal, Refused, Side};

use self::frame::{
    Frame, Grant, Hello, JoinBody, JoinProof, MAGIC, PURPOSE_JOIN, PURPOSE_MEMBER, PURPOSE_RENEW, Proof, ProofBody,
};
use self::frame::{Signing, Transcript, VERSION_MAX, VERSION_MIN, Verdict, common_version, mesh_tag};
use crate::codec;
use crate::identity::{MeshId, NodeId, NodeKey};
use crate::invitation::{JoinCode, Redeemers};
use crate::membership::{Chain, Member, OutsideValidity, Revocation, Revocations, Roles};
use crate::record::Extensions;

/// How far two clocks may lie apart. A guess: sleeping laptops drift by minutes, and gossip takes leases up to 20 minutes ahead.
pub const CLOCK_SKEW_MS_MAX: u64 = 10 * 60_000;
/// Longest name that a newcomer gives itself, in bytes; longer ones are cut.
pub const NAME_BYTES_MAX: usize = 64;

/// The extension of a grant that says what the mesh is called.
const GRANT_MESH_NAME: u16 = 1;
/// The extension of a verdict that holds another certificate for whom it accepts: an encoded chain.
const VERDICT_CERTIFICATE: u16 = 1;

/// All that a handshake starts from.
#[derive(Debug)]
pub struct HandshakeConfig {
    pub key: NodeKey,
    /// Who the peer is, as the connection's own cryptography (TLS, noise) proved.
    pub peer: NodeId,
    pub purpose: Purpose,
    /// 32 random bytes, fresh for every handshake.
    pub nonce: [u8; 32],
    /// The wall clock, unix milliseconds.
    pub now_ms: u64,
    pub revocations: Arc<Revocations>,
    /// Another certificate that waits for the peer; it comes with the verdict unless the peer's own is newer.
    pub waiting: Option<Arc<Chain>>,
}

/// What this node wants of the peer.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// A member: meets other members and answers newcomers.
    Member(Arc<Chain>),
    /// A newcomer with a code, and what it calls itself.
    Join { code: JoinCode, name: String },
    /// A member that wants its certificate renewed, which may have expired.
    Renew(Arc<Chain>),
}

/// One side of one admission.
#[derive(Debug)]
pub struct Handshake {
    config: HandshakeConfig,
    mesh: MeshId,
    hello: Vec<u8>,
    state: State,
}

/// What to do next: send the frame, if there is one, then look at the progress.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Step {
    pub send: Option<Vec<u8>>,
    pub progress: Progress,
}

/// How far an admission has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Read the next frame.
    Continue,
    /// Ask [`Ledger::admit`](crate::invitation::Ledger::admit), write the ledger to disk, then call [`Handshake::grant`] or
    /// [`Handshake::refuse`].
    Redeem(Redeem),
    /// Issue a certificate for the same key with the same roles or fewer, if it is due, then call [`Handshake::grant`] or
    /// [`Handshake::refuse`].
    Renew(Member),
    /// Both sides admitted each other: the connection is a member's.
    Admitted(Admission),
    /// This node is a member now. The connection ends; dial again with the chain.
    Joined(Joined),
    /// The newcomer was given its certificate. The connection ends.
    Granted,
    /// Nobody was let in. The connection ends, after what is to be sent was.
    Refused(Refused),
}

/// What a newcomer was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    pub chain: Chain,
    /// What the redeemer calls the mesh, if it calls it anything.
    pub mesh_name: Option<String>,
}

/// A newcomer that proved to hold an invitation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Redeem {
    pub invitation: NodeId,
    pub node: NodeId,
    /// What it calls itself: at most [`NAME_BYTES_MAX`], no control characters.
    pub name: String,
}

/// An admitted peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admission {
    pub member: Member,
    pub chain: Arc<Chain>,
    /// The digest of the revocations that the peer knows; if it differs from ours, there is something to tell.
    pub revocations: [u8; 32],
    /// How far the peer's clock is ahead of ours; negative: behind.
    pub clock_ahead_ms: i64,
    /// The version of the handshake that both sides settled on.
    pub version: u8,
    /// Another certificate of this node's that the peer had for it, granted by an admin or the root; its roles may be others.
    pub granted: Option<Arc<Chain>>,
}

#[derive(Clone, Debug)]
enum State {
    Hello,
    Proof(Context),
    /// The peer is accepted; does it accept us?
    Verdict(Box<Admission>),
    JoinProof(Context),
    /// The driver is asking the ledger.
    Redeeming,
    RedeemerProof(Context),
    RenewProof(Context),
    IssuerProof(Context),
    Grant,
    Finished,
}

/// What the hellos settled.
#[derive(Clone, Copy, Debug)]
struct Context {
    transcript: Transcript,
    version: u8,
}

/// The end of the road, and who decided on it.
enum Stop {
    Ours(Refusal),
    Theirs(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Ours(refusal)
    }
}

type Turn = Result<(State, Step), Stop>;

/// The frame that refuses, for a driver that has no handshake to spare.
pub fn refusal_frame(refusal: &Refusal) -> Vec<u8> {
    Frame::refused(refusal).encode()
}

impl Step {
    fn say(frame: &Frame, progress: Progress) -> Self {
        Self { send: Some(frame.encode()), progress }
    }

    fn quiet(progress: Progress) -> Self {
        Self { send: None, progress }
    }
}

impl Purpose {
    fn mesh(&self) -> MeshId {
        match self {
            Self::Member(chain) | Self::Renew(chain) => chain.mesh(),
            Self::Join { code, .. } => code.mesh,
        }
    }

    const fn number(&self) -> u8 {
        match self {
            Self::Member(_) => PURPOSE_MEMBER,
            Self::Join { .. } => PURPOSE_JOIN,
            Self::Renew(_) => PURPOSE_RENEW,
        }
    }
}

impl Handshake {
    pub fn new(config: HandshakeConfig) -> Self {
        let mesh = config.purpose.mesh();
        let hello = Frame::Hello(Hello {
            magic: MAGIC,
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            nonce: config.nonce,
            purpose: config.purpose.number(),
            mesh_tag: mesh_tag(&mesh, &config.nonce, &config.key.id()),
            extensions: Vec::new(),
        });
        Self { config, mesh, hello: hello.encode(), state: State::Hello }
    }

    /// The first frame to send.
    pub fn start(&self) -> Vec<u8> {
        self.hello.clone()
    }

    /// Takes a frame from the peer. After anything but [`Progress::Continue`], [`Progress::Redeem`] and [`Progress::Renew`] the handshake is over.
    pub fn handle(&mut self, frame: &[u8]) -> Step {
        let turn = match mem::replace(&mut self.state, State::Finished) {
            State::Hello => self.on_hello(frame),
            State::Proof(context) => self.on_proof(context, frame),
            State::Verdict(admission) => self.on_verdict(*admission, frame),
            State::JoinProof(context) => self.on_join_proof(context, frame),
            State::RedeemerProof(context) => self.on_redeemer_proof(context, frame),
            State::RenewProof(context) => self.on_renew_proof(context, frame),
            State::IssuerProof(context) => self.on_issuer_proof(context, frame),
            State::Grant => self.on_grant(frame),
            State::Redeeming | State::Finished => Err(Refusal::OutOfOrder.into()),
        };
        match turn {
            Ok((state, step)) => {
                self.state = state;
                step
            }
            Err(Stop::Ours(refusal)) => self.refuse(refusal),
            Err(Stop::Theirs(refusal)) => Step::quiet(Progress::Refused(Refused { by: Side::Peer, refusal })),
        }
    }

    /// Answers [`Progress::Redeem`] or [`Progress::Renew`] with the peer's certificate, and what the mesh is called. At any other time it refuses.
    pub fn grant(&mut self, chain: &[u8], mesh_name: Option<&str>) -> Step {
        let extensions = mesh_name.map(|name| (GRANT_MESH_NAME, clean_name(name).into_bytes())).into_iter().collect();
        match mem::replace(&mut self.state, State::Finished) {
            State::Redeeming => Step::say(&Frame::Grant(Grant { chain: chain.to_vec(), extensions }), Progress::Granted),
            _ => self.refuse(Refusal::OutOfOrder),
        }
    }

    /// Ends the handshake, for the driver's own reasons (the ledger's, a full disk, too many at once).
    pub fn refuse(&mut self, refusal: Refusal) -> Step {
        self.state = State::Finished;
        Step::say(&Frame::refused(&refusal), Progress::Refused(Refused { by: Side::Us, refusal }))
    }

    fn on_hello(&self, bytes: &[u8]) -> Turn {
        let me = self.config.key.id();
        let Frame::Hello(hello) = self.expect(Frame::decode_first(bytes))? else { return Err(Refusal::NotAHandshake.into()) };
        if self.config.peer == me {
            return Err(Refusal::Ourselves.into());
        }
        let version = common_version(&hello)?;
        if hello.mesh_tag != mesh_tag(&self.mesh, &hello.nonce, &self.config.peer) {
            return Err(Refusal::OtherMesh.into());
        }
        let context = Context { transcript: Transcript::new((&me, &self.hello), (&self.config.peer, bytes)), version };
        match (&self.config.purpose, hello.purpose) {
            (Purpose::Member(chain), PURPOSE_MEMBER) => Ok((State::Proof(context), self.prove(&context, chain))),
            (Purpose::Member(chain), PURPOSE_JOIN) => Ok((State::JoinProof(context), self.prove(&context, chain))),
            (Purpose::Join { .. }, PURPOSE_MEMBER) => Ok((State::RedeemerProof(context), Step::quiet(Progress::Continue))),
            (Purpose::Member(chain), PURPOSE_RENEW) => Ok((State::RenewProof(context), self.prove(&context, chain))),
            (Purpose::Renew(_), PURPOSE_MEMBER) => Ok((State::IssuerProof(context), Step::quiet(Progress::Continue))),
            (Purpose::Join { .. } | Purpose::Renew(_), PURPOSE_JOIN | PURPOSE_RENEW) => Err(Refusal::BothJoining.into()),
            (_, unknown) => Err(Refusal::UnknownPurpose(unknown).into()),
        }
    }

    fn prove(&self, context: &Context, chain: &Chain) -> Step {
        let body = codec::encode(&ProofBody {
            chain: chain.bytes().to_vec(),
            revocations: self.config.revocations.digest(),
            clock_ms: self.config.now_ms,
            extensions: Vec::new(),
        });
        let key = &self.config.key;
        let signature = context.transcript.sign(Signing::MemberProof, key, &key.id(), &body);
        Step::say(&Frame::Proof(Proof { body, signature }), Progress::Continue)
    }

    fn on_proof(&self, context: Context, bytes: &[u8]) -> Turn {
        let admission = self.check_proof(context, bytes)?;
        if let Some(revocation) = self.own_revocation() {
            return Err(Refusal::Revoked(Some(revocation)).into());
        }
        let waits = |chain: &&Arc<Chain>| begins_ms(chain) > admission.member.not_before_ms;
        let granted = self.config.waiting.as_ref().filter(waits);
        let extensions = granted.map(|chain| (VERDICT_CERTIFICATE, chain.bytes().to_vec())).into_iter().collect();
        let verdict = Frame::Verdict(Verdict { extensions });
        Ok((State::Verdict(Box::new(admission)), Step::say(&verdict, Progress::Continue)))
    }

    /// A member's proof, whoever asks for it, with a certificate that holds now.
    fn check_proof(&self, context: Context, bytes: &[u8]) -> Result<Admission, Stop> {
        let admission = self.read_proof(context, bytes)?;
        self.check_time(&admission.member, admission.clock_ahead_ms.unsigned_abs())?;
        Ok(admission)
    }

    /// All but the time. From the signature on the peer is known to belong to the mesh and hears what is wrong.
    fn read_proof(&self, context: Context, bytes: &[u8]) -> Result<Admission, Stop> {
        let Frame::Proof(proof) = self.expect(Frame::decode(bytes))? else { return Err(Refusal::OutOfOrder.into()) };
        let peer = &self.config.peer;
        let body: ProofBody = codec::decode(&proof.body).map_err(|_| Refusal::Malformed)?;
        if !context.transcript.verify(Signing::MemberProof, peer, peer, &proof.body, &proof.signature) {
            return Err(Refusal::BadSignature.into());
        }
        let chain = Chain::decode(&body.chain).map_err(Refusal::BadChain)?;
        let member = chain.verify(&self.mesh).map_err(Refusal::BadChain)?;
        if member.node != *peer {
            return Err(Refusal::OtherNode.into());
        }
        if let Some(revocation) = self.config.revocations.refuses(&member) {
            return Err(Refusal::Revoked(Some(Arc::clone(revocation))).into());
        }
        let clock_ahead_ms = body.clock_ms.wrapping_sub(self.config.now_ms).cast_signed();
        Ok(Admission {
            member,
            chain: Arc::new(chain),
            revocations: body.revocations,
            clock_ahead_ms,
            version: context.version,
            granted: None,
        })
    }

    /// A certificate that does not hold now is the clocks' fault where these disagree.
    fn check_time(&self, member: &Member, clocks_differ_ms: u64) -> Result<(), Refusal> {
        member.check_time(self.config.now_ms, CLOCK_SKEW_MS_MAX).map_err(|outside| match outside {
            _ if clocks_differ_ms > CLOCK_SKEW_MS_MAX => Refusal::ClocksDiffer { by_ms: clocks_differ_ms },
            OutsideValidity::Expired { ago_ms } => Refusal::CertificateExpired { ago_ms },
            OutsideValidity::NotYet { in_ms } => Refusal::CertificateNotYet { in_ms },
        })
    }

    /// The redeemer shows itself; if it is the one that the code means, it gets the proof that the code is here.
    fn on_redeemer_proof(&self, context: Context, bytes: &[u8]) -> Turn {
        let Purpose::Join { code, name } = &self.config.purpose else { return Err(Refusal::OutOfOrder.into()) };
        let redeemer = self.check_proof(context, bytes)?;
        if code.redeemers == Redeemers::Issuer && redeemer.member.node != code.issuer {
            return Err(Refusal::NotTheRedeemer.into());
        }
        if !redeemer.member.roles.contains(Roles::ISSUE) {
            return Err(Refusal::MayNotAdmit.into());
        }
        // Before the code is spent.
        self.check_clocks(&redeemer)?;
        let proof = self.prove_join(&context, code, name);
        Ok((State::Grant, Step::say(&proof, Progress::Continue)))
    }

    /// Whoever may issue shows itself; it is shown the certificate to be renewed.
    fn on_issuer_proof(&self, context: Context, bytes: &[u8]) -> Turn {
        let Purpose::Renew(chain) = &self.config.purpose else { return Err(Refusal::OutOfOrder.into()) };
        let issuer = self.check_proof(context, bytes)?;
        if !issuer.member.roles.contains(Roles::ISSUE) {
            return Err(Refusal::MayNotAdmit.into());
        }
        self.check_clocks(&issuer)?;
        Ok((State::Grant, self.prove(&context, chain)))
    }

    /// The one certificate that may have expired: it lets nobody in. It is not revoked, and was never to begin only later.
    fn on_renew_proof(&self, context: Context, bytes: &[u8]) -> Turn {
        let admission = self.read_proof(context, bytes)?;
        self.check_clocks(&admission)?;
        match self.check_time(&admission.member, 0) {
            Ok(()) | Err(Refusal::CertificateExpired { .. }) => {}
            Err(refusal) => return Err(refusal.into()),
        }
        if self.own_revocation().is_some() {
            return Err(Refusal::MayNotAdmit.into());
        }
        Ok((State::Redeeming, Step::quiet(Progress::Renew(admission.member))))
    }

    /// With clocks that differ so much no certificate would hold on both sides.
    fn check_clocks(&self, peer: &Admission) -> Result<(), Refusal> {
        let by_ms = peer.clock_ahead_ms.unsigned_abs();
        if by_ms > CLOCK_SKEW_MS_MAX { Err(Refusal::ClocksDiffer { by_ms }) } else { Ok(()) }
    }

    fn prove_join(&self, context: &Context, code: &JoinCode, name: &str) -> Frame {
        let (key, invitation) = (&self.config.key, code.invitation_key());
        let body = codec::encode(&JoinBody {
            invitation: invitation.id(),
            name: clean_name(name),
            clock_ms: self.config.now_ms,
            extensions: Vec::new(),
        });
        let sign = |what, signer| context.transcript.sign(what, signer, &key.id(), &body);
        let invitation_signature = sign(Signing::JoinByInvitation, &invitation);
        let node_signature = sign(Signing::JoinByNode, key);
        Frame::JoinProof(JoinProof { body, invitation_signature, node_signature })
    }

    fn on_join_proof(&self, context: Context, bytes: &[u8]) -> Turn {
        let Frame::JoinProof(proof) = self.expect(Frame::decode(bytes))? else { return Err(Refusal::OutOfOrder.into()) };
        let body: JoinBody = codec::decode(&proof.body).map_err(|_| Refusal::Malformed)?;
        let peer = &self.config.peer;
        let signed = |what, signer, signature: &[u8]| context.transcript.verify(what, signer, peer, &proof.body, signature);
        if !signed(Signing::JoinByNode, peer, &proof.node_signature)
            || !signed(Signing::JoinByInvitation, &body.invitation, &proof.invitation_signature)
        {
            return Err(Refusal::BadSignature.into());
        }
        if self.own_revocation().is_some() {
            return Err(Refusal::MayNotAdmit.into());
        }
        if let Some(revocation) = self.config.revocations.refuses_key(peer) {
            return Err(Refusal::Revoked(Some(Arc::clone(revocation))).into());
        }
        if self.config.revocations.refuses_invitation(&body.invitation).is_some() {
            return Err(Refusal::CodeRevoked.into());
        }
        let redeem = Redeem { invitation: body.invitation, node: *peer, name: clean_name(&body.name) };
        Ok((State::Redeeming, Step::quiet(Progress::Redeem(redeem))))
    }

    /// The certificate must be this node's, of the code's mesh, and valid now.
    fn on_grant(&self, bytes: &[u8]) -> Turn {
        let Frame::Grant(grant) = self.expect(Frame::decode(bytes))? else { return Err(Refusal::OutOfOrder.into()) };
        let chain = Chain::decode(&grant.chain).map_err(Refusal::BadChain)?;
        let member = chain.verify(&self.mesh).map_err(Refusal::BadChain)?;
        if member.node != self.config.key.id() {
            return Err(Refusal::OtherNode.into());
        }
        self.check_time(&member, 0)?;
        Ok((State::Finished, Step::quiet(Progress::Joined(Joined { chain, mesh_name: mesh_name_in(&grant.extensions) }))))
    }
}

impl Handshake {
    fn on_verdict(&self, admission: Admission, bytes: &[u8]) -> Turn {
        match self.expect(Frame::decode(bytes))? {
            Frame::Verdict(verdict) => {
                let granted = self.granted_in(&verdict.extensions);
                Ok((State::Finished, Step::quiet(Progress::Admitted(Admission { granted, ..admission }))))
            }
            _ => Err(Refusal::OutOfOrder.into()),
        }
    }

    /// A certificate of this node's own key and mesh, by an admin or the root: whoever may merely issue cannot take roles from others.
    fn granted_in(&self, extensions: &Extensions) -> Option<Arc<Chain>> {
        let (_, bytes) = extensions.iter().find(|(number, _)| *number == VERDICT_CERTIFICATE)?;
        let chain = Chain::decode(bytes).ok()?;
        let member = chain.verify(&self.mesh).ok()?;
        let by_admin = chain.certificates().rev().nth(1).is_none_or(|issuer| issuer.roles.contains(Roles::ADMIN));
        let stands = self.check_time(&member, 0).is_ok() && self.config.revocations.refuses(&member).is_none();
        (member.node == self.config.key.id() && by_admin && stands).then(|| Arc::new(chain))
    }

    /// The frame, unless it is the peer's refusal, which may come at any time.
    fn expect(&self, frame: Result<Frame, Refusal>) -> Result<Frame, Stop> {
        match frame? {
            Frame::Refused(refused) => Err(Stop::Theirs(refused.refusal(&self.mesh))),
            frame => Ok(frame),
        }
    }

    /// What ends this node's own membership.
    fn own_revocation(&self) -> Option<Arc<Revocation>> {
        let Purpose::Member(chain) = &self.config.purpose else { return None };
        self.config.revocations.refuses_lineage(&chain.lineage()).cloned()
    }
}

fn begins_ms(chain: &Chain) -> u64 {
    chain.certificates().last().map_or(0, |own| own.not_before_ms)
}

/// The name in a grant, made fit to be shown.
fn mesh_name_in(extensions: &Extensions) -> Option<String> {
    let (_, bytes) = extensions.iter().find(|(number, _)| *number == GRANT_MESH_NAME)?;
    let name = clean_name(std::str::from_utf8(bytes).ok()?);
    (!name.is_empty()).then_some(name)
}

/// Fit to be shown: no control characters, at most [`NAME_BYTES_MAX`].
fn clean_name(name: &str) -> String {
    let mut clean = String::new();
    for c in name.trim().chars().filter(|c| !c.is_control()) {
        if clean.len() + c.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        clean.push(c);
    }
    clean
}

#[cfg(test)]
mod tests;
