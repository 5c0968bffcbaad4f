//! Server-sent events: wherever any bytes are cut, the same events come out.
#![no_main]

use atmo_dialects::sse::{SseEvent, SseParser};
use libfuzzer_sys::fuzz_target;

fn read(pieces: &[&[u8]]) -> Vec<SseEvent> {
    let mut parser = SseParser::new();
    let mut events: Vec<SseEvent> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    events.extend(parser.finish());
    events
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, bytes)) = data.split_first() else { return };
    let (first, second) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(read(&[bytes]), read(&[first, second]));
});
