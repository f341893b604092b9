//! Bare repositories on disk, and what is read from them. Every call of git is isolated from the configuration of
//! whoever runs the platform, and has a deadline.

use std::{process::Stdio, time::Duration};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use model::{AppName, TenantName, port::Commit};
use tokio::process::Command;

/// Of one call of git that reads or writes a few references.
const DEADLINE: Duration = Duration::from_secs(30);
/// What a commit's message may be long; the rest is cut off.
const MESSAGE_BYTES: usize = 16 * 1024;
/// Where the last commit of each branch that was handed over is remembered.
const ANNOUNCED: &str = "refs/vend/announced/";
const HEADS: &str = "refs/heads/";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("git {verb} could not be run")]
    Run {
        verb: String,
        #[source]
        cause: std::io::Error,
    },
    #[error("git {verb} did not end in {} s", DEADLINE.as_secs())]
    Slow { verb: String },
    #[error("git {verb} failed: {stderr}")]
    Failed { verb: String, stderr: String },
    #[error("the repository at {path} cannot be changed")]
    Disk {
        path: Utf8PathBuf,
        #[source]
        cause: std::io::Error,
    },
}

/// The directory with all built-in repositories: `TENANT/APP.git`.
#[derive(Debug, Clone)]
pub struct Repositories {
    root: Utf8PathBuf,
}

/// A branch that is not as it was when it was last handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub branch: String,
    pub before: Option<String>,
    /// None: the branch is gone.
    pub after: Option<String>,
}

impl Repositories {
    pub fn new(root: Utf8PathBuf) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    pub fn path(&self, tenant: &TenantName, app: &AppName) -> Utf8PathBuf {
        self.root.join(tenant.as_str()).join(format!("{app}.git"))
    }

    /// Makes the repository unless it is there.
    pub async fn ensure(&self, tenant: &TenantName, app: &AppName) -> Result<Utf8PathBuf, Error> {
        let path = self.path(tenant, app);
        if path.join("HEAD").is_file() {
            return Ok(path);
        }
        // Made beside its place and then moved, so that a crash leaves no half repository.
        let draft = path.with_extension("draft");
        let disk = |cause| Error::Disk {
            path: path.clone(),
            cause,
        };
        remove(&draft).await.map_err(disk)?;
        tokio::fs::create_dir_all(&draft).await.map_err(disk)?;
        let init = [
            "init",
            "--quiet",
            "--bare",
            "--template=",
            "--initial-branch=main",
        ];
        run(&draft, &init, &[]).await?;
        match tokio::fs::rename(&draft, &path).await {
            // Another call was faster.
            Err(_) if path.join("HEAD").is_file() => remove(&draft).await.map_err(disk)?,
            renamed => renamed.map_err(disk)?,
        }
        Ok(path)
    }

    /// Removes the repository. One that is not there is removed.
    pub async fn remove(&self, tenant: &TenantName, app: &AppName) -> Result<(), Error> {
        let path = self.path(tenant, app);
        let doomed = path.with_extension("doomed");
        let disk = |cause| Error::Disk {
            path: path.clone(),
            cause,
        };
        remove(&doomed).await.map_err(disk)?;
        match tokio::fs::rename(&path, &doomed).await {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(disk)?,
        }
        remove(&doomed).await.map_err(disk)
    }

    /// Every branch that moved since it was last handed over.
    pub async fn moved(&self, tenant: &TenantName, app: &AppName) -> Result<Vec<Moved>, Error> {
        let format = "--format=%(objectname) %(refname)";
        let listing = run(
            &self.path(tenant, app),
            &["for-each-ref", format, HEADS, ANNOUNCED],
            &[],
        )
        .await?;
        Ok(compare(&String::from_utf8_lossy(&listing)))
    }

    /// Remembers that a branch was handed over as it is in `moved`.
    pub async fn announced(&self, tenant: &TenantName, app: &AppName, moved: &Moved) -> Result<(), Error> {
        let path = self.path(tenant, app);
        let name = format!("{ANNOUNCED}{}", moved.branch);
        match &moved.after {
            Some(commit) => run(&path, &["update-ref", &name, commit], &[]).await?,
            None => run(&path, &["update-ref", "-d", &name], &[]).await?,
        };
        Ok(())
    }

    /// Lets HEAD name a branch that exists, so that a clone checks something out.
    pub async fn point_head(&self, tenant: &TenantName, app: &AppName, branch: &str) -> Result<(), Error> {
        let path = self.path(tenant, app);
        if run(&path, &["rev-parse", "--verify", "--quiet", "HEAD"], &[])
            .await
            .is_err()
        {
            run(&path, &["symbolic-ref", "HEAD", &format!("{HEADS}{branch}")], &[]).await?;
        }
        Ok(())
    }

