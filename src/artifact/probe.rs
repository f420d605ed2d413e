//! The small file that shows whether a store takes one: its name, what is in it, and when one was left behind.

use jiff::{SignedDuration, Timestamp};

/// What every probe's name begins with; the id of its run follows.
pub const NAME: &str = ".mlops-probe-";

/// A probe of an earlier run that nobody can be waiting for.
const STALE: SignedDuration = SignedDuration::from_hours(1);

/// A probe's name.
pub(super) fn name(id: &str) -> String {
    format!("{NAME}{id}")
}

/// What is written: one block, of which no two runs write the same.
pub(super) fn content(id: &str) -> Vec<u8> {
    let line = format!("written by `mlops health --deep`, may be deleted: {id}\n");
    line.bytes().cycle().take(4096).collect()
}

/// Whether a file of that name was left behind by a run that was killed more than an hour ago. Ids of runs begin with
/// their time: `20260114T071500Z-`.
pub fn is_stale(name: &str, now: Timestamp) -> bool {
    let limit = now.checked_sub(STALE).unwrap_or(now).strftime("%Y%m%dT%H%M%SZ").to_string();
    let time = name.strip_prefix(NAME).and_then(|id| id.split_once('-')).map(|(time, _)| time);
    time.is_some_and(|t| t.len() == limit.len() && t.ends_with('Z') && t < limit.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_probes_are_stale() {
        let now: Timestamp = "2026-01-14T08:00:00Z".parse().unwrap();
        for (name, stale) in [
            (".mlops-probe-20260114T065959Z-0123abcd", true),
            (".mlops-probe-20251231T235959Z-0123abcd", true),
            (".mlops-probe-20260114T070001Z-0123abcd", false),
            (".mlops-probe-20260114T080000Z-0123abcd", false),
            (".mlops-probe-0-0123abcd", false),
            ("mlops-probe-20200114T065959Z-0123abcd", false),
            (".mlops-probe-", false),
        ] {
            assert_eq!(is_stale(name, now), stale, "{name}");
        }
    }
}
