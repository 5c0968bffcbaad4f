//! `atmo revoke` and `atmo revocations`, with or without a running node.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::RevokeArguments;
use super::mesh::now_ms;
use super::print::{self, Column};
use super::session::{Session, Stop};
use crate::config::{Config, Flags};
use crate::control::{CommandError, Request, RevokeRequest};
use crate::{membership, revoke as revoking};

const COLUMNS: [Column; 6] =
    [("KIND", &["kind"]), ("ID", &["id"]), ("NAME", &["name"]), ("REVOKED", &["at"]), ("BY", &["by"]), ("COUNTS", &["counts"])];
/// What may be named in a sentence; more are counted.
const NAMED_MAX: usize = 8;

/// Says what will happen, asks, and does it.
pub async fn revoke(session: &Session, arguments: RevokeArguments) -> Result<ExitCode, Stop> {
    let RevokeArguments { target, kind, keep, yes, force, list } = arguments;
    let Some(target) = target.filter(|_| !list) else { return revocations(session).await };
    let asked = RevokeRequest { target, kind, keep, force, plan: true };
    let plan = answered(session, asked.clone()).await?;
    if plan["already"] == true {
        return session.say(
            &plan,
            &format!("{} was revoked already, on {} by {}", text(&plan, "what"), text(&plan, "at"), text(&plan, "by")),
        );
    }
    if !yes && !confirmed(&consequences(&plan))? {
        return Err(CommandError::failed("nothing was revoked").into());
    }
    let done = answered(session, decided(asked, &plan)).await?;
    session.say(&done, &outcome(&done))
}

/// The same thing without the need to be understood again: what a name means may change meanwhile.
fn decided(asked: RevokeRequest, plan: &Value) -> RevokeRequest {
    let plan_kind = text(plan, "kind");
    // A join code says more than its id: until when it is good.
    let target = if plan_kind == "invitation" { asked.target } else { text(plan, "id") };
    RevokeRequest { target, kind: Some(plan_kind), plan: false, ..asked }
}

