//! What a local build may use, as the command line says.

use jiff::SignedDuration;
use model::port::{BuildLimits, Resources};

use super::BuildArgs;
use crate::{cli::Failure, config::Builds};

/// With less a build's own runner cannot work.
const MEMORY_MIB: u64 = 64;
const DISK_MIB: u64 = 64;

pub fn at_once(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "it is a number from 1 on".to_owned())
}

pub fn time(text: &str) -> Result<SignedDuration, String> {
    let time: Option<SignedDuration> = text.parse().ok().filter(SignedDuration::is_positive);
    time.ok_or_else(|| "it is a time such as 90s, 15m or 1h".to_owned())
}

/// What a build may use: all processors, and otherwise what a platform gives that was told nothing.
pub fn limits(arguments: &BuildArgs) -> Result<BuildLimits, Failure> {
    if arguments.memory < MEMORY_MIB {
        return Err(Failure::usage(format!(
            "--memory must be {MEMORY_MIB} MiB or more"
        )));
    }
    if arguments.disk < DISK_MIB {
        return Err(Failure::usage(format!("--disk must be {DISK_MIB} MiB or more")));
    }
    // As on CodeBuild, where reports fail no build, and unlike a platform, whose `vend.yaml` is not read here.
    let pass_rate = arguments.pass_rate.unwrap_or(0.0);
    if !(0.0..=100.0).contains(&pass_rate) {
        return Err(Failure::usage("--pass-rate must be from 0 to 100"));
    }
    if !arguments.timeout.is_positive() {
        return Err(Failure::usage("--timeout must be a time such as 90s or 1h"));
    }
    Ok(BuildLimits {
        cpu: resources().cpu,
        memory_mib: arguments.memory,
        disk_mib: arguments.disk,
        pids: Builds::default().pids,
        timeout: arguments.timeout,
        pass_rate_percent: pass_rate,
        tests_asked: arguments.pass_rate.is_some(),
        coverage_percent: None,
    })
}

/// All processors, and most of the memory: for the images that builds run in.
pub fn resources() -> Resources {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = rustix::system::sysinfo();
    let total_mib = (memory.totalram as u64).saturating_mul(memory.mem_unit.into()) >> 20;
    Resources {
        cpu: cores as f64,
        memory_mib: (total_mib / 4 * 3).max(512),
        disk_mib: 20 * 1024,
        pids: 4096,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{super::tests::One, *};

    #[test]
    fn tests_fail_a_build_where_that_is_asked_for() {
        let of = |options: &[&str]| {
            let words = ["build", "--local", "."].iter().chain(options);
            let limits = limits(&One::parse_from(words).build).ok().unwrap();
            (limits.pass_rate_percent, limits.tests_asked)
        };
        assert_eq!(of(&[]), (0.0, false));
        assert_eq!(of(&["--pass-rate", "100"]), (100.0, true));
        assert_eq!(of(&["--pass-rate", "0"]), (0.0, true));
    }

    #[test]
    fn numbers_and_times_that_mean_nothing_are_refused() {
        assert_eq!(at_once("3"), Ok(3));
        assert!(at_once("0").is_err() && at_once("x").is_err());
        assert_eq!(time("90s"), Ok(SignedDuration::from_secs(90)));
        for bad in ["abc", "0s", "-1h", ""] {
            assert!(time(bad).unwrap_err().contains("90s"), "{bad}");
        }
    }
}
