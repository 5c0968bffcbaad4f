//! Looking at processes and signalling them, by the ids of those that a test started.

use std::fs;

use tokio::process::Command;

/// Has the kernel end the child when the thread that starts it ends, so that a killed test leaves nothing behind.
pub fn end_with_this_thread(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe and touches nothing of this process' memory.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// Every write to a file fails, as on a full disk.
pub fn let_write_nothing(command: &mut Command) {
    let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: between fork and exec only these two system calls run, and both may.
    unsafe {
        command.pre_exec(move || {
            // Else the kernel ends the process instead of failing the write.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            if libc::setrlimit(libc::RLIMIT_FSIZE, &limit) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
}

pub fn signal(process: u32, signal: libc::c_int) {
    let process = libc::pid_t::try_from(process).expect("a process id fits");
    // SAFETY: kill takes two numbers; the process is one that this test started.
    let result = unsafe { libc::kill(process, signal) };
    assert_eq!(result, 0, "process {process} can be signalled");
}

/// Whether a process still runs. A zombie does not.
pub fn is_running(process: u32) -> bool {
    status(process).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// The running children of a process.
pub fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("the tests run on Linux");
    let all = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|process| status(*process).is_some_and(|(state, its_parent)| its_parent == parent && state != 'Z')).collect()
}

/// State and parent of a process, from `/proc/ID/stat`. The name before them may hold anything, a closing bracket too.
fn status(process: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, after_name) = text.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
