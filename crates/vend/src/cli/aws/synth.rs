//! `vend aws synth`: everything as files, without an account or a network.

use std::path::PathBuf;

use ::aws::{kept, synth};
use clap::Args;
use serde::Serialize;

use super::{
    Failure,
    folder::{Cleared, Folder},
    tree,
};
use crate::output::{Output, Table, Tone, cell, clean};

#[derive(Debug, Args)]
pub struct Synth {
    /// The working tree, which holds a vend.yaml.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// What vend.yaml cannot say about AWS: accounts, regions, domains. [default: aws.toml of the working tree]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything goes. What is there of the same name is written anew, what an earlier time wrote there and this one does
    /// not is taken away; priorities.json is read first.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Also write each resource as a file of its own.
    #[arg(long)]
    split: bool,
}

/// A stack that was written.
#[derive(Debug, Serialize)]
pub struct Written {
    name: String,
    region: String,
    template: String,
    resources: usize,
    bytes: usize,
    /// May the template be sent with the call, or must it lie in S3?
    inline: bool,
    notes: Vec<String>,
    /// Why `apply` makes none of this name where none stands.
    refused: Option<String>,
}

pub fn run(own: &Synth, output: &Output) -> Result<(), Failure> {
    let given = own.out.join("priorities.json");
    let tree::Made {
        output: made,
        priorities,
        notes,
        app,
    } = tree::read(&own.dir, own.config.as_deref(), &given)?;
    let mut folder = Folder::new(&own.out, "synth", &app)?;
    let stacks = files(&made, &mut folder, own.split)?;
    for stack in &made.stacks {
        if let Some(part) = kept::import(&stack.template) {
            folder.write(&format!("kept/{}.yaml", stack.name), part.yaml())?;
        }
    }
    tree::keep(&given, &priorities)?;
    let cleared = folder.end()?;
    let report = Report {
        stacks,
        notes,
        cleared,
    };
    output.show(&report, |report| people(report, output));
    Ok(())
}

#[derive(Debug, Serialize)]
struct Report {
    stacks: Vec<Written>,
    /// Of the files, as `vend check` warns of them.
    notes: Vec<String>,
    #[serde(flatten)]
    cleared: Cleared,
}

/// Writes all there is.
pub fn files(made: &synth::Output, folder: &mut Folder<'_>, splits: bool) -> Result<Vec<Written>, Failure> {
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
        folder.write(&template, &text)?;
        // As the options of AWS's own command line that take a file.
        let tags: Vec<_> = stack
            .tags
            .iter()
            .map(|(key, value)| serde_json::json!({ "Key": key, "Value": value }))
            .collect();
        let tags = format!("{:#}\n", serde_json::Value::from(tags));
        folder.write(&format!("tags/{}.json", stack.name), &tags)?;
        if splits {
            split(folder, stack)?;
        }
        written.push(Written {
            name: stack.name.clone(),
            region: stack.region.to_string(),
            template,
            resources: stack.template.resources.len(),
            bytes: text.len(),
            inline: text.len() <= synth::MAX_INLINE_BYTES,
            notes: stack.notes.clone(),
            refused: stack.refused.clone(),
        });
    }
    for file in &made.files {
        folder.write(&file.path, &file.text)?;
    }
    Ok(written)
}

fn people(report: &Report, output: &Output) -> String {
    let written = &report.stacks;
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
    let of = |one: &Written| -> Vec<(String, String)> {
        let own = one.notes.iter();
        own.map(|note| (one.name.clone(), clean(note))).collect()
    };
    let of_stacks: Vec<(String, String)> = written.iter().flat_map(of).collect();
    text.push_str(&notes(&report.notes, &of_stacks, output));
    for one in written {
        if let Some(why) = &one.refused {
            let label = output.tone(Tone::Bad, "refused");
            let why = clean(why);
            text.push_str(&format!(
                "{label} {}, unless it is there already: {why}\n",
                one.name
            ));
        }
    }
    text.push_str(&report.cleared.people(output));
    text
}

/// What is to be known, of the files and of single stacks: what holds for several is said once.
pub fn notes(files: &[String], stacks: &[(String, String)], output: &Output) -> String {
    let label = output.tone(Tone::Wait, "note");
    let mut text: String = files
        .iter()
        .map(|note| format!("{label} {}\n", clean(note)))
        .collect();
    for (index, (_, note)) in stacks.iter().enumerate() {
        if stacks[..index].iter().any(|(_, other)| other == note) {
            continue;
        }
        let own = stacks.iter().filter(|(_, other)| other == note);
        let names: Vec<&str> = own.map(|(stack, _)| stack.as_str()).collect();
        text.push_str(&format!("{label} {}: {note}\n", names.join(", ")));
    }
    text
}

fn split(folder: &mut Folder<'_>, stack: &synth::Stack) -> Result<(), Failure> {
    for resource in &stack.template.resources {
        let mut alone = synth::Template::new(&resource.about);
        alone.resources.push(resource.clone());
        let path = format!("resources/{}/{}.yaml", stack.name, resource.id);
        folder.write(&path, alone.yaml())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_for_several_stacks_is_said_once() {
        let own = |stack: &str, note: &str| (stack.to_owned(), note.to_owned());
        let stacks = [own("a", "one"), own("b", "two"), own("c", "one")];
        let said = notes(
            &["of the files".to_owned()],
            &stacks,
            &Output::new(false, String::new()),
        );
        assert_eq!(said, "note of the files\nnote a, c: one\nnote b: two\n");
    }
}
