//! One run of the `atmo` command, from its arguments to its exit code.

use std::fmt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// No single command may take longer; `join` gives up by itself after 15 s.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(40);

/// A command that ran to its end.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Finished {
    /// The JSON it printed. Fails the test when the command did.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self}");
        self.printed()
    }

    /// The JSON it printed, whatever its exit code.
    pub fn printed(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// Everything a person would have read.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Fails the test unless the command failed with exactly one line that says so.
    pub fn one_clear_line(&self) -> &str {
        assert_eq!(self.code, Some(1), "{self}");
        let lines: Vec<&str> = self.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        assert_eq!(lines.len(), 1, "wanted one line: {self}");
        lines[0]
    }

    /// Fails the test unless the command failed and its message holds one of `words`, in any case.
    pub fn refused_with(&self, words: &[&str]) {
        assert_ne!(self.code, Some(0), "{self}");
        self.says(words);
    }

    /// Fails the test unless what was printed holds one of `words`, in any case.
    pub fn says(&self, words: &[&str]) {
        let text = self.text().to_lowercase();
        assert!(words.iter().any(|word| text.contains(&word.to_lowercase())), "none of {words:?} in: {self}");
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "exit {:?} after {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.took, self.stdout, self.stderr)
    }
}

/// The binary under test with nothing of this machine's settings in its environment, and `home` for its default folders.
pub fn atmo(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atmo"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home)
        .current_dir(home)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a prepared command to its end.
pub async fn finish(command: &mut Command) -> Finished {
    let started = Instant::now();
    let output = super::in_time(COMMAND_TIME_MAX, &format!("{command:?}"), command.output()).await.expect("the binary is there");
    finished(output, started)
}

/// Runs a prepared command that reads `told` from its standard input.
pub async fn finish_told(command: &mut Command, told: &str) -> Finished {
    let started = Instant::now();
    let what = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary is there");
    let mut input = child.stdin.take().expect("stdin is piped");
    input.write_all(told.as_bytes()).await.expect("the command reads");
    drop(input);
    let output = super::in_time(COMMAND_TIME_MAX, &what, child.wait_with_output()).await;
    finished(output.expect("a child of this process can be waited for"), started)
}

fn finished(output: Output, started: Instant) -> Finished {
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: started.elapsed(),
    }
}
