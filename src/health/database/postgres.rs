//! A PostgreSQL database: does it answer, what is it, how full is it, and who waits for whom.

use std::sync::Arc;
use std::time::Instant;

use postgres::Client;

use super::{Asker, CONNECT, GRACE, QUESTION, Seen, bytes, identity, of_failure};
use crate::doctor::{self, Depth};
use crate::domain::address::PgAddress;
use crate::domain::catalogue::Catalogue;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::health::{Bound, Limits, Reading, Status, Unit};
use crate::store::postgres::connect::Postgres;
use crate::store::postgres::monitor::{self, Blocked, Connections, Statement, Transactions, Vitals};
use crate::store::postgres::{examine, introspect};

/// Up to this the doctor looks at the rows as well.
const ROWS: u64 = 64 << 20;
/// Seconds after which a statement that waits is more than two writers who met.
const LONG_WAIT: f64 = 4.0;
/// Share of the connections in use at which the next burst finds none.
const NEARLY_ALL: f64 = 90.0;

const GRANT: &str = "a superuser may let it see more: GRANT pg_monitor TO";

pub(super) fn ask(asker: &Asker, address: &PgAddress) {
    asker.begin("database.connect", CONNECT + GRACE);
    let begun = Instant::now();
    let open = || -> Outcome<(Client, Vitals)> {
        let postgres = Arc::new(Postgres::new(address, &asker.question.id, &asker.cancel)?);
        let mut client = postgres.connect_within(asker.patience(CONNECT))?;
        monitor::bound(&mut client, QUESTION)?;
        let vitals = monitor::vitals(&mut client)?;
        Ok((client, vitals))
    };
    let (client, vitals) = match open() {
        Ok(open) => open,
        Err(failure) => return asker.tell(refused(&address.to_string(), failure)),
    };
    let summary = format!("PostgreSQL {} took a connection and answered", vitals.version);
    asker.tell(asker.measured("database.connect", begun.elapsed().as_secs_f64(), Unit::Seconds, summary));
    let mut session = Session { asker, client, vitals };
    session.look();
}

/// Why a connection failed, by SQLSTATE and the words of the system; names in the address are not among these.
fn refused(address: &str, failure: Failure) -> Reading {
    let words = failure.message.replace(address, "");
    let causes = [
        ("[28P01]", "the password is wrong"),
        ("password missing", "the server asks for a password, and none is known here"),
        ("[28000]", "the server lets this role in by no rule of its pg_hba.conf, or the role is not there"),
        ("[3D000]", "there is no database of that name"),
        ("[53300]", "all connections are in use"),
        ("[57P03]", "the server starts, stops or recovers"),
        ("no answer within", "the server hangs or a firewall drops the packets"),
        ("efused", "the server does not run, or does not listen there"),
        ("No such file", "the server does not run, or its socket is in another folder"),
        ("timed out", "the server hangs or a firewall drops the packets"),
        ("lookup", "the host's name is not known here"),
        ("TLS handshake", "one side does not trust the other's certificate"),
    ];
    let cause = causes.iter().find(|(known, _)| words.contains(known));
    let full = words.contains("[53300]");
    let mut reading = of_failure(Reading::critical("database.connect", failure.message.clone()), failure);
    if full {
        // The hint of a command that opens several.
        reading.hint = Some(
            "end sessions that nobody needs (pg_stat_activity), raise max_connections, or lower \
             MLFLOW_SQLALCHEMYSTORE_POOL_SIZE times the server's workers"
                .to_owned(),
        );
    }
    match cause {
        Some((_, cause)) => reading.cause(*cause),
        None => reading,
    }
}

struct Session<'a> {
    asker: &'a Asker,
    client: Client,
    vitals: Vitals,
}

