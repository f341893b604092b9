//! Machines that lack the live release because they joined after its deployment, or were away then: they get it by
//! themselves, in a deployment of their own, as CodeDeploy's automatic deployments to new instances of an Auto Scaling
//! group. <https://docs.aws.amazon.com/codedeploy/latest/userguide/integrations-aws-auto-scaling.html>
//!
//! What a newer deployment left on a machine when it failed stays there: going back is for people to say.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use model::{HostId, Place, spec::Placement};
use store::{Db, Deployment, Environment, Error, Machine, PushState};

use crate::reconcile::patience;

/// The kind of an execution that brings the live release to such machines.
pub const JOIN: &str = "join";
/// Why its deployment is, on record.
pub const CAUSE: &str = "joined late";

/// A machine that it could not be brought to so many times in a row waits for somebody's word.
pub const MOST: u32 = 5;

/// How a machine stands to the live release of its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    Has,
    /// It has missed it: it gets it once it is connected.
    Late,
    /// Bringing it has failed: it is tried again then.
    Again(Timestamp),
    /// Bringing it has failed too often.
    GivenUp,
    /// A newer deployment failed, and its release lies there.
    Stays,
    /// It has it, and its deployment failed there.
    Failed,
}

impl Stand {
    /// Is it time to bring it?
    pub fn is_due(self, now: Timestamp) -> bool {
        match self {
            Self::Late => true,
            Self::Again(at) => at <= now,
            Self::Has | Self::GivenUp | Self::Stays | Self::Failed => false,
        }
    }
}

/// What machines of an environment are judged by.
pub struct Rule {
    live: u64,
    /// When the newest deployment began that was for all of them and went well. What came to a machine before is old.
    settled: Option<Timestamp>,
    /// When the deployments began that machines had last.
    began: BTreeMap<HostId, Timestamp>,
}

impl Rule {
    pub fn read(db: &Db<'_>, place: &Place, live: u64, machines: &[Machine]) -> Result<Self, Error> {
        let began = |own: Deployment| own.started_at;
        let mut rule = Self {
            live,
            settled: db.settled_deployment(place)?.map(began),
            began: BTreeMap::new(),
        };
        for machine in machines {
            let Some(id) = &machine.deployment else { continue };
            match db.deployment(id) {
                Ok(own) => rule.began.insert(machine.id.clone(), own.started_at),
                // Forgotten: it is older than all that is on record.
                Err(Error::Missing { .. }) => None,
                Err(error) => return Err(error),
            };
        }
        Ok(rule)
    }

    pub fn judge(&self, machine: &Machine) -> Stand {
        let has = machine.release == Some(self.live);
        if machine.tries == 0 {
            return match (has, &machine.failure) {
                (true, None) => Stand::Has,
                (true, Some(_)) => Stand::Failed,
                (false, _) if self.has_missed_it(machine) => Stand::Late,
                (false, _) => Stand::Stays,
            };
        }
        next_try(machine).map_or(Stand::GivenUp, Stand::Again)
    }

    fn has_missed_it(&self, machine: &Machine) -> bool {
        let began = self.began.get(&machine.id).filter(|_| machine.release.is_some());
        began.is_none_or(|began| self.settled.is_some_and(|settled| *began < settled))
    }
}

/// When a machine is tried again to which the live release could not be brought. `None`: not by itself.
pub fn next_try(machine: &Machine) -> Option<Timestamp> {
    let last = machine.tried_at.filter(|_| (1..MOST).contains(&machine.tries))?;
    Some(last + patience::pause(machine.tries))
}

/// Machines that are to get the live release of an environment now.
#[derive(Debug, PartialEq, Eq)]
pub struct Due {
    pub place: Place,
    pub live: u64,
    pub machines: Vec<HostId>,
}

