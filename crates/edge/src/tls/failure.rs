//! Handshakes that came to nothing: why, how often, and a line in the log now and then.

use std::{
    fmt::Write as _,
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use rustls::{AlertDescription, CertificateError, Error};

use crate::worker::Ends;

/// Ticks between two lines about one reason.
const QUIET: u64 = 10_000;

/// Why a connection did not come to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Clients must show a certificate, and this one has not.
    NoCertificate,
    UnknownAuthority,
    Expired,
    NotYetValid,
    Revoked,
    /// A list of what is revoked is missing or out of date.
    Unlisted,
    /// Any other fault of a client's certificate.
    BadCertificate,
    /// There is none to show for the name, and no other.
    NothingToShow,
    /// The client does not take the certificate that it was shown.
    Distrusted,
    /// No version, cipher or group that both sides speak.
    NothingInCommon,
    /// What came is not TLS, or breaks its rules.
    NotTls,
    /// The client went away.
    Gone,
    /// It did not come to an end in time.
    Late,
    /// The word of a proxy was to come first.
    NoProxy,
    /// Its source has as many connections as it may.
    TooMany,
}

impl Failure {
    const ALL: [Self; 15] = [
        Self::NoCertificate,
        Self::UnknownAuthority,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::Unlisted,
        Self::BadCertificate,
        Self::NothingToShow,
        Self::Distrusted,
        Self::NothingInCommon,
        Self::NotTls,
        Self::Gone,
        Self::Late,
        Self::NoProxy,
        Self::TooMany,
    ];

    /// Of what a handshake ended with.
    pub fn of(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(Error::InvalidCertificate(fault)) => Self::of_certificate(fault),
            Some(Error::InvalidCertRevocationList(_)) => Self::Unlisted,
            Some(Error::AlertReceived(alert)) => match alert {
                AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::UnknownCA => Self::Distrusted,
                AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => {
                    Self::NothingInCommon
                }
                _ => Self::Gone,
            },
            Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => Self::NothingInCommon,
            // Its word for a resolver that has none.
            Some(Error::General(_)) => Self::NothingToShow,
            Some(_) => Self::NotTls,
            None if error.kind() == io::ErrorKind::TimedOut => Self::Late,
            None => Self::Gone,
        }
    }

    fn of_certificate(fault: &CertificateError) -> Self {
        match fault {
            // An authority that has but the name of one that is trusted has not signed it.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownAuthority,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => Self::Unlisted,
            _ => Self::BadCertificate,
        }
    }

    /// The label of the metric.
    fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "client_certificate_missing",
            Self::UnknownAuthority => "client_certificate_unknown_authority",
            Self::Expired => "client_certificate_expired",
            Self::NotYetValid => "client_certificate_not_yet_valid",
            Self::Revoked => "client_certificate_revoked",
            Self::Unlisted => "client_certificate_revocation_unknown",
            Self::BadCertificate => "client_certificate_invalid",
            Self::NothingToShow => "no_certificate_for_name",
            Self::Distrusted => "certificate_not_trusted_by_client",
            Self::NothingInCommon => "nothing_in_common",
            Self::NotTls => "not_tls",
            Self::Gone => "client_gone",
            Self::Late => "timeout",
            Self::NoProxy => "no_proxy_protocol",
            Self::TooMany => "too_many_connections",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NoCertificate => "it showed no certificate",
            Self::UnknownAuthority => "its certificate is signed by nobody who is trusted here",
            Self::Expired => "its certificate has expired",
            Self::NotYetValid => "its certificate is not yet valid",
            Self::Revoked => "its certificate has been revoked",
            Self::Unlisted => {
                "whether its certificate has been revoked cannot be told: a list is missing or out of date"
            }
            Self::BadCertificate => "its certificate cannot be used",
            Self::NothingToShow => "there is no certificate for the name that it asks for",
            Self::Distrusted => "it does not trust the certificate that it was shown",
            Self::NothingInCommon => "it speaks no version or cipher of TLS that is spoken here",
            Self::NotTls => "what it sent is not TLS",
            Self::Gone => "it went away",
            Self::Late => "it took too long",
            Self::NoProxy => "it did not begin with the word of a proxy",
            Self::TooMany => "its address has too many connections",
        }
    }

    /// Is it said in the log? The others are daily, and anybody's.
    fn is_told(self) -> bool {
        !matches!(
            self,
            Self::NotTls | Self::Gone | Self::Late | Self::NothingInCommon
        )
    }
}

/// Counts of them, by reason.
#[derive(Default)]
pub struct Failures([Count; Failure::ALL.len()]);

#[derive(Default)]
struct Count {
    all: AtomicU64,
    /// When a line may be written again, and how many have come since the last.
    next: AtomicU64,
    unsaid: AtomicU64,
}

