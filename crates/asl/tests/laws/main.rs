//! Laws that hold for every machine and every course of events.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod generate;

use asl::{Command, Event, Execution, Machine, Step, Timeout, step};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    }
}

fn start(input: Value) -> Event {
    let text = |text: &str| text.to_owned();
    let (id, name, role) = (text("execution"), text("run"), text("role"));
    Event::Start {
        id,
        name,
        input,
        role,
        machine_id: text("machine"),
        machine_name: text("m"),
        seed: [3, 9],
    }
}

/// A journal: what happened, and when.
type Journal = Vec<(Event, Timestamp)>;

/// Lets events happen as `choices` say, and checks each step on the way.
fn live(machine: &Machine, input: Value, choices: &[u32]) -> (Execution, Journal) {
    let mut at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut world = World::default();
    let mut execution = Execution::new();
    let mut journal = Journal::new();
    let mut events = vec![start(input)];
    for choice in std::iter::once(&0).chain(choices) {
        at += SignedDuration::from_secs(i64::from(choice % 7));
        let event = events
            .pop()
            .unwrap_or_else(|| world.next(&execution, *choice, &journal));
        journal.push((event.clone(), at));
        let outcome = step(machine, execution, &event, at);
        world.check(&event, &outcome);
        execution = outcome.execution;
    }
    (execution, journal)
}

/// What an engine would know.
#[derive(Default)]
struct World {
    tasks: BTreeSet<u64>,
    timers: BTreeSet<u64>,
    /// Open Map runs and their open children.
    runs: BTreeMap<u64, BTreeSet<u64>>,
    scheduled: u64,
    history: u64,
}

impl World {
    fn next(&self, execution: &Execution, choice: u32, journal: &Journal) -> Event {
        let pick = |many: usize| (choice / 64) as usize % many.max(1);
        let task = execution
            .open_tasks()
            .nth(pick(self.tasks.len()))
            .map(|open| open.task);
        let timer = execution
            .open_timers()
            .nth(pick(self.timers.len()))
            .map(|open| open.timer);
        let error = |name: &str| Some(name.to_owned());
        if let Some(event) = self.next_of_run(execution, choice) {
            return event;
        }
        match (choice % 16, task, timer) {
            (14, ..) if pick(8) == 0 => Event::Activity {
                resource: "arn:aws:states:local:1:activity:build".into(),
                exists: pick(16) == 0,
            },
            (13, ..) if pick(3) == 0 => Event::Redrive {
                count: execution.redrives() + 1,
            },
            (0, ..) => journal[pick(journal.len())].0.clone(),
            (1, ..) => Event::TaskSucceeded {
                task: u64::from(choice / 64 % 40),
                output: json!(choice),
            },
            (2, ..) => Event::TimerFired {
                timer: u64::from(choice / 64 % 40),
            },
            (3, ..) if pick(20) == 0 => Event::Cancel {
                error: error("Stop"),
                cause: None,
            },
            (3 | 4, Some(task), _) => Event::TaskStarted {
                task,
                worker: error("w"),
            },
            (5 | 6, Some(task), _) => Event::TaskFailed {
                task,
                error: error("Broken"),
                cause: None,
            },
            (7, Some(task), _) if pick(8) == 0 => Event::TaskRefused {
                task,
                cause: "nobody".into(),
            },
            (7, Some(task), _) => Event::TaskTimedOut {
                task,
                kind: Timeout::Heartbeat,
            },
            (8..=12, Some(task), _) => Event::TaskSucceeded {
                task,
                output: json!({ "n": choice % 5 }),
            },
            (_, _, Some(timer)) => Event::TimerFired { timer },
            (_, Some(task), None) => Event::TaskSubmitted {
                task,
                output: json!(1),
            },
            (_, None, None) => Event::TimerFired { timer: 0 },
        }
    }

