//! What is in force, as the control side knows it: every rule by priority and every group by name. Workers see only
//! the rules, as an index; `Book` makes the next index from the one before and what a change says.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
};

use hashbrown::HashTable;
use model::route::{self, Delta, Invalid, TargetHealth};

use crate::{
    balance::Group,
    metrics::GroupStats,
    quota,
    table::{Rule, Rules},
    target::Target,
};

/// The record. Cheap to keep: what it holds is what the workers use.
#[derive(Default)]
pub struct Book {
    pub version: u64,
    rules: HashTable<Rule>,
    groups: HashTable<Group>,
    /// Rules of groups to which several forward.
    users: HashMap<Box<str>, Vec<u32>>,
    hasher: RandomState,
    /// Targets that have left and may still have requests, with their groups.
    leaving: Vec<(Box<str>, Target)>,
    policies: Vec<Weak<route::TargetGroup>>,
}

/// What a change did.
#[derive(Default)]
pub struct Turn {
    pub gone: Vec<Rule>,
    pub new: Vec<Rule>,
    /// Targets that have left, with what their group grants them in ticks.
    pub left: Vec<(Target, u64)>,
    /// Targets to be probed from now on, or in another way, with what `tenant_of` knows their groups by.
    pub probed: Vec<(Target, u64)>,
}

impl Turn {
    /// What came after it.
    pub fn extend(&mut self, next: Self) {
        self.gone.extend(next.gone);
        self.new.extend(next.new);
        self.left.extend(next.left);
        self.probed.extend(next.probed);
    }

    /// Targets that were on their way out and are asked again stay.
    pub fn rejoin(&self) {
        let leaving = self.probed.iter().map(|(target, _)| target);
        leaving
            .filter(|target| target.is_leaving())
            .for_each(|target| target.rejoin());
    }
}

impl Book {
    pub fn rule(&self, priority: u32) -> Option<&Rule> {
        let hash = self.hasher.hash_one(priority);
        self.rules.find(hash, |rule| rule.priority == priority)
    }

    pub fn has_rule(&self, priority: u32) -> bool {
        self.rule(priority).is_some()
    }

    pub fn group(&self, name: &str) -> Option<&Group> {
        let hash = self.hasher.hash_one(name);
        self.groups.find(hash, |group| group.name() == name)
    }

    fn remove_group(&mut self, name: &str) -> Option<Group> {
        let hash = self.hasher.hash_one(name);
        let found = self.groups.find_entry(hash, |group| group.name() == name);
        Some(found.ok()?.remove().0)
    }

    /// Priorities of the rules that forward to a group. Most groups have one, which is kept with the group.
    fn users(&self, group: &Group) -> Vec<u32> {
        match (self.users.get(group.name()), group.user.load(Relaxed)) {
            (Some(many), _) => many.clone(),
            (None, 0) => Vec::new(),
            (None, one) => vec![one - 1],
        }
    }

    fn set_users(&mut self, group: &Group, users: Vec<u32>) {
        let one = match *users {
            [one] => one.checked_add(1),
            _ => None,
        };
        group.user.store(one.unwrap_or(0), Relaxed);
        match one.is_some() || users.is_empty() {
            true => _ = self.users.remove(group.name()),
            false => _ = self.users.insert(group.name().into(), users),
        }
    }

    /// A table as one change of nothing.
    pub fn of(table: &Delta) -> Result<Self, Invalid> {
        let mut book = Self::default();
        book.check(table)?;
        book.apply(table, 0);
        Ok(book)
    }

