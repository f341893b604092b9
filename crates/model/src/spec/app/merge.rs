//! An environment over what stands above it.

use crate::spec::yaml::{Node, Value};

/// `over` laid on `base`: mappings key by key, everything else replaced; `null` takes a key away. Every node keeps its
/// own place in the file.
pub(super) fn merge(base: &[(Node, Node)], over: &[(Node, Node)]) -> Vec<(Node, Node)> {
    let mut merged: Vec<(Node, Node)> = base.to_vec();
    for (key, value) in over {
        let name = key.text();
        let found = merged.iter().position(|(have, _)| have.text() == name);
        match found {
            Some(at) if value.is_null() => {
                merged.remove(at);
            }
            Some(at) => merged[at] = (key.clone(), laid(&merged[at].1, value)),
            None => merged.push((key.clone(), value.clone())),
        }
    }
    merged
}

fn laid(base: &Node, over: &Node) -> Node {
    match (&base.value, &over.value) {
        (Value::Mapping(below), Value::Mapping(above)) => Node {
            value: Value::Mapping(merge(below, above)),
            ..over.clone()
        },
        _ => over.clone(),
    }
}
