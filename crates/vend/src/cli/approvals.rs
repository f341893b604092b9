//! Plans, and people's yes or no to them.

use clap::{Args, Subcommand};
use model::{
    Digest,
    plan::{Change, Plan, PlanKind, Subject},
    wire::{Approval, ApprovalState, NewDecision, PlanAnswer},
};

use super::{
    Client, Failure, Global,
    client::escape,
    now,
    releases::{short, word},
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
    /// The digest of the plan that you looked at; without it, the plan as it is now.
    #[arg(long)]
    plan: Option<Digest>,
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
    let decision = NewDecision {
        why: command.why.clone(),
        plan: command.plan,
    };
    decide(&command.approval, "approve", decision, global).await
}

pub async fn reject(command: &Reject, global: &Global) -> Result<(), Failure> {
    let decision = NewDecision {
        why: Some(command.why.clone()),
        plan: None,
    };
    decide(&command.approval, "reject", decision, global).await
}

async fn decide(name: &str, verb: &str, mut decision: NewDecision, global: &Global) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    let open = find(name, &client).await?;
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

/// A plan as people read it: what, from, to, and then each change.
pub fn plan_text(plan: &Plan, output: &Output) -> String {
    let from = plan
        .from
        .map_or("nothing".to_owned(), |number| format!("v{number}"));
    let what = match plan.kind {
        PlanKind::Release => "release",
        PlanKind::Rollback => "rollback",
        PlanKind::Destroy => "destruction",
    };
    let head = format!("{what} of {}: {from} → v{}", plan.place, plan.to);
    let mut text = format!("{}\n", output.tone(Tone::Strong, &clean(&head)));
    for commit in &plan.commits {
        text.push_str(&format!(
            "  {} {} ({})\n",
            short(&commit.id),
            headline(&commit.message, 70),
            headline(&commit.author, 40)
        ));
    }
    let mut changes: Vec<&Change> = plan.changes.iter().collect();
    changes.sort_by_key(|change| change.subject);
    for change in changes {
        text.push_str(&change_line(change, output));
    }
    if plan.changes.is_empty() {
        text.push_str("  nothing changes\n");
    }
    text
}

fn change_line(change: &Change, output: &Output) -> String {
    let (sign, tone) = match (&change.before, &change.after) {
        (None, _) => ("+", Tone::Good),
        (_, None) => ("-", Tone::Bad),
        _ => ("~", Tone::Wait),
    };
    let shown = |value: &Option<String>| {
        let value = value.as_deref().unwrap_or_default();
        match change.subject {
            Subject::Image | Subject::Revision => value.get(..19).unwrap_or(value).to_owned(),
            _ => headline(value, 60),
        }
    };
    let values = match (&change.before, &change.after) {
        (Some(_), Some(_)) => format!("{} → {}", shown(&change.before), shown(&change.after)),
        (None, after) => shown(after),
        (before, None) => shown(before),
    };
    let line = format!(
        "  {sign} {:<14} {}  {values}",
        word(&change.subject),
        clean(&change.name)
    );
    format!("{}\n", output.tone(tone, line.trim_end()))
}
