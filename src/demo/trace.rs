//! Traces of an assistant that answers questions: info, metadata, tags, assessments; the spans are a file of their own.

use super::chance::{Chance, hex, uuid};
use super::row::{Rows, Value};
use super::run::run_id;
use super::stack::{BEGIN, DAY, HOUR, MINUTE, SPAN, Stack};
use crate::domain::failure::Outcome;

/// How a trace ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ok,
    Error,
    InProgress,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Ok => "OK",
            State::Error => "ERROR",
            State::InProgress => "IN_PROGRESS",
        }
    }
}

/// One trace.
pub(super) struct Trace {
    pub(super) index: u32,
    /// `tr-` and the 32 digits.
    pub(super) id: String,
    pub(super) digits: String,
    pub(super) experiment: u32,
    pub(super) state: State,
    pub(super) time: i64,
    /// Milliseconds.
    pub(super) took: i64,
    pub(super) question: &'static str,
    pub(super) answer: &'static str,
    pub(super) tokens: (i64, i64),
    session: u32,
}

const TALKS: [(&str, &str); 6] = [
    ("How do I cancel my contract?", "In the portal under *Contract*; the notice period is one month."),
    ("Why was I charged twice?", "The second booking is a reservation and vanishes within 3 days."),
    ("Wie ändere ich meine Adresse?", "Im Portal unter „Meine Daten“ – die Änderung gilt ab sofort."),
    ("請求書はどこですか？", "ポータルの「書類」にあります。"),
    ("Can I export my data as \"CSV\"?", "Yes: Settings > Export. The path is C:\\Users\\you\\export.csv."),
    ("My app shows error 0x80\nafter the update 😕", "Please clear its cache, then start it again."),
];
pub(super) const NAME: &str = "answer_question";
pub(super) const LLM: &str = "gpt-4o-mini";
pub(super) const PROVIDER: &str = "openai";

/// A text as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Trace {
    /// What the assistant was asked, as JSON.
    pub(super) fn request(&self) -> String {
        format!("{{\"question\": {}}}", quoted(self.question))
    }

    /// What it answered, as JSON; nothing where it failed.
    pub(super) fn response(&self) -> Option<String> {
        (self.state == State::Ok).then(|| quoted(self.answer))
    }

    /// Dollars for the tokens in and out.
    pub(super) fn costs(&self) -> (f64, f64) {
        (self.tokens.0 as f64 * 0.15 / 1_000_000.0, self.tokens.1 as f64 * 0.6 / 1_000_000.0)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state != State::InProgress
    }
}

