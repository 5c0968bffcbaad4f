//! Commands that ask the mesh for something: `route` decides, `intent` has it done.

use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;

use atmo_capabilities::intent::{ConstraintError, Constraints};
use serde_json::Value;

use super::print::{self, Column};
use super::session::{Session, Stop};
use super::{ConstraintArguments, IntentArguments, RouteArguments, RouteCommand, evaluation};
use crate::control::{self, CommandError, Request};

/// Longest text that is read from standard input. Far more than a model's context, so that it is the model that says so.
const TEXT_BYTES_MAX: u64 = 2 << 20;

const CANDIDATE_COLUMNS: [Column; 3] = [("CAPABILITY", &["capability"]), ("NODE", &["node"]), ("SCORE", &["score"])];

pub async fn route(session: &Session, arguments: RouteArguments) -> Result<ExitCode, Stop> {
    let RouteArguments { command, text, explain, model, constraints } = arguments;
    if let Some(RouteCommand::Eval { file, ablate }) = command {
        return evaluation::evaluate(session, &file, ablate);
    }
    let request = Request::Route { text: wanted(text.unwrap_or_default())?, model, constraints: constraints.read()? };
    let route = session.ask(request).await?;
    match route["explanation"].as_str() {
        _ if session.json => print::json(&route)?,
        Some(explanation) if explain => print::line(explanation.trim_end())?,
        _ => print_route(&route)?,
    }
    Ok(fitting(&route["chosen"]))
}

pub async fn intent(session: &Session, arguments: IntentArguments) -> Result<ExitCode, Stop> {
    let IntentArguments { text, explain, model, constraints } = arguments;
    let constraints = constraints.read()?;
    let stream = !session.json;
    let mut answer = Answer::default();
    let request = Request::Intent { text: wanted(text)?, model, constraints, explain, stream, history: Vec::new() };
    let reply = session.ask_streaming(request, |piece| answer.print(piece)).await;
    let reply = reply.inspect_err(|_| answer.end_line_quietly())?;
    if session.json {
        print::json(&reply)?;
    } else {
        answer.finish(&reply)?;
        print_reasons(&reply, explain);
    }
    Ok(fitting(&reply["route"]))
}

impl ConstraintArguments {
    /// Those that were given, checked here as well, so that a wrong one is an error of usage and costs no round trip.
    pub(super) fn read(self) -> Result<control::Constraints, Stop> {
        let lists = [
            ("type", self.kind),
            ("node", self.node),
            ("not_node", self.not_node),
            ("label", self.label),
            ("residency", self.residency),
        ];
        let figures = [
            ("context_tokens", self.context_tokens),
            ("max_cost", self.max_cost),
            ("max_latency_ms", self.max_latency_ms),
            ("min_quality", self.min_quality),
        ];
        let switches = [
            ("local_only", self.local_only),
            ("tools", self.tools),
            ("vision", self.vision),
            ("require_free", self.require_free),
        ];
        let lists = lists.into_iter().filter(|(_, values)| !values.is_empty()).map(|(name, values)| (name, Value::from(values)));
        let figures = figures.into_iter().filter_map(|(name, value)| Some((name, Value::from(value?))));
        let switches = switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name, Value::from(true)));
        let given: control::Constraints =
            lists.chain(figures).chain(switches).map(|(name, value)| (name.to_owned(), value)).collect();
        let read = Constraints::default().set_json(&Value::Object(given.clone()));
        read.map_err(|error| CommandError::usage(as_flag(error)))?;
        Ok(given)
    }
}

/// The error with the name as it is typed.
fn as_flag(error: ConstraintError) -> ConstraintError {
    let name = error.field.rsplit('.').next().unwrap_or_default().replace('_', "-");
    ConstraintError { field: format!("--{name}"), ..error }
}

/// 3 where nothing was chosen.
fn fitting(chosen: &Value) -> ExitCode {
    if chosen.is_null() { ExitCode::from(CommandError::NOTHING_FITS) } else { ExitCode::SUCCESS }
}

/// The text of an intent: the argument, or standard input for `-`.
fn wanted(text: String) -> Result<String, Stop> {
    let text = if text == "-" { read_text(io::stdin().lock())? } else { text };
    if text.trim().is_empty() {
        return Err(CommandError::usage("the intent is empty: say what is wanted, in words").into());
    }
    Ok(text)
}

