//! Forms with files (RFC 7578, `multipart/form-data`), as audio transcriptions are asked for: read only as far as `model` is concerned.
//!
//! The boundary is the body's first line, so that a body alone says how it is to be read, and nothing beside it has to travel.

use std::ops::Range;

/// Parts of a form; a transcription has about ten fields.
const PARTS_MAX: usize = 64;
/// Longest boundary (RFC 2046).
const BOUNDARY_MAX: usize = 70;
/// Longest value of a field that is not a file.
const FIELD_BYTES_MAX: usize = 16 << 10;
/// What another node's form may say to a backend.
const KNOWN: &[&str] = &[
    "file",
    "model",
    "language",
    "prompt",
    "response_format",
    "temperature",
    "timestamp_granularities[]",
    "timestamp_granularities",
    "stream",
];

/// A form, its parts found and its bytes untouched.
#[derive(Debug)]
pub struct Form<'a> {
    body: &'a [u8],
    boundary: &'a str,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    name: String,
    /// From the dashes of its boundary to those of the next.
    whole: Range<usize>,
    value: Range<usize>,
}

/// The body is no form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is no form (multipart/form-data) of at most {PARTS_MAX} fields")]
pub struct NotAForm;

impl<'a> Form<'a> {
    pub fn parse(body: &'a [u8]) -> Result<Self, NotAForm> {
        let line = body.windows(2).take(BOUNDARY_MAX + 4).position(|two| two == b"\r\n").ok_or(NotAForm)?;
        let boundary = body[..line].strip_prefix(b"--").and_then(|text| std::str::from_utf8(text).ok()).ok_or(NotAForm)?;
        if boundary.is_empty() || !boundary.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err(NotAForm);
        }
        let parts = read_parts(body, format!("\r\n--{boundary}").as_bytes(), line)?;
        Ok(Self { body, boundary, parts })
    }

    /// What the `Content-Type` of the body is.
    pub fn content_type(&self) -> String {
        format!("multipart/form-data; boundary=\"{}\"", self.boundary)
    }

    /// The value of a field, if it is text and not long.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        let part = self.parts.iter().find(|part| part.name == name && part.value.len() <= FIELD_BYTES_MAX)?;
        std::str::from_utf8(&self.body[part.value.clone()]).ok()
    }

    /// Whether the answer is wanted as a stream.
    pub fn streams(&self) -> bool {
        self.field("stream").is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
    }

    /// The same form for the model that is called `model`.
    pub fn with_model(&self, model: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + model.len());
        let mut from = 0;
        for part in self.parts.iter().filter(|part| part.name == "model") {
            out.extend_from_slice(&self.body[from..part.value.start]);
            // A line end would begin another part.
            out.extend(model.bytes().filter(|byte| !byte.is_ascii_control()));
            from = part.value.end;
        }
        out.extend_from_slice(&self.body[from..]);
        out
    }

    /// The same form with those of its fields that a member may set.
    pub fn known_parts(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len());
        for part in self.parts.iter().filter(|part| KNOWN.contains(&part.name.as_str())) {
            out.extend_from_slice(&self.body[part.whole.clone()]);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        out
    }
}

/// `delimiter` begins with the line end that belongs to it; the first one has none, and its own line ends at `line`.
fn read_parts(body: &[u8], delimiter: &[u8], line: usize) -> Result<Vec<Part>, NotAForm> {
    let (mut parts, mut start, mut head) = (Vec::new(), 0, line + 2);
    loop {
        let headers_end = find(&body[head..], b"\r\n\r\n").ok_or(NotAForm)? + head;
        let value_start = headers_end + 4;
        // An empty value ends with the line end that closes the headers.
        let value_end = find(&body[value_start - 2..], delimiter).ok_or(NotAForm)? + value_start - 2;
        let name = name_in(&body[head..headers_end]).ok_or(NotAForm)?;
        parts.push(Part { name, whole: start..value_end, value: value_start.min(value_end)..value_end });
        let after = value_end + delimiter.len();
        match body.get(after..after + 2) {
            Some(b"--") => return Ok(parts),
            Some(b"\r\n") if parts.len() < PARTS_MAX => (start, head) = (value_end + 2, after + 2),
            _ => return Err(NotAForm),
        }
    }
}

/// The `name` of a part's `Content-Disposition`.
fn name_in(headers: &[u8]) -> Option<String> {
    let headers = String::from_utf8_lossy(headers);
    let disposition = headers.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))?;
    let name = disposition.split(';').find_map(|parameter| parameter.trim().strip_prefix("name="))?;
    Some(name.trim().trim_matches('"').to_owned())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    // The first byte first: files are long, and most of their bytes are something else.
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == what[0]) {
        if bytes[from + at..].starts_with(what) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORM: &[u8] = b"--xY\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nauto\r\n--xY\r\nContent-Disposition: form-data; \
name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\nRI\r\nFF\x00\xff--xZ\r\n--xY\r\ncontent-disposition: form-data; \
name=\"n_discard\"\r\n\r\n\r\n--xY--\r\n";

    #[test]
    fn only_the_model_changes() {
        let form = Form::parse(FORM).unwrap();
        assert_eq!((form.field("model"), form.field("n_discard"), form.field("other")), (Some("auto"), Some(""), None));
        assert_eq!(form.content_type(), "multipart/form-data; boundary=\"xY\"");
        let changed = form.with_model("whisper\r\n1");
        let changed = Form::parse(&changed).unwrap();
        assert_eq!(changed.field("model"), Some("whisper1"));
        assert_eq!(changed.body.len(), FORM.len() + 4);
        assert!(changed.body.windows(6).any(|bytes| bytes == b"FF\x00\xff--"));
    }

    #[test]
    fn a_member_may_set_what_is_known() {
        let kept = Form::parse(FORM).unwrap().known_parts();
        let kept = Form::parse(&kept).unwrap();
        let names: Vec<&str> = kept.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["model", "file"]);
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for body in
            [&b""[..], b"{}", b"--\r\n", b"--x\r\n\r\n", b"--x\r\nA: b\r\n\r\nvalue", b"--x\r\nA: b\r\n\r\nvalue\r\n--x--"]
        {
            assert!(Form::parse(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..FORM.len()) {
            _ = Form::parse(&bytes);
            _ = Form::parse(&FORM[..cut]);
            _ = Form::parse(&FORM[cut..]);
        }
    }
}
