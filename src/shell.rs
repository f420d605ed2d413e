//! A shell command and what it says, bounded in time and in words; nothing that it started outlives it, but where
//! starting something is what it is for.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::engine::cancel::Cancel;

/// More than a number or a line of complaint takes.
const MOST: u64 = 64 << 10;
/// How long output is waited for after the end: it is in the pipe, or something else holds the pipe open.
const REST: Duration = Duration::from_millis(500);

/// How a command ended.
pub struct Ended {
    /// Its exit code, or the signal that ended it.
    pub status: ExitStatus,
    /// The beginning of what it wrote to stdout.
    pub out: String,
    /// The beginning of what it wrote to stderr.
    pub err: String,
}

/// The group of a command, for as long as it has not been waited for: a number that is taken again is not ended.
#[derive(Clone, Default)]
struct Group(Arc<Mutex<Option<Pid>>>);

impl Group {
    fn set(&self, pid: Option<Pid>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pid;
    }

    fn end(&self) {
        if let Some(pid) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Runs a command with `sh -c`, with these variables beside its environment.
///
/// # Errors
/// A sentence: why it did not come to its end.
pub fn run(command: &str, variables: &[(&str, String)], within: Duration, cancel: &Cancel) -> Result<Ended, String> {
    let end = Instant::now() + within;
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|e| format!("sh cannot be started: {e}"))?;
    let pid = Pid::from_child(&child);
    let group = Group::default();
    group.set(Some(pid));
    let interrupted = group.clone();
    cancel.on_cancel(move || interrupted.end());
    let (out, err) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let mut pause = Duration::from_millis(1);
    let ended = loop {
        // Not yet reaped, so that its number stays its own until its group is ended.
        let wait = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(pid), wait) {
            Ok(Some(_)) => break Ok(()),
            Ok(None) | Err(Errno::INTR) => {}
            Err(e) => break Err(format!("it cannot be waited for: {e}")),
        }
        if Instant::now() >= end {
            break Err(format!("no end within {:.1} s", within.as_secs_f64()));
        }
        if cancel.failure().is_some() {
            break Err("interrupted".to_owned());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    // What it left behind in its group goes with it; the group is there as long as one of it is.
    group.end();
    group.set(None);
    let status = child.wait().map_err(|e| format!("it cannot be waited for: {e}"))?;
    ended?;
    let text = |from: Receiver<Vec<u8>>| {
        let bytes = from.recv_timeout(REST).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Ended { status, out: text(out), err: text(err) })
}

/// Runs a command that starts something which is to stay: what it leaves behind goes on, and may write on. Only a command
/// that does not come to its end is ended with all that it started.
///
/// # Errors
/// A sentence: why it did not come to its end.
pub fn start(command: &str, within: Duration, cancel: &Cancel) -> Result<Ended, String> {
    let end = Instant::now() + within;
    let file = || tempfile::tempfile().map_err(|e| format!("no file for what it says: {e}"));
    // A pipe would break under what stays.
    let (out, err) = (file()?, file()?);
    let copy = |file: &File| file.try_clone().map_err(|e| format!("no file for what it says: {e}"));
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stdout(copy(&out)?)
        .stderr(copy(&err)?)
        .process_group(0)
        .spawn()
        .map_err(|e| format!("sh cannot be started: {e}"))?;
    let pid = Pid::from_child(&child);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < end && cancel.failure().is_none() => {
                std::thread::sleep(Duration::from_millis(20));
            }
            ended => {
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = child.wait();
                return Err(match ended {
                    Err(e) => format!("it cannot be waited for: {e}"),
                    Ok(_) if cancel.failure().is_some() => "interrupted".to_owned(),
                    Ok(_) => format!("no end within {:.1} s", within.as_secs_f64()),
                });
            }
        }
    };
    let text = |mut file: File| {
        let mut bytes = Vec::new();
        // What cannot be read was said in vain; the status counts.
        let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(MOST).read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Ended { status, out: text(out), err: text(err) })
}

/// Reads a pipe to its end and keeps its beginning, so that the other side never waits.
fn reader(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut kept = Vec::new();
        let _ = pipe.by_ref().take(MOST).read_to_end(&mut kept);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        let _ = send.send(kept);
    });
    receive
}
