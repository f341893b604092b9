//! Everything at once: the stacks of all foundations, of an app's pipeline, flows and environments, and Packer's files.

use std::collections::BTreeMap;

use model::{EnvironmentName, spec};

use super::{
    Config, Error, Kind, Label, Priorities, Resource, Runtime, Stack, environment,
    environment::stack_name,
    flow, foundation, machine, packer, pipeline,
    pipeline::{flow_name, home},
    value,
};

/// A file beside the templates: its path, from the directory of the output, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub path: String,
    pub text: String,
}

/// What there is to write, in the order in which stacks are made.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    pub stacks: Vec<Stack>,
    pub files: Vec<File>,
    /// Environments of which nothing can be made.
    pub refused: Vec<Refused>,
    /// Names of the stacks of a branch's own environment.
    branch: Vec<String>,
}

/// An environment of which nothing can be made: its stacks may stand all the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    pub environment: EnvironmentName,
    pub why: Error,
    /// What its stacks are called, each with its foundation; on all foundations where it is not clear on which it would stand.
    stacks: Vec<(Kind, String, Label)>,
}

impl Output {
    /// What all stacks of the files are called, each with its foundation: also those of environments that are refused.
    pub fn names(&self) -> impl Iterator<Item = (Kind, &str, &Label)> {
        let made = self.stacks.iter();
        let made = made.map(|own| (own.kind, own.name.as_str(), &own.foundation));
        let refused = self.refused.iter().flat_map(|own| &own.stacks);
        made.chain(refused.map(|(kind, name, label)| (*kind, name.as_str(), label)))
    }

    /// The stacks of a branch's own environment.
    pub fn of_branch(&self) -> impl Iterator<Item = &Stack> {
        self.stacks
            .iter()
            .filter(|stack| self.branch.contains(&stack.name))
    }

    /// Says which program the receiver is, and that makes stacks of branches: an object of the bucket of templates, for `x86_64`
    /// or `arm64`. `files`: the digest of the files from which those are made.
    pub fn receive(&mut self, key: &str, architecture: &str, files: &str) {
        let pipelines = self
            .stacks
            .iter_mut()
            .filter(|stack| stack.kind == Kind::Pipeline);
        for own in pipelines.flat_map(|stack| &mut stack.template.resources) {
            match own.id.as_str() {
                "Receiver" => {
                    own.properties["Code"]["S3Key"] = key.into();
                    own.properties["Architectures"] = [architecture].as_slice().into();
                }
                "Branches" => pipeline::run_by(own, key, architecture, files),
                _ => {}
            }
        }
    }

    /// Listeners on which rules of the stacks stand that `is_asked` names, as the foundation's outputs name them: foundation
    /// and output.
    pub fn listeners(&self, is_asked: &dyn Fn(&Stack) -> bool) -> Vec<(Label, String)> {
        let asked = self.stacks.iter().filter(|stack| is_asked(stack));
        let rules = asked.flat_map(|stack| {
            let own = stack.template.of("AWS::ElasticLoadBalancingV2::ListenerRule");
            own.filter_map(move |rule| Some((stack.foundation.clone(), listener(rule)?)))
        });
        let mut all: Vec<(Label, String)> = rules.collect();
        all.sort();
        all.dedup();
        all
    }

    /// Is it a stack of a branch's own environment?
    pub fn is_of_branch(&self, stack: &Stack) -> bool {
        self.branch.contains(&stack.name)
    }

