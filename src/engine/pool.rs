//! A bounded number of threads over tasks, which may bring further tasks.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;

/// A task with its weight: the heaviest that waits is begun first.
pub type Weighed<T> = (u64, T);

struct State<T> {
    /// Waiting tasks by weight and order of arrival.
    waiting: BTreeMap<(u64, std::cmp::Reverse<u64>), T>,
    arrived: u64,
    running: usize,
    failed: Option<Failure>,
}

impl<T> State<T> {
    fn add(&mut self, tasks: Vec<Weighed<T>>) {
        for (weight, task) in tasks {
            self.waiting.insert((weight, std::cmp::Reverse(self.arrived)), task);
            self.arrived += 1;
        }
    }
}

struct Flow<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Flow<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next task, as soon as there is one; `None` when no more can come.
    fn next(&self, cancel: &Cancel) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.failed.is_some() || cancel.failure().is_some() {
                return None;
            }
            if let Some((_, task)) = state.waiting.pop_last() {
                state.running += 1;
                return Some(task);
            }
            if state.running == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, outcome: Outcome<Vec<Weighed<T>>>) {
        let mut state = self.lock();
        state.running -= 1;
        match outcome {
            Ok(more) => state.add(more),
            Err(failure) => {
                state.failed.get_or_insert(failure);
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// Runs `work` on every task with at most `jobs` threads, and on every task that these bring, until there is none left.
/// After a failure or an interruption no new task is begun; the first failure is returned when all threads have ended.
///
/// # Errors
/// The first failure of `work`, or the interruption.
pub fn flow<T: Send>(
    jobs: usize,
    tasks: Vec<Weighed<T>>,
    cancel: &Cancel,
    work: impl Fn(T) -> Outcome<Vec<Weighed<T>>> + Sync,
) -> Outcome<()> {
    let mut state = State { waiting: BTreeMap::new(), arrived: 0, running: 0, failed: None };
    state.add(tasks);
    let flow = Flow { state: Mutex::new(state), changed: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(task) = flow.next(cancel) {
                    flow.done(work(task));
                }
                // Another thread may wait for tasks that do not come any more.
                flow.changed.notify_all();
            });
        }
    });
    cancel.check()?;
    flow.state.into_inner().unwrap_or_else(PoisonError::into_inner).failed.map_or(Ok(()), Err)
}

/// Runs `work` on every task, the first ones first, and returns the results in the tasks' order.
///
/// # Errors
/// As [`flow`].
pub fn run<T: Send, R: Send>(
    jobs: usize,
    tasks: Vec<T>,
    cancel: &Cancel,
    work: impl Fn(T) -> Outcome<R> + Sync,
) -> Outcome<Vec<R>> {
    let jobs = jobs.min(tasks.len());
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    let tasks = tasks.into_iter().enumerate().map(|task| (0, task)).collect();
    flow(jobs, tasks, cancel, |(index, task)| {
        let result = work(task)?;
        results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        Ok(Vec::new())
    })?;
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_tasks_bring_are_done_as_well() {
        let sum = Mutex::new(0);
        flow(3, vec![(1, 6u64)], &Cancel::new(), |n| {
            *sum.lock().unwrap() += 1;
            Ok(if n == 0 { Vec::new() } else { vec![(n, n - 1), (0, 0)] })
        })
        .expect("no failure");
        assert_eq!(sum.into_inner().unwrap(), 13);
    }

    #[test]
    fn the_first_failure_ends_it_and_no_thread_waits_for_ever() {
        let failed = flow(4, (0..100).map(|n| (n, n)).collect(), &Cancel::new(), |n| {
            if n == 50 { Err(Failure::internal("stop")) } else { Ok(Vec::new()) }
        });
        assert!(failed.is_err());
        assert_eq!(run(2, vec![3, 1, 2], &Cancel::new(), |n| Ok(n * 2)).expect("no failure"), [6, 2, 4]);
    }
}
