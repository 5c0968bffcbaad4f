//! The control socket: how `atmo status` and its siblings talk to the node that runs in the same data folder.
//!
//! A Unix socket that only its owner can open. The client writes one [`Request`] as one line of JSON and keeps the connection open; the
//! node answers with lines of JSON: any number of `{"delta":"text"}`, then one `{"done":value}` or `{"error":{"message","exit_code"}}`.
//! A client that hangs up cancels its request. Deliberately absent: several requests per connection, authentication beyond the
//! socket's owner, access from other machines.

use std::fmt;

use serde::{Deserialize, Serialize};

mod client;
mod server;

pub use client::{Client, ClientError};
pub use server::{DeltaSender, Handler, HungUp, bind, serve};

/// Grows when a request changes its meaning; what is merely added keeps it.
pub const CONTROL_VERSION: u32 = 1;
/// Longest request or response line. An intent's text is the largest thing that goes in, the list of a mesh's capabilities the largest
/// that comes out.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// What a command asks of the running node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    Status,
    /// What can be routed to now; `all` adds suspected and dead.
    Nodes {
        all: bool,
    },
    Capabilities {
        all: bool,
    },
    /// Decides, does not run.
    Route {
        text: String,
        model: Option<String>,
        #[serde(default)]
        constraints: Constraints,
    },
    Intent {
        text: String,
        model: Option<String>,
        #[serde(default)]
        constraints: Constraints,
        /// The reply gets a field `explanation`: text for people.
        explain: bool,
        /// The answer is also sent in deltas as it arrives.
        stream: bool,
        /// Earlier turns of the conversation: messages as OpenAI's API has them.
        #[serde(default)]
        history: Vec<serde_json::Value>,
    },
    Invite(InviteRequest),
    /// The invitations made here; `all` adds those that admit nobody any more.
    Invites {
        all: bool,
    },
    /// An invitation made here admits nobody from now on.
    InviteRevoke {
        /// Its id.
        invitation: String,
    },
    Join {
        code: String,
    },
    Leave,
    /// Says what would follow, or does it.
    Revoke(RevokeRequest),
    /// Everything revoked in the mesh.
    Revocations,
    /// What a certificate says and whether it holds: this node's own, or a member's.
    CertShow {
        /// A name, an id or its beginning.
        node: Option<String>,
    },
    /// Says what would follow, or gives a member other roles.
    Grant(GrantRequest),
    /// The root of the mesh is in a file now.
    RootExported {
        mesh: String,
    },
    MeshCreate {
        name: Option<String>,
    },
    /// Makes a key of the API.
    KeyCreate(KeyRequest),
    KeyList,
    KeyRevoke {
        /// Its id or name.
        key: String,
    },
    /// Drains and ends the node. Answered before it ends.
    Down,
    /// What only the running node knows for `atmo doctor`.
    Doctor,
}

/// What narrows the choice of a route: the names and values of [`Constraints`](atmo_capabilities::intent::Constraints), which reads them.
pub type Constraints = serde_json::Map<String, serde_json::Value>;

/// What an invitation is to allow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InviteRequest {
    pub ttl_seconds: u64,
    pub uses: u32,
    /// Names of roles: `consume`, `provide`, `issue`, `admin`.
    pub roles: Vec<String>,
    /// What its maker calls it.
    #[serde(default)]
    pub label: String,
}

/// What is to be revoked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RevokeRequest {
    /// A node (id, its beginning, name), a certificate (`SERIAL` or `SERIAL@ISSUER`) or an invitation (its code, id or its beginning).
    pub target: String,
    /// Which of these: `node`, `serial` or `invitation`.
    pub kind: Option<String>,
    /// Nodes that stay members although the revoked admitted them.
    pub keep: Vec<String>,
    /// Even if it ends this node's own membership.
    pub force: bool,
    /// Only say what would follow.
    pub plan: bool,
}

/// Which roles a member is to have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GrantRequest {
    /// A name, an id or its beginning.
    pub node: String,
    /// Names of roles; all that it has from then on.
    pub roles: Vec<String>,
    /// Only say what would follow.
    pub plan: bool,
}

/// What a key is to be called and may do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyRequest {
    pub name: String,
    pub limits: crate::keys::KeyLimits,
}

/// A request with the version its writer speaks.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Envelope {
    version: u32,
    request: Request,
}

/// One line of an answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Delta(String),
    Done(serde_json::Value),
    Error(CommandError),
}

/// Why a command did not do what it was asked, and what the process should exit with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommandError {
    pub message: String,
    pub exit_code: u8,
}

impl CommandError {
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const NOTHING_FITS: u8 = 3;

    /// It was asked for properly and could not be done.
    pub fn failed(cause: impl fmt::Display) -> Self {
        Self { message: cause.to_string(), exit_code: Self::FAILED }
    }

    /// It was not asked for properly.
    pub fn usage(cause: impl fmt::Display) -> Self {
        Self { message: cause.to_string(), exit_code: Self::USAGE }
    }

    /// The mesh has nothing that fits the intent.
    pub fn nothing_fits(reason: impl fmt::Display) -> Self {
        Self { message: reason.to_string(), exit_code: Self::NOTHING_FITS }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CommandError {}

#[cfg(test)]
mod tests;
