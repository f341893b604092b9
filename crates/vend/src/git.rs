//! What the platform asks of git: the machine's own binary on bare repositories, with nobody's configuration.
//!
//! Every argument that comes from outside is checked here, because git takes what starts with `-` for an option and
//! some URLs for commands.

#[cfg(test)]
mod hostile;
pub mod remote;

use std::process::Stdio;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use model::port::Commit;
use tokio::{
    io::AsyncReadExt as _,
    process::Command,
    time::{Duration, timeout},
};

use self::remote::Remotes;

/// No file that we read from a tree is larger.
const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024;
const LOCAL_DEADLINE: Duration = Duration::from_secs(120);
/// How often a fetch that goes on is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run git: is it installed? (apt-get install git)")]
    Spawn { source: std::io::Error },
    #[error("git {action} failed: {stderr}")]
    Failed { action: String, stderr: String },
    #[error("git {action} took longer than {}s", .limit.as_secs())]
    Deadline { action: String, limit: Duration },
    #[error("`{0}` is not a commit id")]
    NotACommit(String),
    #[error("`{0}` is not a URL that can be fetched: use https://HOST/PATH, http:// or ssh://")]
    NotAUrl(String),
    #[error("`{text}` is the short form of SSH and no URL: write {url}")]
    ShortForm { text: String, url: String },
    #[error(
        "ssh:// needs a key of the platform's own, and there is none: use https://, or ask the operator to put one at {key}, with `known_hosts` beside it"
    )]
    NoKey { key: Utf8PathBuf },
    #[error("{host} cannot be looked up: {cause}")]
    NoHost { host: String, cause: String },
    #[error(
        "{host} is at {address}, which is not a public address: repositories are fetched from there only if the operator allows it (`[sources] allow` in platform.toml)"
    )]
    Private { host: String, address: std::net::IpAddr },
    #[error(
        "the repository brings more than {limit_mib} MiB, and the fetch was stopped: make it smaller, or ask the operator for more (`[sources] most_mib`)"
    )]
    TooMuch { limit_mib: u64 },
    #[error("`{0}` is not a branch name")]
    NotABranch(String),
    #[error("{path} in {commit} is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge { path: String, commit: String },
    #[error("git printed something unexpected for {0}")]
    Unexpected(String),
}

impl Error {
    /// Does trying again help nobody?
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::NotAUrl(_)
                | Self::ShortForm { .. }
                | Self::NoKey { .. }
                | Self::Private { .. }
                | Self::TooMuch { .. }
                | Self::NotABranch(_)
                | Self::Deadline { .. }
        )
    }
}

/// One bare repository.
#[derive(Debug, Clone)]
pub struct Repository {
    path: Utf8PathBuf,
}

