//! What single steps cost one node of a city: ten thousand origins, eight links, everything told long ago.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;

use atmo_protocol::config::{LEASE_MS, UNREACHABLE};
use atmo_protocol::distance::{Distances, LinkId, THROUGH_YOU};
use atmo_protocol::gossip::ranges::EVERYTHING;
use atmo_protocol::gradient::Slot;
use atmo_protocol::membership::{Roles, issue_from_root};
use atmo_protocol::mesh::{Input, KnownMember, KnownNeighbour, LinkLoss, Mesh, MeshConfig, Now, Snapshot};
use atmo_protocol::record::{Announcement, Mode, NodeRecord};
use atmo_protocol::wire::{self, Digest, DirectVerifier, Frame, Push, RangeDigest, Unverified, VerifiedChain};
use atmo_protocol::{MeshId, NodeId, NodeKey};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const WALL_MS: u64 = 1_800_000_000_000;
const NODES: usize = 10_000;
const LINKS: usize = 8;
/// This node; the first members are its neighbours.
const ME: usize = NODES - 1;
/// A member that comes and goes as one more neighbour.
const GUEST: usize = NODES - 2;
/// Every origin is so far from the neighbour that its way leads through; one neighbour's own way leads through us.
const HOPS: u8 = 4;
/// Slow enough that every origin stays within its rate.
const STEP_MS: u64 = 1;
const BUDGET_BYTES: usize = 64 << 10;

/// Everybody in the city.
struct City {
    keys: Vec<NodeKey>,
    snapshot: Snapshot,
    fingerprint: u128,
}

/// One node of it.
struct Bench<'a> {
    city: &'a City,
    verifier: DirectVerifier,
    mesh: Mesh,
    said: u64,
}

fn now(said: u64) -> Now {
    Now { mono_ms: 1_000 + said * STEP_MS, wall_ms: WALL_MS + said * STEP_MS }
}

fn root() -> NodeKey {
    NodeKey::from_seed([9; 32])
}

fn mesh_id() -> MeshId {
    MeshId::of_root(&root().id())
}

fn record(node: NodeId, chain: &VerifiedChain, sequence: u64, signed: Now) -> NodeRecord {
    NodeRecord {
        mesh: mesh_id(),
        node,
        certificate: chain.hash(),
        incarnation: 1,
        sequence,
        lease_until_ms: signed.wall_ms + LEASE_MS,
        mode: Mode::Participant,
        name: "origin".to_owned(),
        labels: Vec::new(),
        addresses: vec!["/ip4/10.0.0.1/udp/11452/quic-v1".to_owned()],
        neighbours: (0..LINKS as u64).collect(),
        capabilities: Vec::new(),
        extensions: Vec::new(),
    }
}

impl City {
    fn new() -> Self {
        let (root, mesh) = (root(), mesh_id());
        let key = |number: usize| {
            let mut seed = [1; 32];
            seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
            NodeKey::from_seed(seed)
        };
        let keys: Vec<NodeKey> = (0..NODES).map(key).collect();
        let known = |(number, key): (usize, &NodeKey)| {
            let chain = issue_from_root(&root, &key.id(), Roles::MEMBER, WALL_MS, number as u64);
            let chain = Arc::new(VerifiedChain::new(&chain, &mesh).expect("just issued"));
            let announcement = Announcement::seal(record(key.id(), &chain, 0, now(0)), key).expect("a small record");
            KnownMember { announcement: Arc::new(announcement), chain }
        };
        let members: Vec<KnownMember> = keys.iter().enumerate().map(known).collect();
        let sum = |sum: u128, member: &KnownMember| sum.wrapping_add(member.announcement.fingerprint);
        let fingerprint = members.iter().fold(0, sum);
        Self { keys, snapshot: Snapshot::new(members, Vec::new()), fingerprint }
    }

    fn chain(&self, number: usize) -> Arc<VerifiedChain> {
        Arc::clone(&self.snapshot.members()[number].chain)
    }
}

