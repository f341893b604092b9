//! Environments that come and go with their branches: `branches` in the place of `branch`.
//!
//! Which branch becomes which environment is worked out from the branch alone, so that both engines, and whoever pushes
//! to either, come to the same name.

use globset::GlobBuilder;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{
    App, Environment,
    environment::{Fields, is_branch, value},
};
use crate::{
    AppName, Digest, EnvironmentName,
    spec::{
        read::{Reader, quoted, written},
        yaml::Node,
    },
};

/// Patterns of one environment, and the longest of them.
const MOST_PATTERNS: usize = 10;
/// What a name may have, and the characters of the digest at its end with the hyphen before them.
const LONGEST: usize = 40;
const DIGEST: usize = 6;
/// What stands between a name and the digest of app and branch, where names of several apps meet, and how long that is.
const APART: &str = "-b-";
const APART_DIGEST: usize = 12;
/// Nothing that serves customers comes and goes with a branch.
const NEVER: &str = "production";

/// What branches' environments are made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pattern {
    /// `feature/*`: `*` stands for any characters but `/`, `**` for all.
    pub branches: Vec<String>,
    /// Everything that applies to each of them, under the name that the file has for them.
    pub environment: Environment,
}

/// How an environment comes and goes with its branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The name in the file of what it was made from. It has the secrets that are set for that.
    pub of: EnvironmentName,
    /// It goes when nothing was pushed to it for so long.
    pub expires: SignedDuration,
    /// So many are there at the same time.
    pub limit: u32,
}

impl Preview {
    pub const EXPIRES: SignedDuration = SignedDuration::from_hours(7 * 24);
    pub const LIMIT: u32 = 5;
}

impl std::fmt::Display for Preview {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let expires = written(self.expires);
        write!(
            f,
            "made from {}, goes with its branch, or {expires} after the last push; {} at most",
            self.of, self.limit
        )
    }
}

/// A branch whose environment would have the name of another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("branch {branch} would have the environment `{name}`, and vend.yaml has one of that name")]
pub struct Clash {
    pub branch: String,
    pub name: EnvironmentName,
}

/// Does a branch fit one of the patterns?
pub fn matches(patterns: &[String], branch: &str) -> bool {
    let matches = |pattern: &String| glob(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(branch));
    patterns.iter().any(matches)
}

impl Pattern {
    pub fn matches(&self, branch: &str) -> bool {
        matches(&self.branches, branch)
    }

    /// The environment of one branch.
    pub fn environment_of(&self, branch: &str) -> Environment {
        Environment {
            name: name(branch),
            branch: branch.to_owned(),
            ..self.environment.clone()
        }
    }
}

impl App {
    /// The environments that a push to `branch` is for: those that follow it, else the one that comes and goes with it,
    /// of the first pattern of the file that it fits.
    pub fn following(&self, branch: &str) -> Result<Vec<Environment>, Clash> {
        let follows = |own: &&Environment| own.branch == branch;
        let following: Vec<Environment> = self.environments.iter().filter(follows).cloned().collect();
        let pattern = self.patterns.iter().find(|pattern| pattern.matches(branch));
        let Some(pattern) = pattern.filter(|_| following.is_empty()) else {
            return Ok(following);
        };
        let made = pattern.environment_of(branch);
        let mut names = self
            .environments
            .iter()
            .chain(self.patterns.iter().map(|own| &own.environment));
        match names.any(|own| own.name == made.name) {
            true => Err(Clash {
                branch: branch.to_owned(),
                name: made.name,
            }),
            false => Ok(vec![made]),
        }
    }
}

