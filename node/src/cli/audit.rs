//! `atmo audit`: the record of this node, read from its folder, with or without a running node.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::mesh::now_ms;
use super::session::{Session, Stop};
use super::{AuditCommand, AuditListArguments, print};
use crate::audit;
use crate::audit::read::{self, Found, Line, Wanted};
use crate::audit::verify::{self, Report};
use crate::control::CommandError;
use crate::membership::rfc3339;
use crate::platform;

const HEADS: [&str; 4] = ["LINE", "TIME", "KIND", "WHAT"];
/// A whole identifier; people see its beginning.
const IDENTIFIER_CHARS: usize = 64;

pub fn audit(session: &Session, command: AuditCommand) -> Result<ExitCode, Stop> {
    match command {
        AuditCommand::List(arguments) => list(session, arguments),
        AuditCommand::Verify => verify(session),
        AuditCommand::Export { out } => export(session, out.as_deref()),
    }
}

fn list(session: &Session, arguments: AuditListArguments) -> Result<ExitCode, Stop> {
    let AuditListArguments { kind, since, limit } = arguments;
    let since_ms = since.map_or(0, |since| now_ms().saturating_sub(since.as_millis() as u64));
    let wanted = Wanted { kinds: kind, since_ms, limit: limit as usize };
    let Found { lines, unreadable } = read::latest(&session.data_dir, &wanted)?;
    if session.json {
        print::json(&lines.iter().map(Line::to_json).collect())?;
    } else if lines.is_empty() {
        print::line("nothing is recorded that fits")?;
    } else {
        let mut rows = vec![HEADS.map(str::to_owned).to_vec()];
        rows.extend(lines.iter().map(|line| {
            let content = &line.content;
            vec![content.sequence.to_string(), rfc3339(content.at_ms), content.kind.clone(), line.told(shown)]
        }));
        print::line(&print::plain(&print::align(&rows)))?;
    }
    if unreadable > 0 {
        print::aside(&format!("{unreadable} lines could not be read: `atmo audit verify` says which"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails where the record is not what was written, so that scripts can ask.
fn verify(session: &Session) -> Result<ExitCode, Stop> {
    let report = verify::verify(&session.data_dir)?;
    if session.json {
        print::json(&json!(report))?;
    } else {
        print::line(&told(&report))?;
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn told(report: &Report) -> String {
    let Report { ok, files, lines, first, last, signed_to, problems } = report;
    match (ok, lines) {
        (true, 0) => "nothing is recorded yet".to_owned(),
        (true, _) => {
            format!("the audit is whole: lines {first} to {last} in {files} files, signed up to line {signed_to}")
        }
        _ => {
            let found: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
            format!("the audit is not what was written ({lines} lines in {files} files):\n{}", found.join("\n"))
        }
    }
}

fn export(session: &Session, out: Option<&Path>) -> Result<ExitCode, Stop> {
    let Some(path) = out else {
        read::export(&session.data_dir, &mut BufWriter::new(io::stdout().lock()))?;
        return Ok(ExitCode::SUCCESS);
    };
    let file = create(session, path).map_err(|error| CommandError::failed(format_args!("{}: {error}", path.display())))?;
    let mut file = BufWriter::new(file);
    let lines = read::export(&session.data_dir, &mut file)?;
    file.flush()?;
    file.get_ref().sync_all()?;
    session.say(&json!({ "out": path, "lines": lines }), &format!("{lines} lines are in {}", path.display()))
}

/// For its owner alone, and never among the record's own files.
fn create(session: &Session, path: &Path) -> io::Result<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let record = session.data_dir.join(audit::FOLDER).canonicalize();
    if record.is_ok_and(|record| parent.canonicalize().is_ok_and(|parent| parent.starts_with(record))) {
        return Err(io::Error::other("nothing but the record may lie there; choose another place"));
    }
    platform::create_private_file(path)
}

/// A field's value as people read it.
fn shown(value: &Value) -> String {
    let text = print::show(value);
    let is_identifier = text.len() >= IDENTIFIER_CHARS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_identifier { text[..atmo_protocol::identity::SHORT_ID_CHARS].to_owned() } else { text }
}