    /// Can this be applied? Nothing is changed.
    pub fn check(&self, delta: &Delta) -> Result<(), Invalid> {
        let fresh = delta.from.is_none();
        let stale = delta.version < self.version || delta.from.is_some_and(|from| from != self.version);
        if stale {
            return Err(Invalid::Stale {
                got: delta.version,
                have: self.version,
            });
        }
        let going: std::collections::HashSet<&str> =
            delta.without_groups.iter().map(String::as_str).collect();
        let is_group = |name: &str| {
            let stays = !fresh && !going.contains(name) && self.group(name).is_some();
            delta.target_groups.contains_key(name) || stays
        };
        for (name, group) in &delta.target_groups {
            group.check(name)?;
        }
        let mut replaced = std::collections::HashSet::new();
        for rule in &delta.rules {
            if !replaced.insert(rule.priority) {
                return Err(Invalid::Priority(rule.priority));
            }
            rule.check(is_group)?;
        }
        if fresh {
            return Ok(());
        }
        replaced.extend(&delta.without_rules);
        for name in delta.without_groups.iter().filter(|name| !is_group(name)) {
            let users = self
                .group(name)
                .map(|group| self.users(group))
                .unwrap_or_default();
            if let Some(rule) = users.iter().find(|rule| !replaced.contains(rule)) {
                return Err(Invalid::Group {
                    rule: *rule,
                    group: name.clone(),
                });
            }
        }
        Ok(())
    }

    /// Applies what `check` found good.
    pub fn apply(&mut self, delta: &Delta, tick: u64) -> Turn {
        let mut turn = Turn::default();
        self.leaving.retain(|(_, target)| !target.is_gone(tick));
        let whole = delta.from.is_none();
        let all: Vec<u32> = if whole {
            self.rules.iter().map(|rule| rule.priority).collect()
        } else {
            Vec::new()
        };
        let coming = delta.rules.iter().map(|rule| rule.priority);
        let going = all.into_iter().chain(delta.without_rules.iter().copied());
        let mut counted: HashMap<u32, Rule> = HashMap::new();
        for priority in going.chain(coming) {
            let taken = self.take_rule(priority, &mut turn);
            counted.extend(taken.filter(Rule::is_counted).map(|rule| (priority, rule)));
        }
        let mut renewed = Vec::new();
        for (name, spec) in &delta.target_groups {
            renewed.extend(self.put_group(name, spec, &mut turn));
        }
        for rule in &delta.rules {
            self.put_rule(rule, &mut turn);
            // The same place's rule with another action goes on counting.
            let before = counted.get(&rule.priority);
            if let Some(before) = before.filter(|before| before.place() == rule.place.to_string()) {
                self.rule(rule.priority).inspect(|rule| rule.go_on_from(before));
            }
        }
        // Rules that stayed, of groups that did not: the same rule, to the new group.
        renewed.retain(|priority| self.rule(*priority).is_some());
        renewed.sort_unstable();
        renewed.dedup();
        for priority in renewed {
            if let Some(before) = self.take_rule(priority, &mut turn) {
                self.put_rule(&before.source(), &mut turn);
                self.rule(priority).inspect(|rule| rule.go_on_from(&before));
            }
        }
        self.take_groups(delta, whole, &mut turn);
        self.version = delta.version;
        turn
    }

    fn take_groups(&mut self, delta: &Delta, whole: bool, turn: &mut Turn) {
        let gone: Vec<String> = match whole {
            false => delta.without_groups.clone(),
            true => {
                let names = self.groups.iter().map(|group| group.name().to_owned());
                names
                    .filter(|name| !delta.target_groups.contains_key(name))
                    .collect()
            }
        };
        for name in gone
            .iter()
            .filter(|name| !delta.target_groups.contains_key(*name))
        {
            if let Some(group) = self.remove_group(name) {
                self.set_users(&group, Vec::new());
                for target in group.targets() {
                    self.leaving.push((group.name().into(), target.clone()));
                    turn.left.push((target.clone(), group.drain()));
                }
            }
        }
    }

    fn take_rule(&mut self, priority: u32, turn: &mut Turn) -> Option<Rule> {
        let hash = self.hasher.hash_one(priority);
        let found = self.rules.find_entry(hash, |rule| rule.priority == priority);
        let (rule, _) = found.ok()?.remove();
        for group in rule.groups() {
            // The one in force under this name, which may be another by now.
            if let Some(group) = self.group(group.name()).cloned() {
                let mut users = self.users(&group);
                users.retain(|user| *user != priority);
                self.set_users(&group, users);
            }
        }
        turn.gone.push(rule.clone());
        Some(rule)
    }

