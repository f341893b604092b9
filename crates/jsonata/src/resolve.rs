//! The raw tree to the one that is evaluated: steps are gathered into paths, predicates and groups attached to their
//! steps, `%` tied to the step that it means, calls in tail position marked.

use std::sync::Arc;

use crate::{
    error::{Result, fault},
    syntax::{Form, Pair, Raw},
    token::Kind as Token,
    tree::{Call, Group, Kind, Lambda, Node, Path, Slot, Stage, Term, Transform},
};

pub fn resolve(raw: Raw) -> Result<Node> {
    let position = raw.position;
    let node = Resolver { labels: 0 }.node(raw)?;
    if matches!(node.kind, Kind::Parent(_)) || !node.seeking.is_empty() {
        return Err(fault("S0217").at(position).token(node.word()));
    }
    Ok(node)
}

struct Resolver {
    labels: u32,
}

impl Resolver {
    fn node(&mut self, raw: Raw) -> Result<Node> {
        let keep = raw.keep_array;
        let mut node = stacker::maybe_grow(64 << 10, 1 << 20, || self.form(raw))?;
        node.keep_array |= keep;
        Ok(node)
    }

    fn boxed(&mut self, raw: Raw) -> Result<Box<Node>> {
        self.node(raw).map(Box::new)
    }

    fn form(&mut self, raw: Raw) -> Result<Node> {
        let position = raw.position;
        let leaf = |kind| Ok(Node::new(kind, position));
        match raw.kind {
            Form::Name(name) => {
                let mut step = Node::new(Kind::Name(name), position);
                step.keep_array = raw.keep_array;
                leaf(Kind::Path(Path {
                    steps: vec![step],
                    keep_singleton: raw.keep_array,
                }))
            }
            Form::Variable(name) => leaf(Kind::Variable(name)),
            Form::String(text) => leaf(Kind::String(text)),
            Form::Number(value) => leaf(Kind::Number(value)),
            Form::Bool(value) => leaf(Kind::Bool(value)),
            Form::Null => leaf(Kind::Null),
            Form::Regex(pattern) => leaf(Kind::Regex(pattern)),
            Form::Wildcard => leaf(Kind::Wildcard),
            Form::Descendant => leaf(Kind::Descendant),
            Form::Placeholder => leaf(Kind::Placeholder),
            Form::End => Err(fault("S0207").at(position).token("(end)")),
            Form::Parent => {
                self.labels += 1;
                leaf(Kind::Parent(Slot::new(self.labels)))
            }
            Form::Binary(".", left, right) => self.map(*left, *right),
            Form::Binary("~>", left, right) => {
                let (left, right) = (self.boxed(*left)?, self.boxed(*right)?);
                let keep = left.keep_array || right.keep_array;
                let mut node = Node::new(Kind::Apply(left, right), position);
                node.keep_array = keep;
                Ok(node)
            }
            Form::Filter(left, right) => self.filter(*left, *right, position),
            Form::Order(left, terms) => self.order(*left, terms, position),
            Form::Group(left, pairs) => self.group(*left, pairs, position),
            Form::Focus(left, name) => self.focus(*left, name, position, raw.keep_array),
            Form::Index(left, name) => self.index(*left, name),
            Form::Negate(part) => self.negate(*part, position),
            form => self.compound(form, position),
        }
    }

    /// Forms that pass the parents that their parts seek on to what is around them.
    fn compound(&mut self, form: Form, position: usize) -> Result<Node> {
        let mut seeking = Vec::new();
        let mut constructed = false;
        let kind = match form {
            Form::Binary(operator, left, right) => Kind::Binary(
                operator,
                self.part(*left, &mut seeking)?,
                self.part(*right, &mut seeking)?,
            ),
            Form::Bind(name, right) => Kind::Bind(name, self.part(*right, &mut seeking)?),
            Form::Array(items) => Kind::Array(self.parts(items, &mut seeking)?),
            Form::Object(pairs) => Kind::Object(self.pairs(pairs, position, &mut seeking)?),
            Form::Function(procedure, arguments) => {
                let arguments = self.parts(arguments, &mut seeking)?;
                let procedure = self.boxed(*procedure)?;
                Kind::Function(Call { procedure, arguments })
            }
            Form::Partial(procedure, arguments) => {
                let arguments = self.parts(arguments, &mut seeking)?;
                let procedure = self.boxed(*procedure)?;
                Kind::Partial(Call { procedure, arguments })
            }
            Form::Lambda(parameters, signature, body) => {
                let mut body = self.boxed(*body)?;
                mark_tail(&mut body);
                Kind::Lambda(Lambda {
                    parameters,
                    signature,
                    body,
                })
            }
            Form::Block(parts) => {
                let parts = self.parts(parts, &mut seeking)?;
                constructed = parts.iter().any(is_constructed);
                Kind::Block(parts)
            }
            Form::Condition(condition, then, other) => {
                let condition = self.part(*condition, &mut seeking)?;
                let then = self.part(*then, &mut seeking)?;
                let other = other.map(|other| self.part(*other, &mut seeking)).transpose()?;
                Kind::Condition(condition, then, other)
            }
            Form::Default(left, right) => {
                Kind::Default(self.part(*left, &mut seeking)?, self.part(*right, &mut seeking)?)
            }
            Form::Coalesce(left, right) => {
                Kind::Coalesce(self.part(*left, &mut seeking)?, self.part(*right, &mut seeking)?)
            }
            Form::Transform(pattern, update, delete) => Kind::Transform(Transform {
                pattern: self.boxed(*pattern)?,
                update: self.boxed(*update)?,
                delete: delete.map(|delete| self.boxed(*delete)).transpose()?,
            }),
            _ => unreachable!("the other forms are resolved by their own functions"),
        };
        let mut node = Node::new(kind, position);
        node.seeking = seeking;
        node.constructed = constructed;
        Ok(node)
    }

