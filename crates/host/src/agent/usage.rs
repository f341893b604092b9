//! What a whole machine uses of its cores and its memory, as its kernel counts it (`proc(5)`).

use std::fs;

use super::api::Usage;

/// Milliseconds of a tick, on every Linux that programs can see.
const TICK: u64 = 10;

/// `None` where `/proc` is none.
pub fn now() -> Option<Usage> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let memory = fs::read_to_string("/proc/meminfo").ok()?;
    usage(&stat, &memory)
}

fn usage(stat: &str, memory: &str) -> Option<Usage> {
    let is_core = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| !rest.starts_with(' '))
    };
    let total = kibibytes(memory, "MemTotal")?;
    Some(Usage {
        cpu_ms: busy(stat)?.saturating_mul(TICK),
        cores: u32::try_from(stat.lines().filter(is_core).count()).unwrap_or(u32::MAX),
        memory_bytes: total.saturating_sub(available(memory)?).saturating_mul(1024),
        memory_total_bytes: total.saturating_mul(1024),
    })
}

/// Ticks in which something was done: not `idle`, nor `iowait`. Guests are in `user` already.
fn busy(stat: &str) -> Option<u64> {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let numbers: Vec<u64> = all
        .split_whitespace()
        .map_while(|text| text.parse().ok())
        .collect();
    let counted = numbers.iter().enumerate().take(8);
    let busy = counted
        .filter(|(at, _)| !matches!(at, 3 | 4))
        .map(|(_, ticks)| ticks);
    (numbers.len() >= 4).then(|| busy.sum())
}

/// What programs can have. Kernels before 3.14 do not say it.
fn available(memory: &str) -> Option<u64> {
    kibibytes(memory, "MemAvailable").or_else(|| {
        let parts = ["MemFree", "Buffers", "Cached"].map(|name| kibibytes(memory, name));
        parts.into_iter().sum()
    })
}

fn kibibytes(memory: &str, name: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned);
    let value = memory.lines().find_map(value)?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 20 30 4000 500 6 7 8 50 9\ncpu0 50 10 15 2000 250 3 3 4 25 4\n\
                        cpu1 50 10 15 2000 250 3 4 4 25 5\nintr 1 2 3\n";

    #[test]
    fn what_is_used_is_read() {
        let memory = "MemTotal:        1000 kB\nMemFree:  100 kB\nMemAvailable:     400 kB\nBuffers: 20 kB\nCached: 80 kB\n";
        let used = usage(STAT, memory).unwrap();
        let expected = Usage {
            cpu_ms: 1710,
            cores: 2,
            memory_bytes: 600 << 10,
            memory_total_bytes: 1000 << 10,
        };
        assert_eq!(used, expected);
        let old = memory.replace("MemAvailable:     400 kB\n", "");
        assert_eq!(usage(STAT, &old).unwrap().memory_bytes, 800 << 10);
    }

    #[test]
    fn what_is_no_proc_says_nothing() {
        for (stat, memory) in [
            ("", "MemTotal: 1 kB\nMemAvailable: 1 kB\n"),
            (STAT, ""),
            (STAT, "MemTotal: 5 MB\nMemAvailable: 1 kB\n"),
            ("cpu x\n", "MemTotal: 1 kB\nMemAvailable: 1 kB\n"),
        ] {
            assert_eq!(usage(stat, memory), None, "{stat} {memory}");
        }
    }
}
