use camino::Utf8PathBuf;
use model::{Digest, Secret, spec};
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

fn deployment(began: i64, cause: Option<&str>) -> Deployment {
    Deployment {
        id: DeploymentId::from_bits(began.unsigned_abs()),
        place: DEV.parse().unwrap(),
        release: 3,
        execution: None,
        strategy: spec::Strategy::InPlace,
        cause: cause.map(str::to_owned),
        state: DeploymentState::Failed,
        reason: None,
        code: None,
        paused: None,
        started_at: at(began),
        ended_at: None,
    }
}

#[test]
fn what_missed_the_live_release_is_late_and_what_failed_after_it_goes_back() {
    use Stand::{Again, Back, Failed, GivenUp, Has, Late};
    for (release, began, tries, failure, stand) in [
        (Some(2), Some(20), 0, None, Has),
        (None, None, 0, None, Late),
        // It was away while v2 came, or while people went back to v2.
        (Some(1), Some(10), 0, None, Late),
        (Some(3), Some(15), 0, Some("exit code 1"), Late),
        (Some(1), None, 0, None, Late),
        // v3 failed after v2 was live, there or on another machine.
        (Some(3), Some(30), 0, Some("exit code 1"), Back),
        (Some(3), Some(30), 0, None, Back),
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
            last: began
                .map(|began| (machine.id.clone(), deployment(began, None)))
                .into_iter()
                .collect(),
        };
        assert_eq!(rule.judge(&machine), stand, "{machine:?}");
    }
}

#[test]
fn a_deployment_says_which_one_it_undoes() {
    let failed = deployment(30, None).id;
    let undoes = format!("rolls back {failed}");
    for (release, last, why) in [
        (Some(3), Some(deployment(30, None)), Why::Back(failed.clone())),
        // It failed there as well, and is tried again.
        (Some(2), Some(deployment(40, Some(&undoes))), Why::Back(failed)),
        (Some(2), Some(deployment(40, Some("joined late"))), Why::Late),
        // It was away since.
        (Some(1), Some(deployment(10, Some(&undoes))), Why::Late),
        (None, None, Why::Late),
    ] {
        let machine = machine(release, 0, None);
        let told = format!("{release:?} of {last:?}");
        let rule = Rule {
            live: 2,
            settled: Some(at(20)),
            last: last.map(|last| (machine.id.clone(), last)).into_iter().collect(),
        };
        let found = rule.why(&machine);
        assert_eq!(found, why, "{told}");
        assert_eq!(Why::read(&found.to_string()).unwrap_or_default(), why, "{told}");
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
        (Stand::Back, true),
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

impl Story {
    /// Why the first of what is due is.
    async fn why(&self, connected: &[&HostId]) -> String {
        let connected = connected.iter().copied().cloned().collect();
        let now = at(self.clock);
        let due = self.store.read(move |db| due(db, &connected, now)).await.unwrap();
        due[0].why.to_string()
    }

    /// What is said of the deployment that undoes the last release's.
    fn undoes(&self) -> String {
        Why::Back(DeploymentId::from_bits(self.clock.unsigned_abs())).to_string()
    }

    /// The live release is brought back to a machine, and is well there.
    async fn goes_back(&mut self, id: &HostId) {
        let (id, cause) = (id.clone(), self.undoes());
        self.clock += 1;
        let own = DeploymentId::from_bits(self.clock.unsigned_abs());
        self.does(move |tx, by| {
            let place: Place = DEV.parse().unwrap();
            let live = tx.environment(&place)?.live.unwrap();
            let new = NewDeployment {
                id: own.clone(),
                place,
                release: live,
                execution: None,
                strategy: spec::Strategy::InPlace,
                cause: Some(cause),
            };
            tx.begin_deployment(&new, by)?;
            tx.set_machine_release(&id, live, &own)?;
            tx.settle_machine(&id, None)?;
            tx.finish_deployment(&own, DeploymentState::Succeeded, None, None, by)
        })
        .await;
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
    // v3 fails on one of them, which goes back with the other.
    story.release(DEV, WEB, &[&first], false).await;
    let both = vec![("dev".to_owned(), vec![first.clone(), second.clone()])];
    assert_eq!(story.due(&all).await, both);
    assert_eq!(story.why(&all).await, story.undoes());
    story.goes_back(&first).await;
    assert_eq!(story.due(&all).await, only(&second));
    assert_eq!(story.why(&all).await, "joined late");

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
