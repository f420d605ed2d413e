//! Does a stack come out of a restart as it went in? Markers are written, all that is there is read, the server is
//! restarted and that is proven, and all is read again.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::docker::Container;
use super::fingerprint::{Reader, Sample, Seen};
use super::ledger::Reading;
use super::markers::Markers;
use super::restart::{Request, Restart, Way};
use super::snapshot::{Head, Snapshot};
use super::sorted::Sorter;
use super::written::{All, Writer, another_store};
use super::{compare, ledger, snapshot};
use crate::backup::place::Ways;
use crate::domain::address::StoreAddress;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::count::counted;
use crate::domain::failure::{Failure, Kind as Fault, Outcome};
use crate::domain::harmless;
use crate::domain::verify::account::{Account, Finding, Step, Verdict};
use crate::domain::verify::fingerprint::{Kind, Rules};
use crate::domain::verify::ledger::Ledger;
use crate::engine::copy::Work;
use crate::mlflow::Client;
use crate::source::Opening;
use crate::store::scratch::Scratch;
use crate::store::sqlite::monitor;

/// Findings that may be known and accepted. What is lost or changed never is.
pub const ACCEPTABLE: [&str; 6] = [
    "ephemeral_path",
    "relative_path",
    "anonymous_volume",
    "restart_not_seen",
    "release_changed",
    "secrets_unreadable_before",
];

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Experiments that are made.
    pub experiments: usize,
    /// Who restarts.
    pub way: Way,
    /// How long the command may take.
    pub command: Duration,
    /// How long after it the restart may begin.
    pub seen: Duration,
    /// How long the server may take to be ready again.
    pub ready: Duration,
    /// How the two moments are compared.
    pub rules: Rules,
    /// Findings that are known, by their kind: they are told, and are no reason to fail.
    pub accept: Vec<String>,
}

/// The stack.
pub struct Stack<'a> {
    /// The ways to it and to its files.
    pub ways: &'a Ways,
    /// The server.
    pub client: &'a Client,
    /// Its database, where the address is known.
    pub database: Option<&'a StoreAddress>,
    /// This run's id.
    pub id: &'a str,
    /// What does the heavy work.
    pub work: &'a Work<'a>,
    /// Asks the operator for something.
    pub request: &'a Request<'a>,
}

impl Stack<'_> {
    fn handle(&self) -> &Handle {
        self.ways.runtime.handle()
    }

    pub(super) fn ask<T>(&self, call: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        self.ways.cancel.check()?;
        self.handle().block_on(call)
    }

    /// Reads the server into a file.
    pub(super) fn fingerprint(
        &self,
        file: &Path,
        sample: Option<Sample>,
        database: Option<Ledger>,
    ) -> Outcome<(Snapshot, Seen)> {
        let folder = super::snapshot::folder(file);
        let release = self.ask(async { Ok(self.client.version().await.map(|a| a.value).unwrap_or_default()) })?;
        let connection = self.client.connection();
        let made = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut head = Head::new(self.id, &made, &connection.address.to_string(), &release);
        let mut things = Sorter::new(&folder);
        let reader = Reader { client: self.client, sample, cancel: &self.ways.cancel, events: self.work.events };
        let seen = self.ask(reader.read(&mut things))?;
        head.coverage = seen.coverage.clone();
        head.database = database;
        Ok((snapshot::write(file, head, things)?, seen))
    }

    /// Reads the database, where it is known.
    pub(super) fn ledger(&self, like: Option<&Ledger>, experiments: &[String]) -> Outcome<Option<Reading>> {
        let Some(address) = self.database else { return Ok(None) };
        let opening =
            Opening { work_dir: &self.ways.work_dir, id: self.id, cancel: &self.ways.cancel, events: self.work.events };
        ledger::read(address, like, experiments, &opening, self.work).map(Some)
    }

    /// Whether what stands on secrets of the server's environment answers: `None`, there is nothing of the kind.
    fn secrets(&self) -> Outcome<Option<Result<usize, String>>> {
        self.ask(async {
            let hooks = self.client.webhooks().await;
            let gateway = self.client.gateway_secrets().await.map(|g| g.map_or(0, |g| g.count));
            Ok(match (hooks, gateway) {
                (Ok(None | Some(0)), Ok(0)) => None,
                (Ok(hooks), Ok(secrets)) => Some(Ok(hooks.unwrap_or(0) + secrets)),
                (Err(trouble), _) | (_, Err(trouble)) => Some(Err(trouble.failure.message)),
            })
        })
    }
}

