//! What is asked of a challenger's metrics, alone or beside the champion's: `r2 >= 0.85`, `rmse < champion`,
//! `latency_ms <= champion * 1.1`, `f1 >= champion.f1 - 0.01`.

use std::fmt;

use crate::domain::condition::{Condition, Operand, Unjudged};
use crate::domain::failure::{Failure, Outcome};

/// The name that stands for the champion's value of the challenger's metric; `champion.NAME` is its value of another.
pub const CHAMPION: &str = "champion";

/// How one is written.
const EXAMPLES: &str =
    "rmse < champion, r2 >= 0.85, mae <= champion * 1.1; a name with a blank goes into double quotes";

/// One comparison of metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Requirement {
    condition: Condition,
    /// The challenger's metrics, each once.
    own: Vec<String>,
    /// The champion's.
    champions: Vec<String>,
}

/// What a requirement came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// It holds, for that reason.
    Held(String),
    /// It does not.
    Refused(String),
    /// It compares with a champion, and there is none.
    NoChampion,
}

/// The values of a version's metrics.
pub type Values<'a> = &'a dyn Fn(&str) -> Option<f64>;

/// Whose metric a name is.
enum Whose<'a> {
    Challengers(&'a str),
    /// Its metric; `None`: the one that the challenger's side names.
    Champions(Option<&'a str>),
}

fn whose(name: &str) -> Whose<'_> {
    match name.strip_prefix(CHAMPION) {
        Some("") => Whose::Champions(None),
        Some(rest) => rest.strip_prefix('.').map_or(Whose::Challengers(name), |metric| Whose::Champions(Some(metric))),
        None => Whose::Challengers(name),
    }
}

impl Requirement {
    /// Reads one.
    ///
    /// # Errors
    /// Configuration: what is not understood, and where.
    pub fn parse(text: &str) -> Outcome<Requirement> {
        let condition = Condition::parse(text).map_err(|failure| failure.hint(EXAMPLES))?;
        let fault = |why: &str, hint: &str| Failure::configuration(format!("`{text}`: {why}")).hint(hint.to_owned());
        let (mut own, mut champions, mut alone) = (Vec::new(), Vec::new(), false);
        for operand in condition.operands() {
            let Operand::Name(name) = operand else {
                return Err(fault(
                    &format!("{operand} is no metric"),
                    "a metric's name that begins with a dot goes into quotes",
                ));
            };
            match whose(name) {
                Whose::Challengers(metric) => own.push(metric.to_owned()),
                Whose::Champions(Some(metric)) => champions.push(metric.to_owned()),
                Whose::Champions(None) => alone = true,
            }
        }
        match (own.as_slice(), alone) {
            ([], _) => Err(fault("it asks nothing of the challenger", "rmse < champion, or r2 >= 0.85")),
            ([metric], true) => {
                champions.push(metric.clone());
                Ok(Requirement { condition, own, champions })
            }
            (_, true) => Err(fault("which metric of the champion?", "champion.rmse is the champion's rmse")),
            (_, false) => Ok(Requirement { condition, own, champions }),
        }
    }

    /// The challenger's metrics that it speaks of.
    pub fn metrics(&self) -> &[String] {
        &self.own
    }

    /// Whether it compares with a champion.
    pub fn compares(&self) -> bool {
        !self.champions.is_empty()
    }

