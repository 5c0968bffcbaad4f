use std::fs;
use std::time::Instant;

use tempfile::TempDir;

use super::event::{Asked, KINDS};
use super::format::{self, Place};
use super::read::{Wanted, latest};
use super::verify::{Report, verify};
use super::writer::{LIMITS, Limits, Writer};
use super::*;
use crate::caller::Caller;
use crate::store::{self, Store};

const SMALL: Limits = Limits { file_bytes: 3_000, files: 3 };

/// A folder with an identity, as a store makes it.
fn folder() -> (TempDir, NodeKey) {
    let dir = tempfile::tempdir().unwrap();
    let key = Store::open(dir.path()).unwrap().identity().clone();
    (dir, key)
}

fn used(number: usize) -> (u64, Event) {
    (1_763_700_000_000 + number as u64, Event::KeyUsed { id: format!("{number}"), name: "phone".into() })
}

/// A record of so many events, written one at a time, signed at its end.
fn record(events: usize, limits: Limits) -> (TempDir, NodeKey) {
    let (dir, key) = folder();
    write(&dir, &key, events, limits);
    (dir, key)
}

fn write(dir: &TempDir, key: &NodeKey, events: usize, limits: Limits) {
    let mut writer = Writer::new(dir.path().to_owned(), key.clone(), limits);
    for number in 0..events {
        assert!(writer.take(&[used(number)], false).is_ok());
    }
    assert!(writer.take(&[], true).is_ok());
}

fn check(dir: &TempDir) -> Report {
    verify(dir.path()).unwrap()
}

fn is_found(dir: &TempDir) -> bool {
    let report = check(dir);
    !report.ok && !report.problems.is_empty()
}

fn kinds(dir: &TempDir, kinds: &[&str]) -> Vec<serde_json::Value> {
    let wanted = Wanted { kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(), since_ms: 0, limit: 10_000 };
    latest(dir.path(), &wanted).unwrap().lines.into_iter().map(|line| line.content.fields).collect()
}

#[test]
fn a_record_is_whole_and_goes_on_where_it_ended() {
    let (dir, key) = record(5, LIMITS);
    let report = check(&dir);
    // The file's first line and the signature at its end come on top.
    assert!(report.ok && (report.first, report.last, report.lines) == (1, 7, 7), "{report:?}");
    write(&dir, &key, 5, LIMITS);
    let report = check(&dir);
    assert!(report.ok && report.last == 13 && report.signed_to == 13, "{report:?}");
    assert_eq!(kinds(&dir, &["gap", "torn", "unsigned", "lost"]), Vec::<serde_json::Value>::new());
    let path = format::path(dir.path(), 1);
    assert_eq!(crate::platform::mode_open_to_others(&path).unwrap(), 0);
}

#[test]
fn nothing_is_recorded_until_something_happens() {
    let (dir, key) = folder();
    drop(Audit::new(dir.path(), key));
    assert!(!dir.path().join(FOLDER).exists());
    assert_eq!(check(&dir).lines, 0);
    assert!(check(&dir).ok);
}

#[test]
fn old_files_go_and_the_record_says_so() {
    let (dir, key) = record(100, SMALL);
    let (numbers, others) = format::files(dir.path()).unwrap();
    assert!(numbers.len() == 3 && numbers[0] > 1 && others.is_empty(), "{numbers:?} {others:?}");
    let report = check(&dir);
    assert!(report.ok && report.first > 1, "{report:?}");
    assert!(!kinds(&dir, &["removed"]).is_empty());
    write(&dir, &key, 40, SMALL);
    assert!(check(&dir).ok, "{:?}", check(&dir));
    fs::remove_file(format::path(dir.path(), format::files(dir.path()).unwrap().0[0])).unwrap();
    let report = check(&dir);
    assert!(!report.ok && report.problems[0].what.contains("are missing"), "{report:?}");
}

#[test]
fn a_torn_line_is_recorded_and_the_chain_goes_on() {
    let (dir, key) = record(3, LIMITS);
    let path = format::path(dir.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"sequence\":6,\"at_");
    fs::write(&path, &bytes).unwrap();
    assert!(is_found(&dir), "until somebody has looked at it");
    write(&dir, &key, 1, LIMITS);
    assert!(check(&dir).ok, "{:?}", check(&dir));
    let torn = kinds(&dir, &["torn"]);
    assert_eq!((torn.len(), torn[0]["bytes"].as_u64()), (1, Some(18)));
    assert_eq!(torn[0]["hex"], hex::encode(b"{\"sequence\":6,\"at_"));
}