    /// What a commit says about itself.
    pub async fn commit(
        &self,
        tenant: &TenantName,
        app: &AppName,
        branch: &str,
        id: &str,
    ) -> Result<Commit, Error> {
        let format = "--format=%ct%x00%an <%ae>%x00%B";
        let show = ["log", "-1", "--no-show-signature", "--no-color", format, id];
        let text = run(
            &self.path(tenant, app),
            &show,
            &[("i18n.logOutputEncoding", "UTF-8")],
        )
        .await?;
        let text = String::from_utf8_lossy(&text);
        let mut parts = text.splitn(3, '\0');
        let mut next = || parts.next().unwrap_or_default();
        let seconds: i64 = next().parse().unwrap_or_default();
        Ok(Commit {
            id: id.to_owned(),
            committed_at: Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH),
            author: cut(next(), 200).to_owned(),
            message: cut(next().trim_end(), MESSAGE_BYTES).to_owned(),
            branch: branch.to_owned(),
            repository: format!("{tenant}/{app}"),
        })
    }
}

fn compare(listing: &str) -> Vec<Moved> {
    use std::collections::BTreeMap;
    let (mut heads, mut announced) = (BTreeMap::new(), BTreeMap::new());
    for (id, name) in listing.lines().filter_map(|line| line.split_once(' ')) {
        if let Some(branch) = name.strip_prefix(HEADS) {
            heads.insert(branch, id);
        } else if let Some(branch) = name.strip_prefix(ANNOUNCED) {
            announced.insert(branch, id);
        }
    }
    let gone = announced.keys().filter(|branch| !heads.contains_key(*branch));
    let branches = heads.keys().chain(gone);
    branches
        .filter(|branch| heads.get(*branch) != announced.get(*branch))
        .map(|branch| Moved {
            branch: (*branch).to_owned(),
            before: announced.get(branch).map(|id| (*id).to_owned()),
            after: heads.get(branch).map(|id| (*id).to_owned()),
        })
        .collect()
}

/// At most `bytes` bytes of `text`, whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

async fn remove(path: &Utf8Path) -> std::io::Result<()> {
    match tokio::fs::remove_dir_all(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

async fn run(directory: &Utf8Path, arguments: &[&str], config: &[(&str, &str)]) -> Result<Vec<u8>, Error> {
    let verb = || arguments.first().copied().unwrap_or_default().to_owned();
    let mut command = isolated(config);
    command.args(arguments).current_dir(directory);
    command
        .env("GIT_DIR", ".")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .map_err(|_| Error::Slow { verb: verb() })?
        .map_err(|cause| Error::Run { verb: verb(), cause })?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(Error::Failed {
            verb: verb(),
            stderr: cut(String::from_utf8_lossy(&output.stderr).trim(), 500).to_owned(),
        }),
    }
}

/// A git that reads no configuration but the repository's own and `config`, runs no hook and asks nothing.
pub fn isolated(config: &[(&str, &str)]) -> Command {
    const ALWAYS: [(&str, &str); 2] = [("safe.directory", "*"), ("core.hooksPath", "/dev/null")];
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C.UTF-8")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_CONFIG_COUNT", (ALWAYS.len() + config.len()).to_string());
    for (index, (key, value)) in ALWAYS.iter().chain(config).enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{index}"), key);
        command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_that_moved_are_found() {
        let listing = "1 refs/heads/main\n2 refs/heads/feature/a\n3 refs/heads/same\n\
                       0 refs/vend/announced/main\n3 refs/vend/announced/same\n4 refs/vend/announced/gone\n";
        let moved = |branch: &str, before: Option<&str>, after: Option<&str>| Moved {
            branch: branch.into(),
            before: before.map(Into::into),
            after: after.map(Into::into),
        };
        assert_eq!(
            compare(listing),
            [
                moved("feature/a", None, Some("2")),
                moved("main", Some("0"), Some("1")),
                moved("gone", Some("4"), None),
            ]
        );
    }

    #[tokio::test]
    async fn a_repository_is_made_once_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let repositories = Repositories::new(directory.path().to_str().unwrap().into());
        let (tenant, app) = ("acme".parse().unwrap(), "shop".parse().unwrap());
        let path = repositories.ensure(&tenant, &app).await.unwrap();
        assert_eq!(repositories.ensure(&tenant, &app).await.unwrap(), path);
        assert!(path.join("HEAD").is_file());
        assert_eq!(repositories.moved(&tenant, &app).await.unwrap(), []);
        repositories.remove(&tenant, &app).await.unwrap();
        repositories.remove(&tenant, &app).await.unwrap();
        assert!(!path.exists());
    }
}
