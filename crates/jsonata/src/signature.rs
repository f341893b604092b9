//! Signatures of functions, such as `<s-n?:s>`: which arguments fit, and which are filled in from the context.

use crate::{
    error::{Fault, Result, fault},
    run::Run,
    value::Value,
};

#[derive(Clone, Debug, Default)]
struct Parameter {
    /// The symbols that fit; `m` is a missing value.
    fits: String,
    symbol: char,
    subtype: Option<String>,
    optional: bool,
    repeated: bool,
    context: bool,
}

#[derive(Clone, Debug)]
pub struct Signature(Vec<Parameter>);

/// All but functions and missing values are JSON.
const JSON: &str = "asnblom";
const ANY: &str = "asnblfom";

impl Signature {
    /// Reads a signature with its angle brackets. A fault's position is an offset in it.
    pub fn parse(text: &str) -> Result<Signature> {
        let symbols: Vec<char> = text.chars().collect();
        let mut parameters: Vec<Parameter> = Vec::new();
        let mut at = 1;
        while let Some(symbol) = symbols.get(at).copied() {
            match symbol {
                ':' => break,
                's' | 'n' | 'b' | 'l' | 'o' => parameters.push(Parameter::new(symbol, &format!("{symbol}m"))),
                'a' | 'x' => parameters.push(Parameter::new(symbol, ANY)),
                'f' => parameters.push(Parameter::new(symbol, "f")),
                'j' => parameters.push(Parameter::new(symbol, JSON)),
                '(' => {
                    let end = closing(&symbols, at, '(', ')');
                    let choice: String = symbols[at + 1..end].iter().collect();
                    if choice.contains('<') {
                        return Err(fault("S0402").at(at).text(&choice));
                    }
                    parameters.push(Parameter::new(symbol, &(choice + "m")));
                    at = end;
                }
                '<' => {
                    let end = closing(&symbols, at, '<', '>');
                    match parameters
                        .last_mut()
                        .filter(|last| matches!(last.symbol, 'a' | 'f'))
                    {
                        Some(last) => last.subtype = Some(symbols[at + 1..end].iter().collect()),
                        None => return Err(fault("S0401").at(at)),
                    }
                    at = end;
                }
                _ => {
                    if let Some(last) = parameters.last_mut() {
                        last.context |= symbol == '-';
                        last.optional |= matches!(symbol, '-' | '?');
                        last.repeated |= symbol == '+';
                    }
                }
            }
            at += 1;
        }
        Ok(Signature(parameters))
    }

    /// How many parameters there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The arguments as the function takes them, or what is wrong with them.
    pub fn validate<'a>(
        &self,
        run: &Run<'a>,
        args: &[Value<'a>],
        context: Value<'a>,
    ) -> Result<Vec<Value<'a>>> {
        let supplied: Vec<char> = args.iter().map(|arg| symbol(*arg)).collect();
        run.tick((supplied.len() / 8 * self.0.len()) as u64)?;
        let Some(counts) = assign(&self.0, &supplied, true) else {
            return Err(self.mismatch(args, &supplied));
        };
        let mut valid = Vec::with_capacity(args.len().max(self.0.len()));
        // Where the argument is, and where its symbol: the reference lets an optional parameter that was skipped use up an
        // argument all the same.
        let (mut at, mut start) = (0, 0);
        for (parameter, count) in self.0.iter().zip(counts) {
            if count == 0 {
                if !parameter.context {
                    valid.push(args.get(at).copied().unwrap_or(Value::Undefined));
                    at += 1;
                } else if parameter.fits.contains(symbol(context)) {
                    valid.push(context);
                } else {
                    return Err(about("T0411", at, context));
                }
            }
            for _ in 0..count {
                let arg = args.get(at).copied().unwrap_or(Value::Undefined);
                valid.push(if parameter.symbol == 'a' {
                    parameter.array(run, arg, &supplied[start..start + count], at)?
                } else {
                    arg
                });
                at += 1;
            }
            start += count;
        }
        Ok(valid)
    }

    /// Names the first argument that no parameter takes.
    fn mismatch(&self, args: &[Value<'_>], supplied: &[char]) -> Box<Fault> {
        let mut good = 0;
        for end in 1..=self.0.len() {
            match assign(&self.0[..end], supplied, false) {
                Some(counts) => good = counts.iter().sum(),
                None => break,
            }
        }
        about("T0410", good, args.get(good).copied().unwrap_or(Value::Undefined))
    }
}

