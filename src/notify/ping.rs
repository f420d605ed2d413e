//! Pings in the manner of healthchecks.io, which self-hosted Healthchecks, Uptime Kuma and others know as well
//! (healthchecks.io, "Pinging API"): `URL/start` when a run begins, `URL` when it went well, `URL/fail` when not, all
//! with one `rid`. The monitor raises an alarm when no ping comes, so it also sees a cron that stands still.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::thread::JoinHandle;

use super::address::SecretAddress;
use super::send::{Message, Sender};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::harmless::line;

/// So much of a text is kept by healthchecks.io.
const BODY: usize = 10_000;
const CUT: &str = "\n... cut";

/// A run that was announced.
#[derive(Debug)]
pub struct Ping {
    sender: Sender,
    address: SecretAddress,
    rid: String,
    started: JoinHandle<Outcome<()>>,
}

impl Ping {
    /// Announces a run. It does not wait until that has arrived: a monitor that hangs delays no run.
    pub fn start(sender: Sender, address: SecretAddress) -> Ping {
        let rid = rid();
        let (other, to, id) = (sender.clone(), address.clone(), rid.clone());
        let started = std::thread::spawn(move || signal(&other, &to, &id, Some("start"), ""));
        Ping { sender, address, rid, started }
    }

    /// Says how the run ended, with a text of which 10 kB are kept. What could not be said is in the warnings.
    pub fn finish(self, well: bool, text: &str) -> Vec<String> {
        // In order: the monitor measures from one to the other.
        let died = || Err(Failure::internal("the thread that sends ended by itself"));
        let started = self.started.join().unwrap_or_else(|_| died());
        let finished = signal(&self.sender, &self.address, &self.rid, (!well).then_some("fail"), &bounded(text));
        let warning = |what: &str, done: Outcome<()>| done.err().map(|e| format!("ping ({what}): {e}"));
        let told = [warning("start", started), warning(if well { "success" } else { "fail" }, finished)];
        told.into_iter().flatten().collect()
    }
}

fn signal(sender: &Sender, address: &SecretAddress, rid: &str, what: Option<&str>, text: &str) -> Outcome<()> {
    let mut url = address.url()?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty();
        path.extend(what);
    }
    url.query_pairs_mut().append_pair("rid", rid);
    let content = "text/plain; charset=utf-8";
    let message = Message { to: address, url, content, body: text.to_owned(), repeatable: true };
    let answer = sender.send(&message)?;
    // For a check that it does not know, and for too many pings, healthchecks.io says 200.
    for refusal in ["not found", "rate limited"] {
        if answer.contains(&format!("({refusal})")) {
            return Err(Failure::target(format!("{address}: {refusal}")));
        }
    }
    Ok(())
}

/// The text without what acts on a terminal, and not longer than what is kept.
fn bounded(text: &str) -> String {
    let mut out = String::new();
    for text in text.lines() {
        // Blanks at the beginning of a line are its shape.
        let blank = text.len() - text.trim_start_matches(' ').len();
        let text = format!("{:blank$}{}\n", "", line(text));
        if out.len() + text.len() > BODY - CUT.len() {
            let mut end = (BODY - CUT.len()).saturating_sub(out.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            out.push_str(text.get(..end).unwrap_or_default());
            out.push_str(CUT);
            return out;
        }
        out.push_str(&text);
    }
    out
}

/// A random UUID (version 4). It ties pings of one run together and is no secret.
fn rid() -> String {
    let random = || RandomState::new().build_hasher().finish();
    let (high, low) = (random(), random());
    let high = high & !0xf000 | 0x4000;
    let low = low & !(0b11 << 62) | 0b10 << 62;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_bounded_and_keeps_its_shape() {
        assert_eq!(bounded("a\n  b\u{1b}[1m\n"), "a\n  b\\u{1b}[1m\n");
        for text in ["ä".repeat(20_000), "ä\n".repeat(9_000), "\u{1b}".repeat(9_999), format!("x{}", "€".repeat(5_000))]
        {
            let bounded = bounded(&text);
            assert!(bounded.len() <= BODY && bounded.len() > BODY - 20 && bounded.ends_with(CUT), "{}", bounded.len());
        }
    }

    #[test]
    fn a_rid_is_a_random_uuid() {
        let (one, other) = (rid(), rid());
        assert_ne!(one, other);
        let parts: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{one}");
        assert!(one.get(14..15) == Some("4") && one.get(19..20).is_some_and(|c| "89ab".contains(c)), "{one}");
    }
}