/// Makes the account step by step.
struct Course<'a> {
    account: &'a mut Account,
    accept: &'a [String],
}

impl Course<'_> {
    fn step(&mut self, name: &str, begun: Instant, verdict: Verdict, evidence: impl Into<String>) {
        self.account.steps.push(Step::new(name, begun.elapsed(), verdict, evidence));
    }

    /// A step that is passed where it has nothing to find fault with.
    fn judged(&mut self, name: &str, begun: Instant, findings: Vec<Finding>, evidence: impl Into<String>) {
        let mut evidence = evidence.into();
        for known in findings.iter().filter(|f| self.accept.contains(&f.id)) {
            evidence.push_str(&format!("{}accepted: {}", if evidence.is_empty() { "" } else { "; " }, known.id));
        }
        let bad = self.find(findings);
        let verdict = if bad { Verdict::Failed } else { Verdict::Passed };
        self.step(name, begun, verdict, evidence);
    }

    /// A step that could not be made after the restart: that is a fault of the stack's, but for an interrupt.
    fn broken(&mut self, name: &str, begun: Instant, failure: Failure) -> Outcome<()> {
        match failure.kind {
            Fault::Interrupted(_) | Fault::Internal => Err(failure),
            _ => {
                self.step(name, begun, Verdict::Failed, failure.message);
                Ok(())
            }
        }
    }

    /// Takes findings; whether one of them counts.
    fn find(&mut self, findings: Vec<Finding>) -> bool {
        let (known, bad): (Vec<Finding>, Vec<Finding>) =
            findings.into_iter().partition(|f| self.accept.contains(&f.id));
        let any = !bad.is_empty();
        self.account.findings.extend(bad);
        self.account.noted.extend(known);
        any
    }
}

/// Places that do not keep what is put there.
fn places(stack: &Stack<'_>, location: Option<&str>, container: Option<&Container>, way: &Way) -> Vec<Finding> {
    let mut found = Vec::new();
    let move_it = "keep it in a folder that is backed by a disk of its own or a named volume";
    if let Some(StoreAddress::Sqlite(path)) = stack.database {
        let on = crate::domain::address::shown(path);
        if path.is_relative() {
            let told = "the path is relative: what it means depends on the folder that the server is started in";
            found.push(
                Finding::new("relative_path", on.clone(), told)
                    .hint("give `mlflow server` four slashes: sqlite:////srv/mlflow.db"),
            );
        }
        found.extend(monitor::fleeting(path).map(|why| Finding::new("ephemeral_path", on, why).hint(move_it)));
    }
    if let Some(ArtifactAddress::Local(path)) = location.map(ArtifactAddress::parse) {
        let root = path.parent().unwrap_or(&path);
        let on = crate::domain::address::shown(root);
        if path.is_relative() {
            let told = "the artifacts' path is relative: it means another place to each process";
            found.push(Finding::new("relative_path", on, told).hint("give an absolute --default-artifact-root"));
        } else if root.exists() {
            found.extend(monitor::fleeting(root).map(|why| Finding::new("ephemeral_path", on, why).hint(move_it)));
        }
    }
    if let (Some(container), Way::Unit(unit)) = (container, way) {
        let name = match unit {
            super::docker::Unit::Container(name) => format!("container {name}"),
            super::docker::Unit::Service(name) => format!("service {name}"),
        };
        let named = "name a volume for it in the Compose file or with `docker run -v NAME:PATH`";
        found.extend(container.fleeting(&name).into_iter().map(|d| Finding::new(d.kind, d.on, d.told).hint(named)));
    }
    found
}

