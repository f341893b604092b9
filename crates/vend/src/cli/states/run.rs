//! `vend states run`

use std::path::PathBuf;

use asl::Machine;
use clap::Args;

use super::{
    super::{Failure, Global, Outcome},
    Type, code, lint, source, story,
};
use crate::{
    clock,
    states::{
        mocks::Mocks,
        run::{self, Objects, Setup},
    },
};

#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
  0  the execution succeeded
  1  it failed, timed out or was aborted
  2  it could not be run: the command line, the definition, the input or the mocks are not valid,
     or a task has no mocked answer
The mocks have the format of Step Functions Local's MockConfigFile.json; see docs/guides/state-machines.md.")]
pub struct Run {
    /// The definition, in Amazon States Language.
    file: PathBuf,
    /// The input: a file, - or JSON. Without it, {}.
    #[arg(long, value_name = "FILE|JSON", allow_hyphen_values = true)]
    input: Option<String>,
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "STANDARD",
        ignore_case = true
    )]
    kind: Type,
    /// Answers of tasks.
    #[arg(long, value_name = "FILE")]
    mocks: Option<PathBuf>,
    /// The test case of the mocks; not needed when there is only one.
    #[arg(long, value_name = "NAME", requires = "mocks")]
    test_case: Option<String>,
    /// The machine's name, there and in ARNs [default: the definition's file name, or the only one of the mocks].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where s3:// is: BUCKET/KEY in this directory. ItemReaders read there and ResultWriters write there.
    #[arg(long, value_name = "DIR")]
    objects: Option<PathBuf>,
    /// Run an EXPRESS machine as StartSyncExecution does.
    #[arg(long)]
    sync: bool,
    /// Waits, time-outs and back-offs take no time.
    #[arg(long)]
    virtual_time: bool,
}

pub async fn run(run: &Run, global: &Global) -> Outcome {
    if run.sync && matches!(run.kind, Type::Standard) {
        return Err(Failure::usage("--sync is for EXPRESS machines")
            .cause("StartSyncExecution runs no STANDARD machine")
            .next("add --type EXPRESS, or leave --sync out"));
    }
    let output = global.output();
    let text = source::text(&run.file)?;
    let machine = Machine::parse_as(run.kind.into(), &text).map_err(|problems| {
        let name = run.file.display().to_string();
        for problem in &problems {
            eprint!("{}", lint::line(problem, &name, &output));
        }
        Failure::usage(format!("{name} cannot be run"))
            .cause(match problems.len() {
                1 => "the definition has a problem".to_owned(),
                many => format!("the definition has {many} problems"),
            })
            .next(format!("vend states lint {name}"))
    })?;
    let setup = Setup {
        machine,
        name: run.name.clone().unwrap_or_else(|| source::stem(&run.file)),
        input: source::value("input", run.input.as_deref())?,
        mocks: mocks(run)?,
        objects: Objects(run.objects.clone()),
        synchronous: run.sync,
        virtual_time: run.virtual_time,
        at: clock::now(),
        seed: [clock::bits(), clock::bits()],
    };
    let definition = setup.machine.definition().clone();
    let report = run::run(setup).await.map_err(refused)?;
    output.show(&report, |report| story::told(report, &definition, &output));
    Ok(code(report.status == "SUCCEEDED"))
}

fn mocks(run: &Run) -> Result<Mocks, Failure> {
    let Some(file) = &run.mocks else {
        return Ok(Mocks::default());
    };
    let (stem, case) = (source::stem(&run.file), run.test_case.as_deref());
    Mocks::read(&source::text(file)?, run.name.as_deref(), &stem, case).map_err(|error| {
        let next = "choose with --name NAME and --test-case NAME, or mend the file";
        Failure::usage(format!("{} cannot be used", file.display()))
            .cause(error.to_string())
            .next(next)
    })
}

fn refused(error: run::Error) -> Failure {
    let next = match &error {
        run::Error::Mocks(_) => {
            "add the answer to MockedResponses, name it in the test case, and give --mocks FILE --test-case NAME"
        }
        run::Error::Unread { .. } => "give --objects DIR, or mock the Map state by its name",
        run::Error::Results { .. } => "give --objects DIR, a directory that can be written",
        run::Error::Stuck | run::Error::Endless | run::Error::Deep => {
            "vend states draw FILE, to see where it goes"
        }
    };
    Failure::usage("the execution cannot go on here")
        .cause(error.to_string())
        .next(next)
}
