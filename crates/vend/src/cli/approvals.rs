//! Plans, and people's yes or no to them.

use clap::{Args, Subcommand};
use model::{
    Digest,
    wire::{Approval, ApprovalState, NewDecision, PlanAnswer},
};

use super::{
    Client, Failure, Global,
    client::escape,
    now,
    plans::{self, plan_text},
    releases::word,
    target,
};
use crate::output::{Output, Table, Tone, ago, cell, clean, headline};

#[derive(Debug, Subcommand)]
pub enum Approvals {
    /// Show the questions that are open, or all of them.
    List {
        /// TENANT, TENANT/APP or TENANT/APP/ENVIRONMENT
        target: Option<String>,
        /// Closed ones too.
        #[arg(long)]
        all: bool,
    },
    /// Show a question with its plan and its votes.
    Show { id: String },
}

#[derive(Debug, Subcommand)]
pub enum Plans {
    /// Show the plan of an execution.
    Show { execution: String },
}

#[derive(Debug, Args)]
pub struct Approve {
    /// The approval, or TENANT/APP/ENVIRONMENT when one is open there.
    approval: String,
    #[arg(long)]
    why: Option<String>,
    /// The digest of the plan that you looked at; without it, the plan is shown and you are asked.
    #[arg(long)]
    plan: Option<Digest>,
    /// Do not ask: yes to whatever plan it is. Without a terminal, this or --plan is needed.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub struct Reject {
    /// The approval, or TENANT/APP/ENVIRONMENT when one is open there.
    approval: String,
    #[arg(long)]
    why: String,
}

pub async fn approvals(command: &Approvals, global: &Global) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    match command {
        Approvals::List { target, all } => {
            let scope = target::scope(target.as_deref())?;
            let open = if *all { "" } else { "&open=true" };
            let page = client
                .list::<Approval>(&format!("/v1/approvals?{scope}{open}"), 1000)
                .await?;
            if page.items.is_empty() {
                target::known(target.as_deref(), &client).await?;
            }
            output.show(&page, |page| {
                let mut table = Table::new(["APPROVAL", "WHERE", "STATE", "VOTES", "AUTHOR", "ASKED"]);
                for approval in &page.items {
                    table.row([
                        cell(&approval.id),
                        cell(&approval.place),
                        state_cell(approval.state),
                        cell(votes(approval)),
                        cell(headline(&approval.authors.join(", "), 40)),
                        cell(ago(approval.created_at, now())),
                    ]);
                }
                table.render(&output, "nothing waits for an approval")
            });
        }
        Approvals::Show { id } => {
            let approval = find(id, &client).await?;
            output.show(&approval, |approval| approval_text(approval, &output));
        }
    }
    Ok(())
}

pub async fn plans(command: &Plans, global: &Global) -> Result<(), Failure> {
    let Plans::Show { execution } = command;
    let path = format!("/v1/executions/{}/plan", escape(execution));
    let plan: PlanAnswer = global.client()?.get(&path).await?;
    let output = global.output();
    output.show(&plan, |plan| {
        format!("{}digest  {}\n", plan_text(&plan.plan, &output), plan.digest)
    });
    Ok(())
}

pub async fn approve(command: &Approve, global: &Global) -> Result<(), Failure> {
    let open = find(&command.approval, &global.client()?).await?;
    let output = global.output();
    if command.plan.is_none() {
        consent(&open, command.yes, &output)?;
    }
    let decision = NewDecision {
        why: command.why.clone(),
        plan: command.plan,
    };
    decide(&open, "approve", decision, global).await
}

/// Shows the plan, and asks on a terminal whether it is the one that is meant. Nobody else can be asked.
fn consent(approval: &Approval, sure: bool, output: &Output) -> Result<(), Failure> {
    use std::io::{BufRead as _, IsTerminal as _};
    if !output.json {
        output.say(&plan_text(&approval.plan, output));
    }
    if sure {
        return Ok(());
    }
    if output.json || !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nothing was decided")
            .cause("nobody is here to ask whether this is the plan that is meant")
            .next(format!(
                "vend approve {} --plan {}, or --yes for whatever plan it is",
                approval.id, approval.plan_digest
            )));
    }
    output.text(&plans::question(&approval.plan));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    match read.is_ok() && plans::is_yes(&line) {
        true => Ok(()),
        false => Err(Failure::usage("nothing was decided").next(format!(
            "vend approve {0}, or vend reject {0} --why …",
            approval.id
        ))),
    }
}

