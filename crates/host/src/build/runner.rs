//! PID 1 of a build's container: runs the phases of a buildspec and tells the node what happens.
//!
//! Knows nothing of containers, limits or clocks: the node stops it from outside and stamps what it says.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Write},
    os::fd::AsFd as _,
    path::Path,
    process::ExitCode,
};

use model::{
    port::PhaseStatus,
    spec::build::{OnFailure, Phase, PhaseName, ReportFormat, Version},
};

use super::{
    artifact::{self, Content, Wanted},
    junit,
    protocol::{Event, Frames, Job},
    runtime,
    shell::{Shell, Shells, User, user},
};
use crate::tree::Packer;

/// Reads a job from standard input, runs it, and writes frames to standard output.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard output may be what is broken; the node sees an end without a last frame.
            let _ = writeln!(io::stderr(), "build-runner: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let shells = Shells::new()?;
    let job = Job::read(File::from(io::stdin().as_fd().try_clone_to_owned()?))?;
    let frames = Frames(File::from(io::stdout().as_fd().try_clone_to_owned()?));
    Runner::new(job, frames, shells).run()
}

/// Why a phase failed, in CodeBuild's words. `None` is success.
type Failure = Option<String>;

struct Runner<W: Write> {
    job: Job,
    frames: Frames<W>,
    shells: Shells,
    shell: Option<(Shell, Option<User>)>,
    environment: BTreeMap<String, String>,
    succeeding: bool,
}

impl<W: Write> Runner<W> {
    fn new(job: Job, frames: Frames<W>, shells: Shells) -> Self {
        let mut environment = job.variables.clone();
        let secrets = job.secrets.iter();
        environment.extend(secrets.map(|(name, secret)| (name.clone(), secret.expose().to_owned())));
        Self {
            job,
            frames,
            shells,
            shell: None,
            environment,
            succeeding: true,
        }
    }

    fn run(mut self) -> io::Result<()> {
        if self.check_runtimes()? && self.phases()? {
            self.export()?;
            self.upload()?;
        }
        let succeeded = self.succeeding;
        self.frames.event(&Event::Finished { succeeded })
    }

    fn check_runtimes(&mut self) -> io::Result<bool> {
        let phases = self.job.buildspec.phases.iter();
        let wanted: BTreeMap<String, String> =
            phases.flat_map(|phase| phase.runtime_versions.clone()).collect();
        let installed = runtime::installed(wanted.keys());
        match runtime::check(&wanted, &installed, &self.environment) {
            Ok(()) => Ok(true),
            Err(message) => {
                self.began("DOWNLOAD_SOURCE")?;
                self.ended("DOWNLOAD_SOURCE", Some(message))?;
                Ok(false)
            }
        }
    }

