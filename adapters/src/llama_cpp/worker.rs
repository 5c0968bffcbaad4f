//! The worker process: one model, one context, requests over standard input, text over standard output.
//!
//! ggml aborts the whole process on bad input and nothing inside it can prevent that, so the engine runs in a process of its own that
//! holds nothing but a model. It ends when its input does. Standard output carries frames alone: whatever a library prints goes to
//! standard error.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::FromRawFd as _;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::engine::{self, EngineSettings};
use super::frames::{FrameReader, FromWorker, ToWorker, encode};
use super::template::TemplateChoice;

/// Frames read ahead of the engine; the node sends fewer than this at once.
const COMMANDS_MAX: usize = 1_024;
const READ_BYTES: usize = 64 << 10;
/// It did what it was asked, until its input ended.
const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// The worker's whole life. `args` are those behind `atmo worker`; gives the exit code.
pub fn run(args: impl IntoIterator<Item = String>) -> i32 {
    let settings = match read_arguments(args) {
        Ok(settings) => settings,
        Err(message) => {
            eprintln!("atmo worker: {message}; it is started by `atmo up`, not by hand");
            return USAGE;
        }
    };
    let frames = match frames_only() {
        Ok(frames) => Arc::new(Mutex::new(frames)),
        Err(error) => {
            eprintln!("atmo worker: no standard output: {error}");
            return FAILED;
        }
    };
    let (commands, received) = sync_channel(COMMANDS_MAX);
    let answers = Arc::clone(&frames);
    std::thread::spawn(move || read_input(&commands, &answers));
    let outcome = engine::serve(&settings, &received, &mut |frame| write_frame(&frames, &frame));
    match outcome {
        Ok(()) => DONE,
        Err(error) => {
            let _ = write_frame(&frames, &FromWorker::Fatal { message: error.to_string() });
            FAILED
        }
    }
}

/// What [`run`] understands, as arguments.
pub fn arguments(settings: &EngineSettings) -> Vec<std::ffi::OsString> {
    let text = |value: String| std::ffi::OsString::from(value);
    vec![
        text("--model".into()),
        settings.model.clone().into_os_string(),
        text("--slots".into()),
        text(settings.slots.to_string()),
        text("--context".into()),
        text(settings.context.to_string()),
        text("--threads".into()),
        text(settings.threads.to_string()),
        text("--template".into()),
        text(settings.template.word().to_owned()),
        text("--temperature".into()),
        text(settings.temperature.to_string()),
    ]
}

fn read_arguments(args: impl IntoIterator<Item = String>) -> Result<EngineSettings, String> {
    let mut settings = EngineSettings {
        model: PathBuf::new(),
        slots: 1,
        context: 1024,
        threads: 1,
        template: TemplateChoice::ChatMl,
        temperature: 0.8,
    };
    let mut args = args.into_iter();
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("`{name}` needs a value"))?;
        let wrong = || format!("`{value}` is no value for `{name}`");
        match name.as_str() {
            "--model" => settings.model = value.into(),
            "--slots" => settings.slots = value.parse().ok().filter(|slots| (1..=64).contains(slots)).ok_or_else(wrong)?,
            "--context" => {
                settings.context = value.parse().ok().filter(|context| (64..=1 << 20).contains(context)).ok_or_else(wrong)?
            }
            "--threads" => {
                settings.threads = value.parse().ok().filter(|threads| (1..=512).contains(threads)).ok_or_else(wrong)?
            }
            "--template" => settings.template = TemplateChoice::parse(&value).ok_or_else(wrong)?,
            "--temperature" => settings.temperature = value.parse().ok().filter(|t: &f32| t.is_finite()).ok_or_else(wrong)?,
            _ => return Err(format!("`{name}` is unknown")),
        }
    }
    if settings.model.as_os_str().is_empty() { Err("`--model` is missing".to_owned()) } else { Ok(settings) }
}

/// Takes standard output for frames, and sends what others print there to standard error.
fn frames_only() -> std::io::Result<File> {
    // SAFETY: plain system calls on this process's own standard descriptors; the duplicate belongs to nobody else.
    unsafe {
        let frames = libc::dup(libc::STDOUT_FILENO);
        if frames < 0 || libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(File::from_raw_fd(frames))
    }
}

/// Whole frames, whichever thread writes.
fn write_frame(frames: &Mutex<File>, frame: &FromWorker) -> std::io::Result<()> {
    let bytes = encode(frame).map_err(std::io::Error::other)?;
    frames.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
}

/// Passes requests on until the input ends, and the process with it: the engine may be in the middle of a long computation, and nothing
/// is left to be saved. Pings are answered here, for the same reason.
fn read_input(commands: &SyncSender<ToWorker>, answers: &Mutex<File>) {
    let mut reader = FrameReader::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut input = std::io::stdin().lock();
    loop {
        let read = match input.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => exit_now(DONE),
            Ok(read) => read,
        };
        match reader.push::<ToWorker>(&buffer[..read]) {
            Err(error) => {
                eprintln!("atmo worker: {error}");
                exit_now(FAILED);
            }
            Ok(frames) => {
                for frame in frames {
                    let taken = match frame {
                        ToWorker::Ping => write_frame(answers, &FromWorker::Pong).is_ok(),
                        work => commands.send(work).is_ok(),
                    };
                    if !taken {
                        return;
                    }
                }
            }
        }
    }
}

/// Without running destructors: the engine's thread still uses what they would destroy.
fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_survive_the_command_line() {
        let settings = EngineSettings {
            model: "/proc/self/fd/9".into(),
            slots: 4,
            context: 1024,
            threads: 2,
            template: TemplateChoice::OfModel,
            temperature: 0.0,
        };
        let args = arguments(&settings).into_iter().map(|arg| arg.into_string().expect("the test's arguments are text"));
        assert_eq!(read_arguments(args), Ok(settings));
        for wrong in [&["--slots", "0"][..], &["--model"], &["--x", "1"], &[], &["--context", "99999999"]] {
            assert!(read_arguments(wrong.iter().map(|arg| (*arg).to_owned())).is_err(), "{wrong:?}");
        }
    }
}
