//! Log lines go to standard error, so that standard output is the answer alone.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

/// What `atmo up` logs unless told otherwise.
pub const NODE_FILTER: &str = "warn,atmo=info,atmo_adapters=info,atmo_capabilities=info,atmo_protocol=info";
/// What a command logs unless told otherwise.
pub const COMMAND_FILTER: &str = "error";

/// The text is not a filter of `tracing`.
#[derive(Debug, thiserror::Error)]
#[error("the log filter `{filter}` is wrong ({cause}): expected a level, or pairs such as `warn,atmo=debug`")]
pub struct MalformedFilter {
    filter: String,
    cause: tracing_subscriber::filter::ParseError,
}

/// Whether `filter` can be used.
pub fn check(filter: &str) -> Result<(), MalformedFilter> {
    parse(filter).map(drop)
}

/// Starts logging. Later calls change nothing.
pub fn init(filter: &str) -> Result<(), MalformedFilter> {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines =
        tracing_subscriber::fmt().with_env_filter(parse(filter)?).with_writer(|| Lenient(io::stderr())).with_ansi(colours);
    let _ = lines.with_target(true).compact().try_init();
    Ok(())
}

/// Standard error whose reader may be gone: then lines are lost, and nothing else. The subscriber would report a line that it could not
/// write with `eprintln!`, which panics where standard error is a closed pipe, and takes the task that logged with it.
struct Lenient(io::Stderr);

impl Write for Lenient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.0.write(bytes).unwrap_or(bytes.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        _ = self.0.flush();
        Ok(())
    }
}

fn parse(filter: &str) -> Result<EnvFilter, MalformedFilter> {
    EnvFilter::builder().parse(filter).map_err(|cause| MalformedFilter { filter: filter.to_owned(), cause })
}
