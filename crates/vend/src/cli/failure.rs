//! Why a command was not done, as people read it and as exit codes say it.

use std::process::ExitCode;

use model::wire::ProblemDetails;

use crate::output::{Output, clean, lines};

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    /// Refused: not known, or not allowed.
    Refused = 3,
    NotFound = 4,
    Unreachable = 5,
}

pub const EXIT_CODES: &str = "Exit codes:
  0  done
  1  failed, or not possible as things are now
  2  the command line or the request is not valid
  3  refused: who you are is not known, or you may not do it
  4  there is no such thing
  5  the platform cannot be reached";

/// What failed, why, and the next command to type.
#[derive(Debug, Clone)]
pub struct Failure {
    pub exit: Exit,
    pub what: String,
    pub cause: Option<String>,
    pub next: Option<String>,
    /// As the platform said it, for `--json`.
    pub problem: Option<Box<ProblemDetails>>,
}

impl Failure {
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            cause: None,
            next: None,
            problem: None,
        }
    }

    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what)
    }

    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    pub fn refused(what: impl Into<String>) -> Self {
        Self::new(Exit::Refused, what)
    }

    pub fn unreachable(cause: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, "the platform cannot be reached").cause(cause)
    }

    /// A file of the caller's that cannot be read or written.
    pub fn file(path: &std::path::Path, cause: &std::io::Error) -> Self {
        Self::failed(format!("{} cannot be used", path.display())).cause(cause.to_string())
    }

    pub fn of(problem: ProblemDetails) -> Self {
        let exit = match problem.status {
            400 => Exit::Usage,
            401 | 403 => Exit::Refused,
            404 => Exit::NotFound,
            _ => Exit::Failed,
        };
        Self {
            exit,
            what: problem.title.clone(),
            cause: Some(problem.detail.clone()),
            next: problem.next.clone(),
            problem: Some(Box::new(problem)),
        }
    }

    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// With the problem that `--json` shows, also where no platform said one. People read it as before.
    pub fn into_problem(self, output: &Output) -> Self {
        if self.problem.is_some() || !output.json {
            return self;
        }
        let (name, title, status) = match self.exit {
            Exit::Failed => ("failed", "It failed, or is not possible as things are now", 409),
            Exit::Usage => ("invalid", "The request is not valid", 400),
            Exit::Refused => ("refused", "It is refused", 403),
            Exit::NotFound => ("not-found", "There is no such thing", 404),
            Exit::Unreachable => ("unreachable", "It cannot be reached", 503),
        };
        let detail = match &self.cause {
            Some(cause) => format!("{}: {cause}", self.what),
            None => self.what.clone(),
        };
        let problem = ProblemDetails {
            r#type: format!("urn:vend:problem:{name}"),
            title: title.to_owned(),
            status,
            detail,
            next: self.next.as_deref().map(|next| output.command(next)),
            request: None,
            problems: Vec::new(),
        };
        Self {
            problem: Some(Box::new(problem)),
            ..self
        }
    }

    /// Says it on standard error and gives the exit code.
    pub fn report(&self, output: &Output) -> ExitCode {
        match (&self.problem, output.json) {
            (Some(problem), true) => {
                let text = serde_json::to_string_pretty(problem).expect("wire types are plain data");
                eprintln!("{text}");
            }
            _ => {
                eprintln!("error: {}", clean(&self.what));
                if let Some(cause) = &self.cause {
                    eprintln!("cause: {}", lines(cause, "       "));
                }
                for problem in self.problem.iter().flat_map(|problem| &problem.problems) {
                    eprintln!("  {}", clean(&problem.to_string()));
                }
                if let Some(next) = &self.next {
                    eprintln!("next:  {}", output.command(&clean(next)));
                }
            }
        }
        ExitCode::from(self.exit as u8)
    }
}
