//! Pictures against kept ones (`BLESS=1` keeps new ones), and what must hold for every picture.

use serde_json::{Value, json};

use super::{Drawing, Error, Statuses, Tint, layout::Item};

fn golden(name: &str, text: &str) {
    let path = format!("{}/src/states/draw/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{path}");
}

fn order() -> Value {
    serde_json::from_str(include_str!("golden/order.json")).unwrap()
}

/// Entered, charged in vain, given up.
fn events() -> Vec<Value> {
    let entered = |id: u64, previous: u64, kind: &str, name: &str| {
        json!({ "id": id, "previousEventId": previous, "type": format!("{kind}StateEntered"),
            "stateEnteredEventDetails": { "name": name } })
    };
    let exited = |id: u64, kind: &str, name: &str| {
        json!({ "id": id, "previousEventId": id - 1, "type": format!("{kind}StateExited"),
            "stateExitedEventDetails": { "name": name } })
    };
    let plain = |id: u64, kind: &str| json!({ "id": id, "previousEventId": id - 1, "type": kind });
    vec![
        plain(1, "ExecutionStarted"),
        entered(2, 0, "Pass", "Validate order"),
        exited(3, "Pass", "Validate order"),
        entered(4, 3, "Task", "Charge"),
        plain(5, "TaskScheduled"),
        plain(6, "TaskFailed"),
        exited(7, "Task", "Charge"),
        entered(8, 7, "Fail", "Give up"),
        plain(9, "ExecutionFailed"),
    ]
}

/// As AWS writes it: the branch that failed is aborted after its failure, the other one without.
#[test]
fn the_branch_that_failed_is_told_from_those_that_it_took_along() {
    let entered = |id, previous, kind, name| json!({ "id": id, "previousEventId": previous, "type": kind, "stateEnteredEventDetails": { "name": name } });
    let plain = |id, previous, kind| json!({ "id": id, "previousEventId": previous, "type": kind });
    let statuses = Statuses::read(&[
        plain(1, 0, "ExecutionStarted"),
        entered(2, 0, "ParallelStateEntered", "P"),
        plain(3, 2, "ParallelStateStarted"),
        entered(4, 3, "TaskStateEntered", "F"),
        plain(5, 4, "TaskScheduled"),
        entered(6, 3, "WaitStateEntered", "W"),
        plain(7, 5, "TaskFailed"),
        plain(8, 7, "TaskStateAborted"),
        plain(9, 6, "WaitStateAborted"),
        plain(10, 3, "ParallelStateFailed"),
        plain(11, 10, "ExecutionFailed"),
    ]);
    assert_eq!(
        ["F", "P", "W"].map(|name| statuses.of(name)),
        [Tint::Failed, Tint::Failed, Tint::Aborted]
    );
}

#[test]
fn an_order_as_text_and_as_svg() {
    let drawing = Drawing::of(&order()).unwrap();
    golden(
        "order.txt",
        &drawing.text(&Statuses::default(), |_, text| text.to_owned()),
    );
    golden("order.svg", &drawing.svg(&Statuses::read(&events())));
}

#[test]
fn a_history_tells_how_states_stand() {
    let all = events();
    let tints = |events: &[Value]| {
        let statuses = Statuses::read(events);
        ["Validate order", "Charge", "Give up", "Done"].map(|name| statuses.of(name))
    };
    assert_eq!(
        tints(&all),
        [Tint::Succeeded, Tint::Caught, Tint::Failed, Tint::None]
    );
    assert_eq!(
        tints(&all[..6]),
        [Tint::Succeeded, Tint::Running, Tint::None, Tint::None]
    );
    let mut stopped = all[..5].to_vec();
    stopped.push(json!({ "id": 6, "previousEventId": 0, "type": "ExecutionAborted" }));
    assert_eq!(tints(&stopped)[1], Tint::Aborted);
    assert_eq!(
        Statuses::read(&[json!(1), json!({ "id": 1 })]),
        Statuses::default()
    );
}

