//! Text from outside - run names, messages of servers - made harmless before anyone sees it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The text as one line that does nothing to a terminal: white space of any kind is a space, other control characters
/// and those that turn the direction of text are written out (`\u{1b}`), secrets that show themselves are masked.
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

/// The text with each secret in it masked that shows itself as one: the password of `scheme://user:password@host`, what
/// is called so (`password=x`, `?sig=x`, `"token": "x"`), what follows `Bearer` and `Basic`. Whoever makes a text masks
/// the addresses in it; this is for text from outside that repeats them.
pub fn masked(text: &str) -> String {
    headers(&named(&logins(text)))
}

/// The text without these secrets, in whatever way a server repeats them: as they are, as in an address, as in JSON. Those
/// of less than four characters stay: they would take honest words with them.
pub fn without<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = text.to_owned();
    for secret in secrets.into_iter().filter(|s| s.chars().count() > 3) {
        let encoded = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
        let usual = utf8_percent_encode(secret, LEFT).to_string();
        let (json, ascii) = quoted(secret);
        for form in [secret, &json, &ascii, &encoded, &encoded.to_lowercase(), &usual, &usual.to_lowercase()] {
            if text.contains(form) {
                text = text.replace(form, HIDDEN);
            }
        }
    }
    text
}

const HIDDEN: &str = "***";
/// What addresses leave as it is.
const LEFT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// As JSON has it, and as JSON in nothing but ASCII does.
fn quoted(text: &str) -> (String, String) {
    let (mut json, mut ascii) = (String::new(), String::new());
    for c in text.chars() {
        match c {
            '"' | '\\' => [&mut json, &mut ascii].into_iter().for_each(|out| out.extend(['\\', c])),
            c if c.is_ascii() => [&mut json, &mut ascii].into_iter().for_each(|out| out.push(c)),
            c => {
                json.push(c);
                for unit in c.encode_utf16(&mut [0; 2]) {
                    ascii.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    (json, ascii)
}

/// Whether a thing that is called so is a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', '.'], "_");
    let ends = ["password", "passwd", "pwd", "passphrase", "secret", "token", "signature", "apikey", "accountkey"];
    let keys = ["api_key", "access_key", "secret_key", "private_key", "account_key"];
    name == "sig" || ends.iter().chain(&keys).any(|end| name.ends_with(end))
}

/// `name=value`, `name='a value'`, `"name": "value"`: the value of what is called a secret is masked.
fn named(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['=', ':']) {
        let (before, after) = rest.split_at(at);
        let (sign, after) = after.split_at(1);
        let word = |text: &str| {
            let before = text.trim_end_matches(|c: char| c.is_alphanumeric() || "_-.".contains(c));
            text.get(before.len()..).is_some_and(is_secret)
        };
        // A colon follows words of a sentence as well: there the name is in quotes.
        let quote = before.trim_end().chars().next_back().filter(|c| "\"'".contains(*c));
        let secret = match (sign, quote) {
            ("=", None) => word(before),
            (_, Some(quote)) => word(before.trim_end().trim_end_matches(quote).trim_end_matches('\\')),
            _ => false,
        };
        out.push_str(before);
        out.push_str(sign);
        rest = after;
        if secret {
            let blank = after.len() - after.trim_start_matches(' ').len();
            // `password = ` in a sentence about it names no value.
            let (blanks, value) = after.split_at(if quote.is_some() { blank } else { 0 });
            let bare = value.trim_start_matches('\\');
            let bare = bare.strip_prefix(['"', '\'']).unwrap_or(bare);
            let (opening, value) = value.split_at(value.len() - bare.len());
            let closing = opening.chars().next_back();
            let ends = |c: char| match closing {
                Some(quote) => c == quote || c == '\\',
                None => c.is_whitespace() || "&;,\"'`<>()[]{}\\#".contains(c),
            };
            let (value, left) = value.split_at(value.find(ends).unwrap_or(value.len()));
            out.push_str(blanks);
            out.push_str(opening);
            out.push_str(if value.is_empty() { "" } else { HIDDEN });
            rest = left;
        }
    }
    out.push_str(rest);
    out
}

/// What follows the scheme in a header that says who asks.
fn headers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut hidden = false;
    for (number, word) in text.split(' ').enumerate() {
        if number > 0 {
            out.push(' ');
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
        let token = word.find(|c| !plain(c)).map_or(word, |end| word.get(..end).unwrap_or_default());
        // "basic authentication" is none.
        let coded = token.chars().skip(1).any(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '=');
        if hidden && token.len() > 7 && coded {
            out.push_str(HIDDEN);
            out.push_str(word.get(token.len()..).unwrap_or_default());
        } else {
            out.push_str(word);
        }
        let scheme = word.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        hidden = ["bearer", "basic"].iter().any(|s| scheme.eq_ignore_ascii_case(s));
    }
    out
}

fn logins(text: &str) -> String {
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

    #[test]
    fn what_is_called_a_secret_is_masked() {
        for (text, safe) in [
            ("host=db password=p4ss user=u", "host=db password=*** user=u"),
            ("password='p4 ss' and", "password='***' and"),
            ("https://h/x?sv=1&sig=a%2Fb&se=2", "https://h/x?sv=1&sig=***&se=2"),
            ("X-Amz-Security-Token=t, AWS_SECRET_ACCESS_KEY=k", "X-Amz-Security-Token=***, AWS_SECRET_ACCESS_KEY=***"),
            (r#"{"password": "p4ss", "user": "u"}"#, r#"{"password": "***", "user": "u"}"#),
            (r#"{\"token\":\"p4ss\"}"#, r#"{\"token\":\"***\"}"#),
            ("Authorization: Basic YWRhOng=, Bearer t0k3n.xyz", "Authorization: Basic ***, Bearer ***"),
            ("sig=a=b&token=", "sig=***&token="),
            ("“password=p4ss", "“password=***"),
            (r#"{"password": "", "token": "a"}"#, r#"{"password": "", "token": "***"}"#),
        ] {
            assert_eq!(masked(text), safe);
            assert_eq!(masked(safe), safe);
        }
        for text in [
            "the server wants a password: in the address, in PGPASSWORD or in ~/.pgpass",
            "no basic authentication, Basic Authentication or bearer token",
            "AWS_ACCESS_KEY_ID=AKIA design=1 a=b; key: value",
            "password=",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn a_known_secret_goes_in_whatever_form_it_comes() {
        let secret = "gr\u{f6}ß@/\"x";
        for text in
            [secret, "gr%C3%B6%C3%9F%40%2F%22x", "gr%c3%b6%c3%9f%40/%22x", "grö\u{df}@/\\\"x", r#"gr\u00f6\u00df@/\"x"#]
        {
            assert_eq!(without(&format!("at {text}."), [secret, "at"]), "at ***.");
        }
    }
}