pub async fn reject(command: &Reject, global: &Global) -> Result<(), Failure> {
    let decision = NewDecision {
        why: Some(command.why.clone()),
        plan: None,
    };
    let open = find(&command.approval, &global.client()?).await?;
    decide(&open, "reject", decision, global).await
}

async fn decide(
    open: &Approval,
    verb: &str,
    mut decision: NewDecision,
    global: &Global,
) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    // Bound to what is there now: if the plan changes meanwhile, the vote is refused.
    decision.plan.get_or_insert(open.plan_digest);
    let path = format!("/v1/approvals/{}/{verb}", open.id);
    let approval: Approval = client.post(&path, &decision).await?;
    output.show(&approval, |approval| {
        let missing = approval.required.saturating_sub(yes(approval));
        match approval.state {
            ApprovalState::Approved => format!(
                "approved {}\nnext: vend executions show {} --follow\n",
                approval.place, approval.execution
            ),
            ApprovalState::Rejected => format!("rejected {}\n", approval.place),
            ApprovalState::Open => {
                format!(
                    "your vote is kept; {missing} more needed for {}\n",
                    approval.place
                )
            }
            state => format!("{}: the approval is {}\n", approval.place, word(&state)),
        }
    });
    Ok(())
}

/// An approval by its id, or the one that is open in an environment.
async fn find(name: &str, client: &Client) -> Result<Approval, Failure> {
    let by_id = async |id: &str| {
        client
            .get::<Approval>(&format!("/v1/approvals/{}", escape(id)))
            .await
    };
    if name.starts_with("a-") && !name.contains('/') {
        return by_id(name).await;
    }
    let scope = target::Target::read(name)?.query();
    let open = client
        .list::<Approval>(&format!("/v1/approvals?{scope}&open=true"), 10)
        .await?;
    match open.items.as_slice() {
        [one] => by_id(one.id.as_str()).await,
        [] => Err(Failure::new(
            super::Exit::NotFound,
            format!("nothing in {name} waits for an approval"),
        )
        .next("vend approvals list")),
        _ => Err(Failure::usage(format!("several approvals are open in {name}"))
            .next("vend approvals list, then name one by its id")),
    }
}

fn yes(approval: &Approval) -> u32 {
    let yes = approval.decisions.iter().filter(|decision| decision.approve);
    u32::try_from(yes.count()).unwrap_or(u32::MAX)
}

fn votes(approval: &Approval) -> String {
    format!("{} of {}", yes(approval), approval.required)
}

fn state_cell(state: ApprovalState) -> (String, Tone) {
    let tone = match state {
        ApprovalState::Open => Tone::Wait,
        ApprovalState::Approved => Tone::Good,
        ApprovalState::Rejected => Tone::Bad,
        ApprovalState::Expired | ApprovalState::Void => Tone::Faint,
    };
    (word(&state), tone)
}

fn approval_text(approval: &Approval, output: &Output) -> String {
    let (state, tone) = state_cell(approval.state);
    let mut text = format!(
        "approval  {}, {}\nwhere     {}\nvotes     {}\nexpires   {}\n",
        approval.id,
        output.tone(tone, &state),
        approval.place,
        votes(approval),
        approval.expires_at,
    );
    if !approval.by.is_empty() {
        text.push_str(&format!("may vote  {}\n", clean(&approval.by.join(", "))));
    }
    for decision in &approval.decisions {
        let word = if decision.approve { "yes" } else { "no" };
        let why = decision
            .why
            .as_deref()
            .map(|why| format!(": {why}"))
            .unwrap_or_default();
        text.push_str(&clean(&format!(
            "{word} by {} at {}{why}",
            decision.by, decision.at
        )));
        text.push('\n');
    }
    text.push_str(&plan_text(&approval.plan, output));
    text.push_str(&format!("digest    {}\n", approval.plan_digest));
    if approval.state == ApprovalState::Open {
        text.push_str(&format!(
            "next: vend approve {0}, or vend reject {0} --why …\n",
            approval.id
        ));
    }
    text
}
