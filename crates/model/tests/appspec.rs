//! Appspecs against what CodeDeploy's agent made of them.

mod common;

use model::spec::Appspec;
use serde_json::Value;

#[test]
fn reads_every_recorded_appspec_as_the_agent_did() {
    let mut cases = 0;
    let mut wrong = Vec::new();
    for part in ["appspec/agent_tests", "appspec/docs", "appspec/repos"] {
        let Some(folder) = common::conformance(part) else {
            return;
        };
        for path in common::files(&folder, &[".yml", ".yaml"]) {
            let whole = path.with_file_name(format!("{}.expected.json", path.file_name().unwrap().to_string_lossy()));
            let expected = if whole.exists() { whole } else { path.with_extension("expected.json") };
            let expected = &common::json(&expected)["result"];
            let text = std::fs::read_to_string(&path).unwrap();
            cases += 1;
            let same = match Appspec::normalise(&text, "appspec.yml") {
                Ok((spec, _)) => spec == expected["spec"],
                Err(problems) => expected["message"] == Value::String(problems[0].message.clone()),
            };
            if !same {
                wrong.push(format!(
                    "{}: {:#?}\nexpected {expected:#}",
                    path.display(),
                    Appspec::normalise(&text, "appspec.yml")
                ));
            }
            assert_eq!(Appspec::parse(&text, "appspec.yml").is_ok(), expected["ok"] == true);
        }
    }
    assert!(wrong.is_empty(), "{} of {cases} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases > 40, "{cases}");
}
