//! Which backups are kept: restic's `forget`, counted by the calendar in UTC, with two rules of our own on top - the
//! newest complete backup always stays, and an incomplete one never takes the place of a complete one.

use std::cmp::Reverse;
use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::domain::failure::{Failure, Outcome};

/// How many backups of one kind are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// So many of the newest; 0 means that the rule is not given, as in restic.
    Newest(u32),
    /// All: restic's `unlimited` and -1.
    All,
}

impl Count {
    /// Reads a number, `unlimited`, `all` or restic's older `-1`.
    ///
    /// # Errors
    /// Usage: none of them.
    pub fn parse(text: &str) -> Outcome<Count> {
        match text.trim() {
            "unlimited" | "all" | "-1" => Ok(Count::All),
            number => number.parse().map(Count::Newest).map_err(|_| {
                Failure::usage(format!("`{text}` is no number of backups")).hint("give a number, or `unlimited`")
            }),
        }
    }

    fn is_given(self) -> bool {
        self != Count::Newest(0)
    }

    /// Takes one off, if there is one.
    fn take(&mut self) {
        if let Count::Newest(left) = self {
            *left = left.saturating_sub(1);
        }
    }
}

impl From<u32> for Count {
    fn from(number: u32) -> Self {
        Count::Newest(number)
    }
}

/// A length of time in restic's form `1y5m7d2h`: calendar years, months and days, and hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Within {
    /// Calendar years.
    pub years: u32,
    /// Calendar months.
    pub months: u32,
    /// Days.
    pub days: u32,
    /// Hours.
    pub hours: u32,
}

impl Within {
    /// Reads `1y5m7d2h`; each part may be missing, and none may stand twice.
    ///
    /// # Errors
    /// Usage: another form, or a number that is too big.
    pub fn parse(text: &str) -> Outcome<Within> {
        let wrong = || {
            Failure::usage(format!("`{text}` is no length of time"))
                .hint("years, months, days and hours, each a number with its letter: 1y5m7d2h, 14d, 48h")
        };
        let mut within = Within::default();
        let mut seen = String::new();
        let mut number = String::new();
        for letter in text.trim().chars() {
            if letter.is_ascii_digit() {
                number.push(letter);
                continue;
            }
            let value: u32 = number.parse().map_err(|_| wrong())?;
            number.clear();
            if seen.contains(letter) {
                return Err(wrong());
            }
            seen.push(letter);
            match letter {
                'y' => within.years = value,
                'm' => within.months = value,
                'd' => within.days = value,
                'h' => within.hours = value,
                _ => return Err(wrong()),
            }
        }
        if seen.is_empty() || !number.is_empty() { Err(wrong()) } else { Ok(within) }
    }

    /// Whether it is no time at all, which in restic means that the rule is not given.
    pub fn is_zero(self) -> bool {
        self == Within::default()
    }

    /// The moment that lies this long before `from`. As in Go's `AddDate`, which restic uses, a day that the month does
    /// not have runs over into the next one: one month before 31 March is 3 March. `None`: before all calendars.
    fn before(self, from: Timestamp) -> Option<Timestamp> {
        let from = civil(from);
        let months = i64::from(from.year()) * 12 + i64::from(from.month() - 1)
            - (i64::from(self.years) * 12 + i64::from(self.months));
        let year = i16::try_from(months.div_euclid(12)).ok()?;
        let month = i8::try_from(months.rem_euclid(12) + 1).ok()?;
        let days = i64::from(from.day()) - 1 - i64::from(self.days);
        let date = Date::new(year, month, 1).ok()?.checked_add(jiff::Span::new().try_days(days).ok()?).ok()?;
        let moment = date.to_datetime(from.time()).to_zoned(TimeZone::UTC).ok()?.timestamp();
        moment.checked_sub(SignedDuration::from_hours(i64::from(self.hours))).ok()
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, letter) in [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')] {
            if number > 0 {
                write!(f, "{number}{letter}")?;
            }
        }
        Ok(())
    }
}

/// What is kept. With nothing given nothing is removed, as in restic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// The newest so many.
    pub last: Option<Count>,
    /// The newest of each of the last so many hours that have one.
    pub hourly: Option<Count>,
    /// The newest of each of the last so many days that have one.
    pub daily: Option<Count>,
    /// The newest of each of the last so many ISO weeks that have one.
    pub weekly: Option<Count>,
    /// The newest of each of the last so many months that have one.
    pub monthly: Option<Count>,
    /// The newest of each of the last so many years that have one.
    pub yearly: Option<Count>,
    /// All that are younger than this, counted back from the newest backup and not from now.
    pub within: Option<Within>,
}