    fn part(&mut self, raw: Raw, seeking: &mut Vec<Arc<Slot>>) -> Result<Box<Node>> {
        let node = self.boxed(raw)?;
        seeking.extend(sought(&node));
        Ok(node)
    }

    fn parts(&mut self, raws: Vec<Raw>, seeking: &mut Vec<Arc<Slot>>) -> Result<Vec<Node>> {
        raws.into_iter()
            .map(|raw| self.part(raw, seeking).map(|node| *node))
            .collect()
    }

    fn pairs(&mut self, pairs: Vec<Pair>, position: usize, seeking: &mut Vec<Arc<Slot>>) -> Result<Group> {
        let mut resolved = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            resolved.push((*self.part(key, seeking)?, *self.part(value, seeking)?));
        }
        Ok(Group {
            pairs: resolved,
            position,
        })
    }

    /// `left.right`
    fn map(&mut self, left: Raw, right: Raw) -> Result<Node> {
        let left = self.node(left)?;
        let seeking = if let Kind::Parent(slot) = &left.kind {
            vec![slot.clone()]
        } else {
            Vec::new()
        };
        let mut node = into_path(left);
        node.seeking.extend(seeking);
        let Kind::Path(path) = &mut node.kind else {
            unreachable!("it was made a path")
        };
        let mut rest = self.node(right)?;
        match rest.kind {
            Kind::Path(more) => path.steps.extend(more.steps),
            _ => {
                let predicates = std::mem::take(&mut rest.predicates);
                if !predicates.is_empty() {
                    rest.stages = predicates.into_iter().map(Stage::Filter).collect();
                }
                path.steps.push(rest);
            }
        }
        for step in &mut path.steps {
            literal_step(step)?;
        }
        path.keep_singleton |= path.steps.iter().any(|step| step.keep_array);
        let last = path.steps.len() - 1;
        for index in [0, last] {
            if matches!(path.steps[index].kind, Kind::Array(_)) {
                path.steps[index].constructed = true;
            }
        }
        find_parents(&mut node)?;
        Ok(node)
    }

    /// `left[right]`
    fn filter(&mut self, left: Raw, right: Raw, position: usize) -> Result<Node> {
        let mut node = self.node(left)?;
        if last_step(&mut node).group.is_some() {
            return Err(fault("S0209").at(position));
        }
        let predicate = self.node(right)?;
        let is_path = node.is_path();
        let step = last_step(&mut node);
        if !predicate.seeking.is_empty() {
            for slot in predicate.seeking.clone() {
                if slot.level() == 1 {
                    seek(step, &slot)?;
                } else {
                    slot.climb(-1);
                }
            }
            step.seeking.extend(sought(&predicate));
        }
        if is_path {
            step.stages.push(Stage::Filter(predicate));
        } else {
            step.predicates.push(predicate);
        }
        Ok(node)
    }

    /// `left^(terms)`
    fn order(&mut self, left: Raw, terms: Vec<crate::syntax::Term>, position: usize) -> Result<Node> {
        let mut node = into_path(self.node(left)?);
        let mut seeking = Vec::new();
        let mut resolved = Vec::with_capacity(terms.len());
        for term in terms {
            resolved.push(Term {
                descending: term.descending,
                expression: *self.part(term.expression, &mut seeking)?,
            });
        }
        let mut sort = Node::new(Kind::Sort(resolved), position);
        sort.seeking = seeking;
        if let Kind::Path(path) = &mut node.kind {
            path.steps.push(sort);
        }
        find_parents(&mut node)?;
        Ok(node)
    }

    /// `left{pairs}`
    fn group(&mut self, left: Raw, pairs: Vec<Pair>, position: usize) -> Result<Node> {
        let mut node = self.node(left)?;
        if node.group.is_some() {
            return Err(fault("S0210").at(position));
        }
        node.group = Some(Box::new(self.pairs(pairs, position, &mut Vec::new())?));
        Ok(node)
    }

    /// `left@$name`
    fn focus(&mut self, left: Raw, name: String, position: usize, keep: bool) -> Result<Node> {
        let mut node = self.node(left)?;
        let step = last_step(&mut node);
        if !step.stages.is_empty() || !step.predicates.is_empty() {
            return Err(fault("S0215").at(position));
        }
        if matches!(step.kind, Kind::Sort(_)) {
            return Err(fault("S0216").at(position));
        }
        step.keep_array |= keep;
        step.focus = Some(name);
        step.tuple = true;
        Ok(node)
    }

    /// `left#$name`
    fn index(&mut self, left: Raw, name: String) -> Result<Node> {
        let mut node = self.node(left)?;
        if !node.is_path() {
            let predicates = std::mem::take(&mut node.predicates);
            node.stages.extend(predicates.into_iter().map(Stage::Filter));
            node = into_path(node);
        }
        let step = last_step(&mut node);
        if step.stages.is_empty() {
            step.index = Some(name);
        } else {
            step.stages.push(Stage::Index(name));
        }
        step.tuple = true;
        Ok(node)
    }

    fn negate(&mut self, part: Raw, position: usize) -> Result<Node> {
        let mut part = self.node(part)?;
        if let Kind::Number(value) = &mut part.kind {
            *value = -*value;
            return Ok(part);
        }
        let seeking = sought(&part);
        let mut node = Node::new(Kind::Negate(Box::new(part)), position);
        node.seeking = seeking;
        Ok(node)
    }
}

