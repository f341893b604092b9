//! Aliases and merge keys: what they stand for, and what it weighs.

use std::collections::{HashMap, HashSet};

use super::{Node, Value};

/// What aliases may stand for.
#[derive(Default)]
pub(super) struct Anchors {
    pub nodes: HashMap<usize, Node>,
    /// Of the nodes that aliases stood for, and of those that are remembered.
    pub bytes: usize,
}

/// How many nodes a node is, and how many bytes they are.
pub(super) fn weight(node: &Node) -> (usize, usize) {
    let add = |(nodes, bytes): (usize, usize), node: &Node| {
        let (more, own) = weight(node);
        (nodes + more, bytes + own)
    };
    match &node.value {
        Value::Scalar { text, .. } => (1, text.len()),
        Value::Sequence(items) => items.iter().fold((1, 0), add),
        Value::Mapping(entries) => entries
            .iter()
            .fold((1, 0), |sum, (key, value)| add(add(sum, key), value)),
    }
}

/// How many levels a node has below it.
pub(super) fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Scalar { .. } => 0,
        Value::Sequence(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Mapping(entries) => 1 + entries.iter().map(|(_, value)| depth(value)).max().unwrap_or(0),
    }
}

/// `<<`: the entries of other mappings, where the mapping has none of its own.
pub(super) fn merge(entries: Vec<(Node, Node)>) -> Vec<(Node, Node)> {
    let is_merge = |key: &Node| key.plain() == Some("<<");
    if !entries.iter().any(|(key, _)| is_merge(key)) {
        return entries;
    }
    let (merged, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| is_merge(key));
    let sources = merged.into_iter().flat_map(|(_, value)| match value.value {
        Value::Sequence(items) => items,
        _ => vec![value],
    });
    let mut names: HashSet<String> = own
        .iter()
        .filter_map(|(key, _)| key.text().map(str::to_owned))
        .collect();
    for source in sources {
        let Value::Mapping(entries) = source.value else {
            continue;
        };
        own.extend(
            entries
                .into_iter()
                .filter(|(key, _)| names.insert(key.text().unwrap_or_default().to_owned())),
        );
    }
    own
}
