//! What a build leaves: exported variables, artifacts, reports.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write},
    path::Path,
};

use model::spec::build::{Artifacts, Report};

use super::{
    Failure, Runner,
    complaint::Complaint,
    paths::{Paths, SHOWN},
};
use crate::{
    build::{
        artifact::{self, Content, Wanted},
        console::bounded,
        protocol::{Event, FRAME_BYTES, Frames},
        report::{self, Case, Found},
        shell::Expansion,
    },
    logs::Mask,
    tree::Packer,
};

/// So many tests are told one by one; all are counted.
const CASES_TOLD: usize = 20_000;

impl<W: Write> Runner<W> {
    /// The values that exported variables have at the end of the last phase. Secrets are not exported.
    fn export(&mut self) -> io::Result<()> {
        let mut exported = BTreeMap::new();
        for name in self.job.buildspec.env.exported_variables.clone() {
            let plain = name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !plain || name.starts_with("AWS_") || self.job.secrets.contains_key(&name) {
                continue;
            }
            let value = match self.shell.is_some() || self.state.is_some() {
                true => self
                    .expand(&format!("${{{name}-}}"), &mut |_| Ok(()))
                    .map_err(|error| {
                        io::Error::other(format!("the variable {name} cannot be exported: {error}"))
                    })?,
                false => self.environment.get(&name).cloned(),
            };
            exported.extend(value.map(|value| (name, value)));
        }
        let told = self.frames.event(&Event::Exported(exported));
        told.map_err(|error| io::Error::other(format!("the variables cannot be exported: {error}")))
    }

