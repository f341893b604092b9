//! What a command of `vend aws` works on: the working tree, the operator's file, the priorities, and how each foundation is
//! reached.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::OnceLock,
};

use ::aws::{
    live::rule,
    plan::{self, Wanted},
    price::List,
    site::{self, Found, Site},
    stack::Status,
    synth::{self, Access, Asking, Config, File, Kind, Priorities, Refused, has_new_rule},
};
use clap::Args;
use model::{Digest, spec};

use super::{
    Exit, Failure, applied, broken,
    home::Home,
    reach::{refuse_account, sites},
    receiver::Program,
    tree::{app, config, keep, made, notes, of_branch, priorities, unmade},
};
use crate::{
    cli::quoted,
    output::{Output, clean},
};

// What every command takes. (A doc comment would become the help of every command that has it.)
#[derive(Debug, Clone, Args)]
pub struct Files {
    /// The working tree, which holds a vend.yaml.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// What vend.yaml cannot say about AWS: accounts, regions, domains. [default: aws.toml of the working tree]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A profile of ~/.aws, where the foundation names none. [default: AWS_PROFILE, the environment's keys, a role]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
}

// What every command takes that works on stacks.
#[derive(Debug, Args)]
pub struct Project {
    #[command(flatten)]
    files: Files,
    /// The priorities of listener rules; keep it with the files. [default: aws/priorities.json of the working tree]
    #[arg(long, value_name = "FILE")]
    priorities: Option<PathBuf>,
    /// Only the stacks of this branch's own environment, which vend.yaml makes from an entry with `branches`.
    #[arg(long, value_name = "BRANCH", conflicts_with = "only")]
    branch: Option<String>,
    /// The files stand alone: do not look for what vend.yaml names, which is in the source.
    #[arg(long)]
    sourceless: bool,
    /// Only these stacks.
    #[arg(long, value_name = "STACK")]
    only: Vec<String>,
    /// The receiver's program, where it is not this one: a build of vend for another architecture.
    #[arg(long, value_name = "FILE", env = "VEND_RECEIVER")]
    receiver: Option<PathBuf>,
    /// A list of prices instead of the shipped one.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
}

/// All of it, read.
pub struct Loaded {
    pub config: Config,
    pub made: synth::Output,
    /// The stacks that were asked for, in the order in which they are made.
    pub wanted: Vec<Wanted>,
    pub prices: List,
    pub receiver: Program,
    sites: BTreeMap<String, Site>,
    priorities: (PathBuf, Priorities),
    /// The priorities as the file has them.
    known: Priorities,
    only: Vec<String>,
    /// Set when it was first seen what stands.
    looked: OnceLock<()>,
    app: String,
    /// What `vend.yaml` calls the entries from which environments of branches are made.
    pub entries: Vec<String>,
    /// The environment that was asked for, where it is one branch's.
    pub branch: Option<spec::Environment>,
    /// From these a push makes the stacks of branches; empty where it makes none.
    files: Vec<File>,
}

impl Files {
    /// The app with where it is on AWS; stacks are neither made nor changed with it, so nobody needs their priorities, and of an
    /// environment of which nothing can be made counts what stands.
    pub fn home(&self) -> Result<Home, Failure> {
        let config = config(&self.dir, self.config.as_deref())?;
        let app = app(&self.dir, false)?;
        let made = synth::most_with(&config, &app, None, &mut Priorities::default()).map_err(unmade)?;
        // Who works with one environment needs no credentials of another's.
        let sites = sites(&config, self.profile.as_deref(), true);
        Ok(Home::new(config, app, &made, sites))
    }
}

impl Files {
    /// A command of `vend aws` with what leads to the same files.
    fn again(&self, command: &str) -> String {
        let mut text = format!("vend aws {command}");
        let dir = self.dir.to_string_lossy();
        if dir != "." {
            text.push_str(&format!(" {}", quoted(&dir)));
        }
        if let Some(config) = &self.config {
            text.push_str(&format!(" --config {}", quoted(&config.to_string_lossy())));
        }
        if let Some(profile) = &self.profile {
            text.push_str(&format!(" --profile {}", quoted(profile)));
        }
        text
    }
}

