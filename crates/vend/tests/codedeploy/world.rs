//! A place where bundles are made and deployed to.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

pub struct World {
    pub directory: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("deployment-root");
        let configuration = format!("---\n:root_dir: '{}'\n:max_revisions: 5\n", root.display());
        fs::write(directory.path().join("conf.yml"), configuration).unwrap();
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A bundle with this appspec, and for each of its scripts one that writes down that it ran. The samples' scripts
    /// find the place in the same way: five directories above themselves.
    pub fn bundle(&self, name: &str, appspec: &str) -> PathBuf {
        let bundle = self.path(name);
        fs::create_dir_all(&bundle).unwrap();
        for line in appspec.lines() {
            if let Some((_, script)) = line.split_once("location: ") {
                let path = bundle.join(script.trim());
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let text = "#!/bin/bash\nHERE=\"$(cd \"$(dirname \"${BASH_SOURCE[0]}\")\" && pwd)\"\n\
                            echo $LIFECYCLE_EVENT >> $HERE/../../../../../proof\n";
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        fs::write(bundle.join("appspec.yml"), appspec).unwrap();
        bundle
    }

    pub fn deploy(&self, location: &Path, kind: &str, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vend"));
        command.args(["codedeploy-local", "--type", kind, "--bundle-location"]);
        command.arg(location).args(more);
        if !more.contains(&"-g") {
            command.args(["--deployment-group", "test-group"]);
        }
        if !more.contains(&"-c") {
            command
                .arg("--agent-configuration-file")
                .arg(self.path("conf.yml"));
        }
        command
            .env("OWN", "inherited")
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }

    #[track_caller]
    pub fn succeeds(&self, location: &Path, kind: &str, more: &[&str]) {
        let output = self.deploy(location, kind, more);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(
            said.ends_with("AppSpec file valid. Local deployment successful\n"),
            "{said}"
        );
    }

    /// Says why it failed.
    #[track_caller]
    pub fn fails(&self, location: &Path, kind: &str, more: &[&str]) -> String {
        let output = self.deploy(location, kind, more);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn proof(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("proof")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

pub fn pack(bundle: &Path, line: &str) {
    let done = Command::new("sh")
        .args(["-c", line])
        .current_dir(bundle)
        .status()
        .unwrap();
    assert!(done.success(), "{line}");
}

/// Where the bundle lies once the line has packed it; without a line it stays a directory.
pub fn packed(world: &World, bundle: &Path, kind: &str, line: &str) -> PathBuf {
    if line.is_empty() {
        return bundle.to_owned();
    }
    pack(bundle, line);
    world.path(&format!("app.{kind}"))
}