/// What was said on the link to one of the neighbours.
fn neighbour(member: usize) -> KnownNeighbour {
    let told = |origin: usize| if origin % LINKS == member { THROUGH_YOU } else { HOPS + 1 };
    KnownNeighbour { member, rtt_ms: 10, heard: heard(member), told: (0..NODES).map(told).collect() }
}

fn heard(member: usize) -> Vec<u8> {
    let heard = |origin: usize| match (origin + LINKS - member) % LINKS {
        0 => HOPS,
        1 => THROUGH_YOU,
        _ => HOPS + 1,
    };
    (0..NODES).map(heard).collect()
}

impl<'a> Bench<'a> {
    fn new(city: &'a City) -> Self {
        let config = MeshConfig {
            key: city.keys[ME].clone(),
            mesh: mesh_id(),
            chain: city.chain(ME),
            name: "me".to_owned(),
            mode: Mode::Participant,
            labels: Vec::new(),
            stored_incarnation: 0,
            seed: 1,
        };
        let mesh = Mesh::restore(config, now(0), &city.snapshot, ME, (0..LINKS).map(neighbour).collect());
        let mut bench = Self { city, verifier: DirectVerifier(mesh_id()), mesh, said: 0 };
        bench.rest();
        bench
    }

    fn peer(&self, link: usize) -> NodeId {
        self.city.keys[link].id()
    }

    fn frame(&self, link: usize, frame: Unverified) -> Input {
        Input::Frame { peer: self.peer(link), frame: frame.verify(&self.verifier) }
    }

    /// Says whatever there is to say.
    fn rest(&mut self) {
        while self.mesh.poll_output().is_some() {}
        (0..LINKS).for_each(|link| _ = self.say(link));
        while self.mesh.poll_output().is_some() {}
    }

    fn say(&mut self, link: usize) -> usize {
        let peer = self.peer(link);
        let frames = std::iter::from_fn(|| self.mesh.poll_send(now(self.said), peer, BUDGET_BYTES));
        frames.map(|frame| frame.len()).sum()
    }

    /// The next record of the next origin, signed and verified, over the link that its way leads through.
    fn news(&mut self) -> Input {
        self.rest();
        self.said += 1;
        let origin = LINKS + self.said as usize % (GUEST - LINKS);
        let chain = self.city.chain(origin);
        let record = record(self.city.keys[origin].id(), &chain, self.said, now(self.said));
        let signed = Announcement::seal(record, &self.city.keys[origin]).expect("a small record");
        let push = Push { chains: Vec::new(), bodies: Vec::new(), records: vec![signed.bytes] };
        self.frame(origin % LINKS, wire::decode(&Frame::Push(push).encode()).expect("our own frame"))
    }

    fn digest(&self, fingerprint: u128) -> Input {
        let (from, to) = EVERYTHING;
        let digest = Digest { ranges: vec![RangeDigest { from, to, fingerprint, entries: None }] };
        self.frame(0, wire::decode(&Frame::Digest(digest).encode()).expect("our own frame"))
    }

    fn handle(&mut self, input: Input) {
        self.mesh.handle(now(self.said), input);
    }

    fn link_up(&mut self) {
        let (peer, chain) = (self.peer(GUEST), self.city.chain(GUEST));
        self.handle(Input::LinkUp { peer, chain, rtt_ms: 10 });
    }

    fn link_down(&mut self) {
        let peer = self.peer(GUEST);
        self.handle(Input::LinkDown { peer, cause: LinkLoss::Closed });
        self.rest();
    }
}

fn records(criterion: &mut Criterion, city: &City) {
    let bench = RefCell::new(Bench::new(city));
    criterion.bench_function("city_apply_one_verified_record", |bencher| {
        bencher.iter_batched(
            || bench.borrow_mut().news(),
            |input| bench.borrow_mut().handle(black_box(input)),
            BatchSize::PerIteration,
        );
    });
    let bench = bench.borrow();
    assert_eq!(bench.mesh.origins_held(), NODES);
    let count = bench.mesh.spread_count();
    assert!(count.received > 0 && count.received == count.news, "every record was taken: {count:?}");
}