impl Project {
    /// A command of `vend aws` as it must be typed to mean the same stacks.
    pub fn again(&self, command: &str) -> String {
        let mut text = self.files.again(command);
        if let Some(priorities) = &self.priorities {
            text.push_str(&format!(
                " --priorities {}",
                quoted(&priorities.to_string_lossy())
            ));
        }
        if self.sourceless {
            text.push_str(" --sourceless");
        }
        let branch = self.branch.iter().map(|own| ("--branch", own));
        for (option, value) in branch.chain(self.only.iter().map(|own| ("--only", own))) {
            text.push_str(&format!(" {option} {}", quoted(value)));
        }
        text
    }

    /// The same, with the receiver's program that was given.
    pub fn again_with(&self, command: &str) -> String {
        let mut text = self.again(command);
        // The variable is set the next time, too.
        let is_given = |own: &&PathBuf| std::env::var_os("VEND_RECEIVER").as_deref() != Some(own.as_os_str());
        for (option, own) in [
            ("--receiver", self.receiver.as_ref().filter(is_given)),
            ("--prices", self.prices.as_ref()),
        ] {
            if let Some(own) = own {
                text.push_str(&format!(" {option} {}", quoted(&own.to_string_lossy())));
            }
        }
        text
    }

    /// The same command for these stacks only.
    pub fn only<'s>(&self, command: &str, stacks: impl IntoIterator<Item = &'s str>) -> String {
        let mut text = self.files.again(command);
        let names: BTreeSet<&str> = stacks.into_iter().collect();
        for name in names {
            text.push_str(&format!(" --only {}", quoted(name)));
        }
        text
    }

    /// A command for one stack of these files, which it names itself.
    pub fn about(&self, command: &str) -> String {
        self.files.again(command)
    }

    /// These stacks of these files, with everything else as it is when nothing is said.
    pub fn of(files: Files, only: Vec<String>, receiver: Option<PathBuf>) -> Self {
        Self {
            files,
            priorities: None,
            branch: None,
            sourceless: false,
            only,
            receiver,
            prices: None,
        }
    }

    /// What is to be known of the files.
    pub fn notes(&self) -> Vec<String> {
        notes(&self.files.dir, self.sourceless)
    }

    pub fn load(&self) -> Result<Loaded, Failure> {
        self.read(false)
    }

    /// For what goes by what stands: an environment of which nothing can be made keeps nobody from the rest, and is named.
    pub fn load_most(&self, output: &Output) -> Result<Loaded, Failure> {
        // A branch's stacks are known by what is made of it only.
        let loaded = self.read(self.branch.is_none())?;
        for Refused {
            environment: name,
            why,
            ..
        } in &loaded.made.refused
        {
            let why = clean(&why.to_string());
            let said = format!("the files of `{name}` are refused, and what stands of it counts: {why}");
            output.beside(&said);
        }
        Ok(loaded)
    }

    /// `most`: as much as can be made.
    fn read(&self, most: bool) -> Result<Loaded, Failure> {
        let files = &self.files;
        let beside = || files.dir.join("aws/priorities.json");
        let given = self.priorities.clone().unwrap_or_else(beside);
        let config = config(&files.dir, files.config.as_deref())?;
        let app = app(&files.dir, self.sourceless)?;
        let branch = self.branch.as_deref();
        let branch = branch.map(|branch| of_branch(&app, branch)).transpose()?;
        let known = priorities(&given)?;
        let mut priorities = known.clone();
        let mut made = match most {
            true => synth::most_with(&config, &app, None, &mut priorities).map_err(unmade)?,
            false => made(&config, &app, branch.as_ref(), &mut priorities)?,
        };
        let only: Vec<String> = match branch {
            Some(_) => made.of_branch().map(|stack| stack.name.clone()).collect(),
            None => self.only.clone(),
        };
        let receiver = Program::read(self.receiver.as_deref())?;
        let own = match made.makes_branches() {
            true => applied::files(&files.dir, files.config.as_deref())?,
            false => Vec::new(),
        };
        receiver.stand_in(&mut made, &applied::digest(&own));
        if !most {
            let names = made.names().map(|(_, name, _)| name);
            unknown(&only, names).map_err(|failure| {
                failure.next("vend aws status says what stands; what is in no file goes with vend aws destroy --gone --only STACK")
            })?;
        }
        let mut loaded = Loaded {
            sites: sites(&config, files.profile.as_deref(), false),
            config,
            wanted: Vec::new(),
            made,
            receiver,
            prices: self.prices()?,
            priorities: (given, priorities),
            known,
            only,
            looked: OnceLock::new(),
            app: app.app.to_string(),
            entries: app
                .patterns
                .iter()
                .map(|own| own.environment.name.to_string())
                .collect(),
            branch,
            files: own,
        };
        loaded.want();
        Ok(loaded)
    }

    fn prices(&self) -> Result<List, Failure> {
        let Some(path) = &self.prices else {
            return Ok(List::shipped().clone());
        };
        let text = fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?;
        let bad = |error: serde_json::Error| {
            Failure::usage(format!("{} is not a list of prices", path.display())).cause(error.to_string())
        };
        List::parse(&text).map_err(bad)
    }
}

