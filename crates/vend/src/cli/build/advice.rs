//! What to do next about a build that failed, for who sees only this command and no platform.

use model::port::Fault;

use super::{BuildArgs, given::again};
use crate::cli::Failure;

/// What to do about a failure in the words of this command: what a platform says of pushes, it says of its options.
pub fn next(fault: &Fault, arguments: &BuildArgs) -> Option<String> {
    let limited = |what: &str| fault.message.contains(what);
    let command = again(arguments);
    if limited("MiB of memory that it may have") {
        return Some(format!("{command} --memory MIB"));
    }
    if limited("MiB to its disk)") {
        return Some(format!("{command} --disk MIB"));
    }
    if limited("to this login") {
        return Some(format!(
            "VEND_REGISTRY_LOGIN=USER:PASSWORD {command} --image IMAGE"
        ));
    }
    if limited("that `pass_rate` asks for") {
        return Some(format!("{command} --pass-rate PERCENT"));
    }
    let next = fault.next.as_deref()?;
    // Nobody pushes here.
    let next = next.trim_end_matches("push again").trim_end_matches([' ', ',']);
    let next = next
        .strip_suffix(" and")
        .unwrap_or(next)
        .trim_end_matches([' ', ',']);
    // There is no vend.yaml to correct.
    if next.contains("vend.yaml") {
        let standard = format!("{command} --image standard, or another base by its name");
        return Some(match arguments.image.is_some() {
            true => standard,
            false => "correct `image` of the build in the buildspec".to_owned(),
        });
    }
    // Nor a platform whose operator could be asked.
    let theirs = |part: &str| {
        ["platform.toml", "vend builders"]
            .iter()
            .any(|word| part.contains(word))
    };
    let own = next.split(", or ").filter(|part| !theirs(part));
    let next = own.collect::<Vec<_>>().join(", or ");
    (!["", "correct the build", "push again"].contains(&next.as_str())).then_some(next)
}

/// A failure as this command ends with it.
pub fn told(fault: &Fault, arguments: &BuildArgs) -> Failure {
    let failure = Failure::failed("the build failed").cause(fault.message.clone());
    match next(fault, arguments) {
        Some(next) => failure.next(next),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{super::tests::One, *};

    #[test]
    fn what_to_do_next_is_of_this_command_and_this_tree() {
        let arguments = One::parse_from(["build", "--local", "src/shop"]).build;
        let imaged = One::parse_from(["build", "--local", "src/shop", "--image", "x"]).build;
        let said = |theirs: &str| next(&Fault::customer("x").next(theirs), &arguments);
        for (theirs, ours) in [
            ("correct the build and push again", None),
            (
                "push again, or have more builds run at a time: `at_once` of `[builds]` in platform.toml",
                None,
            ),
            ("vend doctor", Some("vend doctor")),
            (
                "correct the builds' `artifacts` and push again",
                Some("correct the builds' `artifacts`"),
            ),
            (
                "leave less in the builds' `artifacts`, or do without `combine_artifacts`, and push again",
                Some("leave less in the builds' `artifacts`, or do without `combine_artifacts`"),
            ),
            (
                "take the label out of the buildspec, or give it to this machine: `labels` of `[builds]` in platform.toml",
                Some("take the label out of the buildspec"),
            ),
            (
                "take the label out of the buildspec, or have a machine with it join: vend builders invite",
                Some("take the label out of the buildspec"),
            ),
            (
                "correct `image.base`, or `build.image`, in vend.yaml and push again",
                Some("correct `image` of the build in the buildspec"),
            ),
        ] {
            assert_eq!(said(theirs).as_deref(), ours, "{theirs}");
        }
        let image = Fault::customer("x").next("write `base: debian-12` in vend.yaml");
        let told = next(&image, &imaged).unwrap();
        assert!(
            told.starts_with("vend build --local src/shop --image standard"),
            "{told}"
        );
        let memory = Fault::customer("used more than the 1 MiB of memory that it may have");
        let told = next(&memory, &arguments);
        assert_eq!(told.as_deref(), Some("vend build --local src/shop --memory MIB"));
    }
}
