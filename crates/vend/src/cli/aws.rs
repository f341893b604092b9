//! `vend aws`: what the same files are on AWS. Without a platform, an account or a network.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ::aws::synth::{self, Config, Priorities};
use clap::{Args, Subcommand};
use model::{
    Problem,
    spec::{self, Files as _},
};
use serde::Serialize;

use super::{Failure, Global, check};
use crate::output::{Output, Table, Tone, cell, clean};

#[derive(Debug, Subcommand)]
pub enum Aws {
    /// Write the CloudFormation templates, state machines and Packer files of an app and its foundations.
    Synth(Synth),
}

#[derive(Debug, Args)]
pub struct Synth {
    /// The working tree, which holds a vend.yaml.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// What vend.yaml cannot say about AWS: accounts, regions, domains. [default: aws.toml of the working tree]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything goes. What is there of the same name is written anew; priorities.json is read first.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Also write each resource as a file of its own.
    #[arg(long)]
    split: bool,
}

/// A stack that was written.
#[derive(Debug, Serialize)]
struct Written {
    name: String,
    region: String,
    template: String,
    resources: usize,
    bytes: usize,
    /// May the template be sent with the call, or must it lie in S3?
    inline: bool,
    notes: Vec<String>,
}

pub fn run(aws: &Aws, global: &Global) -> Result<(), Failure> {
    match aws {
        Aws::Synth(own) => synth(own, &global.output()),
    }
}

fn synth(own: &Synth, output: &Output) -> Result<(), Failure> {
    let config = config(own)?;
    let app = app(&own.dir)?;
    let given = own.out.join("priorities.json");
    let mut priorities = priorities(&given)?;
    let made = synth::all(&config, &app, &mut priorities).map_err(|error| {
        Failure::refused("the templates cannot be made")
            .cause(error.to_string())
            .next("vend aws synth --help")
    })?;
    let mut written = Vec::new();
    for stack in &made.stacks {
        let template = format!("{}.yaml", stack.name);
        let text = stack.template.yaml();
        if text.len() > synth::MAX_BYTES {
            let cause = format!(
                "{template} has {} bytes; CloudFormation takes {}",
                text.len(),
                synth::MAX_BYTES
            );
            return Err(Failure::refused("a template is too large").cause(cause));
        }
        write(&own.out.join(&template), &text)?;
        if own.split {
            split(&own.out.join("resources").join(&stack.name), &stack.template)?;
        }
        written.push(Written {
            name: stack.name.clone(),
            region: stack.region.to_string(),
            template,
            resources: stack.template.resources.len(),
            bytes: text.len(),
            inline: text.len() <= synth::MAX_INLINE_BYTES,
            notes: stack.notes.clone(),
        });
    }
    for file in &made.files {
        write(&own.out.join(&file.path), &file.text)?;
    }
    let text = serde_json::to_string_pretty(&priorities).expect("priorities are plain data");
    write(&given, &format!("{text}\n"))?;
    output.show(&written, |written| people(written, output));
    Ok(())
}

fn people(written: &[Written], output: &Output) -> String {
    let mut table = Table::new(["STACK", "REGION", "RESOURCES", "KB"]);
    for one in written {
        let kb = format!("{:.0}", one.bytes as f64 / 1e3);
        table.row([
            (one.name.clone(), Tone::Strong),
            cell(&one.region),
            cell(one.resources),
            cell(kb),
        ]);
    }
    let mut text = table.render(output, "nothing\n");
    for one in written {
        for note in &one.notes {
            text.push_str(&format!(
                "{} {}: {}\n",
                output.tone(Tone::Wait, "note"),
                one.name,
                clean(note)
            ));
        }
    }
    text
}

fn config(own: &Synth) -> Result<Config, Failure> {
    let path = own.config.clone().unwrap_or_else(|| own.dir.join("aws.toml"));
    let bytes = check::read(&path).map_err(|error| {
        Failure::file(&path, &error).next("vend aws synth --config FILE, see docs/aws.md")
    })?;
    let bad = |cause: String| Failure::usage(format!("{} cannot be read", path.display())).cause(cause);
    if bytes.len() > spec::MAX_BYTES {
        return Err(bad(format!("it has more than {} bytes", spec::MAX_BYTES)));
    }
    let text = String::from_utf8(bytes).map_err(|error| bad(error.to_string()))?;
    toml::from_str(&text).map_err(|error| bad(error.to_string()))
}

fn app(dir: &Path) -> Result<spec::App, Failure> {
    let tree = check::Tree(dir);
    let missing = || {
        Failure::failed(format!("{} holds no vend.yaml", dir.display())).next("vend aws synth DIR --out OUT")
    };
    let bytes = tree.read("vend.yaml".into()).ok_or_else(missing)?;
    let exists = |path: &camino::Utf8Path| tree.exists(path);
    let bad = |problems: Vec<Problem>| {
        let first = problems
            .iter()
            .find(|problem| problem.is_error())
            .map(ToString::to_string);
        let next = format!("vend check {}", dir.display());
        Failure::refused("vend.yaml is not right")
            .cause(first.unwrap_or_default())
            .next(next)
    };
    let text = spec::decode("vend.yaml", &bytes).map_err(|problem| bad(vec![problem]))?;
    spec::App::parse(text, "vend.yaml", &exists)
        .map(|(app, _)| app)
        .map_err(bad)
}

fn priorities(path: &Path) -> Result<Priorities, Failure> {
    if !path.exists() {
        return Ok(Priorities::default());
    }
    let text = fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::failed(format!("{} is not what was written there", path.display())).cause(error.to_string())
    })
}

fn split(directory: &Path, template: &synth::Template) -> Result<(), Failure> {
    for resource in &template.resources {
        let alone = synth::Template {
            resources: vec![resource.clone()],
            ..synth::Template::new(&resource.about)
        };
        write(&directory.join(format!("{}.yaml", resource.id)), &alone.yaml())?;
    }
    Ok(())
}

/// Writes a file, with the directories on the way to it.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| Failure::file(path, &error);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)
}
