//! Control groups, version 1 and 2: where they are, what a container used, how all of it is killed.
