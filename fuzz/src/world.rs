//! One [`Mesh`] among the cast, driven as a node drives it, and what must hold after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atmo_protocol::config::{
    BODIES_MAX, DIALS_IN_FLIGHT_MAX, EVENTS_QUEUED_MAX, FRAME_BYTES_MAX, LEASE_GRACE_MS, LINKS_MAX, ORIGINS_MAX,
    TOMBSTONE_EXTRA_MS,
};
use atmo_protocol::membership::Revocation;
use atmo_protocol::mesh::{Blame, Input, LinkLoss, Mesh, MeshConfig, Now, Output};
use atmo_protocol::record::Announcement;
use atmo_protocol::wire::{self, Blob, Body, MemoVerifier, VerifiedChain, Verifier};
use atmo_protocol::{Mode, NodeId};
use libfuzzer_sys::arbitrary::{self, Arbitrary};

use crate::cast::{CAST, FOREIGN, ME, WALL_MS};

/// Deadlines that may come due within one virtual second while nothing happens. Ten purposes come round ten times a second at most; the
/// rest were set one by one by what happened before.
const WAKES_PER_SECOND_MAX: u32 = 250;
/// A deadline that has passed may ask for one more look at once, not for ever.
const WAKES_AT_ONCE_MAX: u32 = 16;
/// Turns of taking outputs and answering them until there are none.
const TURNS_MAX: usize = 64;
/// Frames that one link may be told in a row: the table is small, so this is far more than all of it.
const FRAMES_IN_A_ROW_MAX: usize = 4_096;

/// How the outside behaves: the config of the node, its disk, its links.
#[derive(Arbitrary, Clone, Debug, Default)]
pub struct Habits {
    seed: u64,
    stored_incarnation: u32,
    budget_bytes: u16,
    standalone: bool,
    slow_disk: bool,
    /// Dials fail at once instead of never being answered.
    dials_fail: bool,
    /// A link that was to be closed stays until something closes it.
    closes_late: bool,
    /// Nobody takes what is to be said until something does.
    slow_links: bool,
}

pub struct World {
    mesh: Mesh,
    now: Now,
    habits: Habits,
    asked_to_persist: u64,
    dialling: BTreeSet<NodeId>,
    to_close: BTreeSet<NodeId>,
    to_tell: BTreeSet<NodeId>,
    own_record_held: bool,
    /// Number and lease of every record that is held.
    held: BTreeMap<NodeId, ((u64, u64), u64)>,
}

/// What this node says itself must hold to the last byte.
struct Strict<'a>(&'a MemoVerifier);

impl World {
    pub fn new(habits: Habits) -> Self {
        let now = Now { mono_ms: 1_000, wall_ms: WALL_MS };
        let me = &CAST.members[ME];
        let config = MeshConfig {
            key: me.key.clone(),
            mesh: CAST.mesh,
            chain: Arc::clone(&me.verified),
            name: "me".to_owned(),
            mode: if habits.standalone { Mode::Standalone } else { Mode::Participant },
            labels: Vec::new(),
            stored_incarnation: habits.stored_incarnation.into(),
            seed: habits.seed,
        };
        let mut world = Self {
            mesh: Mesh::new(config, now),
            now,
            habits,
            asked_to_persist: 0,
            dialling: BTreeSet::new(),
            to_close: BTreeSet::new(),
            to_tell: BTreeSet::new(),
            own_record_held: false,
            held: BTreeMap::new(),
        };
        world.settle();
        world
    }

    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    pub fn now(&self) -> Now {
        self.now
    }

    /// A fact from the outside, and everything that it leads to.
    pub fn handle(&mut self, input: Input) {
        self.mesh.handle(self.now, input);
        self.settle();
    }

    pub fn link(&mut self, number: u8, chain_of: u8, rtt_ms: u32) {
        let (peer, chain) = (CAST.member(number).id, Arc::clone(&CAST.member(chain_of).verified));
        self.to_close.remove(&peer);
        self.dialling.remove(&peer);
        self.handle(Input::LinkUp { peer, chain, rtt_ms });
    }

    pub fn unlink(&mut self, peer: NodeId, cause: LinkLoss) {
        self.to_close.remove(&peer);
        self.handle(Input::LinkDown { peer, cause });
    }

