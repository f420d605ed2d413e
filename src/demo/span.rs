//! The spans of a trace: the assistant, its search, and the model's answer.

use super::chance::{Chance, hex};
use super::row::Rows;
use super::stack::Stack;
use super::trace::{LLM, NAME, PROVIDER, State, Trace, quoted};
use crate::domain::failure::Outcome;

/// One span.
struct Span {
    digits: String,
    parent: Option<String>,
    name: &'static str,
    kind: &'static str,
    failed: bool,
    /// Nanoseconds.
    start: i64,
    end: i64,
    /// JSON.
    inputs: String,
    outputs: Option<String>,
}

const MILLISECOND: i64 = 1_000_000;

/// The spans of a trace that has ended, the outermost first.
fn spans_of(trace: &Trace) -> [Span; 3] {
    let digits = |place: u64| hex("span", u64::from(trace.index) * 3 + place, 16);
    let failed = trace.state == State::Error;
    let start = trace.time * MILLISECOND + Chance::of("span", trace.index.into()).time(MILLISECOND);
    let end = start + trace.took * MILLISECOND;
    let found = start + trace.took * MILLISECOND / 5;
    let ask = format!("{{\"messages\": [{{\"role\": \"user\", \"content\": {}}}]}}", quoted(trace.question));
    let say = format!("{{\"role\": \"assistant\", \"content\": {}}}", quoted(trace.answer));
    [
        Span {
            digits: digits(0),
            parent: None,
            name: NAME,
            kind: "AGENT",
            failed,
            start,
            end,
            inputs: trace.request(),
            outputs: trace.response(),
        },
        Span {
            digits: digits(1),
            parent: Some(digits(0)),
            name: "search_handbook",
            kind: "RETRIEVER",
            failed: false,
            start: start + MILLISECOND,
            end: found,
            inputs: format!("{{\"query\": {}, \"k\": 4}}", quoted(trace.question)),
            outputs: Some(FOUND.to_owned()),
        },
        Span {
            digits: digits(2),
            parent: Some(digits(0)),
            name: "ChatCompletion",
            kind: "CHAT_MODEL",
            failed,
            start: found + MILLISECOND,
            end: end - MILLISECOND,
            inputs: ask,
            outputs: (!failed).then_some(say),
        },
    ]
}

impl Span {
    fn is_llm(&self) -> bool {
        self.kind == "CHAT_MODEL"
    }

    /// The JSON document that MLflow keeps of a span; the values of its attributes are JSON texts themselves.
    fn content(&self, trace: &Trace) -> String {
        let mut attributes = vec![
            ("mlflow.traceRequestId", quoted(&trace.id)),
            ("mlflow.spanType", quoted(self.kind)),
            ("mlflow.spanInputs", self.inputs.clone()),
        ];
        attributes.extend(self.outputs.iter().map(|outputs| ("mlflow.spanOutputs", outputs.clone())));
        if self.is_llm() {
            let (tokens_in, tokens_out) = trace.tokens;
            let (paid_in, paid_out) = trace.costs();
            let sum = tokens_in + tokens_out;
            let usage =
                format!("{{\"input_tokens\": {tokens_in}, \"output_tokens\": {tokens_out}, \"total_tokens\": {sum}}}");
            attributes.push(("mlflow.chat.tokenUsage", usage));
            attributes.push(("mlflow.llm.model", quoted(LLM)));
            attributes.push(("mlflow.llm.provider", quoted(PROVIDER)));
            let sum = paid_in + paid_out;
            let cost =
                format!("{{\"input_cost\": {paid_in:?}, \"output_cost\": {paid_out:?}, \"total_cost\": {sum:?}}}");
            attributes.push(("mlflow.llm.cost", cost));
        }
        let attributes: Vec<String> =
            attributes.iter().map(|(key, json)| format!("{}: {}", quoted(key), quoted(json))).collect();
        let events = if self.failed {
            format!(
                "{{\"name\": \"exception\", \"time_unix_nano\": {}, \"attributes\": {{\"exception.type\": \
                 \"TimeoutError\", \"exception.message\": {}, \"exception.stacktrace\": {}}}}}",
                self.end,
                quoted("Request timed out."),
                quoted(
                    "Traceback (most recent call last):\n  File \"agent/serve.py\", line 41, in answer\nTimeoutError"
                )
            )
        } else {
            String::new()
        };
        format!(
            "{{\"trace_id\": \"{}\", \"span_id\": \"{}\", \"parent_span_id\": {}, \"name\": {}, \
             \"start_time_unix_nano\": {}, \"end_time_unix_nano\": {}, \"events\": [{events}], \
             \"status\": {{\"code\": \"STATUS_CODE_{}\", \"message\": \"{}\"}}, \"attributes\": {{{}}}, \"links\": []}}",
            base64(&trace.digits),
            base64(&self.digits),
            self.parent.as_ref().map_or_else(|| "null".to_owned(), |digits| format!("\"{}\"", base64(digits))),
            quoted(self.name),
            self.start,
            self.end,
            self.status(),
            if self.failed { "TimeoutError: Request timed out." } else { "" },
            attributes.join(", "),
        )
    }

    fn status(&self) -> &'static str {
        if self.failed { "ERROR" } else { "OK" }
    }
}

/// The base64 text of the bytes that hexadecimal digits stand for: MLflow's spans name their ids so.
fn base64(digits: &str) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: String = digits.chars().filter_map(|c| c.to_digit(16)).map(|digit| format!("{digit:04b}")).collect();
    let mut text = String::new();
    for six in bits.as_bytes().chunks(6) {
        let value = six.iter().fold(0usize, |sum, bit| sum * 2 + usize::from(*bit == b'1')) << (6 - six.len());
        text.push(LETTERS.get(value).copied().map_or('A', char::from));
    }
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

impl Stack {
    pub(super) fn spans(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        for trace in self.every_trace().filter(Trace::has_ended) {
            for span in spans_of(&trace) {
                let (paid_in, paid_out) = trace.costs();
                let llm = span.is_llm();
                rows.add(&[
                    ("trace_id", (&trace.id).into()),
                    ("experiment_id", trace.experiment.into()),
                    ("span_id", (&span.digits).into()),
                    ("parent_span_id", span.parent.as_ref().into()),
                    ("name", span.name.into()),
                    ("type", span.kind.into()),
                    ("status", span.status().into()),
                    ("start_time_unix_nano", span.start.into()),
                    ("end_time_unix_nano", span.end.into()),
                    ("content", span.content(&trace).into()),
                    ("input_cost", llm.then_some(paid_in).into()),
                    ("output_cost", llm.then_some(paid_out).into()),
                    ("total_cost", llm.then_some(paid_in + paid_out).into()),
                    ("model_name", llm.then_some(LLM).into()),
                    ("model_provider", llm.then_some(PROVIDER).into()),
                ])?;
            }
        }
        Ok(())
    }
}

const FOUND: &str = r#"[{"page_content": "Contracts end with the month after the notice …", "metadata": {"doc_uri": "handbook/contracts.md", "chunk": 3}, "id": "c-3"}]"#;

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn ids_in_base64() {
        // As MLflow 3.17.2 wrote them.
        assert_eq!(base64("c73cbbc15ec768d7c336e9775e3a4b08"), "xzy7wV7HaNfDNul3XjpLCA==");
        assert_eq!(base64("58316aa5cf91f76a"), "WDFqpc+R92o=");
    }
}
