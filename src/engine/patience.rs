//! Waiting for what may never answer.

use std::sync::mpsc;
use std::time::Duration;

/// Runs `work` on a thread of its own and gives what it gives, or `None` after that time: a read from a silent server
/// ends by no other means. The thread goes on by itself, and what it finds then is lost.
pub fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = send.send(work());
    });
    receive.recv_timeout(limit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_is_given_and_what_does_not_is_left() {
        assert_eq!(within(Duration::from_secs(60), || 1), Some(1));
        let (keep, never) = mpsc::channel::<()>();
        assert_eq!(within(Duration::from_millis(50), move || never.recv()), None);
        drop(keep);
    }
}
