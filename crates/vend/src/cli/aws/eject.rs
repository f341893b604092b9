//! `vend aws eject`: everything to go on without Vend, and a script that does with AWS's own command line what `apply` does.

mod page;

use std::path::PathBuf;

use ::aws::synth::{GUARD, Kind, MAX_INLINE_BYTES, Stack};
use clap::Args;

use super::{
    Failure,
    folder::{Cleared, Folder},
    project::{Loaded, Project},
    synth,
};
use crate::output::Output;

#[derive(Debug, Args)]
pub struct Eject {
    #[command(flatten)]
    project: Project,
    /// Where everything goes.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn run(own: &Eject, output: &Output) -> Result<(), Failure> {
    let loaded = own.project.load()?;
    let mut folder = Folder::new(&own.out, "eject", loaded.app())?;
    let written = synth::files(&loaded.made, &mut folder, false)?;
    for wanted in &loaded.wanted {
        // As `apply` makes it of these files, so that the first deployment by hand changes nothing after one.
        folder.write(&format!("{}.yaml", wanted.name), wanted.template.yaml())?;
    }
    for wanted in &loaded.wanted {
        for (key, bytes) in loaded.beside(wanted)? {
            folder.write(&key, bytes)?;
        }
    }
    folder.write("apply.sh", script(&loaded))?;
    folder.write("README.md", page::page(&loaded))?;
    // Of some stacks alone it is a part.
    let cleared = match loaded.is_whole() {
        true => folder.end()?,
        false => Cleared::default(),
    };
    output.show(&written, |written| {
        let out = own.out.display();
        format!(
            "{}{} templates in {out}; {out}/README.md says how to go on, {out}/apply.sh does it\n",
            cleared.people(output),
            written.len()
        )
    });
    Ok(())
}

/// Says `yes` of a stack that is not there, or was broken off before it had its protection; what else goes wrong ends the script.
const IS_OPEN: &str = r#"is_open() {
  stack=$1; shift
  if said=$(aws cloudformation describe-stacks --stack-name "$stack" --output text \
    --query "Stacks[0].Parameters[?ParameterKey=='Guarded'].ParameterValue" "$@" 2>&1); then
    [ "$said" != no ] || echo yes
  else
    case $said in
      *"does not exist"*) echo yes ;;
      *) echo "$said" >&2; return 1 ;;
    esac
  fi
}
"#;

fn script(loaded: &Loaded) -> String {
    let mut text = String::from(
        "#!/bin/sh\n# Makes the stacks in their order, with AWS's own command line. Needs: aws, and who may do it.\n\
         # With several accounts, name the profile of each: PROFILE_foundation=NAME sh apply.sh\nset -eu\ncd \"$(dirname \"$0\")\"\n\
         account() { aws sts get-caller-identity --query Account --output text \"$@\"; }\n",
    );
    text.push_str(IS_OPEN);
    for wanted in &loaded.wanted {
        let mut stacks = loaded.made.stacks.iter();
        if let Some(stack) = stacks.find(|stack| stack.name == wanted.name) {
            text.push_str(&lines(loaded.platform(), stack, wanted.is_guarded()));
        }
    }
    text
}

/// What makes one stack, with the options of all its calls as the shell's own arguments.
fn lines(platform: &str, stack: &Stack, is_guarded: bool) -> String {
    let (name, region, label) = (&stack.name, &stack.region, &stack.foundation);
    let variable = format!("PROFILE_{}", label.as_str().replace('-', "_"));
    let about = stack.template.about.replace('\n', " ");
    let mut text = format!(
        "\n# {about}\nset -- --region {region}\n[ -z \"${{{variable}:-}}\" ] || set -- \"$@\" --profile \"${variable}\"\n"
    );
    let bucket = format!("{platform}-{label}-templates-$(account \"$@\")-{region}");
    if stack.kind == Kind::Pipeline {
        text.push_str(&format!(
            "aws s3 cp --recursive --only-show-errors receiver \"s3://{bucket}/receiver\" \"$@\"\n\
             [ ! -d branches ] || aws s3 cp --recursive --only-show-errors branches \"s3://{bucket}/branches\" \"$@\"\n\
             [ ! -d packer ] || aws s3 cp --recursive --only-show-errors packer \"s3://{bucket}/packer\" \"$@\"\n"
        ));
    }
    if is_guarded {
        text.push_str(&format!("is_open=$(is_open {name} \"$@\")\n"));
    }
    let deploy = deploy(platform, stack, &bucket);
    text.push_str(&deploy);
    if is_guarded {
        // CloudFormation could not take back what is protected: that comes when all of it is made.
        text.push_str(&format!(" ${{is_open:+--parameter-overrides {GUARD}=no}}"));
    }
    text.push_str(" \"$@\"\n");
    if is_guarded {
        text.push_str(&format!("{deploy} --parameter-overrides {GUARD}=yes \"$@\"\n"));
    }
    if is_guarded {
        // Only once: who took the protection away had a reason.
        text.push_str(&format!(
            "[ -z \"$is_open\" ] || aws cloudformation update-termination-protection --enable-termination-protection \\\n  \
             --stack-name {name} \"$@\" >/dev/null\n"
        ));
    }
    text
}

/// The command that makes or changes a stack, without what comes last.
fn deploy(platform: &str, stack: &Stack, bucket: &str) -> String {
    let (name, label) = (&stack.name, &stack.foundation);
    let tags = stack.tags.iter().map(|(key, value)| format!(" {key}={value}"));
    let mut text = format!(
        "aws cloudformation deploy --stack-name {name} --template-file {name}.yaml \\\n  \
         --capabilities CAPABILITY_NAMED_IAM --no-fail-on-empty-changeset \\\n  --tags{}",
        tags.collect::<String>()
    );
    if stack.template.yaml().len() + 600 > MAX_INLINE_BYTES {
        // A new foundation has no bucket yet: the template must lie somewhere else the first time.
        text.push_str(&format!(" --s3-bucket \"${{BUCKET:-{bucket}}}\""));
    }
    if stack.kind == Kind::Environment {
        text.push_str(&format!(
            " \\\n  --role-arn \"arn:aws:iam::$(account \"$@\"):role/{platform}/{platform}-{label}-stacks\""
        ));
    }
    text
}
