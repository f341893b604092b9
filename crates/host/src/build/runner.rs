//! PID 1 of a build's container: runs the phases of a buildspec and tells the node what happens.
//!
//! Knows nothing of containers, limits or clocks: the node stops it from outside and stamps what it says.

mod alone;
mod complaint;
mod keys;
mod outputs;
mod paths;

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
    again,
    protocol::{Event, Frames, Job},
    runtime, secrets,
    shell::{Shell, Shells, User, user},
    tools,
};
use crate::logs::Mask;

/// Reads a job from standard input, runs it, and writes frames to standard output.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the same pipe. When that is what is broken, the node sees an end without a last frame.
            let said = format!("The runner of the build cannot go on: {error}");
            let _ = frames().and_then(|mut frames| frames.note(said));
            ExitCode::FAILURE
        }
    }
}

fn frames() -> io::Result<Frames<File>> {
    Ok(Frames(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
}

fn run() -> io::Result<()> {
    let shells = Shells::new()?;
    alone::end(io::stdout().as_fd().try_clone_to_owned()?)?;
    let job = Job::read(File::from(io::stdin().as_fd().try_clone_to_owned()?))?;
    tools::install()?;
    let runner = Runner::new(job, frames()?, shells);
    match runner.job.keys.is_empty() {
        true => runner.run(),
        false => runner.expand_keys(),
    }
}

/// 1, and 0 as soon as a command failed.
const SUCCEEDING: &str = "CODEBUILD_BUILD_SUCCEEDING";

/// Why a phase failed, in CodeBuild's words. `None` is success.
type Failure = Option<String>;

struct Runner<W: Write> {
    job: Job,
    frames: Frames<W>,
    shells: Shells,
    shell: Option<(Shell, Option<User>)>,
    /// Where the last command left the shell, as code for the next one: a command may end it.
    state: Option<String>,
    environment: BTreeMap<String, String>,
    /// The last that began.
    phase: String,
    succeeding: bool,
    /// It failed in a way that is tried again.
    again: bool,
    /// The end of what the phase has said, while it is of use.
    tail: Option<Vec<u8>>,
    /// For what is shortened here: the node takes secrets out of the rest.
    mask: Mask,
}

impl<W: Write> Runner<W> {
    fn new(job: Job, frames: Frames<W>, shells: Shells) -> Self {
        let mask = secrets::mask(&job.secrets, &job.variables);
        let mut environment = job.variables.clone();
        let secrets = job.secrets.iter();
        environment.extend(secrets.map(|(name, secret)| (name.clone(), secret.expose().to_owned())));
        Self {
            job,
            frames,
            shells,
            shell: None,
            state: None,
            environment,
            phase: String::new(),
            succeeding: true,
            again: false,
            tail: None,
            mask,
        }
    }

    fn run(mut self) -> io::Result<()> {
        if let Err(error) = self.build() {
            let phase = std::mem::take(&mut self.phase);
            self.ended(&phase, Some(format!("CLIENT_ERROR: {error}")))?;
        }
        let succeeded = self.succeeding;
        let again = self.again;
        self.frames.event(&Event::Finished { succeeded, again })
    }

    /// An error is why the phase that goes on cannot be ended.
    fn build(&mut self) -> io::Result<()> {
        match self.check_runtimes()? && self.phases()? {
            true => self.upload(),
            false => Ok(()),
        }
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

    /// Whether the build goes on to its artifacts: not after a failed `install` or `pre_build`, unless the file says so,
    /// nor when all of it is made again. As CodeBuild's it goes through all four, whatever the file has of them.
    fn phases(&mut self) -> io::Result<bool> {
        for name in PhaseName::ALL {
            let mut written = self.job.buildspec.phases.iter();
            let phase = written.find(|phase| phase.name == name).cloned();
            let phase = phase.unwrap_or_else(|| Phase::empty(name));
            self.began(phase.name.report())?;
            let searched = matches!(&phase.on_failure, OnFailure::Retry { pattern: Some(_), .. });
            self.tail = searched.then(Vec::new);
            let failure = self.phase(&phase)?;
            let said = self.tail.take().unwrap_or_default();
            self.ended(phase.name.report(), failure.clone())?;
            let Some(message) = failure else {
                continue;
            };
            let early = matches!(phase.name, PhaseName::Install | PhaseName::PreBuild);
            let over = match phase.on_failure {
                OnFailure::Abort => true,
                OnFailure::Continue => false,
                OnFailure::Transition | OnFailure::Retry { .. } => {
                    self.decide_again(&phase, &message, &String::from_utf8_lossy(&said))?;
                    early || self.again
                }
            };
            if over {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn decide_again(&mut self, phase: &Phase, message: &str, said: &str) -> io::Result<()> {
        match again::next(&phase.on_failure, self.job.retried, message, said) {
            Ok(None) => Ok(()),
            Ok(Some((time, times))) => {
                self.again = true;
                let name = phase.name.report();
                self.frames.note(format!(
                    "on-failure of {name}: the build is made again in a new container, {time} of {times} times"
                ))
            }
            Err(why) => self.frames.note(format!("on-failure is not tried again: {why}")),
        }
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
        let status = shell.run(command, &mut |bytes| {
            if let Some(tail) = &mut self.tail {
                tail.extend_from_slice(bytes);
                tail.drain(..tail.len().saturating_sub(again::SAID_BYTES));
            }
            self.frames.output(bytes)
        })?;
        if self.job.buildspec.version == Version::V0_1 {
            self.shell = None;
            return Ok(status.code);
        }
        let state = match status.gone {
            true => None,
            false => shell.state(&mut |bytes| self.frames.output(bytes))?,
        };
        match state {
            Some(state) => self.state = Some(state),
            None => self.shell = None,
        }
        Ok(status.code)
    }

    /// One shell goes through the build. Another user's, and the one after a command that ended it, as `exit` does, go on
    /// where the last one stood.
    fn shell_for(&mut self, who: Option<&User>) -> io::Result<()> {
        if self
            .shell
            .as_ref()
            .is_some_and(|(_, whose)| whose.as_ref() == who)
        {
            return Ok(());
        }
        let kind = self.job.buildspec.env.shell;
        let directory = &self.job.source_directory;
        let mut shell = self.shells.start(kind, &self.environment, directory, who)?;
        if let Some(mut state) = self.state.clone() {
            let root = || {
                let names = ["HOME", "USER", "LOGNAME"];
                let values = names.map(|name| Some((name, self.environment.get(name)?.as_str())));
                values.into_iter().flatten().collect()
            };
            let mut own: Vec<_> = who.map_or_else(root, |user| user.variables().to_vec());
            let succeeding = self.environment.get(SUCCEEDING);
            own.extend(succeeding.map(|value| (SUCCEEDING, value.as_str())));
            for (name, value) in own {
                state.push_str(&format!("\nexport {name}={}", super::shell::quoted(value)));
            }
            shell.run(&state, &mut |_| Ok(()))?;
        }
        self.shell = Some((shell, who.cloned()));
        Ok(())
    }

    /// The build has failed, and its commands see that it has.
    fn fail(&mut self, message: String) -> io::Result<Failure> {
        self.succeeding = false;
        let before = self.environment.insert(SUCCEEDING.to_owned(), "0".to_owned());
        if before.as_deref() != Some("0")
            && let Some((shell, _)) = &mut self.shell
            && shell
                .run(&format!("export {SUCCEEDING}=0"), &mut |_| Ok(()))?
                .gone
        {
            self.shell = None;
        }
        Ok(Some(message))
    }

    fn began(&mut self, phase: &str) -> io::Result<()> {
        self.phase = phase.to_owned();
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

#[cfg(test)]
mod tests;
