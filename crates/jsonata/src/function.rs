//! Functions as values, and the table of those that are built in.

mod digest;
mod figures;
mod higher;
mod list;
mod math;
mod object;
mod search;
mod states;
mod strings;
mod url;

use std::{collections::HashMap, sync::LazyLock};

use crate::{
    error::Result,
    pattern::Pattern,
    run::{Frame, Run},
    signature::Signature,
    tree::{Call, Lambda, Transform},
    value::Value,
};

pub use figures::regular;
pub use search::Cursor;

pub enum Function<'a> {
    Native(&'static Native),
    Lambda {
        lambda: &'a Lambda,
        input: Value<'a>,
        frame: &'a Frame<'a>,
    },
    /// A call that its caller's loop is to make.
    Tail {
        call: &'a Call,
        input: Value<'a>,
        frame: &'a Frame<'a>,
    },
    /// Arguments that are there already, and gaps.
    Partial {
        function: &'a Function<'a>,
        given: &'a [Option<Value<'a>>],
    },
    Chain(Value<'a>, Value<'a>),
    Transform {
        transform: &'a Transform,
        frame: &'a Frame<'a>,
        position: usize,
    },
    Regex(&'a Pattern, usize),
    /// The `next` of a match.
    Next(Cursor<'a>),
}

pub struct Native {
    pub name: &'static str,
    pub signature: Signature,
    pub run: Body,
}

pub type Body = for<'a> fn(&Run<'a>, &[Value<'a>]) -> Result<Value<'a>>;

type Entry = (&'static str, &'static str, Body);

impl Function<'_> {
    /// How many arguments the function declares; none if it takes any number.
    pub fn parameters(&self) -> Option<usize> {
        match self {
            Function::Native(native) if native.name == "zip" => None,
            Function::Native(native) => Some(native.signature.len()),
            Function::Lambda { lambda, .. } => Some(lambda.parameters.len()),
            Function::Partial { given, .. } => Some(given.iter().filter(|arg| arg.is_none()).count()),
            Function::Chain(..) | Function::Transform { .. } => Some(1),
            Function::Regex(..) => Some(2),
            Function::Tail { .. } | Function::Next(_) => Some(0),
        }
    }

    /// How many arguments functions of higher order give it.
    pub fn arity(&self) -> usize {
        match self {
            Function::Native(native) if native.name == "string" => 1,
            _ => self.parameters().unwrap_or(0),
        }
    }
}

/// The built-in function of that name, if this evaluation offers it.
pub fn native(name: &str, run: &Run<'_>) -> Option<&'static Native> {
    if run.states
        && let Some(native) = STATES.get(name)
    {
        return Some(native);
    }
    NATIVES
        .get(name)
        .filter(|native| native.name != "eval" || run.parsed.is_some())
}

/// Whether a name is that of a built-in function, those of Step Functions included.
pub fn is_native(name: &str) -> bool {
    NATIVES.contains_key(name) || STATES.contains_key(name)
}

type Table = HashMap<&'static str, Native>;

static NATIVES: LazyLock<Table> = LazyLock::new(|| {
    let tables: [&[Entry]; 8] = [
        strings::TABLE,
        search::TABLE,
        url::TABLE,
        math::TABLE,
        list::TABLE,
        object::TABLE,
        higher::TABLE,
        crate::date::TABLE,
    ];
    tables.into_iter().flatten().map(native_of).collect()
});

static STATES: LazyLock<Table> = LazyLock::new(|| states::TABLE.iter().map(native_of).collect());

fn native_of(&(name, signature, run): &Entry) -> (&'static str, Native) {
    let signature =
        Signature::parse(signature).expect("the signatures of built-in functions are well formed");
    (name, Native { name, signature, run })
}

/// An argument; undefined when it was not given.
pub fn arg<'a>(args: &[Value<'a>], index: usize) -> Value<'a> {
    args.get(index).copied().unwrap_or(Value::Undefined)
}

pub fn text_arg<'a>(args: &[Value<'a>], index: usize) -> Option<&'a str> {
    match arg(args, index) {
        Value::String(text) => Some(text),
        _ => None,
    }
}

pub fn number_arg(args: &[Value<'_>], index: usize) -> Option<f64> {
    match arg(args, index) {
        Value::Number(number, _) => Some(number),
        _ => None,
    }
}