    /// Whether the build goes on to its artifacts. A failed `install` or `pre_build` ends it, a failed `build` does not.
    fn phases(&mut self) -> io::Result<bool> {
        for phase in self.job.buildspec.phases.clone() {
            self.began(phase.name.report())?;
            let failure = self.phase(&phase)?;
            let failed = failure.is_some();
            self.ended(phase.name.report(), failure)?;
            let early = matches!(phase.name, PhaseName::Install | PhaseName::PreBuild);
            if failed && early && phase.on_failure == OnFailure::Abort {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn phase(&mut self, phase: &Phase) -> io::Result<Failure> {
        let who = match phase.run_as.as_deref().filter(|name| *name != "root") {
            None => None,
            Some(name) => match user(name, &fs::read_to_string("/etc/passwd").unwrap_or_default()) {
                Some(user) => Some(user),
                None => {
                    return self.fail(format!(
                        "CLIENT_ERROR: run-as: this build image has no user {name}"
                    ));
                }
            },
        };
        let failure = self.commands(&phase.commands, who.as_ref())?;
        let last = self.commands(&phase.finally, who.as_ref())?;
        Ok(failure.or(last))
    }

    fn commands(&mut self, commands: &[String], who: Option<&User>) -> io::Result<Failure> {
        for command in commands {
            self.frames.event(&Event::Command {
                text: command.clone(),
            })?;
            let code = match self.command(command, who) {
                Ok(code) => code,
                Err(error) => {
                    return self.fail(format!("CLIENT_ERROR: the shell cannot be started: {error}"));
                }
            };
            if code != 0 {
                self.frames.event(&Event::CommandFailed {
                    text: command.clone(),
                    code,
                })?;
                return self.fail(format!(
                    "COMMAND_EXECUTION_ERROR: Error while executing command: {command}. Reason: exit status {code}"
                ));
            }
        }
        Ok(None)
    }

    fn command(&mut self, command: &str, who: Option<&User>) -> io::Result<i32> {
        self.shell_for(who)?;
        let (shell, _) = self.shell.as_mut().expect("a shell was started");
        let status = shell.run(command, &mut |bytes| self.frames.output(bytes))?;
        if status.gone || self.job.buildspec.version == Version::V0_1 {
            self.shell = None;
        }
        Ok(status.code)
    }

    /// One shell goes through the build. Another user's goes on where the last one's stopped.
    fn shell_for(&mut self, who: Option<&User>) -> io::Result<()> {
        let mut state = None;
        if let Some((shell, whose)) = &mut self.shell {
            if whose.as_ref() == who {
                return Ok(());
            }
            state = shell.state(&mut |bytes| self.frames.output(bytes))?;
        }
        let kind = self.job.buildspec.env.shell;
        let directory = &self.job.source_directory;
        let mut shell = self.shells.start(kind, &self.environment, directory, who)?;
        if let Some(mut state) = state {
            let root = self.environment.get("HOME");
            if let Some(home) = who.map(|user| &user.home).or(root) {
                state.push_str(&format!("\nexport HOME={}", super::shell::quoted(home)));
            }
            shell.run(&state, &mut |_| Ok(()))?;
        }
        self.shell = Some((shell, who.cloned()));
        Ok(())
    }

    fn fail(&mut self, message: String) -> io::Result<Failure> {
        if self.succeeding {
            self.succeeding = false;
            self.environment
                .insert("CODEBUILD_BUILD_SUCCEEDING".to_owned(), "0".to_owned());
            if let Some((shell, _)) = &mut self.shell {
                let status = shell.run("export CODEBUILD_BUILD_SUCCEEDING=0", &mut |_| Ok(()))?;
                if status.gone {
                    self.shell = None;
                }
            }
        }
        Ok(Some(message))
    }

    /// The values that exported variables have at the end of the last phase. Secrets are not exported.
    fn export(&mut self) -> io::Result<()> {
        let mut exported = BTreeMap::new();
        for name in &self.job.buildspec.env.exported_variables {
            let plain = name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !plain || name.starts_with("AWS_") || self.job.secrets.contains_key(name) {
                continue;
            }
            let value = match &mut self.shell {
                Some((shell, _)) => {
                    shell.print(&format!("command printf '%s' \"${{{name}-}}\""), &mut |_| Ok(()))?
                }
                None => self.environment.get(name).cloned(),
            };
            exported.extend(value.map(|value| (name.clone(), value)));
        }
        self.frames.event(&Event::Exported(exported))
    }

    fn upload(&mut self) -> io::Result<()> {
        self.began("UPLOAD_ARTIFACTS")?;
        let failure = match self.succeeding {
            true => self.artifact()?,
            // A failed build has no artifact. Its reports tell why.
            false => None,
        };
        self.reports()?;
        self.ended("UPLOAD_ARTIFACTS", failure)
    }

    fn artifact(&mut self) -> io::Result<Failure> {
        let everything = ["**/*".to_owned()];
        let wanted = match &self.job.buildspec.artifacts {
            Some(artifacts) => Wanted {
                files: &artifacts.files,
                base_directory: artifacts.base_directory.as_deref(),
                exclude_paths: &artifacts.exclude_paths,
                discard_paths: artifacts.discard_paths,
                enable_symlinks: artifacts.enable_symlinks,
            },
            None => Wanted {
                files: &everything,
                enable_symlinks: true,
                ..Wanted::default()
            },
        };
        let found = match artifact::find(Path::new(&self.job.source_directory), &wanted) {
            Ok(found) => found,
            Err(message) => return self.fail(format!("CLIENT_ERROR: {message}")),
        };
        for note in &found.notes {
            self.frames.note(note)?;
        }
        if found.files.is_empty() {
            return self.fail("CLIENT_ERROR: no matching artifact paths found".to_owned());
        }
        self.frames.note(format!("Found {} file(s)", found.files.len()))?;
        let packed = self.pack(&found);
        match packed {
            Ok(()) => Ok(None),
            Err(error) => self.fail(format!("CLIENT_ERROR: {}", crate::logs::chain(&error))),
        }
    }

    fn pack(&mut self, found: &artifact::Found) -> Result<(), crate::tree::Error> {
        let to = io::BufWriter::with_capacity(1 << 18, Artifact(&mut self.frames));
        let mut packer = Packer::new(to, self.job.mtime);
        for (name, content) in &found.files {
            match content {
                Content::File(path) => packer.file(name, path)?,
                Content::Link(target) => packer.symlink(name, target)?,
            }
        }
        let (mut to, _) = packer.finish()?;
        to.flush().map_err(crate::tree::Error::Archive)
    }

    fn reports(&mut self) -> io::Result<()> {
        for wanted in self.job.buildspec.reports.clone() {
            let ReportFormat::JunitXml = wanted.format;
            let files = Wanted {
                files: &wanted.files,
                base_directory: wanted.base_directory.as_deref(),
                ..Wanted::default()
            };
            let mut report = junit::empty(&format!("{}-{}", self.job.project, wanted.group));
            match artifact::find(Path::new(&self.job.source_directory), &files) {
                Ok(found) if !found.files.is_empty() => {
                    for (name, content) in &found.files {
                        if let Content::File(path) = content
                            && let Err(why) = add_report(&mut report, path)
                        {
                            self.frames
                                .note(format!("Error processing report {}: {why}", name.display()))?;
                        }
                    }
                }
                _ => self
                    .frames
                    .note(format!("No report files found for report group {}", wanted.group))?,
            }
            self.frames.event(&Event::Report(report))?;
        }
        Ok(())
    }

    fn began(&mut self, phase: &str) -> io::Result<()> {
        self.frames.event(&Event::Began {
            phase: phase.to_owned(),
        })
    }

    fn ended(&mut self, phase: &str, failure: Failure) -> io::Result<()> {
        let status = match failure {
            None => PhaseStatus::Succeeded,
            Some(_) => {
                self.succeeding = false;
                PhaseStatus::Failed
            }
        };
        self.frames.event(&Event::Ended {
            phase: phase.to_owned(),
            status,
            message: failure,
        })
    }
}

fn add_report(report: &mut model::port::TestReport, path: &Path) -> Result<(), String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(junit::FILE_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    junit::add(report, &bytes).map_err(|error| error.to_string())
}

/// The artifact's bytes as frames.
struct Artifact<'a, W: Write>(&'a mut Frames<W>);

impl<W: Write> Write for Artifact<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.artifact(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
