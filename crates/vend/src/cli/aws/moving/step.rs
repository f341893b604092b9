//! The steps of the way to AWS, one after the other.

use std::time::Duration;

use ::aws::{
    live::release,
    plan::{Doing, doing},
    synth::Kind,
};
use model::wire::{Move as Moved, NewMove, Release, Side};
use tokio::time::{Instant, sleep};

use super::{
    Move, POLL, Trip, data, frost, is_bad,
    plan::{self, Plan, View},
};
use crate::{
    cli::aws::{
        Exit, Failure, agreed,
        apply::{self, Apply},
        broken,
        home::{Home, Spot},
        project::{Loaded, Project},
        push::{self, LOOKED, Push},
        secrets,
    },
    output::clean,
};

/// Until the load balancer here sees the one there healthy: its hosts are live, so only names and probes may be late.
const HEALTHY: Duration = Duration::from_secs(300);

/// Looks at a share that may fail one after the other.
const MISSED: u32 = 10;

/// The whole way, from wherever it is.
pub async fn there(trip: &Trip<'_>, own: &Move) -> Result<(), Failure> {
    let release = trip.live().await?;
    let found = trip.found().await?;
    let same = Same::of(trip, own, &release).await?;
    let (plan, idle) = look(trip, own, &release, found.as_ref(), &same).await?;
    trip.output.show(&plan, plan::text);
    if own.plan {
        return Ok(());
    }
    if !agreed("Move it?", own.yes, trip.output)? {
        return Err(Failure::failed("nothing was changed"));
    }
    let found = hold(trip, found, &same.host).await?;
    if found.finished_at.is_some() {
        trip.output
            .line(&format!("{} runs on AWS since it was finished", trip.target));
        return Ok(());
    }
    if found.release != release.number {
        // Another became live while somebody was asked.
        let what = format!(
            "v{} of {} is live now, and v{} was planned",
            found.release, trip.target, release.number
        );
        return Err(Failure::new(Exit::Refused, what).next("type it again"));
    }
    if idle {
        trip.tell("stacks", "are as the files say");
    } else {
        apply::run(&Apply::agreed(same.project(own)), trip.output).await?;
    }
    let spot = same.spot(trip)?;
    if found.data.is_some() {
        if found.data == Some(Side::Away) && found.closed {
            // It was on its way back. From then on nothing that was counted before arrives here any more.
            trip.forward(100).await?;
        }
        // A release may have to change its tables; and what was carried must get in.
        frost::thaw(trip, &same.home, &spot).await?;
    }
    refuse_missing(&spot).await?;
    trip.tell("secrets", "are set there");
    released(trip, own, &release, &spot).await?;
    healthy(trip).await?;
    match trip.the_move().await?.data {
        Some(_) => Box::pin(data::carry(trip, &same.home, &spot)).await,
        None => traffic(trip, own).await,
    }
}

/// The files of the working tree, which must be those of the release that is live.
pub struct Same {
    loaded: Loaded,
    pub home: Home,
    pub host: String,
    only: Vec<String>,
}

impl Same {
    pub async fn of(trip: &Trip<'_>, own: &Move, release: &Release) -> Result<Self, Failure> {
        let environment = trip.target.environment()?;
        let (dir, commit) = (&own.files.dir, &release.commit.id);
        let home = own.files.home()?;
        if home.app() != trip.target.app.as_str() {
            let what = format!(
                "{} is the working tree of {}, not of {}",
                dir.display(),
                home.app(),
                trip.target.app
            );
            return Err(Failure::usage(what));
        }
        push::git(dir, &["cat-file", "-e", &format!("{commit}^{{commit}}")]).map_err(|failure| {
            failure.next(format!(
                "git fetch: v{} of {} is {commit}",
                release.number, trip.target
            ))
        })?;
        let changed = push::git(
            dir,
            &["diff", "--name-only", "--relative", commit, "--", "vend.yaml"],
        )?;
        if !changed.is_empty() {
            let what = format!("vend.yaml here is not that of v{}, which is live", release.number);
            return Err(Failure::new(Exit::Refused, what).next(format!("git switch --detach {commit}")));
        }
        let loaded = Project::of(own.files.clone(), Vec::new(), own.receiver.clone()).load()?;
        let stacks = loaded.made.stacks.iter();
        let needed = stacks.filter(|stack| stack.environment.as_ref().is_none_or(|own| own == environment));
        let only: Vec<String> = needed.map(|stack| stack.name.clone()).collect();
        let host = host(&loaded, trip)?;
        let spot = home.spot(environment.as_str())?;
        if spot.spec.database.is_some() {
            data::refuse(&spot, trip)?;
        }
        if spot.targets().len() != 1 {
            let what = format!(
                "{} is on several foundations: requests can be forwarded to one",
                trip.target
            );
            return Err(Failure::new(Exit::Refused, what));
        }
        Ok(Self {
            loaded,
            home,
            host,
            only,
        })
    }