/// The parents that a part leaves to what is around it.
fn sought(node: &Node) -> Vec<Arc<Slot>> {
    let mut slots = node.seeking.clone();
    if let Kind::Parent(slot) = &node.kind {
        slots.push(slot.clone());
    }
    slots
}

fn is_constructed(node: &Node) -> bool {
    let first = match &node.kind {
        Kind::Path(path) => path.steps[0].constructed,
        _ => false,
    };
    first || node.constructed
}

fn into_path(node: Node) -> Node {
    if node.is_path() {
        return node;
    }
    let position = node.position;
    let path = Path {
        steps: vec![node],
        keep_singleton: false,
    };
    Node::new(Kind::Path(path), position)
}

/// The last step of a path, or what is no path itself.
fn last_step(node: &mut Node) -> &mut Node {
    if node.is_path() {
        let Kind::Path(path) = &mut node.kind else {
            unreachable!("it is a path")
        };
        return path.steps.last_mut().expect("a path has steps");
    }
    node
}

/// Strings are names in a path; other literals have no place there.
fn literal_step(step: &mut Node) -> Result<()> {
    let literal = match &mut step.kind {
        Kind::String(text) => {
            step.kind = Kind::Name(std::mem::take(text));
            return Ok(());
        }
        Kind::Number(value) => Token::Number(*value),
        Kind::Bool(value) => Token::Bool(*value),
        Kind::Null => Token::Null,
        _ => return Ok(()),
    };
    let token = crate::token::Token {
        kind: literal,
        position: step.position,
    };
    Err(fault("S0213").at(step.position).insert("value", token.shown().0))
}

/// Ties the parents that the last step seeks to steps before it; those beyond the start are left to what is around.
fn find_parents(node: &mut Node) -> Result<()> {
    let Kind::Path(path) = &mut node.kind else {
        return Ok(());
    };
    let last = path.steps.len() - 1;
    for slot in sought(&path.steps[last]) {
        let mut next = last;
        while slot.level() > 0 {
            if next == 0 {
                node.seeking.push(slot.clone());
                break;
            }
            next -= 1;
            // Steps in a row that bind the context are one.
            while next > 0 && path.steps[next].focus.is_some() && path.steps[next - 1].focus.is_some() {
                next -= 1;
            }
            seek(&mut path.steps[next], &slot)?;
        }
    }
    Ok(())
}

/// Goes one step up with `slot`, through `node`.
fn seek(node: &mut Node, slot: &Arc<Slot>) -> Result<()> {
    match &mut node.kind {
        Kind::Name(_) | Kind::Wildcard => {
            slot.climb(-1);
            if slot.level() == 0 {
                if let Some(own) = &node.ancestor {
                    slot.take_label(own);
                }
                node.ancestor = Some(slot.clone());
                node.tuple = true;
            }
        }
        Kind::Parent(_) => slot.climb(1),
        Kind::Block(parts) => {
            if let Some(last) = parts.last_mut() {
                node.tuple = true;
                seek(last, slot)?;
            }
        }
        Kind::Path(path) => {
            node.tuple = true;
            for (index, step) in path.steps.iter_mut().rev().enumerate() {
                if index == 0 || slot.level() > 0 {
                    seek(step, slot)?;
                }
            }
        }
        _ => return Err(fault("S0217").at(node.position).token(node.word())),
    }
    Ok(())
}

/// Marks the calls that are a body's last act.
fn mark_tail(node: &mut Node) {
    let bare = node.predicates.is_empty() && node.group.is_none() && !node.keep_array;
    match &mut node.kind {
        Kind::Function(_) if node.predicates.is_empty() => node.tail = true,
        Kind::Condition(_, then, other) if bare => {
            mark_tail(then);
            if let Some(other) = other {
                mark_tail(other);
            }
        }
        Kind::Default(_, other) | Kind::Coalesce(_, other) if bare => mark_tail(other),
        Kind::Block(parts) if bare => {
            if let Some(last) = parts.last_mut() {
                mark_tail(last);
            }
        }
        _ => {}
    }
}
