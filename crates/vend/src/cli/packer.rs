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
    /// Which environment's image [default: production, or the only one that there is].
    #[arg(long)]
    environment: Option<String>,
    /// Standard output when absent.
    #[arg(long)]
    out: Option<PathBuf>,
}

pub fn run(packer: &Packer, global: &Global) -> Result<(), Failure> {
    let files = Tree(&packer.dir);
    let checked = spec::checked(&files);
    let app = checked
        .app
        .ok_or_else(|| Failure::failed("vend.yaml is not right").next("vend check"))?;
    let environment = chosen(&app.environments, packer.environment.as_deref())?;
    let inputs = inputs(&packer.dir, environment)?;
    let text = ::aws::synth::alone(app.app.as_str(), environment, &inputs).ok_or_else(|| {
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

const PRODUCTION: &str = "production";

/// The environment of this name; without one `production`, or the only one that there is.
fn chosen<'a>(all: &'a [Environment], name: Option<&str>) -> Result<&'a Environment, Failure> {
    let wanted = name.unwrap_or(PRODUCTION);
    let found = all.iter().find(|own| own.name.as_str() == wanted);
    let only = match all {
        [only] if name.is_none() => Some(only),
        _ => None,
    };
    found.or(only).ok_or_else(|| {
        let there: Vec<&str> = all.iter().map(|own| own.name.as_str()).collect();
        Failure::failed(format!("vend.yaml has no environment `{wanted}`"))
            .next(format!("vend images packer --environment {}", there.join("|")))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(image: &str) -> Environment {
        let text = format!("app: shop\nimage: {image}\n");
        let (app, _) = spec::App::parse(&text, "vend.yaml", &|_| true).unwrap();
        app.environments.into_iter().next().unwrap()
    }

    #[test]
    fn an_environment_is_chosen_that_there_is() {
        let all = |text: &str| {
            spec::App::parse(text, "vend.yaml", &|_| true)
                .unwrap()
                .0
                .environments
        };
        let name = |all: &[Environment], wanted| match chosen(all, wanted) {
            Ok(environment) => environment.name.to_string(),
            Err(failure) => format!("{}; next {}", failure.what, failure.next.unwrap()),
        };
        let two =
            all("app: shop\nenvironments: { test: { branch: main }, production: { branch: release } }\n");
        assert_eq!(name(&two, None), "production");
        assert_eq!(name(&two, Some("test")), "test");
        let neither =
            all("app: shop\nenvironments: { test: { branch: main }, stage: { branch: release } }\n");
        let refused = name(&neither, None);
        assert!(
            refused.starts_with("vend.yaml has no environment `production`; next "),
            "{refused}"
        );
        assert!(
            refused.ends_with("--environment test|stage") || refused.ends_with("--environment stage|test"),
            "{refused}"
        );
        let one = all("app: shop\nenvironments: { test: { branch: main } }\n");
        assert_eq!(name(&one, None), "test");
        assert!(name(&one, Some("production")).ends_with("--environment test"));
    }

    #[test]
    fn a_template_has_every_script_and_input() {
        let environment =
            environment("{ scripts: [infra/preInstall.sh, \"infra/it's ${x}.sh\"], inputs: [infra/**] }");
        let inputs = ["infra/a b.conf".into(), "infra/preInstall.sh".into()];
        let text = ::aws::synth::alone("shop", &environment, &inputs).unwrap();
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
        assert!(
            text.contains("kms_key_id      = var.kms_key_id")
                && text.contains(r#""vend:commit"      = var.commit_id"#)
        );
        let tar = Environment {
            image: spec::Image {
                base: "tar:x".into(),
                ..environment.image.clone()
            },
            ..environment
        };
        assert_eq!(::aws::synth::alone("shop", &tar, &[]), None);
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
        let text = ::aws::synth::alone("shop", &environment, &scripts.map(Into::into)).unwrap();
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
