//! Hosts: containers with an agent as PID 1, an address and a record on disk. Knows nothing of what runs in them.