/// A git command that reads no configuration but the repository's own, asks nobody anything and runs no hook.
pub fn command(home: &Utf8Path) -> Command {
    let mut command = Command::new("git");
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    command
        .env_clear()
        .env("PATH", path)
        .env("HOME", home)
        .env("LC_ALL", "C.UTF-8")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", "http:https:ssh")
        .args([
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "safe.directory=*",
            "-c",
            "gc.auto=0",
        ]);
    for name in [
        "SSL_CERT_FILE",
        "GIT_SSL_CAINFO",
        "https_proxy",
        "http_proxy",
        "no_proxy",
    ] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl Repository {
    pub fn at(path: Utf8PathBuf) -> Self {
        Self { path }
    }

    /// Makes the bare repository. One that is there stays as it is.
    pub async fn create(&self) -> Result<(), Error> {
        if self.path.join("HEAD").exists() {
            return Ok(());
        }
        let mut init = command(&self.path);
        init.args(["init", "--quiet", "--bare", "--initial-branch=main", "--"])
            .arg(&self.path);
        output("init", init, LOCAL_DEADLINE, MAX_FILE_BYTES)
            .await
            .map(drop)
    }

    /// Fetches one branch of a repository elsewhere, and gives the commit it is at. Ends git when it takes longer or
    /// brings more than the operator allows.
    pub async fn fetch(&self, remotes: &Remotes, url: &str, branch: &str) -> Result<String, Error> {
        if !is_branch(branch) {
            return Err(Error::NotABranch(branch.into()));
        }
        let found = remotes.find(url).await?;
        let mut fetch = self.git();
        for option in &found.options {
            fetch.args(["-c", option]);
        }
        if found.proxied {
            fetch.env_remove("no_proxy");
        }
        if let Some(command) = &found.ssh_command {
            fetch
                .env("GIT_SSH_COMMAND", command)
                .env("GIT_SSH_VARIANT", "ssh");
        }
        let refspec = format!("+refs/heads/{branch}:refs/heads/{branch}");
        // One pack for each fetch, and no memory for large files: what it costs is what is measured.
        for option in [
            "fetch.fsckObjects=true",
            "fetch.unpackLimit=1",
            "core.bigFileThreshold=16m",
        ] {
            fetch.args(["-c", option]);
        }
        fetch.args([
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-auto-gc",
            "--",
            url,
            &refspec,
        ]);
        // The helpers that git starts must end with it.
        fetch.process_group(0);
        let fetched = tokio::select! {
            fetched = whole_group(fetch, remotes.within) => fetched,
            () = self.outgrown(remotes.most_mib) => Err(Error::TooMuch { limit_mib: remotes.most_mib }),
        };
        if fetched.is_err() {
            self.sweep().await;
        }
        fetched?;
        self.resolve(branch).await
    }

    /// Ends when the repository has grown by more than so much.
    async fn outgrown(&self, most_mib: u64) {
        let most = most_mib.saturating_mul(1024 * 1024);
        let before = size(self.path.join("objects"), |file| file.len()).await;
        loop {
            tokio::time::sleep(MEASURE_EVERY).await;
            if size(self.path.join("objects"), |file| file.len())
                .await
                .saturating_sub(before)
                > most
            {
                return;
            }
        }
    }

    /// Removes what a fetch that was ended has left half done: packs, and the objects and packs of a host that only
    /// gives files away. What is pushed meanwhile is in directories of its own.
    async fn sweep(&self) {
        let objects = self.path.join("objects");
        let is_half =
            |name: &str| name.starts_with("tmp_") || name.ends_with(".temp") || name.ends_with(".prev");
        let sweep = move || {
            let directories = objects.read_dir_utf8().into_iter().flatten().flatten();
            let own = directories.filter(|entry| entry.file_name() == "pack" || entry.file_name().len() == 2);
            for entry in own
                .flat_map(|directory| directory.path().read_dir_utf8())
                .flatten()
                .flatten()
            {
                if is_half(entry.file_name()) {
                    // What cannot be removed now is removed by the next one.
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        };
        // It ends by itself, and panics never.
        let _ = tokio::task::spawn_blocking(sweep).await;
    }

    /// The commit that a branch is at.
    pub async fn resolve(&self, branch: &str) -> Result<String, Error> {
        if !is_branch(branch) {
            return Err(Error::NotABranch(branch.into()));
        }
        let text = self
            .text(
                "rev-parse",
                &["--verify", "--quiet", &format!("refs/heads/{branch}^{{commit}}")],
            )
            .await?;
        let id = text.trim().to_owned();
        if is_commit(&id) {
            Ok(id)
        } else {
            Err(Error::Unexpected(branch.into()))
        }
    }

    /// What a commit says about itself.
    pub async fn commit(&self, id: &str, branch: &str, repository: &str) -> Result<Commit, Error> {
        let id = checked(id)?;
        let text = self
            .text(
                "show",
                &["--no-patch", "--format=%H%x00%an <%ae>%x00%ct%x00%B", id, "--"],
            )
            .await?;
        let mut parts = text.splitn(4, '\0');
        let mut next = || parts.next().ok_or_else(|| Error::Unexpected(id.into()));
        let (id, author, seconds, message) = (next()?, next()?, next()?, next()?);
        let committed_at = seconds
            .parse()
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok());
        Ok(Commit {
            id: id.to_owned(),
            author: author.to_owned(),
            message: message.trim_end().chars().take(4000).collect(),
            branch: branch.to_owned(),
            repository: repository.to_owned(),
            committed_at: committed_at.unwrap_or(Timestamp::UNIX_EPOCH),
        })
    }

    /// Is `old` a commit that `new` stands on?
    pub async fn is_ancestor(&self, old: &str, new: &str) -> Result<bool, Error> {
        let (old, new) = (checked(old)?, checked(new)?);
        let text = self
            .text("rev-list", &["--max-count=1", old, &format!("^{new}"), "--"])
            .await?;
        Ok(text.trim().is_empty())
    }

    /// Commits that are in `to` and not in `from`, newest first, at most 50.
    pub async fn between(&self, from: &str, to: &str) -> Result<Vec<String>, Error> {
        let range = format!("{}..{}", checked(from)?, checked(to)?);
        let text = self
            .text("log", &["--max-count=50", "--format=%H", &range, "--"])
            .await?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Files that differ between two commits, as (`A`, `M`, `D`…, path), at most 10,000.
    pub async fn changed(&self, from: &str, to: &str) -> Result<Vec<(String, String)>, Error> {
        let arguments = [
            "--name-status",
            "--no-renames",
            "-z",
            checked(from)?,
            checked(to)?,
            "--",
        ];
        let text = self.text("diff", &arguments).await?;
        let fields: Vec<&str> = text.split('\0').collect();
        Ok(fields
            .chunks_exact(2)
            .take(10_000)
            .map(|pair| (pair[0].to_owned(), pair[1].to_owned()))
            .collect())
    }

    /// The paths of all files at a commit, at most 100,000.
    pub async fn files(&self, id: &str) -> Result<Vec<String>, Error> {
        let text = self
            .text(
                "ls-tree",
                &["-r", "-z", "--name-only", "--full-tree", checked(id)?],
            )
            .await?;
        Ok(text
            .split('\0')
            .filter(|path| !path.is_empty())
            .take(100_000)
            .map(str::to_owned)
            .collect())
    }

    /// The bytes of a file at a commit.
    pub async fn read(&self, id: &str, path: &str) -> Result<Vec<u8>, Error> {
        let object = format!("{}:{path}", checked(id)?);
        let mut git = self.git();
        git.args(["cat-file", "blob", &object]);
        let bytes = output("cat-file", git, LOCAL_DEADLINE, MAX_FILE_BYTES + 1).await?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(Error::TooLarge {
                path: path.into(),
                commit: id.into(),
            });
        }
        Ok(bytes)
    }

    /// A tar of the tree at a commit into `file`. The same commit gives the same bytes.
    pub async fn archive(&self, id: &str, file: &Utf8Path) -> Result<(), Error> {
        let mut git = self.git();
        git.args([
            "archive",
            "--format=tar",
            &format!("--output={file}"),
            checked(id)?,
        ]);
        output("archive", git, LOCAL_DEADLINE, MAX_FILE_BYTES)
            .await
            .map(drop)
    }

    fn git(&self) -> Command {
        let mut git = command(&self.path);
        git.arg("--git-dir").arg(&self.path);
        git
    }

    async fn text(&self, action: &str, arguments: &[&str]) -> Result<String, Error> {
        let mut git = self.git();
        git.arg(action).args(arguments);
        let bytes = output(action, git, LOCAL_DEADLINE, 16 * 1024 * 1024).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Runs a fetch that leads a process group of its own; none of the group outlives it.
async fn whole_group(fetch: Command, limit: Duration) -> Result<(), Error> {
    struct Group(Option<rustix::process::Pid>);
    impl Drop for Group {
        fn drop(&mut self) {
            if let Some(leader) = self.0 {
                // A group that has ended is what is wanted.
                let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
            }
        }
    }
    let mut group = Group(None);
    let begun = |pid: Option<u32>| {
        group.0 = pid.and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    };
    let fetched = watched("fetch", fetch, limit, MAX_FILE_BYTES, begun).await;
    match fetched {
        Err(Error::Failed { action, mut stderr }) => {
            if stderr.contains("error: 30") {
                stderr.push_str(" (it redirects, which is not followed: use the URL that it redirects to)");
            }
            Err(Error::Failed { action, stderr })
        }
        other => other.map(drop),
    }
}

/// Of all files of a directory together what `of` says of each.
pub async fn size(directory: Utf8PathBuf, of: fn(&std::fs::Metadata) -> u64) -> u64 {
    let measure = move || {
        let mut open = vec![directory];
        let mut bytes = 0;
        while let Some(directory) = open.pop() {
            for entry in directory.read_dir_utf8().into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(file) if file.is_dir() => open.push(entry.path().to_owned()),
                    Ok(file) => bytes += of(&file),
                    // It was moved to its place meanwhile.
                    Err(_) => {}
                }
            }
        }
        bytes
    };
    tokio::task::spawn_blocking(measure).await.unwrap_or(0)
}

async fn output(action: &str, git: Command, limit: Duration, max_bytes: u64) -> Result<Vec<u8>, Error> {
    watched(action, git, limit, max_bytes, |_| ()).await
}

/// Runs git; `begun` learns its process id.
async fn watched(
    action: &str,
    mut git: Command,
    limit: Duration,
    max_bytes: u64,
    begun: impl FnOnce(Option<u32>),
) -> Result<Vec<u8>, Error> {
    git.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = git.spawn().map_err(|source| Error::Spawn { source })?;
    begun(child.id());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let work = async {
        let read_out = async {
            let Some(stdout) = stdout else { return Ok(0) };
            stdout.take(max_bytes).read_to_end(&mut out).await
        };
        let read_err = async {
            let Some(stderr) = stderr else { return Ok(0) };
            stderr.take(64 * 1024).read_to_end(&mut err).await
        };
        let (read_out, read_err) = tokio::join!(read_out, read_err);
        read_out.and(read_err)?;
        child.wait().await
    };
    let status = timeout(limit, work)
        .await
        .map_err(|_| Error::Deadline {
            action: action.into(),
            limit,
        })?
        .map_err(|source| Error::Spawn { source })?;
    // A reader that stopped at its limit ends git by SIGPIPE: what was read is what the caller judges.
    if status.success() || out.len() as u64 >= max_bytes {
        return Ok(out);
    }
    let stderr = String::from_utf8_lossy(&err).trim().chars().take(500).collect();
    Err(Error::Failed {
        action: action.into(),
        stderr,
    })
}

fn is_commit(id: &str) -> bool {
    matches!(id.len(), 40 | 64)
        && id
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn checked(id: &str) -> Result<&str, Error> {
    if is_commit(id) {
        Ok(id)
    } else {
        Err(Error::NotACommit(id.chars().take(80).collect()))
    }
}

/// The rules of git-check-ref-format(1) that keep a name harmless in a refspec and on a command line.
pub fn is_branch(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !name.ends_with(".lock")
        && !["..", "//", "@{", "/."].iter().any(|bad| name.contains(bad))
        && !name
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_would_take_for_something_else_is_refused() {
        for good in ["main", "feature/login", "v1.2", "ü"] {
            assert!(is_branch(good), "{good}");
        }
        for bad in [
            "", "-x", "a..b", "a b", "a:b", "x.lock", "a@{1}", "/a", "a/", "a\n",
        ] {
            assert!(!is_branch(bad), "{bad}");
        }
        assert!(checked("HEAD").is_err());
        assert!(checked(&"a".repeat(40)).is_ok());
    }

    #[tokio::test]
    async fn reads_what_was_committed() {
        let directory = tempfile::tempdir().unwrap();
        let work = Utf8Path::from_path(directory.path()).unwrap().to_owned();
        let bare = Repository::at(work.join("bare.git"));
        bare.create().await.unwrap();
        let git = |arguments: &'static [&'static str]| {
            let mut git = command(&work);
            git.current_dir(&work)
                .args(["-c", "user.name=A", "-c", "user.email=a@b"])
                .args(arguments);
            git
        };
        std::fs::write(work.join("vend.yaml"), "app: shop\n").unwrap();
        for arguments in [
            &["init", "-q", "-b", "main", "."][..],
            &["add", "vend.yaml"],
            &["commit", "-q", "-m", "First\n\nbody"],
            &[
                "-c",
                "protocol.file.allow=always",
                "push",
                "-q",
                "bare.git",
                "main",
            ],
        ] {
            let mut git = git(arguments);
            git.env("GIT_ALLOW_PROTOCOL", "file");
            output("test", git, LOCAL_DEADLINE, 1000).await.unwrap();
        }
        let id = bare.resolve("main").await.unwrap();
        let commit = bare.commit(&id, "main", "here").await.unwrap();
        assert_eq!(
            (commit.author.as_str(), commit.message.as_str()),
            ("A <a@b>", "First\n\nbody")
        );
        assert_eq!(bare.files(&id).await.unwrap(), ["vend.yaml"]);
        assert_eq!(bare.read(&id, "vend.yaml").await.unwrap(), b"app: shop\n");
        let (one, two) = (work.join("1.tar"), work.join("2.tar"));
        bare.archive(&id, &one).await.unwrap();
        bare.archive(&id, &two).await.unwrap();
        assert_eq!(std::fs::read(one).unwrap(), std::fs::read(two).unwrap());
    }
}
