//! Starting and ending the worker process.
//!
//! The worker must not outlive the node, however that dies. It ends when its standard input does, and on Linux the kernel kills it when
//! its parent goes. The kernel means the parent *thread*, so the thread that starts a worker does nothing else but wait for it: it lives
//! exactly as long as the worker. It also makes killing exact: a process id is only used while the process is certainly not reaped.

use std::ffi::OsString;
use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::oneshot;

use super::model_file::PlacedModel;
use crate::supervise::end_of_process;

/// The waiting thread needs next to nothing.
const THREAD_STACK_BYTES: usize = 128 << 10;

/// A worker process that was started.
pub struct Started {
    pub process: Arc<Process>,
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
    pub stderr: ChildStderr,
    /// How it ended, in words.
    pub ended: oneshot::Receiver<String>,
}

/// A handle to a process that may be gone.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    /// False from the moment before it is reaped.
    there: Mutex<bool>,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends the process at once, if it is still there.
    pub fn kill(&self) {
        let there = self.there.lock().expect("nothing panics while it holds the flag");
        if *there {
            // SAFETY: the process was not reaped, so its id names no other process.
            unsafe { libc::kill(self.pid as libc::pid_t, libc::SIGKILL) };
        }
    }
}

/// Starts `program` with `args`; a placed model is inherited. Must be called within a runtime.
pub async fn start(program: OsString, args: Vec<OsString>, model: Option<PlacedModel>) -> io::Result<Started> {
    let (begun, beginning) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    let thread = std::thread::Builder::new().name("atmo-worker".to_owned()).stack_size(THREAD_STACK_BYTES);
    thread.spawn(move || live(command(program, args, model.as_ref()), begun, ended, model))?;
    let (pipes, process) = beginning.await.map_err(|_| io::Error::other("the starting thread ended"))??;
    let missing = || io::Error::other("a pipe of the worker is missing");
    Ok(Started {
        process,
        stdin: ChildStdin::from_std(pipes.stdin.ok_or_else(missing)?)?,
        stdout: ChildStdout::from_std(pipes.stdout.ok_or_else(missing)?)?,
        stderr: ChildStderr::from_std(pipes.stderr.ok_or_else(missing)?)?,
        ended: end,
    })
}

/// The pipes of a child, taken out of it.
struct Pipes {
    stdin: Option<std::process::ChildStdin>,
    stdout: Option<std::process::ChildStdout>,
    stderr: Option<std::process::ChildStderr>,
}

type Beginning = oneshot::Sender<io::Result<(Pipes, Arc<Process>)>>;

/// The life of the thread: starts the child, hands out its pipes, waits for its end.
fn live(mut command: Command, begun: Beginning, ended: oneshot::Sender<String>, model: Option<PlacedModel>) {
    let spawned = command.spawn();
    // The child has its own descriptor by now.
    drop(model);
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let _ = begun.send(Err(error));
            return;
        }
    };
    let process = Arc::new(Process { pid: child.id(), there: Mutex::new(true) });
    let pipes = Pipes { stdin: child.stdin.take(), stdout: child.stdout.take(), stderr: child.stderr.take() };
    if begun.send(Ok((pipes, process.clone()))).is_err() {
        process.kill();
    }
    wait_without_reaping(process.pid);
    *process.there.lock().expect("nothing panics while it holds the flag") = false;
    let _ = ended.send(reap(&mut child));
}

fn wait_without_reaping(pid: u32) {
    // SAFETY: an all-zero siginfo is valid, and the call writes into nothing else.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        while libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, libc::WEXITED | libc::WNOWAIT) < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
}

fn reap(child: &mut Child) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    let describe = |status: ExitStatus| end_of_process(status.code(), status.signal());
    child.wait().map_or_else(|error| format!("its end is unknown: {error}"), describe)
}

fn command(program: OsString, args: Vec<OsString>, model: Option<&PlacedModel>) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Spinning threads starve a busy machine, and must be told before the process starts. A crash must not start a debugger.
    command.env("OMP_WAIT_POLICY", "passive").env("GGML_NO_BACKTRACE", "1");
    // A Ctrl-C at the terminal is for the node, which drains first.
    command.process_group(0);
    tie_to_this_thread(&mut command, model);
    command
}

#[cfg(target_os = "linux")]
fn tie_to_this_thread(command: &mut Command, model: Option<&PlacedModel>) {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::process::CommandExt as _;
    let inherited = model.map(|model| model.memory.as_raw_fd());
    // SAFETY: between fork and exec only async-signal-safe system calls are made, on a descriptor that the caller keeps open.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                return Err(io::Error::last_os_error());
            }
            match inherited {
                Some(fd) if libc::fcntl(fd, libc::F_SETFD, 0) < 0 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
}

/// Elsewhere the end of its input has to do.
#[cfg(not(target_os = "linux"))]
fn tie_to_this_thread(_: &mut Command, _: Option<&PlacedModel>) {}