    fn put_rule(&mut self, spec: &route::Rule, turn: &mut Turn) {
        let rule = Rule::new(spec, |name| self.group(name).cloned());
        for group in rule.groups() {
            let mut users = self.users(group);
            if !users.contains(&spec.priority) {
                users.push(spec.priority);
                self.set_users(group, users);
            }
        }
        let hasher = &self.hasher;
        let hash = hasher.hash_one(spec.priority);
        self.rules
            .insert_unique(hash, rule.clone(), |rule| hasher.hash_one(rule.priority));
        turn.new.push(rule);
    }

    /// Returns the rules that forward to the group as it was.
    fn put_group(&mut self, name: &str, spec: &route::TargetGroup, turn: &mut Turn) -> Vec<u32> {
        let before = self.remove_group(name);
        let known = |wanted: &route::Target| {
            let group = before.as_ref()?;
            group.targets().iter().find(|target| target.is(wanted)).cloned()
        };
        let mut targets = Vec::with_capacity(spec.targets.len());
        let policy = self.policy(spec);
        let hash = self.hasher.hash_one(name);
        let same_check = before
            .as_ref()
            .is_some_and(|group| group.policy.health == policy.health);
        for wanted in &spec.targets {
            let stayed = known(wanted);
            let anew = stayed.is_none() || !same_check;
            let target = self.target(name, wanted, stayed);
            // What is not of its check may be another all the same.
            target.probe(&policy);
            if anew {
                turn.probed.push((target.clone(), hash));
            }
            targets.push(target);
        }
        let (counters, users) = match &before {
            // A request under way may still count with the group as it was: both have the same counters.
            Some(group) => (Some(group.shared_counters()), self.users(group)),
            None => (None, Vec::new()),
        };
        if let Some(group) = &before {
            let gone = group
                .targets()
                .iter()
                .filter(|old| !targets.iter().any(|new| new.serial == old.serial));
            for target in gone {
                self.leaving.push((name.into(), target.clone()));
                let drain = crate::clock::signed(policy.deregistration_delay);
                turn.left.push((target.clone(), drain));
            }
        }
        let group = Group::new(name, targets, policy, counters);
        self.set_users(&group, users.clone());
        let hasher = &self.hasher;
        self.groups.insert_unique(hasher.hash_one(name), group, |group| {
            hasher.hash_one(group.name())
        });
        users
    }

    /// One that stayed, one on its way out that is wanted again, or a new one.
    fn target(&mut self, group: &str, wanted: &route::Target, stayed: Option<Target>) -> Target {
        if let Some(stayed) = stayed {
            return stayed;
        }
        let back = self
            .leaving
            .iter()
            .position(|(name, target)| **name == *group && target.is(wanted));
        match back {
            Some(index) => self.leaving.swap_remove(index).1,
            None => Target::new(wanted),
        }
    }

    /// One value for all groups that are written alike.
    fn policy(&mut self, spec: &route::TargetGroup) -> Arc<route::TargetGroup> {
        const REMEMBERED: usize = 64;
        let wanted = route::TargetGroup {
            targets: Vec::new(),
            ..spec.clone()
        };
        self.policies.retain(|policy| policy.strong_count() > 0);
        let known = self
            .policies
            .iter()
            .filter_map(Weak::upgrade)
            .find(|policy| **policy == wanted);
        known.unwrap_or_else(|| {
            let policy = Arc::new(wanted);
            if self.policies.len() >= REMEMBERED {
                self.policies.remove(0);
            }
            self.policies.push(Arc::downgrade(&policy));
            policy
        })
    }

    /// The index of all rules, from nothing.
    pub fn index(&self) -> Rules {
        let mut rules = Rules::default();
        rules.change(&[], &self.rules());
        rules
    }

    /// In priority order.
    pub fn rules(&self) -> Vec<Rule> {
        let mut rules: Vec<_> = self.rules.iter().cloned().collect();
        rules.sort_unstable_by_key(|rule| rule.priority);
        rules
    }

