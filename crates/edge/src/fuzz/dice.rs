//! Rules and requests of any bytes.

use model::route;

use super::ends;
use crate::head::Ask;

/// Bytes as choices; nothing is left: the first of everything.
pub struct Dice<'a>(pub &'a [u8]);

impl Dice<'_> {
    pub fn up_to(&mut self, most: u32) -> u32 {
        let first = self.0.split_off_first().copied().unwrap_or_default();
        u32::from(first) % (most + 1)
    }

    fn text(&mut self, of: &[&str], most: u32) -> String {
        let pieces = 1 + self.up_to(most);
        (0..pieces)
            .map(|_| of[self.up_to(of.len() as u32 - 1) as usize])
            .collect()
    }

    fn texts(&mut self, of: &[&str], prefix: &str) -> Vec<String> {
        (0..self.up_to(3))
            .map(|_| prefix.to_owned() + &self.text(of, 4))
            .collect()
    }

    pub fn rule(&mut self) -> route::Rule {
        const HOST: [&str; 7] = ["a", "b", ".", "*", "?", "*.", ".a"];
        const PATH: [&str; 5] = ["a", "b", "/", "*", "?"];
        let pair = |dice: &mut Self| route::Pair {
            key: (dice.up_to(1) == 1).then(|| dice.text(&["a", "*"], 1)),
            value: dice.text(&["a", "b", "?", "*", "\\*"], 2),
        };
        let conditions = route::Conditions {
            methods: self.texts(&["GET", "PUT"], ""),
            queries: (0..self.up_to(1)).map(|_| vec![pair(self)]).collect(),
            headers: (0..self.up_to(1))
                .map(|_| route::HeaderCondition {
                    name: self.text(&["x-a", "x-b"], 0),
                    values: vec![self.text(&["a", "B", "*", "?"], 2)],
                    regexes: self.texts(&["a", "b", "^", "$", "."], ""),
                })
                .collect(),
            sources: (0..self.up_to(1))
                .map(|_| self.text(&["192.0.2.1/32", "192.0.0.0/16", "::/0", "10.0.0.0/8"], 0))
                .filter_map(|network| network.parse().ok())
                .collect(),
            path_regexes: (0..self.up_to(1))
                .map(|_| self.text(&["a", "b", "/", "$", "."], 3))
                .collect(),
            host_regexes: (0..self.up_to(1))
                .map(|_| self.text(&["a", "b", "^", ".", "+"], 3))
                .collect(),
        };
        route::Rule {
            priority: self.up_to(40),
            place: "acme/shop/dev".parse().expect("it is a place"),
            hosts: self.texts(&HOST, ""),
            paths: self.texts(&PATH, "/"),
            conditions,
            transforms: self.transforms(),
            authenticate: None,
            action: self.action(),
            access: Vec::new(),
            own: route::Own::default(),
        }
    }

    fn transforms(&mut self) -> route::Transforms {
        let rewrite = |dice: &mut Self| {
            (dice.up_to(1) == 1).then(|| route::Rewrite {
                regex: dice.text(&["a", "b", "/", "^", "(.)", "\\?", "$"], 3),
                replace: dice.text(&["/", "a", "$1", "$0", "..", "?", " ", "#", "%2e", "."], 3),
            })
        };
        route::Transforms {
            url: rewrite(self),
            host: rewrite(self),
        }
    }

    fn action(&mut self) -> route::Action {
        if self.up_to(3) == 0 {
            return route::Action::Redirect(route::Redirect {
                status: 301,
                host: "x.test".into(),
                ..Default::default()
            });
        }
        let weights = (0..=self.up_to(3)).map(|group| route::Weighted {
            group: group.to_string(),
            weight: self.up_to(20),
        });
        route::Action::Forward {
            groups: weights.collect(),
            stickiness: None,
        }
    }

    pub fn ask(&mut self) -> Option<Ask> {
        let mut ask = Ask::default();
        let method = if self.up_to(1) == 0 { "GET" } else { "PUT" };
        let query = if self.up_to(1) == 0 { "?" } else { "?a=" };
        let path = "/".to_owned() + &self.text(&["a", "b", "/"], 4) + query + &self.text(&["a", "b", "*"], 2);
        ask.start(method, &path, &ends());
        let named = ask.name_host(&self.text(&["a", "b", ".", ".a", "A"], 5));
        for name in [&b"X-A"[..], b"X-B"] {
            ask.header(name, self.text(&["a", "b", ""], 2).as_bytes());
        }
        ask.end();
        named.then_some(ask)
    }
}