#[test]
fn what_was_cut_stays_missing_after_the_next_start() {
    let (dir, key) = record(6, LIMITS);
    let path = format::path(dir.path(), 1);
    let text = fs::read_to_string(&path).unwrap();
    let kept: Vec<&str> = text.lines().take(4).collect();
    fs::write(&path, kept.join("\n") + "\n").unwrap();
    let report = check(&dir);
    assert_eq!(report.problems[0].what, "the record was cut: lines 5 to 8 are missing at its end");
    write(&dir, &key, 2, LIMITS);
    let report = check(&dir);
    assert!(report.problems[0].what.contains("lines 5 to 8 of the record are missing before it"), "{report:?}");
    let gap = kinds(&dir, &["gap"]);
    assert_eq!((gap[0]["from"].as_u64(), gap[0]["to"].as_u64()), (Some(5), Some(8)));
    fs::remove_dir_all(dir.path().join(FOLDER)).unwrap();
    assert!(is_found(&dir));
    write(&dir, &key, 2, LIMITS);
    assert!(is_found(&dir));
}

/// blake3 needs no key: whoever rewrites a line and all that follow gets a chain that fits.
#[test]
fn a_record_that_was_written_anew_is_not_the_one_that_was_signed() {
    let (dir, key) = record(6, LIMITS);
    let mut place = Place::before_all(&key.id());
    let mut forged = Vec::new();
    let file = Event::File { number: 1, version: format::VERSION, node: key.id().to_string() };
    for event in std::iter::once(file).chain((0..9).map(|number| used(number).1)) {
        let (line, next) = format::encode(&place, 1_763_700_000_000, &event).unwrap();
        forged.extend(line);
        place = next;
    }
    fs::write(format::path(dir.path(), 1), forged).unwrap();
    assert!(is_found(&dir));
    write(&dir, &key, 3, LIMITS);
    assert!(is_found(&dir), "the next start does not take it for its own");
}

#[test]
fn the_head_is_part_of_it() {
    let (dir, key) = record(6, LIMITS);
    let path = dir.path().join("audit-head.json");
    let head = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(is_found(&dir));
    write(&dir, &key, 1, LIMITS);
    assert_eq!(kinds(&dir, &["unsigned"]).len(), 1);
    let other = NodeKey::from_seed([9; 32]);
    store::save_audit_head(dir.path(), &Place { sequence: 2, ..Place::before_all(&key.id()) }.head(&other)).unwrap();
    assert!(is_found(&dir));
    fs::write(&path, head).unwrap();
    assert!(check(&dir).ok, "an older head of its own vouches for less");
    fs::write(dir.path().join(FOLDER).join("notes.txt"), "x").unwrap();
    assert!(is_found(&dir));
}

#[test]
fn what_cannot_be_written_is_counted_and_told_later() {
    let (dir, key) = folder();
    let blocked = dir.path().join(FOLDER);
    fs::write(&blocked, "in the way").unwrap();
    let audit = Audit::new(dir.path(), key.clone());
    for number in 0..3 {
        audit.note(used(number).1);
        audit.settle(Duration::from_secs(10));
    }
    let state = audit.state();
    assert!(state.lost == 3 && state.written == 0 && state.problem.is_some(), "{state:?}");
    fs::remove_file(&blocked).unwrap();
    // A disk that refused is left alone for a second.
    std::thread::sleep(Duration::from_millis(1_100));
    audit.note(used(4).1);
    assert!(audit.settle(Duration::from_secs(10)));
    assert_eq!(audit.state().problem, None);
    drop(audit);
    assert!(check(&dir).ok, "{:?}", check(&dir));
    assert_eq!(kinds(&dir, &["lost"])[0]["count"], 3);
}

#[test]
fn every_kind_can_be_asked_for() {
    let (dir, key) = folder();
    let audit = Audit::new(dir.path(), key);
    let asked =
        Asked::new("t", atmo_adapters::Operation::Chat, &Caller::Key { id: "i".into(), name: "atmo-key-00112233".into() });
    for event in [
        Event::Started { version: "1", name: "n".into(), mode: "participant".into() },
        Event::Stopped {},
        Event::Refused { node: None, name: None, invitation: None, reason: "no".into() },
        Event::Asked(asked),
    ] {
        audit.note(event);
    }
    drop(audit);
    let all = Wanted { kinds: KINDS.map(str::to_owned).to_vec(), limit: 10, ..Wanted::default() };
    let lines = latest(dir.path(), &all).unwrap().lines;
    assert!(lines.iter().all(|line| KINDS.contains(&line.content.kind.as_str())), "{lines:?}");
    let asked = lines.iter().find(|line| line.content.kind == "asked").unwrap();
    assert_eq!(asked.content.fields["key_name"], "[redacted]");
    assert_eq!(lines.first().unwrap().content.kind, "file");
    assert_eq!(lines.last().unwrap().content.kind, "checkpoint");
    let shown = latest(dir.path(), &Wanted { limit: 2, ..Wanted::default() }).unwrap().lines;
    assert_eq!(shown.iter().map(|line| line.content.kind.as_str()).collect::<Vec<_>>(), ["refused", "asked"]);
}