pub async fn revocations(session: &Session) -> Result<ExitCode, Stop> {
    let all = match session.node().await {
        Some(node) => node.request(Request::Revocations, |_| Ok(())).await?,
        None => {
            let store = session.store()?;
            let current = membership::current(&store)?;
            let revocations = current.map(|current| membership::revocations(&store, &current.mesh, now_ms())).transpose()?;
            revocations.map_or_else(|| json!([]), |revocations| revoking::list(&revocations))
        }
    };
    match all.as_array() {
        Some(rows) if !session.json && rows.is_empty() => print::line("nothing is revoked in this mesh")?,
        Some(rows) if !session.json => print::line(&print::table(&COLUMNS, rows))?,
        _ => print::json(&all)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// By the running node, else on the folder itself.
async fn answered(session: &Session, request: RevokeRequest) -> Result<Value, Stop> {
    if let Some(node) = session.node().await {
        return Ok(node.request(Request::Revoke(request), |_| Ok(())).await?);
    }
    let config = Config::load(session.data_dir.clone(), &Flags::default(), &super::environment)?;
    let store = session.store()?;
    let prepared = revoking::prepare(&store, &request, Vec::new(), &config.name, now_ms()).map_err(CommandError::from)?;
    let mut json = prepared.to_json();
    if !request.plan && !prepared.already {
        revoking::commit(&store, &prepared, now_ms())?;
        json["have"] = json!([]);
        json["lack"] = json!([]);
    }
    Ok(json)
}

/// Asks on the terminal. Without one there is nobody to ask.
pub fn confirmed(consequences: &str) -> Result<bool, Stop> {
    if !io::stdin().is_terminal() {
        return Err(CommandError::usage(format_args!("{consequences}\nnobody is there to confirm it: add --yes")).into());
    }
    print::aside(consequences);
    let mut err = io::stderr();
    write!(err, "go on? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// What will happen, for whoever is asked.
fn consequences(plan: &Value) -> String {
    let what = text(plan, "what");
    let first = match plan["kind"].as_str() {
        Some("node") => {
            format!("{what} will be a member never again, with any certificate or code: its connections end everywhere")
        }
        Some("serial") => format!("{what} will not be accepted any more; its node may join again with a new code"),
        _ => format!("{what} will admit nobody any more; whom it admitted stays a member"),
    };
    let own = plan["id"].as_str().unwrap_or_default();
    let others: Vec<&Value> = plan["ends"].as_array().into_iter().flatten().filter(|node| node["id"] != own).collect();
    if others.is_empty() || (plan["kind"] == "serial" && others.len() == 1) {
        return first;
    }
    let names: Vec<String> = others.iter().take(NAMED_MAX).map(|node| name_of(node)).collect();
    let more = if others.len() > NAMED_MAX { format!(" and {} more", others.len() - NAMED_MAX) } else { String::new() };
    format!(
        "{first}\nit admitted others, who lose their membership with it: {}{more} (`--keep NODE` spares one)",
        names.join(", ")
    )
}

/// What has happened.
fn outcome(done: &Value) -> String {
    let names = |field: &str| done[field].as_array().into_iter().flatten().map(print::show).collect::<Vec<_>>().join(", ");
    let (have, lack) = (names("have"), names("lack"));
    let spread = match (have.is_empty(), lack.is_empty()) {
        (true, true) => "no other node is connected: they hear of it as soon as one is".to_owned(),
        (false, true) => format!("{have} have it, and pass it on"),
        (true, false) => format!("told to {lack}, who have not confirmed it yet"),
        (false, false) => format!("{have} have it, and pass it on; {lack} have not confirmed it yet"),
    };
    let ended = done["ends"].as_array().map_or(0, Vec::len);
    let nodes = if ended > 1 { format!(" ({ended} nodes in all)") } else { String::new() };
    format!("{} is revoked{nodes}; {spread}", text(done, "what"))
}

fn name_of(node: &Value) -> String {
    let id: String = node["id"].as_str().unwrap_or_default().chars().take(atmo_protocol::identity::SHORT_ID_CHARS).collect();
    node["name"].as_str().map_or_else(|| id.clone(), |name| format!("{name} ({id})"))
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(kind: &str, ends: Value) -> Value {
        json!({ "kind": kind, "id": "ab", "what": "node lost (ab)", "ends": ends })
    }

    #[test]
    fn whoever_is_asked_is_told_who_goes_along() {
        let alone = consequences(&plan("node", json!([{ "id": "ab", "name": "lost" }])));
        assert!(alone.contains("never again") && !alone.contains("admitted others"), "{alone}");
        let several = consequences(&plan("node", json!([{ "id": "ab", "name": "lost" }, { "id": "cd", "name": "child" }])));
        assert!(several.contains("child (cd)") && several.contains("--keep"), "{several}");
        let many: Vec<Value> = (0..12).map(|number| json!({ "id": format!("{number}"), "name": null })).collect();
        assert!(consequences(&plan("node", many.into())).contains("and 4 more"));
    }

    #[test]
    fn what_was_decided_is_what_is_done() {
        let asked = RevokeRequest { target: "lost".into(), kind: None, keep: vec![], force: false, plan: true };
        let done = decided(asked.clone(), &plan("node", json!([])));
        assert_eq!((done.target.as_str(), done.kind.as_deref(), done.plan), ("ab", Some("node"), false));
        assert_eq!(decided(asked, &plan("invitation", json!([]))).target, "lost");
    }

    #[test]
    fn it_says_who_has_it() {
        let done =
            |have: Value, lack: Value| outcome(&json!({ "what": "node lost", "have": have, "lack": lack, "ends": [1, 2] }));
        assert_eq!(done(json!(["a", "b"]), json!([])), "node lost is revoked (2 nodes in all); a, b have it, and pass it on");
        assert!(done(json!([]), json!([])).contains("no other node is connected"));
        assert!(done(json!(["a"]), json!(["b"])).contains("b have not confirmed it yet"));
    }
}
