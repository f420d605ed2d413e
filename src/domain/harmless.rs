//! Text from outside - run names, messages of servers - made harmless before anyone sees it.

/// The text as one line that does nothing to a terminal: white space of any kind is a space, other control characters
/// and those that turn the direction of text are written out (`\u{1b}`), passwords inside of addresses are masked.
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in masked(text.trim()).chars() {
        match c {
            '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            c if acts(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// The line, cut to so many characters.
pub fn short(text: &str, most: usize) -> String {
    let text = line(text);
    match text.char_indices().nth(most) {
        None => text,
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Whether a character does something to a terminal, or to the text around it, instead of being seen.
pub fn acts(c: char) -> bool {
    let turns = matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{feff}');
    let turns = turns || ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2060}'..='\u{206f}').contains(&c);
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}') || ('\u{e0000}'..='\u{e007f}').contains(&c)
}

/// The text with the password of each `scheme://user:password@host` in it masked. Whoever makes a text masks the
/// addresses in it; this is for the message of a library that repeats one.
pub fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        rest = after;
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'`<>".contains(c)).unwrap_or(after.len());
        let (authority, _) = after.split_at(end);
        let Some((login, _)) = authority.rsplit_once('@') else { continue };
        let Some((user, _)) = login.split_once(':') else { continue };
        out.push_str(user);
        out.push_str(":***");
        rest = after.get(login.len()..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_written_out() {
        assert_eq!(line(" a\r\n\tb\u{1b}[31mc\u{7}\u{9b}2J "), "a b\\u{1b}[31mc\\u{7}\\u{9b}2J");
        assert_eq!(line("abc\u{202e}dcb\0"), "abc\\u{202e}dcb\\u{0}");
        assert_eq!(line("Zürich 東京 👩\u{200d}🔬"), "Zürich 東京 👩\u{200d}🔬");
        assert_eq!(short("äöüß", 3), "äö…");
        assert_eq!(short("äöü", 3), "äöü");
    }

    #[test]
    fn passwords_in_addresses_are_masked() {
        for (text, safe) in [
            ("to postgresql://u:p@h:5/d failed", "to postgresql://u:***@h:5/d failed"),
            ("http://u:p@q@h and http://a:b@c/d@e", "http://u:***@h and http://a:***@c/d@e"),
            ("http://h:5000/models@champion", "http://h:5000/models@champion"),
            ("a://b://c:d@e", "a://b://c:***@e"),
            ("http://u@h, mail me@home", "http://u@h, mail me@home"),
            ("://", "://"),
        ] {
            assert_eq!(masked(text), safe);
        }
    }
}
