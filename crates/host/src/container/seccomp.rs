//! Which system calls a container may make.
//!
//! A list of what is allowed, as the container engines of the field have: what programs need to run, work with files,
//! memory, processes and sockets. Everything else does not exist for them (`ENOSYS`), so that a library which tries a
//! newer call falls back to an older one; what exists but is dangerous in a shared kernel is refused (`EPERM`).
//! Names that the kernel or libseccomp does not know are skipped by the runtime.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Flags of `clone` that make namespaces: a container must not make more of them.
const NAMESPACES: u32 = 0x7E02_0000;
/// Sockets of the kernel's ciphers. They have written to the page cache of files that are only to be read, and so of
/// those that containers share (CVE-2026-31431); programs do without them.
const AF_ALG: u32 = 38;
/// They reach past the network namespace to a hypervisor.
const AF_VSOCK: u32 = 40;
const RLIMIT_CORE: u32 = 4;
/// Linux, Linux with 32-bit addresses, either with `uname` of 2.6, and asking which.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// The profile, as the `seccomp` object of the OCI runtime specification.
///
/// No two rules of one call with different actions hold for the same arguments: which of them wins is the library's.
pub fn profile() -> Value {
    let mut syscalls = vec![
        json!({ "names": allowed(), "action": "SCMP_ACT_ALLOW" }),
        json!({ "names": words(REFUSED), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM }),
        allow("clone", &[masked(0, NAMESPACES, 0)]),
        // Its flags are in memory, where a filter cannot look: libraries fall back to `clone`.
        answer("clone3", ENOSYS, &[]),
        // It would open for 32-bit programs what `socket` may not: its arguments are in memory, too. libseccomp lets it do all
        // that `socket` and its like may, unless it has a rule of its own; and runtimes leave out a rule that answers as if
        // there were none. See decision 110.
        answer("socketcall", EPERM, &[]),
    ];
    syscalls.extend(PERSONALITIES.map(|which| allow("personality", &[int(0, which)])));
    syscalls.extend(allow_unless("socket", 0, &[AF_ALG, AF_VSOCK]));
    // The limit of dumps stays what it is, see `config`. Many a script sets it to 0, and none needs it to be so; but who
    // asks in the same call what it was would believe what was never written.
    syscalls.extend(allow_unless("setrlimit", 0, &[RLIMIT_CORE]));
    syscalls.push(answer("setrlimit", 0, &[int(0, RLIMIT_CORE)]));
    syscalls.extend(allow_unless("prlimit64", 1, &[RLIMIT_CORE]));
    let (core, new, old) = (int(1, RLIMIT_CORE), 2, 3);
    syscalls.extend([
        allow("prlimit64", &[core.clone(), null(new)]),
        answer("prlimit64", 0, &[core.clone(), some(new), null(old)]),
        answer("prlimit64", EPERM, &[core, some(new), some(old)]),
    ]);
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": architectures(),
        "syscalls": syscalls,
    })
}

fn allow(name: &str, args: &[Value]) -> Value {
    json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": args })
}

/// `errno` without the call being made; 0 is a success.
fn answer(name: &str, errno: u32, args: &[Value]) -> Value {
    json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args })
}

/// Allows a call whose argument of type `int` is none of these values, as there is no comparison for "differs in its low
/// half": one rule for each beginning in bits that none of them has, and that is one of theirs up to its last bit.
fn allow_unless(name: &str, index: u32, values: &[u32]) -> impl Iterator<Item = Value> {
    let beginnings = (0..u32::BITS).flat_map(|bit| values.iter().map(move |value| (bit, (value >> bit) ^ 1)));
    let free: BTreeSet<(u32, u32)> = beginnings
        .filter(|(bit, beginning)| values.iter().all(|value| value >> bit != *beginning))
        .collect();
    free.into_iter()
        .map(move |(bit, beginning)| allow(name, &[masked(index, u32::MAX << bit, beginning << bit)]))
}

/// An argument of type `int`. The kernel drops the high half of the register, so a filter that compared it too could be
/// passed by any bit there.
fn int(index: u32, value: u32) -> Value {
    masked(index, u32::MAX, value)
}

fn masked(index: u32, mask: u32, value: u32) -> Value {
    json!({ "index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" })
}

/// A pointer to nothing.
fn null(index: u32) -> Value {
    json!({ "index": index, "value": 0, "op": "SCMP_CMP_EQ" })
}

/// A pointer to something.
fn some(index: u32) -> Value {
    json!({ "index": index, "value": 0, "op": "SCMP_CMP_NE" })
}

fn architectures() -> &'static [&'static str] {
    match std::env::consts::ARCH {
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    }
}

fn allowed() -> Vec<&'static str> {
    [
        FILES,
        DESCRIPTORS,
        MEMORY,
        PROCESSES,
        IDENTITY,
        SIGNALS,
        TIME,
        SOCKETS,
        LIMITS,
    ]
    .into_iter()
    .flat_map(words)
    .collect()
}