impl Loaded {
    pub fn platform(&self) -> &str {
        self.config.platform.as_str()
    }

    /// Where a foundation is.
    pub fn site(&self, foundation: &str) -> &Site {
        self.sites
            .get(foundation)
            .expect("every stack stands on a foundation of the file")
    }

    pub fn sites(&self) -> impl Iterator<Item = (&str, &Site)> {
        self.sites.iter().map(|(label, site)| (label.as_str(), site))
    }

    /// Says which stacks are wanted, from what was made.
    fn want(&mut self) {
        let platform = self.config.platform.as_str();
        let stacks = self.made.stacks.iter().filter(|stack| self.is_asked(&stack.name));
        let wanted = stacks.map(|stack| {
            let beside = digested(stack, &self.made.files);
            Wanted::new(platform, stack, &self.prices, &beside).by(&self.app)
        });
        self.wanted = wanted.collect();
    }

    /// Gives rules priorities that are free where they shall stand: those of a branch's environment, and those of other stacks
    /// that are made, get a new rule, or whose last change failed. What has one keeps it.
    pub async fn settle(&mut self, found: &[(String, Found)]) -> Result<(), Failure> {
        let is_there = |name: &str| {
            let mut stacks = found.iter().map(|(_, found)| &found.stack);
            let is_made = |own: &Status| !own.is_gone() && !own.is_stillborn() && !own.is_review();
            stacks.any(|own| own.name == name && is_made(&own.status))
        };
        let open = self.open(found, &is_there);
        if open.is_empty() {
            return Ok(());
        }
        let wanted: Vec<String> = self.wanted.iter().map(|own| own.name.clone()).collect();
        let asking = Asking {
            stacks: &|stack| wanted.contains(&stack.name),
            is_there: &is_there,
            known: &self.known,
        };
        for (label, output) in self.made.listeners(&|stack| open.contains(&stack.name)) {
            let mut outputs = found
                .iter()
                .filter(|(foundation, found)| {
                    let kind = found.mark.as_ref().map(|mark| mark.kind);
                    *foundation == label.as_str() && kind == Some(Kind::Foundation)
                })
                .flat_map(|(_, found)| &found.stack.outputs);
            // Without a foundation there are no rules, and no stack either.
            let Some(listener) = outputs.find(|own| own.id == output).map(|own| own.value.clone()) else {
                continue;
            };
            let client = &self.sites[label.as_str()].client;
            let rules = rule::given(client, &listener).await.map_err(broken)?;
            let priorities = &mut self.priorities.1;
            if !self.made.settle((&label, &output), &rules, &asking, priorities) {
                let cause = "branches' rules have those from 25001 to 50000, other rules those below";
                return Err(
                    Failure::refused(format!("no priority is free on the load balancer of {label}"))
                        .cause(cause.to_owned())
                        .next("give the environment `dedicated_balancer = true` in aws.toml"),
                );
            }
        }
        self.want();
        Ok(())
    }

    /// Stacks whose rules' priorities are asked for. Where nothing is new, nobody is asked.
    fn open(&self, found: &[(String, Found)], is_there: &dyn Fn(&str) -> bool) -> Vec<String> {
        let stacks = self.made.stacks.iter();
        let open = stacks.filter(|stack| {
            let Some(wanted) = self.wanted.iter().find(|own| own.name == stack.name) else {
                return false;
            };
            let mut there = found.iter().map(|(_, found)| found);
            let there = there.find(|found| found.stack.name == stack.name);
            let has_failed = there.is_some_and(|found| {
                !found.stack.status.is_good()
                    && found.mark.as_ref().is_none_or(|mark| !mark.is_same(&wanted.mark))
            });
            self.made.is_of_branch(stack)
                || !is_there(&stack.name)
                || has_failed
                || has_new_rule(stack, &self.known)
        });
        open.map(|stack| stack.name.clone()).collect()
    }

