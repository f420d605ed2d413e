//! The database while it is written to: once a second its sessions and who waits for a lock.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::domain::address::PgAddress;
use crate::domain::failure::Outcome;
use crate::engine::cancel::Cancel;
use crate::store::postgres::connect::Postgres;
use crate::store::postgres::monitor;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// For one statement.
const LIMIT: Duration = Duration::from_secs(5);

/// What was seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) looks: u64,
    /// The most sessions at once.
    pub(super) connections: u64,
    /// How many are allowed.
    pub(super) allowed: u64,
    /// The most statements that waited for a lock at once.
    pub(super) blocked: u64,
    /// The longest that one was seen to wait, in seconds.
    pub(super) longest: f64,
}

/// A look that goes on until it is ended.
pub(super) struct Watch {
    end: Sender<()>,
    thread: JoinHandle<Outcome<Seen>>,
}

impl Watch {
    /// Begins, on a thread of its own: the driver must not be called on one that runs asynchronous work.
    pub(super) fn begin(address: &PgAddress, id: &str, cancel: &Cancel) -> Watch {
        let (end, ended) = channel();
        let (address, id, cancel) = (address.clone(), id.to_owned(), cancel.clone());
        let thread = std::thread::spawn(move || {
            let mut client = Postgres::new(&address, &id, &cancel)?.connect()?;
            monitor::bound(&mut client, LIMIT)?;
            let mut seen = Seen::default();
            loop {
                let (connections, blocked) = (monitor::connections(&mut client)?, monitor::blocked(&mut client)?);
                seen.looks += 1;
                seen.connections = seen.connections.max(connections.used);
                seen.allowed = connections.allowed;
                seen.blocked = seen.blocked.max(blocked.len() as u64);
                seen.longest = blocked.iter().filter_map(|b| b.seconds).fold(seen.longest, f64::max);
                if !matches!(ended.recv_timeout(PAUSE), Err(RecvTimeoutError::Timeout)) {
                    return Ok(seen);
                }
            }
        });
        Watch { end, thread }
    }

    /// What was seen until now; else why nothing was.
    pub(super) fn end(self) -> Result<Seen, String> {
        let _ = self.end.send(());
        match self.thread.join() {
            Ok(seen) => seen.map_err(|failure| failure.message),
            Err(_) => Err("the look at the database ended by itself".to_owned()),
        }
    }
}
