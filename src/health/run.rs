//! One look at a stack: every layer at the same time, until all is told or the time is up.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use jiff::SignedDuration;
use tokio::runtime::Builder;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::domain::catalogue::Catalogue;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::health::memory::Memory;
use crate::domain::health::settings::HealthSettings;
use crate::domain::health::{Examination, Reading, Unit, follow_dependencies};
use crate::domain::tracking::MOST_MARKS;

use super::plan::Choice;
use super::revision::fits;
use super::{Stack, access, activity, artifacts, backup, metrics, probe, registry, security, server, twin};

/// Sizes whose growth is a check of its own.
const GROWTHS: [(&str, &str); 2] = [("database.size", "database.growth"), ("artifacts.size", "artifacts.growth")];
/// The time over which growth is told.
const MONTH: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Looks at a stack. What was not told when the time was up is unknown.
///
/// # Errors
/// Interrupted.
pub fn examine(stack: Stack) -> Outcome<Examination> {
    let begun = Instant::now();
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::internal(format!("no runtime: {e}")))?;
    let stack = Arc::new(stack);
    runtime.block_on(look(&stack));
    // What still hangs is left behind: it holds nothing that outlives the process.
    runtime.shutdown_background();
    stack.look.cancel.check()?;
    let mut readings = std::mem::take(&mut *stack.found.lock().unwrap_or_else(PoisonError::into_inner));
    grow(&stack, &mut readings);
    fit(&stack, &mut readings)?;
    twin(&stack, &mut readings);
    let left = std::mem::take(&mut *stack.left.lock().unwrap_or_else(PoisonError::into_inner));
    let readings = in_order(&stack, readings, &left);
    let took = SignedDuration::try_from(begun.elapsed()).unwrap_or_default();
    Ok(Examination { stack: stack.addresses.clone(), at: stack.look.now, took, readings, left })
}

async fn look(stack: &Arc<Stack>) {
    let mut tasks = JoinSet::new();
    let own = stack.clone();
    tasks.spawn(async move {
        server::look(own.clone()).await;
        let _ = own.measured.set(());
    });
    let own = stack.clone();
    tasks.spawn(async move {
        own.server_is_measured().await;
        tokio::join!(
            access::look(own.clone()),
            activity::look(own.clone()),
            metrics::look(own.clone()),
            registry::look(own.clone()),
        );
    });
    let artifacts = stack.clone();
    tasks.spawn(async move { artifacts::look(&artifacts, &artifacts.artifacts).await });
    tasks.spawn(probe::look(stack.clone()));
    tasks.spawn(backup::look(stack.clone()));
    for blocking in [database as fn(&Stack), addresses] {
        let (done, told) = oneshot::channel::<()>();
        let stack = stack.clone();
        // A thread of its own: `postgres` runs its own reactor and must not be called on one of ours.
        std::thread::spawn(move || {
            blocking(&stack);
            drop(done);
        });
        tasks.spawn(async move {
            let _ = told.await;
        });
    }
    let interrupted = Arc::new(Notify::new());
    let notified = interrupted.clone();
    stack.look.cancel.on_cancel(move || notified.notify_one());
    let all = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        () = all => {}
        () = tokio::time::sleep_until(stack.look.deadline.into()) => {}
        () = interrupted.notified() => {}
    }
}

fn database(stack: &Stack) {
    let seen = super::database::look(stack);
    if let Some(revision) = seen.revision {
        let _ = stack.revision.set(revision);
    }
    let _ = stack.marks.set(seen.experiments);
    for (id, why) in seen.left {
        stack.leave(id, why);
    }
}

fn addresses(stack: &Stack) {
    security::addresses(stack, &stack.credentials);
}

/// What the database and the server tell together: whether they fit.
fn fit(stack: &Stack, readings: &mut [Reading]) -> Outcome<()> {
    let (Some(revision), Some(release)) = (stack.revision.get(), stack.release.get()) else { return Ok(()) };
    let Some(reading) = readings.iter_mut().find(|r| r.id == "database.revision") else { return Ok(()) };
    if let Some(fit) = fits(revision, release, Catalogue::embedded()?) {
        *reading = fit.into(reading.clone());
    }
    Ok(())
}