    /// Gives rules on a listener of a foundation priorities that nobody else has there. Those of `Asking::stacks` are asked,
    /// and those of them that are there keep what they have. False: there is none left.
    pub fn settle(
        &mut self,
        (foundation, output): (&Label, &str),
        rules: &BTreeMap<u32, Vec<String>>,
        asking: &Asking<'_>,
        priorities: &mut Priorities,
    ) -> bool {
        let mut rules = rules.clone();
        let branch = &self.branch;
        let stacks = self.stacks.iter_mut();
        let mut own = stacks.filter(|own| own.foundation == *foundation && (asking.stacks)(own));
        own.all(|stack| {
            let stands = (asking.is_there)(&stack.name);
            let of_branch = branch.contains(&stack.name);
            let owner = owner(stack);
            let mut resources = stack.template.resources.iter_mut();
            resources.all(|rule| {
                if listener(rule).as_deref() != Some(output) {
                    return true;
                }
                let hosts = hosts(rule);
                let free = match of_branch {
                    true => {
                        let wanted = rule.properties["Priority"].as_u64();
                        let wanted = wanted.and_then(|own| u32::try_from(own).ok());
                        let names: Vec<&str> = hosts.iter().map(String::as_str).filter(|_| stands).collect();
                        wanted.and_then(|wanted| Priorities::free(wanted, &names, &rules))
                    }
                    false => {
                        let place = place(foundation, output);
                        let first = hosts.first().map_or("", String::as_str);
                        let known = asking.known.has(&place, &owner, first);
                        priorities.settle(&place, &owner, &hosts, (known, stands), &rules)
                    }
                };
                if let Some(free) = free {
                    rule.properties["Priority"] = free.into();
                    rules.insert(free, hosts);
                }
                free.is_some()
            })
        })
    }

    /// Are stacks of branches made by pushes?
    pub fn makes_branches(&self) -> bool {
        let mut pipelines = self.stacks.iter().filter(|stack| stack.kind == Kind::Pipeline);
        pipelines.any(|stack| stack.template.resource("Branches").is_some())
    }
}

/// Whose rules get their priorities from what stands.
pub struct Asking<'a> {
    pub stacks: &'a dyn Fn(&Stack) -> bool,
    /// Is a stack of this name there?
    pub is_there: &'a dyn Fn(&str) -> bool,
    /// What was written down before.
    pub known: &'a Priorities,
}

/// Has a stack a rule on a listener of its foundation whose priority is not written down yet?
pub fn has_new_rule(stack: &Stack, known: &Priorities) -> bool {
    let mut rules = stack.template.of("AWS::ElasticLoadBalancingV2::ListenerRule");
    rules.any(|rule| {
        let Some(output) = listener(rule) else {
            return false;
        };
        let hosts = hosts(rule);
        let first = hosts.first().map_or("", String::as_str);
        !known.has(&place(&stack.foundation, &output), &owner(stack), first)
    })
}

/// Who has a rule, as priorities are written down.
fn owner(stack: &Stack) -> String {
    let name = |own: Option<&str>| own.unwrap_or_default().to_owned();
    let app = name(stack.app.as_ref().map(|own| own.as_str()));
    format!(
        "{app}/{}",
        name(stack.environment.as_ref().map(|own| own.as_str()))
    )
}

/// A listener of a foundation, as priorities are written down.
fn place(foundation: &Label, output: &str) -> String {
    let port = if output == "HttpsListener" {
        "https"
    } else {
        "http"
    };
    format!("{foundation}/{port}")
}

/// The output of the foundation that is a rule's listener; none where the listener is the environment's own.
fn listener(rule: &Resource) -> Option<String> {
    let shared = rule.properties["ListenerArn"]["Fn::ImportValue"].as_str()?;
    (rule.kind == "AWS::ElasticLoadBalancingV2::ListenerRule")
        .then(|| shared.rsplit('-').next().unwrap_or_default().to_owned())
}

fn hosts(rule: &Resource) -> Vec<String> {
    let values = rule.properties["Conditions"][0]["HostHeaderConfig"]["Values"].as_array();
    let values = values.into_iter().flatten();
    values.filter_map(|own| Some(own.as_str()?.to_owned())).collect()
}

/// All of an app, and the foundations. `priorities` gets what is new.
pub fn all(config: &Config, app: &spec::App, priorities: &mut Priorities) -> Result<Output, Error> {
    all_with(config, app, None, priorities)
}

/// The same with the environment that a branch has to itself. Here that has a name that is nobody else's
/// ([`spec::name_apart`]), and all that is made of it is called after that.
pub fn all_with(
    config: &Config,
    app: &spec::App,
    branch: Option<&spec::Environment>,
    priorities: &mut Priorities,
) -> Result<Output, Error> {
    let mut output = most_with(config, app, branch, priorities)?;
    match output.refused.is_empty() {
        true => Ok(output),
        false => Err(output.refused.remove(0).why),
    }
}