/// How much a fingerprint holds, in a line.
pub(super) fn words(seen: &super::fingerprint::Coverage) -> String {
    let count = |kind: Kind| kind.counted(seen.of(kind));
    let mut words: Vec<String> = [Kind::Experiment, Kind::Run].map(count).into();
    words.push(format!("{} metrics, {} params, {} tags of runs", seen.metrics, seen.params, seen.tags));
    words.extend([Kind::Model, Kind::Version, Kind::LoggedModel].map(count));
    let (read, there) = (seen.of(Kind::History), seen.histories);
    let histories = counted(there, "history");
    words.push(format!("a sample of {read} of {histories} ({})", counted(seen.points, "point")));
    let (files, runs, looked) = (seen.of(Kind::Artifact), seen.filed, seen.looked);
    words.push(format!(
        "and of {} of {} ({} bytes; {looked} runs were looked at)",
        counted(files, "file"),
        counted(runs, "run"),
        seen.bytes
    ));
    words.join(", ")
}

/// The numbers of a fingerprint, for documents.
pub(super) fn counts(seen: &super::fingerprint::Coverage) -> Vec<(String, u64)> {
    let mut counts: Vec<(String, u64)> =
        Kind::ALL.iter().map(|kind| (kind.plural().to_owned(), seen.of(*kind))).collect();
    counts.push(("metrics".to_owned(), seen.metrics));
    counts.push(("params".to_owned(), seen.params));
    counts.push(("tags".to_owned(), seen.tags));
    counts.push(("points".to_owned(), seen.points));
    counts.push(("bytes".to_owned(), seen.bytes));
    counts
}

