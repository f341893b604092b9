//! Logs that stay, by name, read by offset.
