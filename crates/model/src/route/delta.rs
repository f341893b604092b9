//! The difference between two tables.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Rule, Table, TargetGroup};

/// What turns the table `from` into the table `version`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delta {
    /// The table that must be in force. None: whatever is in force goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    pub version: u64,
    /// New, or in place of those with the same priority.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// New, or in place of those with the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub target_groups: BTreeMap<String, TargetGroup>,
    /// Priorities of rules that go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_rules: Vec<u32>,
    /// Names of target groups that go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_groups: Vec<String>,
}

impl Delta {
    /// Does it change nothing but the version?
    pub fn is_empty(&self) -> bool {
        self.from.is_some()
            && self.rules.is_empty()
            && self.target_groups.is_empty()
            && self.without_rules.is_empty()
            && self.without_groups.is_empty()
    }
}

impl Table {
    /// What turns this table into the next.
    pub fn delta(&self, next: &Self) -> Delta {
        let before: BTreeMap<u32, &Rule> = self.rules.iter().map(|rule| (rule.priority, rule)).collect();
        let after: BTreeSet<u32> = next.rules.iter().map(|rule| rule.priority).collect();
        let changed = |rule: &&Rule| before.get(&rule.priority) != Some(rule);
        let other = |(name, group): &(&String, &TargetGroup)| self.target_groups.get(*name) != Some(group);
        Delta {
            from: Some(self.version),
            version: next.version,
            rules: next.rules.iter().filter(changed).cloned().collect(),
            target_groups: next
                .target_groups
                .iter()
                .filter(other)
                .map(|(name, group)| (name.clone(), group.clone()))
                .collect(),
            without_rules: before.keys().filter(|p| !after.contains(p)).copied().collect(),
            without_groups: self
                .target_groups
                .keys()
                .filter(|name| !next.target_groups.contains_key(*name))
                .cloned()
                .collect(),
        }
    }

    /// The table after a change; rules end in priority order. It is not checked.
    pub fn change(&mut self, delta: Delta) {
        if delta.from.is_none() {
            *self = Self::default();
        }
        let mut rules: BTreeMap<u32, Rule> = std::mem::take(&mut self.rules)
            .into_iter()
            .map(|rule| (rule.priority, rule))
            .collect();
        for priority in &delta.without_rules {
            rules.remove(priority);
        }
        rules.extend(delta.rules.into_iter().map(|rule| (rule.priority, rule)));
        self.rules = rules.into_values().collect();
        for name in &delta.without_groups {
            self.target_groups.remove(name);
        }
        self.target_groups.extend(delta.target_groups);
        self.version = delta.version;
    }
}

impl From<Table> for Delta {
    /// The whole table, in place of any.
    fn from(table: Table) -> Self {
        Self {
            version: table.version,
            rules: table.rules,
            target_groups: table.target_groups,
            ..Self::default()
        }
    }
}
