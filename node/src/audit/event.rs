//! What is recorded. Texts that people or other machines chose go through [`Text`], which takes secrets out of them.

use atmo_adapters::Operation;
use atmo_protocol::NodeId;
use serde::{Serialize, Serializer};

use super::limit::Class;
use crate::caller::Caller;

/// Longest text of a field; the rest is cut.
const TEXT_CHARS_MAX: usize = 160;
/// What secrets begin with that people paste into the wrong place: our join codes and keys, and keys of other services.
const SECRET_BEGINNINGS: [&str; 6] = ["atmo1", "atmo-key-", "sk-", "hf_", "ghp_", "eyj"];
const REDACTED: &str = "[redacted]";

/// Every kind of line, in the order of [`Event`]; the last ones are about the record itself.
pub const KINDS: [&str; 30] = [
    "started",
    "stopped",
    "mesh_created",
    "mesh_renamed",
    "mesh_joined",
    "mesh_left",
    "mesh_restored",
    "root_exported",
    "invited",
    "invitation_withdrawn",
    "joined",
    "refused",
    "renewed",
    "granted",
    "revoked",
    "key_created",
    "key_revoked",
    "key_used",
    "key_refused",
    "asked",
    "served",
    "turned_away",
    "left_out",
    "file",
    "checkpoint",
    "removed",
    "lost",
    "torn",
    "gap",
    "unsigned",
];

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", content = "fields", rename_all = "snake_case")]
pub enum Event {
    /// The node runs.
    Started {
        version: &'static str,
        name: Text,
        mode: String,
    },
    /// It ended in an orderly way.
    Stopped {},
    /// A mesh was founded here; without a name it is the private one that every node begins with.
    MeshCreated {
        mesh: String,
        name: Option<Text>,
    },
    MeshRenamed {
        mesh: String,
        name: Option<Text>,
    },
    /// This node became a member of somebody else's mesh.
    MeshJoined {
        mesh: String,
        name: Option<Text>,
        issuer: String,
        invitation: String,
        roles: String,
    },
    MeshLeft {
        mesh: String,
        name: Option<Text>,
    },
    /// This node became a founder by a backup of the mesh's root.
    MeshRestored {
        mesh: String,
        name: Option<Text>,
    },
    /// The mesh's root was written to a backup.
    RootExported {
        mesh: String,
    },
    /// A join code was made. `expires_ms` in unix milliseconds.
    Invited {
        invitation: String,
        roles: String,
        uses: u32,
        expires_ms: u64,
    },
    /// A join code of this node was taken back.
    InvitationWithdrawn {
        invitation: String,
    },
    /// A newcomer redeemed a code of this node.
    Joined {
        node: String,
        name: Text,
        invitation: String,
        roles: String,
        serial: u64,
    },
    /// A connection was not let in, or a code not accepted.
    Refused {
        node: Option<String>,
        name: Option<Text>,
        invitation: Option<String>,
        reason: Text,
    },
    /// A member was given a new certificate because its own comes to its end.
    Renewed {
        node: String,
        roles: String,
        serial: u64,
    },
    /// A member was given other roles.
    Granted {
        node: String,
        name: Option<Text>,
        before: Option<String>,
        roles: String,
        serial: u64,
    },
    /// A revocation, made here or heard of.
    Revoked {
        what: &'static str,
        id: String,
        name: Text,
        by: Text,
        number: u64,
    },
    KeyCreated {
        id: String,
        name: Text,
        per_minute: Option<u32>,
        concurrent: Option<u32>,
        models: Vec<Text>,
    },
    KeyRevoked {
        id: String,
        name: Text,
    },
    /// The first use of a key within a minute; what it ran stands in `asked`.
    KeyUsed {
        id: String,
        name: Text,
    },
    /// A request to the API that its key, or the want of one, did not allow.
    KeyRefused {
        id: Option<String>,
        name: Option<Text>,
        reason: &'static str,
    },
    /// A request of this node's own users, at its end.
    Asked(Asked),
    /// A request of another node, run here, at its end.
    Served(Served),
    /// A request of another node that did not get as far.
    TurnedAway(Served),
    /// So many events of a class were left out since `from_ms` (unix milliseconds), because there were too many.
    LeftOut {
        of: &'static str,
        count: u64,
        from_ms: u64,
    },

    /// The first line of each file.
    File {
        number: u64,
        version: u32,
        node: String,
    },
    /// A signature of the place that the line before this one has.
    Checkpoint {
        sequence: u64,
        hash: String,
        node: String,
        signature: String,
    },
    /// The oldest file is about to be removed; its last line had this number and hash.
    Removed {
        number: u64,
        up_to: u64,
        hash: String,
    },
    /// So many events never reached the record.
    Lost {
        count: u64,
        why: Text,
    },
    /// The last write of a killed process was not whole: so many bytes, their hash, and the first of them.
    Torn {
        bytes: u64,
        hash: String,
        hex: String,
    },
    /// Lines that had been written are gone.
    Gap {
        from: u64,
        to: u64,
    },
    /// How far the record had come was not known at the start, so that a cut end would not have been noticed.
    Unsigned {
        why: Text,
    },
}

