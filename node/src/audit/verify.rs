//! Whether the record is what was written: every byte of every line, every line, every file, as far as the head outside of it knows.
//!
//! Reads files alone and needs no node; beside a running one, which writes on, a fault counts when it is there each time it is looked for.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use atmo_protocol::NodeId;
use serde::Serialize;
use serde_json::Value;

use super::format::{self, Content, Line, Place};
use super::read::read;
use crate::store;

/// Faults that are told one by one; further ones only follow from these.
const PROBLEMS_MAX: usize = 20;
/// Beside a running node it is looked this often before a fault counts.
const LOOKS_MAX: u32 = 4;
const LOOK_PAUSE: Duration = Duration::from_millis(150);

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Report {
    pub ok: bool,
    pub files: usize,
    pub lines: u64,
    /// Number of the first line that is there; those before it were removed as too old.
    pub first: u64,
    pub last: u64,
    /// The last line that a signature vouches for.
    pub signed_to: u64,
    pub problems: Vec<Problem>,
}

/// Something that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// Below `audit/`; none where it is about the whole record.
    pub file: Option<String>,
    /// From 1 on.
    pub line: Option<usize>,
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file}, line {line}: {}", self.what),
            (Some(file), None) => write!(f, "{file}: {}", self.what),
            _ => f.write_str(&self.what),
        }
    }
}

/// Looks at the record in `data_dir`. An error means that it could not be read at all.
pub fn verify(data_dir: &Path) -> io::Result<Report> {
    let mut looks = 1;
    loop {
        let report = look(data_dir)?;
        if report.ok || looks >= LOOKS_MAX || store::holder_of(data_dir).is_none() {
            return Ok(report);
        }
        looks += 1;
        std::thread::sleep(LOOK_PAUSE);
    }
}

fn look(data_dir: &Path) -> io::Result<Report> {
    // The head first: the record only grows beyond it.
    let head = store::audit_head(data_dir);
    let identity = store::peek(data_dir).ok().and_then(|(identity, _)| identity);
    let (numbers, others) = format::files(data_dir)?;
    let mut check = Check::new(identity, head.as_ref().ok().and_then(|head| Place::of_head(head.as_ref()?)));
    for other in others {
        check.problem(Some(other), None, "it is no file of the record");
    }
    let mut before = None;
    for number in numbers {
        if before.is_some_and(|before| before + 1 != number) {
            check.problem(Some(format::name(number - 1)), None, "the file is missing");
        }
        before = Some(number);
        check.file(number, &read(data_dir, number)?.unwrap_or_default());
    }
    // A file that was just begun may be empty; the head tells whether it was longer.
    if check.empty.len() > 1 || check.empty.iter().any(|number| Some(*number) != before) {
        let name = check.empty.first().map(|number| format::name(*number));
        check.problem(name, None, "the file is empty");
    }
    check.end(&head);
    Ok(check.report)
}

/// How far the reading has come.
struct Check {
    node: Option<NodeId>,
    head: Option<Place>,
    report: Report,
    /// Of the last line; its hash is unknown where that could not be read.
    at: Option<(u64, Option<String>)>,
    /// What the first line follows.
    start: Option<(u64, String)>,
    /// Up to where lines were removed as too old, by the record itself.
    removed: Vec<(u64, String)>,
    /// Whether the line that the head names was seen.
    head_seen: bool,
    /// Files without a byte.
    empty: Vec<u64>,
}

impl Check {
    fn new(node: Option<NodeId>, head: Option<Place>) -> Self {
        let report = Report { ok: true, ..Report::default() };
        Self { node, head, report, at: None, start: None, removed: Vec::new(), head_seen: false, empty: Vec::new() }
    }

