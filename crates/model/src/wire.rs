//! The types of the HTTP interface.
