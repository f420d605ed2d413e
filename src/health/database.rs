//! The layer *database*: the backend database looked at directly. One thread asks, this one waits: a database that takes
//! a connection and falls silent ends no read, so whoever waits for it must be somebody else.

mod identity;
mod postgres;
mod sqlite;

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::domain::address::StoreAddress;
use crate::domain::failure::Failure;
use crate::domain::health::checks::CHECKS;
use crate::domain::health::settings::HealthSettings;
use crate::domain::health::{Limits, Reading, Unit};
use crate::domain::tracking::ExperimentMark;
use crate::engine::cancel::Cancel;

pub use super::revision::{Fit, fits};
use super::{MARGIN, Stack};

/// What this layer tells of a PostgreSQL database.
const OF_POSTGRES: &[&str] = &[
    "database.connect",
    "database.revision",
    "database.schema",
    "database.size",
    "database.connections",
    "database.blocked",
    "database.longest-transaction",
    "database.statements",
    "database.timescaledb",
];
/// And of a SQLite file.
const OF_SQLITE: &[&str] = &[
    "database.path",
    "database.connect",
    "database.size",
    "database.journal-mode",
    "database.integrity",
    "database.revision",
    "database.schema",
];

/// Longest time for a connection, its first answers included.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest time for one question; a server ends a statement after it.
const QUESTION: Duration = Duration::from_secs(5);
/// What a server that is alive may take beyond that, to say so.
const GRACE: Duration = Duration::from_secs(2);

/// What is asked, of which database.
#[derive(Clone)]
pub struct Question {
    /// The database.
    pub address: StoreAddress,
    /// The checks that are wanted.
    pub wanted: Vec<String>,
    /// Their limits.
    pub settings: HealthSettings,
    /// Whether what takes long is asked as well: all rows, a file of any size.
    pub deep: bool,
    /// When all must be told.
    pub deadline: Instant,
    /// Where the private copy of a SQLite file goes.
    pub work_dir: PathBuf,
    /// The run's id.
    pub id: String,
    /// Interruption.
    pub cancel: Cancel,
}

/// What other layers want to know of the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The tracking revision, for [`fits`].
    pub revision: Option<String>,
    /// The newest experiments, where they can be read.
    pub experiments: Vec<ExperimentMark>,
    /// Checks that were not asked after all, and why.
    pub left: Vec<(&'static str, String)>,
}

/// The checks that this layer tells for a database of that kind; the others are not for it.
pub fn expected(address: &StoreAddress) -> &'static [&'static str] {
    match address {
        StoreAddress::Postgres(_) => OF_POSTGRES,
        StoreAddress::Sqlite(_) | StoreAddress::Archive(_) => OF_SQLITE,
    }
}

/// Looks at the database of the stack, where its address is known, and tells one reading per wanted check.
pub(crate) fn look(stack: &Stack) -> Seen {
    let Some(address) = stack.database.clone() else { return Seen::default() };
    let question = Question {
        address,
        wanted: CHECKS.iter().filter(|c| stack.wants(c.id)).map(|c| c.id.to_owned()).collect(),
        settings: stack.look.settings.clone(),
        deep: stack.look.deep,
        deadline: stack.look.deadline,
        work_dir: stack.look.work_dir.clone(),
        id: stack.look.id.clone(),
        cancel: stack.look.cancel.clone(),
    };
    ask(question, &mut |reading| stack.tell(reading))
}