    /// A text as the shell of the build expands it; `None` when that cannot. What commands within it write to standard error
    /// is the complaint.
    pub(super) fn expand(
        &mut self,
        text: &str,
        complaint: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Option<String>> {
        let user = self.shell.as_ref().and_then(|(_, user)| user.clone());
        self.shell_for(user.as_ref())?;
        let (shell, _) = self.shell.as_mut().expect("a shell was started");
        Ok(match shell.expand(text, complaint)? {
            Expansion::Text(text) => Some(text),
            Expansion::Refused => None,
            Expansion::Gone => {
                self.shell = None;
                None
            }
        })
    }

    pub(super) fn upload(&mut self) -> io::Result<()> {
        self.began("UPLOAD_ARTIFACTS")?;
        self.export()?;
        let failure = match (&self.job.buildspec.artifacts, self.succeeding) {
            (Some(artifacts), _) => self.artifacts(&artifacts.clone())?,
            (None, true) => self.artifact(None, &everything())?,
            // What a failed build was to leave, nobody said.
            (None, false) => None,
        };
        self.reports()?;
        self.ended("UPLOAD_ARTIFACTS", failure)
    }

    fn artifacts(&mut self, artifacts: &Artifacts) -> io::Result<Failure> {
        let mut failure = None;
        // Only secondary ones: the revision is the source tree, as without artifacts.
        if artifacts.files.is_empty() && !artifacts.secondary.is_empty() {
            if self.succeeding {
                failure = self.artifact(None, &everything())?;
            }
        } else {
            failure = self.artifact(None, artifacts)?;
        }
        for (identifier, own) in &artifacts.secondary {
            let own = self.artifact(Some(identifier), own)?;
            failure = failure.or(own);
        }
        Ok(failure)
    }

    fn artifact(&mut self, identifier: Option<&str>, artifacts: &Artifacts) -> io::Result<Failure> {
        let base = artifacts.base_directory.as_deref();
        let paths = match self.paths(&artifacts.files, base, &artifacts.exclude_paths)? {
            Ok(paths) => paths,
            Err(why) => return self.fail(format!("CLIENT_ERROR: {why}")),
        };
        let wanted = Wanted {
            files: &paths.files,
            base_directory: paths.base_directory.as_deref(),
            exclude_paths: &paths.exclude_paths,
            discard_paths: artifacts.discard_paths,
            enable_symlinks: artifacts.enable_symlinks,
        };
        let found = match artifact::find(Path::new(&self.job.source_directory), &wanted) {
            Ok(found) => found,
            Err(message) => return self.fail(format!("CLIENT_ERROR: {message}")),
        };
        for note in &found.notes {
            self.frames.note(note)?;
        }
        if found.files.is_empty() {
            return self.fail("CLIENT_ERROR: no matching artifact paths found".to_owned());
        }
        let whose = identifier.map_or(String::new(), |identifier| format!(" for {identifier}"));
        self.frames
            .note(format!("Found {} file(s){whose}", found.files.len()))?;
        let name = match self.artifact_name(artifacts)? {
            Ok(name) => name,
            Err(why) => return self.fail(format!("CLIENT_ERROR: {why}")),
        };
        let identifier = identifier.map(str::to_owned);
        self.frames.event(&Event::Artifact { identifier, name })?;
        match self.pack(&found) {
            Ok(()) => Ok(None),
            Err(error) => self.fail(format!("CLIENT_ERROR: {}", crate::logs::chain(&error))),
        }
    }

    /// `PREFIX/BUILD-ID/NAME`, as far as the buildspec says; or why there is none.
    fn artifact_name(&mut self, artifacts: &Artifacts) -> io::Result<Result<Option<String>, String>> {
        let mut complaint = Complaint::new(&self.mask);
        let name = match &artifacts.name {
            Some(written) => {
                let name = self.expand(written, &mut |bytes| {
                    complaint.hear(bytes);
                    Ok(())
                })?;
                if name.is_none() {
                    let why = complaint.told();
                    let written = bounded(written.clone(), SHOWN);
                    return Ok(Err(format!(
                        "no shell can expand the name `{written}` of the artifact: {why}"
                    )));
                }
                name
            }
            None => None,
        };
        let Some(prefix) = &artifacts.s3_prefix else {
            return Ok(Ok(name));
        };
        let id = self
            .environment
            .get("CODEBUILD_BUILD_ID")
            .map_or("", String::as_str);
        let id = id.rsplit(':').next().unwrap_or(id);
        let own = name.unwrap_or_else(|| self.job.project.clone());
        let whole = format!("{}/{id}/{own}", prefix.trim_end_matches('/'));
        Ok(Ok(Some(whole)))
    }

    fn pack(&mut self, found: &artifact::Found) -> Result<(), crate::tree::Error> {
        let to = io::BufWriter::with_capacity(1 << 18, Bytes(&mut self.frames));
        let mut packer = Packer::new(to, self.job.mtime);
        for (name, content) in &found.files {
            match content {
                Content::File(path) => packer.file(name, path)?,
                Content::Link(target) => packer.symlink(name, target)?,
            }
        }
        let (mut to, _) = packer.finish()?;
        to.flush().map_err(crate::tree::Error::Archive)
    }

    fn reports(&mut self) -> io::Result<()> {
        for wanted in self.job.buildspec.reports.clone() {
            self.report(&wanted)?;
        }
        Ok(())
    }

    fn report(&mut self, wanted: &Report) -> io::Result<()> {
        let paths = match self.paths(&wanted.files, wanted.base_directory.as_deref(), &[])? {
            Ok(paths) => paths,
            Err(why) => {
                self.frames.note(format!("Error processing reports: {why}"))?;
                Paths::default()
            }
        };
        let files = Wanted {
            files: &paths.files,
            base_directory: paths.base_directory.as_deref(),
            ..Wanted::default()
        };
        let group = group(&self.job.project, &wanted.group);
        let mut report = report::empty(&group);
        let mut told = 0;
        let found = match artifact::find(Path::new(&self.job.source_directory), &files) {
            Ok(found) if !found.files.is_empty() => found,
            _ => {
                self.frames
                    .note(format!("No report files found for report group {}", wanted.group))?;
                artifact::Found::default()
            }
        };
        for (name, content) in &found.files {
            let Content::File(path) = content else {
                continue;
            };
            match read(wanted, path, &self.mask) {
                Ok(found) => {
                    report::add(&mut report, &found);
                    if let Found::Cases(cases) = found {
                        self.cases(&group, cases, &mut told)?;
                    }
                }
                Err(why) => {
                    let note = format!("Error processing report {}: {why}", name.display());
                    self.frames.note(note)?;
                }
            }
        }
        self.frames.event(&Event::Report(Box::new(report)))
    }

    /// Tells tests one by one, in frames that are not too large.
    fn cases(&mut self, group: &str, mut cases: Vec<Case>, told: &mut usize) -> io::Result<()> {
        cases.truncate(CASES_TOLD.saturating_sub(*told));
        *told += cases.len();
        // A case has two texts of 500 characters, of which JSON may make six bytes each, and a little more.
        const CHUNK: usize = FRAME_BYTES / (2 * 500 * 6 + 200);
        for cases in cases.chunks(CHUNK) {
            self.frames.event(&Event::Cases {
                group: group.to_owned(),
                cases: cases.to_vec(),
            })?;
        }
        Ok(())
    }
}

/// The whole source tree.
fn everything() -> Artifacts {
    Artifacts {
        files: vec!["**/*".to_owned()],
        base_directory: None,
        exclude_paths: Vec::new(),
        discard_paths: false,
        enable_symlinks: true,
        name: None,
        s3_prefix: None,
        secondary: BTreeMap::new(),
    }
}

/// The name of a report group: of a new one `PROJECT-NAME`, of one that is named by its ARN what the ARN says.
fn group(project: &str, name: &str) -> String {
    match name.strip_prefix("arn:").and_then(|arn| arn.rsplit_once('/')) {
        Some((_, own)) => own.to_owned(),
        None => format!("{project}-{name}"),
    }
}

fn read(wanted: &Report, path: &Path, mask: &Mask) -> Result<Found, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(report::FILE_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    report::read(wanted.format, &bytes, mask).map_err(|error| error.to_string())
}

/// The artifact's bytes as frames.
struct Bytes<'a, W: Write>(&'a mut Frames<W>);

impl<W: Write> Write for Bytes<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.artifact(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