/// Makes the check. What is found stands in the account; the markers are removed by the caller.
///
/// # Errors
/// What keeps the check from being made before the restart; the restart command's own failure; the interruption.
pub fn verify(stack: &Stack<'_>, wish: &Wish, markers: &mut Markers, account: &mut Account) -> Outcome<()> {
    account.procedure = procedure(wish, stack.database.is_some());
    let mut course = Course { account, accept: &wish.accept };
    let scratch = Scratch::new("mlops-verify-", &stack.ways.work_dir)?;
    let writer = Writer {
        ways: stack.ways,
        client: stack.client,
        prefix: super::name(stack.id),
        id: stack.id,
        now: jiff::Timestamp::now().as_millisecond(),
    };

    let begun = Instant::now();
    let all = writer.all(markers, wish.experiments)?;
    let files = all
        .without_files
        .as_ref()
        .map_or(String::new(), |why| format!("; no files, as these are not reached from here: {why}"));
    course.step(
        "write markers",
        begun,
        Verdict::Passed,
        format!("{} with a run each, a model with a version{files}", counted(all.runs.len(), "experiment")),
    );

    let begun = Instant::now();
    let container = match &wish.way {
        Way::Unit(unit) => Some(unit.look(&stack.ways.cancel)?),
        _ => None,
    };
    let kept = places(stack, all.location(), container.as_ref(), &wish.way);
    course.judged("look at the places", begun, kept, "where database and artifacts are kept");
    let secrets = stack.secrets()?;
    let release = stack.ask(async { Ok(stack.client.version().await.map(|a| a.value).unwrap_or_default()) })?;

    let begun = Instant::now();
    let (before, seen) = stack.fingerprint(&scratch.path().join("before"), None, None)?;
    course.step("fingerprint", begun, Verdict::Passed, words(&seen.coverage));
    course.account.counts = counts(&seen.coverage);
    let left = seen.coverage.left.iter();
    course.account.noted.extend(left.map(|left| Finding::new("not_read", "the sample", left)));

    let begun = Instant::now();
    let database = stack.ledger(None, &all.names())?;
    match &database {
        None => {
            let why = "the database's address is not known (--backend-store-uri)".to_owned();
            course.step("digest the database", begun, Verdict::Skipped(why), "");
        }
        Some(reading) => {
            let other = reading.held.is_empty().then(|| another_store(&reading.ledger.address)).into_iter().collect();
            course.judged("digest the database", begun, other, told(&reading.ledger));
        }
    }

    let begun = Instant::now();
    let restart = Restart {
        client: stack.client,
        way: &wish.way,
        command: wish.command,
        seen: wish.seen,
        ready: wish.ready,
        runtime: stack.handle(),
        cancel: &stack.ways.cancel,
        request: stack.request,
    };
    let restarted = restart.run().inspect_err(|failure| {
        course.step("restart", begun, Verdict::Failed, failure.message.clone());
    })?;
    let not_seen = (!restarted.proof.holds() && restarted.away.is_none()).then(|| {
        Finding::new("restart_not_seen", course.account.server.clone(), "nothing shows that the server was restarted: it was never seen down, and no other process is seen there").hint("does the command restart the server that --tracking-uri leads to? If it only asks for a restart, let it wait \
             for the end (`kubectl rollout status`, `systemctl` without --no-block), or raise --restart-seen-within; a \
             rolling restart without downtime cannot be seen")
    });
    let evidence =
        if restarted.proof.holds() { restarted.proof.told.join("; ") } else { "no restart was seen".to_owned() };
    course.judged("restart", begun, not_seen.into_iter().collect(), evidence);
    if let Some(why) = restarted.away {
        let ready = format!("not ready within {} s: {why}", wish.ready.as_secs());
        course.step("ready again", begun, Verdict::Failed, ready.clone());
        course.account.away = Some(ready);
        return Ok(());
    }
    course.step(
        "ready again",
        begun,
        Verdict::Passed,
        format!("a search was answered {:.1} s after the command", restarted.took.as_secs_f64()),
    );

    let begun = Instant::now();
    match (&secrets, stack.secrets()?) {
        (None, _) => {
            course.step("secrets", begun, Verdict::Skipped("no webhook and no gateway secret is there".to_owned()), "")
        }
        (Some(Ok(_)), Some(Err(why))) => {
            let hint = "start the server with the key it had: MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY, MLFLOW_CRYPTO_KEK_PASSPHRASE";
            let bad = Finding::new(
                "secrets_unreadable",
                "webhooks and gateway secrets",
                format!("they are not read any more: {why}"),
            )
            .hint(hint);
            course.judged("secrets", begun, vec![bad], "they were read before the restart");
        }
        (Some(Err(why)), _) => {
            let told = format!("they were not read before the restart, so nobody knows whether it kept them: {why}");
            let hint = "mend that first, or --accept secrets_unreadable_before";
            let bad = Finding::new("secrets_unreadable_before", "webhooks and gateway secrets", told).hint(hint);
            course.judged("secrets", begun, vec![bad], "");
        }
        (Some(Ok(n)), now) => {
            let now = now.and_then(Result::ok).unwrap_or(0);
            let lost = (now < *n).then(|| {
                let told = format!("{n} were listed before the restart, and {now} are");
                Finding::new("lost_secret", "webhooks and gateway secrets", told)
                    .hint("does the server run on the same database?")
            });
            course.judged("secrets", begun, lost.into_iter().collect(), format!("{n} before, {now} now"));
        }
    }
    let begun = Instant::now();
    let now = stack.ask(async { Ok(stack.client.version().await.map(|a| a.value).unwrap_or_default()) })?;
    if now != release {
        let told = format!(
            "it was MLflow {release}, and is {now}: it may have upgraded the schema, which an older one refuses"
        );
        let hint =
            "meant: --accept release_changed; not meant: pin the version that is started, before it is restarted again";
        course.judged(
            "release",
            begun,
            vec![Finding::new("release_changed", course.account.server.clone(), told).hint(hint)],
            "",
        );
    }

    after(stack, wish, &scratch, &before, database.as_ref(), &all, &mut course)?;
    write_again(&writer, markers, &all, &seen, &mut course)
}

