//! What of a definition is drawn: its states, what is inside them, and the ways between them with their reasons.

use serde_json::{Map, Value};

use super::{Error, STATES};

/// Characters of a name or of a reason that are shown.
const WIDTH: usize = 32;
/// Levels of branches inside branches that are drawn; deeper ones are left out.
const DEPTH: usize = 12;

/// States that belong together.
#[derive(Debug)]
pub struct Program {
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
}

#[derive(Debug)]
pub struct Node {
    pub kind: Kind,
    /// As in the definition, whole; empty for what is not a state.
    pub name: String,
    /// What is shown.
    pub title: String,
    pub inside: Vec<Program>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Start,
    End,
    /// A state and its type.
    State(String),
    /// The reason of an edge; it stands on the edge.
    Label,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
}

/// Reads the whole machine.
pub fn program(definition: &Value) -> Result<Program, Error> {
    let mut left = STATES;
    let program = read(definition, true, 0, &mut left)?;
    program.ok_or(Error::Empty)
}

fn read(value: &Value, outermost: bool, depth: usize, left: &mut usize) -> Result<Option<Program>, Error> {
    let Some(states) = value["States"].as_object().filter(|states| !states.is_empty()) else {
        return Ok(None);
    };
    *left = left.checked_sub(states.len()).ok_or(Error::Large)?;
    let mut program = Program {
        nodes: Vec::new(),
        edges: Vec::new(),
    };
    if outermost {
        program.add(Kind::Start, "start");
    }
    let first = program.nodes.len();
    for (name, state) in states {
        let inside = match depth < DEPTH {
            true => inside(state, depth, left)?,
            false => Vec::new(),
        };
        let kind = Kind::State(
            state["Type"]
                .as_str()
                .unwrap_or("?")
                .chars()
                .take(WIDTH)
                .collect(),
        );
        let at = program.add(kind, name);
        program.nodes[at].name.clone_from(name);
        program.nodes[at].inside = inside;
    }
    let find = |name: &Value| {
        let name = name.as_str()?;
        states.keys().position(|known| known == name).map(|at| first + at)
    };
    if let (true, Some(start)) = (outermost, find(&value["StartAt"])) {
        program.edge(0, start);
    }
    let end = outermost.then(|| program.add(Kind::End, "end"));
    for (at, state) in states.values().enumerate() {
        for (reason, target) in ways(state) {
            if let Some(to) = find(target) {
                *left = left
                    .checked_sub(usize::from(!reason.is_empty()))
                    .ok_or(Error::Large)?;
                program.way(first + at, to, &reason);
            }
        }
        if let (true, Some(end)) = (ends(state), end) {
            program.edge(first + at, end);
        }
    }
    Ok(Some(program))
}

fn inside(state: &Value, depth: usize, left: &mut usize) -> Result<Vec<Program>, Error> {
    let branches = state["Branches"].as_array().into_iter().flatten();
    let processors = ["ItemProcessor", "Iterator"]
        .into_iter()
        .filter_map(|name| state.get(name));
    let mut programs = Vec::new();
    for program in branches.chain(processors) {
        programs.extend(read(program, false, depth + 1, left)?);
    }
    Ok(programs)
}

fn ends(state: &Value) -> bool {
    state["End"] == true || state["Type"] == "Succeed" || state["Type"] == "Fail"
}

/// The ways out of a state: why they are taken, and where they lead.
fn ways(state: &Value) -> Vec<(String, &Value)> {
    let mut ways = Vec::new();
    ways.extend(state.get("Next").map(|next| (String::new(), next)));
    let choices = state["Choices"].as_array().into_iter().flatten();
    ways.extend(choices.map(|rule| (condition(rule), &rule["Next"])));
    ways.extend(
        state
            .get("Default")
            .map(|default| ("default".to_owned(), default)),
    );
    for catcher in state["Catch"].as_array().into_iter().flatten() {
        let errors = catcher["ErrorEquals"].as_array().into_iter().flatten();
        let names: Vec<_> = errors.filter_map(Value::as_str).collect();
        ways.push((format!("⚡ {}", names.join(", ")), &catcher["Next"]));
    }
    ways
}

/// A rule of a Choice in few words.
fn condition(rule: &Value) -> String {
    let Some(members) = rule.as_object() else {
        return String::new();
    };
    if let Some(condition) = members.get("Condition") {
        let text = condition
            .as_str()
            .map_or_else(|| condition.to_string(), str::to_owned);
        let body = text.strip_prefix("{%").and_then(|text| text.strip_suffix("%}"));
        return body.unwrap_or(&text).trim().to_owned();
    }
    if let Some(inner) = members.get("Not") {
        return format!("not ({})", condition(inner));
    }
    for (name, word) in [("And", " and "), ("Or", " or ")] {
        if let Some(rules) = members.get(name).and_then(Value::as_array) {
            let parts: Vec<_> = rules.iter().take(4).map(condition).collect();
            return parts.join(word);
        }
    }
    comparison(members)
}

fn comparison(members: &Map<String, Value>) -> String {
    let variable = members
        .get("Variable")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let operator = members
        .iter()
        .find(|(name, _)| !["Variable", "Next", "Comment", "Assign", "Output"].contains(&name.as_str()));
    let Some((name, value)) = operator else {
        return variable.to_owned();
    };
    let value = match value {
        Value::String(text) if name.ends_with("Path") => text.clone(),
        other => other.to_string(),
    };
    let name = name.strip_suffix("Path").unwrap_or(name);
    let sign = [
        ("LessThanEquals", "≤"),
        ("GreaterThanEquals", "≥"),
        ("LessThan", "<"),
        ("GreaterThan", ">"),
        ("Equals", "="),
        ("Matches", "~"),
    ];
    match sign.iter().find(|(suffix, _)| name.ends_with(suffix)) {
        Some((_, sign)) => format!("{variable} {sign} {value}"),
        None => {
            let word = name.strip_prefix("Is").unwrap_or(name).to_lowercase();
            let is = if value == "false" { "is not" } else { "is" };
            format!("{variable} {is} {word}")
        }
    }
}

impl Program {
    fn add(&mut self, kind: Kind, title: &str) -> usize {
        self.nodes.push(Node {
            kind,
            name: String::new(),
            title: short(title),
            inside: Vec::new(),
        });
        self.nodes.len() - 1
    }

    fn edge(&mut self, from: usize, to: usize) {
        let edge = Edge { from, to };
        if !self.edges.contains(&edge) {
            self.edges.push(edge);
        }
    }

    /// An edge, over its reason when it has one. A way from a state to itself needs something to go round.
    fn way(&mut self, from: usize, to: usize, reason: &str) {
        if reason.is_empty() && from != to {
            return self.edge(from, to);
        }
        let label = self.add(Kind::Label, if reason.is_empty() { "again" } else { reason });
        self.edge(from, label);
        self.edge(label, to);
    }
}

/// One line without control characters, cut at [`WIDTH`].
fn short(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match clean.chars().count() > WIDTH {
        true => clean.chars().take(WIDTH - 1).chain(['…']).collect(),
        false => clean,
    }
}
