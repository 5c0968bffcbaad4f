//! `atmo cert`: what certificates say, with or without a running node.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value};

use super::mesh::now_ms;
use super::print;
use super::session::{Session, Stop};
use super::{CertCommand, span};
use crate::config::{Config, Flags};
use crate::control::{CommandError, Request};
use crate::membership::MembershipError;
use crate::{certificates, membership};

pub async fn cert(session: &Session, command: CertCommand) -> Result<ExitCode, Stop> {
    let CertCommand::Show { node } = command;
    let shown = match session.node().await {
        Some(running) => running.request(Request::CertShow { node }, |_| Ok(())).await?,
        None => from_folder(session, node.as_deref())?,
    };
    if session.json {
        print::json(&shown)?
    } else {
        print::line(&print::fields(&for_people(&shown)))?
    }
    Ok(ExitCode::SUCCESS)
}

fn from_folder(session: &Session, word: Option<&str>) -> Result<Value, Stop> {
    let config = Config::load(session.data_dir.clone(), &Flags::default(), &super::environment)?;
    let store = session.store()?;
    let membership = membership::current(&store)?.ok_or(MembershipError::None)?;
    let revocations = membership::revocations(&store, &membership.mesh, now_ms())?;
    let shown = certificates::wanted(&store, &membership, word, Vec::new())
        .and_then(|wanted| wanted.to_json(&membership, &config.name, &revocations, now_ms()));
    Ok(shown.map_err(CommandError::failed)?)
}

/// The certificate line by line, then how it hangs from the root.
fn for_people(shown: &Value) -> Map<String, Value> {
    let mut lines = Map::new();
    let mut put = |name: &str, text: String| drop(lines.insert(name.to_owned(), text.into()));
    put("node", named(&shown["node"]));
    put("mesh", named(&shown["mesh"]));
    let state = match shown["revoked"].as_str() {
        Some(revoked) => format!("revoked: {revoked}"),
        None => print::show(&shown["state"]),
    };
    put("state", state);
    put("roles", print::show(&shown["roles"]));
    put("serial", print::show(&shown["serial"]));
    put("issuer", named(&shown["issuer"]));
    put("not_before", print::show(&shown["not_before"]));
    put("expires", format!("{}, {}", in_words(&shown["expires_in_s"]), print::show(&shown["expires_at"])));
    put("renewed", format!("{}, {}", in_words(&shown["renewed_in_s"]), print::show(&shown["renewed_from"])));
    let links = shown["chain"].as_array().into_iter().flatten();
    let chain: Vec<Value> = links.map(|link| link_line(link).into()).collect();
    lines.insert("chain".to_owned(), chain.into());
    lines
}

fn link_line(link: &Value) -> String {
    format!(
        "{} by {}, serial {}: {}; {}, expires {}",
        named(&link["node"]),
        named(&link["issuer"]),
        print::show(&link["serial"]),
        print::show(&link["roles"]),
        print::show(&link["state"]),
        in_words(&link["expires_in_s"]),
    )
}

/// `attic (0a1b2c3d4e)`
fn named(node: &Value) -> String {
    let id: String = node["id"].as_str().unwrap_or_default().chars().take(atmo_protocol::identity::SHORT_ID_CHARS).collect();
    node["name"].as_str().map_or_else(|| id.clone(), |name| format!("{name} ({id})"))
}

/// `in 2 d 3 h`, `45 s ago`.
fn in_words(seconds: &Value) -> String {
    let seconds = seconds.as_i64().unwrap_or_default();
    let span = span::show(Duration::from_secs(seconds.unsigned_abs()));
    if seconds < 0 { format!("{span} ago") } else { format!("in {span}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn people_read_when_it_ends_and_who_gave_it() {
        let link = json!({
            "node": { "id": "ab", "name": "attic" }, "issuer": { "id": "cd", "name": null }, "serial": 7, "state": "expired",
            "roles": ["consume", "provide"], "expires_in_s": -45, "renewed_in_s": -90, "expires_at": "X", "not_before": "Y",
        });
        let mut shown = link.clone();
        shown["chain"] = json!([link]);
        let text = print::fields(&for_people(&shown));
        for part in ["attic (ab)", "cd", "45 s ago", "expired", "serial 7", "consume"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(in_words(&json!(93_784)), "in 1 d 2 h");
    }
}
