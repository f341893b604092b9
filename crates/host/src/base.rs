//! Bases that images stand on. Knows nothing of customers.