/// Of all environments. `connected`: only these can be brought anything.
pub fn due(db: &Db<'_>, connected: &BTreeSet<HostId>, now: Timestamp) -> Result<Vec<Due>, Error> {
    let mut machines = db.machines(None)?;
    machines.retain(|machine| !machine.leaving && connected.contains(&machine.id));
    if machines.is_empty() {
        return Ok(Vec::new());
    }
    let placed = placed(db)?;
    let mut due = Vec::new();
    for (environment, live, placement) in &placed {
        let place = &environment.place;
        let mut own = machines.clone();
        own.retain(|machine| match &machine.place {
            Some(has) => has == place && machine.fits(&placement.registered),
            None => best(&placed, machine) == Some(place),
        });
        let rule = Rule::read(db, place, *live, &own)?;
        own.retain(|machine| rule.judge(machine).is_due(now));
        if !own.is_empty() && is_quiet(db, place)? {
            due.push(Due {
                place: place.clone(),
                live: *live,
                machines: own.into_iter().map(|machine| machine.id).collect(),
            });
        }
    }
    Ok(due)
}

type Placed = (Environment, u64, Placement);

/// Environments whose live release is for machines.
fn placed(db: &Db<'_>) -> Result<Vec<Placed>, Error> {
    let mut placed = Vec::new();
    for environment in db.environments(None)? {
        let Some(live) = environment.live else { continue };
        let placement = db.release(&environment.place, live)?.content.spec.placement;
        placed.extend(placement.map(|placement| (environment, live, placement)));
    }
    Ok(placed)
}

/// Which environment a machine is for that none has: the one that asks for most of its labels, of two such the older.
fn best<'p>(placed: &'p [Placed], machine: &Machine) -> Option<&'p Place> {
    let fitting = placed.iter().filter(|(own, _, placement)| {
        own.place.tenant == machine.tenant && machine.fits(&placement.registered)
    });
    let best = fitting.min_by_key(|(own, _, placement)| {
        let most_first = std::cmp::Reverse(placement.registered.len());
        (most_first, own.created_at, own.place.to_string())
    });
    best.map(|(own, ..)| &own.place)
}

