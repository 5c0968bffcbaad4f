//! What people and programs read: JSON, aligned tables, fields. Nothing here panics when the reader goes away.

use std::io::{self, Write};

use atmo_protocol::identity::SHORT_ID_CHARS;
use serde_json::{Map, Value};

/// Space between the columns of a table.
const GAP: &str = "  ";
/// Shown where there is nothing.
const NOTHING: &str = "-";

/// Longest text in a table; `--json` has all of it.
const CELL_CHARS_MAX: usize = 72;
/// Characters of a whole identifier.
const IDENTIFIER_CHARS: usize = 64;

/// A column: its head, and the fields that may fill it, the first that is there counts.
pub type Column = (&'static str, &'static [&'static str]);

pub fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

pub fn line(text: &str) -> io::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// One JSON value on lines of its own.
pub fn json(value: &Value) -> io::Result<()> {
    line(&format!("{value:#}"))
}

/// For people, on standard error; nobody to read it is no failure.
pub fn aside(text: &str) {
    let _ = writeln!(io::stderr(), "{}", plain(text));
}

/// Without what could move the cursor or colour the terminal: text may come from other machines.
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// What went wrong, for people or, with `--json`, as `{"error", "exit_code"}` on one line.
pub fn error(message: &str, exit_code: u8, as_json: bool) {
    if as_json {
        aside(&serde_json::json!({ "error": message, "exit_code": exit_code }).to_string());
    } else {
        aside(&format!("atmo: {message}"));
    }
}

/// An aligned table of an array of objects; columns that no row fills are left out.
pub fn table(columns: &[Column], rows: &[Value]) -> String {
    let mut lines: Vec<Vec<String>> = vec![Vec::new(); rows.len() + 1];
    for (head, fields) in columns {
        let cells: Vec<String> = rows.iter().map(|row| cell(row, fields)).collect();
        if cells.iter().any(|cell| cell != NOTHING) {
            lines[0].push((*head).to_owned());
            lines[1..].iter_mut().zip(cells).for_each(|(line, cell)| line.push(cell));
        }
    }
    align(&lines)
}

/// Pads every column but the last to its widest cell.
pub fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join(GAP).trim_end());
        text.push('\n');
    }
    text.pop();
    text
}

/// One field per line; lists and objects in lines of their own below it.
pub fn fields(value: &Map<String, Value>) -> String {
    let mut lines = Vec::new();
    for (name, value) in value {
        let mut name = name.replace('_', " ");
        for part in parts(value) {
            lines.push(vec![std::mem::take(&mut name), part]);
        }
    }
    align(&lines)
}

/// The lines that stand beside a field's name.
fn parts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) if !items.is_empty() => items.iter().map(show).collect(),
        Value::Object(_) | Value::Array(_) => vec![show(value)],
        other => vec![show(other)],
    }
}

fn cell(row: &Value, fields: &[&str]) -> String {
    let found = fields.iter().map(|field| &row[*field]).find(|value| !value.is_null());
    found.map_or_else(|| NOTHING.to_owned(), |value| shorten(show(value)))
}

/// Identifiers as people see them; other text up to what a line has room for.
fn shorten(text: String) -> String {
    if text.len() == IDENTIFIER_CHARS && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return text[..SHORT_ID_CHARS].to_owned();
    }
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}...", text[..end].trim_end()),
        None => text,
    }
}

/// Any value on one line.
pub fn show(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(number) if number.is_f64() => number.as_f64().map_or_else(|| number.to_string(), round),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.is_empty() => NOTHING.to_owned(),
        // Names and descriptions come from other machines: they must not move the cursor.
        Value::String(text) => text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        Value::Array(items) if items.is_empty() => NOTHING.to_owned(),
        Value::Array(items) => items.iter().map(show).collect::<Vec<_>>().join(", "),
        Value::Object(map) => show_object(map),
    }
}

/// The name first, as it is; then the other fields, each with what it is called.
fn show_object(map: &Map<String, Value>) -> String {
    let name = map.get("name").filter(|name| !name.is_null()).map(show);
    let others = map.iter().filter(|(field, value)| *field != "name" && says_something(value));
    let others = others.map(|(field, value)| format!("{} {}", field.replace('_', " "), show(value)));
    name.into_iter().chain(others).collect::<Vec<_>>().join("  ")
}

/// A table without entries, an empty text or a plain no beside other fields says nothing that people would miss.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

fn round(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_are_aligned_and_leave_empty_columns_out() {
        let rows = [json!({"id": "über", "hops": 0, "load": 0.5}), json!({"id": "x", "hops": 12, "load": null, "note": null})];
        let text = table(&[("NAME", &["name", "id"]), ("NOTE", &["note"]), ("HOPS", &["hops"]), ("LOAD", &["load"])], &rows);
        assert_eq!(text, "NAME  HOPS  LOAD\nüber  0     0.5\nx     12    -");
    }

    #[test]
    fn cells_are_short() {
        let rows = [json!({"id": "ab".repeat(32), "text": "word ".repeat(40)})];
        let text = table(&[("ID", &["id"]), ("TEXT", &["text"])], &rows);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("ababababab  word") && line.ends_with("wo...") && line.len() < 90, "{line}");
    }

    #[test]
    fn fields_stand_below_each_other() {
        let value = json!({"node_id": "ab", "listen": ["a", "b"], "mesh": {"id": "cd", "name": "home"}, "backends": []});
        let Value::Object(value) = value else { unreachable!("it is an object") };
        assert_eq!(fields(&value), "node id   ab\nlisten    a\n          b\nmesh      home  id cd\nbackends  -");
    }

    #[test]
    fn text_from_elsewhere_stays_on_its_line() {
        assert_eq!(show(&json!("a\x1b[2J\nb")), "a [2J b");
        assert_eq!(show(&json!(1.0)), "1");
    }
}