fn words(text: &'static str) -> Vec<&'static str> {
    text.split_whitespace().collect()
}

const FILES: &str = "
    access chdir chmod chown chown32 chroot creat faccessat faccessat2 fallocate fchdir fchmod fchmodat fchmodat2 fchown
    fchown32 fchownat fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
    fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch
    inotify_init inotify_init1 inotify_rm_watch lchown lchown32 lgetxattr link linkat listxattr listxattrat llistxattr
    lremovexattr lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2
    readahead readlink readlinkat removexattr removexattrat rename renameat renameat2 rmdir setxattr setxattrat stat
    stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs truncate truncate64 umask
    unlink unlinkat utime utimensat utimensat_time64 utimes";

const DESCRIPTORS: &str = "
    _llseek _newselect close close_range copy_file_range dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 fadvise64 fadvise64_64 fcntl fcntl64
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl lseek memfd_create
    pipe pipe2 poll ppoll ppoll_time64 pread64 preadv preadv2 pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read
    readv select sendfile sendfile64 splice tee vmsplice write writev";

const MEMORY: &str = "
    brk cachestat get_mempolicy madvise map_shadow_stack membarrier mincore mlock mlock2 mlockall mmap mmap2 mprotect
    mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_madvise process_mrelease
    remap_file_pages shmat shmctl shmdt shmget memfd_secret set_mempolicy mbind set_mempolicy_home_node";

const PROCESSES: &str = "
    alarm arch_prctl capget capset arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls execve execveat exit
    exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list get_thread_area
    getcpu getpgid getpgrp getpid getppid getpriority getsid gettid kcmp landlock_add_rule landlock_create_ruleset
    landlock_restrict_self modify_ldt pidfd_getfd pidfd_open pidfd_send_signal prctl process_vm_readv
    process_vm_writev ptrace restart_syscall rseq sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp set_robust_list
    set_thread_area set_tid_address setpgid setpriority setsid sysinfo uname ugetrlimit vfork wait4 waitid waitpid
    ioprio_get ioprio_set ipc msgctl msgget msgrcv msgsnd mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink semctl semget semop semtimedop
    semtimedop_time64";

const IDENTITY: &str = "
    getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 getresuid
    getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid
    setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32";

const SIGNALS: &str = "
    kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signal signalfd signalfd4 sigprocmask sigreturn tgkill tkill";

const TIME: &str = "
    adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64 times";

const SOCKETS: &str = "
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg
    send sendmmsg sendmsg sendto setsockopt shutdown socketpair";

const LIMITS: &str = "getrandom getrlimit getrusage";

/// What a program may probe for and must be told that it is not allowed, rather than that it does not exist.
const REFUSED: &str = "
    acct add_key bpf clock_settime clock_settime64 delete_module fanotify_init finit_module fsconfig fsmount fsopen
    fspick init_module io_uring_enter io_uring_register io_uring_setup iopl ioperm kexec_file_load kexec_load keyctl
    lookup_dcookie mount mount_setattr move_mount move_pages migrate_pages nfsservctl open_by_handle_at open_tree
    perf_event_open pivot_root quotactl quotactl_fd reboot request_key setdomainname sethostname setns settimeofday
    stime swapoff swapon syslog umount umount2 unshare userfaultfd uselib ustat vhangup vm86 vm86old";

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is in the high half of the register.
    #[test]
    fn all_values_but_those_that_are_not_allowed_are_allowed_once() {
        for refused in [&[RLIMIT_CORE][..], &[AF_ALG, AF_VSOCK], &[0, 1, 2, u32::MAX]] {
            let rules: Vec<Value> = allow_unless("a", 0, refused).collect();
            let number = |rule: &Value, key: &str| rule["args"][0][key].as_u64().unwrap();
            let times = |value: u64| {
                let holds = |rule: &&Value| value & number(rule, "value") == number(rule, "valueTwo");
                rules.iter().filter(holds).count()
            };
            let near = refused
                .iter()
                .flat_map(|value| (0..32).map(move |bit| value ^ 1 << bit));
            for value in refused.iter().copied().chain(near).chain(0..1000) {
                for high in [0, 1 << 32, u64::MAX << 32] {
                    let allowed = usize::from(!refused.contains(&value));
                    assert_eq!(times(u64::from(value) | high), allowed, "{value} of {refused:?}");
                }
            }
        }
    }

    #[test]
    fn no_call_is_both_allowed_and_refused_or_named_twice() {
        let mut all = allowed();
        all.extend(words(REFUSED));
        all.sort_unstable();
        for two in all.windows(2) {
            assert_ne!(two[0], two[1]);
        }
        for special in [
            "clone",
            "clone3",
            "personality",
            "prlimit64",
            "setrlimit",
            "socket",
            "socketcall",
        ] {
            assert!(!all.contains(&special), "{special} has conditions of its own");
        }
    }
}
