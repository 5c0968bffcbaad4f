//! Keys of the API: made, listed, revoked, with or without a running node.

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::Value;

use super::print::{self, Column};
use super::session::{Session, Stop};
use super::{KeyCommand, KeyCreateArguments};
use crate::commands::keys::answer;
use crate::control::{KeyRequest, Request};
use crate::keys::{KeyLimits, Keys};

const COLUMNS: [Column; 6] = [
    ("ID", &["id"]),
    ("NAME", &["name"]),
    ("CREATED", &["created"]),
    ("A MINUTE", &["per_minute"]),
    ("AT ONCE", &["concurrent"]),
    ("MODELS", &["models"]),
];

pub async fn key(session: &Session, command: KeyCommand) -> Result<ExitCode, Stop> {
    match command {
        KeyCommand::Create(arguments) => create(session, arguments).await,
        KeyCommand::List => list(session).await,
        KeyCommand::Revoke { key } => revoke(session, key).await,
    }
}

async fn create(session: &Session, arguments: KeyCreateArguments) -> Result<ExitCode, Stop> {
    let KeyCreateArguments { name, per_minute, concurrent, model } = arguments;
    let limits = KeyLimits { per_minute, concurrent, models: model };
    let made = answered(session, Request::KeyCreate(KeyRequest { name, limits })).await?;
    if session.json {
        print::json(&made)?;
    } else {
        print::line(&print::show(&made["key"]))?;
        print::aside("this is the only time the key is shown; clients send it as `Authorization: Bearer KEY`");
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(session: &Session) -> Result<ExitCode, Stop> {
    let keys = answered(session, Request::KeyList).await?;
    let rows = keys["keys"].as_array().map_or(&[][..], Vec::as_slice);
    if session.json {
        print::json(&keys)?;
    } else if rows.is_empty() {
        print::line("there are no keys; `atmo key create NAME` makes one")?;
    } else {
        print::line(&print::table(&COLUMNS, rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn revoke(session: &Session, key: String) -> Result<ExitCode, Stop> {
    let revoked = answered(session, Request::KeyRevoke { key }).await?;
    if session.json {
        print::json(&revoked)?;
    } else {
        print::line(&format!(
            "the key {} ({}) admits nobody any more",
            print::show(&revoked["name"]),
            print::show(&revoked["id"])
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// By the running node, else on the folder itself.
async fn answered(session: &Session, request: Request) -> Result<Value, Stop> {
    match session.node().await {
        Some(node) => Ok(node.request(request, |_| Ok(())).await?),
        None => {
            let keys = Keys::open(Arc::new(session.store()?))?;
            Ok(answer(&keys, request)?)
        }
    }
}
