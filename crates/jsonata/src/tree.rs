//! The tree that is evaluated: paths are lists of steps, and predicates, groups and bindings hang at what they belong to.

use std::sync::{
    Arc,
    atomic::{AtomicI32, AtomicU32, Ordering},
};

use crate::{pattern::Pattern, signature::Signature};

pub struct Node {
    pub kind: Kind,
    pub position: usize,
    /// Filters on the node's whole value.
    pub predicates: Vec<Node>,
    /// Filters and indexes on what the node gives as a step of a path.
    pub stages: Vec<Stage>,
    pub group: Option<Box<Group>>,
    pub keep_array: bool,
    /// An array constructor whose array is not flattened into a path.
    pub constructed: bool,
    /// A step after which a path carries tuples; for a path and a block: gives tuples to the path around it.
    pub tuple: bool,
    pub focus: Option<String>,
    pub index: Option<String>,
    /// Whose parent `%` wants: the context of this step.
    pub ancestor: Option<Arc<Slot>>,
    /// Parents that were not found inside.
    pub seeking: Vec<Arc<Slot>>,
    /// A call in tail position: the caller's loop makes it.
    pub tail: bool,
}

pub enum Kind {
    Path(Path),
    Name(String),
    Variable(String),
    String(String),
    Number(f64),
    Bool(bool),
    Null,
    Regex(Pattern),
    Wildcard,
    Descendant,
    Parent(Arc<Slot>),
    Placeholder,
    Binary(&'static str, Box<Node>, Box<Node>),
    Apply(Box<Node>, Box<Node>),
    Bind(String, Box<Node>),
    Sort(Vec<Term>),
    Negate(Box<Node>),
    Array(Vec<Node>),
    Object(Group),
    Function(Call),
    Partial(Call),
    Lambda(Lambda),
    Block(Vec<Node>),
    Condition(Box<Node>, Box<Node>, Option<Box<Node>>),
    Default(Box<Node>, Box<Node>),
    Coalesce(Box<Node>, Box<Node>),
    Transform(Transform),
}

#[derive(Default)]
pub struct Path {
    pub steps: Vec<Node>,
    pub keep_singleton: bool,
}

pub enum Stage {
    Filter(Node),
    Index(String),
}

pub struct Term {
    pub descending: bool,
    pub expression: Node,
}

pub struct Group {
    pub pairs: Vec<(Node, Node)>,
    pub position: usize,
}

pub struct Call {
    pub procedure: Box<Node>,
    pub arguments: Vec<Node>,
}

pub struct Lambda {
    pub parameters: Vec<String>,
    pub signature: Option<Signature>,
    pub body: Box<Node>,
}

pub struct Transform {
    pub pattern: Box<Node>,
    pub update: Box<Node>,
    pub delete: Option<Box<Node>>,
}

/// What ties a `%` to the step whose context it means. Both hold it; the step's label may still change while the tree
/// is made.
pub struct Slot {
    label: AtomicU32,
    level: AtomicI32,
}

impl Slot {
    pub fn new(label: u32) -> Arc<Slot> {
        Arc::new(Slot {
            label: AtomicU32::new(label),
            level: AtomicI32::new(1),
        })
    }

    pub fn label(&self) -> u32 {
        self.label.load(Ordering::Relaxed)
    }

    pub fn take_label(&self, other: &Slot) {
        self.label.store(other.label(), Ordering::Relaxed);
    }

    /// How many steps up the parent still is.
    pub fn level(&self) -> i32 {
        self.level.load(Ordering::Relaxed)
    }

    pub fn climb(&self, by: i32) {
        self.level.fetch_add(by, Ordering::Relaxed);
    }
}

impl Node {
    pub fn new(kind: Kind, position: usize) -> Node {
        Node {
            kind,
            position,
            predicates: Vec::new(),
            stages: Vec::new(),
            group: None,
            keep_array: false,
            constructed: false,
            tuple: false,
            focus: None,
            index: None,
            ancestor: None,
            seeking: Vec::new(),
            tail: false,
        }
    }

    pub fn is_path(&self) -> bool {
        matches!(self.kind, Kind::Path(_))
    }

    /// The name by which messages call what is invoked.
    pub fn name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Path(path) => path.steps.first().and_then(Node::name),
            Kind::Name(name) | Kind::Variable(name) | Kind::String(name) => Some(name),
            Kind::Binary(operator, ..) => Some(operator),
            Kind::Wildcard => Some("*"),
            Kind::Descendant => Some("**"),
            Kind::Function(_) | Kind::Partial(_) => Some("("),
            Kind::Array(_) => Some("["),
            Kind::Object(_) => Some("{"),
            Kind::Negate(_) => Some("-"),
            Kind::Bind(..) => Some(":="),
            Kind::Apply(..) => Some("~>"),
            _ => None,
        }
    }

    /// The reference's word for the kind.
    pub fn word(&self) -> &'static str {
        match self.kind {
            Kind::Path(_) => "path",
            Kind::Name(_) => "name",
            Kind::Variable(_) => "variable",
            Kind::String(_) => "string",
            Kind::Number(_) => "number",
            Kind::Bool(_) | Kind::Null => "value",
            Kind::Regex(_) => "regex",
            Kind::Wildcard => "wildcard",
            Kind::Descendant => "descendant",
            Kind::Parent(_) => "parent",
            Kind::Placeholder => "operator",
            Kind::Binary(..) => "binary",
            Kind::Apply(..) => "apply",
            Kind::Bind(..) => "bind",
            Kind::Sort(_) => "sort",
            Kind::Negate(_) | Kind::Array(_) | Kind::Object(_) => "unary",
            Kind::Function(_) => "function",
            Kind::Partial(_) => "partial",
            Kind::Lambda(_) => "lambda",
            Kind::Block(_) => "block",
            Kind::Condition(..) | Kind::Default(..) | Kind::Coalesce(..) => "condition",
            Kind::Transform(_) => "transform",
        }
    }
}
