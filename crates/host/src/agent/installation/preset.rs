//! Which units a distribution has enabled when they are installed (`systemd.preset(5)`).

use std::{collections::BTreeMap, fs, path::PathBuf};

use globset::Glob;

use crate::agent::units::{bounded, instance_of};

/// What is named by no file is enabled. A file hides those of its name in later directories; of the lines of all files, in
/// the order of their names, the first that fits counts.
pub fn is_on(directories: &[PathBuf], unit: &str) -> bool {
    let mut files = BTreeMap::new();
    for directory in directories {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "preset") {
                files.entry(entry.file_name()).or_insert(path);
            }
        }
    }
    let texts: Vec<String> = files.values().map(|path| bounded(path)).collect();
    let mut lines = texts.iter().flat_map(|text| text.lines());
    lines.find_map(|line| says(line, unit)).unwrap_or(true)
}

/// What one line says of a unit. Behind a template may stand the instances that are meant.
fn says(line: &str, unit: &str) -> Option<bool> {
    let mut words = line.split_whitespace();
    let on = match words.next()? {
        "enable" => true,
        "disable" => false,
        _ => return None,
    };
    let pattern = Glob::new(words.next()?).ok()?.compile_matcher();
    let instances: Vec<&str> = words.collect();
    let template = instance_of(unit);
    let of_template = template.as_ref().is_some_and(|template| {
        let named = |instance: &&str| unit.contains(&format!("@{instance}."));
        pattern.is_match(template) && (instances.is_empty() || instances.iter().any(named))
    });
    (pattern.is_match(unit) || of_template).then_some(on)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_counts() {
        let root = tempfile::tempdir().unwrap();
        let [etc, lib] = ["etc", "lib"].map(|name| root.path().join(name));
        for (path, text) in [
            ("lib/90-all.preset", "# all\n\nenable a.service\ndisable *\n"),
            ("lib/50-some.preset", "disable b.service\n"),
            (
                "etc/50-some.preset",
                "enable b.*\nenable t@.service one two\nignore c.service\n",
            ),
            ("etc/10-none.conf", "enable c.service\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let directories = [etc, lib];
        for (unit, on) in [
            ("a.service", true),
            ("b.service", true),
            ("c.service", false),
            ("t@one.service", true),
            ("t@three.service", false),
        ] {
            assert_eq!(is_on(&directories, unit), on, "{unit}");
        }
        assert!(is_on(&[], "c.service"), "what nothing is said of is enabled");
    }
}
