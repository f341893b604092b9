//! What git knows of a working tree; nothing, when it is none of git's.

use std::{
    collections::BTreeSet,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use camino::Utf8Path;
use host::build::local;
use model::{Place, port::Commit};

fn git(tree: &Utf8Path, arguments: &[&str]) -> Option<Vec<u8>> {
    // The tree may be somebody else's: root reads it, and runs none of its hooks or helpers.
    let output = Command::new("git")
        .args([
            "-c",
            "safe.directory=*",
            "-c",
            "core.fsmonitor=false",
            "-C",
            tree.as_str(),
        ])
        .args(arguments)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then_some(output.stdout)
}

/// A directory that the repository around it ignores is no part of that repository.
fn ignored(tree: &Utf8Path) -> bool {
    git(tree, &["check-ignore", "--quiet", "."]).is_some()
}

/// The files of a clone that git does not ignore, and its `.git`; `None` of any other directory: everything.
pub fn files(tree: &Utf8Path) -> Option<BTreeSet<PathBuf>> {
    if ignored(tree) {
        return None;
    }
    let listed = git(
        tree,
        &["ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    )?;
    let names = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut all: BTreeSet<PathBuf> = names
        .map(|name| PathBuf::from(std::ffi::OsStr::from_bytes(name)))
        .collect();
    local::below(tree, ".git", &mut all).ok()?;
    Some(all)
}

/// The commit that the tree stands on.
pub fn commit(tree: &Utf8Path) -> Commit {
    let foreign = ignored(tree);
    let line = |arguments: &[&str]| {
        if foreign {
            return None;
        }
        let text = String::from_utf8_lossy(&git(tree, arguments)?).trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    let told = |format: &str| line(&["log", "-1", &format!("--format={format}")]);
    let at = told("%ct").and_then(|seconds| jiff::Timestamp::from_second(seconds.parse().ok()?).ok());
    Commit {
        id: told("%H").unwrap_or_else(|| "0".repeat(40)),
        author: told("%an <%ae>").unwrap_or_else(|| "local".to_owned()),
        message: told("%B").unwrap_or_default(),
        branch: line(&["symbolic-ref", "--short", "HEAD"]).unwrap_or_else(|| "local".to_owned()),
        repository: line(&["remote", "get-url", "origin"])
            .map_or_else(|| format!("file://{tree}"), |url| without_credentials(&url)),
        committed_at: at.unwrap_or(jiff::Timestamp::UNIX_EPOCH),
    }
}

/// A remote's address as everybody may see it: who clones over HTTP may have put a token into it, as the user or the
/// password. Over SSH the user is part of the address, and no secret.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let Some((user, host)) = authority.rsplit_once('@') else {
        return url.to_owned();
    };
    match scheme.ends_with("ssh") {
        true => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{name}@{host}{path}")
        }
        false => format!("{scheme}://{host}{path}"),
    }
}

/// Whose caches the build uses: those of the directory's name.
pub fn place(tree: &Utf8Path) -> Place {
    let name = tree.file_name().unwrap_or_default().to_lowercase();
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(40)
        .collect();
    let name = name.trim_matches('-');
    let place = |app: &str| format!("local/{app}/local").parse::<Place>();
    let letter = name.starts_with(|c: char| c.is_ascii_lowercase());
    let own = if letter {
        place(name)
    } else {
        place(&format!("app-{name}").chars().take(40).collect::<String>())
    };
    own.or_else(|_| place("app"))
        .expect("`local/app/local` is a place")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_directory_has_a_place() {
        for (path, app) in [
            ("/src/Shop_2", "shop-2"),
            ("/src/2048", "app-2048"),
            ("/", "app"),
            ("/src/...", "app"),
            (&format!("/{}", "x".repeat(80)), &"x".repeat(40)),
        ] {
            assert_eq!(place(Utf8Path::new(path)).app.to_string(), app, "{path}");
        }
    }

    #[test]
    fn what_opens_a_remote_is_no_part_of_its_address() {
        for (url, address) in [
            (
                "https://user:token@git.example/a/b.git",
                "https://git.example/a/b.git",
            ),
            (
                "https://token@git.example:8443/a@b",
                "https://git.example:8443/a@b",
            ),
            ("http://u:p@ss@git.example", "http://git.example"),
            ("https://git.example/a?b@c", "https://git.example/a?b@c"),
            ("ssh://git:word@git.example/a", "ssh://git@git.example/a"),
            ("git@git.example:a/b.git", "git@git.example:a/b.git"),
            ("/srv/a.git", "/srv/a.git"),
        ] {
            assert_eq!(without_credentials(url), address, "{url}");
        }
        let directory = tempfile::tempdir().unwrap();
        let tree = Utf8Path::from_path(directory.path()).unwrap();
        git(tree, &["init", "-q"]).unwrap();
        let remote = "https://user:token@git.example/a.git";
        git(tree, &["remote", "add", "origin", remote]).unwrap();
        assert_eq!(commit(tree).repository, "https://git.example/a.git");
    }

    #[test]
    fn what_git_ignores_is_no_part_of_a_tree() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Utf8Path::from_path(directory.path()).unwrap();
        std::fs::create_dir(tree.join("target")).unwrap();
        for (name, text) in [("a", "1"), (".gitignore", "target\n"), ("target/large", "2")] {
            std::fs::write(tree.join(name), text).unwrap();
        }
        assert_eq!(files(tree), None);
        assert_eq!(commit(tree).branch, "local");
        git(tree, &["init", "-q", "-b", "trunk"]).unwrap();
        git(tree, &["add", "a"]).unwrap();
        git(
            tree,
            &[
                "-c",
                "user.name=Ada",
                "-c",
                "user.email=ada@acme.example",
                "commit",
                "-qm",
                "one",
            ],
        )
        .unwrap();
        let known = files(tree).unwrap();
        let has = |name: &str| known.contains(&PathBuf::from(name));
        assert!(has("a") && has(".gitignore") && has(".git/HEAD") && !has("target/large"));
        let within = tree.join("target");
        assert_eq!((files(&within), commit(&within).branch.as_str()), (None, "local"));
        let commit = commit(tree);
        assert_eq!(
            (commit.branch.as_str(), commit.author.as_str()),
            ("trunk", "Ada <ada@acme.example>")
        );
        assert_eq!(commit.id.len(), 40);
    }
}
