//! The shell that a build's commands run in.
//!
//! One process reads the commands from its standard input, so that a directory that one command changes to, a variable
//! that it exports and a function that it defines are there for the next. Its own descriptor 9 tells how each ended; the
//! commands themselves get neither.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
};

use model::spec::build::Shell as Kind;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    io::{DupFlags, Errno},
    process::{Pid, PidfdFlags, WaitOptions},
};

/// The descriptor of the shell that commands do not get.
const STATUS: i32 = 9;
/// So much may a text have that is expanded, as an exported variable is.
const ANSWER_BYTES: usize = 1 << 20;
/// So much may all variables have that a shell goes on with: more than a program takes.
const STATE_BYTES: usize = 8 << 20;

/// Who runs commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
}

impl User {
    /// How programs learn from their environment who they run as.
    pub fn variables(&self) -> [(&'static str, &str); 3] {
        [
            ("HOME", &self.home),
            ("USER", &self.name),
            ("LOGNAME", &self.name),
        ]
    }
}

/// A running shell. Dropping it leaves the process to the end of the container.
#[derive(Debug)]
pub struct Shell {
    commands: fs::File,
    status: fs::File,
    output: fs::File,
    pid: Pid,
    pidfd: OwnedFd,
    /// Read from `status`, not yet a whole answer.
    partial: Vec<u8>,
    ended: Option<i32>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub code: i32,
    /// The shell ended with the command, as by `exit`.
    pub gone: bool,
}

/// What a text came to that a shell expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expansion {
    Text(String),
    /// It is no text that a shell can expand, as one with a `$(` that nothing closes.
    Refused,
    /// The shell ended over it.
    Gone,
}

/// Starts shells. There is one in a process: it holds descriptor 9 free for them.
#[derive(Debug)]
pub struct Shells {
    nothing: fs::File,
    slot: OwnedFd,
}

impl Shells {
    /// To be called before other files are opened.
    pub fn new() -> io::Result<Self> {
        let nothing = fs::File::open("/dev/null")?;
        let slot = rustix::io::fcntl_dupfd_cloexec(&nothing, STATUS)?;
        match slot.as_raw_fd() {
            STATUS => Ok(Self { nothing, slot }),
            _ => Err(io::Error::other("descriptor 9 is taken")),
        }
    }

    /// For what starts no shell: any descriptor does.
    #[cfg(test)]
    pub(super) fn of_none() -> Self {
        let nothing = fs::File::open("/dev/null").unwrap();
        let slot = nothing.try_clone().unwrap().into();
        Self { nothing, slot }
    }

    pub fn start(
        &mut self,
        kind: Kind,
        environment: &BTreeMap<String, String>,
        directory: &str,
        user: Option<&User>,
    ) -> io::Result<Shell> {
        let (command_reader, commands) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (status, status_writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (output, output_writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        for reader in [&status, &output] {
            let flags = rustix::fs::fcntl_getfl(reader)?;
            rustix::fs::fcntl_setfl(reader, flags | OFlags::NONBLOCK)?;
        }
        let mut command = Command::new(match kind {
            Kind::Sh => "/bin/sh",
            Kind::Bash => "/bin/bash",
            Kind::PowerShell | Kind::Cmd => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "the shell is one of Windows",
                ));
            }
        });
        command
            .env_clear()
            .envs(environment)
            .current_dir(directory)
            .stdin(Stdio::from(command_reader))
            .stderr(Stdio::from(output_writer.try_clone()?))
            .stdout(Stdio::from(output_writer));
        if let Some(user) = user {
            command.uid(user.uid).gid(user.gid).envs(user.variables());
        }
        rustix::io::dup2(&status_writer, &mut self.slot)?;
        let child = command.spawn();
        rustix::io::dup3(&self.nothing, &mut self.slot, DupFlags::CLOEXEC)?;
        let pid = Pid::from_child(&child?);
        Ok(Shell {
            commands: commands.into(),
            status: status.into(),
            output: output.into(),
            pid,
            pidfd: rustix::process::pidfd_open(pid, PidfdFlags::empty())?,
            partial: Vec::new(),
            ended: None,
        })
    }
}

