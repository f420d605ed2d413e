//! Ids of runs, backups and batches: `YYYYMMDDTHHMMSSZ-<8 hex>`.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// When what has that id was begun; `None`: it is no such id.
pub fn time(id: &str) -> Option<Timestamp> {
    let (at, own) = (id.get(..16)?, id.get(16..)?.strip_prefix('-')?);
    if own.len() != 8 || !own.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some(DateTime::strptime("%Y%m%dT%H%M%SZ", at).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_time() {
        assert_eq!(time("20261121T030000Z-1f2e3d4c").map(|t| t.to_string()), Some("2026-11-21T03:00:00Z".to_owned()));
        for other in ["", "lost+found", "20261121T030000Z", "20261121T030000Z-1f2e3d4", "20261321T030000Z-1f2e3d4c"] {
            assert_eq!(time(other), None, "{other}");
        }
    }
}