#[test]
fn noting_costs_microseconds() {
    let (dir, key) = folder();
    let audit = Audit::new(dir.path(), key);
    audit.note(used(0).1);
    assert!(audit.settle(Duration::from_secs(10)));
    const EVENTS: u32 = 2_000;
    let began = Instant::now();
    for _ in 0..EVENTS {
        audit.note(Event::Asked(Asked::new("0011223344556677", atmo_adapters::Operation::Chat, &Caller::Owner)));
    }
    let each = began.elapsed() / EVENTS;
    println!("an event costs its request {each:?}");
    assert!(each < Duration::from_micros(200), "{each:?}");
    assert_eq!(audit.state().lost, 0);
}

/// What somebody may do to the files.
#[derive(Clone, Debug)]
enum Change {
    Flip { at: usize, bit: u8 },
    Remove { line: usize },
    Swap { line: usize, other: usize },
    Repeat { line: usize },
    Cut { bytes: usize },
    Delete { file: usize },
}

/// One of them, by chance; the same for the same number.
fn change(number: usize) -> Change {
    let chance = blake3::hash(&number.to_le_bytes());
    let part = |at: usize| chance.as_bytes()[at..at + 3].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    match part(0) % 10 {
        0..=2 => Change::Flip { at: part(3), bit: (part(6) % 8) as u8 },
        3 | 4 => Change::Remove { line: part(3) },
        5 | 6 => Change::Swap { line: part(3), other: part(6) },
        7 => Change::Repeat { line: part(3) },
        8 => Change::Cut { bytes: part(3) },
        _ => Change::Delete { file: part(3) },
    }
}

/// Does it to the files below `dir`; false where it comes to nothing.
fn apply(dir: &TempDir, change: &Change) -> bool {
    let numbers = format::files(dir.path()).unwrap().0;
    let all: Vec<(u64, Vec<u8>)> =
        numbers.iter().map(|number| (*number, fs::read(format::path(dir.path(), *number)).unwrap())).collect();
    let spot = match change {
        Change::Flip { at, .. } => *at,
        Change::Remove { line } | Change::Swap { line, .. } | Change::Repeat { line } => *line,
        Change::Cut { bytes } => *bytes,
        Change::Delete { file } => *file,
    };
    let (number, mut bytes) = all[spot % all.len()].clone();
    let path = format::path(dir.path(), number);
    let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let count = lines.len();
    match change {
        Change::Flip { at, bit } => {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        Change::Remove { line } => {
            lines.remove(line % count);
            bytes = lines.concat();
        }
        Change::Swap { line, other } => {
            lines.swap(line % count, other % count);
            bytes = lines.concat();
        }
        Change::Repeat { line } => {
            lines.insert(line % count, lines[line % count].clone());
            bytes = lines.concat();
        }
        Change::Cut { bytes: cut } => {
            let length = bytes.len();
            bytes.truncate(cut % length);
            // Only the end of the record can be cut off without a trace in what follows.
            if number != *numbers.last().unwrap() {
                return false;
            }
        }
        Change::Delete { .. } => {
            fs::remove_file(path).unwrap();
            return true;
        }
    }
    let changed = fs::read(&path).unwrap() != bytes;
    fs::write(path, bytes).unwrap();
    changed
}

#[test]
fn every_flipped_byte_is_found_and_named() {
    let (dir, _) = record(3, LIMITS);
    let path = format::path(dir.path(), 1);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let report = check(&dir);
        let line = whole[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        let named = report.problems.first().and_then(|problem| problem.line);
        assert!(!report.ok && named == Some(line), "byte {at}: {report:?}");
    }
    fs::write(&path, &whole).unwrap();
    assert!(check(&dir).ok);
}

#[test]
fn every_change_is_found() {
    for events in [4, 9, 23, 60] {
        let (dir, _) = record(events, SMALL);
        assert!(check(&dir).ok, "{:?}", check(&dir));
        let numbers = format::files(dir.path()).unwrap().0;
        let whole: Vec<_> = numbers.iter().map(|number| format::path(dir.path(), *number)).collect();
        let whole: Vec<_> = whole.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
        for number in 0..250 {
            let change = change(number);
            let changed = apply(&dir, &change);
            assert_eq!(is_found(&dir), changed, "{change:?} {:?}", check(&dir));
            whole.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
        }
    }
}
