//! A finding: what is wrong with a database, what that breaks, and what mends it.

use crate::domain::step::{Step, statements};
use crate::store::postgres::rows::Condition;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// MLflow fails on it, or data are lost.
    Error,
    /// MLflow works, but slower, less guarded, or not through its next upgrade.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    /// The word for people and documents.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// Something that is not as MLflow's schema at the revision has it.
#[derive(Debug, Clone)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable word: `missing-primary-key`.
    pub id: &'static str,
    /// The table, or `table.column`, or `table: constraint`.
    pub object: String,
    /// What is there and what should be.
    pub what: String,
    /// What it breaks, or will break.
    pub breaks: String,
    /// What mends it; empty where nothing needs to be or can be.
    pub steps: Vec<Step>,
    /// Why it cannot be mended without losing data, or by SQL at all.
    pub cannot: Option<String>,
    /// Rows that would be in the way of the steps.
    pub(super) guards: Vec<Condition>,
    /// What this provides once it is mended, and what has to be there before it can be.
    pub(super) gives: Option<String>,
    pub(super) needs: Vec<String>,
}

impl Finding {
    pub(super) fn new(severity: Severity, id: &'static str, object: impl Into<String>) -> Finding {
        Finding {
            severity,
            id,
            object: object.into(),
            what: String::new(),
            breaks: String::new(),
            steps: Vec::new(),
            cannot: None,
            guards: Vec::new(),
            gives: None,
            needs: Vec::new(),
        }
    }

    pub(super) fn what(mut self, what: impl Into<String>) -> Finding {
        self.what = what.into();
        self
    }

    pub(super) fn breaks(mut self, breaks: impl Into<String>) -> Finding {
        self.breaks = breaks.into();
        self
    }

    pub(super) fn step(mut self, step: Step) -> Finding {
        self.steps.push(step);
        self
    }

    pub(super) fn steps(mut self, steps: impl IntoIterator<Item = Step>) -> Finding {
        self.steps.extend(steps);
        self
    }

    pub(super) fn guard(mut self, guards: impl IntoIterator<Item = Condition>) -> Finding {
        self.guards.extend(guards);
        self
    }

    pub(super) fn gives(mut self, what: impl Into<String>) -> Finding {
        self.gives = Some(what.into());
        self
    }

    pub(super) fn needs(mut self, what: impl IntoIterator<Item = String>) -> Finding {
        self.needs.extend(what);
        self
    }

    pub(super) fn cannot(mut self, why: impl Into<String>) -> Finding {
        self.cannot = Some(why.into());
        self
    }

    /// Whether SQL mends it.
    pub fn fixable(&self) -> bool {
        self.cannot.is_none() && !self.steps.is_empty()
    }

    /// The SQL that mends it by itself; empty where it cannot be.
    pub fn sql(&self) -> Vec<String> {
        if self.fixable() { statements(&self.steps) } else { Vec::new() }
    }

    /// Whether a database with it is not sound.
    pub fn counts(&self) -> bool {
        self.severity != Severity::Note
    }

    /// What tells two findings apart.
    pub fn key(&self) -> (&'static str, &str) {
        (self.id, &self.object)
    }
}

/// Takes the steps from findings that need what cannot be mended.
pub(super) fn withhold(findings: &mut [Finding]) {
    loop {
        let missing: Vec<(String, String)> = findings
            .iter()
            .filter(|f| f.cannot.is_some())
            .filter_map(|f| Some((f.gives.clone()?, format!("{} of {}", f.id, f.object))))
            .collect();
        let mut changed = false;
        for finding in findings.iter_mut().filter(|f| f.cannot.is_none() && !f.steps.is_empty()) {
            let held = missing.iter().find(|(gives, _)| finding.needs.contains(gives));
            if let Some((_, because)) = held {
                finding.cannot = Some(format!("only after {because} is mended"));
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}
