//! Images: lists of layers, by digest. Knows nothing of how layers are made.