/// Tells whether database and server belong together.
fn twin(stack: &Stack, readings: &mut Vec<Reading>) {
    if !stack.wants(twin::ID) {
        return;
    }
    let (marks, shown) = (stack.marks.get().map_or(&[][..], |m| m), stack.shown.get().map_or(&[][..], |s| s));
    match twin::compare(shown, marks, marks.len() < MOST_MARKS) {
        // Without an answer of one of them it stands on that one.
        None if stack.shown.get().is_none() || marks.is_empty() && !shown.is_empty() => {
            readings.push(Reading::unknown(twin::ID, "the experiments of the two could not be compared"));
        }
        None => stack.leave(twin::ID, "the server shows no experiment to compare with"),
        Some(reading) => readings.push(reading),
    }
}

/// Tells the growth of what was measured, from what earlier runs measured.
fn grow(stack: &Stack, readings: &mut Vec<Reading>) {
    for (size, growth) in GROWTHS.into_iter().filter(|(_, growth)| stack.wants(growth)) {
        let measured = readings.iter().find(|r| r.id == size).and_then(|r| r.measure);
        if stack.has_left(size) {
            stack.leave(growth, format!("{size} is not asked"));
            continue;
        }
        let limits = match stack.at_most(growth, Unit::Bytes) {
            Ok(limits) => limits,
            Err(failure) => {
                readings.push(server::unset(growth, &failure));
                continue;
            }
        };
        readings.push(match (measured, stack.before(size, MONTH)) {
            (None, _) => Reading::unknown(growth, format!("{size} was not measured")).needs(size),
            (Some(_), None) => Reading::ok(growth, "no earlier run to compare with: this one is the first"),
            (Some(now), Some((then, before))) => {
                let hours = stack.look.now.duration_since(then).as_hours();
                let since = if hours < 48 { format!("{hours} h") } else { format!("{} days", hours / 24) };
                Reading::measured(growth, now.value - before, Unit::Bytes, limits, format!("in the last {since}"))
            }
        });
    }
}

/// The readings in the order of the plan, with those that nobody told.
fn in_order(stack: &Stack, mut told: Vec<Reading>, left: &[(String, String)]) -> Vec<Reading> {
    let mut ordered = Vec::with_capacity(stack.look.planned.len());
    for planned in stack.look.planned.iter().filter(|p| !left.iter().any(|(id, _)| *id == p.id)) {
        match told.iter().position(|r| r.id == planned.id) {
            Some(index) => ordered.push(told.swap_remove(index)),
            None => ordered.push(Reading::unknown(planned.id.clone(), "no answer in time")),
        }
    }
    ordered
}

/// Judges an examination with what earlier runs found, and leaves in it what was asked for and what that stands on, if
/// that is broken. The memory is that of the stack afterwards.
///
/// A memory that is not kept counts nothing in a row: then each failure counts at once.
pub fn judge(
    examination: &mut Examination,
    memory: &mut Memory,
    kept: bool,
    settings: &HealthSettings,
    choice: &Choice,
) {
    follow_dependencies(&mut examination.readings);
    memory.judge(&mut examination.readings, examination.at, |id| if kept { settings.after(id) } else { 1 });
    for reading in &examination.readings {
        let Some(measure) = reading.measure else { continue };
        if GROWTHS.iter().any(|(size, _)| *size == reading.id) || reading.id.starts_with("probe.") {
            memory.record(&reading.id, examination.at, measure.value);
        }
    }
    let chosen = examination.readings.iter().filter(|r| choice.takes(&r.id));
    let roots: Vec<String> = chosen.filter_map(|r| r.root().map(str::to_owned)).collect();
    examination.readings.retain(|r| choice.takes(&r.id) || roots.contains(&r.id));
    examination.left.retain(|(id, _)| choice.takes(id));
}
