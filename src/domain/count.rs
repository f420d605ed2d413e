//! Numbers and words as people read them: `1 run`, `12,345 runs`.

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many of a thing, by its word in the singular: `1 history`, `2 histories`, `2 batches`.
pub fn counted(number: impl TryInto<u64>, one: &str) -> String {
    // No number of things is negative or wider.
    let number = number.try_into().unwrap_or(u64::MAX);
    if number == 1 {
        return format!("1 {one}");
    }
    let number = grouped(number);
    match one.strip_suffix('y') {
        Some(stem) => format!("{number} {stem}ies"),
        None if one.ends_with("ch") => format!("{number} {one}es"),
        None => format!("{number} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!((grouped(0), grouped(999), grouped(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        let all = [counted(1, "run"), counted(0, "run"), counted(12_345_usize, "run"), counted(1_u64, "history")];
        assert_eq!(all, ["1 run", "0 runs", "12,345 runs", "1 history"]);
        assert_eq!([counted(2, "history"), counted(2, "batch")], ["2 histories", "2 batches"]);
    }
}
