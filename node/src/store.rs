//! The data folder: who this node is, which mesh it is in, and what it has to remember between starts.
//!
//! One process owns the folder at a time, by an operating-system lock that ends with the process. Every file is replaced whole (written
//! beside, synced, renamed, folder synced), so a power cut or `kill -9` leaves the old or the new one, and carries a version and a check
//! value, so a damaged one is named rather than half understood. What has to change together stands in one file. Deliberately absent:
//! a database, a pid file, anything that can be asked for again from the mesh.
//!
//! All methods block on the disk; call them where that does no harm.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use atmo_protocol::{MeshId, NodeId, NodeKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::audit::{self, Audit};
use crate::keys::StoredKey;
use crate::platform;
use document::{Document, DocumentError};

mod document;
mod lock;
mod secret;

use lock::FolderLock;
pub use lock::holder_of;
pub use secret::Seed;

/// Most nodes whose addresses are remembered for the next start.
pub const ADDRESS_BOOK_MAX: usize = 64;

/// The files that nobody but their owner may read.
pub const SECRET_FILES: [&str; 2] = [IDENTITY.file, MEMBERSHIP.file];

const IDENTITY: Document = Document { file: "node.key", version: 1 };
const MEMBERSHIP: Document = Document { file: "mesh.json", version: 1 };
const INVITATIONS: Document = Document { file: "invitations.json", version: 1 };
const REVOCATIONS: Document = Document { file: "revocations.json", version: 1 };
const GRANTS: Document = Document { file: "grants.json", version: 1 };
const STATE: Document = Document { file: "state.json", version: 1 };
const MODELS: Document = Document { file: "models.json", version: 1 };
const KEYS: Document = Document { file: "keys.json", version: 1 };
const ADDRESSES: Document = Document { file: "addresses.json", version: 1 };
/// Beside the record and not in it: whoever cuts the record's end has to change this as well.
const AUDIT_HEAD: Document = Document { file: "audit-head.json", version: 1 };

/// The data folder of one node, locked by this process.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    identity: NodeKey,
    audit: Audit,
    /// Held by whoever reads a file in order to change it.
    changing: Mutex<()>,
    _lock: FolderLock,
}

/// Why the data folder could not be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{} is in use by another node{}; stop it with `atmo down`, or choose another --data-dir", .dir.display(), of_process(.holder))]
    Locked { dir: PathBuf, holder: Option<u32> },
    #[error("no space left on the disk: {} was not written; free some and try again", .0.display())]
    DiskFull(PathBuf),
    #[error("{} is damaged ({cause}); restore it from a backup, or remove it to start without what it held", .path.display())]
    Damaged { path: PathBuf, cause: String },
    #[error("{} was written by a newer atmo (format {found}, this one reads up to {known}); use that one", .path.display())]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("{} can be read or changed by others; `chmod 600` it, and if others could read it make another", .0.display())]
    Exposed(PathBuf),
    #[error("{}: {cause}", .path.display())]
    Io { path: PathBuf, cause: io::Error },
}

fn of_process(holder: &Option<u32>) -> String {
    holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// The mesh this node is in. The encoded chain is the node's admission to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredMesh {
    #[serde(with = "as_text")]
    pub mesh: MeshId,
    /// None while it is the private mesh of one that every node starts with.
    pub name: Option<String>,
    /// The mesh's root key, where it was founded here.
    pub root: Option<Seed>,
    /// The encoded certificate chain of this node.
    #[serde(with = "as_hex")]
    pub chain: Vec<u8>,
    /// Whether somebody else was ever admitted by this node, or admitted this node.
    pub shared: bool,
}

/// The invitations of a mesh, encoded by their owner (`membership`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredInvitations {
    #[serde(with = "as_text")]
    pub mesh: MeshId,
    #[serde(with = "as_hex")]
    pub ledger: Vec<u8>,
}

