//! Answers orders over a local socket: one POST per port method. Decides nothing; it wires the rooms of this crate.
