//! Data on its way through the states. The same input shows in several events and is measured against the same limit each
//! time; so it is shared, and its JSON text is written once.

use crate::limit;
use crate::size;
use jsonata::json;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

#[derive(Clone, Default)]
pub struct Payload(Arc<Data>);

#[derive(Default)]
struct Data {
    value: Value,
    text: OnceLock<String>,
}

impl Payload {
    pub fn new(value: Value) -> Self {
        Self(Arc::new(Data {
            value,
            text: OnceLock::new(),
        }))
    }

    /// The compact JSON text.
    pub fn text(&self) -> &str {
        self.0.text.get_or_init(|| self.0.value.to_string())
    }

    /// Whether it is within the limits for what states hand on.
    pub fn fits(&self) -> bool {
        size::modest(&self.0.value, limit::DEPTH) && self.text().len() <= limit::PAYLOAD
    }

    pub fn into_value(self) -> Value {
        match Arc::try_unwrap(self.0) {
            Ok(data) => data.value,
            Err(shared) => shared.value.clone(),
        }
    }
}

impl Deref for Payload {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0.value
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.value == other.0.value
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        json::exact(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_are_of_the_text_and_of_the_depth() {
        assert!(Payload::new(json!("x".repeat(limit::PAYLOAD - 2))).fits());
        assert!(!Payload::new(json!("x".repeat(limit::PAYLOAD - 1))).fits());
        let deep = |levels: usize| (0..levels).fold(json!(1), |value, _| json!([value]));
        assert!(Payload::new(deep(limit::DEPTH)).fits());
        assert!(!Payload::new(deep(limit::DEPTH + 1)).fits());
    }

    #[test]
    fn a_copy_is_the_same_data() {
        let payload = Payload::new(json!({ "a": 1.0 }));
        let copy = payload.clone();
        assert_eq!(payload.text(), r#"{"a":1.0}"#);
        assert!(std::ptr::eq(payload.text(), copy.text()));
        assert_eq!(serde_json::to_string(&copy).unwrap(), payload.text());
        assert_eq!(copy.into_value(), *payload);
    }
}
