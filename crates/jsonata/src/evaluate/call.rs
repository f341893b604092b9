//! Functions: invoked, chained, applied in part.

use crate::{
    error::{Fault, Result, fault},
    function::Function,
    run::{Frame, Key, Run},
    tree::{Call, Kind, Lambda, Node},
    value::{Array, Marks, Value},
};

use super::settle;

/// What compiling a regular expression costs for each of its slashes, in steps.
const COMPILING: usize = 5_000;

/// By what name, and where, something is invoked: for messages.
#[derive(Clone, Copy, Default)]
pub struct Callee<'a> {
    pub name: Option<&'a str>,
    pub position: Option<usize>,
}

impl Callee<'_> {
    /// Of the calls that a fault leaves, the innermost gives the name and the outermost the position.
    fn tell(self, mut fault: Box<Fault>) -> Box<Fault> {
        fault.position = self.position.or(fault.position);
        self.fill(fault)
    }

    /// Tells what is not known yet.
    fn fill(self, mut fault: Box<Fault>) -> Box<Fault> {
        fault.token = fault.token.or_else(|| self.name.map(str::to_owned));
        fault.position = fault.position.or(self.position);
        fault
    }
}

impl<'a> Run<'a> {
    /// `procedure(arguments)`, with one more argument before them from `~>`.
    pub(super) fn call(
        &self,
        call: &'a Call,
        position: usize,
        first: Option<Value<'a>>,
        input: Value<'a>,
        frame: &'a Frame<'a>,
    ) -> Result<Value<'a>> {
        let procedure = self.eval(&call.procedure, input, frame)?;
        if procedure.is_undefined() {
            self.forgotten_dollar(call, "T1005", position, frame)?;
        }
        let mut args = Vec::with_capacity(call.arguments.len() + 1);
        args.extend(first);
        for argument in &call.arguments {
            args.push(self.eval(argument, input, frame)?);
        }
        let callee = Callee {
            name: call.procedure.name(),
            position: Some(position),
        };
        match procedure {
            Value::Function(Function::Native(native)) if native.name == "eval" => {
                let result = native.signature.validate(self, &args, input);
                let result = result.and_then(|args| self.eval_text(&args, input, frame));
                result.map_err(|fault| callee.tell(fault))
            }
            _ => self.apply(procedure, &args, input, callee),
        }
    }

    /// `$eval`: an expression in a text, with the names that are known here.
    fn eval_text(&self, args: &[Value<'a>], input: Value<'a>, frame: &'a Frame<'a>) -> Result<Value<'a>> {
        let (Value::String(text), Some(parsed)) = (args[0], self.parsed) else {
            return Ok(Value::Undefined);
        };
        let input = match args.get(1) {
            None | Some(Value::Undefined) => input,
            Some(focus) => self.whole(*focus)?,
        };
        // A regular expression in it is compiled: that is by far the dearest of what may stand there.
        let slashes = text.bytes().filter(|byte| *byte == b'/').count();
        self.tick((100 + 10 * text.len() + COMPILING * slashes) as u64)?;
        self.charge(text.len().saturating_mul(size_of::<Node>()))?;
        let tree = crate::syntax::parse(text).and_then(crate::resolve::resolve);
        let tree = tree.map_err(|cause| fault("D3120").text(&cause.message()))?;
        self.eval(parsed.keep(tree), input, frame)
            .map_err(|cause| match cause.code.as_bytes() {
                [b'U', ..] => cause,
                _ => fault("D3121").text(&cause.message()),
            })
    }

    /// A value as the whole input: an array is one item then.
    pub fn whole(&self, value: Value<'a>) -> Result<Value<'a>> {
        match value {
            Value::Array(items) if !items.marks.sequence => {
                let wrapper = Array::new(self.slice(&[value])?);
                Ok(Value::Array(wrapper.marked(Marks {
                    sequence: true,
                    wrapper: true,
                    ..Marks::default()
                })))
            }
            other => Ok(other),
        }
    }

    /// Helps someone who wrote `sum(…)` for `$sum(…)`.
    fn forgotten_dollar(
        &self,
        call: &'a Call,
        code: &'static str,
        position: usize,
        frame: &'a Frame<'a>,
    ) -> Result<()> {
        let Kind::Path(path) = &call.procedure.kind else {
            return Ok(());
        };
        let Some(name) = path.steps[0].name() else {
            return Ok(());
        };
        if self.truth_of_any(self.lookup(frame, Key::Name(name))?) {
            return Err(fault(code).at(position).token(name));
        }
        Ok(())
    }

    /// JavaScript's truth: only false, null, 0 and the empty text are not true.
    fn truth_of_any(&self, value: Value<'a>) -> bool {
        match value {
            Value::Undefined | Value::Null => false,
            Value::Bool(value) => value,
            Value::Number(number, _) => number != 0.0 && !number.is_nan(),
            Value::String(text) => !text.is_empty(),
            _ => true,
        }
    }

    /// Invokes a function; calls in tail position inside of it are made here, one after the other.
    pub fn apply(
        &self,
        procedure: Value<'a>,
        args: &[Value<'a>],
        context: Value<'a>,
        callee: Callee<'_>,
    ) -> Result<Value<'a>> {
        let fill = |fault| callee.fill(fault);
        let mut result = self
            .invoke(procedure, args, context)
            .map_err(|fault| callee.tell(fault))?;
        while let Value::Function(Function::Tail {
            call, input, frame, ..
        }) = result
        {
            let next = self.eval(&call.procedure, *input, frame).map_err(fill)?;
            let args = call
                .arguments
                .iter()
                .map(|argument| self.eval(argument, *input, frame));
            let args = args.collect::<Result<Vec<_>>>().map_err(fill)?;
            let inner = Callee {
                name: call.procedure.name(),
                position: Some(call.procedure.position),
            };
            result = self
                .invoke(next, &args, context)
                .map_err(|fault| inner.tell(fault))
                .map_err(fill)?;
        }
        Ok(result)
    }

    /// Calls a function that was given to another: it has no context.
    pub fn apply_to(&self, function: Value<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
        self.tick(1)?;
        self.apply(function, args, Value::Null, Callee::default())
    }

    fn invoke(&self, procedure: Value<'a>, args: &[Value<'a>], context: Value<'a>) -> Result<Value<'a>> {
        let Value::Function(function) = procedure else {
            return Err(fault("T1006"));
        };
        self.charge(size_of_val(args))?;
        match function {
            Function::Native(native) => {
                let args = native.signature.validate(self, args, context)?;
                (native.run)(self, &args)
            }
            Function::Lambda { lambda, input, frame } => {
                let valid;
                let args = match &lambda.signature {
                    Some(signature) => {
                        valid = signature.validate(self, args, context)?;
                        &valid[..]
                    }
                    None => args,
                };
                self.enter_lambda(lambda, *input, frame, args)
            }
            Function::Partial { function, given } => {
                let mut rest = args.iter().copied();
                let args = given
                    .iter()
                    .map(|arg| arg.unwrap_or_else(|| rest.next().unwrap_or(Value::Undefined)));
                let args: Vec<Value> = args.collect();
                if let Function::Lambda { lambda, input, frame } = function {
                    // What is applied in part has no signature any more.
                    return self.enter_lambda(lambda, *input, frame, &args);
                }
                self.deeper(|| self.invoke(Value::Function(function), &args, context))
            }
            Function::Chain(first, second) => {
                let value = self.deeper(|| {
                    self.apply(
                        *first,
                        args.get(..1).unwrap_or(args),
                        Value::Null,
                        Callee::default(),
                    )
                })?;
                self.deeper(|| self.invoke(*second, &[settle(value, false)], Value::Null))
            }
            Function::Transform {
                transform,
                frame,
                position,
            } => self.transform(
                transform,
                args.first().copied().unwrap_or(Value::Undefined),
                frame,
                *position,
            ),
            Function::Regex(pattern, position) => self.match_first(pattern, *position, args),
            Function::Next(cursor) => self.match_next(cursor),
            Function::Tail { .. } => Err(fault("T1006")),
        }
    }

    fn enter_lambda(
        &self,
        lambda: &'a Lambda,
        input: Value<'a>,
        frame: &'a Frame<'a>,
        args: &[Value<'a>],
    ) -> Result<Value<'a>> {
        let scope = self.frame(Some(frame))?;
        for (index, name) in lambda.parameters.iter().enumerate() {
            self.bind(scope, name, args.get(index).copied().unwrap_or(Value::Undefined))?;
        }
        self.eval(&lambda.body, input, scope)
    }

    /// `left ~> right`
    pub(super) fn chain(
        &self,
        node: &'a Node,
        [left, right]: [&'a Node; 2],
        input: Value<'a>,
        frame: &'a Frame<'a>,
    ) -> Result<Value<'a>> {
        let value = self.eval(left, input, frame)?;
        // A filter or a group behind the call is without effect in the reference, too.
        if let Kind::Function(call) = &right.kind {
            return self.call(call, right.position, Some(value), input, frame);
        }
        let function = self.eval(right, input, frame)?;
        if !function.is_function() {
            return Err(fault("T2006").at(node.position).value(function));
        }
        match value {
            Value::Function(_) => self.function(Function::Chain(value, function)),
            _ => self.apply(function, &[value], Value::Null, Callee::default()),
        }
    }

    /// `procedure(a, ?, b)`
    pub(super) fn partial(
        &self,
        call: &'a Call,
        position: usize,
        input: Value<'a>,
        frame: &'a Frame<'a>,
    ) -> Result<Value<'a>> {
        let mut given = Vec::with_capacity(call.arguments.len());
        for argument in &call.arguments {
            given.push(match argument.kind {
                Kind::Placeholder => None,
                _ => Some(self.eval(argument, input, frame)?),
            });
        }
        let procedure = self.eval(&call.procedure, input, frame)?;
        if procedure.is_undefined() {
            self.forgotten_dollar(call, "T1007", position, frame)?;
        }
        let Value::Function(function) = procedure else {
            let fault = fault("T1008").at(position);
            return Err(match call.procedure.name() {
                Some(name) => fault.token(name),
                None => fault,
            });
        };
        if let Some(count) = function.parameters() {
            given.resize(count, Some(Value::Undefined));
        }
        let given = self.slice(&given)?;
        self.function(Function::Partial { function, given })
    }
}