/// What is revoked in a mesh, encoded by its owner (`membership`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct StoredRevocations {
    #[serde(with = "as_text")]
    mesh: MeshId,
    #[serde(with = "as_hex")]
    revocations: Vec<u8>,
}

/// Certificates with other roles that wait for their nodes, encoded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct StoredGrants {
    #[serde(with = "as_text")]
    mesh: MeshId,
    /// Hexadecimal.
    chains: Vec<String>,
}

/// Small facts that outlive a start.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The highest incarnation ever used.
    pub incarnation: u64,
    /// The ports taken instead of the default ones, kept so that addresses last.
    pub ports: Option<Ports>,
    /// The mesh whose root key was exported from here, or restored.
    pub root_exported: Option<String>,
    /// Where the node listened last; what an invitation made without a running node carries.
    pub listen: Vec<String>,
}

/// The ports a node listens on when the default ones are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ports {
    pub udp: u16,
    pub tcp: u16,
}

/// Where another node was last reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KnownPeer {
    #[serde(with = "as_text")]
    pub node: NodeId,
    /// Multiaddr texts, best first.
    pub addresses: Vec<String>,
    /// Unix seconds.
    pub seen_s: u64,
}

#[derive(Serialize, Deserialize)]
struct AddressBook {
    #[serde(with = "as_text")]
    mesh: MeshId,
    peers: Vec<KnownPeer>,
}

/// The model files that were imported, and what they were then.
#[derive(Default, Serialize, Deserialize)]
struct ImportedModels {
    blake3: BTreeMap<PathBuf, String>,
}