    pub fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<_> = self.groups.iter().cloned().collect();
        groups.sort_by(|a, b| a.name().cmp(b.name()));
        groups
    }

    /// The group in which a target is. It looks at all of them.
    pub fn group_of(&self, target: &Target) -> Option<Group> {
        let here = |group: &&Group| group.targets().iter().any(|one| one.serial == target.serial);
        self.groups.iter().find(here).cloned()
    }

    /// A number for the tenant of the first rule that forwards to a group, by the hash of its name. Where none does yet, as
    /// before an environment's first release serves, the group's own name says whose it is.
    pub fn tenant_of(&self, group: u64) -> u64 {
        let here = |one: &Group| self.hasher.hash_one(one.name()) == group;
        let Some(group) = self.groups.find(group, here) else {
            return 0;
        };
        let rule = self.users(group).first().and_then(|rule| self.rule(*rule));
        let name = rule.map_or(group.name(), |rule| rule.place());
        self.hasher.hash_one(quota::tenant(name))
    }

    /// Targets that have left and still have requests.
    pub fn leaving(&self, tick: u64) -> Vec<(Box<str>, Target)> {
        let busy = |target: &Target| target.active() > 0 && !target.is_gone(tick);
        self.leaving
            .iter()
            .filter(|(_, target)| busy(target))
            .cloned()
            .collect()
    }

    /// The whole table as it was written.
    pub fn source(&self) -> route::Table {
        route::Table {
            version: self.version,
            rules: self.rules().iter().map(|rule| rule.source()).collect(),
            target_groups: self
                .groups()
                .iter()
                .map(|group| (group.name().to_owned(), group.source()))
                .collect(),
        }
    }
}

pub fn health(groups: &[Group], leaving: &[(Box<str>, Target)]) -> Vec<TargetHealth> {
    let present = groups
        .iter()
        .flat_map(|group| group.targets().iter().map(|target| target.seen(group.name())));
    let mut health: Vec<TargetHealth> = present.collect();
    health.extend(leaving.iter().map(|(group, target)| target.seen(group)));
    health.sort_by(|a, b| (&a.group, &a.target.id).cmp(&(&b.group, &b.target.id)));
    health
}

pub fn stats(groups: &[Group]) -> Vec<GroupStats> {
    groups
        .iter()
        .map(|group| group.counted().stats(group.name()))
        .collect()
}

#[cfg(test)]
mod tests {
    use model::route::{Action, Conditions, Own, Rule as Spec, Table, TargetGroup, Transforms, Weighted};
    use proptest::prelude::*;

    use super::*;
    use crate::draft::Gap;

    fn any_table() -> impl Strategy<Value = Table> {
        let targets = prop::collection::btree_set(1..5u16, 0..3);
        let groups = prop::collection::btree_map("[a-d]", (targets, 2..4u32), 1..4);
        let rules =
            prop::collection::btree_map(1..9u32, (prop::collection::vec(0..4usize, 1..3), 0..3u32), 0..6);
        (groups, rules).prop_map(|(groups, rules)| {
            let names: Vec<String> = groups.keys().cloned().collect();
            let named = |n: &usize| names[n % names.len()].clone();
            Table {
                version: 0,
                rules: rules
                    .into_iter()
                    .map(|(priority, (to, host))| spec(priority, host, to.iter().map(named)))
                    .collect(),
                target_groups: groups
                    .into_iter()
                    .map(|(name, (ports, bad))| (name, group(&ports, bad)))
                    .collect(),
            }
        })
    }

    fn group(ports: &std::collections::BTreeSet<u16>, unhealthy: u32) -> TargetGroup {
        let target = |port: &u16| route::Target {
            id: format!("h-{port}"),
            address: ([127, 0, 0, 1], *port).into(),
        };
        let mut group = TargetGroup {
            targets: ports.iter().map(target).collect(),
            ..TargetGroup::default()
        };
        group.health.unhealthy = unhealthy;
        group
    }

