//! Choice states: rules, tests and their operators.

use super::Reader;
use super::fields::Fields;
use super::state::answer;
use crate::instant;
use crate::machine::{Against, Choice, Comparison, Order, Rule, Test, Type};
use serde_json::Value;

const ORDERS: [(&str, Order); 5] = [
    ("Equals", Order::Equal),
    ("LessThan", Order::Less),
    ("GreaterThan", Order::Greater),
    ("LessThanEquals", Order::LessOrEqual),
    ("GreaterThanEquals", Order::GreaterOrEqual),
];

const TYPES: [(&str, Type); 6] = [
    ("IsNull", Type::Null),
    ("IsPresent", Type::Present),
    ("IsNumeric", Type::Numeric),
    ("IsString", Type::String),
    ("IsBoolean", Type::Boolean),
    ("IsTimestamp", Type::Timestamp),
];

/// All names that a rule's comparison may have; `Fields` wants them to live for ever.
const OPERATORS: [&str; 39] = [
    "BooleanEquals",
    "BooleanEqualsPath",
    "IsBoolean",
    "IsNull",
    "IsNumeric",
    "IsPresent",
    "IsString",
    "IsTimestamp",
    "NumericEquals",
    "NumericEqualsPath",
    "NumericGreaterThan",
    "NumericGreaterThanEquals",
    "NumericGreaterThanEqualsPath",
    "NumericGreaterThanPath",
    "NumericLessThan",
    "NumericLessThanEquals",
    "NumericLessThanEqualsPath",
    "NumericLessThanPath",
    "StringEquals",
    "StringEqualsPath",
    "StringGreaterThan",
    "StringGreaterThanEquals",
    "StringGreaterThanEqualsPath",
    "StringGreaterThanPath",
    "StringLessThan",
    "StringLessThanEquals",
    "StringLessThanEqualsPath",
    "StringLessThanPath",
    "StringMatches",
    "TimestampEquals",
    "TimestampEqualsPath",
    "TimestampGreaterThan",
    "TimestampGreaterThanEquals",
    "TimestampGreaterThanEqualsPath",
    "TimestampGreaterThanPath",
    "TimestampLessThan",
    "TimestampLessThanEquals",
    "TimestampLessThanEqualsPath",
    "TimestampLessThanPath",
];

impl Reader {
    pub(super) fn choice(&mut self, fields: &Fields) -> Option<Choice> {
        fields.required(&["Choices"], &mut self.report);
        let default = fields.text("Default", &mut self.report).map(str::to_owned);
        let rules = fields.objects("Choices", &mut self.report)?;
        if rules.is_empty() {
            self.report
                .schema(&fields.at("Choices"), "There must be at least one choice rule");
            self.report.detail("is empty, non-empty required");
        }
        let rules = rules.iter().filter_map(|rule| self.rule(rule)).collect();
        Some(Choice { rules, default })
    }

    fn rule(&mut self, fields: &Fields) -> Option<Rule> {
        fields.required(&["Next"], &mut self.report);
        let next = fields.text("Next", &mut self.report).map(str::to_owned);
        let assign = fields.template("Assign", &mut self.report);
        let answer = answer(fields, &mut self.report);
        let test = if fields.is_jsonata() {
            self.condition(fields)
        } else {
            self.test(fields)
        };
        Some(Rule {
            test: test?,
            next: next?,
            answer,
            assign,
        })
    }

    /// `Condition`: a query or a boolean.
    fn condition(&mut self, fields: &Fields) -> Option<Test> {
        fields.text("Comment", &mut self.report);
        fields.required(&["Condition"], &mut self.report);
        let test = if fields.is_query("Condition") {
            fields.query("Condition", &mut self.report).map(Test::Query)
        } else {
            fields.flag("Condition", &mut self.report).map(Test::Literal)
        };
        fields.finish(&mut self.report);
        test
    }