/// A rule as somebody wrote it, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `keep_last`, `keep_within`, ...
    pub name: &'static str,
    /// What was written.
    pub text: String,
    /// The setting's origin; `None`: a flag.
    pub origin: Option<String>,
}

impl Keep {
    /// Takes in a rule: its name, `keep_last`, and what was written for it.
    ///
    /// # Errors
    /// Usage: it is no number of backups, or no length of time.
    pub fn set(&mut self, name: &str, text: &str) -> Outcome<()> {
        let count = match name {
            "keep_last" => &mut self.last,
            "keep_hourly" => &mut self.hourly,
            "keep_daily" => &mut self.daily,
            "keep_weekly" => &mut self.weekly,
            "keep_monthly" => &mut self.monthly,
            "keep_yearly" => &mut self.yearly,
            "keep_within" => {
                self.within = Some(Within::parse(text)?);
                return Ok(());
            }
            _ => return Err(Failure::internal(format!("there is no rule {name}"))),
        };
        *count = Some(Count::parse(text)?);
        Ok(())
    }

    /// Whether no rule is given.
    pub fn is_empty(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        !counts.iter().flatten().any(|c| c.is_given()) && self.within.is_none_or(Within::is_zero)
    }
}

/// A backup, as retention sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: String,
    /// The moment that it holds.
    pub at: Timestamp,
    /// Whether everything is in it: an artifact that could not be read makes it incomplete.
    pub complete: bool,
    /// Whether an operator pinned it.
    pub pinned: bool,
}

/// What becomes of a backup, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The backup's id.
    pub id: String,
    /// Whether it stays.
    pub kept: bool,
    /// Why it stays; empty when it does not.
    pub reasons: Vec<String>,
}

/// The hour, day, week, ... of a moment, as a number.
type BucketOf = fn(DateTime) -> i64;

/// One rule while it is counted down.
struct Bucket {
    left: Count,
    /// `None` for the rule that counts backups themselves.
    of: Option<BucketOf>,
    last: Option<i64>,
    word: &'static str,
}

impl Bucket {
    /// Whether the backup stays because of this rule. The oldest one does as long as there is a count left: that keeps
    /// the history as long as it may be (restic's snapshot_policy.go).
    fn keeps(&mut self, at: Timestamp, is_oldest: bool) -> Option<String> {
        if !self.left.is_given() {
            return None;
        }
        let value = self.of.map(|of| of(civil(at)));
        let new = value.is_none() || value != self.last;
        if !new && !is_oldest {
            return None;
        }
        self.last = value;
        self.left.take();
        Some(if new { self.word.to_owned() } else { format!("oldest {}", self.word) })
    }
}

/// Decides what stays and what goes, newest first; of one moment the greater id first.
///
/// Only complete backups are counted. A pinned one stays and is counted with the others, as a tagged one is in restic.
/// An incomplete one uses up no count: it stays while no complete one is newer, within `within`, or pinned.
pub fn select(candidates: &[Candidate], keep: &Keep) -> Vec<Decision> {
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by_key(|c| (Reverse(c.at), Reverse(&c.id)));
    if keep.is_empty() {
        let all = |c: &&Candidate| Decision { id: c.id.clone(), kept: true, reasons: vec!["no rule is given".into()] };
        return sorted.iter().map(all).collect();
    }
    let newest = sorted.iter().position(|c| c.complete);
    let oldest = sorted.iter().rposition(|c| c.complete);
    // Counted from the newest complete one: incomplete ones that are newer stay anyway, and must not let others age.
    let since = newest.and_then(|i| sorted.get(i)).zip(keep.within.filter(|w| !w.is_zero()));
    let since = since.map(|(newest, within)| (within, within.before(newest.at)));
    let mut buckets = buckets(keep);
    let decide = |(index, candidate): (usize, &&Candidate)| {
        let mut reasons = Vec::new();
        if candidate.pinned {
            reasons.push("pinned".to_owned());
        }
        // A bound before all calendars leaves nothing out.
        if let Some((within, _)) = since.filter(|(_, bound)| bound.is_none_or(|bound| candidate.at > bound)) {
            reasons.push(format!("within {within}"));
        }
        if candidate.complete {
            reasons.extend(buckets.iter_mut().filter_map(|b| b.keeps(candidate.at, oldest == Some(index))));
            if newest == Some(index) {
                reasons.push("the newest complete one".to_owned());
            }
        } else if newest.is_none_or(|newest| index < newest) {
            reasons.push("no complete one is newer".to_owned());
        }
        Decision { id: candidate.id.clone(), kept: !reasons.is_empty(), reasons }
    };
    sorted.iter().enumerate().map(decide).collect()
}

