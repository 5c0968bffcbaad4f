//! Server-sent events, read and written byte for byte.
//!
//! After the HTML standard ("Server-sent events", parsing an event stream), less what the OpenAI API has no use for: `id` and `retry` are
//! skipped. The parser is a pure state machine: wherever the bytes are cut, the same events come out. Lines and events are bounded; what
//! is too long is dropped and counted, and the stream goes on behind it.

use bytes::Bytes;

/// Longest line and longest event, in bytes. Chunks of a chat are a few hundred; a whole answer in one event is still far below.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// The data of the event that ends an OpenAI stream.
pub const DONE: &str = "[DONE]";

/// One event: its name, if it has one, and its data lines joined by line feeds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SseEvent {
    pub event: Option<String>,
    pub data: String,
}

/// Feed it with [`push`](Self::push); it remembers the unfinished line and event.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    /// The line being read is too long and is skipped to its end.
    skipping: bool,
    /// The last byte was a carriage return: a line feed now belongs to it.
    after_return: bool,
    started: bool,
    event: Option<String>,
    data: Option<String>,
    dropped: u64,
}

impl SseParser {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and gives the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<SseEvent> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let second_half = self.after_return && end == 0 && rest[0] == b'\n';
            self.after_return = rest[end] == b'\r';
            if !second_half {
                self.extend_line(&rest[..end]);
                self.end_line(&mut events);
            }
            rest = &rest[end + 1..];
        }
        if !rest.is_empty() {
            self.after_return = false;
            self.extend_line(rest);
        }
        events
    }

    /// The event that the stream broke off in, for servers that leave out the last empty line.
    pub fn finish(mut self) -> Option<SseEvent> {
        let mut events = Vec::new();
        self.end_line(&mut events);
        events.pop().or_else(|| self.take_event())
    }

    /// Lines and events that were too long.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        if self.skipping {
            return;
        }
        if self.line.len() + bytes.len() > EVENT_BYTES_MAX {
            self.skipping = true;
            self.dropped += 1;
            self.line = Vec::new();
            return;
        }
        self.line.extend_from_slice(bytes);
    }

    fn end_line(&mut self, events: &mut Vec<SseEvent>) {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.skipping) {
            return;
        }
        let line = String::from_utf8_lossy(&line);
        let line = if self.started { &line } else { line.strip_prefix('\u{feff}').unwrap_or(&line) };
        self.started = true;
        if line.is_empty() {
            events.extend(self.take_event());
        } else {
            self.field(line);
        }
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => self.add_data(value),
            "event" => self.event = Some(value.to_owned()),
            _ => {}
        }
    }

    fn add_data(&mut self, value: &str) {
        match &mut self.data {
            None => self.data = Some(value.to_owned()),
            Some(data) if data.len() + value.len() < EVENT_BYTES_MAX => {
                data.push('\n');
                data.push_str(value);
            }
            Some(_) => self.dropped += 1,
        }
    }

    fn take_event(&mut self) -> Option<SseEvent> {
        let event = self.event.take();
        self.data.take().map(|data| SseEvent { event, data })
    }
}

/// One event without a name, as it goes over the wire.
pub fn write_event(data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + 8);
    for line in data.split('\n') {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str =
        "\u{feff}: hello\r\n\r\nevent: error\r\ndata: {\"a\":1}\r\n\r\ndata:one\ndata: two\n\nid: 7\ndata\n\ndata: [DONE]\r\r";

    fn expected() -> Vec<SseEvent> {
        let event = |event: Option<&str>, data: &str| SseEvent { event: event.map(str::to_owned), data: data.to_owned() };
        vec![event(Some("error"), "{\"a\":1}"), event(None, "one\ntwo"), event(None, ""), event(None, DONE)]
    }

    proptest! {
        #[test]
        fn wherever_the_bytes_are_cut_the_events_are_the_same(cuts in proptest::collection::vec(0..STREAM.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let mut parser = SseParser::new();
            let events: Vec<_> = cuts.windows(2).flat_map(|cut| parser.push(&STREAM.as_bytes()[cut[0]..cut[1]])).collect();
            prop_assert_eq!(events, expected());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut parser = SseParser::new();
            parser.push(&bytes);
            parser.finish();
        }

        #[test]
        fn what_is_written_is_read(data in "[^\r\u{feff}]{0,80}") {
            let events = SseParser::new().push(&write_event(&data));
            prop_assert_eq!(events, vec![SseEvent { event: None, data }]);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_and_the_next_event_is_read() {
        let mut parser = SseParser::new();
        for _ in 0..3 {
            assert_eq!(parser.push(&vec![b'x'; EVENT_BYTES_MAX / 2]), []);
        }
        assert!(parser.line.capacity() <= EVENT_BYTES_MAX);
        assert_eq!(parser.push(b"\n\ndata: a\n\n").len(), 1);
        assert_eq!(parser.dropped(), 1);
    }

    #[test]
    fn a_stream_without_its_last_empty_line_keeps_its_last_event() {
        let mut parser = SseParser::new();
        assert_eq!(parser.push(b"data: [DONE]"), []);
        assert_eq!(parser.finish().map(|event| event.data).as_deref(), Some(DONE));
    }
}