impl Session<'_> {
    fn look(&mut self) {
        self.size();
        self.timescaledb();
        let told = self.step("database.connections", |s| monitor::connections(&mut s.client).map(|c| s.connections(c)))
            && self
                .step("database.longest-transaction", |s| monitor::transactions(&mut s.client).map(|t| s.longest(&t)))
            && self.step_or_leave("database.statements", |s| match monitor::statements(&mut s.client) {
                // Installed, and not to be read: only who asked for a limit has to know.
                Err(failure) if !s.client.is_closed() && !s.asker.has_limits("database.statements") => {
                    Ok(Err(failure.message))
                }
                found => found.map(|found| s.statements(found.as_deref())),
            })
            && self.step("database.revision", |s| s.revision());
        if told && self.asker.wants("database.schema") {
            self.schema();
        }
        // The last: what the questions before waited for has waited long enough by now to be told from a hiccup.
        if told && !self.client.is_closed() {
            self.step("database.blocked", |s| monitor::blocked(&mut s.client).map(|b| s.blocked(&b)));
        }
    }

    /// Asks one question, where its answer is wanted. `false`: the connection is lost, so the next is not asked.
    fn step(&mut self, id: &'static str, ask: impl FnOnce(&mut Self) -> Outcome<Reading>) -> bool {
        self.step_or_leave(id, |s| ask(s).map(Ok))
    }

    /// The same of a question that may turn out to be none; then for a reason.
    fn step_or_leave(
        &mut self,
        id: &'static str,
        ask: impl FnOnce(&mut Self) -> Outcome<Result<Reading, String>>,
    ) -> bool {
        if !self.asker.wants(id) {
            return true;
        }
        self.asker.begin(id, QUESTION + GRACE);
        match ask(self) {
            Ok(Ok(reading)) => self.asker.tell(reading),
            Ok(Err(why)) => self.asker.leave(id, why),
            Err(failure) if self.client.is_closed() => {
                let reading = Reading::critical(id, format!("the connection was lost: {failure}"))
                    .cause("the server went down or ended this session, or a proxy cut it")
                    .hint("look at the server's log");
                self.asker.tell(reading);
                return false;
            }
            Err(failure) => {
                let slow = failure.message.contains("[57014]");
                let reading = of_failure(Reading::unknown(id, failure.message.clone()), failure);
                self.asker.tell(if slow {
                    reading.cause("the server is busy or the statement waits for a lock")
                } else {
                    reading
                });
            }
        }
        true
    }

    fn size(&self) {
        const ID: &str = "database.size";
        self.asker.tell(match self.vitals.bytes {
            Some(size) => self.asker.measured(ID, size as f64, Unit::Bytes, bytes(size)),
            None => Reading::unknown(ID, format!("the role `{}` may not ask for it", self.vitals.role)),
        });
    }

    fn timescaledb(&self) {
        let summary = self.vitals.timescaledb.as_ref().map_or("not in this database".to_owned(), |v| v.clone());
        self.asker.tell(Reading::ok("database.timescaledb", summary));
    }

    fn connections(&self, found: Connections) -> Reading {
        const ID: &str = "database.connections";
        let (used, allowed) = (found.used as f64, found.allowed.max(1) as f64);
        let share = used * 100.0 / allowed;
        let summary = format!("{} of {} that ordinary roles may open", found.used, found.allowed);
        let default = Limits { warning: Some(Bound::AtMost(NEARLY_ALL)), critical: None };
        let mut reading = self.asker.measured_or(ID, share, Unit::Percent, default, summary).most(100.0);
        if !self.asker.has_limits(ID) {
            let status = match share {
                s if s >= 100.0 => Status::Critical,
                s if s >= NEARLY_ALL => Status::Warning,
                _ => Status::Ok,
            };
            reading.status = reading.status.max(status);
        }
        if reading.status > Status::Ok {
            reading = reading
                .cause("more workers or clients than planned, or sessions that are never closed")
                .hint(format!("see who holds them: {}", monitor::WHO_CONNECTS));
        }
        reading
    }

    fn blocked(&self, found: &[Blocked]) -> Reading {
        const ID: &str = "database.blocked";
        let longest = found.iter().filter_map(|b| b.seconds).fold(0.0, f64::max);
        let summary = match found.len() {
            0 => "no statement waits for a lock".to_owned(),
            n => format!(
                "{} a lock, the longest for {longest:.0} s",
                if n == 1 { "1 statement waits for".to_owned() } else { format!("{n} statements wait for") }
            ),
        };
        let mut reading = self.asker.measured(ID, found.len() as f64, Unit::Count, summary);
        if longest > LONG_WAIT && !self.asker.has_limits(ID) {
            reading.status = reading.status.max(Status::Warning);
        }
        let line = |b: &Blocked| {
            let wait = b.seconds.map_or(String::new(), |s| format!(" for {s:.0} s"));
            let by = b.blocker.map_or(String::new(), |pid| {
                let more = [b.blocker_state.as_deref(), b.blocker_statement.as_deref()];
                let more: Vec<&str> = more.into_iter().flatten().collect();
                format!(", on {pid} ({})", more.join(": "))
            });
            format!("{} ({}) waits{wait}{by}: {}", b.pid, b.role, b.statement)
        };
        reading = reading.evidence(found.iter().take(5).map(line));
        let blocker = found.iter().find_map(|b| b.blocker);
        match blocker.filter(|_| reading.status > Status::Ok) {
            Some(pid) => reading
                .cause("a transaction holds a lock and does not end")
                .hint(format!("where that session is no longer needed: {}", monitor::end_session(pid))),
            None => reading,
        }
    }

    fn longest(&self, found: &Transactions) -> Reading {
        const ID: &str = "database.longest-transaction";
        let hidden = found.hidden > 0;
        let role = &self.vitals.role;
        if hidden && found.seen == 0 {
            return Reading::unknown(
                ID,
                format!("the role `{role}` may not see what the {} sessions do", found.hidden),
            )
            .hint(format!("{GRANT} {role}"));
        }
        let only = if hidden {
            format!(" ({} sessions are hidden from the role `{role}`)", found.hidden)
        } else {
            String::new()
        };
        let (seconds, summary) = match found.oldest.first() {
            None => (0.0, "no other transaction is open".to_owned()),
            Some(t) => (t.seconds, format!("open for {:.0} s: {} ({}), {}", t.seconds, t.pid, t.role, t.state)),
        };
        let mut reading = self.asker.measured(ID, seconds, Unit::Seconds, summary + &only);
        reading = reading.evidence(
            found
                .oldest
                .iter()
                .map(|t| format!("{} ({}), {:.0} s, {}: {}", t.pid, t.role, t.seconds, t.state, t.statement)),
        );
        match found.oldest.first().filter(|_| reading.status > Status::Ok) {
            Some(t) => reading
                .cause("a client that forgot to commit, a long backup, or a report; rows that it may see are not cleaned up")
                .hint(format!("where that session is no longer needed: {}", monitor::end_session(t.pid))),
            None => reading,
        }
    }

    fn statements(&self, found: Option<&[Statement]>) -> Result<Reading, String> {
        const ID: &str = "database.statements";
        let Some(found) = found else {
            let summary = "pg_stat_statements is not installed, so statements are not timed";
            if !self.asker.has_limits(ID) {
                return Err(summary.to_owned());
            }
            return Ok(Reading::unknown(ID, summary).hint(
                "shared_preload_libraries = 'pg_stat_statements', a restart, CREATE EXTENSION pg_stat_statements",
            ));
        };
        let Some(slowest) = found.first() else {
            return Ok(Reading::ok(ID, "no statement ran often enough to be judged"));
        };
        let summary = format!("{:.1} ms in the mean of {} calls", slowest.mean * 1000.0, slowest.calls);
        let line = |s: &Statement| format!("{:.1} ms, {} calls: {}", s.mean * 1000.0, s.calls, s.statement);
        Ok(self.asker.measured(ID, slowest.mean, Unit::Seconds, summary).evidence(found.iter().map(line)))
    }

    fn revision(&mut self) -> Outcome<Reading> {
        let failed = |e: postgres::Error| examine::failed(&e);
        let role = self.vitals.role.clone();
        let grant =
            format!("GRANT pg_read_all_data TO {role} lets it read (PostgreSQL 14 on), or GRANT USAGE and SELECT");
        let Some(schema) = introspect::current_schema(&mut self.client).map_err(failed)? else {
            let summary = format!("the search path of the role `{role}` names no schema that it may use");
            return Ok(Reading::unknown("database.revision", summary).hint(grant));
        };
        let observed = introspect::observe(&mut self.client, &schema).map_err(failed);
        let observed = observed.map_err(|f| if f.message.contains("[42501]") { f.hint(grant) } else { f })?;
        let (reading, revision) = identity::revision(&observed, Catalogue::embedded()?);
        // A revision before MLflow 2 has no creation time: then there is nothing to compare.
        let experiments = monitor::experiments(&mut self.client, &schema).unwrap_or_default();
        self.asker.knows(Seen { revision, experiments, ..Seen::default() });
        Ok(reading)
    }

    /// The doctor has what is left of the time; the server ends its statements a little before.
    fn schema(&mut self) {
        let all = self.asker.until.saturating_duration_since(Instant::now());
        self.asker.begin("database.schema", all);
        let small = self.vitals.bytes.is_some_and(|b| b <= ROWS);
        let depth = if self.asker.question.deep || small { Depth::Rows } else { Depth::Structure };
        let address = self.asker.question.address.to_string();
        let limit = all.checked_sub(GRACE).unwrap_or(all / 2);
        let found = monitor::bound(&mut self.client, limit)
            .and_then(|()| doctor::examine_session(&mut self.client, &address, depth));
        self.asker.tell(match found {
            Ok(diagnosis) => identity::schema(self.asker, &diagnosis, depth),
            Err(failure) => identity::no_schema(failure),
        });
    }
}
