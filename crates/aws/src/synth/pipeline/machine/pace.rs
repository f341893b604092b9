//! How often something is looked at that takes its time. A look is nine events, of which an execution has 25,000: who looked every
//! 15 seconds at what takes hours would use them up, and nothing would be brought back.

use serde_json::{Value, json};

/// Seconds between two looks, at most.
const PAUSE_S: u32 = 600;
/// Seconds that CloudFormation may take: containers have three hours to come, and as many to go back.
const UPDATE_S: u32 = 6 * 3_600;
/// Seconds for all steps of the traffic together: weights alone take a minute, and somebody else's change may be waited for.
const STEPS_S: u32 = UPDATE_S / 2;

pub(super) struct Pace {
    /// Seconds between two looks, at least.
    least: usize,
    /// Seconds after which it is late.
    most: u32,
    /// The variable with the seconds that count for that.
    sum: &'static str,
    /// Says whose they are.
    words: &'static str,
}

impl Pace {
    /// Of one thing, by `$waited`.
    pub(super) fn of_one(least: usize) -> Self {
        Self {
            least,
            most: UPDATE_S,
            sum: "waited",
            words: "",
        }
    }

    /// Of steps that are bound by what all of them have waited: `$spent`. Each begins anew with short pauses, which are longer where
    /// there are many.
    pub(super) fn of_steps(steps: usize) -> Self {
        Self {
            least: (20 + steps).min(60),
            most: STEPS_S,
            sum: "spent",
            words: ", over all steps",
        }
    }

    pub(super) fn late(&self) -> String {
        format!("${} >= {}", self.sum, self.most)
    }

    /// ` for 6 hours`
    pub(super) fn words(&self) -> String {
        format!(" for {} hours{}", self.most / 3_600, self.words)
    }

    /// Waits an eighth of what was waited for it already.
    pub(super) fn wait(&self, next: &str) -> Value {
        let seconds = format!("$min([{PAUSE_S}, $max([{}, $floor($waited / 8)])])", self.least);
        let mut assign = json!({ "waited": format!("{{% $waited + {seconds} %}}") });
        assign[self.sum] = json!(format!("{{% ${} + {seconds} %}}", self.sum));
        json!({
            "Type": "Wait",
            "Seconds": format!("{{% {seconds} %}}"),
            "Assign": assign,
            "Next": next,
        })
    }
}
