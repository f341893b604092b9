//! What services of AWS want of a template beside its words: an order, room, a way to go, and a permission that nobody names.

use crate::matrix::matrix;

/// No repository of Amazon Linux 2023, on which builds run, has it.
#[test]
fn a_bake_fetches_the_plugin_by_which_packer_reaches_its_host() {
    let mut seen = 0;
    for bake in matrix().iter().filter_map(|own| own.template.resource("Bake")) {
        let machine = match bake.properties["Environment"]["Type"].as_str().unwrap() {
            "ARM_CONTAINER" => "linux_arm64",
            _ => "linux_64bit",
        };
        let url = format!(
            "https://s3.amazonaws.com/session-manager-downloads/plugin/latest/{machine}/session-manager-plugin.rpm"
        );
        let text = bake.properties["Source"]["BuildSpec"].as_str().unwrap();
        let words: Vec<&str> = text
            .split_whitespace()
            .filter(|word| word.contains("session-manager-plugin"))
            .collect();
        assert_eq!(words, [url]);
        seen += 1;
    }
    assert!(seen > 3);
}