    fn project(&self, own: &Move) -> Project {
        Project::of(own.files.clone(), self.only.clone(), own.receiver.clone())
    }

    pub fn spot(&self, trip: &Trip<'_>) -> Result<Spot<'_>, Failure> {
        self.home.spot(trip.target.environment()?.as_str())
    }
}

/// The name under which the environment answers there.
fn host(loaded: &Loaded, trip: &Trip<'_>) -> Result<String, Failure> {
    let environment = trip.target.environment()?;
    let mut stacks = loaded.made.stacks.iter();
    let own =
        stacks.find(|own| own.kind == Kind::Environment && own.environment.as_ref() == Some(environment));
    let url = own.and_then(|own| own.template.outputs.iter().find(|(id, _)| id == "Url"));
    let url = url.and_then(|(_, output)| output["Value"].as_str());
    name(url).map_err(|why| {
        Failure::new(
            Exit::Refused,
            format!("{} cannot be moved there: {why}", trip.target),
        )
        .next("take `placement` out of aws.toml, or release there without a move: vend aws push")
    })
}

/// The name in an environment's address. Requests go on from here by HTTPS, which is spoken where a load balancer stands.
fn name(url: Option<&str>) -> Result<String, String> {
    match url.map(|url| (url, url.strip_prefix("https://"))) {
        Some((_, Some(host))) => Ok(host.to_owned()),
        Some((url, None)) => Err(format!(
            "no load balancer stands in a Wavelength Zone, its app answers at {url} itself, and this load balancer forwards by HTTPS only"
        )),
        None => Err("it has no stack with a name".to_owned()),
    }
}

/// What would be done; and whether nothing is to be done with stacks.
async fn look(
    trip: &Trip<'_>,
    own: &Move,
    release: &Release,
    found: Option<&Moved>,
    same: &Same,
) -> Result<(Plan, bool), Failure> {
    let loaded = &same.loaded;
    let there = loaded.found().await?;
    loaded.refuse_others(&there)?;
    let (mut stacks, mut cents, mut idle) = (Vec::new(), 0, true);
    for wanted in loaded
        .wanted
        .iter()
        .filter(|wanted| same.only.contains(&wanted.name))
    {
        let at = there.iter().find(|(_, found)| found.stack.name == wanted.name);
        let doing = doing(wanted, at.map(|(_, found)| found));
        // Before anything is held for what will not be made.
        if let Doing::Refused { why } = &doing {
            let what = format!("{} is not made", wanted.name);
            return Err(Failure::new(Exit::Refused, what).cause(clean(why)));
        }
        idle &= doing == Doing::Nothing;
        cents += wanted.price.cents;
        stacks.push((wanted.name.clone(), word(&doing)));
    }
    let spot = same.spot(trip)?;
    let view = View {
        target: &trip.target,
        release,
        spec: spot.spec,
        host: &same.host,
        found,
        stacks,
        cents,
        date: &loaded.prices.date,
        missing: match idle {
            true => Some(secrets::missing(&spot).await?),
            false => None,
        },
        weights: &own.weights,
        watch: own.watch,
        notes: loaded
            .wanted
            .iter()
            .filter(|wanted| same.only.contains(&wanted.name))
            .flat_map(|wanted| wanted.notes.clone())
            .collect(),
    };
    Ok((plan::plan(&view), idle))
}

fn word(doing: &Doing) -> &'static str {
    match doing {
        Doing::Create | Doing::CreateAgain => plan::NEW,
        Doing::Change => plan::CHANGED,
        Doing::Nothing => "as it is",
        Doing::Later { .. } => "later",
        Doing::Wait { .. } => "being changed",
        Doing::Stuck { .. } => "stuck",
        Doing::Refused { .. } | Doing::Invalid { .. } => "refused",
    }
}

/// From here on the platform releases nothing else.
async fn hold(trip: &Trip<'_>, found: Option<Moved>, host: &str) -> Result<Moved, Failure> {
    match found {
        Some(found) if found.host != host => {
            let what = format!(
                "{} is being moved to {}, and the files say {host}",
                trip.target, found.host
            );
            Err(Failure::new(Exit::Refused, what).next(format!("vend move {} --abort", trip.target)))
        }
        Some(found) => Ok(found),
        None => {
            let new = NewMove {
                host: host.to_owned(),
            };
            let begun = trip.client.post(&trip.path, &new).await?;
            trip.tell("hold", "nothing else is released here from now on");
            Ok(begun)
        }
    }
}

async fn refuse_missing(spot: &Spot<'_>) -> Result<(), Failure> {
    let missing = secrets::missing(spot).await?;
    let Some(first) = missing.first() else {
        return Ok(());
    };
    let all: Vec<String> = missing.iter().map(ToString::to_string).collect();
    Err(
        Failure::failed(format!("{} wants secrets that are not set on AWS", spot.name()))
            .cause(all.join(", "))
            .next(format!(
                "vend aws secrets set {} {}, then the same again",
                first.owner, first.name
            )),
    )
}

