//! Answers of backends told in every dialect: no bytes break a teller, and cutting them elsewhere changes nothing that is said.
#![no_main]

use atmo_dialects::{Asked, Reader, anthropic, ollama, responses};
use libfuzzer_sys::fuzz_target;

const REQUEST: &[&str] = &[
    r#"{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":9,"stream":true,"input":"x"}"#,
    r#"{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":9,"stream":false,"input":"x"}"#,
];

fn asked(dialect: u8, request: &str) -> Asked {
    let body = request.as_bytes();
    let asked = match dialect % 3 {
        0 => ollama::chat(body, "2026-01-01T00:00:00Z", Box::new(|| 1)),
        1 => anthropic::messages(body, "id"),
        _ => responses::responses(body, "id", 0),
    };
    asked.expect("the request is well formed")
}

fn told(kind: u8, pieces: &[&[u8]]) -> Vec<u8> {
    let content_type = if kind & 1 == 0 { "text/event-stream" } else { "application/json" };
    let mut teller = asked(kind >> 2, REQUEST[usize::from(kind >> 1 & 1)]).teller;
    let (mut reader, mut out) = (Reader::new(content_type), Vec::new());
    for piece in pieces {
        match reader.push(piece) {
            Ok(events) => events.into_iter().for_each(|event| teller.tell(event, &mut out)),
            Err(_) => return out,
        }
    }
    match reader.finish() {
        Ok(events) => {
            events.into_iter().for_each(|event| teller.tell(event, &mut out));
            teller.end(&mut out);
        }
        Err(error) if teller.streams() => teller.broken_off(&error.to_string(), &mut out),
        Err(_) => {}
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let [kind, cut, bytes @ ..] = data else { return };
    let (first, second) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(told(*kind, &[bytes]), told(*kind, &[first, second]));
});
