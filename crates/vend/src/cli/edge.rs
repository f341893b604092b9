//! `vend edge`: the load balancer alone, and questions to the one of this machine.

mod config;
mod doors;
mod names;
mod top;

use std::process::ExitCode;

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};
use edge::{Client, ClientError, Explanation, Question};
use model::{
    route::{Action, Rule, Table as Routes, TargetState, Unauthenticated},
    wire::Name,
};
use serde::Serialize;

pub use config::keys;
pub use doors::{access_text, closed_text};
pub use names::asked;

use super::{Exit, Failure, Global};
use crate::{
    config::Data,
    flow::chain,
    output::{Output, Table, Tone, cell},
};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Edge {
    /// Run the load balancer alone, as this file says. Without it, it is started by `vend up` or systemd.
    #[arg(long, value_name = "FILE")]
    pub config: Option<Utf8PathBuf>,
    #[command(subcommand)]
    pub ask: Option<Ask>,
}

#[derive(Debug, Subcommand)]
pub enum Ask {
    /// Show the rules in force, in the order in which they are asked, and the domains and ports for which there is none
    /// because they are another environment's.
    Routes,
    /// Say which rule decides about a request, why, and to which targets it may go.
    Explain {
        /// `https://shop.example.com/cart?id=7`
        // By another name than the option that says where a platform is.
        #[arg(id = "asked", value_name = "URL")]
        url: String,
        #[arg(long, default_value = "GET")]
        method: String,
        /// The client's address.
        #[arg(long, value_name = "ADDRESS")]
        source: Option<std::net::IpAddr>,
        /// `NAME: VALUE`; may be given several times.
        #[arg(long = "header", value_name = "HEADER")]
        headers: Vec<String>,
    },
    /// Show what it does now: requests, codes, times, bytes, connections and targets, by group or by rule. On a terminal
    /// keys change what is first.
    Top(top::Top),
    /// Show the names that the built-in name server answers, and why each is there.
    Names,
    /// Show the sockets that the load balancer opens itself, for domains, ports of apps and listeners that could not be bound
    /// before, and what is wrong with them; and who asks for one that is another environment's. Of a platform elsewhere
    /// (`--url`): what your environments ask for.
    Sockets,
    /// Show the certificates, and what is wrong with them.
    Certificates,
    /// Give visitors a page in the place of an environment, or of all that a tenant has, until it is opened.
    Close(doors::Close),
    /// Give them the app again.
    Open(doors::Open),
    /// Show or say who may ask for anything of a tenant, by their addresses.
    Access(doors::Access),
}

/// Runs the load balancer alone until it is told to stop.
pub async fn alone(file: &Utf8Path, data: &Data, global: &Global) -> ExitCode {
    match config::run(file, data).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&global.output()),
    }
}

pub async fn ask(ask: &Ask, data: &Data, global: &Global) -> ExitCode {
    let client = Client::new(data.edge_socket());
    let output = global.output();
    let answered = match ask {
        Ask::Routes => routes(&client, global, &output).await,
        Ask::Explain {
            url,
            method,
            source,
            headers,
        } => match headers.iter().map(|line| header(line)).collect() {
            Ok(headers) => {
                let question = Question {
                    method: method.to_ascii_uppercase(),
                    url: url.clone(),
                    source: *source,
                    headers,
                };
                explain(&client, &question, global, &output).await
            }
            Err(failure) => Err(failure),
        },
        Ask::Top(wanted) => top::top(&client, wanted, &output).await,
        Ask::Names => names::names(&client, &output).await,
        Ask::Sockets => names::sockets(&client, global, &output).await,
        Ask::Certificates => certificates(&client, &output).await,
        Ask::Close(own) => doors::close(own, global).await,
        Ask::Open(own) => doors::open(own, global).await,
        Ask::Access(own) => doors::access(own, global).await,
    };
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&output),
    }
}

fn header(line: &str) -> Result<(String, String), Failure> {
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| Failure::usage(format!("`{line}` is not a header: NAME: VALUE")))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn failed(error: ClientError) -> Failure {
    match &error {
        ClientError::Unreachable { .. } => Failure {
            cause: Some(chain(&error)),
            next: Some("vend up, or vend edge --config FILE where it runs alone".into()),
            ..Failure::new(
                Exit::Unreachable,
                "the load balancer of this machine cannot be asked",
            )
        },
        ClientError::Refused { message, .. } => Failure::usage(message.clone()),
        _ => Failure::failed(chain(&error)),
    }
}