    fn test(&mut self, fields: &Fields) -> Option<Test> {
        fields.text("Comment", &mut self.report);
        let test = self.operation(fields);
        fields.finish(&mut self.report);
        test
    }

    fn operation(&mut self, fields: &Fields) -> Option<Test> {
        let given: Vec<_> = ["And", "Or", "Not"]
            .into_iter()
            .chain(OPERATORS)
            .filter(|name| fields.members().contains_key(*name))
            .collect();
        let [name] = given[..] else {
            fields.get("Variable");
            for name in &given {
                fields.get(name);
            }
            let message = if given.is_empty() {
                "A comparison is missing"
            } else {
                "Only one comparison may be set"
            };
            self.report.schema(
                fields.pointer(),
                format!("{message}: use And, Or, Not or one comparison operator"),
            );
            return None;
        };
        match name {
            "And" => Some(Test::And(self.tests(name, fields)?)),
            "Or" => Some(Test::Or(self.tests(name, fields)?)),
            "Not" => {
                let inner = fields.object(name, &mut self.report)?;
                Some(Test::Not(Box::new(self.test(&inner)?)))
            }
            name => {
                fields.required(&["Variable"], &mut self.report);
                let comparison = self.comparison(name, fields);
                let variable = fields.path("Variable", &mut self.report);
                Some(Test::Compare {
                    variable: variable?,
                    comparison: comparison?,
                })
            }
        }
    }

    fn tests(&mut self, name: &'static str, fields: &Fields) -> Option<Vec<Test>> {
        let tests = fields.objects(name, &mut self.report)?;
        if tests.is_empty() {
            self.report
                .schema(&fields.at(name), "There must be at least one rule");
        }
        Some(tests.iter().filter_map(|test| self.test(test)).collect())
    }

    fn comparison(&mut self, name: &'static str, fields: &Fields) -> Option<Comparison> {
        if name == "StringMatches" {
            return fields
                .text(name, &mut self.report)
                .map(|text| Comparison::Matches(text.to_owned()));
        }
        if let Some((_, kind)) = TYPES.iter().find(|known| known.0 == name) {
            return fields
                .flag(name, &mut self.report)
                .map(|wanted| Comparison::Is(*kind, wanted));
        }
        let (stem, is_path) = name
            .strip_suffix("Path")
            .map_or((name, false), |stem| (stem, true));
        let (family, order) = family(stem)?;
        let against = if is_path {
            Against::Path(fields.reference(name, &mut self.report)?)
        } else {
            let value = fields.get(name)?;
            if !family.fits(value) {
                self.report
                    .schema(&fields.at(name), format!("Expected value of type {family:?}"));
                return None;
            }
            Against::Value(value.clone())
        };
        Some(match family {
            Family::Boolean => Comparison::Boolean(against),
            Family::Numeric => Comparison::Numeric(order, against),
            Family::String => Comparison::String(order, against),
            Family::Timestamp => Comparison::Timestamp(order, against),
        })
    }
}

/// What a comparison operator compares.
#[derive(Debug, Clone, Copy)]
enum Family {
    Boolean,
    Numeric,
    String,
    Timestamp,
}

impl Family {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Boolean => value.is_boolean(),
            Self::Numeric => value.is_number(),
            Self::String => value.is_string(),
            Self::Timestamp => value.as_str().and_then(instant::parse).is_some(),
        }
    }
}

/// `NumericLessThan` is a number's `LessThan`.
fn family(stem: &str) -> Option<(Family, Order)> {
    let families = [
        ("Boolean", Family::Boolean),
        ("Numeric", Family::Numeric),
        ("String", Family::String),
        ("Timestamp", Family::Timestamp),
    ];
    let (rest, family) = families
        .iter()
        .find_map(|(prefix, family)| Some((stem.strip_prefix(prefix)?, *family)))?;
    let (_, order) = ORDERS.iter().find(|known| known.0 == rest)?;
    Some((family, *order))
}
