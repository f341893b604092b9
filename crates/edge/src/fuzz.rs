//! What the fuzz targets outside of this crate can reach of its parsers, one file each under the name of its target. No
//! interface: it is hidden, and only asserts.

mod certificate;
mod change;
mod chunked;
mod cookies;
mod dice;
mod names;
mod ocsp;
mod proxied;
mod redirect;
mod reply;
mod request;
mod rules;
mod snapshot;
mod sources;

use std::net::{Ipv4Addr, SocketAddr};

pub use certificate::certificate;
pub use change::change;
pub use chunked::chunked;
pub use cookies::cookies;
pub use names::names;
pub use ocsp::ocsp;
pub use proxied::proxied;
pub use redirect::redirect;
pub use reply::reply;
pub use request::request;
pub use rules::rules;
pub use snapshot::snapshot;
pub use sources::sources;

use crate::{http1::parse, worker::Ends};

/// The length of the head, which is the same when it arrives byte by byte.
fn find(bytes: &[u8]) -> Option<usize> {
    let whole = parse::Scan::default().find(bytes);
    let mut scan = parse::Scan::default();
    let step = 1 + bytes.len() / 64;
    let mut ends: Vec<usize> = (0..bytes.len()).step_by(step).collect();
    ends.push(bytes.len());
    let parts = ends
        .into_iter()
        .map(|end| scan.find(&bytes[..end]))
        .find(|found| !matches!(found, Ok(None)));
    match (whole, parts) {
        (Ok(found), parts) => {
            assert_eq!(
                parts.unwrap_or(Ok(None)),
                Ok(found),
                "bit by bit it ends elsewhere"
            );
            found
        }
        (Err(_), parts) => {
            assert!(matches!(parts, Some(Err(_))), "bit by bit it is taken");
            None
        }
    }
}

fn ends() -> Ends {
    Ends {
        peer: SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 4_000)),
        local: SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
        tls: false,
        identity: None,
        connection: None,
        only: None,
    }
}

#[cfg(test)]
mod tests {
    use model::route::Delta;
    use proptest::prelude::*;

    use crate::{book::Book, lines};

    type Target = fn(&[u8]);

    /// Seeds of the fuzz targets, whole and with a byte changed: the targets themselves need another toolchain.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = format!("{}/../../fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(folder).unwrap();
        files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect()
    }

    /// A seed that is refused at its first word leads nowhere.
    #[test]
    fn seeds_of_tables_are_tables() {
        for seed in seeds("edge_change") {
            let delta: Delta = serde_json::from_slice(&seed).unwrap();
            Book::default().check(&delta).unwrap();
        }
        for seed in seeds("edge_snapshot") {
            let mut book = Book::default();
            let read = lines::parse(&*seed, |delta| {
                book.check(&delta)?;
                book.apply(&delta, 0);
                Ok(())
            });
            assert_eq!(read.unwrap().all, seed.len() as u64);
            assert!(!book.rules().is_empty());
        }
    }

    proptest! {
        #[test]
        fn seeds_and_their_like_hold(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let targets: [(&str, Target); 13] = [
                ("edge_request", super::request), ("edge_reply", super::reply), ("edge_chunked", super::chunked),
                ("edge_change", super::change), ("edge_proxy", super::proxied), ("edge_snapshot", super::snapshot),
                ("edge_certificate", super::certificate), ("edge_names", super::names),
                ("edge_rules", super::rules), ("edge_ocsp", super::ocsp), ("edge_redirect", super::redirect),
                ("edge_cookies", super::cookies), ("edge_sources", super::sources),
            ];
            for (target, run) in targets {
                for mut seed in seeds(target) {
                    run(&seed);
                    if !seed.is_empty() {
                        let at = at.index(seed.len());
                        seed[at] = byte;
                        run(&seed);
                    }
                }
            }
        }
    }
}