/// The second reading, and what is different.
fn after(
    stack: &Stack<'_>,
    wish: &Wish,
    scratch: &Scratch,
    before: &Snapshot,
    database: Option<&Reading>,
    all: &All,
    course: &mut Course<'_>,
) -> Outcome<()> {
    let begun = Instant::now();
    let mut sample = Sample::default();
    for thing in before.things()? {
        sample.take(&thing?);
    }
    // The database is read first: what others write from here on is theirs.
    let now = database.map(|reading| stack.ledger(Some(&reading.ledger), &all.names())).transpose();
    let digested = begun.elapsed();
    let begun = Instant::now();
    let read = stack
        .fingerprint(&scratch.path().join("after"), Some(sample), None)
        .and_then(|(now, _)| stack.ask(compare::fingerprints(stack.client, before, &now, wish.rules)));
    let mut broken = false;
    let compared = match read {
        Ok(compared) => compared,
        Err(failure) => {
            course.broken("fingerprint again", begun, failure)?;
            broken = true;
            compare::Compared::default()
        }
    };
    let evidence = compared.words();
    let (others, nothing_left) = (compared.others, compared.nothing_left);
    if !broken {
        let mut findings = compared.findings;
        if nothing_left {
            let told = "not one experiment of before is there: the server runs on another database, or on a new one";
            findings.insert(
                0,
                Finding::new("another_store", course.account.server.clone(), told)
                    .hint("what is its --backend-store-uri now?"),
            );
        }
        course.judged("fingerprint again", begun, findings, evidence);
        course.account.noted.extend(compared.noted);
    }
    let begun = Instant::now();
    match (database, now.map(Option::flatten)) {
        (None, _) => {}
        (Some(_), Err(failure)) => course.broken("digest the database again", begun, failure)?,
        (Some(first), Ok(now)) => {
            let Some(now) = now else { return Ok(()) };
            let (mut findings, noted) =
                compare::databases(&first.ledger, Some(first), &now, wish.rules, others, stack.work)?;
            if nothing_left && !now.held.is_empty() {
                let told = "it still holds the markers, and the server shows none of them: the server runs on another database now";
                findings.insert(
                    0,
                    Finding::new("another_store", now.ledger.address.clone(), told)
                        .hint("what is its --backend-store-uri now?"),
                );
            }
            let same = first.ledger.tables == now.ledger.tables;
            let evidence =
                if same { format!("equal, table by table: {}", told(&now.ledger)) } else { told(&now.ledger) };
            course.judged("digest the database again", begun, findings, evidence);
            if let Some(step) = course.account.steps.last_mut() {
                step.took += digested;
            }
            course.account.noted.extend(noted);
        }
    }
    Ok(())
}

/// The markers by value, and new ones.
fn write_again(
    writer: &Writer<'_>,
    markers: &mut Markers,
    all: &All,
    seen: &Seen,
    course: &mut Course<'_>,
) -> Outcome<()> {
    let begun = Instant::now();
    match writer.read_back(all) {
        Ok((wrong, values)) => {
            course.judged("read the markers back", begun, wrong, format!("{values} values compared"))
        }
        Err(failure) => course.broken("read the markers back", begun, failure)?,
    }
    let begun = Instant::now();
    match writer.again(markers, all, &seen.experiments) {
        Ok((wrong, evidence)) => course.judged("write again", begun, wrong, evidence),
        Err(failure) => course.broken("write again", begun, failure)?,
    }
    Ok(())
}

fn told(ledger: &Ledger) -> String {
    format!("{} tables, {} rows, {} at {}", ledger.tables.len(), ledger.rows(), ledger.engine, ledger.revision)
}

/// What is done, a sentence each. `database`: its address is known.
pub fn procedure(wish: &Wish, database: bool) -> Vec<String> {
    let restart = match &wish.way {
        Way::Command(command) => format!("The server is restarted by `{}`", harmless::masked(command)),
        Way::Unit(unit) => format!("The server is restarted by `{}`", unit.restart()),
        Way::Hand => "The server is restarted by hand".to_owned(),
    };
    let mut steps = vec![
        format!(
            "{} experiments are made, each with a run of 20 metric points, params, tags and a file, and a model with a \
             registered version.",
            wish.experiments
        ),
        "All experiments, runs, models and versions are read over REST, with a sample of histories and files."
            .to_owned(),
    ];
    if database {
        steps.push("Every row of every table of the database is digested.".to_owned());
    }
    steps.push(format!(
        "{restart}, while its /health is asked every 100 ms; it is waited for until a search is answered, {} s at most.",
        wish.ready.as_secs()
    ));
    steps.push("All of it is read again and compared, the markers by value.".to_owned());
    steps.push("A further experiment, run and version are written, to see that they get new numbers.".to_owned());
    steps
}
