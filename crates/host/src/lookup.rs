//! How names of machines are found: in `/etc/hosts` and by DNS, whatever else the system around has.
//!
//! The program is static, and its C library would load the modules that the system's `nsswitch.conf` names (`resolve`,
//! `myhostname`, `mdns4_minimal`, …). They are made for that system's library, and with another version of it the program ends in the
//! middle of a question. What those modules find beyond the two, no platform is called by.

/// From here on. To be called before there is another thread.
pub fn by_files_and_dns() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    plain::configure();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
mod plain {
    use std::ffi::{c_char, c_int};

    unsafe extern "C" {
        /// Of `<nss.h>`: what `nsswitch.conf` says of one database, said by the program.
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }

    pub fn configure() {
        // SAFETY: both are C strings that live for ever, and there is no other thread. Where it fails for want of memory, the
        // file counts as before.
        let _ = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
    }
}