    /// Judges a challenger. A value that is missing or no number refuses it.
    pub fn judge(&self, challenger: Values<'_>, champion: Option<Values<'_>>) -> Judgement {
        let none: Values<'_> = &|_| None;
        let beside = match champion {
            Some(champion) => champion,
            None if self.compares() => return Judgement::NoChampion,
            None => none,
        };
        let mut told = Vec::new();
        for (whose, metrics, value) in [("", &self.own, challenger), ("the champion's ", &self.champions, beside)] {
            for metric in metrics {
                let who = if whose.is_empty() { "the challenger" } else { "the champion" };
                match value(metric) {
                    None => return Judgement::Refused(format!("{who} has no metric {metric}")),
                    Some(number) if number.is_nan() => {
                        return Judgement::Refused(format!("{metric} of {who} is not a number (NaN)"));
                    }
                    Some(number) => told.push(format!("{whose}{metric} is {}", shown(number))),
                }
            }
        }
        let single = self.own.first().map_or("", String::as_str);
        let verdict = self.condition.evaluate(&|operand| match operand {
            Operand::Name(name) => match whose(name) {
                Whose::Challengers(metric) => challenger(metric),
                Whose::Champions(metric) => beside(metric.unwrap_or(single)),
            },
            Operand::Path(_) => None,
        });
        match verdict {
            Ok(verdict) => {
                // What a side comes to is told where it is more than a metric's value.
                if self.condition.computes() {
                    told.push(format!("{} against {}", shown(verdict.left), shown(verdict.right)));
                }
                let told = told.join(", ");
                if verdict.holds { Judgement::Held(told) } else { Judgement::Refused(told) }
            }
            Err(Unjudged::Missing(operand)) => Judgement::Refused(format!("{operand} has no value")),
            Err(unjudged) => Judgement::Refused(unjudged.to_string()),
        }
    }
}