/// As much of it as can be made: an environment that is refused is left out, and named.
pub fn most_with(
    config: &Config,
    app: &spec::App,
    branch: Option<&spec::Environment>,
    priorities: &mut Priorities,
) -> Result<Output, Error> {
    priorities.check()?;
    unknown(config, app)?;
    kept_apart(app)?;
    let branch = branch.map(|own| spec::Environment {
        name: spec::name_apart(&app.app, &own.branch),
        ..own.clone()
    });
    let mut output = Output {
        stacks: Vec::new(),
        files: Vec::new(),
        refused: Vec::new(),
        branch: Vec::new(),
    };
    for label in config.foundations.keys() {
        output.stacks.push(foundation(config, label)?);
    }
    let mut own = noted(pipeline(config, app)?, app);
    own.notes.extend(unmeant(config, app));
    output.stacks.push(own);
    let mut taken = BTreeMap::new();
    for own in app.environments.iter().chain(&branch) {
        if let Err(why) = add(&mut output, &mut taken, (config, app, own), priorities) {
            output.refused.push(Refused {
                environment: own.name.clone(),
                why,
                stacks: named(config, app, own)?,
            });
        }
    }
    output.stacks = output.stacks.into_iter().map(|own| own.tagged(config)).collect();
    Ok(output)
}

/// What the stacks of an environment are called of which nothing can be made.
fn named(
    config: &Config,
    app: &spec::App,
    own: &spec::Environment,
) -> Result<Vec<(Kind, String, Label)>, Error> {
    let targets = targets(config, app, own).unwrap_or_else(|_| config.foundations.keys().cloned().collect());
    let home = home(config, &app.app)?;
    let flow = flow_name(config, home, &app.app, &own.name);
    let name = |label: Label| {
        (
            Kind::Environment,
            stack_name(config, &label, &app.app, own),
            label,
        )
    };
    let mut all: Vec<_> = targets.into_iter().map(name).collect();
    all.push((Kind::Flow, flow, home.clone()));
    Ok(all)
}

/// The stacks and files of one environment: all of them, or none.
fn add(
    output: &mut Output,
    taken: &mut BTreeMap<String, EnvironmentName>,
    (config, app, own): (&Config, &spec::App, &spec::Environment),
    priorities: &mut Priorities,
) -> Result<(), Error> {
    let options = config.apps.get(&app.app);
    if let Some(options) = options.and_then(|app| app.environments.get(own.entry())) {
        value::environment(&app.app, own, options)?;
    }
    let targets = targets(config, app, own)?;
    let (mut stacks, mut beside) = (Vec::new(), Vec::new());
    for label in &targets {
        let stack = environment(config, &app.app, own, label, priorities)?;
        if let Some(other) = taken.insert(stack.name.clone(), own.name.clone()) {
            let why = format!("`{other}` and `{}` are both the stack `{}`", own.name, stack.name);
            return Err(Error::config(format!("apps.{}", app.app), why));
        }
        stacks.push(stack);
    }
    stacks.push(flow(config, app, own, &targets)?);
    files(&mut beside, config, app, own, &targets)?;
    if own.preview.is_some() {
        output
            .branch
            .extend(stacks.iter().map(|stack| stack.name.clone()));
    }
    output.stacks.append(&mut stacks);
    output.files.append(&mut beside);
    Ok(())
}

/// Says who makes what is for branches.
fn noted(mut pipeline: Stack, app: &spec::App) -> Stack {
    let is_made = pipeline.template.resource("Branches").is_some();
    for pattern in &app.patterns {
        let (name, branches) = (&pattern.environment.name, pattern.branches.join(" "));
        let how = match is_made {
            true => {
                "a push to one makes its stacks and starts its flow, its end and `expires` take them down"
            }
            false => {
                "they go into another account, which a push does not reach: `vend aws apply --branch BRANCH` makes the stacks of one, `vend \
                 aws destroy --branch BRANCH` takes them down, a push to it starts its flow, and nothing expires"
            }
        };
        pipeline
            .notes
            .push(format!("`{name}` is for branches ({branches}): {how}"));
    }
    let patterns = app.patterns.iter().map(|pattern| &pattern.environment);
    let mut all = app.environments.iter().chain(patterns);
    if all.any(|own| own.build.buildspec.is_some()) {
        pipeline.notes.push(
            "`build.pass_rate` and `build.coverage`: CodeBuild shows reports, and none of them fails a build; the command that runs the tests must"
                .to_owned(),
        );
    }
    pipeline
}