fn about(code: &'static str, index: usize, value: Value<'_>) -> Box<Fault> {
    fault(code).value(value).insert("index", (index + 1).to_string())
}

impl Parameter {
    fn new(symbol: char, fits: &str) -> Parameter {
        Parameter {
            fits: fits.to_owned(),
            symbol,
            ..Parameter::default()
        }
    }

    /// An argument for an array: checked against the type of its items; what is no array becomes one.
    fn array<'a>(&self, run: &Run<'a>, arg: Value<'a>, matched: &[char], index: usize) -> Result<Value<'a>> {
        if arg.is_undefined() {
            return Ok(arg);
        }
        if let Some(subtype) = &self.subtype {
            let first = subtype.chars().next();
            let fits = match arg {
                Value::Array(items) => {
                    run.tick(items.len() as u64 / 8)?;
                    let mut symbols = items.iter().map(symbol);
                    symbols
                        .next()
                        .is_none_or(|one| Some(one) == first && symbols.all(|other| other == one))
                }
                _ => matched.iter().copied().eq(subtype.chars()),
            };
            if !fits {
                return Err(about("T0412", index, arg).insert("type", plural(subtype)));
            }
        }
        match arg {
            Value::Array(_) => Ok(arg),
            _ => run.array(&[arg]),
        }
    }
}

fn plural(subtype: &str) -> String {
    let name = match subtype {
        "a" => "arrays",
        "b" => "booleans",
        "f" => "functions",
        "n" => "numbers",
        "o" => "objects",
        "s" => "strings",
        _ => return "undefined".to_owned(),
    };
    crate::error::quote(name)
}

/// Where the bracket at `start` closes; the end when it does not.
fn closing(symbols: &[char], start: usize, open: char, close: char) -> usize {
    let mut depth = 0;
    for (index, symbol) in symbols.iter().enumerate().skip(start) {
        if *symbol == open {
            depth += 1;
        } else if *symbol == close {
            depth -= 1;
            if depth == 0 {
                return index;
            }
        }
    }
    symbols.len()
}

fn symbol(value: Value<'_>) -> char {
    match value {
        Value::Undefined => 'm',
        Value::Null => 'l',
        Value::Bool(_) => 'b',
        Value::Number(..) => 'n',
        Value::String(_) => 's',
        Value::Array(_) | Value::Tuples(_) => 'a',
        Value::Object(_) => 'o',
        Value::Function(_) => 'f',
    }
}

/// How many arguments each parameter takes, the earlier ones as many as they can; none if it does not work out. With
/// `all`, every argument must be taken.
fn assign(parameters: &[Parameter], supplied: &[char], all: bool) -> Option<Vec<usize>> {
    let (rows, columns) = (parameters.len() + 1, supplied.len() + 1);
    // Whether the parameters from a row on can take the arguments from a column on.
    let mut works = vec![false; rows * columns];
    for column in 0..columns {
        works[(rows - 1) * columns + column] = !all || column == columns - 1;
    }
    let fits = |row: usize, column: usize| {
        supplied
            .get(column)
            .is_some_and(|symbol| parameters[row].fits.contains(*symbol))
    };
    let continues = |works: &[bool], row: usize, column: usize| {
        let again = parameters[row].repeated && works[row * columns + column];
        again || works[(row + 1) * columns + column]
    };
    for row in (0..rows - 1).rev() {
        for column in (0..columns).rev() {
            let skipped = parameters[row].optional && works[(row + 1) * columns + column];
            let taken = fits(row, column) && continues(&works, row, column + 1);
            works[row * columns + column] = skipped || taken;
        }
    }
    if !works[0] {
        return None;
    }
    let mut counts = Vec::with_capacity(parameters.len());
    let mut column = 0;
    for (row, parameter) in parameters.iter().enumerate() {
        let mut count = 0;
        while fits(row, column) && continues(&works, row, column + 1) {
            count += 1;
            column += 1;
            if !parameter.repeated {
                break;
            }
        }
        counts.push(count);
    }
    Some(counts)
}
