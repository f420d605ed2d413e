//! What all of `mlops verify` share: the server, its surroundings, what an earlier run left, and the end.

use std::path::Path;

use tokio::runtime::Runtime;

use super::server::{called, server};
use super::{Context, Ended, backup, cleanup_purge, journal};
use crate::TOOL;
use crate::backup::place::Ways;
use crate::cli::verify::{Keeping, Verify};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::verify::account::Account;
use crate::engine::cancel::Cancel;
use crate::mlflow::Client;
use crate::report::{self, Result as Report};
use crate::state;
use crate::verify::markers::{self, Markers};

pub(super) fn run(context: &Context, arguments: &Verify) -> Result<u8, Ended> {
    match arguments {
        Verify::Persistence(arguments) => super::verify_persistence::persistence(context, arguments),
        Verify::Snapshot(arguments) => super::verify_persistence::snapshot(context, arguments),
        Verify::Compare(arguments) => super::verify_persistence::compare(context, arguments),
        Verify::Deployment(arguments) => super::verify_deployment::run(context, arguments),
        Verify::Concurrency(arguments) => super::verify_concurrency::run(context, arguments),
    }
}

/// A verification that has begun.
pub(super) struct Verification<'a> {
    context: &'a Context,
    keeping: &'a Keeping,
    pub(super) client: Client,
    /// For the check: ends with an interrupt.
    pub(super) ways: Ways,
    /// For the removal: does not.
    afterwards: Ways,
    pub(super) markers: Markers,
    /// Experiments of earlier runs that are soft-deleted now.
    swept: Vec<String>,
    /// Whether all else that earlier runs left is removed.
    whole: bool,
    warnings: Vec<String>,
}

impl<'a> Verification<'a> {
    /// Sees that the server is there, removes what killed runs left, and begins the journal.
    ///
    /// # Errors
    /// Usage: no server is named. Unreachable: it is not there. Target: the report cannot be written there.
    pub(super) fn begin(context: &'a Context, keeping: &'a Keeping) -> Outcome<Verification<'a>> {
        let (client, ways) = reached(context, keeping.report.as_deref())?;
        let afterwards = Ways { cancel: Cancel::new(), ..backup::ways(context)? };
        let state_dir = context.settings.state_dir()?;
        let address = called(&client);
        let (mut warnings, mut swept, mut whole) = (Vec::new(), Vec::new(), true);
        for run in state::unfinished(&state_dir) {
            if journal::verifies(&run.command) {
                if alike(&run.target, &address) || markers::is_here(&state_dir, &run, &afterwards, &client) {
                    let done = markers::sweep(&state_dir, &run, &context.id, &afterwards, &client);
                    warnings.push(done.told);
                    swept.extend(done.soft_deleted);
                    whole &= done.whole;
                } else {
                    warnings.push(markers::elsewhere(&run));
                }
            } else {
                let (id, started) = (&run.id, &run.started);
                let what = format!("the run {id} of {started} ({} on {}) did not finish", run.command, run.target);
                warnings.push(what);
            }
        }
        let (markers, warning) = Markers::begin(&state_dir, &context.id, context.reporter.command, &address);
        warnings.extend(warning);
        Ok(Verification { context, keeping, client, ways, afterwards, markers, swept, whole, warnings })
    }

    /// The account that all begin with.
    pub(super) fn account(&self, subject: &str) -> Account {
        account(self.context, &self.client, &self.afterwards.runtime, subject)
    }

    /// With `--dry-run`: what would be done, or the refusal that `refused` and a server that is not there would lead to.
    pub(super) fn plan(
        context: &Context,
        subject: &str,
        file: Option<&Path>,
        procedure: Vec<String>,
        refused: impl FnOnce(&Client, &Ways) -> Outcome<()>,
    ) -> Result<u8, Ended> {
        let (client, ways) = reached(context, file)?;
        refused(&client, &ways)?;
        let (id, server) = (context.id.clone(), called(&client));
        let account =
            Account { subject: subject.to_owned(), id, server, procedure, planned: true, ..Account::default() };
        context.finish(&Report::Account(&account), 0, &[])
    }

    /// Removes what was made, or with `--keep` tells of it, writes the report and prints the result. A check that failed
    /// itself, or was interrupted, ends with its failure, after the removal and beside what is known until then.
    pub(super) fn end(self, outcome: Outcome<()>, mut account: Account) -> Result<u8, Ended> {
        let Verification { context, keeping, client, afterwards, mut markers, swept, whole, mut warnings, .. } = self;
        if keeping.keep {
            account.kept = markers.keep();
            account.soft_deleted = for_good(context, Vec::new(), &swept, whole, &mut warnings);
        } else {
            let removed = markers.remove(&afterwards, &client);
            let whole = whole && removed.left.is_empty();
            account.soft_deleted = for_good(context, removed.soft_deleted.clone(), &swept, whole, &mut warnings);
            account.unfinished.clone_from(&removed.left);
            markers.end(&removed);
        }
        let file = keeping.report.as_deref();
        told(context, file, outcome, account, warnings)
    }
}

