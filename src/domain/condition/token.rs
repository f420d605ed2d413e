//! The words of a condition. What is `-` or `/` in a name, and what is minus or a division, is decided here.

use super::path::JsonPath;
use super::{Comparison, Operator};
use crate::domain::failure::{Failure, Outcome};

/// More words than anyone writes into one condition.
const MOST_TOKENS: usize = 200;
/// MLflow's metric keys end at 250 characters.
const LONGEST_NAME: usize = 500;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Number(f64),
    Name(String),
    Path(JsonPath),
    Operator(Operator),
    Comparison(Comparison),
    Open,
    Close,
}

/// A failure that shows the place.
pub(super) fn fault(text: &str, at: usize, why: &str) -> Failure {
    let place = match text.chars().nth(at) {
        Some(_) => {
            format!("at character {}, `{}`", at + 1, text.chars().skip(at).take(20).collect::<String>().trim_end())
        }
        None => "at its end".to_owned(),
    };
    let shown: String = text.chars().take(200).collect();
    Failure::configuration(format!("the condition `{shown}` is not understood {place}: {why}"))
        .hint("write it as `r2 >= 0.85`, `.data.records_found > 0` or `weather < 0.5 * energy`")
}

/// What a name may begin with without quotes.
fn begins(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// What a name may go on with without quotes; the others, [`joins`], only between two of these.
fn goes_on(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What may stand inside a name and is an operator elsewhere.
fn joins(c: char) -> bool {
    matches!(c, '-' | '/' | '.')
}

/// Whether a name needs no quotes.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut before = None;
    for c in name.chars() {
        let fits = match before {
            None => begins(c),
            Some(b) if joins(b) => goes_on(c),
            Some(_) => goes_on(c) || joins(c),
        };
        if !fits {
            return false;
        }
        before = Some(c);
    }
    before.is_some_and(goes_on)
}

/// Whether a key of a path needs no quotes.
pub(super) fn is_plain_key(key: &str) -> bool {
    !key.contains(['/', '.']) && is_plain_name(key)
}

/// A name in quotes.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// All words, each with the character that it begins at.
pub(super) fn tokens(text: &str) -> Outcome<Vec<(usize, Token)>> {
    let mut reader = Reader { text, characters: text.chars().collect(), at: 0 };
    let mut found = Vec::new();
    while let Some(c) = reader.peek() {
        let at = reader.at;
        if c.is_whitespace() {
            reader.at += 1;
            continue;
        }
        if found.len() == MOST_TOKENS {
            return Err(fault(text, at, &format!("it has more than {MOST_TOKENS} words")));
        }
        found.push((at, reader.token(c)?));
    }
    Ok(found)
}

struct Reader<'a> {
    text: &'a str,
    characters: Vec<char>,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.ahead(0)
    }

    fn ahead(&self, by: usize) -> Option<char> {
        self.characters.get(self.at + by).copied()
    }

    fn fault<T>(&self, why: &str) -> Outcome<T> {
        Err(fault(self.text, self.at, why))
    }

    fn take(&mut self, fits: impl Fn(char) -> bool) -> String {
        let taken: String = self.characters.iter().skip(self.at).take_while(|c| fits(**c)).collect();
        self.at += taken.chars().count();
        taken
    }

    fn token(&mut self, c: char) -> Outcome<Token> {
        let digit_follows = self.ahead(1).is_some_and(|d| d.is_ascii_digit());
        match c {
            '"' => Ok(Token::Name(self.quoted()?)),
            '.' if digit_follows => self.number(),
            '.' => self.path(),
            _ if c.is_ascii_digit() => self.number(),
            _ if begins(c) => Ok(Token::Name(self.name(&joins)?)),
            _ => self.sign(c),
        }
    }

    fn sign(&mut self, c: char) -> Outcome<Token> {
        let two = self.ahead(1) == Some('=');
        let token = match c {
            '>' if two => Token::Comparison(Comparison::AtLeast),
            '<' if two => Token::Comparison(Comparison::AtMost),
            '=' if two => Token::Comparison(Comparison::Equal),
            '!' if two => Token::Comparison(Comparison::Unequal),
            '>' => Token::Comparison(Comparison::Above),
            '<' => Token::Comparison(Comparison::Below),
            '+' => Token::Operator(Operator::Add),
            '-' => Token::Operator(Operator::Subtract),
            '*' => Token::Operator(Operator::Multiply),
            '/' => Token::Operator(Operator::Divide),
            '(' => Token::Open,
            ')' => Token::Close,
            '=' => return self.fault("equality is written `==`"),
            _ => return self.fault("this is neither a name nor a number nor a sign; odd names go into double quotes"),
        };
        self.at += if two && matches!(token, Token::Comparison(_)) { 2 } else { 1 };
        Ok(token)
    }

    /// Digits, a fraction, an exponent.
    fn number(&mut self) -> Outcome<Token> {
        let begun = self.at;
        let mut digits = self.take(|c| c.is_ascii_digit());
        if self.peek() == Some('.') {
            self.at += 1;
            digits.push('.');
            digits.push_str(&self.take(|c| c.is_ascii_digit()));
        }
        if self.peek().is_some_and(|c| matches!(c, 'e' | 'E')) {
            let sign = self.ahead(1).filter(|c| matches!(c, '+' | '-'));
            if self.ahead(if sign.is_some() { 2 } else { 1 }).is_some_and(|c| c.is_ascii_digit()) {
                self.at += 1;
                digits.push('e');
                if let Some(sign) = sign {
                    self.at += 1;
                    digits.push(sign);
                }
                digits.push_str(&self.take(|c| c.is_ascii_digit()));
            }
        }
        let number = digits.parse::<f64>().ok().filter(|n| n.is_finite());
        let ends = !self.peek().is_some_and(|c| goes_on(c) || c == '.' || c == '"');
        match number {
            Some(number) if ends => Ok(Token::Number(number)),
            Some(_) => {
                self.at = begun;
                self.fault("a name that begins with a digit goes into double quotes")
            }
            None => {
                self.at = begun;
                self.fault("this number is out of range")
            }
        }
    }

    /// A name without quotes; one of `joining` belongs to it where the name goes on right after it.
    fn name(&mut self, joining: &dyn Fn(char) -> bool) -> Outcome<String> {
        let mut name = String::new();
        loop {
            name.push_str(&self.take(goes_on));
            if name.chars().count() > LONGEST_NAME {
                return self.fault(&format!("a name is longer than {LONGEST_NAME} characters"));
            }
            match self.peek() {
                Some(c) if joining(c) && self.ahead(1).is_some_and(goes_on) => {
                    name.push(c);
                    self.at += 1;
                }
                _ => return Ok(name),
            }
        }
    }

    fn quoted(&mut self) -> Outcome<String> {
        let begun = self.at;
        self.at += 1;
        let mut name = String::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '"' if name.is_empty() || name.chars().count() > LONGEST_NAME => break,
                '"' => return Ok(name),
                '\\' if matches!(self.peek(), Some('"' | '\\')) => {
                    name.extend(self.peek());
                    self.at += 1;
                }
                _ => name.push(c),
            }
        }
        self.at = begun;
        self.fault(&format!("a name in double quotes ends with `\"` and has 1 to {LONGEST_NAME} characters"))
    }

    /// The first character is its dot.
    fn path(&mut self) -> Outcome<Token> {
        let mut path = JsonPath::default();
        let begun = self.at;
        loop {
            match (self.peek(), self.ahead(1)) {
                (Some('.'), Some('"')) => {
                    self.at += 1;
                    path = path.key(self.quoted()?);
                }
                (Some('.'), Some(c)) if goes_on(c) => {
                    self.at += 1;
                    path = path.key(self.name(&|c| c == '-')?);
                }
                (Some('.'), _) if self.at == begun => self.at += 1,
                (Some('['), _) => {
                    let bracket = self.at;
                    self.at += 1;
                    let index = self.take(|c| c.is_ascii_digit()).parse().ok();
                    let (Some(index), Some(']')) = (index, self.peek()) else {
                        self.at = bracket;
                        return self.fault("an element of an array is named as `[0]`");
                    };
                    self.at += 1;
                    path = path.index(index);
                }
                (Some('.'), _) => return self.fault("a key is expected after the dot; odd keys go into double quotes"),
                (Some(c), _) if goes_on(c) || c == '"' => return self.fault("this does not belong to the path"),
                _ => return Ok(Token::Path(path)),
            }
        }
    }
}
