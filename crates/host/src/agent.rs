//! PID 1 inside a host. Knows nothing of the control plane: it is asked, it never asks.
