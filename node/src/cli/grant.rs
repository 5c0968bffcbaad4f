//! `atmo grant`, with or without a running node.

use std::process::ExitCode;

use serde_json::Value;

use super::GrantArguments;
use super::mesh::now_ms;
use super::print;
use super::revoke::confirmed;
use super::session::{Session, Stop};
use crate::admission::LIFE_MS_DEFAULT;
use crate::control::{CommandError, GrantRequest, Request};
use crate::{grants, membership};

/// Says what will happen, asks, and does it.
pub async fn grant(session: &Session, arguments: GrantArguments) -> Result<ExitCode, Stop> {
    let GrantArguments { node, roles, yes } = arguments;
    membership::parse_roles(&roles).map_err(CommandError::usage)?;
    let asked = GrantRequest { node, roles, plan: true };
    let plan = answered(session, asked.clone()).await?;
    let (name, roles) = (named(&plan["node"]), print::show(&plan["roles"]));
    if plan["already"] == true {
        return session.say(&plan, &format!("{name} has the roles {roles} already"));
    }
    let before = print::show(&plan["roles_before"]);
    if !yes && !confirmed(&format!("{name} will have the roles {roles} instead of {before}"))? {
        return Err(CommandError::failed("nothing was granted").into());
    }
    // What the name means may change meanwhile.
    let done = answered(session, GrantRequest { node: print::show(&plan["node"]["id"]), plan: false, ..asked }).await?;
    session.say(&done, &outcome(&done))
}

/// By the running node, else on the folder itself.
async fn answered(session: &Session, request: GrantRequest) -> Result<Value, Stop> {
    if let Some(node) = session.node().await {
        return Ok(node.request(Request::Grant(request), |_| Ok(())).await?);
    }
    let store = session.store()?;
    let granted = grants::grant(&store, &request, Vec::new(), LIFE_MS_DEFAULT, now_ms()).map_err(CommandError::from)?;
    let mut json = granted.to_json();
    json["taken"] = false.into();
    Ok(json)
}

fn outcome(done: &Value) -> String {
    let (name, roles) = (named(&done["node"]), print::show(&done["roles"]));
    if done["taken"] == true {
        return format!("{name} has the roles {roles}");
    }
    let later = format!("{name} will have the roles {roles} as soon as it is connected to this node");
    let old = done["certificate_before"].as_str().filter(|_| done["lowers"] == true);
    let until =
        old.map(|old| format!("; until then the certificate it has still holds: `atmo revoke {old}` ends that one at once"));
    later + &until.unwrap_or_default()
}

/// `attic (0a1b2c3d4e)`
fn named(node: &Value) -> String {
    let id: String = print::show(&node["id"]).chars().take(atmo_protocol::identity::SHORT_ID_CHARS).collect();
    node["name"].as_str().map_or_else(|| id.clone(), |name| format!("{name} ({id})"))
}