    fn spec(priority: u32, host: u32, to: impl Iterator<Item = String>) -> Spec {
        Spec {
            priority,
            place: "acme/shop/dev".parse().unwrap(),
            hosts: vec![format!("h{host}.test")],
            paths: Vec::new(),
            conditions: Conditions::default(),
            transforms: Transforms::default(),
            access: Vec::new(),
            own: Own {
                acme: host == 1,
                ..Own::default()
            },
            authenticate: None,
            action: Action::Forward {
                groups: to.map(|group| Weighted { group, weight: 1 }).collect(),
                stickiness: None,
            },
        }
    }

    fn gap(book: &Book, table: &Table) -> Gap {
        Gap::between(book, &Book::of(&table.clone().into()).unwrap())
    }

    /// Every rule goes to the very group that is under its name, and every group knows its rules.
    fn is_consistent(book: &Book) {
        for rule in book.rules() {
            for group in rule.groups() {
                let held = book.group(group.name()).unwrap();
                assert!(Group::same(held, group), "a rule has an older group");
                assert!(book.users(held).contains(&rule.priority));
            }
        }
        assert!(book.users.values().all(|users| users.len() > 1));
        for group in book.groups() {
            for user in book.users(&group) {
                assert!(
                    book.rule(user)
                        .unwrap()
                        .groups()
                        .any(|g| g.name() == group.name()),
                    "a rule has gone"
                );
            }
        }
    }

    #[test]
    fn a_target_that_stays_hears_that_its_group_wakes() {
        let mut book = Book::default();
        let mut table = Table {
            version: 1,
            ..Table::default()
        };
        table.target_groups.insert("a".into(), group(&[1].into(), 2));
        let turn = book.apply(&Delta::from(table.clone()), 0);
        let (target, _) = &turn.probed[0];
        assert!(!target.policy().unwrap().waking);
        table.version = 2;
        table.target_groups.get_mut("a").unwrap().waking = true;
        let turn = book.apply(&gap(&book, &table).delta(), 0);
        assert!(turn.probed.is_empty(), "its check is the same");
        assert!(target.policy().unwrap().waking);
    }

    proptest! {
        #[test]
        fn a_book_is_its_table_after_any_changes(tables in prop::collection::vec(any_table(), 1..6), size in 1..4usize) {
            let (mut book, mut bit_by_bit) = (Book::default(), Book::default());
            let mut held = [HashMap::new(), HashMap::new()];
            for (version, mut table) in (1..).zip(tables) {
                table.version = version;
                let delta = gap(&book, &table).delta();
                prop_assert_eq!(book.check(&delta), Ok(()));
                prop_assert_eq!(&book.source().delta(&table), &delta);
                let turn = book.apply(&delta, 0);
                prop_assert_eq!(book.source(), table.clone());
                follows(&book, turn, &mut held[0])?;
                // In pieces it comes to the same.
                let mut turn = Turn::default();
                let all = gap(&bit_by_bit, &table);
                let count = all.len();
                let deltas: Vec<Delta> = all.deltas(size).collect();
                prop_assert!(deltas.len() >= count.div_ceil(size));
                for delta in &deltas {
                    turn.extend(bit_by_bit.apply(delta, 0));
                }
                if !deltas.is_empty() {
                    prop_assert_eq!(bit_by_bit.source(), table);
                }
                follows(&bit_by_bit, turn, &mut held[1])?;
            }
        }
    }

    /// What came and went is what is there.
    fn follows(book: &Book, turn: Turn, held: &mut HashMap<u64, Target>) -> Result<(), TestCaseError> {
        is_consistent(book);
        for (target, _) in &turn.left {
            prop_assert!(held.remove(&target.serial).is_some());
            target.leave(1_000_000);
        }
        for (target, _) in &turn.probed {
            target.rejoin();
            held.insert(target.serial, target.clone());
        }
        let mut there: Vec<u64> = held.keys().copied().collect();
        let of = |group: &Group| {
            group
                .targets()
                .iter()
                .map(|target| target.serial)
                .collect::<Vec<_>>()
        };
        let mut wanted: Vec<u64> = book.groups().iter().flat_map(of).collect();
        there.sort_unstable();
        wanted.sort_unstable();
        prop_assert_eq!(there, wanted);
        Ok(())
    }
}
