//! SIGINT and SIGTERM: the first one cancels, the second one ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;

/// Listens for signals on a thread of its own.
///
/// # Errors
/// Internal: the system refused.
pub(super) fn listen(cancel: &Cancel) -> Outcome<()> {
    let failed = |e: std::io::Error| Failure::internal(format!("signals cannot be handled: {e}"));
    let armed = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Once armed, the default action of the signal ends the process.
        signal_hook::flag::register_conditional_default(signal, armed.clone()).map_err(failed)?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let cancel = cancel.clone();
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            armed.store(true, Ordering::SeqCst);
            // Again and again, because a statement may begin between two looks at the flag.
            for _ in 0..100 {
                cancel.cancel(signal);
                std::thread::sleep(std::time::Duration::from_millis(500));
            }
        }
    });
    Ok(())
}