/// What the load balancer says, and names that lead nowhere.
#[derive(Serialize)]
struct Told<T> {
    #[serde(flatten)]
    said: T,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waiting: Vec<Name>,
}

async fn routes(client: &Client, global: &Global, output: &Output) -> Result<(), Failure> {
    let mut said: Routes = client.table().await.map_err(failed)?;
    said.rules.sort_by_key(|rule| rule.priority);
    let waiting = names::waiting(global).await?;
    output.show(&Told { said, waiting }, |told| {
        let mut table = Table::new(["PRIORITY", "HOSTS", "PATHS", "MORE", "ACTION", "WHERE"]);
        for rule in &told.said.rules {
            table.row([
                cell(rule.priority),
                cell(any(&rule.hosts)),
                cell(any(&rule.paths)),
                cell(more(rule)),
                cell(action(&rule.action)),
                cell(&rule.place),
            ]);
        }
        for name in &told.waiting {
            table.row([
                cell("-"),
                cell(&name.name),
                cell("-"),
                cell("-"),
                (name.problem.clone().unwrap_or_default(), Tone::Bad),
                cell(&name.place),
            ]);
        }
        table.render(output, "no rules")
    });
    Ok(())
}

fn any(values: &[String]) -> String {
    if values.is_empty() {
        "any".into()
    } else {
        values.join(" ")
    }
}

/// Conditions and transforms that have no column.
fn more(rule: &Rule) -> String {
    let asked = &rule.conditions;
    let counts = [
        ("header", asked.headers.len()),
        ("method", asked.methods.len()),
        ("query", asked.queries.len()),
        ("source", asked.sources.len()),
        ("regex", asked.host_regexes.len() + asked.path_regexes.len()),
        (
            "transform",
            [&rule.transforms.host, &rule.transforms.url]
                .into_iter()
                .flatten()
                .count(),
        ),
    ];
    let named: Vec<&str> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, _)| *name)
        .collect();
    if named.is_empty() {
        "-".into()
    } else {
        named.join(" ")
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Forward { groups, .. } => {
            let group = |group: &model::route::Weighted| format!("{}={}", group.group, group.weight);
            groups.iter().map(group).collect::<Vec<_>>().join(" ")
        }
        Action::FixedResponse { status, .. } => format!("answer {status}"),
        Action::Redirect(redirect) => format!(
            "redirect {} {}://{}:{}{}?{}",
            redirect.status,
            redirect.protocol.to_ascii_lowercase(),
            redirect.host,
            redirect.port,
            redirect.path,
            redirect.query
        ),
    }
}

async fn explain(
    client: &Client,
    question: &Question,
    global: &Global,
    output: &Output,
) -> Result<(), Failure> {
    let said = client.explain(question).await.map_err(failed)?;
    let (mut waiting, host) = (names::waiting(global).await?, host(question));
    waiting.retain(|name| name.name == host);
    output.show(&Told { said, waiting }, |told| explained(told, output));
    Ok(())
}

/// The host that the question names, as names are written.
fn host(question: &Question) -> String {
    let mut headers = question.headers.iter();
    let header = headers.rfind(|(name, _)| name.eq_ignore_ascii_case("host"));
    let (_, rest) = question.url.split_once("://").unwrap_or(("", &question.url));
    let named = header.map_or(rest, |(_, value)| value);
    let end = named.find(['/', '?', '#', ':']).unwrap_or(named.len());
    named[..end].trim_end_matches('.').to_ascii_lowercase()
}

