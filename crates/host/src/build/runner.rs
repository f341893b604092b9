//! PID 1 of a build's container: runs the phases of a buildspec and tells the node what happens.
//!
//! Knows nothing of containers, limits or clocks: the node stops it from outside and stamps what it says.

mod outputs;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::fd::AsFd as _,
    process::ExitCode,
};

use model::{
    port::PhaseStatus,
    spec::build::{OnFailure, Phase, PhaseName, Version},
};

use super::{
    protocol::{Event, Frames, Job},
    runtime,
    shell::{Shell, Shells, User, user},
    tools,
};

/// So much of what a phase says is searched for the pattern of `on-failure`.
const TAIL_BYTES: usize = 64 << 10;

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
    tools::install()?;
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
    /// The end of what the phase has said, while it is of use.
    tail: Option<Vec<u8>>,
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
            tail: None,
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

    /// Whether the build goes on to its artifacts: not after a failed `install` or `pre_build`, unless the file says so.
    fn phases(&mut self) -> io::Result<bool> {
        for phase in self.job.buildspec.phases.clone() {
            self.began(phase.name.report())?;
            let failure = self.phase(&phase)?;
            let failed = failure.is_some();
            self.ended(phase.name.report(), failure)?;
            let early = matches!(phase.name, PhaseName::Install | PhaseName::PreBuild);
            let over = match phase.on_failure {
                OnFailure::Abort => true,
                OnFailure::Continue => false,
                OnFailure::Transition | OnFailure::Retry { .. } => early,
            };
            if failed && over {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs a phase, and again where that is wanted of such a failure.
    fn phase(&mut self, phase: &Phase) -> io::Result<Failure> {
        let OnFailure::Retry { times, pattern } = &phase.on_failure else {
            return self.once(phase);
        };
        let pattern = match pattern.as_deref().map(retry_pattern).transpose() {
            Ok(pattern) => pattern,
            Err(why) => return self.fail(format!("YAML_FILE_ERROR: on-failure: {why}")),
        };
        let succeeding = self.succeeding;
        for left in (0..*times).rev() {
            self.tail = pattern.as_ref().map(|_| Vec::new());
            let failure = self.once(phase)?;
            let said = self.tail.take().unwrap_or_default();
            let Some(message) = &failure else {
                return Ok(None);
            };
            let said = String::from_utf8_lossy(&said);
            let alike = |pattern: &regex::Regex| pattern.is_match(message) || pattern.is_match(&said);
            if !pattern.as_ref().is_none_or(alike) {
                return Ok(failure);
            }
            let name = phase.name.report();
            self.frames.note(format!(
                "{message}. Trying phase {name} again, then {left} more times"
            ))?;
            self.set_succeeding(succeeding)?;
        }
        self.once(phase)
    }

    fn once(&mut self, phase: &Phase) -> io::Result<Failure> {
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
        let status = shell.run(command, &mut |bytes| {
            if let Some(tail) = &mut self.tail {
                tail.extend_from_slice(bytes);
                tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
            }
            self.frames.output(bytes)
        })?;
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
        self.set_succeeding(false)?;
        Ok(Some(message))
    }

    /// Whether the build succeeds so far, for it and for its commands.
    fn set_succeeding(&mut self, succeeding: bool) -> io::Result<()> {
        if self.succeeding == succeeding {
            return Ok(());
        }
        self.succeeding = succeeding;
        let value = if succeeding { "1" } else { "0" };
        self.environment
            .insert("CODEBUILD_BUILD_SUCCEEDING".to_owned(), value.to_owned());
        if let Some((shell, _)) = &mut self.shell {
            let export = format!("export CODEBUILD_BUILD_SUCCEEDING={value}");
            if shell.run(&export, &mut |_| Ok(()))?.gone {
                self.shell = None;
            }
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

fn retry_pattern(pattern: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(pattern).size_limit(1 << 20).build()
}