fn read_text(from: impl Read) -> Result<String, CommandError> {
    let mut bytes = Vec::new();
    from.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(CommandError::failed)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(CommandError::usage(format_args!("standard input holds more than {TEXT_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| CommandError::usage("standard input is not UTF-8 text"))
}

/// The answer as it appears on standard output.
#[derive(Default)]
struct Answer {
    printed: bool,
    ends_line: bool,
}

impl Answer {
    fn print(&mut self, piece: &str) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        self.printed = true;
        self.ends_line = piece.ends_with('\n');
        // A pipe gets the answer as it is; a terminal nothing that could move its cursor.
        if io::stdout().is_terminal() { print::bytes(print::plain(piece).as_bytes()) } else { print::bytes(piece.as_bytes()) }
    }

    /// Prints what was not streamed, and ends the last line.
    fn finish(&mut self, reply: &Value) -> io::Result<()> {
        if let (false, Some(answer)) = (self.printed, reply["answer"].as_str()) {
            self.print(answer)?;
        }
        if self.printed && !self.ends_line { print::bytes(b"\n") } else { Ok(()) }
    }

    /// So that an error does not stand in the middle of the answer's last line.
    fn end_line_quietly(&self) {
        if self.printed && !self.ends_line {
            let _ = print::bytes(b"\n");
        }
    }
}

/// Who answered and why: for people, so not on standard output.
fn print_reasons(reply: &Value, explain: bool) {
    if reply["route"].is_null() {
        print::aside(&format!("atmo: nothing fits: {}", print::show(&reply["reason"])));
    } else if explain || io::stderr().is_terminal() {
        print::aside(&summary(reply));
    }
    if let (true, Some(explanation)) = (explain, reply["explanation"].as_str()) {
        print::aside(explanation.trim_end());
    }
}

/// `answered by qwen2.5:7b on attic (1 hop, score 0.83), first word after 120 ms, 1840 ms in all`
fn summary(reply: &Value) -> String {
    let route = &reply["route"];
    let hops = match route["hops"].as_u64() {
        Some(1) => "1 hop".to_owned(),
        hops => format!("{} hops", hops.unwrap_or_default()),
    };
    let [capability, node, score, first, total] =
        [&route["capability"], &route["node"], &route["score"], &reply["first_token_ms"], &reply["total_ms"]].map(print::show);
    format!("answered by {capability} on {node} ({hops}, score {score}), first word after {first} ms, {total} ms in all")
}

fn print_route(route: &Value) -> io::Result<()> {
    let chosen = &route["chosen"];
    if !chosen.is_null() {
        let [capability, node, score, hops] = ["capability", "node", "score", "hops"].map(|field| print::show(&chosen[field]));
        print::line(&format!("{capability} on {node}  (score {score}, hops {hops})"))?;
    }
    print::line(&print::show(&route["reason"]))?;
    let candidates = route["candidates"].as_array().map(Vec::as_slice).unwrap_or_default();
    if candidates.is_empty() { Ok(()) } else { print::line(&format!("\n{}", candidate_table(candidates))) }
}

/// Every factor is a column.
fn candidate_table(candidates: &[Value]) -> String {
    let mut lines = vec![CANDIDATE_COLUMNS.map(|(head, _)| head.to_owned()).to_vec()];
    let factors: Vec<&String> = candidates[0]["factors"].as_object().map(|factors| factors.keys().collect()).unwrap_or_default();
    lines[0].extend(factors.iter().map(|factor| factor.replace('_', " ").to_uppercase()));
    for candidate in candidates {
        let own = CANDIDATE_COLUMNS.iter().map(|(_, fields)| print::show(&candidate[fields[0]]));
        let parts = factors.iter().map(|factor| print::show(&candidate["factors"][factor.as_str()]));
        lines.push(own.chain(parts).collect());
    }
    print::align(&lines)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wanted_is_text() {
        assert_eq!(read_text("hello".as_bytes()).unwrap(), "hello");
        assert!(read_text(&[0xff_u8, 0xfe][..]).unwrap_err().message.contains("UTF-8"));
        assert_eq!(read_text(io::repeat(b'x')).unwrap_err().exit_code, CommandError::USAGE);
        assert!(matches!(wanted("  ".to_owned()), Err(Stop::Failed(error)) if error.exit_code == 2));
    }

    #[test]
    fn every_factor_of_every_candidate_is_shown() {
        let candidates = [
            json!({"capability": "a", "node": "n", "score": 0.9, "factors": {"similarity": 0.95, "distance": 1.0}}),
            json!({"capability": "b", "node": "n", "score": 0.5, "factors": {"similarity": 0.5}}),
        ];
        let text = candidate_table(&candidates);
        assert_eq!(text.lines().next().unwrap(), "CAPABILITY  NODE  SCORE  SIMILARITY  DISTANCE");
        assert!(text.lines().nth(2).unwrap().ends_with("0.5         -"), "{text}");
    }

    #[test]
    fn a_summary_reads_like_a_sentence() {
        let reply =
            json!({"route": {"capability": "m", "node": "n", "score": 0.8312, "hops": 1}, "first_token_ms": 12, "total_ms": 30});
        assert_eq!(summary(&reply), "answered by m on n (1 hop, score 0.831), first word after 12 ms, 30 ms in all");
    }
}
