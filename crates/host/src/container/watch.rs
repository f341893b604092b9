//! Registers a process descriptor with the runtime's reactor, which asks for a promise in return.
#![allow(unsafe_code)]

use std::{io, os::fd::OwnedFd, sync::Arc};

use tokio::io::{Interest, unix::AsyncFd};

/// Readable once the process has ended.
pub fn register(process: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an `OwnedFd` behind an `Arc` that the `AsyncFd` holds stays open and the same as long as that lives.
    let registered = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) };
    registered.map_err(io::Error::from)
}