impl Store {
    /// Opens the folder for this process alone, makes it if needed, and gives a new one an identity.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with_key(dir, None)
    }

    /// The same with the node's key in a file of its own: a container keeps its identity without keeping a folder.
    pub fn open_with_key(dir: &Path, key_file: Option<&Path>) -> Result<Self, StoreError> {
        let named = |cause| document::io_error(dir.to_owned(), cause);
        platform::create_private_dir(dir).map_err(named)?;
        let dir = std::fs::canonicalize(dir).map_err(named)?;
        let lock = FolderLock::take(&dir)?;
        document::sweep(&dir);
        let identity = open_identity(&key_file.map_or_else(|| dir.join(IDENTITY.file), Path::to_owned), key_file.is_some())?;
        let audit = Audit::new(&dir, identity.clone());
        Ok(Self { dir, identity, audit, changing: Mutex::new(()), _lock: lock })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn identity(&self) -> &NodeKey {
        &self.identity
    }

    pub fn node_id(&self) -> NodeId {
        self.identity.id()
    }

    /// Where what changes here is recorded.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// For reading, changing and writing back without another thread in between. Not to be held while calling what changes the state or the
    /// address book: those take it themselves.
    pub fn change(&self) -> MutexGuard<'_, ()> {
        // Nothing is guarded but the order of file operations, and those are whole or absent.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn membership(&self) -> Result<Option<StoredMesh>, StoreError> {
        self.read(MEMBERSHIP)
    }

    pub fn save_membership(&self, membership: &StoredMesh) -> Result<(), StoreError> {
        self.write(MEMBERSHIP, membership)
    }

    /// Forgets the mesh, its invitations and its members' addresses. The node's identity stays.
    /// Keeps the membership of a mesh that is left, with its root key, under another name; gives the path.
    pub fn set_mesh_aside(&self, mesh: &MeshId) -> Result<PathBuf, StoreError> {
        let (from, to) = (self.dir.join(MEMBERSHIP.file), self.dir.join(format!("left-{}.json", mesh.short())));
        std::fs::rename(&from, &to).map_err(|cause| StoreError::Io { path: from, cause })?;
        platform::sync_dir(&self.dir).map_err(|cause| StoreError::Io { path: self.dir.clone(), cause })?;
        Ok(to)
    }

    pub fn forget_mesh(&self) -> Result<(), StoreError> {
        // The membership goes first: the others name their mesh and mean nothing without it.
        for document in [MEMBERSHIP, INVITATIONS, REVOCATIONS, GRANTS, ADDRESSES] {
            document.remove(&self.dir)?;
        }
        Ok(())
    }

    /// The invitations ledger of `mesh`; that of another mesh counts as none.
    pub fn invitations(&self, mesh: &MeshId) -> Result<Option<Vec<u8>>, StoreError> {
        let stored: Option<StoredInvitations> = self.read(INVITATIONS)?;
        Ok(stored.filter(|stored| stored.mesh == *mesh).map(|stored| stored.ledger))
    }

    /// On disk when this returns.
    pub fn save_invitations(&self, mesh: MeshId, ledger: Vec<u8>) -> Result<(), StoreError> {
        self.write(INVITATIONS, &StoredInvitations { mesh, ledger })
    }

    /// What is revoked in `mesh`; that of another mesh counts as nothing.
    pub fn revocations(&self, mesh: &MeshId) -> Result<Option<Vec<u8>>, StoreError> {
        let stored: Option<StoredRevocations> = self.read(REVOCATIONS)?;
        Ok(stored.filter(|stored| stored.mesh == *mesh).map(|stored| stored.revocations))
    }

    /// On disk when this returns.
    pub fn save_revocations(&self, mesh: MeshId, revocations: Vec<u8>) -> Result<(), StoreError> {
        self.write(REVOCATIONS, &StoredRevocations { mesh, revocations })
    }

    /// The chains that wait for nodes of `mesh`; those of another mesh count as none.
    pub fn grants(&self, mesh: &MeshId) -> Result<Vec<Vec<u8>>, StoreError> {
        let stored: Option<StoredGrants> = self.read(GRANTS)?;
        let chains = stored.filter(|stored| stored.mesh == *mesh).map(|stored| stored.chains).unwrap_or_default();
        Ok(chains.iter().filter_map(|chain| hex::decode(chain).ok()).collect())
    }

    /// On disk when this returns.
    pub fn save_grants(&self, mesh: MeshId, chains: Vec<Vec<u8>>) -> Result<(), StoreError> {
        self.write(GRANTS, &StoredGrants { mesh, chains: chains.iter().map(hex::encode).collect() })
    }

    pub fn state(&self) -> Result<State, StoreError> {
        Ok(self.read(STATE)?.unwrap_or_default())
    }

    /// Notes that the node signs with this incarnation; on disk when this returns. Never goes back: gives the highest ever noted.
    pub fn raise_incarnation(&self, at_least: u64) -> Result<u64, StoreError> {
        self.update_state(|state| {
            state.incarnation = state.incarnation.max(at_least);
            state.incarnation
        })
    }

    pub fn save_ports(&self, ports: Option<Ports>) -> Result<(), StoreError> {
        self.update_state(|state| state.ports = ports)
    }

    pub fn save_listen(&self, listen: Vec<String>) -> Result<(), StoreError> {
        self.update_state(|state| state.listen = listen)
    }

    /// Notes that the root of `mesh` is in safety.
    pub fn save_root_exported(&self, mesh: &MeshId) -> Result<(), StoreError> {
        self.update_state(|state| state.root_exported = Some(mesh.to_string()))
    }

    /// Where members of `mesh` were last reached, latest first.
    pub fn address_book(&self, mesh: &MeshId) -> Result<Vec<KnownPeer>, StoreError> {
        let book: Option<AddressBook> = self.read(ADDRESSES)?;
        Ok(book.filter(|book| book.mesh == *mesh).map(|book| book.peers).unwrap_or_default())
    }

    /// Adds or renews addresses; beyond [`ADDRESS_BOOK_MAX`] the longest unseen are forgotten.
    pub fn remember(&self, mesh: MeshId, seen: Vec<KnownPeer>) -> Result<(), StoreError> {
        let _changing = self.change();
        let mut peers = self.address_book(&mesh)?;
        peers.retain(|known| seen.iter().all(|new| new.node != known.node));
        peers.extend(seen);
        peers.sort_by_key(|peer| std::cmp::Reverse(peer.seen_s));
        peers.truncate(ADDRESS_BOOK_MAX);
        self.write(ADDRESSES, &AddressBook { mesh, peers })
    }

    /// The keys of the API.
    pub fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        Ok(self.read(KEYS)?.unwrap_or_default())
    }

    /// On disk when this returns.
    pub fn save_keys(&self, keys: &[StoredKey]) -> Result<(), StoreError> {
        self.write(KEYS, &keys)
    }

    /// The hash recorded when the model file `path` was imported.
    pub fn model_hash(&self, path: &Path) -> Result<Option<String>, StoreError> {
        Ok(self.read::<ImportedModels>(MODELS)?.unwrap_or_default().blake3.remove(path))
    }

    pub fn record_model(&self, path: &Path, blake3: &str) -> Result<(), StoreError> {
        let _changing = self.change();
        let mut models: ImportedModels = self.read(MODELS)?.unwrap_or_default();
        models.blake3.insert(path.to_owned(), blake3.to_owned());
        self.write(MODELS, &models)
    }

    fn update_state<T>(&self, update: impl FnOnce(&mut State) -> T) -> Result<T, StoreError> {
        let _changing = self.change();
        let mut state = self.state()?;
        let before = state.clone();
        let result = update(&mut state);
        if state != before {
            self.write(STATE, &state)?;
        }
        Ok(result)
    }

    fn read<T: DeserializeOwned>(&self, document: Document) -> Result<Option<T>, StoreError> {
        Ok(document.read(&self.dir)?)
    }

    fn write<T: Serialize>(&self, document: Document, content: &T) -> Result<(), StoreError> {
        Ok(document.write(&self.dir, content)?)
    }
}

