//! `vend states test-state`

use std::path::PathBuf;

use asl::{Configuration, Level, Mock, TestRequest, TestResponse, Tested};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{
    super::{Failure, Global, Outcome},
    code, source,
};
use crate::{
    clock,
    output::{Output, Tone, clean},
};

#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
  0  the state succeeded, or its error was caught or will be retried
  1  the state failed
  2  the request is not valid")]
pub struct Test {
    /// The state, or the whole state machine when --state-name says which state of it.
    #[arg(long, value_name = "FILE|JSON")]
    definition: String,
    /// The state of the machine, wherever in it.
    #[arg(long, value_name = "NAME")]
    state_name: Option<String>,
    /// The state's input. Without it, {}.
    #[arg(long, value_name = "FILE|JSON", allow_hyphen_values = true)]
    input: Option<String>,
    /// How much is shown of the way of the data.
    #[arg(long, value_name = "LEVEL", default_value = "INFO", ignore_case = true)]
    inspection_level: Depth,
    /// The answer: {"result": "JSON text"} or {"errorOutput": {"error": "…", "cause": "…"}}, as in AWS's request; a
    /// result may also be given as JSON itself.
    #[arg(long, value_name = "FILE|JSON")]
    mock: Option<String>,
    /// Variables that the state sees: an object.
    #[arg(long, value_name = "FILE|JSON")]
    variables: Option<String>,
    /// The context object, instead of one that is made up.
    #[arg(long, value_name = "FILE|JSON")]
    context: Option<String>,
    /// Retries so far and failed iterations, as in AWS's request: {"retrierRetryCount": 1, …}
    #[arg(long, value_name = "FILE|JSON")]
    state_configuration: Option<String>,
    /// The role that the context object names.
    #[arg(long, value_name = "ARN")]
    role_arn: Option<String>,
    /// For AWS's sake: without a call there are no secrets to hide.
    #[arg(long)]
    reveal_secrets: bool,
    /// Write the answer to this file too.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Depth {
    Info,
    Debug,
    Trace,
}

pub fn run(test: &Test, global: &Global) -> Outcome {
    let request = request(test)?;
    let seed = [clock::bits(), clock::bits()];
    let response = asl::test(&request, clock::now(), seed).map_err(|refusal| {
        // AWS would call the service with that role; here nothing is called.
        let next = match request.mock {
            None if ["RoleArn", "mock", "Map or Parallel"]
                .iter()
                .any(|word| refusal.message.contains(word)) =>
            {
                "answer for it: --mock '{\"result\": {…}}'"
            }
            _ => "vend states test-state --help",
        };
        Failure::usage(format!("the state cannot be tested: {}", refusal.code))
            .cause(refusal.message)
            .next(next)
    })?;
    if let Some(path) = &test.save {
        let text = serde_json::to_string_pretty(&response).expect("a response is plain data");
        std::fs::write(path, text).map_err(|error| Failure::file(path, &error))?;
    }
    let output = global.output();
    output.show(&response, |response| said(response, &output));
    Ok(code(response.status != Tested::Failed))
}

fn request(test: &Test) -> Result<TestRequest, Failure> {
    let text = |given: &Option<String>| given.as_deref().map(source::text_or_json).transpose();
    let level = match test.inspection_level {
        Depth::Info => Level::Info,
        Depth::Debug => Level::Debug,
        Depth::Trace => Level::Trace,
    };
    Ok(TestRequest {
        definition: source::text_or_json(&test.definition)?,
        role_arn: test.role_arn.clone(),
        input: text(&test.input)?,
        inspection_level: level,
        reveal_secrets: test.reveal_secrets,
        variables: text(&test.variables)?,
        state_name: test.state_name.clone(),
        mock: text(&test.mock)?.map(|text| mock(&text)).transpose()?,
        context: text(&test.context)?,
        state_configuration: match text(&test.state_configuration)? {
            None => Configuration::default(),
            Some(text) => read(
                "state-configuration",
                source::parsed("state-configuration", &text)?,
            )?,
        },
    })
}

/// AWS wants the result as JSON text; people write it as JSON.
fn mock(text: &str) -> Result<Mock, Failure> {
    let mut mock = source::parsed("mock", text)?;
    if let Some(result) = mock.get_mut("result").filter(|result| !result.is_string()) {
        *result = Value::String(result.to_string());
    }
    read("mock", mock)
}

fn read<T: serde::de::DeserializeOwned>(what: &str, value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| {
        Failure::usage(format!("the {what} is not what AWS's TestState takes"))
            .cause(error.to_string())
            .next("vend states test-state --help")
    })
}

fn said(response: &TestResponse, output: &Output) -> String {
    let (word, tone) = match response.status {
        Tested::Succeeded => ("SUCCEEDED", Tone::Good),
        Tested::Failed => ("FAILED", Tone::Bad),
        Tested::Retriable => ("RETRIABLE", Tone::Wait),
        Tested::CaughtError => ("CAUGHT_ERROR", Tone::Wait),
    };
    let mut text = format!("{}\n", output.tone(tone, word));
    let mut say = |name: &str, what: &str| text.push_str(&format!("{name}: {}\n", clean(what)));
    for (name, what) in [
        ("error", &response.error),
        ("cause", &response.cause),
        ("output", &response.output),
        ("next", &response.next_state),
    ] {
        if let Some(what) = what {
            say(name, what);
        }
    }
    for (name, value) in response
        .inspection_data
        .iter()
        .filter_map(Value::as_object)
        .flatten()
    {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        say(name, &value);
    }
    text
}
