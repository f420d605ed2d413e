//! A comparison as operators write it: `r2 >= 0.85`, `.data.records_found > 0`, `weather < 0.5 * energy`.
//!
//! One of `> >= < <= == !=` between two sides of numbers (`0.85`, `1e-3`), names, JSON paths, `+ - * /`, a sign and
//! parentheses. A name is made of letters, digits and `_`, begins with no digit, and goes on over `-`, `/` and `.`
//! where these stand between such characters without a space: `val-loss` is a name, `val - loss` a difference;
//! `val/loss` is a name, `val / loss` a quotient. All else goes into double quotes: `"val loss" <= 2`. A path begins
//! with a dot: `.a.b[0]."odd key"`.

mod path;
mod token;

use std::fmt;

pub use path::JsonPath;
use token::{Token, fault};

use crate::domain::failure::{Failure, Outcome};

/// How deep parentheses and signs go.
const DEEPEST: usize = 32;

/// What stands for a number that is known only when it is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// A metric, another probe.
    Name(String),
    /// A place in an answer.
    Path(JsonPath),
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Name(name) if token::is_plain_name(name) => f.write_str(name),
            Operand::Name(name) => f.write_str(&token::quoted(name)),
            Operand::Path(path) => write!(f, "{path}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Operator {
    fn sign(self) -> char {
        match self {
            Operator::Add => '+',
            Operator::Subtract => '-',
            Operator::Multiply => '*',
            Operator::Divide => '/',
        }
    }

    /// The greater binds first.
    fn rank(self) -> u8 {
        match self {
            Operator::Add | Operator::Subtract => 1,
            Operator::Multiply | Operator::Divide => 2,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    Unequal,
}

impl Comparison {
    fn sign(self) -> &'static str {
        match self {
            Comparison::Above => ">",
            Comparison::AtLeast => ">=",
            Comparison::Below => "<",
            Comparison::AtMost => "<=",
            Comparison::Equal => "==",
            Comparison::Unequal => "!=",
        }
    }

    /// What is not a number compares with nothing, not even as unequal.
    fn holds(self, left: f64, right: f64) -> bool {
        !left.is_nan()
            && !right.is_nan()
            && match self {
                Comparison::Above => left > right,
                Comparison::AtLeast => left >= right,
                Comparison::Below => left < right,
                Comparison::AtMost => left <= right,
                Comparison::Equal => left == right,
                Comparison::Unequal => left != right,
            }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Term {
    Number(f64),
    Operand(Operand),
    Negated(Box<Term>),
    Pair(Operator, Box<Term>, Box<Term>),
}

/// What a condition came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Whether it holds. Where a side is NaN it never does.
    pub holds: bool,
    /// The value of the left side.
    pub left: f64,
    /// The value of the right side.
    pub right: f64,
}

/// Why a condition could not be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unjudged {
    /// This has no value.
    Missing(Operand),
    /// This is 0, and something is divided by it.
    DivisionByZero(String),
}

impl fmt::Display for Unjudged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unjudged::Missing(operand) => write!(f, "{operand} has no value"),
            Unjudged::DivisionByZero(divisor) => write!(f, "{divisor} is 0, and something is divided by it"),
        }
    }
}

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    left: Term,
    comparison: Comparison,
    right: Term,
}

impl Condition {
    /// Reads one.
    ///
    /// # Errors
    /// Configuration: what is not understood, and where.
    pub fn parse(text: &str) -> Outcome<Condition> {
        let mut parser = Parser { text, tokens: token::tokens(text)?, at: 0 };
        let left = parser.sum(0)?;
        let comparison = match parser.peek() {
            Some(Token::Comparison(comparison)) => *comparison,
            _ => return Err(parser.fault("a comparison is expected: > >= < <= == !=")),
        };
        parser.at += 1;
        let right = parser.sum(0)?;
        match parser.peek() {
            None => Ok(Condition { left, comparison, right }),
            Some(Token::Comparison(_)) => Err(parser.fault("a condition has one comparison")),
            Some(_) => Err(parser.fault("this does not belong here")),
        }
    }