impl From<DocumentError> for StoreError {
    fn from(error: DocumentError) -> Self {
        match error {
            DocumentError::Damaged { path, cause } => Self::Damaged { path, cause },
            DocumentError::Newer { path, found, known } => Self::Newer { path, found, known },
            DocumentError::Io { path, cause } => document::io_error(path, cause),
        }
    }
}

/// Reads the node's key, or makes one: a new folder is a new node. A file that somebody else put there must be private.
fn open_identity(path: &Path, given: bool) -> Result<NodeKey, StoreError> {
    if given
        && path.exists()
        && platform::mode_open_to_others(path).map_err(|cause| document::io_error(path.to_owned(), cause))? != 0
    {
        return Err(StoreError::Exposed(path.to_owned()));
    }
    if let Some(seed) = IDENTITY.read_at::<Seed>(path)? {
        return Ok(seed.into_key());
    }
    let seed = Seed::random().map_err(|cause| StoreError::Io { path: path.to_owned(), cause })?;
    IDENTITY.write_at(path, &seed)?;
    Ok(seed.into_key())
}

/// Reads who a folder belongs to and which mesh it is in, without its lock, for `atmo doctor`.
pub fn peek(dir: &Path) -> Result<(Option<NodeId>, Option<StoredMesh>), StoreError> {
    let identity: Option<Seed> = IDENTITY.read(dir)?;
    Ok((identity.map(|seed| seed.into_key().id()), MEMBERSHIP.read(dir)?))
}

/// How far the audit had come when its head was last written; `None` where there is no head.
pub fn audit_head(dir: &Path) -> Result<Option<audit::Head>, StoreError> {
    Ok(AUDIT_HEAD.read(dir)?)
}

/// For the audit's own thread, which runs in the process that holds the folder's lock. On disk when this returns.
pub fn save_audit_head(dir: &Path, head: &audit::Head) -> Result<(), StoreError> {
    Ok(AUDIT_HEAD.write(dir, head)?)
}

/// Whether the folder takes a small file, which is gone afterwards.
pub fn try_writing(dir: &Path) -> std::io::Result<()> {
    document::try_writing(dir)
}

/// Identifiers as their text.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(id: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Bytes as hexadecimal text.
mod as_hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
