//! One evaluation: its arena, its counters, its limits, and the frames in which variables live.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
};

use bumpalo::Bump;

use crate::{
    error::{Result, fault},
    function::{Function, Native},
    tree::Node,
    value::{Array, Built, Entries, Object, SHORT, Value},
};

/// What one evaluation may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nodes of the expression evaluated and values walked.
    pub steps: u64,
    /// Nesting of evaluations, counted as the reference counts it: a call takes about three.
    pub depth: usize,
    /// Memory made by the evaluation, in bytes; nothing is given back before its end.
    pub bytes: usize,
}

impl Default for Limits {
    /// About a second and 128 MiB on a slow machine; about 1,000 calls that are not tail calls.
    fn default() -> Limits {
        Limits {
            steps: 10_000_000,
            depth: 3_000,
            bytes: 128 << 20,
        }
    }
}

/// Arrays and objects may not be nested deeper than this: those who read them recurse.
pub const NESTING: usize = 200;

pub struct Run<'a> {
    pub arena: &'a Bump,
    pub limits: Limits,
    /// Milliseconds since the epoch, the same throughout.
    pub now: f64,
    /// A list of the expressions that `$eval` parsed; none when `$eval` is not offered.
    pub parsed: Option<&'a Parsed>,
    pub states: bool,
    natives: RefCell<HashMap<&'static str, Value<'a>>>,
    random: Cell<u64>,
    steps: Cell<u64>,
    depth: Cell<usize>,
    bytes: Cell<usize>,
}

/// Expressions that were parsed while another was evaluated, kept to its end: a list that only grows.
#[derive(Default)]
pub struct Parsed(std::cell::OnceCell<Box<(Node, Parsed)>>);

impl Parsed {
    pub fn keep(&self, node: Node) -> &Node {
        let mut last = self;
        while let Some(entry) = last.0.get() {
            last = &entry.1;
        }
        &last.0.get_or_init(|| Box::new((node, Parsed::default()))).0
    }
}

impl Drop for Parsed {
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut entry) = next {
            next = entry.1.0.take();
        }
    }
}

/// Variables of one scope, and where the next outer ones are.
pub struct Frame<'a> {
    parent: Option<&'a Frame<'a>>,
    tuple: &'a [(Key<'a>, Value<'a>)],
    bindings: Cell<Option<&'a Binding<'a>>>,
}

/// A variable's name, or the number by which `%` finds a parent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    Name(&'a str),
    Label(u32),
}

struct Binding<'a> {
    name: &'a str,
    value: Cell<Value<'a>>,
    next: Option<&'a Binding<'a>>,
}

/// One element of a tuple stream: the context value and what `@`, `#` and `%` bound.
#[derive(Clone, Copy)]
pub struct Tuple<'a> {
    pub at: Value<'a>,
    pub names: &'a [(Key<'a>, Value<'a>)],
}

impl<'a> Run<'a> {
    pub fn new(arena: &'a Bump, limits: Limits, now: f64, seed: u64) -> Run<'a> {
        Run {
            arena,
            limits,
            now,
            parsed: None,
            states: false,
            natives: RefCell::default(),
            random: Cell::new(seed),
            steps: Cell::new(0),
            depth: Cell::new(0),
            bytes: Cell::new(0),
        }
    }

    /// Work counted so far.
    pub fn spent(&self) -> u64 {
        self.steps.get()
    }

    /// Counts work.
    pub fn tick(&self, steps: u64) -> Result<()> {
        let steps = self.steps.get().saturating_add(steps);
        self.steps.set(steps);
        if steps > self.limits.steps {
            return Err(fault("U1002").insert("value", self.limits.steps.to_string()));
        }
        Ok(())
    }

    /// Counts the reading of a text.
    pub fn read(&self, text: &str) -> Result<()> {
        self.tick(text.len() as u64 / TEXT_A_STEP)
    }

    /// Counts memory before it is taken.
    pub fn charge(&self, bytes: usize) -> Result<()> {
        let bytes = self.bytes.get().saturating_add(bytes);
        self.bytes.set(bytes);
        if bytes > self.limits.bytes {
            return Err(fault("U1003").insert("value", self.limits.bytes.to_string()));
        }
        Ok(())
    }

    /// Runs `work` one level deeper, on more stack when this one is short.
    pub fn deeper<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.tick(1)?;
        let depth = self.depth.get() + 1;
        if depth > self.limits.depth {
            return Err(fault("U1001"));
        }
        self.depth.set(depth);
        let result = stacker::maybe_grow(RED_ZONE, SEGMENT, work);
        self.depth.set(depth - 1);
        result
    }

