//! `atmo invites`: what was invited from here, and how to take it back; with or without a running node.

use std::process::ExitCode;

use atmo_protocol::invitation::JoinCode;
use serde_json::Value;

use super::mesh::now_ms;
use super::print::{self, Column};
use super::revoke::confirmed;
use super::session::{Session, Stop};
use super::{InvitesCommand, RevokeArguments, revoke as revoking};
use crate::control::{CommandError, Request};
use crate::membership::MembershipError;
use crate::{invitations, membership};

/// Fewest characters of an id that may stand for it, as for `atmo revoke`.
const PREFIX_CHARS_MIN: usize = 4;
const COLUMNS: [Column; 7] = [
    ("ID", &["id"]),
    ("LABEL", &["label"]),
    ("STATE", &["state"]),
    ("SPENT", &["spent"]),
    ("USES", &["uses"]),
    ("ROLES", &["roles"]),
    ("EXPIRES", &["expires_at"]),
];

pub async fn invites(session: &Session, command: InvitesCommand) -> Result<ExitCode, Stop> {
    match command {
        InvitesCommand::List(arguments) => list(session, arguments.all).await,
        InvitesCommand::Revoke { invitation, yes } => revoke(session, invitation, yes).await,
    }
}

async fn list(session: &Session, all: bool) -> Result<ExitCode, Stop> {
    let listed = known(session, all).await?;
    match listed.as_array() {
        Some(rows) if !session.json && rows.is_empty() => {
            let other = if all { "" } else { "; `--all` shows those that admit nobody any more" };
            print::line(&format!("no invitation is open{other}"))?
        }
        Some(rows) if !session.json => print::line(&print::table(&COLUMNS, rows))?,
        _ => print::json(&listed)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn known(session: &Session, all: bool) -> Result<Value, Stop> {
    if let Some(node) = session.node().await {
        return Ok(node.request(Request::Invites { all }, |_| Ok(())).await?);
    }
    let store = session.store()?;
    let membership = membership::current(&store)?.ok_or(MembershipError::None)?;
    Ok(invitations::list(&store, &membership, all, now_ms())?)
}

/// One of this node's own is its own affair; any other takes an admin, whom `atmo revoke` asks for.
async fn revoke(session: &Session, word: String, yes: bool) -> Result<ExitCode, Stop> {
    let all = known(session, true).await?;
    let Some(found) = meant(&all, &word)? else {
        let whole = word.parse::<JoinCode>().is_ok() || word.parse::<atmo_protocol::NodeId>().is_ok();
        if !whole {
            let message = format!("no invitation made here is called `{word}`; `atmo invites list --all` shows those there are");
            return Err(CommandError::failed(message).into());
        }
        let arguments = RevokeArguments {
            target: Some(word),
            kind: Some("invitation".to_owned()),
            keep: Vec::new(),
            yes,
            force: false,
            list: false,
        };
        return revoking::revoke(session, arguments).await;
    };
    let what = described(&found);
    if found["state"] == "revoked" {
        let mut already = found;
        already["already"] = true.into();
        return session.say(&already, &format!("{what} was revoked already"));
    }
    if !yes && !confirmed(&format!("{what} will admit nobody any more; whom it admitted stays"))? {
        return Err(CommandError::failed("nothing was revoked").into());
    }
    let invitation = print::show(&found["id"]);
    let done = match session.node().await {
        Some(node) => node.request(Request::InviteRevoke { invitation }, |_| Ok(())).await?,
        None => invitations::withdraw(&session.store()?, &invitation, now_ms()).map_err(CommandError::failed)?,
    };
    session.say(&done, &format!("{what} admits nobody any more"))
}

/// The one that a code or the beginning of an id stands for.
fn meant(all: &Value, word: &str) -> Result<Option<Value>, Stop> {
    let id = match word.parse::<JoinCode>() {
        Ok(code) => code.invitation_key().id().to_string(),
        Err(_) => word.trim().to_ascii_lowercase(),
    };
    let begins = |invitation: &&Value| {
        id.len() >= PREFIX_CHARS_MIN && invitation["id"].as_str().is_some_and(|known| known.starts_with(&id))
    };
    let found: Vec<&Value> = all.as_array().into_iter().flatten().filter(begins).collect();
    match found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        _ => {
            let lines: String = found.iter().map(|one| format!("\n  {}", described(one))).collect();
            Err(CommandError::failed(format_args!("`{word}` could be any of these; give more of the id:{lines}")).into())
        }
    }
}

/// `invitation 0a1b2c3d4e (the phone), 1 of 4 uses spent`
fn described(invitation: &Value) -> String {
    let id: String = print::show(&invitation["id"]).chars().take(atmo_protocol::identity::SHORT_ID_CHARS).collect();
    let label =
        invitation["label"].as_str().filter(|label| !label.is_empty()).map_or_else(String::new, |label| format!(" ({label})"));
    format!("invitation {id}{label}, {} of {} uses spent,", print::show(&invitation["spent"]), print::show(&invitation["uses"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_invitation_is_meant_by_the_beginning_of_its_id() {
        let all = json!([{ "id": "abcdef01", "label": "", "spent": 0, "uses": 1 }, { "id": "abcd9999", "label": "phone", "spent": 1, "uses": 4 }]);
        assert_eq!(meant(&all, "ABCDE").expect("plain").expect("one")["id"], "abcdef01");
        assert!(meant(&all, "abc").expect("too short").is_none());
        assert!(meant(&all, "ffff").expect("none").is_none());
        let Err(Stop::Failed(error)) = meant(&all, "abcd") else { panic!("two are meant") };
        assert!(error.message.contains("abcdef01") && error.message.contains("(phone), 1 of 4 uses"), "{}", error.message);
    }
}
