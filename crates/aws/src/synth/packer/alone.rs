//! A template of its own, for whoever has an account and no foundation: `vend images packer`.
//!
//! Packer runs it from the root of the repository, whose files it sends one by one.

use camino::{Utf8Path, Utf8PathBuf};
use model::spec::Environment;

use super::{SOURCE, machine, quoted, step};

/// The template; `None` for a base that AWS has no machine image of. `inputs` are the files that the scripts see, and the
/// scripts.
pub fn alone(app: &str, environment: &Environment, inputs: &[Utf8PathBuf]) -> Option<String> {
    let image = &environment.image;
    let base = machine(&image.base)?;
    let directories = inputs
        .iter()
        .filter_map(|path| path.parent())
        .filter(|parent| !parent.as_str().is_empty());
    let mut directories: Vec<String> = directories
        .map(|parent| word(&format!("{SOURCE}/{parent}")))
        .collect();
    directories.sort_unstable();
    directories.dedup();
    let prepare = format!(
        "sudo install -d -o {} {SOURCE} {}",
        base.user,
        directories.join(" ")
    );
    let variables = variables(app, environment);
    let values = [
        ("APP", quoted(app)),
        ("ENVIRONMENT", quoted(environment.name.as_str())),
        ("BASE", quoted(&image.base)),
        ("OWNER", quoted(base.owner)),
        ("PATTERN", quoted(&format!("{}-*", base.images("amd64")))),
        ("USER", quoted(base.user)),
        ("PREPARE", quoted(&prepare)),
        ("FILES", inputs.iter().map(|path| file(path)).collect()),
        (
            "SCRIPTS",
            image
                .scripts
                .iter()
                .map(|script| step(script, &variables))
                .collect(),
        ),
        ("SOURCE", SOURCE.to_owned()),
    ];
    let mut text = String::new();
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("@@") {
        let (name, after) = after.split_once("@@")?;
        text.push_str(before);
        text.push_str(&values.iter().find(|(own, _)| *own == name)?.1);
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

/// What scripts find in their environment, as HCL.
fn variables(app: &str, environment: &Environment) -> Vec<(&'static str, String)> {
    let named = |name: &str| format!("${{var.{name}}}");
    vec![
        ("VEND_TENANT", named("tenant")),
        ("VEND_APP", super::inner(app)),
        ("VEND_ENVIRONMENT", super::inner(environment.name.as_str())),
        ("VEND_COMMIT_ID", named("commit_id")),
        ("VEND_COMMIT_AUTHOR", named("commit_author")),
        ("VEND_COMMIT_MESSAGE", named("commit_message")),
        ("VEND_COMMIT_BRANCH", named("commit_branch")),
        ("VEND_COMMIT_REPOSITORY", named("commit_repository")),
    ]
}

fn file(path: &Utf8Path) -> String {
    let to = quoted(&format!("{SOURCE}/{path}"));
    // The root of the template is an expression, and the rest of the path is text.
    let from = format!("\"${{path.root}}/{}\"", super::inner(path.as_str()));
    format!("\n  provisioner \"file\" {{\n    source      = {from}\n    destination = {to}\n  }}\n")
}

/// A word of a shell, within single quotes.
fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Everything between `@@` is put in.
const TEMPLATE: &str = r##"# Made by `vend images packer`. Run from the root of the repository:
#   packer build -var commit_id=$(git rev-parse HEAD) ... vend.pkr.hcl
# Packer 1.7 and later have the Amazon builder as a plugin, once: packer plugins install github.com/hashicorp/amazon

variable "region" {
  type    = string
  default = "us-east-1"
}

variable "instance_type" {
  type    = string
  default = "t3.small"
}

variable "kms_key_id" {
  type        = string
  default     = "alias/vend"
  description = "The foundation's key: the machine image is encrypted with it."
}

variable "subnet_id" {
  type    = string
  default = null
}

variable "tenant" {
  type    = string
  default = ""
}

variable "commit_id" {
  type    = string
  default = ""
}

variable "commit_author" {
  type    = string
  default = ""
}

variable "commit_message" {
  type    = string
  default = ""
}

variable "commit_branch" {
  type    = string
  default = ""
}

variable "commit_repository" {
  type    = string
  default = ""
}

locals {
  app         = @@APP@@
  environment = @@ENVIRONMENT@@
  tags = {
    "vend:tenant"      = var.tenant
    "vend:app"         = local.app
    "vend:environment" = local.environment
    "vend:base"        = @@BASE@@
    "vend:commit"      = var.commit_id
    "vend:author"      = substr(var.commit_author, 0, 256)
    "vend:message"     = substr(replace(var.commit_message, "/[^A-Za-z0-9 _.:=+@-]/", " "), 0, 256)
  }
}

source "amazon-ebs" "image" {
  region          = var.region
  instance_type   = var.instance_type
  subnet_id       = var.subnet_id
  ssh_username    = @@USER@@
  ami_name        = "vend-${local.app}-${local.environment}-${formatdate("YYYYMMDD-hhmmss", timestamp())}"
  ami_description = substr("${local.app} at ${var.commit_id} by ${var.commit_author}", 0, 255)
  encrypt_boot    = true
  kms_key_id      = var.kms_key_id
  tags            = local.tags
  run_tags        = local.tags
  snapshot_tags   = local.tags

  source_ami_filter {
    owners      = [@@OWNER@@]
    most_recent = true
    filters = {
      name                = @@PATTERN@@
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }
}

build {
  sources = ["source.amazon-ebs.image"]

  provisioner "shell" {
    inline = [@@PREPARE@@]
  }
@@FILES@@@@SCRIPTS@@
  provisioner "shell" {
    inline = ["sudo rm -rf @@SOURCE@@ && sudo apt-get clean && sudo truncate -s 0 /etc/machine-id"]
  }

  post-processor "manifest" {
    output     = "packer-manifest.json"
    strip_path = true
    custom_data = {
      app    = local.app
      commit = var.commit_id
    }
  }
}
"##;
