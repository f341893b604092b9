//! Choice: the first rule that holds. A comparison of values of the wrong type does not hold; it is no error.

use super::Run;
use super::data::{About, Outcome, invalid};
use crate::decimal;
use crate::execution::Strand;
use crate::fault::{self, Fault};
use crate::instant;
use crate::machine::{Against, Choice, Comparison, Order, State, Test, Type};
use crate::path::{Missing, Path};
use crate::query::Kind;
use crate::scope::{Scope, Spent};
use serde_json::Value;
use std::borrow::Cow;
use std::cmp::Ordering;

impl<'m> Run<'m> {
    pub(super) fn choose(&mut self, id: u64, strand: Strand, state: &'m State, choice: &'m Choice) {
        match self.chosen(&strand, state, choice) {
            Ok(outcome) => self.exit(id, strand, outcome),
            Err(fault) => self.fail(id, strand, fault),
        }
    }

    pub(super) fn chosen(
        &self,
        strand: &Strand,
        state: &'m State,
        choice: &'m Choice,
    ) -> Result<Outcome<'m>, Fault> {
        let at = |fault: Fault| fault.at(&strand.state, strand.entered);
        let input = self.input(strand, state)?;
        let found = self.read(strand, state, About::data(&input), |scope| {
            for rule in &choice.rules {
                if holds(&rule.test, scope)? {
                    return Ok(Some(rule));
                }
            }
            Ok(None)
        });
        let (next, chosen) = match found.map_err(at)? {
            Some(rule) => (&rule.next, (rule.answer.as_ref(), rule.assign.as_ref())),
            None => match &choice.default {
                Some(default) => (default, (state.answer.as_ref(), state.assign.as_ref())),
                None => {
                    let cause = "No choice rule matched and there is no Default.";
                    return Err(at(Fault::named(fault::NO_CHOICE, cause)));
                }
            },
        };
        self.passed_on(strand, state, input, chosen, next)
    }
}

fn holds<'a>(test: &'a Test, scope: &Scope<'a>) -> Result<bool, Fault> {
    match test {
        Test::Literal(holds) => Ok(*holds),
        Test::Query(query) => Ok(query.expect(scope, Kind::Boolean)? == true),
        Test::Not(test) => Ok(!holds(test, scope)?),
        Test::And(tests) => {
            for test in tests {
                if !holds(test, scope)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Test::Or(tests) => {
            for test in tests {
                if holds(test, scope)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Test::Compare { variable, comparison } => {
            scope.budget.visit(1)?;
            let value = scope.look(variable);
            if let Comparison::Is(Type::Present, wanted) = comparison
                && value != Err(Missing::Spent)
            {
                return Ok(value.is_ok() == *wanted);
            }
            let value = value.map_err(|missing| unreadable(variable, &missing))?;
            comparison.holds(&value, scope)
        }
    }
}

fn unreadable(variable: &Path, missing: &Missing) -> Fault {
    match missing {
        Missing::Spent => Spent.into(),
        _ => Fault::runtime(format!(
            "Invalid path '{}': The choice state's condition path references an invalid value.",
            variable.text()
        )),
    }
}

impl Comparison {
    fn holds<'a>(&'a self, value: &Value, scope: &Scope<'a>) -> Result<bool, Fault> {
        Ok(match self {
            Self::Is(kind, wanted) => kind.fits(value) == *wanted,
            Self::Matches(pattern) => value.as_str().is_some_and(|text| matches(pattern, text)),
            Self::Boolean(against) => match (value, &*against.value(scope)?) {
                (Value::Bool(left), Value::Bool(right)) => left == right,
                _ => false,
            },
            Self::String(order, against) => match (value, &*against.value(scope)?) {
                (Value::String(left), Value::String(right)) => {
                    order.fits(left.encode_utf16().cmp(right.encode_utf16()))
                }
                _ => false,
            },
            Self::Numeric(order, against) => match (value, &*against.value(scope)?) {
                (Value::Number(left), Value::Number(right)) => order.fits(decimal::order(left, right)),
                _ => false,
            },
            Self::Timestamp(order, against) => {
                let right = against.value(scope)?;
                let pair = value
                    .as_str()
                    .and_then(instant::parse)
                    .zip(right.as_str().and_then(instant::parse));
                pair.is_some_and(|(left, right)| order.fits(left.cmp(&right)))
            }
        })
    }
}

impl Against {
    fn value<'a>(&'a self, scope: &Scope<'a>) -> Result<Cow<'a, Value>, Fault> {
        match self {
            Self::Value(value) => Ok(Cow::Borrowed(value)),
            Self::Path(path) => scope.look(path).map_err(|missing| invalid(path, &missing)),
        }
    }
}

impl Type {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Present => true,
            Self::Null => value.is_null(),
            Self::Numeric => value.is_number(),
            Self::String => value.is_string(),
            Self::Boolean => value.is_boolean(),
            Self::Timestamp => value.as_str().and_then(instant::parse).is_some(),
        }
    }
}

impl Order {
    fn fits(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Less => ordering.is_lt(),
            Self::Greater => ordering.is_gt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// `StringMatches`: `*` stands for any characters, `\*` for itself. Linear: only the last `*` is ever tried again.
fn matches(pattern: &str, text: &str) -> bool {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(next) = chars.next() {
        tokens.push(match next {
            '*' => None,
            '\\' => Some(chars.next().unwrap_or('\\')),
            other => Some(other),
        });
    }
    let text: Vec<char> = text.chars().collect();
    let (mut token, mut at) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while at < text.len() {
        match tokens.get(token) {
            Some(None) => {
                retry = Some((token + 1, at));
                token += 1;
            }
            Some(Some(wanted)) if *wanted == text[at] => {
                token += 1;
                at += 1;
            }
            _ => match &mut retry {
                Some((after, from)) => {
                    *from += 1;
                    (token, at) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    tokens[token..].iter().all(Option::is_none)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn string_matches() {
        for (pattern, text, want) in [
            ("", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("*.log", "x.log.log", true),
            ("a*b*c", "aXbYbZc", true),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("a\\\\b", "a\\b", true),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
    }
}