/// Is nothing under way there, and nothing about to be? What comes takes all machines along.
pub fn is_quiet(db: &Db<'_>, place: &Place) -> Result<bool, Error> {
    let newest = db.pushes(&place.tenant, &place.app, Some(&place.environment), None, 1)?;
    let waits = newest
        .first()
        .is_some_and(|push| push.state == PushState::Waiting);
    Ok(!waits && super::runs::working(db, place)?.is_none())
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;
    use model::{DeploymentId, Digest, Secret, spec};
    use store::{By, DeploymentState, NewDeployment, NewInvitation, NewPush, NewRelease, Store, Tx};

    use super::*;
    use crate::fixtures;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn machine(release: Option<u64>, tries: u32, failure: Option<&str>) -> Machine {
        Machine {
            id: HostId::from_bits(1),
            tenant: "acme".parse().unwrap(),
            name: "box".into(),
            labels: [
                ("role".to_owned(), "web".to_owned()),
                ("zone".to_owned(), "a".to_owned()),
            ]
            .into(),
            place: None,
            release,
            deployment: None,
            tries,
            tried_at: (tries > 0).then(|| at(100)),
            failure: failure.map(str::to_owned),
            leaving: false,
            address: None,
            joined_at: at(0),
            seen_at: None,
        }
    }

    #[test]
    fn what_missed_the_live_release_is_late_and_what_failed_after_it_stays() {
        use Stand::{Again, Failed, GivenUp, Has, Late, Stays};
        for (release, began, tries, failure, stand) in [
            (Some(2), Some(20), 0, None, Has),
            (None, None, 0, None, Late),
            // It was away while v2 came, or while people went back to v2.
            (Some(1), Some(10), 0, None, Late),
            (Some(3), Some(15), 0, Some("exit code 1"), Late),
            (Some(1), None, 0, None, Late),
            // v3 failed after v2 was live, there or on another machine.
            (Some(3), Some(30), 0, Some("exit code 1"), Stays),
            (Some(3), Some(30), 0, None, Stays),
            // v2's own deployment was well enough without this one.
            (Some(2), Some(20), 0, Some("exit code 1"), Failed),
            // A minute, two, four and eight; then no more.
            (Some(2), Some(30), 1, Some("exit code 1"), Again(at(160))),
            (None, None, 2, None, Again(at(220))),
            (Some(2), Some(30), 4, Some("exit code 1"), Again(at(580))),
            (Some(2), Some(30), 5, Some("exit code 1"), GivenUp),
            (None, None, 6, None, GivenUp),
        ] {
            let machine = machine(release, tries, failure);
            let rule = Rule {
                live: 2,
                settled: Some(at(20)),
                began: began
                    .map(|began| (machine.id.clone(), at(began)))
                    .into_iter()
                    .collect(),
            };
            assert_eq!(rule.judge(&machine), stand, "{machine:?}");
        }
    }

    #[test]
    fn only_what_is_due_is_brought_now() {
        for (stand, due) in [
            (Stand::Late, true),
            (Stand::Again(at(9)), true),
            (Stand::Again(at(10)), true),
            (Stand::Again(at(11)), false),
            (Stand::GivenUp, false),
            (Stand::Stays, false),
            (Stand::Failed, false),
            (Stand::Has, false),
        ] {
            assert_eq!(stand.is_due(at(10)), due, "{stand:?}");
        }
    }

    /// A platform's catalogue, to which things happen one after the other.
    struct Story {
        store: Store,
        clock: i64,
        _directory: tempfile::TempDir,
    }

    const DEV: &str = "acme/shop/dev";

    impl Story {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
            let story = Self {
                store: Store::open(&path).unwrap(),
                clock: 0,
                _directory: directory,
            };
            story
                .does(|tx, by| {
                    let place: Place = DEV.parse().unwrap();
                    tx.create_tenant(&place.tenant, by)?;
                    tx.create_app(&place.tenant, &place.app, None, by)
                })
                .await;
            story
        }

        async fn does<T: Send + 'static>(
            &self,
            what: impl FnOnce(&mut Tx<'_>, &By) -> Result<T, Error> + Send + 'static,
        ) -> T {
            let by = By::platform(at(self.clock));
            self.store.write(move |tx| what(tx, &by)).await.unwrap()
        }

        async fn joins(&self, number: u64, labels: &[(&str, &str)]) -> HostId {
            let (id, secret) = (HostId::from_bits(number), Secret::new(format!("secret {number}")));
            let labels = labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let new = NewInvitation {
                tenant: "acme".parse().unwrap(),
                labels: labels.collect(),
                expires_at: at(1_000_000),
            };
            let own = id.clone();
            self.does(move |tx, by| {
                tx.invite_machine(&secret, &new, by)?;
                tx.join_machine(&own, &secret, "box", Digest::of(number.to_be_bytes()), by.at)
            })
            .await;
            id
        }

        /// A release to the environment's machines, of which these get it; live if it goes well.
        async fn release(&mut self, place: &str, placement: &str, reached: &[&HostId], well: bool) {
            self.clock += 100;
            let place: Place = place.parse().unwrap();
            let text = format!("app: shop\nplacement: {{ registered: {placement} }}\n");
            let spec = spec::App::parse(&text, "vend.yaml", &|_| true)
                .unwrap()
                .0
                .environments
                .remove(0);
            let labels = spec.placement.clone().unwrap().registered;
            let reached: Vec<HostId> = reached.iter().copied().cloned().collect();
            let deployment = DeploymentId::from_bits(self.clock.unsigned_abs());
            self.does(move |tx, by| {
                tx.ensure_environment(&place, "main", by)?;
                let new = NewRelease {
                    commit: fixtures::commit("main", by.at),
                    source: Digest::of("source"),
                    image: Digest::of("image"),
                    revision: Digest::of("revision"),
                    spec,
                    secrets: BTreeMap::new(),
                    execution: None,
                };
                let number = tx.create_release(&place, &new, by)?.content.number;
                let new = NewDeployment {
                    id: deployment.clone(),
                    place: place.clone(),
                    release: number,
                    execution: None,
                    strategy: spec::Strategy::InPlace,
                    cause: None,
                };
                tx.begin_deployment(&new, by)?;
                tx.claim_machines(&place, &labels, by)?;
                for id in &reached {
                    tx.set_machine_release(id, number, &deployment)?;
                    tx.settle_machine(id, (!well).then_some("exit code 1"))?;
                }
                let state = match well {
                    true => DeploymentState::Succeeded,
                    false => DeploymentState::Failed,
                };
                if well {
                    tx.set_live(&place, number, by.at, by)?;
                }
                tx.finish_deployment(&deployment, state, None, None, by)
            })
            .await;
        }

        /// What is due, by its environment's name, while these are connected.
        async fn due(&self, connected: &[&HostId]) -> Vec<(String, Vec<HostId>)> {
            let connected = connected.iter().copied().cloned().collect();
            let now = at(self.clock);
            let due = self.store.read(move |db| due(db, &connected, now)).await.unwrap();
            due.into_iter()
                .map(|due| (due.place.environment.to_string(), due.machines))
                .collect()
        }
    }

    const WEB: &str = "{ role: web }";

    #[tokio::test]
    async fn machines_that_missed_a_release_are_found_and_others_left_alone() {
        let mut story = Story::new().await;
        let first = story.joins(1, &[("role", "web")]).await;
        let second = story.joins(2, &[("role", "web")]).await;
        let all = [&first, &second];
        assert_eq!(story.due(&all).await, [], "nothing is live");
        story.release(DEV, WEB, &all, true).await;
        assert_eq!(story.due(&all).await, [], "both have it");

        let third = story.joins(3, &[("role", "web")]).await;
        let batch = story.joins(4, &[("role", "batch")]).await;
        let all = [&first, &second, &third, &batch];
        let only = |id: &HostId| vec![("dev".to_owned(), vec![id.clone()])];
        assert_eq!(story.due(&all).await, only(&third));
        assert_eq!(story.due(&[&first, &second]).await, [], "it is away");

        // v2 goes to one, while another is away: that one is late when it comes back.
        story.release(DEV, WEB, &[&first, &third], true).await;
        assert_eq!(story.due(&all).await, only(&second));
        // v3 fails on one of them, and stays there.
        story.release(DEV, WEB, &[&first], false).await;
        assert_eq!(story.due(&all).await, only(&second));

        // What is tried is not tried again at once, and not for ever.
        let mut tried = 0;
        for _ in 0..2_000 {
            let due = story.due(&all).await;
            if !due.is_empty() {
                assert_eq!(due, only(&second));
                tried += 1;
                let id = second.clone();
                story
                    .does(move |tx, by| {
                        let tries = tx.machine(&id)?.tries + 1;
                        tx.set_machine_tries(&id, tries, by.at)?;
                        tx.settle_machine(&id, Some("exit code 1"))
                    })
                    .await;
                assert_eq!(story.due(&all).await, []);
            }
            story.clock += 1;
        }
        assert_eq!(tried, MOST);
        // The next release is for it, too; and what is waited for comes first.
        story.release(DEV, WEB, &all[..3], true).await;
        assert_eq!(story.due(&all).await, []);
        story.joins(5, &[("role", "web")]).await;
        let fifth = HostId::from_bits(5);
        assert_eq!(story.due(&[&fifth]).await, only(&fifth));
        let push = NewPush {
            tenant: "acme".parse().unwrap(),
            app: "shop".parse().unwrap(),
            environment: Some("dev".parse().unwrap()),
            branch: "main".into(),
            commit: story
                .store
                .read(|db| db.release(&DEV.parse().unwrap(), 1))
                .await
                .unwrap()
                .content
                .commit,
            origin: "git".into(),
            event: None,
        };
        story.does(move |tx, by| tx.enqueue_push(&push, by)).await;
        assert_eq!(
            story.due(&[&fifth]).await,
            [],
            "a push waits, which takes it along"
        );
    }

    #[tokio::test]
    async fn a_machine_is_for_the_environment_that_asks_for_most_of_its_labels() {
        let mut story = Story::new().await;
        let first = story.joins(1, &[("role", "web")]).await;
        let south = story.joins(2, &[("role", "web"), ("site", "south")]).await;
        story.release(DEV, WEB, &[&first], true).await;
        story
            .does(|tx, by| tx.free_machine(&HostId::from_bits(2), by))
            .await;
        assert_eq!(
            story.due(&[&first, &south]).await,
            [("dev".to_owned(), vec![south.clone()])]
        );
        let third = story.joins(3, &[("role", "web"), ("site", "south")]).await;
        story
            .release("acme/shop/south", "{ role: web, site: south }", &[&south], true)
            .await;
        story
            .does(|tx, by| tx.free_machine(&HostId::from_bits(3), by))
            .await;
        assert_eq!(
            story.due(&[&first, &south, &third]).await,
            [("south".to_owned(), vec![third])]
        );
    }
}
