//! Content-addressed bytes in a directory.