    /// What a stack finds in the bucket of templates: a pipeline its receiver, the files of bakes and those that branches'
    /// stacks are made from; a branch's flow the files of its bake.
    pub fn beside(&self, wanted: &Wanted) -> Result<Vec<(String, Vec<u8>)>, Failure> {
        let bytes = |file: &File| (file.path.clone(), file.text.clone().into_bytes());
        let mark = &wanted.mark;
        let own = mark.environment.as_deref().filter(|_| mark.preview.is_some());
        match (mark.kind, own) {
            (Kind::Pipeline, _) => {
                let digest = applied::digest(&self.files);
                let mut all = vec![(self.receiver.key(), self.receiver.zip()?)];
                all.extend(bakes(&self.made.files, None).map(bytes));
                all.extend(self.files.iter().map(|file| {
                    let key = format!("branches/{}/{digest}/{}", self.app, file.path);
                    (key, file.text.clone().into_bytes())
                }));
                Ok(all)
            }
            (Kind::Flow, Some(own)) => Ok(bakes(&self.made.files, Some(own)).map(bytes).collect()),
            _ => Ok(Vec::new()),
        }
    }

    /// What a branch's environment is called here.
    pub fn apart(&self, own: &spec::Environment) -> String {
        let stacks = self.made.of_branch();
        let mut names = stacks.filter_map(|stack| stack.environment.as_ref());
        names
            .next()
            .map_or_else(|| own.name.to_string(), ToString::to_string)
    }

    /// The table of the app's pipeline, and who asks it.
    pub fn table(&self) -> Option<(String, &Site)> {
        let mut stacks = self.made.stacks.iter();
        let pipeline = stacks.find(|stack| stack.kind == Kind::Pipeline)?;
        Some((pipeline.name.clone(), self.site(pipeline.foundation.as_str())))
    }

    /// Is it this app's, or nobody's? An older stack does not say.
    pub fn is_own(&self, found: &Found) -> bool {
        let app = found.mark.as_ref().and_then(|mark| mark.app.as_deref());
        app.is_none_or(|app| app == self.app)
    }

    /// Refuses to touch a stack that says to be another app's or environment's than the files mean by its name.
    pub fn refuse_others(&self, found: &[(String, Found)]) -> Result<(), Failure> {
        for wanted in &self.wanted {
            let mut marks = found
                .iter()
                .filter(|(_, found)| found.stack.name == wanted.name)
                .filter_map(|(_, found)| found.mark.as_ref());
            let Some(mark) = marks.find(|mark| mark.is_anothers(&wanted.mark)) else {
                continue;
            };
            let (app, own) = (mark.app.as_deref(), mark.environment.as_deref());
            let said = [app, own, mark.preview.as_deref()];
            let said: Vec<&str> = said.into_iter().flatten().collect();
            return Err(Failure::new(
                Exit::Refused,
                format!("{} is another's, and nothing was changed", wanted.name),
            )
            .cause(format!("it says to be of {}", clean(&said.join(", "))))
            .next("vend aws status"));
        }
        Ok(())
    }

    /// Why nothing is made of the environment whose stack this is, or of one of the pipeline's. An older stack does not say
    /// whose it is.
    pub fn refusal(&self, found: &Found) -> Option<String> {
        let mark = found.mark.as_ref();
        if mark.is_some_and(|mark| mark.kind == Kind::Foundation) {
            return None;
        }
        let own = mark.and_then(|mark| mark.environment.as_deref());
        let mut refused = self.made.refused.iter();
        refused
            .find(|refused| own.is_none_or(|own| own == refused.environment.as_str()))
            .map(|refused| refused.why.to_string())
    }

    pub fn app(&self) -> &str {
        &self.app
    }

    /// Was no stack asked for by its name, which means all of them?
    pub fn is_whole(&self) -> bool {
        self.only.is_empty()
    }

