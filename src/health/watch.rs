//! Many looks, one verdict: each check at its worst, with how often it was not well and when.

use jiff::{SignedDuration, Timestamp};

use crate::domain::health::{Examination, Reading, Status};

/// What was seen of each check so far.
pub struct Watch {
    stack: Vec<(&'static str, String)>,
    begun: Timestamp,
    looks: u32,
    last: Timestamp,
    checks: Vec<Seen>,
    left: Vec<(String, String)>,
}

struct Seen {
    worst: Reading,
    bad: u32,
    first_bad: Option<Timestamp>,
    last_bad: Option<Timestamp>,
}

impl Watch {
    /// Begins.
    pub fn new(begun: Timestamp) -> Watch {
        Watch { stack: Vec::new(), begun, looks: 0, last: begun, checks: Vec::new(), left: Vec::new() }
    }

    /// Takes note of a look.
    pub fn add(&mut self, look: &Examination) {
        self.looks += 1;
        self.last = look.at + look.took;
        self.stack.clone_from(&look.stack);
        self.left.clone_from(&look.left);
        for reading in &look.readings {
            let at = (reading.status != Status::Ok).then_some(look.at);
            match self.checks.iter_mut().find(|s| s.worst.id == reading.id) {
                Some(seen) => {
                    // Of equals the newest: the number at the end is what one would look at next.
                    if reading.status >= seen.worst.status {
                        seen.worst = reading.clone();
                    }
                    seen.bad += u32::from(at.is_some());
                    seen.first_bad = seen.first_bad.or(at);
                    seen.last_bad = at.or(seen.last_bad);
                }
                None => self.checks.push(Seen {
                    worst: reading.clone(),
                    bad: u32::from(at.is_some()),
                    first_bad: at,
                    last_bad: at,
                }),
            }
        }
    }

    /// How many looks there were.
    pub fn looks(&self) -> u32 {
        self.looks
    }

    /// The verdict on all of it.
    pub fn verdict(self) -> Examination {
        let looks = self.looks;
        let readings = self.checks.into_iter().map(|seen| {
            let mut reading = seen.worst;
            if let (Some(first), Some(last)) = (seen.first_bad, seen.last_bad) {
                let times = if first == last { clock(first) } else { format!("{} to {}", clock(first), clock(last)) };
                reading.evidence.insert(0, format!("not well in {} of {looks} looks, {times}", seen.bad));
            }
            reading
        });
        let readings = readings.collect();
        let took: SignedDuration = self.last.duration_since(self.begun);
        Examination { stack: self.stack, at: self.begun, took, readings, left: self.left }
    }
}

fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_told_at_its_worst() {
        let at = |minute: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
        let look = |minute, status, summary: &str| Examination {
            stack: vec![],
            at: at(minute),
            took: SignedDuration::from_secs(1),
            left: vec![],
            readings: vec![Reading::new("server.ready", status, summary), Reading::ok("server.live", "fine")],
        };
        let mut watch = Watch::new(at(0));
        watch.add(&look(0, Status::Ok, "a"));
        watch.add(&look(1, Status::Critical, "b"));
        watch.add(&look(2, Status::Warning, "c"));
        watch.add(&look(3, Status::Ok, "d"));
        let verdict = watch.verdict();
        assert_eq!((verdict.status(), verdict.took), (Status::Critical, SignedDuration::from_secs(181)));
        assert_eq!(verdict.readings[0].summary, "b");
        assert_eq!(verdict.readings[0].evidence, ["not well in 2 of 4 looks, 00:01:00Z to 00:02:00Z"]);
        assert_eq!((verdict.readings[1].status, verdict.readings[1].evidence.len()), (Status::Ok, 0));
    }
}