/// What the environment of a branch is called: the branch, where that is a name, else what is left of it as a name with
/// a piece of its digest, so that `fix/a` and `fix-a` are two (GitLab's `CI_ENVIRONMENT_SLUG` does the same).
pub fn name(branch: &str) -> EnvironmentName {
    let own: Option<EnvironmentName> = branch.parse().ok();
    if let Some(own) = own.filter(|own| own.as_str() != NEVER && !is_digested(own.as_str())) {
        return own;
    }
    let mut slug = String::new();
    for character in branch.chars().take(LONGEST * 2) {
        match character {
            _ if character.is_ascii_alphanumeric() => slug.push(character.to_ascii_lowercase()),
            _ if slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    let slug = slug.trim_matches('-');
    let lead = match slug.starts_with(|first: char| first.is_ascii_lowercase()) {
        true => "",
        false => "b-",
    };
    let mut slug = format!("{lead}{slug}");
    slug.truncate(LONGEST - DIGEST - 1);
    let (slug, digest) = (slug.trim_end_matches('-'), Digest::of(branch).hex());
    let name = format!("{slug}-{}", &digest[..DIGEST]);
    name.parse()
        .expect("letters, digits and single hyphens, a letter first, and short enough")
}

/// What a branch's environment is called where names of several apps and environments run into one, as those of stacks do:
/// `shop` with `admin-x` and `shop-admin` with `x` are the same there. No other name ends like it ([`is_apart`]), and it is
/// as short as one of an environment.
pub fn name_apart(app: &AppName, branch: &str) -> EnvironmentName {
    let mut slug = name(branch).to_string();
    slug.truncate(LONGEST - APART.len() - APART_DIGEST);
    let (slug, digest) = (
        slug.trim_end_matches('-'),
        Digest::of_parts([app.as_str(), branch]).hex(),
    );
    let name = format!("{slug}{APART}{}", &digest[..APART_DIGEST]);
    name.parse()
        .expect("the beginning of a name, and letters, digits and single hyphens behind it")
}

/// Does it end like the name of a branch's environment, [`name_apart`]?
pub fn is_apart(name: &str) -> bool {
    let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let end = name.rsplit_once(APART).map_or("", |(_, end)| end);
    end.len() == APART_DIGEST && end.bytes().all(is_digit)
}

/// Could the end of it be a piece of a digest?
fn is_digested(name: &str) -> bool {
    let end = name.rsplit_once('-').map_or("", |(_, end)| end);
    end.len() == DIGEST && end.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn glob(pattern: &str) -> Result<globset::Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).build()
}

/// Is it one that comes and goes with its branch? Then how, and with which.
pub(super) fn preview(
    reader: &mut Reader<'_>,
    fields: Fields<'_>,
    name: &EnvironmentName,
) -> Option<(Vec<String>, Preview)> {
    let Some(node) = value(fields, "branches") else {
        for key in ["expires", "limit"] {
            if let Some(node) = value(fields, key) {
                reader
                    .error(
                        node,
                        format!("`{key}` is of environments that come and go with their branches"),
                    )
                    .help = Some("write `branches: \"feature/*\"`, or leave it out".to_owned());
            }
        }
        return None;
    };
    let (least, most) = (SignedDuration::from_secs(10), SignedDuration::from_hours(24 * 90));
    let expires = value(fields, "expires").and_then(|node| reader.duration(node, "expires", least..=most));
    let limit = value(fields, "limit").and_then(|node| reader.number(node, "limit", 1..=50));
    let preview = Preview {
        of: name.clone(),
        expires: expires.unwrap_or(Preview::EXPIRES),
        limit: limit
            .and_then(|limit| u32::try_from(limit).ok())
            .unwrap_or(Preview::LIMIT),
    };
    if name.as_str() == NEVER {
        reader
            .error(node, format!("`{NEVER}` does not come and go with a branch"))
            .help = Some("give the environments of branches another name, such as `preview`".to_owned());
    }
    one_only(reader, fields);
    let branches = patterns(reader, node);
    (!branches.is_empty()).then_some((branches, preview))
}

fn patterns(reader: &mut Reader<'_>, node: &Node) -> Vec<String> {
    let mut patterns = Vec::new();
    let items = reader.list(node, "branches", true);
    if items.is_empty() {
        reader.error(node, "`branches` names no branch").help =
            Some("write `branches: \"feature/*\"`".to_owned());
    }
    for (at, item) in items.iter().enumerate() {
        if at == MOST_PATTERNS {
            reader.error(
                item,
                format!("an environment has at most {MOST_PATTERNS} patterns of branches"),
            );
            break;
        }
        let Some(text) = reader.text(item, "branches") else {
            continue;
        };
        // With the stars filled in it must be what a branch may be called.
        let sample = text.replace('*', "x");
        if !is_branch(&sample) || text.contains(['{', '}', ']', '!']) || glob(&text).is_err() {
            reader
                .error(item, format!("{} is not a pattern of branches", quoted(&text)))
                .help = Some(
                "write the names of branches, with `*` for any characters but `/` and `**` for all"
                    .to_owned(),
            );
            continue;
        }
        patterns.push(text);
    }
    patterns
}

/// What only one environment can have.
fn one_only(reader: &mut Reader<'_>, fields: Fields<'_>) {
    let named = [
        ("branch", "each environment follows a branch of its own"),
        ("domains", "a domain leads to one environment"),
        ("listeners", "a port is one environment's"),
        ("placement", "registered machines are one environment's"),
    ];
    for (key, why) in named {
        if let Some(node) = value(fields, key) {
            let problem = reader.error(node, format!("`{key}` cannot stand beside `branches`: {why}"));
            problem.help = Some(format!("write `{key}: null` here if it stands above"));
        }
    }
}
