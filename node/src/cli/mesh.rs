//! Commands about the mesh itself, and the end of the node. All but `down` work with or without a running node.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use atmo_protocol::invitation::JoinCode;
use serde_json::Value;

use super::session::{Session, Stop};
use super::{InviteArguments, print};
use crate::config::{Config, Flags};
use crate::control::{CommandError, InviteRequest, Request};
use crate::membership::{self, Grant, JoinStep, MembershipError};
use crate::store::{self, Store};
use crate::{join, platform};

/// `down` waits this long for the node to finish what it is answering.
const DOWN_WAIT: Duration = Duration::from_secs(60);
const DOWN_RETRY: Duration = Duration::from_millis(50);

pub async fn down(session: &Session) -> Result<ExitCode, Stop> {
    let answer = match session.node().await {
        None if store::holder_of(&session.data_dir).is_some() => serde_json::json!({ "stopping": true }),
        _ => session.ask(Request::Down).await?,
    };
    let began = Instant::now();
    while store::holder_of(&session.data_dir).is_some() {
        if began.elapsed() > DOWN_WAIT {
            let wait = DOWN_WAIT.as_secs();
            return Err(CommandError::failed(format_args!(
                "the node is still finishing after {wait} s; Ctrl-C it twice to end it at once"
            ))
            .into());
        }
        tokio::time::sleep(DOWN_RETRY).await;
    }
    session.say(&answer, "the node has stopped")
}

pub async fn create(session: &Session, name: Option<String>) -> Result<ExitCode, Stop> {
    let created = match session.node().await {
        Some(node) => node.request(Request::MeshCreate { name }, |_| Ok(())).await?,
        None => membership::create(&session.store()?, name.as_deref(), now_ms())?.to_json(),
    };
    let name = mesh_name(&created);
    session.say(&created, &format!("the mesh is called {name}; `atmo invite` prints a code that admits other machines"))
}

pub async fn invite(session: &Session, arguments: InviteArguments) -> Result<ExitCode, Stop> {
    let InviteArguments { ttl, uses, roles, label, qr } = arguments;
    let label = label.unwrap_or_default();
    // Checked here as well, so that a wrong role is an error of usage and costs no round trip.
    membership::parse_roles(&roles).map_err(CommandError::usage)?;
    let invite = match session.node().await {
        Some(node) => {
            let request = InviteRequest { ttl_seconds: ttl.as_secs(), uses, roles, label };
            node.request(Request::Invite(request), |_| Ok(())).await?
        }
        None => invite_without_node(session, ttl, uses, &roles, label)?,
    };
    if session.json {
        print::json(&invite)?;
    } else {
        let code = print::show(&invite["code"]);
        print::line(&code)?;
        if qr {
            print::aside(&super::qr::drawn(&code).map_err(CommandError::failed)?);
        }
        let machines = if uses == 1 { "one machine".to_owned() } else { format!("{uses} machines") };
        print::aside(&format!(
            "admits {machines} within {}; there: atmo join CODE\nwhoever reads the code can join: pass it on as you would a password\n\
             to take it back: atmo revoke {}",
            super::span::show(ttl),
            short(&invite["id"])
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn invite_without_node(session: &Session, ttl: Duration, uses: u32, roles: &[String], label: String) -> Result<Value, Stop> {
    let roles = membership::parse_roles(roles).map_err(CommandError::usage)?;
    let grant = Grant { ttl_ms: ttl.as_secs() * 1000, uses, roles, label };
    let store = session.store()?;
    let addresses = likely_addresses(session, &store)?;
    let invite = membership::invite(&store, grant, addresses, now_ms())?;
    if !session.json {
        print::aside("no node is running: the code works once `atmo up` runs here");
    }
    Ok(invite.to_json())
}

/// Where the node listened last; for one that never ran, where it will listen as it is configured.
fn likely_addresses(session: &Session, store: &Store) -> Result<Vec<String>, Stop> {
    let state = store.state()?;
    if !state.listen.is_empty() {
        return Ok(state.listen);
    }
    let config = Config::load(session.data_dir.clone(), &Flags::default(), &super::environment)?;
    Ok(config.listen.likely_addresses(&platform::outgoing_addresses()))
}

pub async fn join(session: &Session, code: String) -> Result<ExitCode, Stop> {
    let parsed: JoinCode = code.parse().map_err(CommandError::usage)?;
    let joined = match session.node().await {
        Some(node) => node.request(Request::Join { code }, |_| Ok(())).await?,
        None => join_without_node(session, &parsed).await?,
    };
    session.say(&joined, &format!("this node is a member of the mesh {}", mesh_name(&joined)))
}

async fn join_without_node(session: &Session, code: &JoinCode) -> Result<Value, Stop> {
    let config = Config::load(session.data_dir.clone(), &Flags::default(), &super::environment)?;
    let store = session.store()?;
    if let (JoinStep::AlreadyMember, Some(membership)) =
        (membership::join_step(&store, code, now_ms())?, membership::current(&store)?)
    {
        return Ok(membership.to_json());
    }
    let joined = join::join_once(store.identity(), code, &config.name).await.map_err(CommandError::failed)?;
    Ok(membership::accept(&store, code, &joined.chain, joined.mesh_name, now_ms() / 1000)?.to_json())
}

pub async fn leave(session: &Session) -> Result<ExitCode, Stop> {
    let left = match session.node().await {
        Some(node) => node.request(Request::Leave, |_| Ok(())).await?,
        None => membership::leave(&session.store()?)?.left_json(),
    };
    if let Some(warning) = left["warning"].as_str() {
        print::aside(&format!("warning: {warning}"));
    }
    session.say(&left, &format!("left the mesh {}; this node keeps its identity and is on its own from now on", mesh_name(&left)))
}

impl Session {
    /// The answer as JSON, or one line that says what happened.
    pub fn say(&self, answer: &Value, line: &str) -> Result<ExitCode, Stop> {
        if self.json {
            print::json(answer)?
        } else {
            print::line(line)?
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// As much of an identifier as people need.
fn short(id: &Value) -> String {
    print::show(id).chars().take(atmo_protocol::identity::SHORT_ID_CHARS).collect()
}

/// The name in an answer, or the beginning of the id of a mesh that has none.
fn mesh_name(answer: &Value) -> String {
    let mesh = &answer["mesh"];
    let name = [&mesh["name"], &answer["mesh_name"]].into_iter().find_map(Value::as_str);
    let id = || mesh["id"].as_str().or(mesh.as_str()).map(|id| id.chars().take(10).collect());
    name.map(str::to_owned).or_else(id).unwrap_or_default()
}

impl From<MembershipError> for Stop {
    fn from(error: MembershipError) -> Self {
        let usage = matches!(error, MembershipError::Name | MembershipError::Label | MembershipError::Role(_));
        Self::Failed(if usage { CommandError::usage(error) } else { CommandError::failed(error) })
    }
}

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_name_is_found_wherever_it_stands() {
        assert_eq!(mesh_name(&json!({"mesh": {"id": "0123456789abcdef", "name": "home"}})), "home");
        assert_eq!(mesh_name(&json!({"mesh": {"id": "0123456789abcdef", "name": null}})), "0123456789");
        assert_eq!(mesh_name(&json!({"mesh": "0123456789abcdef", "mesh_name": "home"})), "home");
        assert_eq!(mesh_name(&json!({})), "");
    }
}
