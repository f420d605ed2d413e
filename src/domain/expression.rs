//! SQL expressions compared by what they say. PostgreSQL prints one CHECK in two ways, depending on whether it was
//! made from MLflow's words or from a dump of them, and MLflow wrote a third: `IN (..)`.

/// An expression as a list of words, without what differs between its renderings: parentheses, casts, quotes around
/// identifiers, and `IN (..)` against `= ANY (ARRAY[..])`. MLflow's own expressions are too simple for two different
/// ones to become equal by this.
pub fn canonical(expression: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut tokens = tokens(expression).into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token.as_str() {
            "(" | ")" | "[" | "]" | "," => {}
            "::" => {
                // A type: one word, or two for `character varying` and `double precision`, with its limit and `[]`.
                let first = tokens.next().unwrap_or_default();
                if matches!(first.as_str(), "character" | "double" | "bit" | "time" | "timestamp") {
                    tokens.next_if(|t| matches!(t.as_str(), "varying" | "precision"));
                }
                if tokens.next_if(|t| t == "(").is_some() {
                    let limit = tokens.next();
                    // Not a limit: the parenthesis belonged to something else, and both are left out anyway.
                    words.extend(limit.filter(|t| !t.chars().all(|c| c.is_ascii_digit())));
                }
            }
            "in" => words.extend(["=", "any", "array"].map(str::to_owned)),
            _ => words.push(token),
        }
    }
    words.join(" ")
}

/// Words in lower case, string literals with their quotes and as they are, operators.
fn tokens(expression: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut characters = expression.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            _ if c.is_whitespace() => {}
            '\'' | '"' | '`' => {
                let mut text = String::new();
                while let Some(next) = characters.next() {
                    if next == c && characters.next_if_eq(&c).is_none() {
                        break;
                    }
                    text.push(next);
                }
                tokens.push(if c == '\'' { format!("'{text}'") } else { text });
            }
            _ if c.is_alphanumeric() || c == '_' => {
                let mut word: String = c.to_lowercase().collect();
                while let Some(next) = characters.next_if(|n| n.is_alphanumeric() || matches!(n, '_' | '.' | '$')) {
                    word.extend(next.to_lowercase());
                }
                tokens.push(word);
            }
            '(' | ')' | '[' | ']' | ',' => tokens.push(c.to_string()),
            _ => {
                let mut operator = c.to_string();
                while let Some(next) = characters.next_if(|n| "<>=!|:-+*/%&~".contains(*n)) {
                    operator.push(next);
                }
                tokens.push(operator);
            }
        }
    }
    tokens
}

/// The expressions of the CHECKs in a CREATE TABLE statement.
pub fn checks(create: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut depth = 0_u32;
    let mut current: Option<(u32, String)> = None;
    let mut quote: Option<char> = None;
    let mut word = String::new();
    let mut after_check = false;
    for c in create.chars() {
        if let Some((_, text)) = &mut current {
            text.push(c);
        }
        if let Some(open) = quote {
            if c == open {
                quote = None;
            }
            continue;
        }
        match c {
            '\'' | '"' | '`' => quote = Some(c),
            '(' => {
                depth += 1;
                if current.is_none() && (after_check || word.eq_ignore_ascii_case("check")) {
                    current = Some((depth, String::new()));
                }
            }
            ')' => {
                if let Some((_, text)) = current.take_if(|(opened, _)| *opened == depth) {
                    found.push(text.strip_suffix(')').unwrap_or(&text).trim().to_owned());
                }
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            after_check = false;
        } else {
            if !word.is_empty() {
                after_check = word.eq_ignore_ascii_case("check");
            } else if !c.is_whitespace() {
                after_check = false;
            }
            word.clear();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_renderings_of_a_check_are_one() {
        let own = canonical("lifecycle_stage IN ('active', 'deleted')");
        for other in [
            "((lifecycle_stage)::text = ANY ((ARRAY['active'::character varying, 'deleted'::character varying])::text[]))",
            "((lifecycle_stage)::text = ANY (ARRAY[('active'::character varying)::text, ('deleted'::character varying)::text]))",
            "lifecycle_stage = ANY (ARRAY['active'::character varying(32), 'deleted'::text])",
            "\"lifecycle_stage\" in ('active','deleted')",
        ] {
            assert_eq!(canonical(other), own, "{other}");
        }
        assert_ne!(canonical("lifecycle_stage IN ('active', 'Deleted')"), own);
        assert_ne!(canonical("lifecycle_stage IN ('active')"), own);
        assert_eq!(canonical("(a - b)"), canonical("a - b"));
        assert_eq!(canonical("'it''s'::text"), "'it's'");
    }

    #[test]
    fn checks_of_a_table() {
        let create = "CREATE TABLE t (a VARCHAR(5) DEFAULT 'check (', b INT CHECK (b IN (0, 1)), \
                      CONSTRAINT \"x\" CHECK(a IN ('(', ')')), check_c TEXT)";
        assert_eq!(checks(create), ["b IN (0, 1)", "a IN ('(', ')')"]);
    }
}
