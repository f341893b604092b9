//! `vend aws doctor`: is everything there that an apply needs?

use std::process::ExitCode;

use ::aws::{
    doctor::{self, Check, SHARED, Verdict},
    synth::Kind,
};
use clap::Args;
use serde::Serialize;

use super::{Failure, project::Project};
use crate::output::{Output, Tone, clean};

#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    project: Project,
}

#[derive(Debug, Serialize)]
struct Report {
    foundation: String,
    region: String,
    checks: Vec<Check>,
}

pub async fn run(own: &Doctor, output: &Output) -> Result<ExitCode, Failure> {
    let loaded = own.project.load()?;
    // Who may not see stacks reads all else, and that it is not known what stands.
    let (found, blind) = match loaded.found().await {
        Ok(found) => (found, None),
        Err(failure) => (Vec::new(), Some(failure.what)),
    };
    let mut reports = Vec::new();
    for (label, site) in loaded.sites() {
        let options = loaded
            .config
            .foundations
            .iter()
            .find(|(own, _)| own.as_str() == label);
        let account = options.and_then(|(_, options)| options.account.as_ref());
        let stacks: Vec<_> = loaded
            .made
            .stacks
            .iter()
            .filter(|own| own.foundation.as_str() == label)
            .collect();
        let is_there = |name: &str| {
            found.iter().any(|(_, found)| {
                found.stack.name == name && !found.stack.status.is_stillborn() && found.mark.is_some()
            })
        };
        let foundations = found.iter().filter(|(own, found)| {
            own == label && found.mark.as_ref().map(|mark| mark.kind) == Some(Kind::Foundation)
        });
        let mut outputs = foundations.flat_map(|(_, found)| &found.stack.outputs);
        let listener = outputs.find(|own| own.id == SHARED).map(|own| own.value.as_str());
        let account = account.map(|own| own.as_str());
        let listener = match &blind {
            Some(why) => Err(why.as_str()),
            None => Ok(listener),
        };
        let checks = doctor::doctor(site, account, listener, &stacks, &is_there).await;
        reports.push(Report {
            foundation: label.to_owned(),
            region: site.client.region().to_owned(),
            checks,
        });
    }
    output.show(&reports, |reports| people(reports, output));
    let is_bad = reports
        .iter()
        .flat_map(|report| &report.checks)
        .any(|check| check.verdict == Verdict::Bad);
    Ok(if is_bad {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn people(reports: &[Report], output: &Output) -> String {
    let mut text = String::new();
    for report in reports {
        text.push_str(&format!("{} ({})\n", report.foundation, report.region));
        for check in &report.checks {
            let (tone, word) = match check.verdict {
                Verdict::Good => (Tone::Good, "ok     "),
                Verdict::Unknown => (Tone::Wait, "unknown"),
                Verdict::Bad => (Tone::Bad, "bad    "),
            };
            text.push_str(&format!(
                "  {} {}: {}\n",
                output.tone(tone, word),
                check.what,
                clean(&check.said)
            ));
        }
    }
    text
}
