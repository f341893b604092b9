//! Asks a node over its socket: every port of `model::port` as a call. Knows nothing of containers.