    /// Bytes that came in on a link.
    pub fn hear(&mut self, peer: NodeId, bytes: &[u8]) {
        self.handle(match wire::decode(bytes) {
            Ok(frame) => Input::Frame { peer, frame: frame.verify(&CAST.verifier) },
            Err(error) => Input::BadFrame { peer, error },
        });
    }

    /// The disk, the links and the dials that were slow get on with it.
    pub fn catch_up(&mut self) {
        self.handle(Input::IncarnationPersisted(self.asked_to_persist));
        for peer in std::mem::take(&mut self.to_tell) {
            self.pull(peer);
        }
        for peer in std::mem::take(&mut self.to_close) {
            self.unlink(peer, LinkLoss::Closed);
        }
        for node in std::mem::take(&mut self.dialling) {
            self.handle(Input::DialFailed { node });
        }
    }

    /// Time passes, and every deadline is met.
    pub fn wait(&mut self, ms: u64) {
        let until_ms = self.now.mono_ms + ms;
        let (mut second, mut wakes) = (self.now.mono_ms / 1_000, 0);
        while let Some(due_ms) = self.mesh.poll_timeout().filter(|due_ms| *due_ms <= until_ms) {
            self.pass(due_ms.saturating_sub(self.now.mono_ms));
            if second != self.now.mono_ms / 1_000 {
                (second, wakes) = (self.now.mono_ms / 1_000, 0);
            }
            wakes += 1;
            assert!(wakes <= WAKES_PER_SECOND_MAX, "woken {wakes} times within a second");
            self.wake();
        }
        self.pass(until_ms.saturating_sub(self.now.mono_ms));
        self.wake();
    }

    /// The machine sleeps: time passes and nobody looks.
    pub fn sleep(&mut self, ms: u64) {
        self.pass(ms);
        self.wake();
    }

    /// Somebody sets the clock.
    pub fn set_clock(&mut self, by_ms: i64) {
        self.now.wall_ms = self.now.wall_ms.saturating_add_signed(by_ms);
        self.wake();
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms = self.now.wall_ms.saturating_add(ms);
    }

    fn wake(&mut self) {
        for _ in 0..WAKES_AT_ONCE_MAX {
            self.mesh.handle_timeout(self.now);
            self.settle();
            if self.mesh.poll_timeout().is_none_or(|due_ms| due_ms > self.now.mono_ms) {
                return;
            }
        }
        panic!("at {} it still wants to be woken at {:?}", self.now.mono_ms, self.mesh.poll_timeout());
    }

    /// Takes every output, answers it, and looks whether all is well.
    fn settle(&mut self) {
        for turn in 0.. {
            let outputs: Vec<Output> = std::iter::from_fn(|| self.mesh.poll_output()).collect();
            if outputs.is_empty() {
                break;
            }
            assert!(turn < TURNS_MAX, "no end of outputs: {outputs:?}");
            assert!(outputs.len() <= EVENTS_QUEUED_MAX + 4 * LINKS_MAX + DIALS_IN_FLIGHT_MAX, "{} outputs", outputs.len());
            outputs.into_iter().for_each(|output| self.answer(output));
        }
        self.check();
    }

    fn answer(&mut self, output: Output) {
        match output {
            Output::PersistIncarnation(incarnation) => {
                self.asked_to_persist = incarnation;
                if !self.habits.slow_disk {
                    self.mesh.handle(self.now, Input::IncarnationPersisted(incarnation));
                }
            }
            Output::Close { peer, .. } if self.habits.closes_late => _ = self.to_close.insert(peer),
            Output::Close { peer, .. } => self.mesh.handle(self.now, Input::LinkDown { peer, cause: LinkLoss::Closed }),
            Output::Dial { node, addresses } => {
                assert!(!addresses.is_empty(), "dialled without an address");
                if self.habits.dials_fail {
                    self.mesh.handle(self.now, Input::DialFailed { node });
                } else {
                    self.dialling.insert(node);
                }
            }
            Output::WantsSend { peer } if self.habits.slow_links => _ = self.to_tell.insert(peer),
            Output::WantsSend { peer } => self.pull(peer),
            Output::Remember { .. } | Output::Revocations(_) | Output::Event(_) => {}
        }
    }

    fn pull(&mut self, peer: NodeId) {
        for _ in 0..FRAMES_IN_A_ROW_MAX {
            let Some(bytes) = self.mesh.poll_send(self.now, peer, self.habits.budget_bytes.into()) else { return };
            assert!(bytes.len() <= FRAME_BYTES_MAX, "a frame of {} bytes", bytes.len());
            let frame = wire::decode(&bytes).expect("our own frames decode");
            frame.verify(&Strict(&CAST.verifier));
        }
        panic!("no end of frames");
    }

