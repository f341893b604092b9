//! `vend states draw`

use std::path::{Path, PathBuf};

use clap::Args;
use model::wire;
use serde_json::Value;

use super::{
    super::{Failure, Global, Outcome, client::escape},
    code, lint, source, story,
};
use crate::{
    output::Tone,
    states::draw::{Drawing, Statuses, Tint},
};

#[derive(Debug, Args)]
pub struct Draw {
    /// The definition, in Amazon States Language.
    #[arg(required_unless_present = "execution")]
    file: Option<PathBuf>,
    /// Draw an execution of a platform instead: the id of a release or rollback, or the ARN of an execution of a state
    /// machine of yours.
    #[arg(long, value_name = "ID|ARN", conflicts_with_all = ["file", "history"])]
    execution: Option<String>,
    /// Write SVG to this file instead; - is standard output.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Colour the states by a history: what `aws stepfunctions get-execution-history` or `vend states run --json`
    /// printed; a file, - or JSON.
    #[arg(long, value_name = "FILE|JSON")]
    history: Option<String>,
}

pub async fn run(draw: &Draw, global: &Global) -> Outcome {
    let (sound, (drawing, statuses)) = match (&draw.file, &draw.execution) {
        (Some(file), _) => {
            let text = source::text(file)?;
            (
                checked(file, &text, global),
                of_file(file, &text, draw.history.as_deref())?,
            )
        }
        (None, id) => {
            let id = id.as_deref().unwrap_or_default();
            (true, of_execution(id, global).await?)
        }
    };
    let output = global.output();
    match &draw.svg {
        Some(path) if path.as_os_str() == "-" => output.text(&drawing.svg(&statuses)),
        Some(path) => {
            std::fs::write(path, drawing.svg(&statuses)).map_err(|error| Failure::file(path, &error))?;
            output.line(&format!("wrote {}", path.display()));
        }
        None => {
            output.text(&drawing.text(&statuses, |tint, text| output.tone(tone(tint), text)));
            output.text(&legend(&statuses));
        }
    }
    Ok(code(sound))
}

/// Says on standard error what is wrong with a definition: what it draws as is perhaps not what was meant.
fn checked(file: &Path, text: &str, global: &Global) -> bool {
    let found = asl::validate(
        &source::filled(text),
        asl::Flavour::Standard,
        asl::Severity::Error,
        asl::limit::DIAGNOSTICS,
    );
    for problem in &found.diagnostics {
        eprint!(
            "{}",
            lint::line(problem, &file.display().to_string(), &global.output())
        );
    }
    found.result == asl::Verdict::Ok
}

fn of_file(file: &Path, text: &str, history: Option<&str>) -> Result<(Drawing, Statuses), Failure> {
    let definition = source::parsed("definition", text)?;
    let drawing = Drawing::of(&definition).map_err(|error| {
        Failure::usage(format!("{} cannot be drawn", file.display()))
            .cause(error.to_string())
            .next(format!("vend states lint {}", file.display()))
    })?;
    let statuses = match history {
        Some(history) => {
            let statuses = read(&source::parsed("history", &source::text_or_json(history)?)?)?;
            belongs(&statuses, &definition, file)?;
            statuses
        }
        None => Statuses::default(),
    };
    Ok((drawing, statuses))
}

/// Refuses the history of another machine, whose states are not all here.
fn belongs(statuses: &Statuses, definition: &Value, file: &Path) -> Result<(), Failure> {
    let states = story::states(definition);
    let known = statuses.known();
    match known.iter().find(|(name, _)| !states.contains_key(*name)) {
        None => Ok(()),
        Some((name, _)) => Err(Failure::usage("the history is of another machine")
            .cause(format!(
                "its state `{}` is not in {}",
                crate::output::clean(name),
                file.display()
            ))
            .next("give the definition that was executed: aws stepfunctions describe-state-machine-for-execution")),
    }
}

/// An execution of the platform.
async fn of_execution(id: &str, global: &Global) -> Result<(Drawing, Statuses), Failure> {
    let path = format!("/v1/executions/{}/drawing", escape(id));
    let found: wire::Drawing = global.client()?.get(&path).await?;
    let drawing = Drawing::of(&found.definition)
        .map_err(|error| Failure::failed(format!("{id} cannot be drawn")).cause(error.to_string()))?;
    Ok((drawing, Statuses::read(&found.events)))
}

/// A list of events, or an object that has one in `events`.
fn read(history: &Value) -> Result<Statuses, Failure> {
    let events = history.as_array().or_else(|| history["events"].as_array());
    match events {
        Some(events) => Ok(Statuses::read(events)),
        None => Err(Failure::usage("the history has no events")
            .cause("a list of events, or an object with \"events\", is needed")
            .next("aws stepfunctions get-execution-history --execution-arn ARN > history.json")),
    }
}

fn tone(tint: Tint) -> Tone {
    match tint {
        Tint::None => Tone::Plain,
        Tint::Succeeded => Tone::Good,
        Tint::Caught | Tint::Running => Tone::Wait,
        Tint::Aborted => Tone::Faint,
        Tint::Failed => Tone::Bad,
    }
}

/// In words too: colours alone do not reach everybody, nor a file.
fn legend(statuses: &Statuses) -> String {
    let known = statuses.known();
    let width = known
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0)
        .min(60);
    known
        .iter()
        .map(|(name, tint)| format!("{:<width$}  {}\n", crate::output::clean(name), tint.word()))
        .collect()
}