/// Says that the file has options of other apps only: one file may be several apps', and a name may be misspelt.
fn unmeant(config: &Config, app: &spec::App) -> Option<String> {
    let others: Vec<String> = config.apps.keys().map(|own| format!("`{own}`")).collect();
    (!others.is_empty() && !config.apps.contains_key(&app.app)).then(|| {
        format!(
            "aws.toml has options of {}, and none of `{}`: everything here has its defaults",
            others.join(", "),
            app.app
        )
    })
}

/// Refuses an environment whose stacks could be called like those of a branch.
fn kept_apart(app: &spec::App) -> Result<(), Error> {
    let is_like = |own: &&spec::Environment| spec::is_apart(&format!("{}-{}", app.app, own.name));
    match app.environments.iter().find(is_like) {
        None => Ok(()),
        Some(own) => {
            let why = format!(
                "`{}-{}` ends as only names of branches' environments do",
                app.app, own.name
            );
            Err(Error::config(
                format!("apps.{}.environments.{}", app.app, own.name),
                why,
            ))
        }
    }
}

/// Refuses options of environments that `vend.yaml` does not have.
fn unknown(config: &Config, app: &spec::App) -> Result<(), Error> {
    let options = config.apps.get(&app.app);
    let mut names = options.iter().flat_map(|options| options.environments.keys());
    let patterns = app.patterns.iter().map(|pattern| &pattern.environment);
    let entries: Vec<&EnvironmentName> = app
        .environments
        .iter()
        .chain(patterns)
        .map(spec::Environment::entry)
        .collect();
    match names.find(|name| !entries.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let why = "vend.yaml has no such environment".to_owned();
            Err(Error::config(
                format!("apps.{}.environments.{name}", app.app),
                why,
            ))
        }
    }
}

/// The foundations into which an environment's releases go, in order.
pub(super) fn targets(
    config: &Config,
    app: &spec::App,
    own: &spec::Environment,
) -> Result<Vec<Label>, Error> {
    let options = config
        .apps
        .get(&app.app)
        .and_then(|app| app.environments.get(own.entry()));
    let named = options.and_then(|options| options.foundation.clone());
    let alike = || {
        config
            .foundations
            .keys()
            .find(|label| label.as_str() == own.entry().as_str())
            .cloned()
    };
    let only = || match config.foundations.len() {
        1 => config.foundations.keys().next().cloned(),
        _ => None,
    };
    let at = || format!("apps.{}.environments.{}.foundation", app.app, own.entry());
    let first = named.or_else(alike).or_else(only);
    let first = first
        .ok_or_else(|| Error::config(at(), "there are several foundations: say which one".to_owned()))?;
    let unknown = |label: &Label| format!("there is no foundation `{label}`");
    if !config.foundations.contains_key(&first) {
        return Err(Error::config(at(), unknown(&first)));
    }
    let mut all = vec![first];
    for label in options.iter().flat_map(|options| &options.also) {
        let at = format!("apps.{}.environments.{}.also", app.app, own.entry());
        if !config.foundations.contains_key(label) {
            return Err(Error::config(at, unknown(label)));
        }
        if all.contains(label) {
            let why = format!("releases go into `{label}` already");
            return Err(Error::config(at, why));
        }
        all.push(label.clone());
    }
    Ok(all)
}

fn files(
    files: &mut Vec<File>,
    config: &Config,
    app: &spec::App,
    own: &spec::Environment,
    targets: &[Label],
) -> Result<(), Error> {
    let definition = machine(config, app, own, targets)?;
    files.push(File {
        path: format!("flows/{}-{}.asl.json", app.app, own.name),
        text: format!("{definition:#}\n"),
    });
    let runtime = config
        .apps
        .get(&app.app)
        .and_then(|app| app.environments.get(own.entry()))
        .map(|own| own.runtime);
    if runtime.unwrap_or_default() != Runtime::Host {
        return Ok(());
    }
    for (name, text) in packer(config, app, own)? {
        files.push(File {
            path: format!("packer/{}/{}/{name}", app.app, own.name),
            text,
        });
    }
    Ok(())
}
