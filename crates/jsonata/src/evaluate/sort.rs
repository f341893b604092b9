//! Order: a stable merge sort whose comparison may fail.

use std::cmp::Ordering;

use crate::{
    error::{Result, fault},
    run::{Frame, Run, Tuple},
    text,
    tree::{Kind, Node, Term},
    value::{Array, Value},
};

impl<'a> Run<'a> {
    pub(super) fn sort_items(
        &self,
        step: &'a Node,
        items: Array<'a>,
        frame: &'a Frame<'a>,
    ) -> Result<Array<'a>> {
        if items.len() <= 1 {
            return Ok(items);
        }
        let mut values = Vec::new();
        self.spread_into(&mut values, items)?;
        let tuples: Vec<Tuple> = values.into_iter().map(|at| Tuple { at, names: &[] }).collect();
        let sorted = self.sort_tuples(step, &tuples, frame)?;
        let values: Vec<Value> = sorted.iter().map(|tuple| tuple.at).collect();
        Ok(Array::new(self.slice(&values)?))
    }

    pub(super) fn sort_tuples(
        &self,
        step: &'a Node,
        tuples: &[Tuple<'a>],
        frame: &'a Frame<'a>,
    ) -> Result<&'a [Tuple<'a>]> {
        let Kind::Sort(terms) = &step.kind else {
            return self.slice(tuples);
        };
        let sorted = self.merge_sort(tuples.to_vec(), &mut |left, right| {
            for term in terms {
                let order = self.compare_by(term, [left, right], step.position, frame)?;
                if order != Ordering::Equal {
                    return Ok(order == Ordering::Greater);
                }
            }
            Ok(false)
        })?;
        self.slice(&sorted)
    }

    fn compare_by(
        &self,
        term: &'a Term,
        sides: [&Tuple<'a>; 2],
        position: usize,
        frame: &'a Frame<'a>,
    ) -> Result<Ordering> {
        let key = |tuple: &Tuple<'a>| {
            let scope = if tuple.names.is_empty() {
                frame
            } else {
                self.tuple_frame(frame, tuple)?
            };
            self.eval(&term.expression, tuple.at, scope)
        };
        let (left, right) = (key(sides[0])?, key(sides[1])?);
        self.read_both(left, right)?;
        let order = match (left, right) {
            (Value::Undefined, Value::Undefined) => return Ok(Ordering::Equal),
            (Value::Undefined, _) => return Ok(Ordering::Greater),
            (_, Value::Undefined) => return Ok(Ordering::Less),
            (Value::Number(left, _), Value::Number(right, _)) => {
                left.partial_cmp(&right).unwrap_or(Ordering::Greater)
            }
            (Value::String(left), Value::String(right)) => text::compare(left, right),
            (Value::Number(..) | Value::String(_), Value::Number(..) | Value::String(_)) => {
                return Err(fault("T2007").at(position).value(left).other(right));
            }
            _ => {
                let left_fits = matches!(left, Value::Number(..) | Value::String(_));
                return Err(fault("T2008")
                    .at(position)
                    .value(if left_fits { right } else { left }));
            }
        };
        Ok(if term.descending { order.reverse() } else { order })
    }

    /// Sorts, keeping the order of equals. `after` says whether its first argument belongs behind its second.
    pub fn merge_sort<T: Copy>(
        &self,
        mut items: Vec<T>,
        after: &mut dyn FnMut(&T, &T) -> Result<bool>,
    ) -> Result<Vec<T>> {
        self.charge(2 * items.len() * size_of::<T>())?;
        let mut width = 1;
        let mut merged = Vec::with_capacity(items.len());
        while width < items.len() {
            merged.clear();
            for run in items.chunks(2 * width) {
                let (mut left, mut right) = run.split_at(width.min(run.len()));
                while let ([first, left_rest @ ..], [second, right_rest @ ..]) = (left, right) {
                    self.tick(1)?;
                    if after(first, second)? {
                        merged.push(*second);
                        right = right_rest;
                    } else {
                        merged.push(*first);
                        left = left_rest;
                    }
                }
                merged.extend_from_slice(left);
                merged.extend_from_slice(right);
            }
            std::mem::swap(&mut items, &mut merged);
            width *= 2;
        }
        Ok(items)
    }
}
