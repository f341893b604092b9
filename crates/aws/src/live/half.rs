//! The two halves of an environment: which runs, with which image, and how much of the traffic it has. Pure.

use serde::Serialize;

use crate::stack::Stack;

/// One half, as the parameters of its stack say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Half {
    /// `Blue` or `Green`.
    pub word: &'static str,
    pub runs: bool,
    /// Empty: nothing was released into it yet.
    pub image: String,
    /// Percent of the traffic.
    pub weight: u32,
}

impl Half {
    /// `BlueTargetsArn`
    pub fn id(&self, what: &str) -> String {
        format!("{}{what}", self.word)
    }
}

/// The halves of an environment's stack. One that is changed in place has only the blue one, which has all the traffic.
pub fn halves(stack: &Stack) -> Vec<Half> {
    let value = |id: String| {
        let mut all = stack.parameters.iter();
        all.find(|(own, _)| *own == id).map(|(_, value)| value.as_str())
    };
    let half = |word: &'static str| {
        let runs = value(format!("{word}Runs"))? == "yes";
        let weight = value(format!("{word}Weight")).map_or(100, |text| text.parse().unwrap_or(0));
        Some(Half {
            word,
            runs,
            image: value(format!("{word}Image")).unwrap_or_default().to_owned(),
            weight: if runs { weight } else { 0 },
        })
    };
    ["Blue", "Green"].into_iter().filter_map(half).collect()
}

/// The half that serves: of two that run the one with more of the traffic, as flows see it.
pub fn serving(halves: &[Half]) -> Option<&Half> {
    let running = halves.iter().filter(|half| half.runs);
    // Of two with the same weight it is blue, which comes first.
    running.reduce(|best, other| if other.weight > best.weight { other } else { best })
}

/// The half that ran before, and could serve at once.
pub fn spare(halves: &[Half]) -> Option<&Half> {
    let serving = serving(halves)?;
    let mut others = halves.iter().filter(|half| half.word != serving.word);
    others.find(|half| half.runs && !half.image.is_empty())
}

/// The parameters that give a half all the traffic.
pub fn all_to(halves: &[Half], word: &str) -> Vec<(String, String)> {
    let weight = |half: &Half| if half.word == word { "100" } else { "0" };
    halves
        .iter()
        .map(|half| (half.id("Weight"), weight(half).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::Status;

    fn stack(parameters: &[(&str, &str)]) -> Stack {
        Stack {
            name: "s".into(),
            id: "i".into(),
            status: Status("UPDATE_COMPLETE".into()),
            why: None,
            outputs: Vec::new(),
            parameters: parameters
                .iter()
                .map(|(id, value)| ((*id).into(), (*value).into()))
                .collect(),
            tags: Vec::new(),
            is_protected: false,
            at: "t".into(),
            drift: String::new(),
        }
    }

    /// Blue's and green's `Runs`, image and weight; which serves and which could.
    fn check(blue: (&str, &str, &str), green: (&str, &str, &str), serves: Option<&str>, could: Option<&str>) {
        let found = halves(&stack(&[
            ("BlueRuns", blue.0),
            ("BlueImage", blue.1),
            ("BlueWeight", blue.2),
            ("GreenRuns", green.0),
            ("GreenImage", green.1),
            ("GreenWeight", green.2),
            ("BaseImage", "/aws/service/x"),
        ]));
        assert_eq!(serving(&found).map(|half| half.word), serves);
        assert_eq!(spare(&found).map(|half| half.word), could);
    }

    #[test]
    fn who_serves_is_who_flows_take_for_the_old_one() {
        check(("no", "", "100"), ("no", "", "0"), None, None);
        check(("yes", "a", "100"), ("no", "", "0"), Some("Blue"), None);
        check(
            ("yes", "a", "0"),
            ("yes", "b", "100"),
            Some("Green"),
            Some("Blue"),
        );
        check(
            ("yes", "a", "50"),
            ("yes", "b", "50"),
            Some("Blue"),
            Some("Green"),
        );
        // What does not run has no traffic, whatever its weight says.
        check(("no", "a", "100"), ("yes", "b", "0"), Some("Green"), None);
        check(("yes", "a", "100"), ("yes", "", "0"), Some("Blue"), None);
    }

    #[test]
    fn one_half_has_all_the_traffic() {
        let found = halves(&stack(&[("BlueRuns", "yes"), ("BlueImage", "a")]));
        assert_eq!((found.len(), found[0].weight), (1, 100));
        assert_eq!(spare(&found), None);
        let both = halves(&stack(&[("BlueRuns", "yes"), ("GreenRuns", "yes")]));
        let turned = all_to(&both, "Green");
        assert_eq!(
            turned,
            [
                ("BlueWeight".into(), "0".into()),
                ("GreenWeight".into(), "100".into())
            ]
        );
    }
}