    /// The next of a sequence of random numbers, 0 ≤ n < 2^64 (SplitMix64).
    pub fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        mix(state)
    }

    pub fn string(&self, text: &str) -> Result<Value<'a>> {
        self.charge(text.len())?;
        Ok(Value::String(self.arena.alloc_str(text)))
    }

    pub fn slice<T: Copy>(&self, items: &[T]) -> Result<&'a [T]> {
        self.charge(size_of_val(items))?;
        Ok(self.arena.alloc_slice_copy(items))
    }

    pub fn function(&self, function: Function<'a>) -> Result<Value<'a>> {
        self.charge(size_of::<Function>())?;
        Ok(Value::Function(self.arena.alloc(function)))
    }

    /// A built-in function as a value: always the same one.
    fn native(&self, native: &'static Native) -> Result<Value<'a>> {
        if let Some(known) = self.natives.borrow().get(native.name) {
            return Ok(*known);
        }
        let value = self.function(Function::Native(native))?;
        self.natives.borrow_mut().insert(native.name, value);
        Ok(value)
    }

    pub fn array(&self, items: &[Value<'a>]) -> Result<Value<'a>> {
        Ok(Value::Array(Array::new(self.slice(items)?)))
    }

    pub fn sequence(&self, items: &[Value<'a>]) -> Result<Value<'a>> {
        Ok(Value::Array(Array::sequence(self.slice(items)?)))
    }

    /// An object; of keys that repeat the last value stays, at the first one's place.
    pub fn object(&self, entries: &[(&'a str, Value<'a>)]) -> Result<Value<'a>> {
        let entries = Cell::new(self.entries(entries)?);
        self.charge(size_of::<Built>())?;
        Ok(Value::Object(Object::Built(self.arena.alloc(Built(entries)))))
    }

    pub fn entries(&self, given: &[(&'a str, Value<'a>)]) -> Result<Entries<'a>> {
        let mut list: Vec<(&str, Value)> = Vec::with_capacity(given.len());
        given.iter().try_for_each(|(key, _)| self.read(key))?;
        if given.len() <= SHORT {
            for (key, value) in given {
                match list.iter_mut().find(|(name, _)| name == key) {
                    Some(entry) => entry.1 = *value,
                    None => list.push((key, *value)),
                }
            }
            return Ok(Entries::new(self.slice(&list)?, &[]));
        }
        let mut places = HashMap::with_capacity(given.len());
        for (key, value) in given {
            let place = *places.entry(*key).or_insert(list.len());
            match list.get_mut(place) {
                Some(entry) => entry.1 = *value,
                None => list.push((key, *value)),
            }
        }
        let mut order: Vec<u32> = (0..list.len() as u32).collect();
        order.sort_unstable_by_key(|index| list[*index as usize].0);
        self.tick(list.len() as u64)?;
        Ok(Entries::new(self.slice(&list)?, self.slice(&order)?))
    }

    pub fn frame(&self, parent: Option<&'a Frame<'a>>) -> Result<&'a Frame<'a>> {
        self.frame_of(parent, &[])
    }

    /// A frame that sees the names of a tuple.
    pub fn tuple_frame(&self, parent: &'a Frame<'a>, tuple: &Tuple<'a>) -> Result<&'a Frame<'a>> {
        self.frame_of(Some(parent), tuple.names)
    }

    fn frame_of(
        &self,
        parent: Option<&'a Frame<'a>>,
        tuple: &'a [(Key<'a>, Value<'a>)],
    ) -> Result<&'a Frame<'a>> {
        self.charge(size_of::<Frame>())?;
        let bindings = Cell::new(None);
        Ok(self.arena.alloc(Frame {
            parent,
            tuple,
            bindings,
        }))
    }

    pub fn bind(&self, frame: &'a Frame<'a>, name: &'a str, value: Value<'a>) -> Result<()> {
        let (found, passed) = frame.own(name);
        self.tick(passed / HOPS_A_STEP)?;
        if let Some(binding) = found {
            binding.value.set(value);
            return Ok(());
        }
        self.charge(size_of::<Binding>())?;
        frame.bindings.set(Some(self.arena.alloc(Binding {
            name,
            value: Cell::new(value),
            next: frame.bindings.get(),
        })));
        Ok(())
    }

    /// What a name stands for in the frame or around it.
    pub fn lookup(&self, frame: &'a Frame<'a>, key: Key<'a>) -> Result<Value<'a>> {
        let mut hops = 0;
        let mut next = Some(frame);
        while let Some(frame) = next {
            let tuple = || {
                frame
                    .tuple
                    .iter()
                    .find(|(own, _)| *own == key)
                    .map(|(_, value)| *value)
            };
            let own = match key {
                Key::Name(name) => {
                    let (found, passed) = frame.own(name);
                    hops += passed;
                    found.map(|binding| binding.value.get())
                }
                Key::Label(_) => None,
            };
            if let Some(value) = own.or_else(tuple) {
                self.tick(hops / HOPS_A_STEP)?;
                return Ok(value);
            }
            hops += 1;
            next = frame.parent;
        }
        self.tick(hops / HOPS_A_STEP)?;
        match key {
            Key::Name(name) => match crate::function::native(name, self) {
                Some(native) => self.native(native),
                None => Ok(Value::Undefined),
            },
            Key::Label(_) => Ok(Value::Undefined),
        }
    }
}

impl<'a> Frame<'a> {
    /// The frame's own variable of that name, and how many others were passed on the way.
    fn own(&self, name: &str) -> (Option<&'a Binding<'a>>, u64) {
        let mut next = self.bindings.get();
        let mut passed = 0;
        while let Some(binding) = next {
            if binding.name == name {
                break;
            }
            passed += 1;
            next = binding.next;
        }
        (next, passed)
    }
}

pub fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

const HOPS_A_STEP: u64 = 8;
/// So many bytes of text are read, compared or hashed in a step.
const TEXT_A_STEP: u64 = 64;
const RED_ZONE: usize = 128 << 10;
const SEGMENT: usize = 2 << 20;
