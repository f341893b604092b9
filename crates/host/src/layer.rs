//! Layers: directories owned by real ids 0 to 65535, by the digest of what made them.