    fn problem(&mut self, file: Option<String>, line: Option<usize>, what: impl Into<String>) {
        self.report.ok = false;
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push(Problem { file, line, what: what.into() });
        }
    }

    fn file(&mut self, number: u64, bytes: &[u8]) {
        self.report.files += 1;
        let name = format::name(number);
        let (lines, rest) = format::lines(bytes);
        if bytes.is_empty() {
            self.empty.push(number);
        }
        for (at, raw) in lines.iter().enumerate() {
            for what in self.line(number, at, raw) {
                self.problem(Some(name.clone()), Some(at + 1), what);
            }
        }
        if !rest.is_empty() {
            let what = "the last line is not whole; the next start of the node records it as torn";
            self.problem(Some(name), Some(lines.len() + 1), what);
        }
    }

    /// What is wrong with a line.
    fn line(&mut self, number: u64, at: usize, raw: &[u8]) -> Vec<String> {
        self.report.lines += 1;
        let line = match format::decode(raw) {
            Ok(line) => line,
            Err(error) => {
                let sequence = self.at.take().map_or(0, |(sequence, _)| sequence) + 1;
                self.at = Some((sequence, None));
                self.report.last = sequence;
                return vec![error.to_string()];
            }
        };
        let mut wrong: Vec<String> = self.follows(&line).into_iter().collect();
        wrong.extend(self.says(number, at, &line.content));
        self.at = Some((line.place.sequence, Some(line.place.hash.to_hex().to_string())));
        self.report.last = line.place.sequence;
        if self.head.is_some_and(|head| head.sequence == line.place.sequence) {
            self.head_seen = true;
            if self.head != Some(line.place) {
                wrong.push("it is not the line that was written here, by the head of the record".to_owned());
            }
        }
        wrong
    }

    /// Whether it stands behind the line before it.
    fn follows(&mut self, line: &Line) -> Option<String> {
        let (sequence, previous) = (line.place.sequence, &line.content.previous);
        let Some((before, hash)) = &self.at else {
            self.report.first = sequence;
            self.start = Some((sequence.saturating_sub(1), previous.clone()));
            return None;
        };
        if sequence > before + 1 {
            return Some(format!("lines {} to {} of the record are missing before it", before + 1, sequence - 1));
        }
        if sequence <= *before {
            return Some(format!("it is line {sequence} of the record, behind line {before}"));
        }
        let follows = hash.as_ref().is_none_or(|hash| hash == previous);
        (!follows).then(|| "it does not follow the line before it".to_owned())
    }

    /// What lines about the record itself must say.
    fn says(&mut self, number: u64, at: usize, content: &Content) -> Option<String> {
        let fields = &content.fields;
        let text = |name: &str| fields[name].as_str().unwrap_or_default();
        if at == 0 && (content.kind != "file" || fields["number"] != number) {
            return Some("it is not how this file began".to_owned());
        }
        match content.kind.as_str() {
            "checkpoint" => {
                if !self.is_signed(content) {
                    return Some("it is not signed by this node".to_owned());
                }
                self.report.signed_to = content.sequence - 1;
            }
            "removed" => self.removed.push((fields["up_to"].as_u64().unwrap_or_default(), text("hash").to_owned())),
            _ => {}
        }
        None
    }

    /// A checkpoint signs the place of the line before it.
    fn is_signed(&self, content: &Content) -> bool {
        let text = |name: &str| content.fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let Ok(hash) = blake3::Hash::from_hex(&content.previous) else { return false };
        let place = Place { sequence: content.sequence.saturating_sub(1), hash };
        let node = self.node.or_else(|| text("node").parse().ok());
        text("hash") == content.previous && node.is_some_and(|node| place.is_signed(&node, text("signature")))
    }

    /// What only shows at the end: where the record begins, and where it ends.
    fn end(&mut self, head: &Result<Option<super::Head>, store::StoreError>) {
        let starts_well = match &self.start {
            Some((0, previous)) => self.node.is_none_or(|node| *previous == Place::before_all(&node).hash.to_hex().as_str()),
            Some(start) => self.removed.contains(start),
            None => true,
        };
        if !starts_well {
            let first = self.report.first;
            let what = match first {
                0 | 1 => "the record is that of another node".to_owned(),
                _ => format!("lines 1 to {} of the record are missing, and it does not say that they were removed", first - 1),
            };
            self.problem(None, None, what);
        }
        match head {
            Err(error) => self.problem(None, None, error.to_string()),
            Ok(None) if self.report.files > 0 => {
                self.problem(None, None, "`audit-head.json`, which says how far the record had come, is missing");
            }
            Ok(None) => {}
            Ok(Some(head)) => self.reaches(head),
        }
    }

    fn reaches(&mut self, head: &super::Head) {
        let (reached, last) = (head.sequence, self.report.last);
        let signed = |place: Place| self.node.is_none_or(|node| place.is_signed(&node, &head.signature));
        if !Place::of_head(head).is_some_and(signed) {
            self.problem(None, None, "`audit-head.json` is not signed by this node");
        } else if reached > last {
            let from = if self.report.lines == 0 { 1 } else { last + 1 };
            let what = format!("the record was cut: lines {from} to {reached} are missing at its end");
            self.problem(None, None, what);
        } else if reached > 0 && !self.head_seen && self.report.problems.is_empty() {
            self.problem(None, None, format!("line {reached}, which the record had reached, is not in it"));
        }
        // What the head vouches for is signed as well.
        if self.report.ok {
            self.report.signed_to = self.report.signed_to.max(reached);
        }
    }
}