impl Stack {
    /// Every trace: one for two runs.
    pub(super) fn every_trace(&self) -> impl Iterator<Item = Trace> + '_ {
        let count = self.runs / 2;
        (0..count).map(move |index| {
            let mut chance = Chance::of("trace", index.into());
            let digits = hex("trace", index.into(), 32);
            let (question, answer) = TALKS.get(chance.below(6) as usize).copied().unwrap_or_default();
            Trace {
                index,
                id: format!("tr-{digits}"),
                digits,
                experiment: self.traced.0,
                state: match index % 26 {
                    7 | 20 => State::Error,
                    11 => State::InProgress,
                    _ => State::Ok,
                },
                time: BEGIN + 3 * DAY + SPAN * i64::from(index) / i64::from(count.max(1)) + chance.time(HOUR),
                took: 400 + chance.time(6000),
                question,
                answer,
                tokens: (200 + chance.time(3000), 20 + chance.time(400)),
                // A few questions in one session.
                session: index / 3,
            }
        })
    }

    pub(super) fn trace_info(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        for trace in self.every_trace() {
            let ended = trace.has_ended();
            let (paid_in, paid_out) = trace.costs();
            rows.add(&[
                ("request_id", (&trace.id).into()),
                ("experiment_id", trace.experiment.into()),
                ("timestamp_ms", trace.time.into()),
                ("execution_time_ms", ended.then_some(trace.took).into()),
                ("status", trace.state.word().into()),
                ("client_request_id", (trace.index % 4 == 0).then(|| hex("request", trace.index.into(), 16)).into()),
                ("request_preview", trace.request().into()),
                ("response_preview", trace.response().into()),
                ("db_payload_generation", i64::from(ended).into()),
                ("trace_name", NAME.into()),
                ("session_id", uuid("session", trace.session.into()).into()),
                ("input_tokens", ended.then_some(trace.tokens.0).into()),
                ("output_tokens", ended.then_some(trace.tokens.1).into()),
                ("total_tokens", ended.then_some(trace.tokens.0 + trace.tokens.1).into()),
                ("input_cost", ended.then_some(paid_in).into()),
                ("output_cost", ended.then_some(paid_out).into()),
                ("total_cost", ended.then_some(paid_in + paid_out).into()),
            ])?;
        }
        Ok(())
    }

    pub(super) fn trace_request_metadata(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        for trace in self.every_trace() {
            let mut add = |key: &str, value: Value<'_>| {
                rows.add(&[("key", key.into()), ("value", value), ("request_id", (&trace.id).into())])
            };
            add("mlflow.user", "svc-support".into())?;
            add("mlflow.trace.user", format!("customer-{}", trace.session % 41).into())?;
            add("mlflow.source.name", "agent/serve.py".into())?;
            add("mlflow.source.type", "LOCAL".into())?;
            add("mlflow.source.git.branch", "main".into())?;
            add("mlflow.source.git.commit", hex("commit", u64::from(trace.index / 6), 40).into())?;
            add("mlflow.source.git.repoURL", "git@git.example.com:support/agent.git".into())?;
            add("mlflow.traceInputs", trace.request().into())?;
            add("mlflow.trace_schema.version", "3".into())?;
            if trace.has_ended() {
                add("mlflow.trace.infoFinalized", "true".into())?;
                add("mlflow.traceOutputs", trace.response().unwrap_or_default().into())?;
            }
            if let Some(run) = self.traced.1.filter(|_| trace.index % 5 == 0) {
                add("mlflow.sourceRun", run_id(run).into())?;
            }
        }
        Ok(())
    }

    pub(super) fn trace_tags(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        for trace in self.every_trace() {
            let mut add = |key: &str, value: Value<'_>| {
                rows.add(&[("key", key.into()), ("value", value), ("request_id", (&trace.id).into())])
            };
            let place = format!("mlflow-artifacts:/{}/traces/{}/artifacts", trace.experiment, trace.id);
            add("mlflow.artifactLocation", place.into())?;
            if trace.has_ended() {
                add("mlflow.trace.spansLocation", "TRACKING_STORE".into())?;
            }
            add("environment", if trace.index % 7 == 3 { "staging" } else { "production" }.into())?;
        }
        Ok(())
    }

    pub(super) fn assessments(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        for trace in self.every_trace().filter(Trace::has_ended) {
            let index = u64::from(trace.index);
            let mut chance = Chance::of("assessments", index);
            let id = |place: u64| format!("a-{}", uuid("assessment", index * 4 + place));
            let mut add = |place: u64, after: i64, valid: bool, values: &[(&str, Value<'_>)]| {
                let time = trace.time + trace.took + after;
                let mut row = vec![
                    ("assessment_id", id(place).into()),
                    ("trace_id", (&trace.id).into()),
                    ("created_timestamp", time.into()),
                    ("last_updated_timestamp", time.into()),
                    ("valid", valid.into()),
                    ("experiment_id", trace.experiment.into()),
                    ("trace_timestamp_ms", trace.time.into()),
                ];
                row.extend(values.iter().map(|(name, value)| (*name, value.borrowed())));
                rows.add(&row)
            };
            if index.is_multiple_of(2) {
                let relevance = chance.below(101) as f64 / 100.0;
                let failed = index % 14 == 8;
                add(
                    0,
                    4 * MINUTE,
                    true,
                    &[
                        ("name", "relevance".into()),
                        ("assessment_type", "feedback".into()),
                        ("value", if failed { "null".to_owned() } else { format!("{relevance:?}") }.into()),
                        ("error", failed.then_some(JUDGE_FAILED).into()),
                        ("source_type", "LLM_JUDGE".into()),
                        ("source_id", "openai:/gpt-4o".into()),
                        ("aggregate_value", (!failed).then_some(relevance).into()),
                        ("is_numeric_value", (!failed).into()),
                        ("assessment_metadata", r#"{"mlflow.assessment.judgeCost": "0.00021"}"#.into()),
                    ],
                )?;
            }
            // A person's word, in some cases taken back by a second one.
            let changed = index % 12 == 6;
            for (place, good) in [(1, true), (2, false)] {
                if index % 6 == 0 && (place == 1 || changed) {
                    add(
                        place,
                        HOUR * place.cast_signed(),
                        place == 2 || !changed,
                        &[
                            ("name", "correct".into()),
                            ("assessment_type", "feedback".into()),
                            ("value", good.to_string().into()),
                            ("source_type", "HUMAN".into()),
                            ("source_id", "grace".into()),
                            (
                                "rationale",
                                if good { "As in the handbook." } else { "The period is *three* months – §4" }.into(),
                            ),
                            ("overrides", (place == 2).then(|| id(1)).into()),
                            ("aggregate_value", f64::from(u8::from(good)).into()),
                            ("is_numeric_value", false.into()),
                        ],
                    )?;
                }
            }
            if index.is_multiple_of(10) {
                add(
                    3,
                    2 * HOUR,
                    true,
                    &[
                        ("name", "expected_answer".into()),
                        ("assessment_type", "expectation".into()),
                        ("value", quoted(trace.answer).into()),
                        ("source_type", "HUMAN".into()),
                        ("source_id", "ada".into()),
                        ("is_numeric_value", false.into()),
                    ],
                )?;
            }
        }
        Ok(())
    }
}

const JUDGE_FAILED: &str = r#"{"error_code": "RATE_LIMIT_EXCEEDED", "error_message": "Rate limit for the judge exceeded.", "stack_trace": null}"#;
