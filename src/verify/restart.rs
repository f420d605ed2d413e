//! A restart that is proven: what was seen of the server meanwhile, and whether it is another process afterwards.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::docker::Unit;
use super::process::{self, Process};
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::tracking::View;
use crate::engine::cancel::Cancel;
use crate::mlflow::{Client, Fault};
use crate::shell;

/// Between two looks of the witness.
const PACE: Duration = Duration::from_millis(100);
/// A look that takes longer has no answer; a server that is busy is not one that is down.
const LOOK: Duration = Duration::from_secs(2);
/// Looks in a row that are refused before the server counts as down: one may be a connection that broke.
const IN_A_ROW: u32 = 2;
/// How long somebody may take who restarts it by hand.
pub const BY_HAND: Duration = Duration::from_secs(30 * 60);

/// Who restarts it.
#[derive(Debug, Clone)]
pub enum Way {
    /// A shell command.
    Command(String),
    /// Docker.
    Unit(Unit),
    /// The operator, who is asked to.
    Hand,
}

/// What a witness saw.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    looks: u32,
    refused: u32,
    /// When the first of the refused looks in a row was, and when one was answered again after enough of them.
    since: Option<Instant>,
    down: bool,
    back: Option<Instant>,
    gone_for: Duration,
}

impl Seen {
    fn take(&mut self, up: Option<bool>, now: Instant) {
        self.looks += 1;
        match up {
            Some(false) => {
                self.refused += 1;
                self.back = None;
                let since = *self.since.get_or_insert(now);
                if self.refused >= IN_A_ROW {
                    self.down = true;
                    self.gone_for = self.gone_for.max(now - since);
                }
            }
            Some(true) => {
                if self.down && self.back.is_none() {
                    self.back = Some(now);
                }
                if let Some(since) = self.since.take().filter(|_| self.refused >= IN_A_ROW) {
                    self.gone_for = self.gone_for.max(now - since);
                }
                self.refused = 0;
            }
            None => {}
        }
    }
}

/// Looks at the server's `/health` all the time, until it is dropped.
struct Witness {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
}

impl Witness {
    fn begin(client: &Client, runtime: &Handle) -> Witness {
        let witness = Witness { seen: Arc::default(), stop: Arc::default() };
        let (seen, stop) = (witness.seen.clone(), witness.stop.clone());
        let client = client.once().within(LOOK);
        runtime.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let up = match client.live().await {
                    Ok(_) => Some(true),
                    // A proxy before the server says it in its own words.
                    Err(t) if matches!(t.fault, Fault::Connect | Fault::Server(502..=504)) => Some(false),
                    Err(t) if t.fault == Fault::Timeout => None,
                    // It answers, whatever it says.
                    Err(_) => Some(true),
                };
                seen.lock().unwrap_or_else(PoisonError::into_inner).take(up, Instant::now());
                tokio::time::sleep(PACE).await;
            }
        });
        witness
    }

    fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Asks the operator for something that is waited for so long at most: `restart http://h`. Where they can say that it is
/// done, the receiver hears of it.
pub type Request<'a> = dyn Fn(&str, Duration) -> Option<Receiver<()>> + 'a;

/// What speaks for a restart.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// Sentences, for people. None: nothing does.
    pub told: Vec<String>,
}

impl Proof {
    /// Whether there was one.
    pub fn holds(&self) -> bool {
        !self.told.is_empty()
    }
}

/// What a restart came to.
#[derive(Debug, Clone)]
pub struct Restarted {
    /// What speaks for it.
    pub proof: Proof,
    /// Why the server is not there again; `None`: it is.
    pub away: Option<String>,
    /// From the command to the first search that was answered.
    pub took: Duration,
}

/// A server that is to be restarted.
pub struct Restart<'a> {
    /// The server.
    pub client: &'a Client,
    /// Who does it.
    pub way: &'a Way,
    /// How long the command may take.
    pub command: Duration,
    /// How long after it, or after Enter, the restart is looked for: it may have only asked for one.
    pub seen: Duration,
    /// How long the server may take to be ready again.
    pub ready: Duration,
    /// The threads of its calls. Not to be called within.
    pub runtime: &'a Handle,
    /// Ends it early.
    pub cancel: &'a Cancel,
    /// Asks for a restart by hand.
    pub request: &'a Request<'a>,
}