fn buckets(keep: &Keep) -> Vec<Bucket> {
    let rules: [(Option<Count>, Option<BucketOf>, &str); 6] = [
        (keep.last, None, "last"),
        (
            keep.hourly,
            Some(|d| i64::from(d.day_of_year()) * 100 + i64::from(d.hour()) + i64::from(d.year()) * 100_000),
            "hourly",
        ),
        (keep.daily, Some(day), "daily"),
        (
            keep.weekly,
            Some(|d| {
                let week = d.date().iso_week_date();
                i64::from(week.year()) * 100 + i64::from(week.week())
            }),
            "weekly",
        ),
        (keep.monthly, Some(|d| i64::from(d.year()) * 100 + i64::from(d.month())), "monthly"),
        (keep.yearly, Some(|d| i64::from(d.year())), "yearly"),
    ];
    let given = rules.into_iter().filter_map(|(count, of, word)| Some(Bucket { left: count?, of, last: None, word }));
    given.collect()
}

/// The day of a moment as a number, yyyymmdd.
fn day(at: DateTime) -> i64 {
    i64::from(at.year()) * 10_000 + i64::from(at.month()) * 100 + i64::from(at.day())
}

/// Calendar and clock in UTC.
fn civil(at: Timestamp) -> DateTime {
    at.to_zoned(TimeZone::UTC).datetime()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(rules: &str) -> Keep {
        let mut keep = Keep::default();
        let words: Vec<&str> = rules.split_whitespace().collect();
        for pair in words.chunks(2) {
            let [rule, value] = pair else { panic!("{rules}") };
            let count = || Some(Count::parse(value).expect("a count"));
            match *rule {
                "last" => keep.last = count(),
                "hourly" => keep.hourly = count(),
                "daily" => keep.daily = count(),
                "weekly" => keep.weekly = count(),
                "monthly" => keep.monthly = count(),
                "yearly" => keep.yearly = count(),
                "within" => keep.within = Some(Within::parse(value).expect("a length of time")),
                other => panic!("{other}"),
            }
        }
        keep
    }

    fn candidate(at: &str, complete: bool, pinned: bool) -> Candidate {
        Candidate { id: at.to_owned(), at: at.parse().expect("a time"), complete, pinned }
    }

    /// What is kept, by its place from the newest on, with a letter for each of restic's reasons.
    fn kept(candidates: &[Candidate], rules: &str) -> String {
        let letter = |reason: &String| match reason.strip_prefix("oldest ").unwrap_or(reason) {
            "the newest complete one" => "",
            "pinned" => "p",
            word if word.starts_with("within ") => "i",
            "last" => "l",
            "hourly" => "h",
            "daily" => "d",
            "weekly" => "w",
            "monthly" => "m",
            "yearly" => "y",
            other => panic!("{other}"),
        };
        let words = select(candidates, &keep(rules)).into_iter().enumerate().filter(|(_, d)| d.kept);
        let words = words.map(|(i, d)| (i, d.reasons.iter().map(letter).collect::<String>()));
        // restic has no rule of its own for the newest.
        let words = words.filter(|(_, letters)| !letters.is_empty());
        words.map(|(i, letters)| format!("{i}{letters}")).collect::<Vec<_>>().join(" ")
    }

    /// Newest first. Some days have several, a year begins in another's ISO week, February is short.
    const TIMES: [&str; 20] = [
        "2025-03-31T10:00:00Z",
        "2025-03-31T09:30:00Z",
        "2025-03-31T09:00:00Z",
        "2025-03-31T00:00:00Z",
        "2025-03-30T08:30:00Z",
        "2025-03-30T08:00:00Z",
        "2025-03-29T08:00:00Z",
        "2025-03-03T10:00:01Z",
        "2025-03-03T10:00:00Z",
        "2025-03-01T10:00:00Z",
        "2025-02-28T10:00:00Z",
        "2025-01-31T10:00:00Z",
        "2025-01-05T23:59:59Z",
        "2024-12-30T00:00:00Z",
        "2024-12-29T23:00:00Z",
        "2024-02-29T00:00:00Z",
        "2023-02-28T00:00:00Z",
        "2021-01-04T12:00:00Z",
        "2021-01-03T12:00:00Z",
        "2020-12-27T23:59:59Z",
    ];

    /// What restic 0.14 itself said of backups of these times: `restic forget --dry-run --json`, `TZ=UTC`.
    #[test]
    fn it_decides_as_restic_does() {
        let candidates: Vec<Candidate> = TIMES.iter().rev().map(|at| candidate(at, true, false)).collect();
        for (rules, said) in [
            ("last 1", "0l"),
            ("last 3", "0l 1l 2l"),
            ("last 50", "0l 1l 2l 3l 4l 5l 6l 7l 8l 9l 10l 11l 12l 13l 14l 15l 16l 17l 18l 19l"),
            ("hourly 2", "0h 1h"),
            ("hourly 4", "0h 1h 3h 4h"),
            ("daily 1", "0d"),
            ("daily 3", "0d 4d 6d"),
            ("daily 50", "0d 4d 6d 7d 9d 10d 11d 12d 13d 14d 15d 16d 17d 18d 19d"),
            ("weekly 2", "0w 4w"),
            ("weekly 4", "0w 4w 7w 9w"),
            ("weekly 9", "0w 4w 7w 9w 11w 12w 14w 15w 16w"),
            ("monthly 3", "0m 10m 11m"),
            ("monthly 5", "0m 10m 11m 13m 15m"),
            ("monthly 50", "0m 10m 11m 13m 15m 16m 17m 19m"),
            ("yearly 2", "0y 13y"),
            ("yearly 3", "0y 13y 16y"),
            ("yearly 9", "0y 13y 16y 17y 19y"),
            ("within 1m", "0i 1i 2i 3i 4i 5i 6i 7i"),
            ("within 2d", "0i 1i 2i 3i 4i 5i"),
            ("within 1h", "0i 1i"),
            ("within 2h", "0i 1i 2i"),
            ("within 1d1h", "0i 1i 2i 3i"),
            ("within 30m", "0i 1i 2i 3i 4i 5i 6i 7i 8i 9i 10i 11i 12i 13i 14i 15i 16i"),
            ("within 1y", "0i 1i 2i 3i 4i 5i 6i 7i 8i 9i 10i 11i 12i 13i 14i"),
            ("within 3m1d", "0i 1i 2i 3i 4i 5i 6i 7i 8i 9i 10i 11i 12i"),
            ("within 4y3m", "0i 1i 2i 3i 4i 5i 6i 7i 8i 9i 10i 11i 12i 13i 14i 15i 16i 17i 18i"),
            ("last 2 daily 3 weekly 3 monthly 3 yearly 3", "0ldwmy 1l 4dw 6d 7w 10m 11m 13y 16y"),
            ("daily 2 within 1m", "0id 1i 2i 3i 4id 5i 6i 7i"),
            ("hourly 3 yearly 2", "0hy 1h 3h 13y"),
            ("weekly 6 monthly 2", "0wm 4w 7w 9w 10m 11w 12w"),
            ("last 0 daily 2", "0d 4d"),
        ] {
            assert_eq!(kept(&candidates, rules), said, "{rules}");
        }
        // Pinned ones beside restic's tagged ones and `--keep-tag`.
        let pinned = ["2025-03-30T08:00:00Z", "2024-12-29T23:00:00Z"];
        let candidates: Vec<Candidate> = TIMES.iter().map(|at| candidate(at, true, pinned.contains(at))).collect();
        for (rules, said) in [
            ("daily 2", "0d 4d 5p 14p"),
            ("last 1", "0l 5p 14p"),
            ("monthly 12", "0m 5p 10m 11m 13m 14p 15m 16m 17m 19m"),
        ] {
            assert_eq!(kept(&candidates, rules), said, "{rules}");
        }
    }

    /// The oldest stays while there is a count left, whatever bucket it is in; also as restic 0.14 said.
    #[test]
    fn the_oldest_stays_while_a_count_is_left() {
        let times = ["2019-05-01T10:00:00Z", "2019-05-01T08:10:00Z", "2019-05-01T08:00:00Z", "2019-05-01T07:30:00Z"];
        let candidates = times.map(|at| candidate(at, true, false));
        for (rules, said) in [
            ("daily 1", "0d"),
            ("daily 2", "0d 3d"),
            ("daily 3 hourly 2", "0hd 1h 3d"),
            ("hourly 3", "0h 1h 3h"),
            ("yearly 2 last 1", "0ly 3y"),
            ("daily 2 yearly 1", "0dy 3d"),
        ] {
            assert_eq!(kept(&candidates, rules), said, "{rules}");
        }
        let decisions = select(&candidates, &keep("daily 2"));
        assert_eq!(decisions.last().expect("four").reasons, ["oldest daily"]);
        // An incomplete one is not the oldest in this sense.
        let mut candidates = candidates.to_vec();
        candidates.push(candidate("2018-01-01T00:00:00Z", false, false));
        assert_eq!(kept(&candidates, "daily 2"), "0d 3d");
    }

    #[test]
    fn unlimited_keeps_one_of_each() {
        let candidates = TIMES.map(|at| candidate(at, true, false));
        for (all, many) in [("last unlimited", "last 50"), ("daily -1", "daily 50"), ("yearly all", "yearly 9")] {
            assert_eq!(kept(&candidates, all), kept(&candidates, many), "{all}");
        }
    }

    #[test]
    fn nothing_given_removes_nothing() {
        let candidates = TIMES.map(|at| candidate(at, false, false));
        for rules in ["", "last 0 yearly 0", "within 0d"] {
            assert!(keep(rules).is_empty() && select(&candidates, &keep(rules)).iter().all(|d| d.kept), "{rules}");
        }
        assert!(!keep("last unlimited").is_empty() && !keep("within 1h").is_empty());
        assert!(select(&[], &keep("last 1")).is_empty());
    }

    #[test]
    fn an_incomplete_one_takes_nobodys_place() {
        let candidates = [
            candidate("2025-01-06T00:00:00Z", false, false),
            candidate("2025-01-05T12:00:00Z", false, true),
            candidate("2025-01-05T00:00:00Z", true, false),
            candidate("2025-01-04T12:00:00Z", false, false),
            candidate("2025-01-04T00:00:00Z", true, false),
            candidate("2025-01-03T12:00:00Z", false, true),
            candidate("2025-01-03T00:00:00Z", true, false),
        ];
        let reasons = |candidates: &[Candidate], rules: &str| -> Vec<String> {
            select(candidates, &keep(rules)).iter().map(|d| d.reasons.join(", ")).collect()
        };
        let newest = "last, the newest complete one";
        let newer = "no complete one is newer";
        let pinned = format!("pinned, {newer}");
        assert_eq!(reasons(&candidates, "last 2"), [newer, &pinned, newest, "", "last", "pinned", ""]);
        // Counted back from the newest complete one, not from incomplete ones after it.
        let within = "within 1d";
        assert_eq!(
            reasons(&candidates, within),
            [
                &format!("{within}, {newer}"),
                &format!("pinned, {within}, {newer}"),
                &format!("{within}, the newest complete one"),
                within,
                "",
                "pinned",
                ""
            ]
        );
        // While there is no complete one, all stay.
        let none = candidates.map(|c| Candidate { complete: false, ..c });
        assert!(select(&none, &keep("last 1")).iter().all(|d| d.kept));
    }

    #[test]
    fn lengths_of_time_are_read_as_restic_reads_them() {
        let all = Within { years: 1, months: 5, days: 7, hours: 2 };
        assert_eq!((Within::parse("1y5m7d2h").expect("a time"), all.to_string().as_str()), (all, "1y5m7d2h"));
        assert_eq!(Within::parse(" 2h1y ").expect("any order"), Within { years: 1, hours: 2, ..Within::default() });
        for text in ["", "1", "d", "1w", "1d1d", "-1d", "1 d", "99999999999d", "1.5d", "1d2"] {
            assert!(Within::parse(text).is_err(), "{text}");
        }
        for text in ["", "-2", "x", "1.0", "99999999999"] {
            assert!(Count::parse(text).is_err(), "{text}");
        }
        let before = |from: &str, within: &str| {
            let from = from.parse().expect("a time");
            Within::parse(within).expect("a length").before(from).map(|t| t.to_string())
        };
        for (from, within, to) in [
            ("2025-03-31T10:00:00Z", "1m", Some("2025-03-03T10:00:00Z")),
            ("2024-02-29T00:00:00Z", "1y", Some("2023-03-01T00:00:00Z")),
            ("2025-01-15T00:30:00Z", "2m20d1h", Some("2024-10-25T23:30:00Z")),
            ("2025-01-01T00:00:00Z", "4294967295y4294967295m", None),
            ("2025-01-01T00:00:00Z", "4294967295d", None),
            ("2025-01-01T00:00:00Z", "4294967295h", None),
        ] {
            assert_eq!(before(from, within).as_deref(), to, "{from} {within}");
        }
        // A bound before all calendars keeps everything.
        let candidates = TIMES.map(|at| candidate(at, true, false));
        assert!(select(&candidates, &keep("within 4294967295y")).iter().all(|d| d.kept));
    }
}