/// Over REST alone an experiment is only soft-deleted: removes this run's and earlier ones', where the database's address
/// is known. Gives this run's that stay soft-deleted. `whole`: all else, their files too, is removed.
fn for_good(
    context: &Context,
    own: Vec<String>,
    swept: &[String],
    whole: bool,
    warnings: &mut Vec<String>,
) -> Vec<String> {
    let all = [own.as_slice(), swept].concat();
    if all.is_empty() || !context.settings.backend_store_uri().is_ok_and(|uri| uri.is_some()) {
        return own;
    }
    match cleanup_purge::for_good(context, &all, whole) {
        Ok(left) => {
            if !left.is_empty() {
                let why = "`mlops cleanup purge` tells why";
                warnings.push(format!("{} experiments stay soft-deleted in the database: {why}", left.len()));
            }
            let stay = swept.iter().filter(|name| left.contains(name)).count();
            if swept.len() > stay {
                let gone = swept.len() - stay;
                warnings
                    .push(format!("{gone} experiments that earlier runs left are removed from the database as well"));
            }
            own.into_iter().filter(|name| left.contains(name)).collect()
        }
        Err(failure) => {
            warnings.push(format!("what is soft-deleted stays: {failure}"));
            own
        }
    }
}

/// The server, after a search: `/version` answers without a database as well. And that the report can be written: that is
/// known before anything is made.
///
/// # Errors
/// Usage: no server is named. Unreachable: it is not there. Target: the report cannot be written there.
pub(super) fn reached(context: &Context, file: Option<&Path>) -> Outcome<(Client, Ways)> {
    let (client, ways) = (server(context)?, backup::ways(context)?);
    file.map(crate::newfile::NewFile::replacing).transpose()?;
    let mut first = client.experiments("", crate::domain::tracking::View::Active, 1);
    crate::artifact::Waiting::new(ways.runtime.handle().clone(), ways.cancel.clone())
        .on(first.next())?
        .map_err(Failure::from)?;
    Ok((client, ways))
}

/// Whether two addresses mean the same server: this machine has several names for itself.
fn alike(one: &str, other: &str) -> bool {
    let plain = |address: &str| {
        let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
        let rest = ["127.0.0.1", "[::1]"].iter().find_map(|own| {
            let rest = rest.strip_prefix(own)?;
            (!rest.starts_with(|c: char| c.is_alphanumeric() || c == '.')).then(|| format!("localhost{rest}"))
        });
        rest.map_or(address.to_owned(), |rest| format!("{scheme}://{rest}"))
    };
    plain(one) == plain(other)
}

/// The account that all begin with: the subject, the server and what is known around it.
pub(super) fn account(context: &Context, client: &Client, runtime: &Runtime, subject: &str) -> Account {
    let mut environment = Vec::new();
    let told = |text: Option<String>| text.unwrap_or_else(|| "not told".to_owned());
    let version = runtime.block_on(client.version()).ok().map(|a| a.value);
    environment.push(("MLflow".to_owned(), told(version)));
    let info = runtime.block_on(client.server_info()).ok().flatten();
    environment.extend(info.and_then(|i| i.store_type).map(|store| ("store".to_owned(), store)));
    if let Ok(Some(store)) = context.settings.backend_store_uri() {
        environment.push(("database".to_owned(), store.to_string()));
    }
    let workspace = client.connection().workspace.clone();
    environment.extend(workspace.map(|name| ("workspace".to_owned(), name)));
    environment.push(("tool".to_owned(), TOOL.to_owned()));
    environment.push(("host".to_owned(), context.settings.host()));
    Account {
        subject: subject.to_owned(),
        id: context.id.clone(),
        server: called(client),
        environment,
        ..Account::default()
    }
}

/// Writes the report where one is wanted, and prints the result; beside a failure as well, where anything is known.
pub(super) fn told(
    context: &Context,
    file: Option<&Path>,
    outcome: Outcome<()>,
    mut account: Account,
    mut warnings: Vec<String>,
) -> Result<u8, Ended> {
    let Err(failure) = context.cancel.explain(outcome) else {
        let result = Report::Account(&account);
        return match page(context, file, &account) {
            Ok(()) => context.finish(&result, report::concluded(&account), &warnings),
            Err(failure) => Ok(context.ended(&result, &failure, &warnings)),
        };
    };
    let nothing = account.steps.is_empty() && account.soft_deleted.is_empty();
    if nothing && account.unfinished.is_empty() && account.kept.is_empty() {
        return Err(Ended { failure, warnings });
    }
    account.cut = Some(failure.message.clone());
    warnings.extend(page(context, file, &account).err().map(|failure| format!("--report: {failure}")));
    Ok(context.ended(&Report::Account(&account), &failure, &warnings))
}

fn page(context: &Context, file: Option<&Path>, account: &Account) -> Outcome<()> {
    let Some(file) = file else { return Ok(()) };
    let page = report::verification(account, context.reporter.started, jiff::Timestamp::now());
    report::health::textfile::write(file, &page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_several_names() {
        assert!(alike("http://127.0.0.1:5000", "http://localhost:5000"));
        assert!(alike("http://[::1]:5000/a", "http://localhost:5000/a"));
        assert!(alike("http://h (workspace w)", "http://h (workspace w)"));
        assert!(!alike("http://127.0.0.1:5000", "http://localhost:5001"));
        assert!(!alike("http://127.0.0.1:5000", "https://localhost:5000"));
        assert!(!alike("http://127.0.0.10:5000", "http://localhost0:5000"));
        assert!(!alike("http://127.0.0.1:5000", "http://localhost:5000 (workspace w)"));
    }
}