    /// Something that happens to a Map run, if one is open.
    fn next_of_run(&self, execution: &Execution, choice: u32) -> Option<Event> {
        let run = execution
            .open_runs()
            .next()
            .filter(|_| choice.is_multiple_of(3))?;
        let (task, pick) = (run.task, (choice / 64) as usize);
        Some(match choice / 3 % 8 {
            0 if pick.is_multiple_of(4) => Event::MapRunFailed {
                task,
                error: Some("States.ItemReaderFailed".into()),
                cause: None,
            },
            1 => Event::ChildEnded {
                task: task + 1,
                child: 0,
                items: 1,
                succeeded: true,
            },
            2 => Event::ChildEnded {
                task,
                child: u64::from(choice / 64 % 9),
                items: 1,
                succeeded: true,
            },
            3 => Event::MapRunClosed {
                task,
                output: json!([choice]),
            },
            4 if pick.is_multiple_of(2) => Event::MapRunChanged {
                task,
                most: Some(u64::from(choice / 64 % 4)),
                failures: Some(u64::from(choice / 512 % 3)),
                percentage: None,
            },
            _ if run.children.is_none() && run.redrives > 0 => Event::MapRunReopened {
                task,
                children: u64::from(choice / 64 % 4),
                items: 8,
                failed: u64::from(choice / 512 % 2),
                closes: true,
            },
            _ if run.children.is_none() => Event::MapRunOpened {
                task,
                children: u64::from(choice / 64 % 5),
                items: u64::from(choice / 64 % 5) * 2,
                closes: true,
            },
            _ => match run.open.iter().nth(pick % run.open.len().max(1)) {
                Some(child) => Event::ChildEnded {
                    task,
                    child: *child,
                    items: 2,
                    succeeded: pick % 5 > 0,
                },
                None => Event::MapRunClosed {
                    task,
                    output: json!([choice % 5]),
                },
            },
        })
    }

    fn check(&mut self, event: &Event, outcome: &Step) {
        let (execution, before) = (&outcome.execution, self.history);
        match event {
            Event::TaskSucceeded { task, .. }
            | Event::TaskFailed { task, .. }
            | Event::TaskRefused { task, .. }
            | Event::TaskTimedOut { task, .. } => {
                self.tasks.remove(task);
            }
            Event::TimerFired { timer } => drop(self.timers.remove(timer)),
            Event::ChildEnded { task, child, .. } => {
                if let Some(open) = self.runs.get_mut(task) {
                    open.remove(child);
                }
            }
            Event::MapRunClosed { task, .. } if execution.open_runs().all(|run| run.task != *task) => {
                let open = self.runs.get(task).is_some_and(|open| !open.is_empty());
                assert!(!open, "a run is closed when its children have ended");
                // One that failed is taken back below.
                if !outcome.commands.contains(&Command::CancelTask { task: *task }) {
                    self.runs.remove(task);
                }
            }
            _ => {}
        }
        for command in &outcome.commands {
            match command {
                Command::Schedule { task, .. } => {
                    assert!(*task > self.scheduled, "task numbers are never used again");
                    self.scheduled = *task;
                    self.tasks.insert(*task);
                }
                Command::OpenMapRun { task, .. } => {
                    assert!(*task > self.scheduled, "task numbers are never used again");
                    self.scheduled = *task;
                    self.runs.insert(*task, BTreeSet::new());
                }
                Command::RedriveMapRun { task, .. } => {
                    let was = self.runs.insert(*task, BTreeSet::new());
                    assert!(was.is_none(), "only a run that ended is tried again");
                }
                Command::StartChild { task, child, .. } => {
                    let open = self.runs.get_mut(task).expect("the run of a child is open");
                    assert!(open.insert(*child), "a child is started once");
                }
                Command::StopChildren { task } => assert!(!self.runs[task].is_empty()),
                Command::CloseMapRun { task } => assert!(self.runs[task].is_empty()),
                Command::CancelTask { task } => assert!(
                    self.tasks.remove(task) || self.runs.remove(task).is_some(),
                    "only open tasks are cancelled"
                ),
                Command::StartTimer { timer, .. } => assert!(self.timers.insert(*timer)),
                Command::CancelTimer { timer } => {
                    assert!(self.timers.remove(timer), "only open timers are cancelled")
                }
            }
        }
        for event in &outcome.history {
            self.history += 1;
            assert_eq!(event.id, self.history, "ids have no gaps");
            assert!(event.previous < event.id, "causes come before effects");
        }
        assert_eq!(self.history, execution.history_len());
        let open: BTreeSet<_> = execution.open_tasks().map(|open| open.task).collect();
        assert_eq!(
            open, self.tasks,
            "the engine and the execution agree on open tasks"
        );
        let open: BTreeMap<_, _> = execution
            .open_runs()
            .map(|run| (run.task, run.open.clone()))
            .collect();
        assert_eq!(open, self.runs, "the engine and the execution agree on open runs");
        let open: BTreeSet<_> = execution.open_timers().map(|open| open.timer).collect();
        assert_eq!(
            open, self.timers,
            "the engine and the execution agree on open timers"
        );
        if execution.is_open() {
            assert!(
                !self.tasks.is_empty() || !self.timers.is_empty() || !self.runs.is_empty(),
                "an open execution waits for something"
            );
        } else if before > 0 {
            assert!(
                self.tasks.is_empty() && self.timers.is_empty() && self.runs.is_empty(),
                "an ended execution waits for nothing"
            );
        }
    }
}

