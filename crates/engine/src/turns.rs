//! What waits for a place, in a line for each owner. The owners take turns: who has much to do holds up nobody else.

use std::collections::{HashMap, VecDeque};

pub(crate) struct Turns<T> {
    lines: HashMap<u64, VecDeque<T>>,
    /// Owners with a line, in the order of their turns.
    owners: VecDeque<u64>,
    length: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self {
            lines: HashMap::new(),
            owners: VecDeque::new(),
            length: 0,
        }
    }
}

impl<T> Turns<T> {
    pub fn push_back(&mut self, owner: u64, value: T) {
        self.length += 1;
        self.line(owner).push_back(value);
    }

    /// The first of its owner's line.
    pub fn push_front(&mut self, owner: u64, value: T) {
        self.length += 1;
        self.line(owner).push_front(value);
    }

    fn line(&mut self, owner: u64) -> &mut VecDeque<T> {
        let line = self.lines.entry(owner).or_default();
        if line.is_empty() {
            self.owners.push_back(owner);
        }
        line
    }

    /// The first of the line whose turn it is, which then waits for the others' turns.
    pub fn pop(&mut self) -> Option<T> {
        let owner = self.owners.pop_front()?;
        let line = self.lines.get_mut(&owner)?;
        let value = line.pop_front();
        match line.is_empty() {
            true => drop(self.lines.remove(&owner)),
            false => self.owners.push_back(owner),
        }
        self.length -= usize::from(value.is_some());
        value
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_take_turns_and_each_line_keeps_its_order() {
        let mut turns = Turns::default();
        for (owner, value) in [(1, "a"), (1, "b"), (1, "c"), (2, "x"), (3, "y"), (2, "z")] {
            turns.push_back(owner, value);
        }
        turns.push_front(1, "first");
        assert_eq!(turns.len(), 7);
        let popped: Vec<&str> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(popped, ["first", "x", "y", "a", "z", "b", "c"]);
        assert_eq!(turns.len(), 0);
        turns.push_back(2, "again");
        assert_eq!((turns.pop(), turns.pop()), (Some("again"), None));
    }
}
