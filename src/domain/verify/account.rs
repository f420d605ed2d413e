//! The account of a verification: what was done to a server in which order, what was seen, and the verdict.

use core::time::Duration;

use serde_json::Value;

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was done, and came out as it should.
    Passed,
    /// It was done or tried, and did not.
    Failed,
    /// It was not tried, for that reason. No fault of the server's by itself.
    Skipped(String),
    /// It was tried, and nobody can say how it came out.
    Unknown,
}

impl Verdict {
    /// The stable word for documents.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Skipped(_) => "skipped",
            Verdict::Unknown => "unknown",
        }
    }
}

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
    /// What was seen, in a line; of a failure its reason.
    pub evidence: String,
}

impl Step {
    /// A step and how it came out.
    pub fn new(name: impl Into<String>, took: Duration, verdict: Verdict, evidence: impl Into<String>) -> Step {
        Step { name: name.into(), verdict, took, evidence: evidence.into() }
    }
}

/// Something that is not as it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its kind, a stable word in snake_case: `lost_row`.
    pub id: String,
    /// The thing that it is about.
    pub object: String,
    /// What is wrong.
    pub what: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Finding {
    /// A finding without a hint.
    pub fn new(id: impl Into<String>, object: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding { id: id.into(), object: object.into(), what: what.into(), hint: None }
    }

    /// With what to do next.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Finding {
        Finding { hint: Some(hint.into()), ..self }
    }
}

/// A table of figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Its stable name in snake_case.
    pub name: String,
    /// Its title, for people.
    pub title: String,
    /// Each column: its stable name, its title, and whether it holds numbers.
    pub columns: Vec<(String, String, bool)>,
    /// The cells, row by row.
    pub rows: Vec<Vec<Figure>>,
}

/// A cell: for people and for programs.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// As people read it.
    pub text: String,
    /// As programs do; a time in milliseconds.
    pub value: Value,
}

impl Figure {
    /// A cell whose text is its value.
    pub fn text(text: impl Into<String>) -> Figure {
        let text = text.into();
        Figure { value: Value::from(text.clone()), text }
    }

    /// A cell with a number that people read in another form.
    pub fn number(value: impl Into<Value>, text: impl Into<String>) -> Figure {
        Figure { text: text.into(), value: value.into() }
    }
}

/// What all of it came to, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Conclusion {
    /// All is as it has to be.
    Passed,
    /// So it is, but what was made for the check is not all gone again.
    Unfinished,
    /// The server went away, so the check could not be made to its end.
    Away,
    /// The check ended before its end: it failed itself, or was interrupted.
    Cut,
    /// The check says no; or a step came out that nobody can judge.
    Refused,
}

impl Conclusion {
    /// The stable word for documents.
    pub fn word(self) -> &'static str {
        match self {
            Conclusion::Passed => "passed",
            Conclusion::Unfinished => "unfinished",
            Conclusion::Away => "unreachable",
            Conclusion::Cut => "cut_short",
            Conclusion::Refused => "failed",
        }
    }
}

/// The account.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Account {
    /// What was verified: `deployment`.
    pub subject: String,
    /// The id of the run, which is in the names of all that it made.
    pub id: String,
    /// The server, masked.
    pub server: String,
    /// What is known of the surroundings: the server's version, its store, its workspace, this program's version, the host.
    pub environment: Vec<(String, String)>,
    /// Whether nothing was done yet: the procedure is what would be (`--dry-run`).
    pub planned: bool,
    /// What was done in which order, a sentence each.
    pub procedure: Vec<String>,
    /// The checkpoints.
    pub steps: Vec<Step>,
    /// How much of what: a stable name in snake_case, and the number.
    pub counts: Vec<(String, u64)>,
    /// Tables.
    pub figures: Vec<Figures>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What should be known and is no reason to fail: what is new, what went on, what was accepted.
    pub noted: Vec<Finding>,
    /// Why the check could not be made to its end: the server went away. `None`: it was.
    pub away: Option<String>,
    /// Why the check ended before its end: it failed itself, or was interrupted. `None`: it did not.
    pub cut: Option<String>,
    /// What could not be removed again, and why.
    pub unfinished: Vec<String>,
    /// What is only soft-deleted, as REST alone can do no more.
    pub soft_deleted: Vec<String>,
    /// What was left on the server, as was asked for.
    pub kept: Vec<String>,
}

impl Account {
    /// The verdict.
    pub fn conclusion(&self) -> Conclusion {
        let bad = |s: &Step| matches!(s.verdict, Verdict::Failed | Verdict::Unknown);
        // What is known to be wrong counts although the check went no further.
        let whole = self.away.is_none() && self.cut.is_none();
        if !self.findings.is_empty() || whole && self.steps.iter().any(bad) {
            Conclusion::Refused
        } else if self.cut.is_some() {
            Conclusion::Cut
        } else if self.away.is_some() {
            Conclusion::Away
        } else if !self.unfinished.is_empty() {
            Conclusion::Unfinished
        } else {
            Conclusion::Passed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_of_two_faults_counts() {
        let step = |verdict| Step::new("s", Duration::ZERO, verdict, "");
        let finding = Finding::new("lost_row", "run", "gone");
        let mut account = Account { steps: vec![step(Verdict::Passed)], ..Account::default() };
        account.steps.push(step(Verdict::Skipped("2.9 has none".to_owned())));
        assert_eq!(account.conclusion(), Conclusion::Passed);
        account.unfinished.push("a model".to_owned());
        assert_eq!(account.conclusion(), Conclusion::Unfinished);
        let away = Account { away: Some("no answer".to_owned()), ..account.clone() };
        assert_eq!(away.conclusion(), Conclusion::Away);
        assert_eq!(Account { findings: vec![finding], ..away }.conclusion(), Conclusion::Refused);
        for verdict in [Verdict::Failed, Verdict::Unknown] {
            let refused = Account { steps: vec![step(verdict)], ..account.clone() };
            assert_eq!(refused.conclusion(), Conclusion::Refused);
            let cut = Account { cut: Some("interrupted".to_owned()), ..refused };
            assert_eq!(cut.conclusion(), Conclusion::Cut);
        }
    }
}
