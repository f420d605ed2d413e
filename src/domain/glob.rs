//! Patterns of names: `*` stands for any characters, `?` for one; all else for itself.

/// Whether a pattern matches a whole name.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star stands, and how much of the name it has taken: only that one is ever tried again.
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = name.get(n) {
        match (pattern.get(p), &mut star) {
            (Some('*'), _) => {
                star = Some((p, n));
                p += 1;
            }
            (Some(x), _) if *x == '?' || x == c => {
                p += 1;
                n += 1;
            }
            (_, Some((at, taken))) => {
                *taken += 1;
                p = *at + 1;
                n = *taken;
            }
            (_, None) => return false,
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name, wanted) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("forecast-*", "forecast-a/b", true),
            ("forecast-*", "Forecast-a", false),
            ("*-prod", "a-prod-prod", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("??", "äö", true),
            ("?", "", false),
            ("a.c", "abc", false),
            ("[a]", "[a]", true),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(200), &"a".repeat(150)));
    }
}
