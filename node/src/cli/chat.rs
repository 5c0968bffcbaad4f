//! `atmo chat`: a conversation with the mesh, one line a turn.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::ChatArguments;
use super::print;
use super::session::{Session, Stop};
use crate::control::{CommandError, Request};

/// Turns that are sent again with the next; older ones are left out, and said so.
const TURNS_MAX: usize = 64;
const HELP: &str = "/new begins a new conversation, /model NAME asks that model (auto: whoever fits), /exit or Ctrl-D ends";

pub async fn chat(session: &Session, arguments: ChatArguments) -> Result<ExitCode, Stop> {
    let ChatArguments { mut model, constraints } = arguments;
    let constraints = constraints.read()?;
    let at_terminal = io::stdin().is_terminal();
    if at_terminal {
        print::aside(HELP);
    }
    let mut history: Vec<Value> = Vec::new();
    while let Some(line) = next_line(at_terminal)? {
        match line.trim() {
            "" => {}
            "/exit" | "/quit" => break,
            "/help" => print::aside(HELP),
            "/new" => history.clear(),
            command if command.starts_with("/model") => {
                model = command.strip_prefix("/model").map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
                print::aside(&format!("asking {}", model.as_deref().unwrap_or("whoever fits")));
            }
            command if command.starts_with('/') => print::aside(&format!("no such command; {HELP}")),
            text => {
                let request = Request::Intent {
                    text: text.to_owned(),
                    model: model.clone(),
                    constraints: constraints.clone(),
                    explain: false,
                    stream: !session.json,
                    history: history.clone(),
                };
                match turn(session, request).await {
                    Ok(answer) => remember(&mut history, text, &answer),
                    // A conversation goes on after one failed turn; a script's does not.
                    Err(Stop::Failed(error)) if at_terminal => print::aside(&format!("atmo: {error}")),
                    Err(stop) => return Err(stop),
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn turn(session: &Session, request: Request) -> Result<String, Stop> {
    let shown = |piece: &str| {
        if io::stdout().is_terminal() { print::bytes(print::plain(piece).as_bytes()) } else { print::bytes(piece.as_bytes()) }
    };
    let reply = session.ask_streaming(request, shown).await?;
    if reply["route"].is_null() {
        return Err(CommandError::nothing_fits(print::show(&reply["reason"])).into());
    }
    if session.json {
        print::json(&reply)?;
    } else {
        print::line("")?;
        print::aside(&format!("- {}", print::show(&reply["route"]["capability"])));
    }
    Ok(reply["answer"].as_str().unwrap_or_default().to_owned())
}

fn remember(history: &mut Vec<Value>, text: &str, answer: &str) {
    history.push(json!({ "role": "user", "content": text }));
    history.push(json!({ "role": "assistant", "content": answer }));
    if history.len() > TURNS_MAX * 2 {
        history.drain(..2);
        print::aside("the conversation is long: its oldest turn is left out from now on");
    }
}

fn next_line(at_terminal: bool) -> io::Result<Option<String>> {
    if at_terminal {
        let mut out = io::stderr().lock();
        out.write_all(b"> ")?;
        out.flush()?;
    }
    let mut line = String::new();
    Ok((io::stdin().lock().read_line(&mut line)? > 0).then_some(line))
}
