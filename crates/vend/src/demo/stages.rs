//! One push through its stages, shown live; and the question that production asks.

use std::{collections::HashMap, io::Write as _, time::Duration};

use model::wire;
use serde_json::json;
use tokio::time::sleep;

use super::{APP, steps::Step, typed};
use crate::{
    cli::{Client, Failure, is_yes, plan_text, question},
    output::{Output, clean, duration},
};

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Who answers a plan, and whether with yes without asking the person before the screen.
pub struct Ask<'a> {
    pub approver: &'a Client,
    pub yes: bool,
}

/// Follows a push (by its number) or an execution (by its id) to its end. `ask`: `None` where no plan asks.
pub async fn follow(client: &Client, step: &Step, what: &str, ask: Option<&Ask<'_>>) -> Result<(), Failure> {
    let id = if what.starts_with("x-") {
        what.to_owned()
    } else {
        execution(client, what).await?
    };
    let mut seen = 0;
    let mut tails: HashMap<String, u64> = HashMap::new();
    let mut entered: HashMap<String, jiff::Timestamp> = HashMap::new();
    let mut asked = false;
    loop {
        let detail: wire::ExecutionDetail = client.get(&format!("/v1/executions/{id}")).await?;
        for event in detail.history.iter().filter(|event| event.id > seen) {
            let Some(state) = &event.state else { continue };
            if event.kind.ends_with("StateEntered") {
                entered.insert(state.clone(), event.at);
                step.now(state);
            } else if event.kind == "TaskStateExited"
                && let Some(since) = entered.get(state)
            {
                step.note(&format!(
                    "{state:<10} {:>8}",
                    duration(event.at.duration_since(*since))
                ));
            }
        }
        seen = detail.history.last().map_or(seen, |event| event.id);
        if detail.execution.state.ended() {
            return ended(&detail.execution);
        }
        if step.is_watched() {
            for log in &detail.logs {
                tail(client, step, log, &mut tails).await?;
            }
        }
        if let (Some(ask), false) = (ask, asked) {
            asked = answer(ask, step, &id).await?;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Shows the newest line of a log while its stage works.
async fn tail(
    client: &Client,
    step: &Step,
    log: &str,
    tails: &mut HashMap<String, u64>,
) -> Result<(), Failure> {
    let offset = tails.get(log).copied().unwrap_or(0);
    let text: wire::LogText = client.get(&format!("/v1/logs/{log}?offset={offset}")).await?;
    tails.insert(log.to_owned(), text.next);
    if let Some(line) = text.text.lines().rev().find(|line| !line.trim().is_empty()) {
        let stage = log.split('/').next().unwrap_or_default();
        step.now(&format!("{stage}: {}", clean(line)));
    }
    Ok(())
}

fn ended(execution: &wire::Execution) -> Result<(), Failure> {
    if execution.state == wire::ExecutionState::Succeeded {
        return Ok(());
    }
    let cause = execution
        .cause
        .clone()
        .or(execution.error.clone())
        .unwrap_or_default();
    Err(Failure::failed(format!("{} of the demo failed", execution.kind)).cause(clean(&cause)))
}

/// The execution that a push gets when its turn has come.
async fn execution(client: &Client, number: &str) -> Result<String, Failure> {
    loop {
        let page: wire::Page<wire::Push> = client.list("/v1/tenants/acme/apps/guestbook/pushes", 50).await?;
        let push = page
            .items
            .into_iter()
            .find(|push| push.number.to_string() == number);
        let push = push.ok_or_else(|| Failure::failed(format!("push {number} is gone")))?;
        match (&push.execution, push.state) {
            (Some(execution), _) => return Ok(execution.to_string()),
            (None, wire::PushState::Waiting) => sleep(LOOK_EVERY).await,
            (None, _) => {
                let reason = push.reason.unwrap_or_default();
                return Err(Failure::failed("the push is not released")
                    .cause(reason)
                    .next(format!("vend why {APP}")));
            }
        }
    }
}

/// Shows the plan that waits for a person and answers it. True once it is answered.
async fn answer(ask: &Ask<'_>, step: &Step, execution: &str) -> Result<bool, Failure> {
    let client = ask.approver;
    let open: wire::Page<wire::Approval> = client.list("/v1/approvals?open=true", 50).await?;
    let Some(approval) = open
        .items
        .into_iter()
        .find(|approval| approval.execution.as_str() == execution)
    else {
        return Ok(false);
    };
    let approval: wire::Approval = client.get(&format!("/v1/approvals/{}", approval.id)).await?;
    for line in plan_text(&approval.plan, &Output::new(false, String::new())).lines() {
        step.note(&format!("plan: {line}"));
    }
    let approved = ask.yes || {
        step.pause(|| {
            let _ = write!(std::io::stdout(), "     {}", question(&approval.plan));
            // A terminal that is gone is found out about when it is read.
            let _ = std::io::stdout().flush();
        });
        typed().await.is_some_and(|line| is_yes(&line))
    };
    let (verb, body) = match approved {
        true => ("approve", json!({})),
        false => ("reject", json!({ "why": "declined in the demo" })),
    };
    let _: serde_json::Value = client
        .post(&format!("/v1/approvals/{}/{verb}", approval.id), &body)
        .await?;
    step.note(if approved {
        "plan: approved"
    } else {
        "plan: rejected"
    });
    Ok(true)
}
