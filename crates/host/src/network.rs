//! Bridges, links, addresses and the packet filter. Knows nothing of what runs behind an address.
