//! What to do next about a build that failed, for who sees only this command and no platform.

use model::port::Fault;

use super::BuildArgs;
use crate::cli::Failure;

/// What to do about a failure in the words of this command: what a platform says of pushes, it says of its options.
pub fn next(fault: &Fault, arguments: &BuildArgs) -> Option<String> {
    let limited = |what: &str| fault.message.contains(what);
    let next = match fault.next.as_deref() {
        _ if limited("MiB of memory that it may have") => Some("vend build --local DIR --memory MIB"),
        _ if limited("MiB to its disk)") => Some("vend build --local DIR --disk MIB"),
        _ if limited("to this login") => {
            Some("VEND_REGISTRY_LOGIN=USER:PASSWORD vend build --local DIR --image IMAGE")
        }
        _ if limited("that `pass_rate` asks for") => Some("vend build --local DIR --pass-rate PERCENT"),
        Some("correct the build and push again") => None,
        // There is no vend.yaml to correct.
        Some(next) if arguments.image.is_some() && next.contains("vend.yaml") => {
            Some("vend build --local DIR --image standard, or another base by its name")
        }
        next => next,
    };
    let tree = format!("--local {}", arguments.local.display());
    next.map(|next| next.replace("--local DIR", &tree))
}

/// A failure as this command ends with it.
pub fn told(fault: Fault, next: Option<String>) -> Failure {
    let failure = Failure::failed("the build failed").cause(fault.message);
    match next {
        Some(next) => failure.next(next),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_next_is_of_this_command_and_this_tree() {
        use clap::Parser;
        #[derive(Parser)]
        struct One {
            #[command(flatten)]
            build: BuildArgs,
        }
        let arguments = One::parse_from(["build", "--local", "src/shop"]).build;
        let said = |fault: Fault| next(&fault, &arguments);
        let lacking = said(Fault::customer("x").next("vend build --local DIR --env API_KEY=…"));
        assert_eq!(
            lacking.as_deref(),
            Some("vend build --local src/shop --env API_KEY=…")
        );
        assert_eq!(
            said(Fault::customer("broke").next("correct the build and push again")),
            None
        );
        assert_eq!(
            said(Fault::customer("x").next("vend doctor")).as_deref(),
            Some("vend doctor")
        );
    }
}
