//! Commands that show what the running node knows: `status`, `nodes`, `capabilities`, and the report of `doctor`.

use std::process::ExitCode;

use serde_json::Value;

use super::print::{self, Column};
use super::session::{Session, Stop};
use crate::control::Request;
use crate::doctor::{self, Verdict};

const NODE_COLUMNS: [Column; 10] = [
    ("NAME", &["name"]),
    ("NODE", &["node_id", "id"]),
    ("MODE", &["mode"]),
    ("ROLES", &["roles"]),
    ("HOPS", &["hops"]),
    ("STATE", &["state"]),
    ("CONTACT", &["contact"]),
    ("RTT MS", &["rtt_ms"]),
    ("OFFERS", &["capabilities"]),
    ("ADDRESSES", &["addresses"]),
];

const CAPABILITY_COLUMNS: [Column; 7] = [
    ("CAPABILITY", &["id"]),
    ("NODE", &["node"]),
    ("TYPE", &["type"]),
    ("HOPS", &["hops"]),
    ("LOAD", &["load"]),
    ("STATE", &["state"]),
    ("DESCRIPTION", &["description"]),
];

pub async fn status(session: &Session) -> Result<ExitCode, Stop> {
    let status = session.ask(Request::Status).await?;
    match &status {
        Value::Object(fields) if !session.json => print::line(&print::fields(fields))?,
        other => print::json(other)?,
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn nodes(session: &Session, all: bool) -> Result<ExitCode, Stop> {
    let nodes = session.ask(Request::Nodes { all }).await?;
    list(session, &nodes, &NODE_COLUMNS, "no node can be reached")
}

pub async fn capabilities(session: &Session, all: bool) -> Result<ExitCode, Stop> {
    let capabilities = session.ask(Request::Capabilities { all }).await?;
    list(session, &capabilities, &CAPABILITY_COLUMNS, "nothing is offered yet; `atmo status` shows the backends of this node")
}

fn list(session: &Session, rows: &Value, columns: &[Column], none: &str) -> Result<ExitCode, Stop> {
    match rows.as_array() {
        Some(rows) if !session.json && rows.is_empty() => print::aside(none),
        Some(rows) if !session.json => print::line(&print::table(columns, rows))?,
        _ => print::json(rows)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails when a check did, so that scripts can ask.
pub async fn doctor(session: &Session) -> Result<ExitCode, Stop> {
    let checks = doctor::examine(&session.data_dir, &super::environment).await;
    if session.json {
        print::json(&serde_json::json!(checks))?;
    } else {
        print::line(&doctor::report(&checks))?;
    }
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