fn replay(machine: &Machine, journal: &[(Event, Timestamp)]) -> Execution {
    journal.iter().fold(Execution::new(), |execution, (event, at)| {
        step(machine, execution, event, *at).execution
    })
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn every_prefix_of_a_journal_replays_to_the_same_place(
        definition in generate::either(),
        choices in prop::collection::vec(any::<u32>(), 0..60),
    ) {
        let machine = Machine::parse(&definition.to_string()).unwrap();
        let (end, journal) = live(&machine, json!({"n": 1, "items": [1, 2, 3]}), &choices);
        prop_assert_eq!(&replay(&machine, &journal), &end);
        for cut in 0..journal.len() {
            let resumed = replay(&machine, &journal[..cut]);
            let resumed = journal[cut..].iter().fold(resumed, |execution, (event, at)| step(&machine, execution, event, *at).execution);
            prop_assert_eq!(&resumed, &end, "crashed after {} events", cut);
        }
    }

    #[test]
    fn repeated_and_late_events_change_nothing(
        definition in generate::either(),
        choices in prop::collection::vec(any::<u32>(), 0..60),
    ) {
        let machine = Machine::parse(&definition.to_string()).unwrap();
        let (_, journal) = live(&machine, json!({"n": 1, "items": [1, 2, 3]}), &choices);
        let mut execution = Execution::new();
        for (at, (event, now)) in journal.iter().enumerate() {
            execution = step(&machine, execution, event, *now).execution;
            for (repeated, _) in &journal[..=at] {
                let again = step(&machine, execution.clone(), repeated, *now);
                // An event that came too early the first time may fit by now.
                if again.execution == execution {
                    prop_assert!(again.commands.is_empty() && again.history.is_empty());
                } else {
                    prop_assert_ne!(repeated, event, "an event cannot be applied twice");
                }
            }
        }
    }

    #[test]
    fn a_record_survives_being_written_and_read(
        definition in generate::either(),
        choices in prop::collection::vec(any::<u32>(), 0..60),
        fraction in any::<f64>(),
    ) {
        let machine = Machine::parse(&definition.to_string()).unwrap();
        let (end, journal) = live(&machine, json!({"n": fraction, "items": [null, [fraction], {}]}), &choices);
        let mut execution = Execution::new();
        for (event, at) in &journal {
            let event: Event = serde_json::from_str(&serde_json::to_string(event).unwrap()).unwrap();
            let outcome = step(&machine, execution, &event, *at);
            for command in &outcome.commands {
                let text = serde_json::to_string(command).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Command>(&text).unwrap(), command);
            }
            let text = serde_json::to_string(&outcome.execution).unwrap();
            execution = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&execution, &outcome.execution);
        }
        prop_assert_eq!(execution, end);
    }
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn any_json_is_refused_or_runs(definition in generate::nonsense(), choices in prop::collection::vec(any::<u32>(), 0..20)) {
        if let Ok(machine) = Machine::parse(&definition.to_string()) {
            live(&machine, json!({}), &choices);
        }
    }

    #[test]
    fn a_damaged_definition_is_refused_or_runs(
        definition in generate::either(),
        damage in any::<u32>(),
        nonsense in generate::nonsense(),
        choices in prop::collection::vec(any::<u32>(), 0..20),
    ) {
        let definition = generate::damaged(definition, damage, nonsense);
        match Machine::parse(&definition.to_string()) {
            Ok(machine) => drop(live(&machine, json!({"n": 1, "items": [1]}), &choices)),
            Err(problems) => prop_assert!(!problems.is_empty() && problems.iter().all(|problem| problem.line >= 1)),
        }
    }

    #[test]
    fn any_text_is_refused_or_runs(text in ".{0,60}") {
        drop(Machine::parse(&text));
    }
}

