//! `vend states draw`

use std::path::{Path, PathBuf};

use clap::Args;
use model::wire;
use serde_json::Value;

use super::{
    super::{Failure, Global, Outcome, client::escape},
    code, source,
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
    let (drawing, statuses) = match (&draw.file, &draw.execution) {
        (Some(file), _) => of_file(file, draw.history.as_deref())?,
        (None, id) => of_execution(id.as_deref().unwrap_or_default(), global).await?,
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
    Ok(code(true))
}

fn of_file(file: &Path, history: Option<&str>) -> Result<(Drawing, Statuses), Failure> {
    let definition = source::parsed("definition", &source::text(file)?)?;
    let drawing = Drawing::of(&definition).map_err(|error| {
        Failure::usage(format!("{} cannot be drawn", file.display()))
            .cause(error.to_string())
            .next(format!("vend states lint {}", file.display()))
    })?;
    let statuses = match history {
        Some(history) => read(&source::parsed("history", &source::text_or_json(history)?)?)?,
        None => Statuses::default(),
    };
    Ok((drawing, statuses))
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
