//! Runs a buildspec in a container. Knows nothing of releases.
