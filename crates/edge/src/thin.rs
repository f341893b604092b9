//! A value with a text behind it, in one piece of memory, shared by counting. Rules, groups and targets are such: there
//! may be a hundred thousand of each, and two words less in one of them are megabytes.

use std::ops::Deref;

use triomphe::ThinArc;

/// One word wide. Reads as its value.
pub struct Thin<T>(ThinArc<T, u8>);

impl<T> Thin<T> {
    pub fn of(value: T, text: &[u8]) -> Self {
        Self(ThinArc::from_header_and_slice(value, text))
    }

    pub fn bytes(this: &Self) -> &[u8] {
        &this.0.slice
    }

    /// A part of the bytes that was a text.
    pub fn text(bytes: &[u8]) -> &str {
        str::from_utf8(bytes).expect("it was made from a text")
    }

    /// Are both the very same, not only alike?
    pub fn same(this: &Self, other: &Self) -> bool {
        std::ptr::eq(&raw const **this, &raw const **other)
    }
}

impl<T> Clone for Thin<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Thin<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.header.header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{balance::Members, table::Meaning, target::State};

    /// With the count, the length of the text and a short text, each fits into the allocator's piece for so much; a word
    /// more takes sixteen bytes a host.
    #[test]
    fn what_there_are_a_hundred_thousand_of_is_small() {
        assert!(size_of::<Meaning>() <= 32, "a rule has {}", size_of::<Meaning>());
        assert!(size_of::<Members>() <= 40, "a group has {}", size_of::<Members>());
        assert!(size_of::<State>() <= 40, "a target has {}", size_of::<State>());
        assert_eq!(size_of::<Thin<State>>(), size_of::<usize>());
    }

    #[test]
    fn a_text_stays_behind_its_value() {
        let thin = Thin::of(7, "näme".as_bytes());
        let other = thin.clone();
        assert_eq!((*other, Thin::<i32>::text(Thin::bytes(&other))), (7, "näme"));
        assert!(Thin::same(&thin, &other) && !Thin::same(&thin, &Thin::of(7, b"")));
    }
}
