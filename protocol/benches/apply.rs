//! What it costs to take one verified record that is news, in a mesh of a thousand origins and eight links.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;

use atmo_protocol::membership::{Roles, issue_from_root};
use atmo_protocol::mesh::{Input, Mesh, MeshConfig, Now};
use atmo_protocol::record::{Announcement, Mode, NodeRecord};
use atmo_protocol::wire::{self, Distances, Frame, MemoVerifier, Push, VerifiedChain};
use atmo_protocol::{MeshId, NodeKey};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const WALL_MS: u64 = 1_800_000_000_000;
const ORIGINS: usize = 1_000;
const LINKS: usize = 8;
/// Slow enough that every origin stays within its rate.
const STEP_MS: u64 = 10;

struct Peer {
    key: NodeKey,
    chain: Arc<VerifiedChain>,
}

struct Bench {
    mesh: Mesh,
    verifier: MemoVerifier,
    peers: Vec<Peer>,
    said: u64,
}

fn peer(number: usize, root: &NodeKey) -> Peer {
    let mut seed = [1; 32];
    seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
    let key = NodeKey::from_seed(seed);
    let chain = issue_from_root(root, &key.id(), Roles::MEMBER, WALL_MS, number as u64);
    Peer { chain: Arc::new(VerifiedChain::new(&chain, &MeshId::of_root(&root.id())).expect("just issued")), key }
}

impl Bench {
    fn new() -> Self {
        let root = NodeKey::from_seed([9; 32]);
        let mesh = MeshId::of_root(&root.id());
        let peers: Vec<Peer> = (0..=ORIGINS).map(|number| peer(number, &root)).collect();
        let (key, chain) = (peers[ORIGINS].key.clone(), Arc::clone(&peers[ORIGINS].chain));
        let (mode, labels, name) = (Mode::Participant, Vec::new(), "me".to_owned());
        let config = MeshConfig { key, mesh, chain, name, mode, labels, stored_incarnation: 0, seed: 1 };
        let mut bench = Self { mesh: Mesh::new(config, now(0)), verifier: MemoVerifier::new(mesh), peers, said: 0 };
        for peer in &bench.peers[..LINKS] {
            bench.mesh.handle(now(0), Input::LinkUp { peer: peer.key.id(), chain: Arc::clone(&peer.chain), rtt_ms: 10 });
        }
        for _ in 0..ORIGINS {
            let input = bench.next();
            bench.apply(input);
        }
        (0..LINKS).for_each(|link| bench.hear_distances(link));
        bench
    }

    /// Every link has a way to every origin.
    fn hear_distances(&mut self, link: usize) {
        for part in self.peers[..ORIGINS].chunks(500) {
            let entries = part.iter().map(|peer| (peer.key.id(), 2)).collect();
            let frame = Frame::Distances(Distances { whole: false, entries });
            let frame = wire::decode(&frame.encode()).expect("our own frame").verify(&self.verifier);
            self.mesh.handle(now(self.said), Input::Frame { peer: self.peers[link].key.id(), frame });
        }
    }

    /// The next record of the next origin, over the next link, signed and verified.
    fn next(&mut self) -> Input {
        while self.mesh.poll_output().is_some() {}
        self.said += 1;
        let origin = &self.peers[self.said as usize % ORIGINS];
        let record = NodeRecord {
            mesh: origin.chain.member.mesh,
            node: origin.key.id(),
            certificate: origin.chain.hash(),
            incarnation: 1,
            sequence: self.said,
            lease_until_ms: now(self.said).wall_ms + 3_600_000,
            mode: Mode::Participant,
            name: "origin".to_owned(),
            labels: Vec::new(),
            addresses: vec!["/ip4/10.0.0.1/udp/11452/quic-v1".to_owned()],
            neighbours: Vec::new(),
            capabilities: Vec::new(),
            extensions: Vec::new(),
        };
        let signed = Announcement::seal(record, &origin.key).expect("a small record");
        let push = Push { chains: vec![origin.chain.bytes.clone()], bodies: Vec::new(), records: vec![signed.bytes] };
        let frame = wire::decode(&Frame::Push(push).encode()).expect("our own frame").verify(&self.verifier);
        let link = self.said as usize % LINKS;
        Input::Frame { peer: self.peers[link].key.id(), frame }
    }

    fn apply(&mut self, input: Input) {
        self.mesh.handle(now(self.said), input);
    }
}

fn now(said: u64) -> Now {
    Now { mono_ms: 1_000 + said * STEP_MS, wall_ms: WALL_MS + said * STEP_MS }
}

fn apply_one_verified_record(criterion: &mut Criterion) {
    let bench = RefCell::new(Bench::new());
    criterion.bench_function("apply_one_verified_record", |bencher| {
        bencher.iter_batched(
            || bench.borrow_mut().next(),
            |input| bench.borrow_mut().apply(black_box(input)),
            BatchSize::PerIteration,
        );
    });
    assert_eq!(bench.borrow().mesh.origins_held(), ORIGINS + 1, "every record was taken");
}

criterion_group!(benches, apply_one_verified_record);
criterion_main!(benches);
