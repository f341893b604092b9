//! The app's scripts as a Packer template: the same image that hosts of the embedded engine start from, as an AMI.
//!
//! HCL that Packer 1.6 and later read; what only later ones have, `required_plugins`, stands in a file of its own.

mod alone;

pub use alone::alone;

use std::fmt::Write as _;

use camino::Utf8Path;
use model::spec;

use super::{
    Error,
    config::Config,
    size::{self, Architecture},
};

/// The files of a Packer template: name and text. Packer runs at the root of the repository, with all of them but the
/// first two in its directory `vend`.
pub type Files = Vec<(&'static str, String)>;

/// What reaches a host that has no open port: Session Manager's agent, on a base that has none. First the host's own end, which
/// comes after that of every bake: a build that is stopped takes Packer with it, and nobody else knows of the host.
const AGENTS: &str = r#"#!/bin/bash
# Runs once, when the host that becomes an image starts.
# It goes by itself if nobody takes it away. No image has this: it is known to the running system only.
systemd-run --on-active=75min systemctl poweroff
set -eu
architecture=$(dpkg --print-architecture)
curl -fsSL --retry 5 -o /tmp/ssm.deb "https://s3.amazonaws.com/ec2-downloads-linux/SSMAgent/latest/debian_$architecture/amazon-ssm-agent.deb"
dpkg -i /tmp/ssm.deb
rm /tmp/ssm.deb
systemctl enable --now amazon-ssm-agent
"#;

/// What every host on AWS has.
const HOST: &str = r#"#!/bin/bash
# CodeDeploy's agent, CloudWatch's agent, the command line of AWS, jq, unzip.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
cloud-init status --wait || true
apt-get update
apt-get install -y --no-install-recommends awscli ca-certificates curl jq ruby unzip
cd "$(mktemp -d)"
curl -fsSL --retry 5 -o codedeploy "https://aws-codedeploy-$REGION.s3.$REGION.amazonaws.com/latest/install"
ruby codedeploy auto
# A host of the image has no variables yet when it starts: what gives it them starts the agent.
systemctl disable --now codedeploy-agent
curl -fsSL --retry 5 -o cloudwatch.deb "https://amazoncloudwatch-agent.s3.amazonaws.com/debian/$ARCHITECTURE/latest/amazon-cloudwatch-agent.deb"
dpkg -i cloudwatch.deb
rm -rf "$PWD" /var/lib/apt/lists/*
"#;

/// The tag of what a bake has made, `PLATFORM/APP`: who bakes reaches nothing else.
pub(super) const BAKE: &str = "vend:bake";

/// Where scripts find themselves and what they see, here as on a platform's own bakes.
const SOURCE: &str = "/srv/vend/source";

/// The machine images that AWS has of a base.
struct Machine {
    owner: &'static str,
    /// The first part of their names, before and after the architecture, as Debian calls it.
    name: (&'static str, &'static str),
    /// Who one is on a host of theirs.
    user: &'static str,
}

impl Machine {
    fn images(&self, architecture: &str) -> String {
        format!("{}{architecture}{}", self.name.0, self.name.1)
    }
}

fn machine(base: &str) -> Option<Machine> {
    let debian = |name| Machine {
        owner: "136693071363",
        name: (name, ""),
        user: "admin",
    };
    match base {
        "debian-12" => Some(debian("debian-12-")),
        "debian-13" => Some(debian("debian-13-")),
        "ubuntu-24.04" => Some(Machine {
            owner: "099720109477",
            name: ("ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-", "-server"),
            user: "ubuntu",
        }),
        _ => None,
    }
}

/// The template that bakes the environment's image. Paths of scripts are from the root of the repository, where Packer runs.
pub fn packer(config: &Config, app: &spec::App, environment: &spec::Environment) -> Result<Files, Error> {
    let (_, architecture) = size::types(&environment.host.size, &config.sizes)?;
    let base = base(&environment.image.base)?;
    let mut out = String::new();
    variables(&mut out);
    source(&mut out, config, app, environment, &base, architecture);
    build(&mut out, config, app, environment, architecture)?;
    let plugins = "packer {\n  required_plugins {\n    amazon = {\n      version = \">= 1.3.0\"\n      \
                   source  = \"github.com/hashicorp/amazon\"\n    }\n  }\n}\n";
    let mut inputs: Vec<&str> = environment.image.inputs.iter().map(String::as_str).collect();
    inputs.extend(environment.image.scripts.iter().map(|script| script.as_str()));
    inputs.sort_unstable();
    inputs.dedup();
    let inputs = inputs.iter().map(|pattern| format!("{pattern}\n")).collect();
    Ok(vec![
        ("image.pkr.hcl", out),
        ("plugins.pkr.hcl", plugins.to_owned()),
        ("agents.sh", AGENTS.to_owned()),
        ("host.sh", HOST.to_owned()),
        ("inputs.txt", inputs),
    ])
}

/// The machine images that a pipeline's hosts can start from, with the reason why the others are none. The package of
/// CodeDeploy's agent that regions install by themselves, 1.8, needs a Ruby from 2.0 to 3.2; version 2 needs none, and regions
/// have it only for whoever asks for it by its version, and not all of them do.
/// Source: <https://github.com/aws/aws-codedeploy-agent/issues/418>, <https://github.com/aws/aws-codedeploy-agent/issues/423>
fn base(name: &str) -> Result<Machine, Error> {
    let why = match (name, machine(name)) {
        ("debian-12", Some(machine)) => return Ok(machine),
        ("debian-13", _) => {
            "`debian-13` has Ruby 3.3, and CodeDeploy's agent, which puts the app on hosts, installs with Ruby up to 3.2: say \
             `base: debian-12`"
                .to_owned()
        }
        (_, Some(_)) => format!(
            "`{name}` is none that flows bake on: what hosts on AWS need is installed on Debian; say `base: debian-12`"
        ),
        (_, None) => format!("`{name}` has no image on AWS that is known here"),
    };
    Err(Error::config("image.base", why))
}

/// A text as HCL writes it, in quotes (HCL native syntax, "Template Expressions").
fn quoted(text: &str) -> String {
    format!("\"{}\"", inner(text))
}

/// The same without the quotes: no interpolation, no line of its own.
fn inner(text: &str) -> String {
    let mut out = String::new();
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            // A brace after these would begin an expression.
            '$' | '%' if characters.peek() == Some(&'{') => out.extend([c, c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Runs one script as a bake does: as root, where its inputs lie, with these variables, whose values are inside of HCL's
/// quotes already.
fn step(script: &Utf8Path, variables: &[(&str, String)]) -> String {
    let line = format!(
        "cd {SOURCE} && chmod 755 {0} && ./{0}",
        format_args!("'{}'", script.as_str().replace('\'', r"'\''"))
    );
    let debian = [("DEBIAN_FRONTEND", "noninteractive".to_owned())];
    let own: Vec<String> = debian
        .iter()
        .chain(variables)
        .map(|(name, value)| format!("      \"{name}={value}\",\n"))
        .collect();
    format!(
        "\n  provisioner \"shell\" {{\n    environment_vars = [\n{}    ]\n    execute_command = \
         \"chmod +x {{{{ .Path }}}}; sudo -H env {{{{ .Vars }}}} /bin/sh {{{{ .Path }}}}\"\n    inline          = [{}]\n  }}\n",
        own.concat(),
        quoted(&line)
    )
}

fn variables(out: &mut String) {
    let variables = [
        ("region", None, "Where the image is made."),
        ("subnet", None, "A subnet from which the internet can be reached."),
        (
            "profile",
            None,
            "The instance profile by which Session Manager reaches the host.",
        ),
        ("key", None, "The foundation's key, by its ARN."),
        ("commit", None, "The commit that the scripts are of."),
        ("author", Some(""), "Who wrote it."),
        ("message", Some(""), "What it says."),
        ("branch", Some(""), "The branch that was pushed."),
        ("inputs", Some(""), "The digest of all that the image is made of."),
    ];
    for (name, default, about) in variables {
        let _ = writeln!(
            out,
            "variable \"{name}\" {{\n  type        = string\n  description = {}",
            quoted(about)
        );
        if let Some(default) = default {
            let _ = writeln!(out, "  default     = {}", quoted(default));
        }
        out.push_str("}\n\n");
    }
    out.push_str(
        "variable \"accounts\" {\n  type        = list(string)\n  description = \"Accounts that may start hosts from the image.\"\n  \
         default     = []\n}\n\n",
    );
}

fn source(
    out: &mut String,
    config: &Config,
    app: &spec::App,
    environment: &spec::Environment,
    base: &Machine,
    architecture: Architecture,
) {
    let name = format!("{}-{}-{}", config.platform, app.app, environment.name);
    let (builder, word) = match architecture {
        Architecture::Arm64 => ("t4g.small", "arm64"),
        Architecture::X86_64 => ("t3.small", "x86_64"),
    };
    let platform = quoted(config.platform.as_str());
    let _ = write!(
        out,
        "# The timestamp makes each image's name its own.\n\
         locals {{\n  name = \"{name}-${{formatdate(\"YYYYMMDD-hhmmss\", timestamp())}}\"\n  \
           tags = {{\n    \"vend:platform\"    = {platform}\n    \"vend:app\"         = \"{}\"\n    \
             \"vend:environment\" = \"{}\"\n    \"vend:commit\"      = var.commit\n    \"vend:author\"      = substr(var.author, 0, 256)\n    \
             \"vend:message\"     = substr(replace(var.message, \"/[^A-Za-z0-9 _.:=+@-]/\", \" \"), 0, 256)\n  }}\n}}\n\n\
         # Who bakes changes and takes away what was made so, and nothing else.\n\
         locals {{\n  made = merge(local.tags, {{ \"{BAKE}\" = \"{2}/{0}\" }})\n}}\n\n",
        app.app, environment.name, config.platform
    );
    let _ = write!(
        out,
        "source \"amazon-ebs\" \"image\" {{\n  \
           region                      = var.region\n  \
           subnet_id                   = var.subnet\n  \
           associate_public_ip_address = false\n  \
           instance_type               = \"{builder}\"\n  \
           iam_instance_profile        = var.profile\n  \
           communicator                = \"ssh\"\n  \
           ssh_interface               = \"session_manager\"\n  \
           ssh_username                = \"{}\"\n  \
           ami_name                    = local.name\n  \
           ami_description             = \"Commit ${{var.commit}}\"\n  \
           ami_users                   = var.accounts\n  \
           snapshot_users              = var.accounts\n  \
           ena_support                 = true\n  \
           encrypt_boot                = true\n  \
           kms_key_id                  = var.key\n  \
           shutdown_behavior           = \"terminate\"\n\n  \
           # What it is copied from has the tags of the host: none is found by its inputs but the image that is finished.\n  \
           tags            = merge(local.tags, {{ \"vend:inputs\" = var.inputs }})\n  \
           snapshot_tags   = local.tags\n  \
           run_tags        = local.made\n  \
           run_volume_tags = local.made\n\n  \
           # No port is open: the script puts Session Manager's agent on the base, which answers by the profile.\n  \
           user_data_file                        = \"vend/agents.sh\"\n  \
           temporary_security_group_source_cidrs = [\"127.0.0.1/32\"]\n\n  \
           launch_block_device_mappings {{\n    device_name           = \"/dev/xvda\"\n    volume_type           = \"gp3\"\n    \
             volume_size           = 10\n    iops                  = 3000\n    \
             throughput            = 125\n    delete_on_termination = true\n  }}\n\n  \
           source_ami_filter {{\n    filters = {{\n      name                = \"{}-*\"\n      architecture        = \"{word}\"\n      \
             virtualization-type = \"hvm\"\n      root-device-type    = \"ebs\"\n    }}\n    owners      = [\"{}\"]\n    \
             most_recent = true\n  }}\n}}\n\n",
        base.user,
        base.images(architecture.debian()),
        base.owner
    );
}

fn build(
    out: &mut String,
    config: &Config,
    app: &spec::App,
    environment: &spec::Environment,
    architecture: Architecture,
) -> Result<(), Error> {
    out.push_str("build {\n  sources = [\"source.amazon-ebs.image\"]\n\n");
    let _ = write!(
        out,
        "  # What hosts on AWS have beside the app: CodeDeploy's agent, CloudWatch's, the command line, jq.\n  \
           provisioner \"shell\" {{\n    execute_command  = \"sudo -n env {{{{ .Vars }}}} bash '{{{{ .Path }}}}'\"\n    \
           environment_vars = [\"ARCHITECTURE={}\", \"REGION=${{var.region}}\"]\n    script           = \"vend/host.sh\"\n  }}\n\n",
        architecture.debian()
    );
    if !environment.image.inputs.is_empty() || !environment.image.scripts.is_empty() {
        let _ = write!(
            out,
            "  # The files that the scripts see, as `image.inputs` names them.\n  \
               provisioner \"file\" {{\n    source      = \"vend/inputs.tar\"\n    destination = \"/tmp/inputs.tar\"\n  }}\n\n  \
               provisioner \"shell\" {{\n    inline = [\"sudo install -d {SOURCE}\", \
               \"sudo tar -xf /tmp/inputs.tar -C {SOURCE}\", \"rm /tmp/inputs.tar\"]\n  }}\n",
        );
    }
    // The same eight as on a platform, where a tenant is who has the app; here that is whose account it is.
    let options = config.apps.get(&app.app);
    let repository = options.and_then(|own| own.repository.as_ref());
    let repository = repository.map_or("", |own| own.url.as_str());
    let variables = [
        ("VEND_TENANT", inner(config.platform.as_str())),
        ("VEND_APP", inner(app.app.as_str())),
        ("VEND_ENVIRONMENT", inner(environment.name.as_str())),
        ("VEND_COMMIT_ID", "${var.commit}".to_owned()),
        ("VEND_COMMIT_AUTHOR", "${var.author}".to_owned()),
        ("VEND_COMMIT_MESSAGE", "${var.message}".to_owned()),
        ("VEND_COMMIT_BRANCH", "${var.branch}".to_owned()),
        ("VEND_COMMIT_REPOSITORY", inner(repository)),
    ];
    for script in &environment.image.scripts {
        if script.as_str().chars().any(char::is_control) {
            return Err(Error::config(
                "image.scripts",
                format!("`{}` holds a control character", script.as_str().escape_debug()),
            ));
        }
        out.push_str(&step(script, &variables));
    }
    let _ = write!(
        out,
        "\n  # An image is nobody's yet: no keys, no identity, no history.\n  \
           provisioner \"shell\" {{\n    inline = [\"sudo rm -rf {SOURCE} /etc/ssh/ssh_host_* /root/.ssh /home/admin/.ssh \
         /var/lib/cloud/instances\", \"sudo truncate -s 0 /etc/machine-id\"]\n  }}\n\n  \
           post-processor \"manifest\" {{\n    output     = \"manifest.json\"\n    strip_path = true\n    \
           custom_data = {{\n      commit = var.commit\n      inputs = var.inputs\n    }}\n  }}\n}}\n",
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_does_not_leave_its_quotes() {
        for (text, expected) in [
            ("a\"b\\c\n${d} %{e}", r#""a\"b\\c\n$${d} %%{e}""#),
            ("$x %y $${z}\u{1}", r#""$x %y $$${z}\u0001""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
