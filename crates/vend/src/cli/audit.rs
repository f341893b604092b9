//! The record: export it, and prove it without a platform.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;
use http_body_util::BodyExt as _;
use model::{
    Digest,
    ledger::{Checkpoint, Entry, Line, PublicKey, Verifier},
    wire,
};
use serde::Serialize;

use super::{Failure, Global, Most, Outcome, now, target};
use crate::output::{Output, Table, Tone, ago, cell, clean, maybe};

/// Of one line of an export.
const MAX_LINE_BYTES: u64 = 16 << 20;

#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Show the newest lines.
    List {
        /// TENANT, TENANT/APP or TENANT/APP/ENVIRONMENT
        target: Option<String>,
        #[command(flatten)]
        most: Most,
    },
    /// Write the whole record, one JSON value a line.
    Export {
        /// Standard output when absent.
        file: Option<PathBuf>,
    },
    /// Prove an export: the chain, and with the key its checkpoints. Needs no platform.
    Verify {
        file: PathBuf,
        /// `ed25519:…`, as `vend audit public-key` prints it, kept apart from the export.
        #[arg(long)]
        public_key: Option<PublicKey>,
    },
    /// Sign the record as it is now.
    Checkpoint,
    /// Print the key that checkpoints are verified with.
    PublicKey,
}

pub async fn run(command: &Audit, global: &Global) -> Outcome {
    let output = global.output();
    match command {
        Audit::Verify { file, public_key } => return verify(file, public_key.as_ref(), &output),
        Audit::Export { file } => export(file.as_deref(), global).await?,
        Audit::List { target, most } => {
            let path = format!("/v1/audit?{}", target::scope(target.as_deref())?);
            let page = global.client()?.list::<Line>(&path, most.number()).await?;
            output.show(&page, |page| lines_text(&page.items, &output) + most.rest(page));
        }
        Audit::Checkpoint => {
            let path = "/v1/audit/checkpoint";
            let made: Checkpoint = global.client()?.post(path, &serde_json::json!({})).await?;
            output.show(&made, |made| {
                format!("line {} is signed: {}\n", made.number, made.digest)
            });
        }
        Audit::PublicKey => {
            let key: wire::PublicKey = global.client()?.get("/v1/audit/public-key").await?;
            output.show(&key, |key| format!("{}\n", clean(&key.key)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn lines_text(lines: &[Line], output: &Output) -> String {
    let mut table = Table::new(["LINE", "WHEN", "WHO", "WHAT", "ON", "TENANT"]);
    for line in lines {
        table.row([
            cell(line.number),
            cell(ago(line.at, now())),
            cell(&line.actor),
            cell(&line.action),
            cell(&line.object),
            maybe(line.tenant.as_ref()),
        ]);
    }
    table.render(output, "nothing is recorded yet")
}

async fn export(file: Option<&Path>, global: &Global) -> Result<(), Failure> {
    let (_, mut body) = global.client()?.stream("/v1/audit/export").await?;
    let named = file.unwrap_or_else(|| Path::new("standard output"));
    let failed = |error: io::Error| Failure::file(named, &error);
    let mut out: Box<dyn io::Write> = match file {
        Some(path) => Box::new(File::create(path).map_err(failed)?),
        None => Box::new(io::stdout().lock()),
    };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::unreachable(format!("the export broke off: {error}")))?;
        if let Some(bytes) = frame.data_ref() {
            out.write_all(bytes).map_err(failed)?;
        }
    }
    out.flush().map_err(failed)?;
    if let Some(path) = file.filter(|_| !global.json) {
        eprintln!("next: vend audit verify {} --public-key KEY", path.display());
    }
    Ok(())
}

/// What a verification found.
#[derive(Debug, Serialize)]
struct Verdict {
    ok: bool,
    lines: u64,
    /// Of the last line that is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    checkpoints: u64,
    /// Checkpoints were verified with a key.
    signed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

fn verify(path: &Path, key: Option<&PublicKey>, output: &Output) -> Outcome {
    let file = File::open(path).map_err(|error| Failure::file(path, &error))?;
    let verdict = prove(BufReader::new(file), key).map_err(|error| Failure::file(path, &error))?;
    output.show(&verdict, |verdict| verdict_text(verdict, output));
    Ok(if verdict.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn prove(mut reader: impl BufRead, key: Option<&PublicKey>) -> io::Result<Verdict> {
    let mut verifier = Verifier::default();
    let mut verdict = Verdict {
        ok: false,
        lines: 0,
        digest: None,
        checkpoints: 0,
        signed: false,
        problem: None,
    };
    let mut last = None;
    loop {
        let mut line = Vec::new();
        let read = reader
            .by_ref()
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let text = match line.split_last() {
            Some((b'\n', text)) => std::str::from_utf8(text).map_err(|_| "it is not UTF-8"),
            _ => Err("it is cut off, or too long"),
        };
        let entry = match text {
            Ok(text) => verifier
                .check_text(text, key)
                .map_err(|broken| broken.to_string()),
            Err(problem) => Err(format!("what follows line {}: {problem}", verdict.lines)),
        };
        match entry {
            Ok(Entry::Line(line)) => verdict.lines = line.number,
            Ok(Entry::Checkpoint(checkpoint)) => {
                verdict.checkpoints += 1;
                last = Some(checkpoint.number);
            }
            Err(problem) => {
                verdict.problem = Some(problem);
                break;
            }
        }
    }
    verdict.digest = verifier.head().map(|(_, digest)| digest);
    verdict.signed = key.is_some() && verdict.checkpoints > 0;
    if verdict.problem.is_none() && key.is_some() && last != Some(verdict.lines) {
        verdict.problem =
            Some("no checkpoint signs the last line: lines may have been cut off or added".into());
    }
    verdict.ok = verdict.problem.is_none();
    Ok(verdict)
}

fn verdict_text(verdict: &Verdict, output: &Output) -> String {
    if let Some(problem) = &verdict.problem {
        let word = output.tone(Tone::Bad, "broken");
        return format!(
            "{word}: {}\n{} lines before it are good\n",
            clean(problem),
            verdict.lines
        );
    }
    let mut text = format!(
        "{}: {} lines, {} checkpoints\n",
        output.tone(Tone::Good, "whole"),
        verdict.lines,
        verdict.checkpoints
    );
    if let Some(digest) = &verdict.digest {
        text.push_str(&format!("last digest {digest}\n"));
    }
    if !verdict.signed {
        text.push_str("no signature was verified: give the platform's key by --public-key\n");
    }
    text
}