proptest! {
    #![proptest_config(config(200))]

    /// Clocks jump, forwards and backwards: what happens, and in which order, is the same.
    #[test]
    fn a_clock_that_jumps_changes_no_order(
        definition in generate::either(),
        choices in prop::collection::vec(any::<u32>(), 0..60),
        jumps in prop::collection::vec(-100_000_i64..100_000, 64),
    ) {
        let machine = Machine::parse(&definition.to_string()).unwrap();
        let (_, journal) = live(&machine, json!({"n": 1, "items": [1, 2, 3]}), &choices);
        let (mut steady, mut jumping) = (Execution::new(), Execution::new());
        for ((event, at), jump) in journal.iter().zip(jumps.iter().cycle()) {
            let one = step(&machine, steady, event, *at);
            let other = step(&machine, jumping, event, *at + SignedDuration::from_secs(*jump));
            prop_assert_eq!(kinds(&one), kinds(&other));
            (steady, jumping) = (one.execution, other.execution);
        }
        prop_assert_eq!(steady.status(), jumping.status());
    }
}

/// What a step did, without the times.
fn kinds(step: &Step) -> Vec<String> {
    let commands = step.commands.iter().map(|command| match command {
        Command::StartTimer { timer, .. } => format!("timer {timer}"),
        other => format!("{other:?}"),
    });
    let history = step
        .history
        .iter()
        .map(|event| format!("{} after {}", event.kind, event.previous));
    commands.chain(history).collect()
}

/// Laws about machines that never get anywhere would say nothing.
#[test]
fn generated_machines_reach_every_end() {
    let (mut ends, mut longest) = (BTreeSet::new(), 0);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..300 {
        let strategy = (generate::either(), prop::collection::vec(any::<u32>(), 60));
        let (definition, choices) = strategy.new_tree(&mut runner).unwrap().current();
        let machine = Machine::parse(&definition.to_string()).unwrap();
        let (end, _) = live(&machine, json!({"n": 1, "items": [1, 2, 3]}), &choices);
        ends.insert(end.status().as_str());
        longest = longest.max(end.history_len());
    }
    assert!(
        ["SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"]
            .iter()
            .all(|end| ends.contains(end)),
        "{ends:?}"
    );
    assert!(longest > 50, "{longest}");
}

/// The branch beside the run fails again before the run goes on: nobody has heard of that, so nothing is cancelled.
#[test]
fn a_redrive_that_fails_at_once_cancels_no_run() {
    let children = json!({ "StartAt": "Child", "States": { "Child": { "Type": "Pass", "End": true } },
        "ProcessorConfig": { "Mode": "DISTRIBUTED", "ExecutionType": "STANDARD" } });
    let work = json!({ "Type": "Task", "Resource": "arn:aws:states:local:1:activity:build", "Next": "Fail" });
    let map = json!({ "Type": "Map", "ItemProcessor": children, "ItemsPath": "$.items", "End": true });
    let branches = json!([
        { "StartAt": "Work", "States": { "Work": work, "Fail": { "Type": "Fail", "Error": "Broken" } } },
        { "StartAt": "Map", "States": { "Map": map } },
    ]);
    let both = json!({ "Type": "Parallel", "Branches": branches, "End": true });
    let machine = json!({ "StartAt": "Both", "States": { "Both": both } });
    let machine = Machine::parse(&machine.to_string()).unwrap();
    live(
        &machine,
        json!({"n": 1, "items": [1, 2, 3]}),
        &[1137810210, 2139729784, 230302701],
    );
}
