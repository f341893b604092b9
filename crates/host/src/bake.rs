//! Images from scripts: one container and one layer per script. Knows nothing of hosts.
