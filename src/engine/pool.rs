//! A bounded number of threads over a list of tasks.

use std::sync::{Mutex, PoisonError};

use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;

/// Runs `work` on every task with at most `jobs` threads and returns the results in the tasks' order. After a failure
/// or an interruption no new task is begun; the first failure is returned when all threads have ended.
///
/// # Errors
/// The first failure of `work`, or the interruption.
pub fn run<T: Send, R: Send>(
    jobs: usize,
    tasks: Vec<T>,
    cancel: &Cancel,
    work: impl Fn(T) -> Outcome<R> + Sync,
) -> Outcome<Vec<R>> {
    let threads = jobs.clamp(1, tasks.len().max(1));
    let queue = Mutex::new(tasks.into_iter().enumerate());
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    let next = || {
        if cancel.failure().is_some() || failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return None;
        }
        queue.lock().unwrap_or_else(PoisonError::into_inner).next()
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((index, task)) = next() {
                    match work(task) {
                        Ok(result) => {
                            results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                        }
                        Err(failure) => {
                            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
                        }
                    }
                }
            });
        }
    });
    cancel.check()?;
    if let Some(failure) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(failure);
    }
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
