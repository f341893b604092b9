//! Which variables an expression takes from around it.

use crate::{
    function,
    tree::{Group, Kind, Node, Stage},
};

/// What an expression takes from its scope.
pub struct Free {
    /// Variables, each once, in order of their first use. Built-in functions do not count.
    pub variables: Vec<String>,
    /// Of them, the fields that are read by name right behind the variable, each once.
    pub members: Vec<(String, String)>,
}

/// What is free in an expression.
pub fn free(tree: &Node) -> Free {
    let mut walk = Walk::default();
    walk.node(tree);
    Free {
        variables: walk.found,
        members: walk.members,
    }
}

/// Names of fields, and `$` and `$$`, that are read from the expression's own input rather than from a variable or from a
/// value that is at hand; each once. What functions are made of is not looked at.
pub fn top(tree: &Node) -> Vec<String> {
    let mut found = Vec::new();
    outermost(tree, &mut found);
    found
}

fn outermost(node: &Node, found: &mut Vec<String>) {
    stacker::maybe_grow(64 << 10, 1 << 20, || {
        let mut see = |name: &str| {
            if !found.iter().any(|known| known == name) {
                found.push(name.to_owned());
            }
        };
        match &node.kind {
            Kind::Name(name) => see(name),
            Kind::Variable(name) if name.is_empty() || name == "$" => see(&format!("${name}")),
            // All steps but the first have the value of the one before.
            Kind::Path(path) => path.steps.iter().take(1).for_each(|step| outermost(step, found)),
            Kind::Bind(_, part) | Kind::Negate(part) => outermost(part, found),
            Kind::Block(parts) | Kind::Array(parts) => parts.iter().for_each(|part| outermost(part, found)),
            Kind::Binary(_, left, right)
            | Kind::Apply(left, right)
            | Kind::Default(left, right)
            | Kind::Coalesce(left, right) => {
                outermost(left, found);
                outermost(right, found);
            }
            Kind::Object(group) => {
                for (key, value) in &group.pairs {
                    outermost(key, found);
                    outermost(value, found);
                }
            }
            Kind::Function(call) | Kind::Partial(call) => {
                call.arguments
                    .iter()
                    .for_each(|argument| outermost(argument, found));
            }
            Kind::Condition(condition, then, other) => {
                outermost(condition, found);
                outermost(then, found);
                if let Some(other) = other {
                    outermost(other, found);
                }
            }
            _ => {}
        }
    });
}

#[derive(Default)]
struct Walk<'a> {
    /// Names that are bound where the walk is.
    bound: Vec<&'a str>,
    found: Vec<String>,
    members: Vec<(String, String)>,
}

impl<'a> Walk<'a> {
    fn is_free(&self, name: &str) -> bool {
        !(name.is_empty() || name == "$" || self.bound.contains(&name) || function::is_native(name))
    }

    /// The first two steps of a path, which may be a variable and a field of it.
    fn member(&mut self, steps: &[Node]) {
        let [first, second, ..] = steps else { return };
        if let (Kind::Variable(variable), Kind::Name(name)) = (&first.kind, &second.kind)
            && self.is_free(variable)
        {
            let member = (variable.clone(), name.clone());
            if !self.members.contains(&member) {
                self.members.push(member);
            }
        }
    }

    fn variable(&mut self, name: &str) {
        let known = !self.is_free(name);
        if !known && !self.found.iter().any(|found| found == name) {
            self.found.push(name.to_owned());
        }
    }

    /// What is bound inside ends with it.
    fn inner(&mut self, walk: impl FnOnce(&mut Self)) {
        let outer = self.bound.len();
        walk(self);
        self.bound.truncate(outer);
    }

    fn node(&mut self, node: &'a Node) {
        stacker::maybe_grow(64 << 10, 1 << 20, || self.kind(node));
        self.bound.extend(node.focus.as_deref());
        self.bound.extend(node.index.as_deref());
        for predicate in &node.predicates {
            self.node(predicate);
        }
        for stage in &node.stages {
            match stage {
                Stage::Filter(predicate) => self.node(predicate),
                Stage::Index(name) => self.bound.push(name),
            }
        }
        if let Some(group) = &node.group
            && !node.is_path()
        {
            self.pairs(group);
        }
    }

    fn pairs(&mut self, group: &'a Group) {
        for (key, value) in &group.pairs {
            self.node(key);
            self.node(value);
        }
    }

    fn kind(&mut self, node: &'a Node) {
        match &node.kind {
            Kind::Variable(name) => self.variable(name),
            Kind::Path(path) => self.inner(|walk| {
                walk.member(&path.steps);
                path.steps.iter().for_each(|step| walk.node(step));
                if let Some(group) = &node.group {
                    walk.pairs(group);
                }
            }),
            Kind::Bind(name, value) => {
                // A function may call itself by the name that it is given.
                let recursive = matches!(value.kind, Kind::Lambda(_));
                if recursive {
                    self.bound.push(name);
                }
                self.node(value);
                self.bound.push(name);
            }
            Kind::Block(parts) => self.inner(|walk| parts.iter().for_each(|part| walk.node(part))),
            Kind::Lambda(lambda) => self.inner(|walk| {
                walk.bound.extend(lambda.parameters.iter().map(String::as_str));
                walk.node(&lambda.body);
            }),
            Kind::Binary(_, left, right)
            | Kind::Apply(left, right)
            | Kind::Default(left, right)
            | Kind::Coalesce(left, right) => {
                self.node(left);
                self.node(right);
            }
            Kind::Negate(part) => self.node(part),
            Kind::Sort(terms) => terms.iter().for_each(|term| self.node(&term.expression)),
            Kind::Array(items) => items.iter().for_each(|item| self.node(item)),
            Kind::Object(group) => self.pairs(group),
            Kind::Function(call) | Kind::Partial(call) => {
                self.node(&call.procedure);
                call.arguments.iter().for_each(|argument| self.node(argument));
            }
            Kind::Condition(condition, then, other) => {
                self.node(condition);
                self.node(then);
                if let Some(other) = other {
                    self.node(other);
                }
            }
            Kind::Transform(transform) => {
                self.node(&transform.pattern);
                self.node(&transform.update);
                if let Some(delete) = &transform.delete {
                    self.node(delete);
                }
            }
            _ => {}
        }
    }
}
