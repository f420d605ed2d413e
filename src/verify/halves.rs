//! The two halves of the check for what other hands do in between - an upgrade, a move to another machine or another
//! database: a snapshot, and the comparison with it.

use std::path::Path;
use std::time::Instant;

use super::compare;
use super::fingerprint::{Coverage, Sample};
use super::persistence::{Stack, counts, words};
use super::snapshot::Snapshot;
use crate::domain::failure::Outcome;
use crate::domain::verify::account::{Account, Finding, Step, Verdict};
use crate::domain::verify::fingerprint::{Kind, Rules};
use crate::domain::verify::ledger::{self, Ledger};
use crate::store::scratch::Scratch;

/// Writes a snapshot into a new file.
///
/// # Errors
/// Refused: the name is taken. The server's, the database's or the file's fault; the interruption.
pub fn snapshot(stack: &Stack<'_>, file: &Path, account: &mut Account) -> Outcome<()> {
    let begun = Instant::now();
    // A name that cannot be had is known before an hour of reading.
    drop(crate::newfile::NewFile::create(file, 0o600)?);
    account.procedure = procedure(stack, WRITTEN);
    let database = stack.ledger(None, &[])?.map(|reading| reading.ledger);
    if let Some(ledger) = &database {
        let evidence = format!("{} tables, {} rows at {}", ledger.tables.len(), ledger.rows(), ledger.revision);
        account.steps.push(Step::new("digest the database", begun.elapsed(), Verdict::Passed, evidence));
    }
    let begun = Instant::now();
    let counted = database.clone();
    let (_, seen) = stack.fingerprint(file, None, database)?;
    account.steps.push(Step::new("fingerprint", begun.elapsed(), Verdict::Passed, words(&seen.coverage)));
    account.counts = counts(&seen.coverage);
    account.noted.extend(counted.as_ref().and_then(|ledger| likely(&seen.coverage, ledger)));
    account.noted.extend(seen.coverage.left.into_iter().map(|left| Finding::new("not_read", "the sample", left)));
    Ok(())
}

/// Whether the database is likely the server's: it holds as much as the server shows. That it is the very one,
/// `verify persistence` proves, which writes.
fn likely(shown: &Coverage, ledger: &Ledger) -> Option<Finding> {
    let rows = |name: &str| ledger.tables.iter().find(|t| t.name == name).map(|t| t.rows);
    let kinds = [(Kind::Experiment, "experiments"), (Kind::Run, "runs")];
    let other = kinds.iter().find_map(|(kind, table)| {
        let (shown, held) = (shown.of(*kind), rows(table)?);
        (shown != held).then(|| format!("the server shows {}, and it holds {held}", kind.counted(shown)))
    })?;
    let why = "others write just now, the user sees not all, or it is not the database that the server runs on";
    Some(Finding::new("counts_differ", &ledger.address, format!("{other}: {why}")))
}

/// Compares what is there now with a snapshot.
///
/// # Errors
/// Damaged: the snapshot is. The server's or the database's fault; the interruption.
pub fn compare(stack: &Stack<'_>, earlier: &Snapshot, rules: Rules, account: &mut Account) -> Outcome<()> {
    let head = &earlier.head;
    account.procedure = procedure(stack, &compared(earlier));
    account
        .environment
        .push(("snapshot".to_owned(), format!("of {}, MLflow {}, {}", head.created, head.release, head.server)));
    let scratch = Scratch::new("mlops-verify-", &stack.ways.work_dir)?;

    let begun = Instant::now();
    let ledger = match (&head.database, stack.database) {
        (None, _) => Err("the snapshot holds no digests of a database"),
        (Some(_), None) => Err("the database's address is not known now (--backend-store-uri)"),
        (Some(before), Some(_)) => Ok((before, stack.ledger(Some(before), &[])?)),
    };
    let read = begun.elapsed();

    let begun = Instant::now();
    let mut sample = Sample::default();
    for thing in earlier.things()? {
        sample.take(&thing?);
    }
    let (now, seen) = stack.fingerprint(&scratch.path().join("now"), Some(sample), None)?;
    let found = stack.ask(compare::fingerprints(stack.client, earlier, &now, rules))?;
    let evidence = found.words();
    let verdict = if found.findings.is_empty() { Verdict::Passed } else { Verdict::Failed };
    account.steps.push(Step::new("fingerprint", begun.elapsed(), verdict, evidence));
    account.counts = vec![
        ("compared".to_owned(), found.compared),
        ("lost".to_owned(), found.lost),
        ("changed".to_owned(), found.changed),
        ("new".to_owned(), found.new),
    ];
    if found.nothing_left {
        let told = "not one experiment of the snapshot is there: this is another stack, or a new one";
        account.findings.push(Finding::new("another_store", account.server.clone(), told));
    }
    account.findings.extend(found.findings);
    account.noted.extend(found.noted);

    let name = "digest the database";
    match ledger {
        Err(why) => account.steps.push(Step::new(name, begun.elapsed(), Verdict::Skipped(why.to_owned()), "")),
        Ok((_, None)) => {}
        Ok((before, Some(after))) => {
            let (findings, noted) = compare::databases(before, None, &after, rules, found.others, stack.work)?;
            // That it is another place is what a move is for; what it was, and whether all came along, is said.
            let moved = |f: &Finding| f.id == ledger::ANOTHER && before.engine == after.ledger.engine;
            let (moved, findings): (Vec<Finding>, Vec<Finding>) = findings.into_iter().partition(moved);
            let verdict = if findings.is_empty() { Verdict::Passed } else { Verdict::Failed };
            let ledger = &after.ledger;
            account.noted.extend(likely(&seen.coverage, ledger));
            let evidence = format!("{} tables, {} rows at {}", ledger.tables.len(), ledger.rows(), ledger.revision);
            account.steps.push(Step::new(name, read, verdict, evidence));
            account.findings.extend(findings);
            account.noted.extend(moved.into_iter().chain(noted));
            if before.revision != ledger.revision && rules.upgrade {
                let told = format!("its revision was {}, and is {}", before.revision, ledger.revision);
                account.noted.push(Finding::new(ledger::UPGRADED, &ledger.address, told));
            }
        }
    }
    if head.release != now.head.release {
        let told = format!("MLflow was {}, and is {}", head.release, now.head.release);
        account.noted.push(Finding::new("release_changed", account.server.clone(), told));
    }
    Ok(())
}

/// What becomes of what is read for a snapshot.
pub const WRITTEN: &str = "written into the snapshot";

/// What becomes of what is read for a comparison.
pub fn compared(earlier: &Snapshot) -> String {
    format!("compared with the snapshot {} of {}", earlier.head.id, earlier.head.created)
}

/// What is done, a sentence each.
pub fn procedure(stack: &Stack<'_>, what: &str) -> Vec<String> {
    let mut steps = vec![format!(
        "All experiments, runs, models and versions are read over REST, with a sample of histories and files, and {what}."
    )];
    if stack.database.is_some() {
        steps.push("So is every row of every table of the database, as digests.".to_owned());
    }
    steps
}