fn digests(criterion: &mut Criterion, city: &City) {
    let bench = RefCell::new(Bench::new(city));
    let unchanged = bench.borrow().city.fingerprint;
    criterion.bench_function("city_digest_of_an_unchanged_table", |bencher| {
        bencher.iter_batched(
            || bench.borrow().digest(unchanged),
            |input| bench.borrow_mut().handle(black_box(input)),
            BatchSize::PerIteration,
        );
    });
    assert_eq!(bench.borrow_mut().say(0), 0, "the table is what the peer says it is");
    criterion.bench_function("city_digest_after_a_change", |bencher| {
        bencher.iter_batched(
            || {
                let mut bench = bench.borrow_mut();
                let news = bench.news();
                bench.handle(news);
                bench.digest(unchanged)
            },
            |input| bench.borrow_mut().handle(black_box(input)),
            BatchSize::PerIteration,
        );
    });
}

fn links(criterion: &mut Criterion, city: &City) {
    let bench = RefCell::new(Bench::new(city));
    criterion.bench_function("city_link_up", |bencher| {
        bencher.iter_batched(|| bench.borrow_mut().link_down(), |()| bench.borrow_mut().link_up(), BatchSize::PerIteration);
    });
    criterion.bench_function("city_link_up_and_say_everything", |bencher| {
        bencher.iter_batched(
            || bench.borrow_mut().link_down(),
            |()| {
                let mut bench = bench.borrow_mut();
                bench.link_up();
                bench.say(GUEST)
            },
            BatchSize::PerIteration,
        );
    });
}

/// The columns alone, as the node of the city holds them.
fn distances() -> Distances {
    let mut distances = Distances::new(Slot(ME as u32));
    for member in 0..LINKS {
        let KnownNeighbour { heard, told, rtt_ms, .. } = neighbour(member);
        distances.restore_link(LinkId(member as u8), Slot(member as u32), rtt_ms, heard, told);
    }
    distances.settle_restored();
    distances
}

fn ways(criterion: &mut Criterion) {
    let first = LinkId(0);
    let (mut columns, mut turn) = (distances(), 0_usize);
    criterion.bench_function("city_hear_one_distance_and_choose", |bencher| {
        bencher.iter(|| {
            turn += 1;
            // The way in use grows longer, is held, and comes back: the most that one word can change.
            let hops = if turn.is_multiple_of(2) { HOPS } else { UNREACHABLE };
            let slot = Slot((LINKS + turn / 2 * LINKS % (NODES - 2 * LINKS)) as u32);
            columns.heard(first, black_box(slot), hops, 0);
            while columns.pop_changed().is_some() {}
        });
    });
    criterion.bench_function("city_lose_a_link_and_choose_all", |bencher| {
        bencher.iter_batched_ref(distances, |columns| columns.link_down(black_box(first), 0), BatchSize::LargeInput);
    });
    criterion.bench_function("city_tell_a_whole_vector", |bencher| {
        let newcomer = LinkId(LINKS as u8);
        let fresh = || {
            let mut columns = distances();
            columns.link_up(newcomer, Slot(GUEST as u32), 10, 0);
            columns
        };
        bencher.iter_batched_ref(
            fresh,
            |columns| {
                let tell = |columns: &mut Distances| columns.tell(newcomer, BUDGET_BYTES / 33, |_| Some(true));
                while let Some((_, entries)) = tell(columns) {
                    black_box(entries);
                }
            },
            BatchSize::LargeInput,
        );
    });
}

fn city(criterion: &mut Criterion) {
    let city = City::new();
    records(criterion, &city);
    digests(criterion, &city);
    links(criterion, &city);
    ways(criterion);
}

criterion_group!(benches, city);
criterion_main!(benches);
