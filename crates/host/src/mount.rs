//! Mounts that the standard tools cannot make: id-mapped layers, overlays, sparse disks, a private namespace.
