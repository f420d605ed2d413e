//! A span of time as people write it.

use core::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// Reads `24h`, `30d`, `90 min`; a day has 24 hours. `None`: it is none, or less than nothing.
pub fn parse(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    Duration::try_from(span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in [("24h", 86_400), ("30d", 2_592_000), ("90 min", 5_400), ("0s", 0)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["soon", "-1h", "", "1 year"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