impl Shell {
    /// Runs one command to its end; what it writes goes to `output` at once.
    pub fn run(
        &mut self,
        command: &str,
        output: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Status> {
        let line = format!(
            "eval {} </dev/null 9>&-\ncommand printf '%d\\0' \"$?\" >&9\n",
            quoted(command)
        );
        let answer = self.ask(&line, ANSWER_BYTES, output)?;
        Ok(match answer {
            Some(text) => Status {
                code: text.trim().parse().unwrap_or(1),
                gone: false,
            },
            None => Status {
                code: self.ended.unwrap_or(1),
                gone: true,
            },
        })
    }

    /// What a piece of shell prints, `None` when the shell ended over it.
    pub fn print(
        &mut self,
        code: &str,
        output: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Option<String>> {
        self.tell(code, ANSWER_BYTES, output)
    }

    fn tell(
        &mut self,
        code: &str,
        most: usize,
        output: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Option<String>> {
        let line = format!("{{ {code}; }} </dev/null >&9\ncommand printf '\\0' >&9\n");
        self.ask(&line, most, output)
    }

    /// A text as the shell expands it, in a here-document, so that quotes in it, also those within `$(…)`, are what they
    /// are. What commands within it write to standard error is the complaint.
    pub fn expand(
        &mut self,
        text: &str,
        complaint: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Expansion> {
        const DONE: &str = "\nexpanded";
        let mut end = "VEND".to_owned();
        while text.contains(&end) {
            end.push('_');
        }
        // Of the standard utilities: the build may have a PATH of its own. As one word, which has an end: the shell would
        // look for what closes an open `$(` in the commands that come later, and wait for them.
        let document = quoted(&format!("command -p cat <<{end}\n{text}\n{end}\n"));
        let code = format!("eval {document} && command printf 'expanded'; :");
        Ok(match self.print(&code, complaint)? {
            Some(value) => match value.strip_suffix(DONE) {
                Some(value) => Expansion::Text(value.to_owned()),
                None => Expansion::Refused,
            },
            None => Expansion::Gone,
        })
    }

    /// Everything that another shell needs to go on: the directory and the exported variables, as shell code.
    pub fn state(&mut self, output: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Option<String>> {
        let directory = self.print("command pwd", output)?;
        let exports = self.tell("export -p", STATE_BYTES, output)?;
        Ok(directory.zip(exports).map(|(directory, exports)| {
            format!("cd {}\n{exports}", quoted(directory.trim_end_matches('\n')))
        }))
    }

    fn ask(
        &mut self,
        line: &str,
        most: usize,
        output: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Option<String>> {
        let sent = self.commands.write_all(line.as_bytes());
        if let Err(error) = sent
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(error);
        }
        loop {
            self.wait()?;
            reap(self.pid, &mut self.ended)?;
            drain(&mut self.status, usize::MAX, &mut |bytes| {
                self.partial.extend_from_slice(bytes);
                match self.partial.len() > most {
                    true => Err(io::Error::other("the shell's answer is too long")),
                    false => Ok(()),
                }
            })?;
            let answered = self.partial.iter().position(|byte| *byte == 0);
            let over = answered.is_some() || self.ended.is_some();
            // What the command wrote before it ended is in the pipe. Background processes may go on writing for ever.
            drain(&mut self.output, if over { 1 << 20 } else { usize::MAX }, output)?;
            if let Some(end) = answered {
                let mut answer: Vec<u8> = self.partial.drain(..=end).collect();
                answer.pop();
                return Ok(Some(String::from_utf8_lossy(&answer).into_owned()));
            }
            if self.ended.is_some() {
                return Ok(None);
            }
        }
    }

    /// Until there is something to read, the shell has ended, or it is time to look after orphans.
    fn wait(&self) -> io::Result<()> {
        let mut files = [
            PollFd::new(&self.status, PollFlags::IN),
            PollFd::new(&self.output, PollFlags::IN),
            PollFd::new(&self.pidfd, PollFlags::IN),
        ];
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        match poll(&mut files, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Takes every process that has ended: as PID 1, this one inherits the orphans of all others.
fn reap(shell: Pid, ended: &mut Option<i32>) -> io::Result<()> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == shell => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                *ended = Some(status.exit_status().or(signal).unwrap_or(1));
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Reads what is there now, up to about `most` bytes.
fn drain(file: &mut fs::File, most: usize, to: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = [0; 1 << 14];
    let mut total = 0;
    while total < most {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                total += read;
                to(&buffer[..read])?;
                // Back to the caller now and then: a command that never stops writing still has to be looked after.
                if most == usize::MAX && total > 1 << 20 {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A text as one word of a shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A user of this system, by name or number.
pub fn user(name: &str, passwd: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [login, _, uid, gid, _, home, ..] = fields[..] else {
            return None;
        };
        (login == name || uid == name).then_some(())?;
        Some(User {
            name: login.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: home.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nbad line\nwww-data:x:33:34:www:/var/www:/usr/sbin/nologin\n";
        let found = user("www-data", passwd).unwrap();
        assert_eq!((found.uid, found.gid, found.home.as_str()), (33, 34, "/var/www"));
        assert_eq!(user("33", passwd), Some(found));
        assert_eq!(user("nobody", passwd), None);
    }
}