impl Restart<'_> {
    /// Has it restarted and waits until it is ready.
    ///
    /// # Errors
    /// Target: the command failed, or Docker did. Interrupted.
    pub fn run(&self) -> Outcome<Restarted> {
        let server = &self.client.connection().address;
        let before = process::listeners(server);
        let container = self.container()?;
        let begun = Instant::now();
        let witness = Witness::begin(self.client, self.runtime);
        let patience = match self.way {
            Way::Command(command) => self.command(command)?,
            Way::Unit(unit) => self.command(&unit.restart())?,
            Way::Hand => match (self.request)(&format!("restart {server}"), BY_HAND) {
                Some(done) => self.by_hand(&done)?,
                None => BY_HAND,
            },
        };
        // What only asks for a restart ends before it.
        let asked = Instant::now();
        let proof = loop {
            let proof = self.proof(&witness.seen(), before.as_ref(), container.as_deref());
            if proof.holds() || asked.elapsed() >= patience {
                break proof;
            }
            self.rest()?;
        };
        let end = Instant::now() + self.ready;
        let away = loop {
            match self.search() {
                Ok(()) => break None,
                Err(failure) if matches!(failure.kind, Kind::Interrupted(_)) => return Err(failure),
                Err(failure) if Instant::now() >= end => break Some(failure.message),
                Err(_) => self.rest()?,
            }
        };
        let took = begun.elapsed();
        // Ready again, more may be known: how long it was gone, who listens now.
        let proof =
            if away.is_none() { self.proof(&witness.seen(), before.as_ref(), container.as_deref()) } else { proof };
        Ok(Restarted { proof, away, took })
    }

    /// The container's start.
    fn container(&self) -> Outcome<Option<String>> {
        match self.way {
            Way::Unit(unit) => unit.look(self.cancel).map(|c| Some(c.started().to_owned())),
            _ => Ok(None),
        }
    }

    /// Until somebody says that it is done: how long it is looked for from then on.
    fn by_hand(&self, done: &Receiver<()>) -> Outcome<Duration> {
        let begun = Instant::now();
        loop {
            match done.try_recv() {
                Ok(()) => return Ok(self.seen),
                // Nobody can say it any more.
                Err(TryRecvError::Disconnected) => return Ok(BY_HAND.saturating_sub(begun.elapsed())),
                Err(TryRecvError::Empty) if begun.elapsed() >= BY_HAND => return Ok(Duration::ZERO),
                Err(TryRecvError::Empty) => self.rest()?,
            }
        }
    }

    fn command(&self, command: &str) -> Outcome<Duration> {
        let failed = |why: String| {
            Failure::target(format!("the restart failed: {why}"))
                .hint("the server may be stopped now: look. Run the command by hand: what does it say?")
        };
        let ended = shell::start(command, self.command, self.cancel).map_err(|why| match self.cancel.failure() {
            Some(interrupted) => {
                Failure { message: "interrupted: the restart command was ended half-way".into(), ..interrupted }
                    .hint("the server may be stopped now: look, and start it")
            }
            None => failed(why),
        })?;
        self.cancel.check()?;
        if ended.status.success() {
            return Ok(self.seen);
        }
        let said =
            [ended.err.trim(), ended.out.trim()].into_iter().find(|t| !t.is_empty()).unwrap_or("it said nothing");
        let said = crate::domain::harmless::short(said, 300);
        Err(failed(format!("{}: {said}", ended.status)))
    }

    fn rest(&self) -> Outcome<()> {
        self.cancel.check()?;
        std::thread::sleep(PACE);
        Ok(())
    }

    /// A search that reaches the database.
    fn search(&self) -> Outcome<()> {
        self.cancel.check()?;
        let client = self.client.once().within(Duration::from_secs(10));
        let found = self.runtime.block_on(async { client.experiments("", View::Active, 1).next().await });
        found.map(drop).map_err(Failure::from)
    }

    fn proof(&self, seen: &Seen, before: Option<&BTreeSet<Process>>, container: Option<&str>) -> Proof {
        let mut told = Vec::new();
        if seen.down {
            told.push(format!("the server was seen down for {:.1} s", seen.gone_for.as_secs_f64()));
        }
        let server = &self.client.connection().address;
        if let (Some(before), Some(after)) = (before, before.and_then(|_| process::listeners(server)))
            && before.is_disjoint(&after)
        {
            let pids = |set: &BTreeSet<Process>| {
                set.iter().take(3).map(|(pid, _, name)| format!("{name} {pid}")).collect::<Vec<_>>().join(", ")
            };
            told.push(format!("it is another process: {} before, {} now", pids(before), pids(&after)));
        }
        if let (Some(before), Ok(Some(after))) = (container, self.container())
            && before != after
        {
            told.push(format!("the container was started at {after}, before that at {before}"));
        }
        Proof { told }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_connection_is_no_restart() {
        let begun = Instant::now();
        let at = |n: u64| begun + Duration::from_millis(100 * n);
        let mut seen = Seen::default();
        for (n, up) in
            [Some(true), Some(false), Some(true), None, Some(false), None, Some(true)].into_iter().enumerate()
        {
            seen.take(up, at(n as u64));
        }
        assert!(!seen.down && seen.back.is_none());
        for (n, up) in [Some(false), Some(false), None, Some(true), Some(true)].into_iter().enumerate() {
            seen.take(up, at(10 + n as u64));
        }
        assert!(seen.down && seen.back == Some(at(13)));
        assert_eq!(seen.gone_for, Duration::from_millis(300));
    }
}
