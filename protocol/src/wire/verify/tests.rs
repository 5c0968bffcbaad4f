//! How often anything is checked.

use std::cell::Cell;

use super::*;
use crate::identity::NodeKey;
use crate::membership::{Roles, issue_from_root};
use crate::record::{Mode, NodeRecord};
use crate::wire::{self, Push};

const WALL_MS: u64 = 1_800_000_000_000;
/// A mesh that is to fit into the memory.
const ORIGINS: usize = 1_000;
const LINKS: usize = 8;
/// Records in one frame.
const TOGETHER: usize = 50;

/// Counts what it is asked.
struct Counting {
    direct: DirectVerifier,
    announcements: Cell<usize>,
    chains: Cell<usize>,
}

fn count(calls: &Cell<usize>) {
    calls.set(calls.get() + 1);
}

impl Verifier for Counting {
    fn announcement(&self, bytes: &Blob) -> Answer<Announcement> {
        count(&self.announcements);
        self.direct.announcement(bytes)
    }

    fn chain(&self, bytes: &Blob) -> Answer<VerifiedChain> {
        count(&self.chains);
        self.direct.chain(bytes)
    }

    fn body(&self, bytes: &Blob) -> Answer<Body> {
        self.direct.body(bytes)
    }

    fn revocation(&self, bytes: &Blob) -> Answer<Revocation> {
        self.direct.revocation(bytes)
    }
}

fn root() -> NodeKey {
    NodeKey::from_seed([99; 32])
}

fn mesh() -> MeshId {
    MeshId::of_root(&root().id())
}

fn counting() -> MemoVerifier<Counting> {
    MemoVerifier::over(Counting { direct: DirectVerifier(mesh()), announcements: Cell::default(), chains: Cell::default() })
}

/// The chain and the record of one of many.
fn said_of(number: usize) -> (Blob, Blob) {
    let mut seed = [1; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let key = NodeKey::from_seed(seed);
    let chain = issue_from_root(&root(), &key.id(), Roles::MEMBER, WALL_MS, number as u64);
    let record = NodeRecord {
        mesh: mesh(),
        node: key.id(),
        certificate: chain.hash(),
        incarnation: 1,
        sequence: 1,
        lease_until_ms: WALL_MS,
        mode: Mode::Participant,
        name: String::new(),
        labels: Vec::new(),
        addresses: Vec::new(),
        neighbours: Vec::new(),
        capabilities: Vec::new(),
        extensions: Vec::new(),
    };
    (Blob(Arc::clone(chain.bytes())), Announcement::seal(record, &key).unwrap().bytes)
}

#[test]
fn no_signature_is_checked_twice_however_many_bring_it() {
    let verifier = counting();
    let said: Vec<_> = (0..ORIGINS).map(said_of).collect();
    for part in said.chunks(TOGETHER) {
        let (chains, records) = part.iter().cloned().unzip();
        let frame = Frame::Push(Push { chains, bodies: Vec::new(), records }).encode();
        for _ in 0..LINKS {
            assert_eq!(wire::decode(&frame).unwrap().verify(&verifier).faults, []);
        }
    }
    for (chain, record) in said.iter().rev() {
        let push = Push { chains: vec![chain.clone()], bodies: Vec::new(), records: vec![record.clone()] };
        assert_eq!(wire::decode(&Frame::Push(push).encode()).unwrap().verify(&verifier).faults, []);
    }
    assert_eq!(verifier.verifier.announcements.get(), ORIGINS);
    assert_eq!(verifier.verifier.chains.get(), ORIGINS);
}

#[test]
fn a_forgery_is_checked_once_and_blamed_each_time() {
    let verifier = counting();
    let mut forged = said_of(1).1.0.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let push = Frame::Push(Push { records: vec![Blob(forged.into())], ..Push::default() });
    for _ in 0..LINKS {
        let verified = wire::decode(&push.encode()).unwrap().verify(&verifier);
        assert_eq!(verified.faults, [Blame::BadSignature]);
    }
    assert_eq!(verifier.verifier.announcements.get(), 1);
}
