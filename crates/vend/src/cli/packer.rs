//! The same scripts as a Packer template for AWS: what a bake does here, `amazon-ebs` does there.
//!
//! Scripts find themselves in `/srv/vend/source` with the inputs that `vend.yaml` names, and get the same variables. The
//! template is read from the working tree's root: `packer build -var ... vend.pkr.hcl`.

use std::path::{Path, PathBuf};

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use model::spec::{self, Environment};

use super::{Failure, Global};

#[derive(Debug, Args)]
pub struct Packer {
    /// The working tree.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Which environment's image.
    #[arg(long, default_value = "production")]
    environment: String,
    /// Standard output when absent.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// The owner and name pattern of the machine images that AWS has of a base.
fn source(base: &str) -> Option<(&'static str, &'static str, &'static str)> {
    Some(match base {
        "debian-12" => ("136693071363", "debian-12-amd64-*", "admin"),
        "debian-13" => ("136693071363", "debian-13-amd64-*", "admin"),
        "ubuntu-24.04" => (
            "099720109477",
            "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*",
            "ubuntu",
        ),
        _ => return None,
    })
}

pub fn run(packer: &Packer, global: &Global) -> Result<(), Failure> {
    let files = Tree(&packer.dir);
    let checked = spec::checked(&files);
    let app = checked
        .app
        .ok_or_else(|| Failure::failed("vend.yaml is not right").next("vend check"))?;
    let found = app
        .environments
        .iter()
        .find(|own| own.name.as_str() == packer.environment);
    let environment = found.ok_or_else(|| {
        Failure::failed(format!("vend.yaml has no environment `{}`", packer.environment))
            .next("--environment NAME")
    })?;
    let inputs = inputs(&packer.dir, environment)?;
    let text = template(app.app.as_str(), environment, &inputs).ok_or_else(|| {
        let base = &environment.image.base;
        Failure::failed(format!("AWS has no machine image of the base `{base}`"))
            .next(format!("image.base: one of {}", spec::Base::NAMES.join(", ")))
    })?;
    match &packer.out {
        Some(path) => std::fs::write(path, text).map_err(|error| Failure::file(path, &error)),
        None => {
            global.output().text(&text);
            Ok(())
        }
    }
}

struct Tree<'a>(&'a Path);

impl spec::Files for Tree<'_> {
    fn read(&self, path: &Utf8Path) -> Option<Vec<u8>> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        let file = std::fs::File::open(self.0.join(path)).ok()?;
        file.take(spec::MAX_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .ok()?;
        Some(bytes)
    }

    fn exists(&self, path: &Utf8Path) -> bool {
        self.0.join(path).exists()
    }
}