    fn check(&mut self) {
        assert!(self.mesh.links_held() <= LINKS_MAX, "{} links", self.mesh.links_held());
        assert!(self.mesh.origins_held() <= ORIGINS_MAX, "{} origins", self.mesh.origins_held());
        assert!(self.mesh.bodies_held() <= BODIES_MAX, "{} bodies", self.mesh.bodies_held());
        assert_eq!(self.mesh.members().count(), self.mesh.origins().count(), "a record without its chain");
        self.check_own();
        self.check_members();
        self.check_numbers();
        if !self.habits.slow_links {
            let peers: Vec<NodeId> = self.mesh.peers().collect();
            let budget = self.habits.budget_bytes.into();
            for peer in peers {
                let said = self.mesh.poll_send(self.now, peer, budget);
                assert!(said.is_none(), "something was to be said and nobody was told of it: {said:?}");
            }
        }
    }

    /// Once signed, the own record is there for good.
    fn check_own(&mut self) {
        let own = self.mesh.origin(&CAST.members[ME].id);
        assert!(!self.own_record_held || own.is_some(), "the own record is gone");
        self.own_record_held = own.is_some();
        if let Some(own) = own {
            assert_eq!(own.hops, Some(0));
            assert!(own.record.incarnation <= self.asked_to_persist, "signed with what is not on disk");
        }
    }

    /// Nobody is held or linked who is no member, and ways lead over links.
    fn check_members(&self) {
        let revocations = self.mesh.revocations();
        for (record, member) in self.mesh.members() {
            let is_me = record.node == CAST.members[ME].id;
            assert_eq!(record.node, member.node);
            assert_ne!(record.node, CAST.members[FOREIGN].id, "a record of another mesh");
            assert!(is_me || revocations.refuses(member).is_none(), "a record of somebody revoked");
        }
        for peer in self.mesh.peers() {
            let number = CAST.number_of(&peer).expect("only the cast has certificates");
            assert!(number != FOREIGN && number != ME, "linked with {number}");
            assert!(revocations.refuses(&CAST.members[number].verified.member).is_none(), "linked with somebody revoked");
        }
        for origin in self.mesh.origins() {
            let linked = origin.next_hop.is_some_and(|hop| self.mesh.is_linked(&hop));
            assert!(origin.next_hop.is_none() || linked, "a way over nobody");
            assert!(origin.hops.is_none_or(|hops| hops == 0) || linked, "a distance without a way");
        }
    }

    /// Newest wins: only what was forgotten may come back with a lower number.
    fn check_numbers(&mut self) {
        let mut held = BTreeMap::new();
        for origin in self.mesh.origins() {
            let number = (origin.record.incarnation, origin.record.sequence);
            if let Some((before, lease_until_ms)) = self.held.get(&origin.id) {
                let forgotten_ms = lease_until_ms.saturating_add(LEASE_GRACE_MS + TOMBSTONE_EXTRA_MS);
                assert!(number >= *before || self.now.wall_ms > forgotten_ms, "{number:?} after {before:?}");
            }
            held.insert(origin.id, (number, origin.record.lease_until_ms));
        }
        self.held = held;
    }
}

impl Strict<'_> {
    fn sound<T>(result: Result<Arc<T>, Option<Blame>>) -> Result<Arc<T>, Option<Blame>> {
        assert!(result.is_ok(), "said something that does not hold: {:?}", result.err());
        result
    }
}

impl Verifier for Strict<'_> {
    fn announcement(&self, bytes: &Blob) -> Result<Arc<Announcement>, Option<Blame>> {
        Self::sound(self.0.announcement(bytes))
    }

    fn chain(&self, bytes: &Blob) -> Result<Arc<VerifiedChain>, Option<Blame>> {
        Self::sound(self.0.chain(bytes))
    }

    fn body(&self, bytes: &Blob) -> Result<Arc<Body>, Option<Blame>> {
        Self::sound(self.0.body(bytes))
    }

    fn revocation(&self, bytes: &Blob) -> Result<Arc<Revocation>, Option<Blame>> {
        Self::sound(self.0.revocation(bytes))
    }
}
