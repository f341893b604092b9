//! `vend aws push`: the source of a commit goes where builds find it, and the flows of its environments start. A commit that
//! is on its way, or live, is not released twice.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use ::aws::{
    Client, bucket,
    live::release::{self, Push as Commit},
};
use clap::Args;
use model::{AppName, spec};
use serde::Serialize;

use super::{
    Exit, Failure, broken,
    home::{Home, Spot},
    project::Files,
};
use crate::output::{Output, Tone, clean, lines, size};

/// What is checked out, as git calls it.
const HEAD: &str = "HEAD";
/// Of a packed source: it is sent in one call.
const MAX_SOURCE: u64 = 256 << 20;
/// Characters of a commit's message that go on, as of a webhook's.
const MESSAGE: usize = 1_000;
/// Between two looks at a release.
const POLL: Duration = Duration::from_secs(2);
/// Releases of an environment among which one of this commit is looked for.
pub const LOOKED: usize = 200;

#[derive(Debug, Args)]
pub struct Push {
    #[command(flatten)]
    files: Files,
    /// The branch; the one that is checked out when absent.
    #[arg(long, short)]
    branch: Option<String>,
    /// The commit, as git knows it.
    #[arg(long, default_value = HEAD, value_name = "REVISION")]
    commit: String,
    /// Only this environment, whatever branch it follows.
    #[arg(long, short, value_name = "NAME")]
    environment: Vec<String>,
    /// Release it although it was released before.
    #[arg(long)]
    again: bool,
    /// Do not wait for the releases; with --json, too.
    #[arg(long)]
    detach: bool,
}

