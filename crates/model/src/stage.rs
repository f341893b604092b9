//! The order of a release, in one place: two engines follow it, each with states of its own for every stage.

use crate::spec::{Deploy, Environment, Strategy};

/// What a release goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The tree at the commit.
    Source,
    /// Build and bake, which need nothing of one another.
    Make,
    /// What will change.
    Plan,
    /// People say yes or no.
    Approve,
    /// Hosts, with the image.
    Provision,
    /// The data comes to where the release needs it.
    Migrate,
    /// The revision comes onto the hosts.
    Deploy,
    /// The hosts are found well.
    Validate,
    /// The traffic moves, as the strategy says.
    Shift,
    /// On machines of a customer's own: one stage for all those from the hosts to the traffic.
    Machines,
    /// It is live.
    Record,
}

/// All stages of a push, in their order. `asks`: do people have to say yes?
pub fn order(environment: &Environment, asks: bool) -> Vec<Stage> {
    let mut order = vec![Stage::Source, Stage::Make, Stage::Plan];
    if asks {
        order.push(Stage::Approve);
    }
    order.extend(tail(environment));
    order
}

/// From hosts to the record.
pub fn tail(environment: &Environment) -> Vec<Stage> {
    let mut tail = back(environment);
    let migrates = environment.placement.is_none() && environment.deploy.migrate.is_some();
    if let Some(at) = tail
        .iter()
        .position(|stage| *stage == Stage::Deploy)
        .filter(|_| migrates)
    {
        tail.insert(at, Stage::Migrate);
    }
    tail
}

/// The same for a release that was live before: its migration ran when it was made.
pub fn back(environment: &Environment) -> Vec<Stage> {
    match environment.placement {
        Some(_) => vec![Stage::Machines, Stage::Record],
        None => again(),
    }
}

/// For a live release that gets another number of hosts.
pub fn again() -> Vec<Stage> {
    vec![
        Stage::Provision,
        Stage::Deploy,
        Stage::Validate,
        Stage::Shift,
        Stage::Record,
    ]
}

/// What share of the traffic each step of canary and linear gives, in percent; all of it is after the last.
pub fn shares(deploy: &Deploy) -> Vec<u32> {
    let Some(steps) = &deploy.steps else {
        return Vec::new();
    };
    let percent = steps.percent.clamp(1, 99);
    match deploy.strategy {
        Strategy::Linear => (1..)
            .map(|step| step * percent)
            .take_while(|share| *share < 100)
            .collect(),
        _ => vec![percent],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::App;

    fn environment(text: &str) -> Environment {
        let (app, _) = App::parse(&format!("app: shop\n{text}\n"), "vend.yaml", &|_| true).unwrap();
        app.environments[0].clone()
    }

    #[test]
    fn data_is_migrated_between_hosts_and_revision_and_only_on_the_way_forth() {
        let own = environment("deploy: { migrate: { script: m.sh } }");
        let forth = tail(&own);
        let at = forth.iter().position(|stage| *stage == Stage::Migrate).unwrap();
        assert_eq!((forth[at - 1], forth[at + 1]), (Stage::Provision, Stage::Deploy));
        assert!(!back(&own).contains(&Stage::Migrate));
        assert_eq!(back(&own), again());
    }

    #[test]
    fn machines_are_one_stage_and_people_are_asked_before_it() {
        let own = environment("placement: { registered: { role: web } }");
        assert_eq!(
            order(&own, true)[3..],
            [Stage::Approve, Stage::Machines, Stage::Record]
        );
    }

    #[test]
    fn shares_grow_to_less_than_all() {
        let of = |strategy, percent| {
            let mut deploy = environment(&format!("deploy: {{ strategy: {strategy} }}")).deploy;
            deploy.steps.as_mut().unwrap().percent = percent;
            shares(&deploy)
        };
        assert_eq!(of("canary", 5), [5]);
        assert_eq!(of("linear", 25), [25, 50, 75]);
        assert_eq!(of("linear", 34), [34, 68]);
        assert_eq!(of("linear", 99), [99]);
        assert_eq!(shares(&environment("").deploy), [0; 0]);
    }
}
