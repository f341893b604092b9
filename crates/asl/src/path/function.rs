//! The functions that may end a path, as Jayway has them: `$.items.length()`.

use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    Avg,
    First,
    Keys,
    Last,
    Length,
    Max,
    Min,
    StdDev,
    Sum,
}

const NAMES: [(&str, Function); 10] = [
    ("avg", Function::Avg),
    ("first", Function::First),
    ("keys", Function::Keys),
    ("last", Function::Last),
    ("length", Function::Length),
    ("max", Function::Max),
    ("min", Function::Min),
    ("size", Function::Length),
    ("stddev", Function::StdDev),
    ("sum", Function::Sum),
];

impl Function {
    pub fn named(name: &str) -> Option<Self> {
        let (_, function) = NAMES.iter().find(|known| known.0 == name)?;
        Some(*function)
    }

    pub fn name(self) -> &'static str {
        let found = NAMES.iter().find(|known| known.1 == self);
        found.map_or("", |(name, _)| name)
    }

    /// What it makes of a value; `None` when it cannot.
    pub fn apply(self, value: &Value) -> Option<Value> {
        match self {
            Self::Length => match value {
                Value::Array(items) => Some(items.len().into()),
                Value::Object(members) => Some(members.len().into()),
                Value::String(text) => Some(text.chars().count().into()),
                _ => None,
            },
            Self::Keys => Some(value.as_object()?.keys().map(String::as_str).collect()),
            Self::First => value.as_array()?.first().cloned(),
            Self::Last => value.as_array()?.last().cloned(),
            Self::Avg | Self::Max | Self::Min | Self::StdDev | Self::Sum => {
                let numbers: Vec<f64> = value.as_array()?.iter().filter_map(Value::as_f64).collect();
                let found = self.of_numbers(&numbers)?;
                serde_json::Number::from_f64(found).map(Value::Number)
            }
        }
    }

    fn of_numbers(self, numbers: &[f64]) -> Option<f64> {
        if numbers.is_empty() {
            return None;
        }
        let count = numbers.len() as f64;
        let sum: f64 = numbers.iter().sum();
        let squares: f64 = numbers.iter().map(|number| number * number).sum();
        Some(match self {
            Self::Avg => sum / count,
            Self::Max => numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Self::Min => numbers.iter().copied().fold(f64::INFINITY, f64::min),
            Self::StdDev => (squares / count - (sum / count).powi(2)).max(0.0).sqrt(),
            _ => sum,
        })
    }
}