impl Failures {
    /// Counts one, and says so, unless it was said a moment ago. `cause` is what the library says.
    pub fn count(&self, failure: Failure, ends: &Ends, cause: Option<&io::Error>, tick: u64) {
        let count = &self.0[failure as usize];
        count.all.fetch_add(1, Relaxed);
        if !failure.is_told() {
            return;
        }
        let next = count.next.load(Relaxed);
        let mine = tick >= next
            && count
                .next
                .compare_exchange(next, tick.saturating_add(QUIET), Relaxed, Relaxed)
                .is_ok();
        if !mine {
            count.unsaid.fetch_add(1, Relaxed);
            return;
        }
        let others = count.unsaid.swap(0, Relaxed);
        let cause = cause.map(ToString::to_string);
        tracing::warn!(
            client = %ends.peer, listener = %ends.local, reason = failure.label(), cause, others,
            "a client was not let in: {}", failure.words()
        );
    }

    /// How many of all reasons.
    pub fn sum(&self) -> u64 {
        self.0.iter().map(|count| count.all.load(Relaxed)).sum()
    }

    /// As Prometheus text.
    pub fn write(&self, out: &mut String) {
        let name = "vend_edge_handshakes_failed_total";
        crate::metrics::head(
            out,
            name,
            "counter",
            "Connections that ended before the first request, by reason.",
        );
        for (failure, count) in Failure::ALL.iter().zip(&self.0) {
            let _ = writeln!(
                out,
                "{name}{{reason=\"{}\"}} {}",
                failure.label(),
                count.all.load(Relaxed)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place_and_label() {
        let labels: std::collections::BTreeSet<_> = Failure::ALL.iter().map(|f| f.label()).collect();
        assert_eq!(labels.len(), Failure::ALL.len());
        for (index, failure) in Failure::ALL.iter().enumerate() {
            assert_eq!(*failure as usize, index, "{failure:?}");
        }
    }

    /// Keeps what is logged.
    #[derive(Default)]
    struct Listener(std::sync::Mutex<Vec<String>>);

    impl tracing::Subscriber for &'static Listener {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut line = String::new();
            event.record(
                &mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                    line += &format!("{field}={value:?} ");
                },
            );
            self.0.lock().unwrap().push(line);
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn a_reason_is_said_once_in_a_while_with_its_source() {
        let ends = Ends {
            peer: "192.0.2.9:4711".parse().unwrap(),
            local: "192.0.2.1:443".parse().unwrap(),
            tls: false,
            identity: None,
            connection: None,
            only: None,
        };
        let (failures, listener) = (Failures::default(), &*Box::leak(Box::<Listener>::default()));
        tracing::subscriber::with_default(listener, || {
            for tick in [0, 1, 9_999] {
                failures.count(Failure::Revoked, &ends, None, tick);
            }
            failures.count(Failure::Expired, &ends, None, 5);
            failures.count(Failure::Gone, &ends, None, 5);
            failures.count(Failure::Revoked, &ends, None, 10_000);
        });
        let lines = listener.0.lock().unwrap();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[0].contains("its certificate has been revoked")
                && lines[0].contains("client=192.0.2.9:4711")
                && lines[0].contains("others=0"),
            "{lines:?}"
        );
        assert!(lines[1].contains("its certificate has expired"), "{lines:?}");
        assert!(
            lines[2].contains("revoked") && lines[2].contains("others=2"),
            "{lines:?}"
        );
        assert_eq!(failures.sum(), 6);
    }

    #[test]
    fn what_the_library_says_has_a_reason() {
        use Failure::*;
        for (error, expected) in [
            (Error::NoCertificatesPresented, NoCertificate),
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                UnknownAuthority,
            ),
            (Error::InvalidCertificate(CertificateError::Expired), Expired),
            (
                Error::InvalidCertificate(CertificateError::NotValidYet),
                NotYetValid,
            ),
            (Error::InvalidCertificate(CertificateError::Revoked), Revoked),
            (
                Error::InvalidCertificate(CertificateError::UnknownRevocationStatus),
                Unlisted,
            ),
            (
                Error::InvalidCertificate(CertificateError::BadEncoding),
                BadCertificate,
            ),
            (Error::AlertReceived(AlertDescription::UnknownCA), Distrusted),
            (Error::AlertReceived(AlertDescription::CloseNotify), Gone),
            (Error::DecryptError, NotTls),
        ] {
            let words = error.to_string();
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            assert_eq!(Failure::of(&error), expected, "{words}");
        }
        assert_eq!(Failure::of(&io::ErrorKind::UnexpectedEof.into()), Gone);
        assert_eq!(Failure::of(&io::ErrorKind::TimedOut.into()), Late);
    }
}
