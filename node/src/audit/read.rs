//! Reading the record for people and other programs. Checks nothing but that a line is whole; [`verify`](super::verify) does the rest.

use std::io::{self, Write};
use std::path::Path;
use std::{fs, iter};

use atmo_protocol::date::rfc3339;
use serde_json::{Value, json};

use super::format;
pub use super::format::{Content, Line};

/// What every file is full of and nobody looks for without a reason.
pub const BOOKKEEPING: [&str; 2] = ["file", "checkpoint"];

/// Which lines are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of these kinds; empty: of any but those of [`BOOKKEEPING`].
    pub kinds: Vec<String>,
    /// Not before this, in unix milliseconds.
    pub since_ms: u64,
    /// At most so many, the latest.
    pub limit: usize,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Oldest first.
    pub lines: Vec<Line>,
    /// What is in the files and cannot be read.
    pub unreadable: usize,
}

/// The latest lines that are wanted. Reads from the newest file back, and no further than needed.
pub fn latest(data_dir: &Path, wanted: &Wanted) -> io::Result<Found> {
    let (numbers, _) = format::files(data_dir)?;
    let mut found = Found::default();
    for number in numbers.into_iter().rev() {
        let Some(bytes) = read(data_dir, number)? else { continue };
        let mut older = false;
        for raw in format::lines(&bytes).0.into_iter().rev() {
            match format::decode(raw) {
                Ok(line) if line.content.at_ms < wanted.since_ms => older = true,
                Ok(line) if wanted.takes(&line) => found.lines.push(line),
                Ok(_) => {}
                Err(_) => found.unreadable += 1,
            }
            if found.lines.len() >= wanted.limit {
                break;
            }
        }
        // A clock that was set back mixes moments up within a file, hardly over whole ones.
        if older || found.lines.len() >= wanted.limit {
            break;
        }
    }
    found.lines.reverse();
    Ok(found)
}

/// Writes every line as it is in the files, so that whoever gets them can check the hashes; gives how many.
pub fn export(data_dir: &Path, out: &mut impl Write) -> io::Result<usize> {
    let (numbers, _) = format::files(data_dir)?;
    let mut count = 0;
    for number in numbers {
        let Some(bytes) = read(data_dir, number)? else { continue };
        let (lines, rest) = format::lines(&bytes);
        // The end of a line that is just being written is left for the next time.
        out.write_all(&bytes[..bytes.len() - rest.len()])?;
        count += lines.len();
    }
    out.flush()?;
    Ok(count)
}

/// `None` where it was removed meanwhile, as the oldest is.
pub(super) fn read(data_dir: &Path, number: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::read(format::path(data_dir, number)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

impl Wanted {
    fn takes(&self, line: &Line) -> bool {
        let kind = &line.content.kind;
        if self.kinds.is_empty() { !BOOKKEEPING.contains(&kind.as_str()) } else { self.kinds.contains(kind) }
    }
}

impl Line {
    /// As `atmo audit list --json` shows it.
    pub fn to_json(&self) -> Value {
        let content = &self.content;
        json!({
            "sequence": content.sequence,
            "at": rfc3339(content.at_ms),
            "at_ms": content.at_ms,
            "kind": content.kind,
            "fields": content.fields,
            "hash": self.place.hash.to_hex().as_str(),
        })
    }

    /// Its fields on one line, those that say something.
    pub fn told(&self, show: impl Fn(&Value) -> String) -> String {
        let fields = self.content.fields.as_object().into_iter().flatten();
        let told = fields
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| iter::once(name.replace('_', " ")).chain([show(value)]).collect::<Vec<_>>().join(" "));
        told.collect::<Vec<_>>().join("  ")
    }
}