/// The scripts, and the files of the tree that they see, in order.
fn inputs(dir: &Path, environment: &Environment) -> Result<Vec<Utf8PathBuf>, Failure> {
    let image = &environment.image;
    let globs = host::tree::globs(&image.inputs).map_err(Failure::failed)?;
    let mut found: Vec<Utf8PathBuf> = image.scripts.clone();
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        let path = dir.join(&below);
        for entry in std::fs::read_dir(&path).map_err(|error| Failure::file(&path, &error))? {
            let entry = entry.map_err(|error| Failure::file(&path, &error))?;
            let name = below.join(entry.file_name());
            let kind = entry.file_type().map_err(|error| Failure::file(&path, &error))?;
            if kind.is_dir() && name != Path::new(".git") {
                waiting.push(name);
            } else if kind.is_file() && name.ancestors().any(|above| globs.is_match(above)) {
                found.extend(Utf8PathBuf::from_path_buf(name).ok());
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// A text as HCL writes it (HCL native syntax, "Template Expressions").
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // A brace after these would begin an expression.
            '$' | '%' if characters.peek() == Some(&'{') => out.extend([c, c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A word of a shell, within single quotes.
fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The template; `None` for a base that AWS has no machine image of.
fn template(app: &str, environment: &Environment, inputs: &[Utf8PathBuf]) -> Option<String> {
    let image = &environment.image;
    let (owner, pattern, user) = source(&image.base)?;
    let mut directories: Vec<String> = inputs
        .iter()
        .filter_map(|path| path.parent())
        .filter(|parent| !parent.as_str().is_empty())
        .map(|parent| word(&format!("/srv/vend/source/{parent}")))
        .collect();
    directories.sort_unstable();
    directories.dedup();
    let prepare = format!(
        "sudo install -d -o {user} /srv/vend/source {}",
        directories.join(" ")
    );
    let files: String = inputs
        .iter()
        .map(|path| {
            let (from, to) = (
                quoted(&format!("${{path.root}}/{path}")),
                quoted(&format!("/srv/vend/source/{path}")),
            );
            // The root of the template is an expression, and the rest of the path is text.
            let from = from.replacen("$${path.root}", "${path.root}", 1);
            format!("\n  provisioner \"file\" {{\n    source      = {from}\n    destination = {to}\n  }}\n")
        })
        .collect();
    let scripts: String = image
        .scripts
        .iter()
        .map(|script| step(app, environment, script))
        .collect();
    let values = [
        ("APP", quoted(app)),
        ("ENVIRONMENT", quoted(environment.name.as_str())),
        ("BASE", quoted(&image.base)),
        ("OWNER", quoted(owner)),
        ("PATTERN", quoted(pattern)),
        ("USER", quoted(user)),
        ("PREPARE", quoted(&prepare)),
        ("FILES", files),
        ("SCRIPTS", scripts),
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

fn step(app: &str, environment: &Environment, script: &Utf8Path) -> String {
    let line = format!(
        "cd /srv/vend/source && chmod 755 {0} && ./{0}",
        word(script.as_str())
    );
    let env = |name: &str, value: &str| format!("      {}", quoted(&format!("VEND_{name}={value}")));
    let variables = ["id", "author", "message", "branch", "repository"].map(|part| {
        format!(
            "      \"VEND_COMMIT_{}=${{var.commit_{part}}}\"",
            part.to_uppercase()
        )
    });
    let own = [
        env("APP", app),
        env("ENVIRONMENT", environment.name.as_str()),
        "      \"VEND_TENANT=${var.tenant}\"".to_owned(),
        "      \"DEBIAN_FRONTEND=noninteractive\"".to_owned(),
    ];
    let lines: Vec<String> = own.into_iter().chain(variables).collect();
    format!(
        "\n  provisioner \"shell\" {{\n    environment_vars = [\n{},\n    ]\n    execute_command = \"chmod +x {{{{ .Path }}}}; sudo -H env {{{{ .Vars }}}} /bin/sh {{{{ .Path }}}}\"\n    inline          = [{}]\n  }}\n",
        lines.join(",\n"),
        quoted(&line)
    )
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
    inline = ["sudo rm -rf /srv/vend/source && sudo apt-get clean && sudo truncate -s 0 /etc/machine-id"]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(image: &str) -> Environment {
        let text = format!("app: shop\nimage: {image}\n");
        let (app, _) = spec::App::parse(&text, "vend.yaml", &|_| true).unwrap();
        app.environments.into_iter().next().unwrap()
    }

    #[test]
    fn texts_are_never_expressions() {
        for (text, expected) in [
            ("a\"b", r#""a\"b""#),
            ("${var.x} %{if} $x", r#""$${var.x} %%{if} $x""#),
            ("a\nb\\\u{1}", r#""a\nb\\\u0001""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn a_template_has_every_script_and_input() {
        let environment =
            environment("{ scripts: [infra/preInstall.sh, \"infra/it's ${x}.sh\"], inputs: [infra/**] }");
        let inputs = ["infra/a b.conf".into(), "infra/preInstall.sh".into()];
        let text = template("shop", &environment, &inputs).unwrap();
        assert!(!text.contains("@@"));
        assert!(
            text.contains(r#"source      = "${path.root}/infra/a b.conf""#),
            "{text}"
        );
        assert!(
            text.contains("./'infra/preInstall.sh'") && text.contains(r#"infra/it'\\''s $${x}.sh"#),
            "{text}"
        );
        assert!(text.contains("encrypt_boot    = true") && text.contains("post-processor \"manifest\""));
        assert!(text.contains(r#""VEND_COMMIT_AUTHOR=${var.commit_author}""#));
        let tar = Environment {
            image: spec::Image {
                base: "tar:x".into(),
                ..environment.image.clone()
            },
            ..environment
        };
        assert_eq!(template("shop", &tar, &[]), None);
    }

    /// Debian's Packer has its Amazon builder built in and knows HCL; where it is not, the reader of HCL must do.
    #[test]
    fn packer_takes_the_template() {
        let directory = tempfile::tempdir().unwrap();
        let scripts = ["infra/preInstall.sh", "infra/install.sh"];
        std::fs::create_dir(directory.path().join("infra")).unwrap();
        for script in scripts {
            std::fs::write(directory.path().join(script), "true\n").unwrap();
        }
        let environment = environment("{ scripts: [infra/preInstall.sh, infra/install.sh] }");
        let text = template("shop", &environment, &scripts.map(Into::into)).unwrap();
        let parsed: Result<hcl::Body, _> = hcl::from_str(&text);
        let body = parsed.unwrap();
        let kinds: Vec<&str> = body.blocks().map(|block| block.identifier()).collect();
        assert!(kinds.contains(&"source") && kinds.contains(&"build"), "{kinds:?}");
        let path = directory.path().join("vend.pkr.hcl");
        std::fs::write(&path, &text).unwrap();
        let Ok(output) = std::process::Command::new("packer")
            .arg("validate")
            .arg(&path)
            .env("CHECKPOINT_DISABLE", "1")
            .current_dir(directory.path())
            .output()
        else {
            println!("skipped: packer is not installed; only the syntax was checked");
            return;
        };
        let said = [output.stdout, output.stderr].concat();
        println!(
            "packer validate: {} {}",
            output.status,
            String::from_utf8_lossy(&said)
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}
