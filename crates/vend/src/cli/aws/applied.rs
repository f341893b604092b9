//! The files from which a push makes the stacks of branches: `vend.yaml` and `aws.toml` as they were applied, beside the
//! pipeline. What a branch's own files say is for releases only, as in every other environment.

use std::path::Path;

use ::aws::synth::File;
use model::Digest;

use super::{Failure, tree::config_path};

/// The files as a build finds them.
pub fn files(dir: &Path, config: Option<&Path>) -> Result<Vec<File>, Failure> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error));
    let path = config_path(dir, config);
    let bad = |cause: String| Failure::usage(format!("{} cannot be read", path.display())).cause(cause);
    let mut config: toml::Table = read(&path)?
        .parse()
        .map_err(|error: toml::de::Error| bad(error.to_string()))?;
    // How people reach an account is not how a build does: it is there.
    let foundations = config.get_mut("foundations").and_then(toml::Value::as_table_mut);
    for (_, foundation) in foundations.into_iter().flatten() {
        if let Some(foundation) = foundation.as_table_mut() {
            foundation.remove("access");
        }
    }
    let file = |path: &str, text: String| File {
        path: path.to_owned(),
        text,
    };
    Ok(vec![
        file("vend.yaml", read(&dir.join("vend.yaml"))?),
        file("aws.toml", config.to_string()),
    ])
}

/// What tells them from others; a part of their place.
pub fn digest(files: &[File]) -> String {
    let digest = Digest::of_parts(files.iter().flat_map(|file| [&file.path, &file.text]));
    digest.hex()[..16].to_owned()
}
