//! The command `atmo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    atmo::cli::run()
}
