//! Golden bytes: what crosses the wire today must be what crossed it yesterday.
//!
//! Each message has a file `testdata/frames/NAME.hex`. A test that fails here found a change of format: raise a version, or undo it.
//! `ATMO_WRITE_GOLDEN=1 cargo test -p atmo-protocol` writes the files of new messages (and of changed ones: look at the diff).

use std::path::PathBuf;

const HEX_PER_LINE: usize = 96;

/// Asserts that `bytes` are those recorded for `name`.
pub fn check(name: &str, bytes: &[u8]) {
    let path = path(name);
    if std::env::var_os("ATMO_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, lines(bytes)).expect("the golden file can be written");
    }
    assert_eq!(hex::encode(bytes), hex::encode(read(name)), "the bytes of `{name}` differ from {}", path.display());
}

/// The bytes recorded for `name`.
pub fn read(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(path(name)).expect("the golden file exists (ATMO_WRITE_GOLDEN=1 writes it)");
    hex::decode(text.split_whitespace().collect::<String>()).expect("the golden file holds hexadecimal digits")
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/frames").join(format!("{name}.hex"))
}

fn lines(bytes: &[u8]) -> String {
    let digits = hex::encode(bytes);
    digits.as_bytes().chunks(HEX_PER_LINE).map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect()
}
