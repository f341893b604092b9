//! Where this edge speaks TLS, and who is sent there: the default actions of the listeners that ALB has in its place.

use std::{net::SocketAddr, sync::Arc};

use model::route::Redirect;

use crate::{answer::Answer, head::Ask, tls::Certificates};

/// The listeners of all rules that speak TLS, in their order.
pub struct Secure {
    doors: Vec<(SocketAddr, Arc<Certificates>)>,
    /// Who comes without is served all the same.
    plain: bool,
}

impl Secure {
    /// Of these listeners and what they show.
    pub fn new(doors: Vec<(SocketAddr, Arc<Certificates>)>, plain: bool) -> Self {
        Self { doors, plain }
    }

    /// Does only this machine reach where TLS is spoken?
    pub fn is_local(&self) -> bool {
        !self.doors.is_empty()
            && self
                .doors
                .iter()
                .all(|(at, _)| at.ip().to_canonical().is_loopback())
    }

    /// Before any rule is asked: whoever comes without TLS is sent to it, for a name that has a certificate. Without one a
    /// client would be sent to where it can trust nobody.
    pub fn first(&self, ask: &Ask) -> Option<Answer> {
        let (at, certificates) = self.reached(ask).filter(|_| !self.plain)?;
        certificates.are_for(&ask.host).then(|| sent(*at, ask))
    }

    /// When no rule is for it: the same, whatever the name has. A rule may come for it: browsers must ask again.
    pub fn last(&self, ask: &Ask) -> Option<Answer> {
        self.reached(ask).map(|(at, _)| sent(*at, ask))
    }

    /// The listener to which a request can be sent that came without TLS. A socket that is a rule's own sends nobody away,
    /// and what only this machine reaches is shown to nobody from elsewhere.
    fn reached(&self, ask: &Ask) -> Option<&(SocketAddr, Arc<Certificates>)> {
        if ask.tls || ask.host.is_empty() || ask.only.is_some() {
            return None;
        }
        let reached = |at: SocketAddr| ask.loopback || !at.ip().to_canonical().is_loopback();
        self.doors.iter().find(|(at, _)| reached(*at))
    }
}

/// The same address by HTTPS. Behind a translation of addresses ports of ours are nobody's but the usual ones.
fn sent(at: SocketAddr, ask: &Ask) -> Answer {
    let port = if ask.is_at_usual_port() { 443 } else { at.port() };
    let there = Redirect {
        status: 301,
        protocol: "HTTPS".into(),
        port: port.to_string(),
        ..Redirect::default()
    };
    Answer {
        passing: true,
        ..Answer::redirect(&there, ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Ends;

    /// A request that came to `local` and names `host`.
    fn ask(local: &str, host: &str, tls: bool, own: bool) -> Ask {
        let ends = Ends {
            peer: "192.0.2.9:1".parse().unwrap(),
            local: local.parse().unwrap(),
            tls,
            identity: None,
            connection: None,
            only: own.then(|| [Box::from("other.test")].into()),
        };
        let mut ask = Ask::default();
        ask.start("GET", "/a?b=c", &ends);
        assert!(ask.name_host(host));
        ask
    }

    fn secure(doors: &[&str], certificates: &Arc<Certificates>, plain: bool) -> Secure {
        let doors = doors.iter();
        let doors = doors.map(|at| (at.parse().unwrap(), Arc::clone(certificates)));
        Secure::new(doors.collect(), plain)
    }

    /// Where it leads to, which nobody may keep.
    fn location(answer: Answer) -> String {
        let mut out = Vec::new();
        answer.write(&mut out, "", false);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 301 ") && text.contains("\r\nCache-Control: no-store\r\n"));
        answer.location.unwrap()
    }

    #[test]
    fn who_no_rule_is_for_is_sent_to_https_where_it_can_be_reached() {
        let sent = |local: &str, host: &str, doors: &[&str], own: bool| {
            let secure = secure(doors, &Arc::default(), true);
            secure.last(&ask(local, host, false, own)).map(location)
        };
        let there = |port: &str| Some(format!("https://shop.test{port}/a?b=c"));
        let (outside, inside) = ("198.51.100.1:8080", "127.0.0.1:8080");
        // The port that is bound is not the one that clients see.
        assert_eq!(sent(outside, "shop.test", &["0.0.0.0:8443"], false), there(""));
        assert_eq!(sent(outside, "shop.test:80", &["0.0.0.0:8443"], false), there(""));
        assert_eq!(
            sent(outside, "shop.test:8080", &["0.0.0.0:8443"], false),
            there(":8443")
        );
        let both = ["127.0.0.1:4443", "[::]:8443"];
        assert_eq!(sent(outside, "shop.test:8080", &both, false), there(":8443"));
        assert_eq!(sent(inside, "shop.test:8080", &both, false), there(":4443"));
        assert_eq!(sent(outside, "shop.test", &["[::1]:443"], false), None);
        assert_eq!(sent(outside, "shop.test", &["0.0.0.0:443"], true), None);
        assert_eq!(sent(outside, "shop.test", &[], false), None);
    }

    #[test]
    fn a_name_with_a_certificate_is_asked_over_https_before_any_rule() {
        let folder = tempfile::tempdir().unwrap();
        let folder = camino::Utf8Path::from_path(folder.path()).unwrap();
        let made = rcgen::generate_simple_self_signed(["shop.test".into(), "*.apps.test".into()]).unwrap();
        let pem = made.cert.pem() + &made.signing_key.serialize_pem();
        std::fs::write(folder.join("shop.pem"), pem).unwrap();
        let certificates = Arc::new(Certificates::default());
        certificates.read(folder).unwrap();
        let (outside, doors) = ("198.51.100.1:80", ["0.0.0.0:443"]);
        let sent = |ask: &Ask, plain| secure(&doors, &certificates, plain).first(ask).map(location);
        for (host, expected) in [
            ("shop.test", Some("https://shop.test/a?b=c")),
            ("SHOP.test:80", Some("https://shop.test/a?b=c")),
            ("one.apps.test", Some("https://one.apps.test/a?b=c")),
            ("one.two.apps.test", None),
            ("other.test", None),
        ] {
            let asked = ask(outside, host, false, false);
            assert_eq!(sent(&asked, false).as_deref(), expected, "{host}");
            assert_eq!(sent(&asked, true), None, "{host}");
        }
        assert_eq!(sent(&ask(outside, "shop.test", true, false), false), None);
        assert_eq!(sent(&ask(outside, "shop.test", false, true), false), None);
        let nowhere = secure(&[], &certificates, false);
        assert!(nowhere.first(&ask(outside, "shop.test", false, false)).is_none());
    }
}