    /// What it needs values of, each once, in the order in which they stand.
    pub fn operands(&self) -> Vec<&Operand> {
        let mut found = Vec::new();
        self.left.gather(&mut found);
        self.right.gather(&mut found);
        found
    }

    /// The names that it speaks of, each once.
    pub fn names<'a>(&'a self) -> Vec<&'a str> {
        let name = |operand: &'a Operand| if let Operand::Name(name) = operand { Some(name.as_str()) } else { None };
        self.operands().into_iter().filter_map(name).collect()
    }

    /// Whether a side is more than one number or one name.
    pub fn computes(&self) -> bool {
        [&self.left, &self.right].iter().any(|side| matches!(side, Term::Negated(_) | Term::Pair(..)))
    }

    /// Judges it with these values.
    ///
    /// # Errors
    /// The operand that has no value, or a division by zero.
    pub fn evaluate(&self, value: &dyn Fn(&Operand) -> Option<f64>) -> Result<Verdict, Unjudged> {
        let (left, right) = (self.left.value(value)?, self.right.value(value)?);
        Ok(Verdict { holds: self.comparison.holds(left, right), left, right })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.left, self.comparison.sign(), self.right)
    }
}

impl Term {
    fn gather<'a>(&'a self, found: &mut Vec<&'a Operand>) {
        match self {
            Term::Number(_) => {}
            Term::Operand(operand) if found.contains(&operand) => {}
            Term::Operand(operand) => found.push(operand),
            Term::Negated(term) => term.gather(found),
            Term::Pair(_, left, right) => {
                left.gather(found);
                right.gather(found);
            }
        }
    }

    fn value(&self, of: &dyn Fn(&Operand) -> Option<f64>) -> Result<f64, Unjudged> {
        Ok(match self {
            Term::Number(number) => *number,
            Term::Operand(operand) => of(operand).ok_or_else(|| Unjudged::Missing(operand.clone()))?,
            Term::Negated(term) => -term.value(of)?,
            Term::Pair(operator, left, right) => {
                let (a, b) = (left.value(of)?, right.value(of)?);
                match operator {
                    Operator::Add => a + b,
                    Operator::Subtract => a - b,
                    Operator::Multiply => a * b,
                    Operator::Divide if b == 0.0 => return Err(Unjudged::DivisionByZero(right.to_string())),
                    Operator::Divide => a / b,
                }
            }
        })
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In parentheses where it would be read otherwise without them.
        let side = |f: &mut fmt::Formatter<'_>, term: &Term, needed: bool| {
            if needed { write!(f, "({term})") } else { write!(f, "{term}") }
        };
        match self {
            Term::Number(number) => {
                let plain = number.to_string();
                if plain.len() > 20 { write!(f, "{number:e}") } else { f.write_str(&plain) }
            }
            Term::Operand(operand) => write!(f, "{operand}"),
            Term::Negated(term) => {
                f.write_str("-")?;
                side(f, term, matches!(**term, Term::Pair(..)))
            }
            Term::Pair(operator, left, right) => {
                let rank = |term: &Term| if let Term::Pair(o, ..) = term { o.rank() } else { 3 };
                side(f, left, rank(left) < operator.rank())?;
                write!(f, " {} ", operator.sign())?;
                side(f, right, rank(right) <= operator.rank())
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn fault(&self, why: &str) -> Failure {
        let at = self.tokens.get(self.at).map_or(usize::MAX, |(at, _)| *at);
        fault(self.text, at, why)
    }

    fn sum(&mut self, depth: usize) -> Outcome<Term> {
        let mut left = self.product(depth)?;
        while let Some(Token::Operator(operator @ (Operator::Add | Operator::Subtract))) = self.peek().cloned() {
            self.at += 1;
            left = Term::Pair(operator, Box::new(left), Box::new(self.product(depth)?));
        }
        Ok(left)
    }

    fn product(&mut self, depth: usize) -> Outcome<Term> {
        let mut left = self.signed(depth)?;
        while let Some(Token::Operator(operator @ (Operator::Multiply | Operator::Divide))) = self.peek().cloned() {
            self.at += 1;
            left = Term::Pair(operator, Box::new(left), Box::new(self.signed(depth)?));
        }
        Ok(left)
    }

    fn signed(&mut self, depth: usize) -> Outcome<Term> {
        if depth > DEEPEST {
            return Err(self.fault(&format!("it is nested deeper than {DEEPEST}")));
        }
        let Some(token) = self.peek().cloned() else { return Err(self.fault("a value is expected")) };
        if !matches!(token, Token::Comparison(_) | Token::Close) {
            self.at += 1;
        }
        match token {
            Token::Number(number) => Ok(Term::Number(number)),
            Token::Name(name) => Ok(Term::Operand(Operand::Name(name))),
            Token::Path(path) => Ok(Term::Operand(Operand::Path(path))),
            Token::Operator(Operator::Subtract) => Ok(Term::Negated(Box::new(self.signed(depth + 1)?))),
            Token::Open => {
                let inner = self.sum(depth + 1)?;
                if self.peek() != Some(&Token::Close) {
                    return Err(self.fault("`)` is expected"));
                }
                self.at += 1;
                Ok(inner)
            }
            Token::Operator(_) => {
                self.at -= 1;
                Err(self.fault("a value is expected"))
            }
            Token::Comparison(_) | Token::Close => Err(self.fault("a value is expected")),
        }
    }
}

/// Reads a path that stands alone.
///
/// # Errors
/// Configuration: it is none.
pub fn json_path(text: &str) -> Outcome<JsonPath> {
    match token::tokens(text)?.as_slice() {
        [(_, Token::Path(path))] => Ok(path.clone()),
        _ => Err(Failure::configuration(format!("`{text}` is no path into a JSON document"))
            .hint("write it as `.data.records[0].count`")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value(operand: &Operand) -> Option<f64> {
        match operand.to_string().as_str() {
            "r2" => Some(0.9),
            "val-loss" | "\"val loss\"" => Some(3.0),
            "val/loss" => Some(4.0),
            "val" => Some(10.0),
            "loss" => Some(2.0),
            "zero" => Some(0.0),
            "nan" => Some(f64::NAN),
            "\"5_fold\"" => Some(5.0),
            _ => None,
        }
    }

    fn judged(text: &str) -> Result<Verdict, Unjudged> {
        Condition::parse(text).expect(text).evaluate(&value)
    }

    #[test]
    fn conditions_are_judged_by_arithmetic() {
        for (text, holds) in [
            ("r2 >= 0.85", true),
            ("r2>=.95", false),
            ("r2 <= 9e-1", true),
            ("val-loss == 3", true),
            ("val - loss == 8", true),
            ("val -loss == 8", true),
            ("val- loss == 8", true),
            ("val/loss == 4", true),
            ("val / loss == 5", true),
            ("1-loss == -1", true),
            ("\"val loss\" <= 2 * (loss + 1)", true),
            ("2 + 3 * 4 - 4 / 2 / 2 != 13", false),
            ("-(val + 1) * -1 == 11", true),
            ("--val > 9", true),
            ("\"5_fold\" == 5", true),
            ("nan != 1", false),
            ("nan == nan", false),
        ] {
            assert_eq!(judged(text).map(|v| v.holds), Ok(holds), "{text}");
        }
        assert_eq!(judged("r2 > gone").unwrap_err().to_string(), "gone has no value");
        assert_eq!(
            judged("r2 > 1 / (zero * 2)").unwrap_err().to_string(),
            "zero * 2 is 0, and something is divided by it"
        );
        assert_eq!(Condition::parse("b > a * b + .x").unwrap().names(), ["b", "a"]);
    }

    #[test]
    fn what_is_not_understood_is_shown_with_its_place() {
        for (text, says) in [
            ("", "at its end: a value"),
            ("r2", "at its end: a comparison"),
            ("r2 >=", "at its end: a value"),
            ("r2 >= > 1", "character 7, `> 1`: a value"),
            ("r2 = 1", "character 4, `= 1`: equality"),
            ("1 < r2 < 2", "character 8, `< 2`: a condition has one"),
            ("r2 >= 1 2", "character 9, `2`"),
            ("(r2 >= 1", "character 5, `>= 1`: `)`"),
            ("r2 >= * 1", "character 7"),
            ("5_fold > 1", "double quotes"),
            ("1e999 > 1", "out of range"),
            ("a > \"b", "double quotes"),
            (".a..b > 1", "a key is expected"),
            (".a[x] > 1", "[0]"),
            ("r2 ≥ 1", "character 4"),
        ] {
            let failure = Condition::parse(text).expect_err(text);
            assert!(failure.message.contains(says), "{text}: {failure}");
        }
        let deep = format!("{}1{} > 0", "(".repeat(60), ")".repeat(60));
        assert!(Condition::parse(&deep).unwrap_err().message.contains("deeper"));
        let long = format!("1{} > 0", " + 1".repeat(200));
        assert!(Condition::parse(&long).unwrap_err().message.contains("words"));
    }

    #[test]
    fn paths_lead_into_documents() {
        let document = json!({"a": {"b": [{"odd key": 1}, 2]}, "x-y": 3, "0": 4});
        for (text, found) in [
            (".a.b[0].\"odd key\"", Some(json!(1))),
            (".a.b[1]", Some(json!(2))),
            (".a.b[2]", None),
            (".a.b.c", None),
            (".x-y", Some(json!(3))),
            (".\"0\"", Some(json!(4))),
            (".", Some(document.clone())),
            (".[0]", None),
        ] {
            assert_eq!(json_path(text).expect(text).find(&document), found.as_ref(), "{text}");
        }
        assert!(json_path("a.b").is_err() && json_path(".a > 1").is_err());
    }

    fn operand() -> impl Strategy<Value = Operand> {
        let step = prop_oneof![
            "[a-z_][a-z0-9_-]{0,5}".prop_map(Ok::<String, usize>),
            "\\PC{1,6}".prop_map(Ok::<String, usize>),
            (0_usize..1000).prop_map(Err),
        ];
        let path = prop::collection::vec(step, 0..4).prop_map(|steps| {
            Operand::Path(steps.into_iter().fold(JsonPath::default(), |path, step| match step {
                Ok(key) => path.key(key),
                Err(index) => path.index(index),
            }))
        });
        prop_oneof!["[a-z][a-z0-9_./-]{0,8}".prop_map(Operand::Name), "\\PC{1,8}".prop_map(Operand::Name), path]
    }

    fn term() -> impl Strategy<Value = Term> {
        let operator = prop_oneof![
            Just(Operator::Add),
            Just(Operator::Subtract),
            Just(Operator::Multiply),
            Just(Operator::Divide)
        ];
        let number = prop_oneof![0.0..1e3_f64, any::<f64>().prop_map(|f| if f.is_finite() { f.abs() } else { 0.5 })];
        let leaf = prop_oneof![number.prop_map(Term::Number), operand().prop_map(Term::Operand)];
        leaf.prop_recursive(5, 24, 2, move |inner| {
            prop_oneof![
                inner.clone().prop_map(|t| Term::Negated(Box::new(t))),
                (operator.clone(), inner.clone(), inner).prop_map(|(o, a, b)| Term::Pair(o, Box::new(a), Box::new(b))),
            ]
        })
    }

    fn comparison() -> impl Strategy<Value = Comparison> {
        prop_oneof![
            Just(Comparison::Above),
            Just(Comparison::AtLeast),
            Just(Comparison::Below),
            Just(Comparison::AtMost),
            Just(Comparison::Equal),
            Just(Comparison::Unequal)
        ]
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(left in term(), comparison in comparison(), right in term()) {
            let condition = Condition { left, comparison, right };
            let read = Condition::parse(&condition.to_string());
            prop_assert_eq!(read.ok(), Some(condition.clone()), "{}", condition);
        }

        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,60}") {
            if let Ok(condition) = Condition::parse(&text) {
                prop_assert_eq!(Condition::parse(&condition.to_string()).ok(), Some(condition));
            }
        }
    }
}