/// A number without the dust of its last bits.
fn shown(number: f64) -> String {
    let plain = number.to_string();
    if plain.len() <= 12 || !number.is_finite() {
        return plain;
    }
    let short = format!("{number:.8e}");
    short.parse::<f64>().map_or(plain, |rounded| rounded.to_string())
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.condition)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(pairs: &'static [(&'static str, f64)]) -> impl Fn(&str) -> Option<f64> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn judge(text: &str, champion: Option<&'static [(&'static str, f64)]>) -> Judgement {
        let own = of(&[("rmse", 0.3), ("r2", 0.9), ("odd", f64::NAN), ("championship", 1.0)]);
        let other = champion.map(of);
        let other = other.as_ref().map(|o| o as Values<'_>);
        Requirement::parse(text).expect(text).judge(&own, other)
    }

    #[test]
    fn a_challenger_is_judged_beside_the_champion() {
        const CHAMPION: Option<&[(&str, f64)]> = Some(&[("rmse", 0.4), ("r2", f64::NAN)]);
        for text in [
            "rmse < champion",
            "rmse <= champion * 0.75",
            "r2 >= 0.85",
            "rmse + r2 > champion.rmse",
            "championship == 1",
        ] {
            assert!(matches!(judge(text, CHAMPION), Judgement::Held(_)), "{text}: {:?}", judge(text, CHAMPION));
        }
        for (text, why) in [
            ("rmse > champion", "rmse is 0.3, the champion's rmse is 0.4"),
            ("rmse < champion * 0.5", "0.3 against 0.2"),
            ("r2 > champion", "r2 of the champion is not a number"),
            ("mae < champion", "the challenger has no metric mae"),
            ("rmse < champion.mae", "the champion has no metric mae"),
            ("odd != 1", "odd of the challenger is not a number"),
            ("rmse / (rmse - rmse) > 0", "is 0"),
        ] {
            let Judgement::Refused(said) = judge(text, CHAMPION) else { panic!("{text}") };
            assert!(said.contains(why), "{text}: {said}");
        }
        assert_eq!(judge("rmse < champion", None), Judgement::NoChampion);
        assert!(matches!(judge("r2 >= 0.85", None), Judgement::Held(_)));
    }

    /// An expression as the oracle knows it.
    #[derive(Debug, Clone)]
    enum Side {
        Number(f64),
        Own(&'static str),
        Champions(&'static str),
        Champion,
        Negated(Box<Side>),
        Pair(char, Box<Side>, Box<Side>),
    }

    const NAMES: [&str; 5] = ["rmse", "r2", "val loss", "a-b/c.d", "championship"];

    impl Side {
        /// As a person may write it: with more parentheses than are needed.
        fn text(&self) -> String {
            let quoted = |name: &str| if name.contains(' ') { format!("\"{name}\"") } else { name.to_owned() };
            match self {
                Side::Number(number) => number.to_string(),
                Side::Own(name) => quoted(name),
                Side::Champions(name) => quoted(&format!("champion.{name}")),
                Side::Champion => "champion".to_owned(),
                Side::Negated(side) => format!("-({})", side.text()),
                Side::Pair(operator, left, right) => format!("({}) {operator} ({})", left.text(), right.text()),
            }
        }

        fn each(&self, see: &mut dyn FnMut(&Side)) {
            see(self);
            match self {
                Side::Negated(side) => side.each(see),
                Side::Pair(_, left, right) => {
                    left.each(see);
                    right.each(see);
                }
                _ => {}
            }
        }

        /// In plain numbers; `None`: divided by zero.
        fn value(&self, own: &[f64], champions: &[f64], alone: f64) -> Option<f64> {
            let of = |values: &[f64], name: &str| NAMES.iter().position(|n| *n == name).map(|at| values[at]);
            Some(match self {
                Side::Number(number) => *number,
                Side::Own(name) => of(own, name)?,
                Side::Champions(name) => of(champions, name)?,
                Side::Champion => alone,
                Side::Negated(side) => -side.value(own, champions, alone)?,
                Side::Pair(operator, left, right) => {
                    let (a, b) = (left.value(own, champions, alone)?, right.value(own, champions, alone)?);
                    match operator {
                        '+' => a + b,
                        '-' => a - b,
                        '*' => a * b,
                        _ if b == 0.0 => return None,
                        _ => a / b,
                    }
                }
            })
        }
    }

    fn side() -> impl Strategy<Value = Side> {
        let name = || prop::sample::select(NAMES.to_vec());
        let leaf = prop_oneof![
            2 => prop_oneof![Just(0.0), Just(1.0), 0.0..10.0_f64].prop_map(Side::Number),
            4 => name().prop_map(Side::Own),
            1 => name().prop_map(Side::Champions),
            1 => Just(Side::Champion),
        ];
        leaf.prop_recursive(3, 12, 2, |inner| {
            let operator = prop::sample::select(vec!['+', '-', '*', '/']);
            prop_oneof![
                inner.clone().prop_map(|side| Side::Negated(Box::new(side))),
                (operator, inner.clone(), inner).prop_map(|(o, a, b)| Side::Pair(o, Box::new(a), Box::new(b))),
            ]
        })
    }

    fn comparison() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![">", ">=", "<", "<=", "==", "!="])
    }

    /// A metric as it may be: a number, the same one often, none, infinite, or missing.
    fn metric() -> impl Strategy<Value = Option<f64>> {
        prop_oneof![
            6 => (-5.0..5.0_f64).prop_map(Some),
            2 => Just(Some(1.0)),
            1 => Just(Some(0.0)),
            1 => prop::sample::select(vec![None, Some(f64::NAN), Some(f64::INFINITY)]),
        ]
    }

    /// What the oracle says: `None`: it is no requirement.
    fn oracle(
        (left, sign, right): (&Side, &str, &Side),
        own: &[Option<f64>],
        champions: Option<&[Option<f64>]>,
    ) -> Option<Result<bool, ()>> {
        let (mut names, mut others, mut alone) = (Vec::new(), Vec::new(), false);
        for side in [left, right] {
            side.each(&mut |one| match one {
                Side::Own(name) if !names.contains(name) => names.push(name),
                Side::Champions(name) => others.push(*name),
                Side::Champion => alone = true,
                _ => {}
            });
        }
        if names.is_empty() || (alone && names.len() != 1) {
            return None;
        }
        if alone {
            others.push(names[0]);
        }
        let none = [None; NAMES.len()];
        let champions = match champions {
            None if !others.is_empty() => return Some(Err(())),
            other => other.unwrap_or(&none),
        };
        let at = |name: &str| NAMES.iter().position(|n| *n == name).expect("a name");
        let known = |value: Option<f64>| value.is_some_and(|v| !v.is_nan());
        if !names.iter().all(|name| known(own[at(name)])) || !others.iter().all(|name| known(champions[at(name)])) {
            return Some(Ok(false));
        }
        let plain = |values: &[Option<f64>]| values.iter().map(|v| v.unwrap_or(f64::NAN)).collect::<Vec<_>>();
        let (own, champions) = (plain(own), plain(champions));
        let single = champions[at(names[0])];
        let values = (left.value(&own, &champions, single), right.value(&own, &champions, single));
        let (Some(a), Some(b)) = values else { return Some(Ok(false)) };
        Some(Ok(match sign {
            ">" => a > b,
            ">=" => a >= b,
            "<" => a < b,
            "<=" => a <= b,
            "==" => a == b,
            // What is no number is not unequal either.
            _ => !a.is_nan() && !b.is_nan() && a != b,
        }))
    }

    proptest! {
        #[test]
        fn it_is_printed_read_and_judged_as_plain_numbers_are(
            left in side(), sign in comparison(), right in side(),
            own in prop::collection::vec(metric(), NAMES.len()),
            champions in prop::option::of(prop::collection::vec(metric(), NAMES.len())),
        ) {
            let text = format!("{} {sign} {}", left.text(), right.text());
            let wanted = oracle((&left, sign, &right), &own, champions.as_deref());
            let Ok(requirement) = Requirement::parse(&text) else {
                prop_assert!(wanted.is_none(), "{} is refused", text);
                return Ok(());
            };
            prop_assert!(wanted.is_some(), "{} is taken", text);
            let again = Requirement::parse(&requirement.to_string());
            prop_assert_eq!(again.as_ref().ok(), Some(&requirement), "{}", requirement);
            let of = |values: &[Option<f64>], name: &str| {
                NAMES.iter().position(|n| *n == name).and_then(|at| values[at])
            };
            let (challenger, champion) = (|name: &str| of(&own, name), |name: &str| of(champions.as_ref().expect("one"), name));
            let beside: Option<Values<'_>> = if champions.is_some() { Some(&champion) } else { None };
            for requirement in [Some(requirement), again.ok()].into_iter().flatten() {
                let judged = match requirement.judge(&challenger, beside) {
                    Judgement::Held(_) => Ok(true),
                    Judgement::Refused(said) => {
                        prop_assert!(!said.is_empty());
                        Ok(false)
                    }
                    Judgement::NoChampion => Err(()),
                };
                prop_assert_eq!(Some(judged), wanted, "{}", text);
            }
        }

        #[test]
        fn no_text_breaks_it(text in "\\PC{0,60}", words in prop::collection::vec(
            prop::sample::select(vec![
                "rmse", "champion", "champion.", "champion.r2", "<", "<=", "=", "==", "!", "(", ")", "-", "*", "/", ".",
                "1", "1e", "\"", "\\", "[0]", " ", "é",
            ]),
            0..12,
        )) {
            for text in [text, words.concat()] {
                match Requirement::parse(&text) {
                    Ok(requirement) => {
                        prop_assert_eq!(Requirement::parse(&requirement.to_string()).ok(), Some(requirement));
                    }
                    Err(failure) => prop_assert!(failure.hint.is_some() && !failure.message.is_empty()),
                }
            }
        }

        #[test]
        fn an_error_names_the_place(left in side(), sign in comparison(), right in side(), before in any::<bool>()) {
            let (left, right) = (left.text(), right.text());
            let text = if before { format!("{left} § {sign} {right}") } else { format!("{left} {sign} § {right}") };
            let at = text.chars().position(|c| c == '§').expect("it is there") + 1;
            let failure = Requirement::parse(&text).expect_err("it is no sign");
            prop_assert!(failure.message.contains(&format!("at character {at}, `§")), "{}", failure);
            let failure = Requirement::parse(&format!("{left} {sign} ")).expect_err("it ends too early");
            prop_assert!(failure.message.contains("at its end"), "{}", failure);
        }
    }

    #[test]
    fn what_asks_nothing_is_no_requirement() {
        for (text, why) in [
            ("champion > 0.5", "nothing of the challenger"),
            ("1 < 2", "nothing of the challenger"),
            (".a.b > 1", "no metric"),
            ("rmse + mae < champion", "which metric"),
            ("rmse", "a comparison is expected"),
        ] {
            let failure = Requirement::parse(text).expect_err(text);
            assert!(failure.message.contains(why), "{text}: {}", failure.message);
        }
    }
}