/// The commit that is live here is live there.
async fn released(trip: &Trip<'_>, own: &Move, live: &Release, spot: &Spot<'_>) -> Result<(), Failure> {
    let (commit, short) = (
        &live.commit.id,
        live.commit.id.get(..12).unwrap_or(&live.commit.id),
    );
    if !is_live(spot, commit).await? {
        let push = Push::one(
            own.files.clone(),
            live.commit.branch.clone(),
            commit.clone(),
            spot.name().to_owned(),
        );
        push::run(&push, trip.output).await?;
        if !is_live(spot, commit).await? {
            return Err(Failure::failed(format!("{short} is not live on AWS"))
                .cause("the requests are served here as before")
                .next(format!(
                    "vend aws releases --environment {}; then the same again",
                    spot.name()
                )));
        }
    }
    trip.tell("release", &format!("{short} is live there"));
    Ok(())
}

pub async fn is_live(spot: &Spot<'_>, commit: &str) -> Result<bool, Failure> {
    let client = spot.client();
    let flow = spot.flow().await?;
    let all = release::list(client, &flow, LOOKED)
        .await
        .map_err(|error| push::no_flow(error, spot))?;
    // The newest of any commit is what is live: another may have been released there since.
    for release in &all {
        if release::was_live(client, release).await.map_err(broken)? {
            return Ok(release.is_of(commit));
        }
    }
    Ok(false)
}

/// Waits until the load balancer here sees the one there healthy.
async fn healthy(trip: &Trip<'_>) -> Result<(), Failure> {
    let end = Instant::now() + HEALTHY;
    loop {
        let seen = trip.the_move().await?;
        if seen.healthy == Some(true) {
            trip.tell(
                "health",
                &format!("{} is healthy, as it is seen from here", seen.host),
            );
            return Ok(());
        }
        if Instant::now() > end {
            let why = seen.reason.unwrap_or_else(|| "it was not asked yet".to_owned());
            return Err(
                Failure::failed(format!("{} is not healthy, as it is seen from here", seen.host))
                    .cause(clean(&why))
                    .next(format!(
                        "vend aws hosts {}; then the same again",
                        trip.target.environment()?
                    )),
            );
        }
        sleep(POLL).await;
    }
}

/// The shares, one after the other, each watched.
async fn traffic(trip: &Trip<'_>, own: &Move) -> Result<(), Failure> {
    let begin = trip.the_move().await?.share;
    let mut share = begin;
    if begin > 0 {
        // It may have been broken off while this was watched.
        let before = trip.the_move().await?;
        trip.tell("traffic", &format!("{begin} % go to {}", before.host));
        watch(trip, own, &before).await?;
    }
    for weight in own.weights.iter().copied().filter(|weight| *weight > begin) {
        let before = trip.forward(weight).await?;
        trip.tell("traffic", &format!("{weight} % to {}", before.host));
        watch(trip, own, &before).await?;
        share = weight;
    }
    let target = &trip.target;
    let next = match share {
        100 => format!("vend move {target} --finish, when nobody wants to go back"),
        _ => format!("vend move {target} --engine aws --weights 100"),
    };
    trip.output
        .line(&format!("next: {next}\nundo: vend move {target} --abort"));
    Ok(())
}

/// Looks at a share for as long as was asked, and takes it back when it goes wrong.
async fn watch(trip: &Trip<'_>, own: &Move, before: &Moved) -> Result<(), Failure> {
    let end = Instant::now() + Duration::from_secs(own.watch);
    let mut missed = 0;
    loop {
        sleep(POLL.min(Duration::from_secs(own.watch))).await;
        let now = match trip.the_move().await {
            Ok(now) => now,
            // Nobody knows how it goes: the next share must not come before it is known.
            Err(failure) if missed >= MISSED => return Err(failure),
            Err(_) => {
                missed += 1;
                continue;
            }
        };
        missed = 0;
        // The load balancer counts anew when it is started again.
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        let (requests, errors) = (
            since(now.requests, before.requests),
            since(now.errors, before.errors),
        );
        if now.healthy == Some(false) || is_bad(requests, errors) {
            trip.forward(0).await?;
            let why = now
                .reason
                .unwrap_or_else(|| format!("{errors} of {requests} requests failed there"));
            return Err(Failure::failed(format!(
                "all is served here again: {} does not serve well",
                now.host
            ))
            .cause(clean(&why))
            .next(format!("vend aws logs {}", trip.target.environment()?)));
        }
        if Instant::now() >= end {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_on_to_names_with_https_only() {
        assert_eq!(
            name(Some("https://shop.example.com")).as_deref(),
            Ok("shop.example.com")
        );
        let wave = name(Some("http://shop.example.com:8080")).unwrap_err();
        assert!(
            wave.contains("Wavelength Zone") && wave.contains(":8080"),
            "{wave}"
        );
        assert!(name(None).is_err());
    }
}
