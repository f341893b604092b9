//! The few system calls that have no safe wrapper. Each takes and gives owned descriptors only.
#![allow(unsafe_code)]

use std::{
    ffi::{c_int, c_long},
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use rustix::thread::UnshareFlags;

/// Gives the calling thread, and all threads that it starts from now on, a mount namespace of their own.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: the flag undoes the sharing of mounts and of the working directory only; no descriptor is invalidated.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(())
}

/// A user namespace whose ids 0 to 65535 are `uid_base` and up, held by nothing but the descriptor.
pub fn user_namespace(uid_base: u32) -> io::Result<OwnedFd> {
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: a plain fork into a new user namespace; the child makes nothing but system calls, so that the state of
    // locks that it inherited does not matter.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD),
            0,
            0,
            0,
            0,
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => loop {
            // SAFETY: all calls take plain numbers. The child dies with its parent, also with one that died before the
            // child could ask for that, or when the parent kills it.
            unsafe {
                libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::syscall(libc::SYS_getppid) != c_long::from(parent) {
                    libc::syscall(libc::SYS_exit_group, 1);
                }
                libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0);
            }
        },
        pid => {
            let map = format!("0 {uid_base} 65536");
            let made = fs::write(format!("/proc/{pid}/uid_map"), &map)
                .and_then(|()| fs::write(format!("/proc/{pid}/gid_map"), &map))
                .and_then(|()| fs::File::open(format!("/proc/{pid}/ns/user")));
            let mut status: c_int = 0;
            // SAFETY: `pid` is the child made above, which nobody else waits for; `status` outlives the call.
            unsafe {
                libc::kill(pid as libc::pid_t, libc::SIGKILL);
                libc::waitpid(pid as libc::pid_t, &mut status, 0);
            }
            made.map(OwnedFd::from)
        }
    }
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Shows a detached mount through the mapping of a user namespace (`mount_setattr(2)`, `MOUNT_ATTR_IDMAP`).
pub fn id_map(mount: impl AsFd, user_namespace: impl AsFd) -> io::Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let attr = MountAttr {
        attr_set: MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_fd().as_raw_fd() as u64,
    };
    // SAFETY: the path is an empty C string, the structure has the size that is passed, both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    numbers: [u64; 5],
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// The number of a loop device that is free at this moment.
pub fn loop_free(control: impl AsFd) -> io::Result<u32> {
    const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
    // SAFETY: this request takes no argument.
    let number = unsafe { libc::ioctl(control.as_fd().as_raw_fd(), LOOP_CTL_GET_FREE) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Backs a loop device with a file; the device lets go of it by itself when it is not mounted or open any more.
pub fn loop_configure(device: impl AsFd, file: impl AsFd) -> io::Result<()> {
    const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
    const LO_FLAGS_AUTOCLEAR: u32 = 4;
    let config = LoopConfig {
        fd: file.as_fd().as_raw_fd() as u32,
        block_size: 0,
        info: LoopInfo {
            numbers: [0; 5],
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_AUTOCLEAR,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: the request reads a `struct loop_config`, which `config` is; the kernel takes its own hold of the file.
    let result = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