#[test]
fn names_cannot_leave_the_svg() {
    let name = "</text><script>alert('&\")\u{1}</script>";
    let definition = json!({ "StartAt": name, "States": { name: { "Type": "<x>", "End": true, "Catch": [
        { "ErrorEquals": ["<b>"], "Next": name },
    ] } } });
    let svg = Drawing::of(&definition).unwrap().svg(&Statuses::default());
    for evil in ["<script", "<b>", "<x>", "alert('", "\u{1}"] {
        assert!(!svg.contains(evil), "{evil}");
    }
    let text = Drawing::of(&definition)
        .unwrap()
        .text(&Statuses::default(), |_, text| text.to_owned());
    assert!(!text.contains('\u{1}'));
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    assert_eq!(Drawing::of(&json!({ "States": {} })).unwrap_err(), Error::Empty);
    assert_eq!(Drawing::of(&json!([])).unwrap_err(), Error::Empty);
    let states: serde_json::Map<_, _> = (0..=super::STATES)
        .map(|at| (format!("S{at}"), json!({})))
        .collect();
    assert_eq!(
        Drawing::of(&json!({ "States": states })).unwrap_err(),
        Error::Large
    );
    let rules: Vec<_> = (0..=super::STATES)
        .map(|at| json!({ "Condition": at.to_string(), "Next": "S" }))
        .collect();
    let choice = json!({ "States": { "S": { "Choices": rules } } });
    assert_eq!(Drawing::of(&choice).unwrap_err(), Error::Large);
}

/// A machine with `count` states and ways that a small generator makes.
fn machine(seed: u64, count: usize) -> Value {
    let mut state = seed;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let states: serde_json::Map<_, _> = (0..count)
        .map(|at| {
            let rules: Vec<_> = (0..next(4)).map(|rule| json!({ "Condition": format!("{rule}"), "Next": format!("S{}", next(count)) })).collect();
            let inner = json!({ "StartAt": "I", "States": { "I": { "Type": "Pass", "End": true } } });
            let mut value = json!({ "Type": "Choice", "Choices": rules, "Default": format!("S{}", next(count)) });
            if next(5) == 0 {
                value = json!({ "Type": "Parallel", "Branches": vec![inner; 1 + next(3)], "Next": format!("S{}", next(count)) });
            }
            (format!("S{at}"), value)
        })
        .collect();
    json!({ "StartAt": "S0", "States": states })
}

#[test]
fn boxes_never_meet_and_nothing_is_outside() {
    for seed in 0..40 {
        let drawing = Drawing::of(&machine(seed, 3 + seed as usize % 20)).unwrap();
        let scene = &drawing.scene;
        let frames: Vec<_> = scene
            .items
            .iter()
            .filter_map(|item| match item {
                Item::Box(frame) => Some(frame),
                _ => None,
            })
            .collect();
        for (at, one) in frames.iter().enumerate() {
            assert!(
                one.x + one.width <= scene.width && one.y + one.height <= scene.height,
                "{seed} {}",
                one.name
            );
            for two in &frames[at + 1..] {
                let apart = one.x + one.width <= two.x
                    || two.x + two.width <= one.x
                    || one.y + one.height <= two.y
                    || two.y + two.height <= one.y;
                let inside = one.x < two.x
                    && two.x + two.width < one.x + one.width
                    && one.y < two.y
                    && two.y + two.height < one.y + one.height;
                assert!(
                    apart || (one.outer && inside),
                    "{seed}: {} and {}",
                    one.name,
                    two.name
                );
            }
        }
        for item in &scene.items {
            if let Item::Line(line) = item {
                assert!(
                    line.points
                        .iter()
                        .all(|(x, y)| *x < scene.width && *y < scene.height),
                    "{seed} {line:?}"
                );
                let level = |pair: &[(usize, usize)]| pair[0].0 == pair[1].0 || pair[0].1 == pair[1].1;
                assert!(line.points.windows(2).all(level), "{seed} {line:?}");
            }
        }
    }
}
