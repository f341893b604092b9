//! The files of a working tree: what `vend aws` reads there, what is made of it, and what it writes beside them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ::aws::synth::{self, Config, Priorities};
use model::{
    Problem,
    spec::{self, Files as _},
};

use super::{Exit, Failure, unread};
use crate::cli::check;

/// What there is to make, and what is to be known of the files.
pub struct Made {
    pub output: synth::Output,
    /// They may have grown.
    pub priorities: Priorities,
    pub notes: Vec<String>,
    /// The app's name.
    pub app: String,
}

pub fn read(dir: &Path, file: Option<&Path>, given: &Path) -> Result<Made, Failure> {
    let config = config(dir, file)?;
    let app = app(dir, false)?;
    let mut priorities = priorities(given)?;
    let output = made(&config, &app, None, &mut priorities)?;
    Ok(Made {
        output,
        priorities,
        notes: notes(dir, false),
        app: app.app.to_string(),
    })
}

pub fn made(
    config: &Config,
    app: &spec::App,
    own: Option<&spec::Environment>,
    priorities: &mut Priorities,
) -> Result<synth::Output, Failure> {
    synth::all_with(config, app, own, priorities).map_err(unmade)
}

/// Where to read what the operator's file may say.
const OPTIONS: &str = "docs/aws.md, \"Options\", has all keys and what they take";

pub fn unmade(error: synth::Error) -> Failure {
    Failure::refused("the templates cannot be made")
        .cause(error.to_string())
        .next(OPTIONS)
}

/// The environment that a branch has to itself.
pub fn of_branch(app: &spec::App, branch: &str) -> Result<spec::Environment, Failure> {
    let none = |cause: String| {
        Failure::new(Exit::NotFound, format!("{branch} has no environment of its own")).cause(cause)
    };
    let following = app.following(branch).map_err(|clash| none(clash.to_string()))?;
    let own = following.into_iter().find(|own| own.preview.is_some());
    own.ok_or_else(|| {
        none("it fits no `branches` of vend.yaml, or an environment follows it by name".to_owned())
            .next("vend aws status says what stands, also of branches whose entry is gone")
    })
}

pub fn config(dir: &Path, file: Option<&Path>) -> Result<Config, Failure> {
    let path = config_path(dir, file);
    if !dir.is_dir() {
        return Err(Failure::new(
            Exit::NotFound,
            format!("there is no directory {}", dir.display()),
        ));
    }
    let bytes = check::read(&path).map_err(|error| unread(&path, &error))?;
    let bad = |cause: String| {
        Failure::usage(format!("{} cannot be read", path.display()))
            .cause(cause)
            .next(OPTIONS)
    };
    if bytes.len() > spec::MAX_BYTES {
        return Err(bad(format!("it has more than {} bytes", spec::MAX_BYTES)));
    }
    let text = String::from_utf8(bytes).map_err(|error| bad(error.to_string()))?;
    toml::from_str(&text).map_err(|error| bad(error.to_string()))
}

pub fn config_path(dir: &Path, file: Option<&Path>) -> PathBuf {
    file.map_or_else(|| dir.join("aws.toml"), Path::to_path_buf)
}

/// What `vend check` finds: no stack is refused for it, and a release may fail by it.
pub fn notes(dir: &Path, is_alone: bool) -> Vec<String> {
    if is_alone {
        return Vec::new();
    }
    let said = |problem: &Problem| match problem.is_error() {
        true => format!("{problem}: releases fail by it"),
        false => problem.to_string(),
    };
    let found = spec::check_tree(&check::Tree(dir)).problems;
    found.iter().map(said).collect()
}

/// `is_alone`: the files that vend.yaml names are not beside it.
pub fn app(dir: &Path, is_alone: bool) -> Result<spec::App, Failure> {
    let tree = check::Tree(dir);
    let missing = || {
        Failure::failed(format!("{} holds no vend.yaml", dir.display()))
            .next("the same command with the directory of the app: vend aws plan DIR")
    };
    let bytes = tree.read("vend.yaml".into()).ok_or_else(missing)?;
    let exists = |path: &camino::Utf8Path| is_alone || tree.exists(path);
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

pub fn priorities(path: &Path) -> Result<Priorities, Failure> {
    if !path.exists() {
        return Ok(Priorities::default());
    }
    let text = fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::failed(format!("{} is not what was written there", path.display())).cause(error.to_string())
    })
}

/// Writes the priorities down.
pub fn keep(path: &Path, priorities: &Priorities) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(priorities).expect("priorities are plain data");
    write(path, format!("{text}\n"))
}

/// Writes a file, with the directories on the way to it.
pub fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let failed = |error| Failure::file(path, &error);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)
}