    /// Was this stack asked for?
    pub fn is_asked(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|own| own == name)
    }

    /// Priorities are never given twice: they are kept before anything is made with them.
    pub fn keep(&self) -> Result<(), Failure> {
        keep(&self.priorities.0, &self.priorities.1)
    }

    /// Ours of the stacks that are there, each with its foundation. Each region of each account is asked once.
    pub async fn found(&self) -> Result<Vec<(String, Found)>, Failure> {
        let mut asked: Vec<(&Access, &str)> = Vec::new();
        let mut all = Vec::new();
        for (label, foundation) in &self.config.foundations {
            // What is one branch's stands nowhere else.
            if self.branch.is_some()
                && !self
                    .wanted
                    .iter()
                    .any(|own| own.mark.foundation == label.as_str())
            {
                continue;
            }
            let place = (&foundation.access, foundation.region.as_str());
            if asked.contains(&place) {
                continue;
            }
            asked.push(place);
            let there = site::found(self.site(label.as_str())).await.map_err(broken)?;
            refuse_account(&self.config, label, self.site(label.as_str()), &there).await?;
            for found in there {
                if let Some(label) = self.owner(&found, place) {
                    all.push((label, found));
                }
            }
        }
        // Once: what was asked for may be gone the next time.
        if self.looked.set(()).is_ok() {
            let own = all.iter().filter(|(_, found)| self.is_own(found));
            let there = own.map(|(_, found)| found.stack.name.as_str());
            let made = self.made.names().map(|(_, name, _)| name);
            unknown(&self.only, made.chain(there))?;
        }
        Ok(all)
    }

    /// Sentences about foundations of the file that stand, and not where it says.
    pub async fn elsewhere(&self, found: &[(String, Found)]) -> Vec<String> {
        let mut said = Vec::new();
        for (label, site) in self.sites() {
            let is_it = |own: &str, found: &Found| {
                own == label && found.mark.as_ref().map(|mark| mark.kind) == Some(Kind::Foundation)
            };
            // What a branch's build may ask is its own stacks'.
            if self.branch.is_some() || found.iter().any(|(own, found)| is_it(own, found)) {
                continue;
            }
            if site.has_roles(self.platform(), label).await {
                said.push(format!("{}-{label}: {}", self.platform(), plan::ELSEWHERE));
            }
        }
        said
    }

    /// The foundation of a stack that is ours: by what the stack says, or, where its creation failed, by its name. One of the same
    /// name that stands at another place is not the file's.
    fn owner(&self, found: &Found, place: (&Access, &str)) -> Option<String> {
        let label = match &found.mark {
            Some(mark) => (mark.platform == self.platform()).then(|| mark.foundation.clone()),
            None => {
                let mut names = self.made.names();
                let own = names.find(|(_, name, _)| *name == found.stack.name);
                own.map(|(_, _, foundation)| foundation.to_string())
            }
        };
        label.filter(|label| {
            let own = self
                .config
                .foundations
                .iter()
                .find(|(own, _)| own.as_str() == label);
            own.is_some_and(|(_, own)| (&own.access, own.region.as_str()) == place)
        })
    }
}

/// Refuses a name that is none of these.
fn unknown<'n>(asked: &[String], names: impl Iterator<Item = &'n str>) -> Result<(), Failure> {
    let names: BTreeSet<&str> = names.collect();
    let Some(unknown) = asked.iter().find(|own| !names.contains(own.as_str())) else {
        return Ok(());
    };
    let names: Vec<&str> = names.into_iter().collect();
    Err(Failure::new(
        Exit::NotFound,
        format!("there is no stack `{unknown}` of this app"),
    )
    .cause(format!("these are there: {}", names.join(", "))))
}

/// The files that bakes fetch: those of one environment, or of all that the files name.
fn bakes<'f>(files: &'f [File], environment: Option<&'f str>) -> impl Iterator<Item = &'f File> {
    files.iter().filter(move |file| {
        let mut path = file.path.split('/');
        let (place, _, own) = (path.next(), path.next(), path.next().unwrap_or_default());
        place == Some("packer") && environment.map_or(!spec::is_apart(own), |name| name == own)
    })
}

/// The digest of what must lie beside a stack; empty where it is nothing.
fn digested(stack: &synth::Stack, files: &[File]) -> String {
    let own = stack.environment.as_ref().filter(|_| stack.preview.is_some());
    let environment = match (stack.kind, own) {
        (Kind::Pipeline, _) => None,
        (Kind::Flow, Some(own)) => Some(own.as_str()),
        _ => return String::new(),
    };
    Digest::of_parts(bakes(files, environment).flat_map(|file| [&file.path, &file.text])).hex()
}