impl Push {
    /// One commit, into one environment, followed until it is live or waits for people.
    pub fn one(files: Files, branch: String, commit: String, environment: String) -> Self {
        Self {
            files,
            branch: Some(branch),
            commit,
            environment: vec![environment],
            again: false,
            detach: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Doing {
    Started,
    /// It was on its way.
    Running,
    /// It was released.
    Released,
}

#[derive(Debug, Serialize)]
struct Begun {
    environment: String,
    commit: String,
    release: String,
    doing: Doing,
    /// None: nobody waited for it.
    #[serde(flatten)]
    end: Option<End>,
}

/// Where a release was that was followed when there was nothing more to wait for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "end")]
enum End {
    Live,
    /// A release that began later is live.
    Superseded,
    /// Somebody has to answer.
    Waits {
        question: String,
    },
    /// `status`: Step Functions' word.
    Failed {
        status: String,
        cause: String,
    },
}

/// What it holds meanwhile is on the heap: who calls it holds as much again.
pub async fn run(own: &Push, output: &Output) -> Result<ExitCode, Failure> {
    Box::pin(work(own, output)).await
}

async fn work(own: &Push, output: &Output) -> Result<ExitCode, Failure> {
    let home = own.files.home()?;
    let branch = match &own.branch {
        Some(branch) => branch.clone(),
        None => checked_out(&own.files.dir)?,
    };
    let preview = if own.environment.is_empty() {
        home.preview(&branch)?
    } else {
        None
    };
    let spots = match preview {
        Some(_) => Vec::new(),
        None => followers(&home, &branch, &own.environment)?,
    };
    let mut commit = commit(&home, &own.files.dir, &own.commit, &branch)?;
    if !output.json && own.commit == HEAD && is_changed(&own.files.dir) {
        output.line("note: what is changed and not committed does not go with it");
    }
    let (_, site) = home.pipeline();
    commit
        .sender
        .clone_from(&site.caller().await.map_err(broken)?.arn);
    if !home.has_repository() {
        send(&home, &own.files.dir, &commit.commit, output).await?;
    }
    if let Some(preview) = preview {
        return of_branch(&home, &preview, &commit, own.again, output).await;
    }
    let mut all = Vec::new();
    for spot in &spots {
        all.push(begin(spot, &site.client, &commit, own.again).await?);
    }
    let shows = |all: &Vec<Begun>| all.iter().map(line).collect();
    if own.detach {
        output.show(&all, shows);
        return Ok(ExitCode::SUCCESS);
    }
    let tell = |text: &str| {
        if !output.json {
            output.say(text);
        }
    };
    let told: String = shows(&all);
    tell(&told);
    for begun in all.iter_mut().filter(|begun| begun.doing != Doing::Released) {
        match follow(&site.client, begun, &tell).await {
            Ok(end) => {
                tell(&ended(&begun.environment, &end, output));
                begun.end = Some(end);
            }
            // What was started goes on, and is told of.
            Err(failure) => {
                if output.json {
                    output.show(&all, |_| String::new());
                }
                return Err(failure.next("vend aws releases"));
            }
        }
    }
    if output.json {
        output.show(&all, |_| String::new());
    }
    let is_out = |begun: &Begun| matches!(begun.end, Some(End::Failed { .. } | End::Superseded));
    Ok(if all.iter().any(is_out) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Hands the commit of a branch that has an environment of its own to what makes that, as a webhook does.
async fn of_branch(
    home: &Home,
    own: &spec::Environment,
    push: &Commit,
    again: bool,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let client = &home.pipeline().1.client;
    let machine = home.branches().await?;
    let missing = |error: ::aws::client::Error| match error.code() {
        "StateMachineDoesNotExist" => Failure::new(
            Exit::NotFound,
            "the app's pipeline makes no stacks of branches on AWS",
        )
        .cause("it is older than this vend.yaml, or they go into another account".to_owned())
        .next(format!(
            "vend aws apply, or vend aws apply --branch {}",
            own.branch
        )),
        _ => broken(error),
    };
    let found = release::list(client, &machine, LOOKED).await.map_err(missing)?;
    let name = spec::name_apart(&own_app(push)?, &own.branch);
    let names = |attempt: usize| release::name(&push.commit, name.as_str(), attempt);
    let of_attempt = |attempt: usize| found.iter().find(|own| own.name == names(attempt));
    let before = (1..=LOOKED)
        .take_while(|attempt| of_attempt(*attempt).is_some())
        .count();
    let last = of_attempt(before).filter(|_| !again);
    let attempt = match last {
        Some(last) if last.is_running() || last.status == "SUCCEEDED" => before,
        _ => before + 1,
    };
    let expires = own
        .preview
        .as_ref()
        .map_or(0, |own| own.expires.as_secs().unsigned_abs());
    let release = names(attempt);
    let job = release::job(
        name.as_str(),
        &own.branch,
        expires,
        &release,
        &serde_json::json!(push),
    );
    let started = release::execute(client, &machine, &release, &job)
        .await
        .map_err(missing)?;
    let doing = match (attempt == before, started) {
        (true, Some(_)) => Doing::Running,
        (_, None) => Doing::Released,
        (false, Some(_)) => Doing::Started,
    };
    let begun = vec![Begun {
        environment: name.to_string(),
        commit: push.commit.clone(),
        release,
        doing,
        end: None,
    }];
    output.show(&begun, |all| {
        let lines: String = all.iter().map(line).collect();
        format!("{lines}its stacks are made first\nnext: vend aws status\n")
    });
    Ok(ExitCode::SUCCESS)
}

fn own_app(push: &Commit) -> Result<AppName, Failure> {
    push.app
        .parse()
        .map_err(|_| Failure::failed("the app has no name"))
}

/// The environments that get a push to the branch.
fn followers<'h>(home: &'h Home, branch: &str, asked: &[String]) -> Result<Vec<Spot<'h>>, Failure> {
    if !asked.is_empty() {
        return home.spots(asked);
    }
    let all = home.spots(&[])?;
    let followers: Vec<Spot<'_>> = all
        .iter()
        .copied()
        .filter(|spot| spot.spec.branch == branch)
        .collect();
    if !followers.is_empty() {
        return Ok(followers);
    }
    let known: Vec<String> = all
        .iter()
        .map(|spot| format!("{} follows {}", spot.name(), spot.spec.branch))
        .collect();
    let what = format!("no environment follows the branch {branch}");
    Err(Failure::new(Exit::NotFound, what)
        .cause(known.join(", "))
        .next("vend aws push --environment NAME"))
}

/// The push that releases into these environments: of one by its name, which another branch may follow.
pub fn next(spots: &[Spot<'_>]) -> String {
    match spots {
        [spot] if spot.spec.preview.is_some() => "vend aws push --branch, with its branch".to_owned(),
        [spot] => format!("vend aws push --environment {}", spot.name()),
        _ => "vend aws push".to_owned(),
    }
}

/// The branch that is checked out.
fn checked_out(dir: &Path) -> Result<String, Failure> {
    // Is it a working tree of git at all?
    git(dir, &["rev-parse", "--git-dir"])?;
    git(dir, &["symbolic-ref", "--short", "HEAD"]).map_err(|_| {
        Failure::failed(
            "a commit is checked out, and no branch: which environments get it is said by a branch",
        )
        .next("the same with --branch NAME")
    })
}

pub fn git(dir: &Path, arguments: &[&str]) -> Result<String, Failure> {
    let done = Command::new("git").arg("-C").arg(dir).args(arguments).output();
    let done = done.map_err(|error| Failure::failed("git cannot be run").cause(error.to_string()))?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned()),
        false => Err(Failure::failed(format!("git cannot say it of {}", dir.display()))
            .cause(String::from_utf8_lossy(&done.stderr).trim().to_owned())),
    }
}

/// The commit's whole id, by whatever git knows it.
pub fn resolved(dir: &Path, revision: &str) -> Result<String, Failure> {
    // Is it a working tree of git at all?
    git(dir, &["rev-parse", "--git-dir"])?;
    let wanted = format!("{revision}^{{commit}}");
    git(
        dir,
        &["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted],
    )
    .map_err(|_| {
        let what = format!("{} has no commit `{}`", dir.display(), clean(revision));
        Failure::new(Exit::NotFound, what).next("git log: a commit, a tag or a branch of it")
    })
}

/// Is something of the tree not in the commit that is checked out? Nobody who is not sure is told.
fn is_changed(dir: &Path) -> bool {
    git(dir, &["status", "--porcelain", "--", "."]).is_ok_and(|said| !said.is_empty())
}

/// What git says of a commit.
fn commit(home: &Home, dir: &Path, revision: &str, branch: &str) -> Result<Commit, Failure> {
    let id = resolved(dir, revision)?;
    let about = git(dir, &["log", "-1", "--format=%an <%ae>%n%B", &id])?;
    let (author, message) = about.split_once('\n').unwrap_or((about.as_str(), ""));
    Ok(Commit {
        app: home.app().to_owned(),
        branch: branch.to_owned(),
        commit: id,
        author: author.to_owned(),
        message: message.trim().chars().take(MESSAGE).collect(),
        sender: String::new(),
    })
}

/// Puts the source where builds look for it; what is there is of the same commit.
async fn send(home: &Home, dir: &Path, commit: &str, output: &Output) -> Result<(), Failure> {
    let bucket = home.artifacts().await?;
    let key = format!("source/{}/{commit}.zip", home.app());
    let client = &home.pipeline().1.client;
    if bucket::has(client, &bucket, &key).await.map_err(broken)? {
        return Ok(());
    }
    let bytes = packed(dir, commit)?;
    if !output.json {
        output.line(&format!("sends {} of source", size(bytes.len() as u64)));
    }
    let sent = bucket::put(client, &bucket, &key, bytes).await;
    sent.map_err(|error| match error.code() {
        "NoSuchBucket" => Failure::new(Exit::NotFound, format!("there is no bucket {bucket}"))
            .next("vend aws apply: it makes the foundation"),
        _ => broken(error),
    })
}

/// The tree of a commit below the directory, as a zip.
fn packed(dir: &Path, commit: &str) -> Result<Vec<u8>, Failure> {
    let failed = |cause: String| Failure::failed("the source cannot be packed").cause(cause);
    let mut git = Command::new("git");
    git.arg("-C").arg(dir).args(["archive", "--format=zip", commit]);
    let child = git.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| failed(error.to_string()))?;
    let mut bytes = Vec::new();
    if let Some(out) = child.stdout.take() {
        let read = out.take(MAX_SOURCE + 1).read_to_end(&mut bytes);
        read.map_err(|error| failed(error.to_string()))?;
    }
    if bytes.len() as u64 > MAX_SOURCE {
        // Nobody reads the rest; git ends by itself.
        return Err(failed(format!("it has more than {}", size(MAX_SOURCE)))
            .next("give the app a `repository` in aws.toml: CodeBuild then fetches it itself"));
    }
    let done = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    match done.status.success() {
        true => Ok(bytes),
        false => Err(failed(String::from_utf8_lossy(&done.stderr).trim().to_owned())),
    }
}

async fn begin(spot: &Spot<'_>, client: &Client, push: &Commit, again: bool) -> Result<Begun, Failure> {
    let flow = spot.flow().await?;
    let found = release::list(client, &flow, LOOKED)
        .await
        .map_err(|error| no_flow(error, spot))?;
    let own: Vec<_> = found
        .iter()
        .filter(|release| release.is_of(&push.commit))
        .collect();
    let begun = |release: &str, doing| Begun {
        environment: spot.name().to_owned(),
        commit: push.commit.clone(),
        release: release.to_owned(),
        doing,
        end: None,
    };
    match own.first() {
        Some(release) if release.is_running() => return Ok(begun(&release.arn, Doing::Running)),
        Some(release) if !again && release::was_live(client, release).await.map_err(broken)? => {
            return Ok(begun(&release.arn, Doing::Released));
        }
        _ => {}
    }
    start(spot, client, push, own.len() + 1)
        .await
        .map(|arn| begun(&arn, Doing::Started))
}

/// Starts a release of the commit, which was released `attempt - 1` times before.
pub async fn start(
    spot: &Spot<'_>,
    client: &Client,
    push: &Commit,
    attempt: usize,
) -> Result<String, Failure> {
    let flow = spot.flow().await?;
    let name = release::name(&push.commit, spot.name(), attempt);
    let started = release::start(client, &flow, &name, push).await;
    let started = started.map_err(|error| no_flow(error, spot))?;
    let ended = || {
        Failure::failed("somebody released the same commit at the same time, and that has ended")
            .next(format!("vend aws releases --environment {}", spot.name()))
    };
    started.ok_or_else(ended)
}

pub fn no_flow(error: ::aws::client::Error, spot: &Spot<'_>) -> Failure {
    match error.code() {
        "StateMachineDoesNotExist" => {
            let next = match spot.spec.preview {
                Some(_) => "vend aws push on its branch: it makes what a branch has",
                None => "vend aws apply",
            };
            Failure::new(Exit::NotFound, format!("{} has no flow on AWS yet", spot.name())).next(next)
        }
        _ => broken(error),
    }
}

fn line(begun: &Begun) -> String {
    let commit = begun.commit.get(..12).unwrap_or(&begun.commit);
    let what = match begun.doing {
        Doing::Started => "is being released",
        Doing::Running => "was on its way already",
        Doing::Released => "was released before (vend aws push --again releases it again)",
    };
    format!("{}: {commit} {what}\n", begun.environment)
}

/// Tells how a release goes, until it is live, has failed, or waits for people.
async fn follow(client: &Client, begun: &Begun, tell: &impl Fn(&str)) -> Result<End, Failure> {
    let mut told: BTreeMap<String, ()> = BTreeMap::new();
    loop {
        let release = release::one(client, &begun.release).await.map_err(broken)?;
        let stand = release::stand(client, &begun.release).await.map_err(broken)?;
        if let Some(state) = &stand.state
            && told.insert(state.clone(), ()).is_none()
        {
            tell(&format!("{}: {}\n", begun.environment, clean(state)));
        }
        if release.is_live(stand.state.as_deref()) {
            return Ok(End::Live);
        }
        if release.is_superseded(stand.state.as_deref()) {
            return Ok(End::Superseded);
        }
        if let Some(question) = stand.question {
            return Ok(End::Waits {
                question: question.text,
            });
        }
        if !release.is_running() {
            let about = release::about(client, &begun.release).await.map_err(broken)?;
            return Ok(End::Failed {
                status: release.status,
                cause: about.cause.or(about.error).unwrap_or_default(),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

fn ended(name: &str, end: &End, output: &Output) -> String {
    match end {
        End::Live => format!(
            "{name}: {}\nnext: vend aws logs {name} --follow\nundo: vend aws rollback {name}\n",
            output.tone(Tone::Good, "live")
        ),
        End::Superseded => format!(
            "{name}: {}: not released, because a release that began later is live\n",
            output.tone(Tone::Faint, "superseded")
        ),
        End::Waits { question } => format!("waits: {}\nnext: vend aws approve {name}\n", clean(question)),
        End::Failed { status, cause } => {
            let status = output.tone(Tone::Bad, &status.to_lowercase());
            let cause = lines(cause, "  ");
            format!("{name}: {status}: {cause}\nnext: vend aws logs {name} --kind build\n")
        }
    }
}
