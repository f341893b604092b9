//! What makes load, and what it says of itself.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, bail};

use super::{Setup, has, words};

/// A kind of load: its name, how it is made for so many seconds, and whether it depends on the number of hosts.
pub struct Case {
    pub name: &'static str,
    command: fn(&Setup<'_>, u32) -> Vec<String>,
    pub everywhere: bool,
}

pub const CASES: [Case; 10] = [
    Case {
        name: "small body",
        command: |s, seconds| wrk(&format!("http://127.0.0.1:{}/small", s.http), s, seconds),
        everywhere: true,
    },
    Case {
        name: "small body, paced",
        command: paced,
        everywhere: true,
    },
    Case {
        name: "1 MiB body",
        command: |s, seconds| wrk(&format!("http://127.0.0.1:{}/large", s.http), s, seconds),
        everywhere: false,
    },
    Case {
        name: "small body, TLS",
        command: |s, seconds| wrk(&format!("https://127.0.0.1:{}/small", s.https), s, seconds),
        everywhere: true,
    },
    Case {
        name: "small body, HTTP/2 in TLS",
        command: |s, seconds| h2load("small", s, seconds),
        everywhere: true,
    },
    Case {
        name: "1 MiB body, TLS",
        command: |s, seconds| wrk(&format!("https://127.0.0.1:{}/large", s.https), s, seconds),
        everywhere: false,
    },
    Case {
        name: "1 MiB body, HTTP/2 in TLS",
        command: |s, seconds| h2load("large", s, seconds),
        everywhere: false,
    },
    Case {
        name: "handshake, new",
        command: |s, seconds| handshakes(s, seconds, &["-new"]),
        everywhere: false,
    },
    Case {
        name: "handshake and a request, new",
        command: |s, seconds| handshakes(s, seconds, &["-new", "-www", &once(s)]),
        everywhere: false,
    },
    Case {
        name: "handshake and a request, resumed",
        command: |s, seconds| handshakes(s, seconds, &["-reuse", "-www", &once(s)]),
        everywhere: false,
    },
];

/// What one load came to. Latencies are in ms; where a tool does not say them there are none.
#[derive(Default, Clone)]
pub struct Load {
    pub requests: f64,
    pub a_second: f64,
    /// p50, p99 and p99.9.
    pub latencies: Vec<f64>,
}

/// How many seconds after its time a tool may come to its end.
const LONGER: u32 = 60;

/// wrk's own report ends at p99.
const SCRIPT: &str = "done = function(summary, latency)\n\
    io.write(string.format('percentiles %f %f %f\\n', latency:percentile(50) / 1000, latency:percentile(99) / 1000, \
    latency:percentile(99.9) / 1000))\nend\n";

fn wrk(url: &str, setup: &Setup<'_>, seconds: u32) -> Vec<String> {
    let (host, seconds) = (format!("Host: h{}.test", setup.hosts / 2), seconds.to_string());
    let script = setup.home.join("percentiles.lua").display().to_string();
    words(&[
        "wrk", "-t1", "-c64", "-s", &script, "-d", &seconds, "-H", &host, url,
    ])
}

fn h2load(path: &str, setup: &Setup<'_>, seconds: u32) -> Vec<String> {
    let url = format!("https://127.0.0.1:{}/{path}", setup.https);
    let host = format!(":authority: h{}.test", setup.hosts / 2);
    let log = format!("--log-file={}", requests_log(setup.home));
    words(&[
        "h2load",
        "-c16",
        "-m16",
        "-D",
        &seconds.to_string(),
        &log,
        "-H",
        &host,
        &url,
    ])
}

/// The same number of requests a second for each, which all can answer: only then are latencies those of the proxy. Who
/// is given as many as it can take is asked for more the faster it is, until those who ask wait for the first core
/// themselves.
fn paced(setup: &Setup<'_>, seconds: u32) -> Vec<String> {
    /// 64 connections make 20,000 requests a second.
    const EACH: &str = "--rps=312.5";
    // Its `-H` with a host never comes to an end without HTTP/2 (1.52).
    let url = format!("http://h{}.test/small", setup.hosts / 2);
    let at = format!("--connect-to=127.0.0.1:{}", setup.http);
    let log = format!("--log-file={}", requests_log(setup.home));
    words(&[
        "h2load",
        "--h1",
        "-c64",
        EACH,
        "-D",
        &seconds.to_string(),
        &log,
        &at,
        &url,
    ])
}

fn handshakes(setup: &Setup<'_>, seconds: u32, kind: &[&str]) -> Vec<String> {
    let at = format!("127.0.0.1:{}", setup.https);
    let mut command = words(&[
        "openssl",
        "s_time",
        "-connect",
        &at,
        "-time",
        &seconds.to_string(),
    ]);
    command.extend(words(kind));
    command
}

/// What `s_time` is to ask for. It puts its own ` HTTP/1.0` behind it, which a header takes up. It must read something:
/// the tickets of TLS 1.3 come after the handshake.
fn once(setup: &Setup<'_>) -> String {
    let host = setup.hosts / 2;
    format!("/small HTTP/1.1\r\nHost: h{host}.test\r\nConnection: close\r\nVia:")
}

fn requests_log(home: &Path) -> String {
    home.join("h2load.log").display().to_string()
}

impl Case {
    /// Makes the load, from the first core. None when its tool is not there.
    pub fn run(&self, setup: &Setup<'_>, seconds: u32) -> anyhow::Result<Option<Load>> {
        let command = (self.command)(setup, seconds);
        if !has(&command[0]) {
            return Ok(None);
        }
        fs::write(setup.home.join("percentiles.lua"), SCRIPT)?;
        let log = requests_log(setup.home);
        if Path::new(&log).exists() {
            fs::remove_file(&log)?;
        }
        let most = (seconds + LONGER).to_string();
        let output = Command::new("timeout")
            .args([&most, "taskset", "-c", "0"])
            .args(&command)
            .output()?;
        if output.status.code() == Some(124) {
            bail!("{} did not come to its end", command[0]);
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // An error is answered sooner than a request is forwarded.
        if !all_well(&text) {
            bail!("not every request was answered well: {text}");
        }
        // It draws a star for a session that is new.
        if command.iter().any(|word| word == "-reuse") && text.contains('*') {
            bail!("sessions were not resumed: {text}");
        }
        let mut load = said(&text).with_context(|| format!("{} says nothing: {text}", command[0]))?;
        if load.requests == 0.0 {
            bail!("no request was answered: {text}");
        }
        if let Ok(log) = fs::read_to_string(&log) {
            load.latencies = percentiles(&log);
        }
        Ok(Some(load))
    }
}

/// wrk names what was not answered well; h2load always counts it: `requests: 9 total, …, 8 succeeded, 0 failed, 0 errored, …`
/// and `status codes: 8 2xx, 0 3xx, 0 4xx, 0 5xx`. What was under way when the time was over is neither.
fn all_well(text: &str) -> bool {
    const ILL: [&str; 6] = [" failed", " errored", " timeout", " 3xx", " 4xx", " 5xx"];
    let counted = text
        .lines()
        .filter(|line| line.starts_with("requests: ") || line.starts_with("status codes: "));
    let ill = |part: &str| {
        ILL.iter()
            .any(|word| part.strip_suffix(word).is_some_and(|count| count.trim() != "0"))
    };
    !text.contains("Non-2xx")
        && !text.contains("Socket errors")
        && !text.contains("status codes: 0 2xx")
        && !counted.flat_map(|line| line.split([',', ':'])).any(ill)
}

/// wrk: `12345 requests in 2.00s`, and what our script adds; h2load: `requests: 12345 total, …` and `…, 6172.50 req/s`;
/// s_time: `123 connections in 1.20 real seconds, …`.
fn said(text: &str) -> Option<Load> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let mut load = Load::default();
    for line in text.lines().map(str::trim) {
        if let Some((count, time)) = line.split_once(" requests in ") {
            let seconds = number(time.split('s').next()?)?;
            load.requests = number(count)?;
            load.a_second = load.requests / seconds;
        } else if let Some(rest) = line.strip_prefix("percentiles ") {
            load.latencies = rest.split(' ').filter_map(number).collect();
        } else if let Some(rest) = line.strip_prefix("requests: ") {
            load.requests = number(rest.split(' ').next()?)?;
        } else if line.starts_with("finished in ") {
            load.a_second = line
                .split(", ")
                .find_map(|part| number(part.strip_suffix(" req/s")?))?;
        } else if line.contains("real seconds") {
            let mut parts = line.split(' ');
            load.requests = number(parts.next()?)?;
            let seconds = line.split(" in ").nth(1)?.split(' ').next().and_then(number)?;
            load.a_second = load.requests / seconds.max(1.0);
        }
    }
    (load.a_second > 0.0 || load.requests > 0.0).then_some(load)
}

/// Of h2load's log: start, status and µs of each request.
fn percentiles(log: &str) -> Vec<f64> {
    let took = |line: &str| line.split('\t').nth(2)?.trim().parse::<f64>().ok();
    let mut times: Vec<f64> = log.lines().filter_map(took).collect();
    times.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let index = (times.len() as f64 * part) as usize;
        times
            .get(index.min(times.len().saturating_sub(1)))
            .map(|us| us / 1000.0)
    };
    [0.5, 0.99, 0.999].into_iter().filter_map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_was_not_answered_well_is_seen() {
        let h2load = "requests: 9 total, 9 started, 8 done, 8 succeeded, 0 failed, 0 errored, 0 timeout\n\
            status codes: 8 2xx, 0 3xx, 0 4xx, 0 5xx\n";
        assert!(all_well(h2load));
        assert!(all_well("100 requests in 2.00s, 1MB read\n"));
        for (from, to) in [
            ("0 failed", "1 failed"),
            ("0 errored", "20 errored"),
            ("0 timeout", "1 timeout"),
            ("0 5xx", "3 5xx"),
            ("8 2xx", "0 2xx"),
        ] {
            assert!(!all_well(&h2load.replace(from, to)), "{to}");
        }
        assert!(!all_well(
            "  Socket errors: connect 0, read 1, write 0, timeout 0\n"
        ));
        assert!(!all_well("  Non-2xx or 3xx responses: 1\n"));
    }

    #[test]
    fn what_tools_say_is_understood() {
        for (text, requests, a_second) in [
            (
                "Running 2s test\n  1000 requests in 2.00s, 1MB read\nRequests/sec: 500\npercentiles 0.5 1.5 2.5\n",
                1000.0,
                500.0,
            ),
            (
                "finished in 2.01s, 497.51 req/s, 10KB/s\nrequests: 1000 total, 1000 started\n",
                1000.0,
                497.51,
            ),
            (
                "10 connections in 0.5s\n900 connections in 3 real seconds, 0 bytes read per connection\n",
                900.0,
                300.0,
            ),
        ] {
            let load = said(text).unwrap();
            assert_eq!((load.requests, load.a_second), (requests, a_second), "{text}");
        }
        assert_eq!(
            said("1 requests in 1s\npercentiles 0.5 1.5 2.5")
                .unwrap()
                .latencies,
            [0.5, 1.5, 2.5]
        );
        assert!(said("nothing").is_none());
        let log: String = (1..=1000).map(|us| format!("0\t200\t{us}\n")).collect();
        assert_eq!(percentiles(&log), [0.501, 0.991, 1.0]);
    }
}
