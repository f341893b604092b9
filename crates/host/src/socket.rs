//! Unix sockets under paths of any length, and without following what a host put in their place.
