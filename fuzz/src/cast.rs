//! Who there is: this node, members of every kind, and two whose certificates do not hold here.

use std::sync::{Arc, LazyLock};

use atmo_protocol::config::NAME_BYTES_MAX;
use atmo_protocol::membership::{Roles, issue, issue_from_root};
use atmo_protocol::record::BodyVector;
use atmo_protocol::wire::{Body, MemoVerifier, VerifiedChain};
use atmo_protocol::{CapabilityBody, Chain, MeshId, NodeId, NodeKey};

/// The wall clock when every story begins, unix milliseconds.
pub const WALL_MS: u64 = 1_800_000_000_000;
/// More than a node takes links, and more than a full mesh has.
pub const MEMBERS: usize = 56;
/// This node.
pub const ME: usize = 0;
/// Holds every role.
pub const ADMIN: usize = 2;
/// May not provide.
const GUEST: usize = 3;
/// Was admitted by the admin.
const ADMITTED: usize = 4;
const EXPIRED: usize = 5;
/// Belongs to another mesh.
pub const FOREIGN: usize = 6;
/// Bodies that offers name.
pub const BODIES: usize = 8;

const TWO_YEARS_MS: u64 = 2 * 365 * 24 * 3_600_000;

pub struct Member {
    pub key: NodeKey,
    pub id: NodeId,
    pub chain: Chain,
    pub verified: Arc<VerifiedChain>,
}

pub struct Cast {
    pub root: NodeKey,
    pub mesh: MeshId,
    pub members: Vec<Member>,
    pub bodies: Vec<Arc<Body>>,
    /// Remembers what is the same in every story.
    pub verifier: MemoVerifier,
}

pub static CAST: LazyLock<Cast> = LazyLock::new(Cast::new);

impl Cast {
    fn new() -> Self {
        let root = NodeKey::from_seed([0xee; 32]);
        let mesh = MeshId::of_root(&root.id());
        let mut members: Vec<Member> = Vec::new();
        for number in 0..MEMBERS {
            let member = Member::new(number, &root, members.get(ADMIN));
            members.push(member);
        }
        let bodies = (0..BODIES).map(|number| Arc::new(body(number))).collect();
        Self { root, mesh, members, bodies, verifier: MemoVerifier::new(mesh) }
    }

    pub fn member(&self, number: u8) -> &Member {
        &self.members[usize::from(number) % MEMBERS]
    }

    pub fn number_of(&self, id: &NodeId) -> Option<usize> {
        self.members.iter().position(|member| member.id == *id)
    }
}

impl Member {
    fn new(number: usize, root: &NodeKey, admin: Option<&Member>) -> Self {
        let key = NodeKey::from_seed([number as u8 + 1; 32]);
        let (id, serial) = (key.id(), number as u64);
        let stranger = NodeKey::from_seed([0xdd; 32]);
        let chain = match (number, admin) {
            (ADMIN, _) => issue_from_root(root, &id, Roles::ALL, WALL_MS - 1, serial),
            (GUEST, _) => issue_from_root(root, &id, Roles::CONSUME, WALL_MS - 1, serial),
            (ADMITTED, Some(admin)) => {
                issue(&admin.key, &admin.chain, &id, Roles::MEMBER, WALL_MS, serial).expect("an admin admits")
            }
            (EXPIRED, _) => issue_from_root(root, &id, Roles::MEMBER, WALL_MS - TWO_YEARS_MS, serial),
            (FOREIGN, _) => issue_from_root(&stranger, &id, Roles::ALL, WALL_MS - 1, serial),
            _ => issue_from_root(root, &id, Roles::MEMBER, WALL_MS - 1, serial),
        };
        let verified = Arc::new(VerifiedChain::new(&chain, &chain.mesh()).expect("just issued"));
        Self { key, id, chain, verified }
    }
}

/// One small body, one as large as they get.
fn body(number: usize) -> Body {
    let text = "x".repeat(if number == 0 { 7 << 10 } else { NAME_BYTES_MAX });
    let vectors = Vec::<BodyVector>::new();
    let body = CapabilityBody {
        kind: "llm".to_owned(),
        name: format!("model {number}"),
        description: text,
        facts: Vec::new(),
        exemplars: Vec::new(),
        vectors,
        extensions: Vec::new(),
    };
    Body::new(Arc::new(body)).expect("within the limits")
}
