//! `vend states lint`

use std::path::PathBuf;

use asl::{Diagnostic, Severity, Validation, Verdict};
use clap::Args;
use serde::Serialize;

use super::{
    super::{Global, Outcome},
    Type, code, source,
};
use crate::output::{Output, Tone, clean};

#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
  0  the definition can be run
  1  it cannot: there are errors
  2  the command line is not valid
The file may be - for standard input. ${Name} and ${AWS::Region}, which CloudFormation fills in, stand for something.")]
pub struct Lint {
    /// The definition, in Amazon States Language.
    file: PathBuf,
    /// The type of the machine: EXPRESS forbids activities, callbacks and jobs.
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "STANDARD",
        ignore_case = true
    )]
    kind: Type,
    /// Show warnings too: what looks like a path and is not read as one, and keys that stand twice.
    #[arg(long)]
    warnings: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(flatten)]
    validation: Validation,
    /// The variables that each state reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    variable_references: Option<serde_json::Value>,
}

pub fn run(lint: &Lint, global: &Global) -> Outcome {
    let given = source::text(&lint.file)?;
    let text = source::filled(&given);
    let find = |severity| asl::validate(&text, lint.kind.into(), severity, asl::limit::DIAGNOSTICS);
    let all = find(Severity::Warning);
    let doubts = all.diagnostics.iter();
    let doubts = doubts
        .filter(|problem| problem.severity == Severity::Warning)
        .count();
    let (validation, hidden) = match lint.warnings {
        true => (all, 0),
        false => (find(Severity::Error), doubts),
    };
    let good = validation.result == Verdict::Ok;
    let definition = asl::json::read(&given).ok().filter(|_| good);
    let answer = Answer {
        validation,
        variable_references: definition.map(|definition| serde_json::json!(asl::references(&definition))),
    };
    let output = global.output();
    let name = lint.file.display().to_string();
    output.show(&answer, |answer| said(&answer.validation, hidden, &name, &output));
    Ok(code(good))
}

/// `hidden`: warnings that were not asked for.
fn said(validation: &Validation, hidden: usize, name: &str, output: &Output) -> String {
    let mut text: String = validation
        .diagnostics
        .iter()
        .map(|problem| line(problem, name, output))
        .collect();
    let errors = validation
        .diagnostics
        .iter()
        .filter(|problem| problem.severity == Severity::Error);
    text.push_str(&match errors.count() {
        0 => format!("{}\n", output.tone(Tone::Good, "ok")),
        1 => "1 error\n".to_owned(),
        errors => format!(
            "{errors} errors{}\n",
            if validation.truncated { " at least" } else { "" }
        ),
    });
    match hidden {
        0 => {}
        1 => text.push_str("1 warning is not shown: --warnings\n"),
        hidden => text.push_str(&format!("{hidden} warnings are not shown: --warnings\n")),
    }
    text
}

/// `orders.json:4:27: error: … at /States/A/Next [MISSING_TRANSITION_TARGET]`
pub fn line(problem: &Diagnostic, name: &str, output: &Output) -> String {
    let (word, tone) = match problem.severity {
        Severity::Error => ("error", Tone::Bad),
        Severity::Warning => ("warning", Tone::Wait),
    };
    let place = problem.location.as_deref().unwrap_or(&problem.pointer);
    let mut text = format!(
        "{}:{}:{}: {}: {} at {} [{}]\n",
        clean(name),
        problem.line,
        problem.column,
        output.tone(tone, word),
        clean(problem.message.trim_end()),
        clean(place),
        problem.code,
    );
    if let Some(detail) = &problem.detail {
        text.push_str(&format!("    {}\n", output.tone(Tone::Faint, &clean(detail))));
    }
    text
}
