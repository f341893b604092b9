use model::spec::{Buildspec, build::Env};

use super::*;
use crate::build::protocol::{FRAME_BYTES, Frame, read_frame};

/// A build of no commands, which exports this variable.
fn job(name: &str, value: String) -> Job {
    Job {
        buildspec: Buildspec {
            version: Version::V0_2,
            env: Env {
                exported_variables: vec![name.to_owned()],
                ..Env::default()
            },
            phases: Vec::new(),
            artifacts: None,
            reports: Vec::new(),
            cache: Default::default(),
            batch: None,
        },
        variables: BTreeMap::from([(name.to_owned(), value)]),
        secrets: BTreeMap::new(),
        source_directory: "/nowhere".to_owned(),
        keys: Vec::new(),
        project: "shop".to_owned(),
        retried: 0,
        mtime: 0,
    }
}

#[test]
fn a_build_that_cannot_go_on_says_why_as_the_end_of_its_phase() {
    let mut bytes = Vec::new();
    let job = job("BIG", "x".repeat(FRAME_BYTES));
    Runner::new(job, Frames(&mut bytes), Shells::of_none())
        .run()
        .unwrap();
    let mut from = &bytes[..];
    let frames: Vec<Frame> = std::iter::from_fn(|| read_frame(&mut from).unwrap()).collect();
    let [.., Frame::Event(ended), Frame::Event(finished)] = &frames[..] else {
        panic!("{frames:?}");
    };
    let Event::Ended {
        phase,
        status: PhaseStatus::Failed,
        message: Some(why),
    } = ended
    else {
        panic!("{ended:?}");
    };
    assert_eq!(phase, "UPLOAD_ARTIFACTS");
    let said = "CLIENT_ERROR: the variables cannot be exported: an event is too large to be told";
    assert_eq!(why, said);
    let (succeeded, again) = (false, false);
    assert_eq!(finished, &Event::Finished { succeeded, again });
}
