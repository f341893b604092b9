//! What comes out for whole platforms, file by file. `BLESS=1` writes the files anew.

use std::{collections::BTreeMap, fs, path::PathBuf};

use aws::synth::{Config, Priorities, all};
use model::spec;

/// Each case: its name, and the `vend.yaml` of its app.
const CASES: [(&str, &str); 4] = [
    ("guestbook", "../../examples/guestbook/vend.yaml"),
    ("shop", "tests/synth/cases/shop.yaml"),
    ("wave", "tests/synth/cases/wave.yaml"),
    ("rack", "tests/synth/cases/rack.yaml"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files of a case, with the priorities that were given.
pub fn files(name: &str) -> BTreeMap<String, String> {
    let (_, yaml) = CASES.iter().find(|(case, _)| *case == name).unwrap();
    let toml = fs::read_to_string(root().join(format!("tests/synth/cases/{name}.toml"))).unwrap();
    let config: Config = toml::from_str(&toml).unwrap();
    let text = fs::read_to_string(root().join(yaml)).unwrap();
    let (app, _) = spec::App::parse(&text, "vend.yaml", &|_| true).unwrap();
    let mut priorities = Priorities::default();
    let output = all(&config, &app, &mut priorities).unwrap();
    let mut files = BTreeMap::new();
    let tags: BTreeMap<&str, BTreeMap<&str, &str>> = output
        .stacks
        .iter()
        .map(|stack| {
            let tags = stack.tags.iter().map(|(key, value)| (*key, value.as_str()));
            (stack.name.as_str(), tags.collect())
        })
        .collect();
    files.insert(
        "tags.json".into(),
        format!("{:#}\n", serde_json::to_value(&tags).unwrap()),
    );
    for stack in &output.stacks {
        // One flow is like the other.
        if !stack.name.contains("-flow-") || stack.name.ends_with("-production") {
            files.insert(format!("{}.yaml", stack.name), stack.template.yaml());
        }
    }
    for file in output.files {
        // The machines stand in the templates of flows too.
        if !file.path.starts_with("flows/") {
            files.insert(file.path, file.text);
        }
    }
    files.insert(
        "priorities.json".into(),
        format!("{:#}\n", serde_json::to_value(&priorities).unwrap()),
    );
    files
}

/// The files of a directory and of those in it, sorted.
fn below(directory: &std::path::Path, at: &str) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{at}{}", entry.file_name().to_str().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(below(&entry.path(), &format!("{name}/"))),
            false => all.push(name),
        }
    }
    all.sort();
    all
}

#[test]
fn the_files_of_every_case_are_as_they_were() {
    for (name, _) in CASES {
        let directory = root().join("tests/synth/golden").join(name);
        let files = files(name);
        if std::env::var_os("BLESS").is_some() {
            let _ = fs::remove_dir_all(&directory);
            for (path, text) in &files {
                let path = directory.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        }
        // What is not made any more is a difference too.
        let kept: Vec<String> = below(&directory, "");
        let made: Vec<&String> = files.keys().collect();
        assert!(
            kept.iter().eq(made.iter().copied()),
            "{name}: {kept:?} are not the files that are made: {made:?}"
        );
        for (path, text) in &files {
            let kept = fs::read_to_string(directory.join(path)).unwrap_or_default();
            let differs = kept.lines().zip(text.lines()).position(|(a, b)| a != b);
            let line = differs.unwrap_or_else(|| kept.lines().count().min(text.lines().count())) + 1;
            assert!(
                kept == *text,
                "{name}/{path}:{line} is not as it was; `BLESS=1 cargo test -p aws --test synth` writes it anew"
            );
        }
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for (name, _) in CASES {
        assert!(files(name) == files(name), "{name}");
    }
}
