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

    pub fn holders(this: &Self) -> usize {
        ThinArc::strong_count(&this.0)
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
