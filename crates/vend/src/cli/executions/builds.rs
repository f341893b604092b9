//! The builds of an execution: what is shown of each, and which one somebody means.

use model::wire::{BuildRun, ExecutionDetail};

use crate::{
    cli::{Failure, build::watch, client::escape},
    output::{Output, Tone, clean},
};

/// `build 7 (unit) on this machine`, its phases, and what it left.
pub(super) fn text(build: &BuildRun, output: &Output) -> String {
    let mut text = called(build);
    if let Some(builder) = &build.builder {
        text.push_str(&format!(" on {}", clean(builder)));
    }
    if let Some(why) = &build.waiting {
        let why = format!("waits for {}", clean(why));
        text.push_str(&format!(", {}", output.tone(Tone::Wait, &why)));
    }
    text.push('\n');
    text.push_str(&watch::phases(&build.phases, output));
    for (name, value) in &build.exported {
        text.push_str(&format!("  {}={}\n", clean(name), clean(value)));
    }
    for (name, digest) in &build.secondary {
        text.push_str(&format!("  artifact {} {digest}\n", clean(name)));
    }
    text
}

fn called(build: &BuildRun) -> String {
    match &build.identifier {
        Some(name) => format!("build {} ({})", build.number, clean(name)),
        None => format!("build {}", build.number),
    }
}

/// Where below its execution an artifact of a build is, and what it is.
///
/// # Errors
///
/// There is no such build, or several builds have an artifact of that name.
pub(super) fn artifact(
    detail: &ExecutionDetail,
    name: Option<&str>,
    build: Option<&str>,
) -> Result<(String, String), Failure> {
    let meant = match (build, name) {
        (Some(build), _) => one(detail, build)?,
        (None, Some(name)) => only(detail, name)?,
        (None, None) => return Ok(("artifact".to_owned(), "the revision".to_owned())),
    };
    let (query, which) = match name {
        Some(name) => (format!("?name={}", escape(name)), format!(" {name}")),
        None => (String::new(), String::new()),
    };
    Ok((
        format!("builds/{}/artifact{query}", meant.number),
        format!("the artifact{which} of {}", called(meant)),
    ))
}

/// The build that is called so: by its identifier, else by its number.
fn one<'a>(detail: &'a ExecutionDetail, called: &str) -> Result<&'a BuildRun, Failure> {
    let named = |build: &&BuildRun| build.identifier.as_deref() == Some(called);
    let numbered = |build: &&BuildRun| called.parse() == Ok(build.number);
    let builds = &detail.builds;
    let found = builds.iter().find(named).or_else(|| builds.iter().find(numbered));
    found.ok_or_else(|| match builds.is_empty() {
        true => Failure::failed("the execution has no build"),
        false => Failure::failed(format!("the execution has no build `{called}`")).next(which(builds)),
    })
}

/// The build that has a secondary artifact of this name.
fn only<'a>(detail: &'a ExecutionDetail, name: &str) -> Result<&'a BuildRun, Failure> {
    let has: Vec<&BuildRun> = detail
        .builds
        .iter()
        .filter(|build| build.secondary.contains_key(name))
        .collect();
    match has.as_slice() {
        [only] => Ok(only),
        [] => Err(
            Failure::failed(format!("no build of the execution has an artifact `{name}`"))
                .next(format!("vend executions show {}", detail.execution.id)),
        ),
        several => Err(
            Failure::usage(format!("several builds have an artifact `{name}`"))
                .next(which(several.iter().copied())),
        ),
    }
}

/// `--build unit or --build lint`
fn which<'a>(builds: impl IntoIterator<Item = &'a BuildRun>) -> String {
    let word = |build: &BuildRun| match &build.identifier {
        Some(name) => format!("--build {}", clean(name)),
        None => format!("--build {}", build.number),
    };
    let words: Vec<String> = builds.into_iter().map(word).collect();
    words.join(" or ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use model::{
        Digest,
        wire::{Execution, ExecutionState},
    };

    use super::*;

    fn build(number: u64, identifier: Option<&str>, secondary: &[&str]) -> BuildRun {
        BuildRun {
            number,
            identifier: identifier.map(str::to_owned),
            builder: None,
            waiting: None,
            log: None,
            started_at: Timestamp::UNIX_EPOCH,
            ended_at: None,
            phases: Vec::new(),
            exported: BTreeMap::new(),
            secondary: secondary
                .iter()
                .map(|name| ((*name).to_owned(), Digest::of(name)))
                .collect(),
        }
    }

    fn detail(builds: Vec<BuildRun>) -> ExecutionDetail {
        ExecutionDetail {
            execution: Execution {
                id: model::ExecutionId::from_bits(7),
                kind: "release".into(),
                place: None,
                state: ExecutionState::Succeeded,
                stage: None,
                waiting: None,
                error: None,
                cause: None,
                started_at: Timestamp::UNIX_EPOCH,
                started_by: "ann".into(),
                ended_at: None,
            },
            history: Vec::new(),
            logs: Vec::new(),
            builds,
        }
    }

    #[test]
    fn a_build_says_which_it_is_where_it_is_and_why_it_waits() {
        let output = Output::new(false, String::new());
        assert_eq!(text(&build(3, None, &[]), &output), "build 3\n");
        let there = BuildRun {
            builder: Some("second".into()),
            waiting: Some("its turn".into()),
            exported: BTreeMap::from([("MADE".to_owned(), "here".to_owned())]),
            ..build(7, Some("unit"), &[])
        };
        let expected = "build 7 (unit) on second, waits for its turn\n  MADE=here\n";
        assert_eq!(text(&there, &output), expected);
    }

    #[test]
    fn a_build_is_meant_by_its_identifier_or_its_number_and_an_artifact_by_who_has_it() {
        // One is called as another is numbered.
        let builds = vec![
            build(4, Some("unit"), &["docs", "both"]),
            build(5, Some("4"), &["both"]),
            build(6, None, &[]),
        ];
        let (some, none) = (detail(builds), detail(vec![]));
        let at = |number: u64, query: &str| Ok(format!("builds/{number}/artifact{query}"));
        for (name, build, expected) in [
            (None, Some("unit"), at(4, "")),
            (None, Some("4"), at(5, "")),
            (None, Some("5"), at(5, "")),
            (Some("docs"), Some("6"), at(6, "?name=docs")),
            (Some("docs"), None, at(4, "?name=docs")),
            (Some("both"), None, Err("--build unit or --build 4")),
            (None, Some("lint"), Err("--build unit or --build 4 or --build 6")),
        ] {
            let found = artifact(&some, name, build).map(|(path, _)| path);
            let found = found.map_err(|failure| failure.next.unwrap());
            assert_eq!(found, expected.map_err(str::to_owned), "{name:?} {build:?}");
        }
        let said = artifact(&some, Some("docs"), Some("unit")).unwrap().1;
        assert_eq!(said, "the artifact docs of build 4 (unit)");
        assert!(artifact(&none, None, Some("1")).is_err());
    }
}
