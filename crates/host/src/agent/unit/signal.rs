//! Signals by their names (`signal(7)`).

use rustix::process::Signal;

const SIGNALS: [(&str, Signal); 31] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ABRT", Signal::ABORT),
    ("KILL", Signal::KILL),
    ("SEGV", Signal::SEGV),
    ("PIPE", Signal::PIPE),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
    ("TSTP", Signal::TSTP),
    ("WINCH", Signal::WINCH),
    ("PWR", Signal::POWER),
    ("ILL", Signal::ILL),
    ("TRAP", Signal::TRAP),
    ("BUS", Signal::BUS),
    ("FPE", Signal::FPE),
    ("STKFLT", Signal::STKFLT),
    ("CHLD", Signal::CHILD),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
    ("VTALRM", Signal::VTALARM),
    ("PROF", Signal::PROF),
    ("IO", Signal::IO),
    ("SYS", Signal::SYS),
];

/// By name, with or without `SIG`, or by number.
pub fn signal(name: &str) -> Option<Signal> {
    let short = name.strip_prefix("SIG").unwrap_or(name);
    let by_name = SIGNALS.iter().find(|(known, _)| *known == short);
    by_name.map(|(_, signal)| *signal).or_else(|| {
        let number: i32 = name.parse().ok()?;
        Signal::from_named_raw(number)
    })
}

/// The name of a signal, without `SIG`; its number where it has none.
pub fn signal_name(number: i32) -> String {
    let known = SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number);
    known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (name, number) in [
            ("SIGTERM", 15),
            ("QUIT", 3),
            ("9", 9),
            ("SIGWINCH", 28),
            ("TTIN", 21),
            ("URG", 23),
        ] {
            assert_eq!(signal(name).map(Signal::as_raw), Some(number), "{name}");
        }
        for none in ["", "SIG", "term", "0", "-9", "99", "SIG9"] {
            assert_eq!(signal(none), None, "{none}");
        }
        assert_eq!([15, 1, 99].map(signal_name), ["TERM", "HUP", "99"]);
    }
}