/// What the asking thread says.
enum Said {
    /// It now asks this, and should have an answer after that time.
    Begins(&'static str, Duration),
    Found(Box<Reading>),
    Knows(Seen),
    /// This is not asked after all.
    Leaves(&'static str, String),
}

/// The asking thread's side.
struct Asker {
    question: Question,
    /// Ends the asking alone.
    cancel: Cancel,
    until: Instant,
    say: Sender<Said>,
}

/// Asks, and tells each reading as soon as it is there. It ends shortly before the deadline, whatever the database does.
pub fn ask(question: Question, tell: &mut dyn FnMut(Reading)) -> Seen {
    let until = question.deadline.checked_sub(MARGIN).unwrap_or(question.deadline);
    let ids = expected(&question.address).iter().copied();
    let mut open: Vec<&'static str> = ids.filter(|id| question.wanted.iter().any(|w| w == id)).collect();
    if open.is_empty() {
        return Seen::default();
    }
    let server = matches!(question.address, StoreAddress::Postgres(_));
    let (say, hear) = mpsc::channel();
    let cancel = Cancel::new();
    let (stop, outer) = (cancel.clone(), question.cancel.clone());
    // To tell a silent server that it should stop may take for ever as well.
    let stop = move || {
        let stop = stop.clone();
        std::thread::spawn(move || stop.cancel(SIGTERM));
    };
    outer.on_cancel(stop.clone());
    let asker = Asker { question, cancel, until, say };
    std::thread::spawn(move || match asker.question.address.clone() {
        StoreAddress::Postgres(address) => postgres::ask(&asker, &address),
        StoreAddress::Sqlite(path) => sqlite::ask(&asker, &path),
        StoreAddress::Archive(_) => asker.tell(Reading::critical("database.connect", "an archive is not a database")),
    });
    let mut seen = Seen::default();
    let begun = Instant::now();
    let (mut current, mut until_now) = (open.first().copied().unwrap_or("database.connect"), until);
    let silent = loop {
        match hear.recv_timeout(until_now.min(until).saturating_duration_since(Instant::now())) {
            Ok(Said::Begins(id, limit)) => (current, until_now) = (id, Instant::now() + limit),
            Ok(Said::Knows(more)) => seen = Seen { left: seen.left, ..more },
            Ok(Said::Leaves(id, why)) => {
                open.retain(|open| *open != id);
                seen.left.push((id, why));
            }
            Ok(Said::Found(reading)) => {
                if let Some(place) = open.iter().position(|id| *id == reading.id) {
                    open.remove(place);
                    tell(*reading);
                }
            }
            Err(RecvTimeoutError::Timeout) => break true,
            Err(RecvTimeoutError::Disconnected) => break false,
        }
    };
    if silent {
        stop();
        let seconds = begun.elapsed().as_secs_f64();
        if let Some(place) = open.iter().position(|id| *id == current) {
            open.remove(place);
            tell(no_answer(current, server, seconds));
        }
    }
    for id in open {
        let reading = Reading::unknown(id, "not asked: what was asked before it got no answer");
        tell(if id == "database.path" { reading } else { reading.needs(current) });
    }
    seen
}

/// `kill(1)`'s number; the asking has no other reader of it.
const SIGTERM: i32 = 15;

fn no_answer(id: &'static str, server: bool, seconds: f64) -> Reading {
    if !server {
        return Reading::unknown(id, format!("not finished after {seconds:.1} s"))
            .cause("the file is big, or its disk is slow or hangs")
            .hint("give it more time (--timeout), or leave this check out (--skip)");
    }
    // A server that is alive ends a statement that takes too long and says so: this one says nothing at all.
    Reading::critical(id, format!("the database takes connections and then says nothing ({seconds:.1} s)"))
        .cause("the server hangs (stopped, out of memory, its disk does not answer), or a proxy before it does")
        .hint("look at the server's machine: its log, disk and memory; `pg_isready` says less than this check")
}

impl Asker {
    fn wants(&self, id: &str) -> bool {
        self.question.wanted.iter().any(|wanted| wanted == id)
    }

    fn tell(&self, reading: Reading) {
        let _ = self.say.send(Said::Found(Box::new(reading)));
    }

    fn begin(&self, id: &'static str, limit: Duration) {
        let _ = self.say.send(Said::Begins(id, limit));
    }

    fn knows(&self, seen: Seen) {
        let _ = self.say.send(Said::Knows(seen));
    }

    fn leave(&self, id: &'static str, why: impl Into<String>) {
        let _ = self.say.send(Said::Leaves(id, why.into()));
    }

    /// What is left of the time, never more than that.
    fn patience(&self, at_most: Duration) -> Duration {
        self.until.saturating_duration_since(Instant::now()).min(at_most)
    }

    /// A number judged by the configured limits: without any it is shown.
    fn measured(&self, id: &'static str, value: f64, unit: Unit, summary: String) -> Reading {
        self.measured_or(id, value, unit, Limits::default(), summary)
    }

    /// A number judged by the configured limits, or by these.
    fn measured_or(&self, id: &'static str, value: f64, unit: Unit, default: Limits, summary: String) -> Reading {
        match self.question.settings.judgement(id).map_or(Ok(default), |j| j.at_most(unit)) {
            Ok(limits) => Reading::measured(id, value, unit, limits, summary),
            Err(failure) => of_failure(Reading::unknown(id, format!("its limits: {failure}")), failure),
        }
    }

    fn has_limits(&self, id: &str) -> bool {
        self.question.settings.judgement(id).is_some_and(|j| j.warning.is_some() || j.critical.is_some())
    }
}

/// The reading with the failure's hint.
fn of_failure(reading: Reading, failure: Failure) -> Reading {
    match failure.hint {
        Some(hint) => reading.hint(hint),
        None => reading,
    }
}

/// Bytes for people.
fn bytes(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}