fn explained(told: &Told<Explanation>, output: &Output) -> String {
    let (explanation, mut lines) = (&told.said, Vec::new());
    for (priority, condition) in &explanation.passed_over {
        lines.push(format!(
            "rule {priority} is for this host, but its condition on the {condition} does not hold"
        ));
    }
    match &explanation.rule {
        Some(rule) => lines.push(format!(
            "rule {} of {} decides: hosts {}, paths {}: {}",
            rule.priority,
            rule.place,
            any(&rule.hosts),
            any(&rule.paths),
            action(&rule.action)
        )),
        None if explanation.plain => lines.push(
            "it is sent to HTTPS before any rule is asked, because the name has a certificate; \
             `plain_http = true` in `[edge]` of platform.toml has rules asked"
                .into(),
        ),
        None => lines.push("no rule is for this request".into()),
    }
    if let Some(login) = explanation
        .rule
        .as_ref()
        .and_then(|rule| rule.authenticate.as_ref())
    {
        let others = match login.on_unauthenticated {
            Unauthenticated::Authenticate => "are sent there first",
            Unauthenticated::Allow => "are let through without a name",
            Unauthenticated::Deny => "get 401",
        };
        lines.push(format!(
            "people sign in at {}; those who have not {others}",
            login.issuer
        ));
    }
    if let Some(answer) = &explanation.answer {
        lines.push(format!("the client gets {answer}"));
    }
    for (group, share) in &explanation.groups {
        lines.push(format!("{share:.1} % go to the group {group}"));
    }
    if !explanation.groups.is_empty()
        && explanation
            .targets
            .iter()
            .all(|t| t.state != TargetState::Healthy)
    {
        lines.push("no target is healthy: requests go to any of them".into());
    }
    for name in &told.waiting {
        let problem = name.problem.as_deref().unwrap_or_default();
        lines.push(format!("{} asks for {} too: {problem}", name.place, name.name));
    }
    let mut table = Table::new([
        "GROUP", "TARGET", "ADDRESS", "STATE", "WHY", "REQUESTS", "ERRORS", "ACTIVE",
    ]);
    for target in &explanation.targets {
        let state = match target.state {
            TargetState::Healthy => ("healthy".to_owned(), Tone::Good),
            TargetState::Unhealthy => ("unhealthy".to_owned(), Tone::Bad),
            TargetState::Initial => cell("initial"),
            TargetState::Draining => cell("draining"),
        };
        table.row([
            cell(&target.group),
            cell(&target.target.id),
            cell(target.target.address),
            state,
            cell(target.reason.as_deref().unwrap_or("-")),
            cell(target.requests),
            cell(target.errors),
            cell(target.active),
        ]);
    }
    let mut text = lines.join("\n") + "\n";
    if !explanation.targets.is_empty() {
        text += &table.render(output, "");
    }
    text
}

async fn certificates(client: &Client, output: &Output) -> Result<(), Failure> {
    let seen = client.certificates().await.map_err(failed)?;
    output.show(&seen, |seen| {
        let mut table = Table::new(["NAME", "HOSTS", "UNTIL", "PROBLEM"]);
        for certificate in seen {
            table.row([
                cell(&certificate.name),
                cell(any(&certificate.hosts)),
                cell(
                    certificate
                        .until
                        .map_or("-".to_owned(), |until| until.to_string()),
                ),
                match &certificate.problem {
                    Some(problem) => (problem.clone(), Tone::Bad),
                    None => cell("-"),
                },
            ]);
        }
        table.render(output, "no certificates")
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::route::{Target, TargetHealth};

    use super::*;

    #[test]
    fn a_question_is_no_platform() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Whole {
            #[command(flatten)]
            global: Global,
            #[command(flatten)]
            edge: Edge,
        }
        let whole = Whole::try_parse_from(["edge", "explain", "https://shop.test/"]).unwrap();
        assert_eq!(whole.global.url, None);
        let Some(Ask::Explain { url, .. }) = whole.edge.ask else {
            panic!("it is a question");
        };
        assert_eq!(url, "https://shop.test/");
    }

    #[test]
    fn a_question_names_a_host_as_names_are_written() {
        let host = |url: &str, headers: &[(&str, &str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()));
            host(&Question {
                method: "GET".into(),
                url: url.into(),
                source: None,
                headers: headers.collect(),
            })
        };
        assert_eq!(
            host("https://Bank.Example.com:8443/cart", &[]),
            "bank.example.com"
        );
        assert_eq!(host("http://bank.example.com?a=1", &[]), "bank.example.com");
        let header = [("Host", "127.0.0.1"), ("HOST", "bank.example.com.:80")];
        assert_eq!(host("http://127.0.0.1/", &header), "bank.example.com");
    }

    #[test]
    fn that_no_target_is_healthy_is_said() {
        let seen = |state| TargetHealth {
            group: "shop".into(),
            target: Target {
                id: "h-1".into(),
                address: ([127, 0, 0, 1], 80).into(),
            },
            state,
            reason: None,
            requests: 0,
            errors: 0,
            active: 0,
        };
        for (state, said) in [(TargetState::Unhealthy, true), (TargetState::Healthy, false)] {
            let explanation = Explanation {
                rule: None,
                plain: false,
                passed_over: Vec::new(),
                answer: None,
                groups: vec![("shop".into(), 100.0)],
                targets: vec![seen(state)],
            };
            let told = Told {
                said: explanation,
                waiting: Vec::new(),
            };
            let text = explained(&told, &Output::new(false, String::new()));
            assert_eq!(
                text.contains("no target is healthy: requests go to any"),
                said,
                "{text}"
            );
        }
    }
}