/// One request from the requester's side. Neither what was asked nor what was answered.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// The same on every node that the request touches.
    pub request: Text,
    pub operation: Operation,
    /// `owner`, `key` or `member`.
    pub caller: &'static str,
    pub key_id: Option<Text>,
    pub key_name: Option<Text>,
    /// Who answered, as `node/slug`; none where nobody did.
    pub capability: Option<Text>,
    #[serde(serialize_with = "identifier")]
    pub node: Option<NodeId>,
    /// `whole`, `broken`, `abandoned`, `nothing_fits`, `busy` or `failed`.
    pub outcome: &'static str,
    /// HTTP status of the answer.
    pub status: Option<u16>,
    pub milliseconds: u64,
    /// Candidates that were tried and did not answer.
    pub failed: usize,
}

/// One request from the executor's side.
#[derive(Clone, Debug, Serialize)]
pub struct Served {
    pub request: Text,
    pub operation: Operation,
    /// Its slug on this node.
    pub capability: Text,
    /// The node that asked.
    #[serde(serialize_with = "identifier")]
    pub node: Option<NodeId>,
    /// `whole`, `broken`, `abandoned`, `busy`, `refused` or `timed_out`.
    pub outcome: &'static str,
    pub status: Option<u16>,
    pub milliseconds: u64,
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
}

/// Text that somebody chose: cut, on one line, without what looks like a secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Text(String);

impl Text {
    pub fn new(text: &str) -> Self {
        let plain: String = text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let words: Vec<&str> = plain.split(' ').map(|word| if is_secret(word) { REDACTED } else { word }).collect();
        Self(words.join(" "))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// Whether a word holds the beginning of a secret with something behind it.
fn is_secret(word: &str) -> bool {
    const BEHIND_MIN: usize = 8;
    let word = word.to_ascii_lowercase();
    let begins = |at: usize| at == 0 || !word.as_bytes()[at - 1].is_ascii_alphanumeric();
    SECRET_BEGINNINGS.iter().any(|beginning| {
        word.match_indices(beginning).any(|(at, _)| begins(at) && word.len() >= at + beginning.len() + BEHIND_MIN)
    })
}

impl Event {
    /// Which budget it draws on; `None` for what only members and the node's own people can cause.
    pub fn class(&self) -> Option<Class> {
        match self {
            Self::Refused { .. } => Some(Class::Refused),
            Self::KeyRefused { .. } => Some(Class::KeyRefused),
            Self::TurnedAway(_) => Some(Class::TurnedAway),
            // A job asks again and again until somebody has time for it.
            Self::Asked(asked) if asked.outcome == "busy" => Some(Class::TurnedAway),
            _ => None,
        }
    }

    /// Whether it must be on disk at once: everything but what happens with requests.
    pub fn is_urgent(&self) -> bool {
        !matches!(
            self,
            Self::Asked(_)
                | Self::Served(_)
                | Self::TurnedAway(_)
                | Self::KeyUsed { .. }
                | Self::KeyRefused { .. }
                | Self::Refused { .. }
                | Self::LeftOut { .. }
                | Self::File { .. }
                | Self::Checkpoint { .. }
        )
    }
}

impl Event {
    /// What `caller` asked for is not what its key allows; without a key there is no caller.
    pub fn key_refused(caller: Option<&Caller>, reason: &'static str) -> Self {
        let (id, name) = match caller {
            Some(Caller::Key { id, name }) => (Some(id.clone()), Some(Text::new(name))),
            Some(Caller::Owner | Caller::Member(_)) | None => (None, None),
        };
        Self::KeyRefused { id, name, reason }
    }
}

impl Asked {
    /// A request that just began; abandoned, unless told otherwise.
    pub fn new(request: &str, operation: Operation, caller: &Caller) -> Self {
        let (key_id, key_name) = match caller {
            Caller::Key { id, name } => (Some(Text::new(id)), Some(Text::new(name))),
            Caller::Owner | Caller::Member(_) => (None, None),
        };
        Self {
            request: request.into(),
            operation,
            caller: caller.kind(),
            key_id,
            key_name,
            capability: None,
            node: None,
            outcome: "abandoned",
            status: None,
            milliseconds: 0,
            failed: 0,
        }
    }
}

fn identifier<S: Serializer>(node: &Option<NodeId>, serializer: S) -> Result<S::Ok, S::Error> {
    match node {
        Some(node) => serializer.collect_str(node),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out() {
        let code = format!("atmo1{}", "q".repeat(60));
        for (text, kept) in [
            ("my phone", "my phone"),
            ("task-force 1", "task-force 1"),
            ("atmo-key-", "atmo-key-"),
            ("qwen2.5:7b-instruct", "qwen2.5:7b-instruct"),
            ("desk-lamp_1234567890", "desk-lamp_1234567890"),
            (&format!("code {code} here"), "code [redacted] here"),
            (&format!("code={code}"), "[redacted]"),
            ("ATMO-KEY-00112233445566", "[redacted]"),
            ("sk-abcdefghij, please", "[redacted] please"),
            ("Bearer eyJhbGciOiJIUzI1NiJ9", "Bearer [redacted]"),
            ("a\nb\u{1b}[31m", "a b [31m"),
        ] {
            assert_eq!(Text::new(text).0, kept, "{text}");
        }
        assert_eq!(Text::new(&"ü".repeat(500)).0.chars().count(), TEXT_CHARS_MAX);
    }
}
