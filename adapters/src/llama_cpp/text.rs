//! From the bytes of tokens to text that may be sent: whole characters only, and nothing of a stop string.
//!
//! A token may end inside a character, and a stop string may span tokens; what could still become either is held back. Pure.

/// The text of one answer.
#[derive(Debug, Default)]
pub struct TextStream {
    /// The beginning of a character.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop string.
    held: String,
    stops: Vec<String>,
    stopped: bool,
}

impl TextStream {
    /// Ends at the first of `stops`; empty ones count for nothing.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), ..Self::default() }
    }

    /// Takes the bytes of a token and gives what may be sent.
    pub fn push(&mut self, token: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        self.bytes.extend_from_slice(token);
        let whole = whole_characters(&self.bytes);
        self.held.push_str(&String::from_utf8_lossy(&self.bytes[..whole]));
        self.bytes.drain(..whole);
        self.release()
    }

    /// What was held back, once nothing more comes.
    pub fn finish(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        let rest = String::from_utf8_lossy(&self.bytes).into_owned();
        self.bytes.clear();
        self.held.push_str(&rest);
        let text = self.release();
        text + &std::mem::take(&mut self.held)
    }

    /// Whether a stop string came.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    fn release(&mut self) -> String {
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let kept = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        std::mem::replace(&mut self.held, rest)
    }
}

/// How many bytes at the start are whole characters, or can never become one.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.len(),
        Err(error) => match error.error_len() {
            None => error.valid_up_to(),
            Some(length) => {
                let behind = error.valid_up_to() + length;
                behind + whole_characters(&bytes[behind..])
            }
        },
    }
}

/// The longest end of `text` that `stop` begins with, in bytes.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    let fits = |length: &usize| {
        text.is_char_boundary(text.len() - length) && stop.as_bytes().starts_with(&text.as_bytes()[text.len() - length..])
    };
    (1..=longest).rev().find(fits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn streamed(text: &[u8], piece: usize, stops: &[&str]) -> (String, bool) {
        let mut stream = TextStream::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut out: String = text.chunks(piece).map(|token| stream.push(token)).collect();
        out += &stream.finish();
        (out, stream.stopped())
    }

    #[test]
    fn a_character_is_never_cut() {
        let mut stream = TextStream::new(Vec::new());
        assert_eq!(stream.push(&"é".as_bytes()[..1]), "");
        assert_eq!(stream.push(&"é".as_bytes()[1..]), "é");
        assert_eq!(stream.push(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(stream.push(&"🌍".as_bytes()[..3]), "");
        assert_eq!(stream.finish(), "\u{fffd}");
    }

    #[test]
    fn a_stop_string_may_span_tokens() {
        for piece in 1..8 {
            assert_eq!(streamed("one two END three".as_bytes(), piece, &["END"]), ("one two ".into(), true));
            assert_eq!(streamed("one two ENough".as_bytes(), piece, &["END", ""]), ("one two ENough".into(), false));
            assert_eq!(streamed("aab".as_bytes(), piece, &["ab"]), ("a".into(), true));
        }
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(text in "[abé🌍]{0,30}", piece in 1usize..6, stop in "[abé]{1,3}") {
            let whole = text.split(&stop).next().unwrap_or_default().to_owned();
            prop_assert_eq!(streamed(text.as_bytes(), piece, &[&stop]).0, whole);
        }
    }
}
