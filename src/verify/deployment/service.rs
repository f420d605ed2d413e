//! `--service NAME=URL[ where CONDITION]`: another part of the deployment, and what has to hold of its answer.

use crate::domain::condition::{Condition, Operand};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::health::settings::Probe;

/// Between the address and the condition.
const WHERE: &str = " where ";

/// Reads the flag.
///
/// # Errors
/// Usage: not of that form; a condition that speaks of something else than the answer.
pub fn parse(text: &str) -> Outcome<Probe> {
    let wrong = |why: String| {
        Failure::usage(format!("--service: {why}")).hint("--service 'gateway=http://host/health where .models > 0'")
    };
    let (name, rest) = text.split_once('=').ok_or_else(|| wrong("no NAME=URL".to_owned()))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        return Err(wrong(format!("`{}` is no name of letters, digits, - _ .", name.escape_debug())));
    }
    // No address holds a space, so a condition's own words are never taken for the border.
    let border = rest.to_ascii_lowercase().find(WHERE);
    let (url, condition) = match border.and_then(|at| Some((rest.get(..at)?, rest.get(at + WHERE.len()..)?))) {
        Some((url, condition)) => (url.trim(), Some(condition.trim())),
        None => (rest.trim(), None),
    };
    if !url.starts_with("http://") && !url.starts_with("https://") || url.contains(char::is_whitespace) {
        return Err(wrong(format!("the address of {name} is none that begins with http:// or https://")));
    }
    let expect = condition.map(|text| judged(text).map_err(|f| wrong(f.message))).transpose()?;
    Ok(Probe {
        name: name.to_owned(),
        url: Some(url.to_owned()),
        expect: expect.into_iter().collect(),
        ..Probe::default()
    })
}

fn judged(text: &str) -> Outcome<String> {
    let condition = Condition::parse(text)?;
    match condition.operands().into_iter().find(|o| matches!(o, Operand::Name(_))) {
        Some(name) => {
            Err(Failure::usage(format!("`{name}` in `{text}` is no place in the answer: those begin with a dot")))
        }
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_services() {
        let probe = parse("gw=http://h:1/a?b=c WHERE .data.models > 0").expect("sound");
        assert_eq!((probe.name.as_str(), probe.url.as_deref()), ("gw", Some("http://h:1/a?b=c")));
        assert_eq!(probe.expect, [".data.models > 0"]);
        assert_eq!(parse("gw=https://h").expect("sound").expect, Vec::<String>::new());
        for (text, says) in [
            ("http://h", "no NAME=URL"),
            ("=http://h", "no name"),
            ("g w=http://h", "no name"),
            ("gw=h:80", "begins with http"),
            ("gw=http://h a", "begins with http"),
            ("gw=http://h where models > 0", "begin with a dot"),
            ("gw=http://h where .a >", "at its end"),
        ] {
            let failure = parse(text).expect_err(text);
            assert!(failure.message.contains(says), "{text}: {failure}");
        }
    }
}
