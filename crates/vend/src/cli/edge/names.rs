//! What the load balancer answers for, where it listens beside the listeners that all share, and who waits for a name.

use edge::{Client, OwnSeen};
use model::wire::Name;

use super::{Failure, any, failed};
use crate::{
    cli::{self, Exit, Global},
    output::{Output, Table, Tone, cell},
};

/// Names that are looked at: more than any platform has.
const ALL: usize = 1_000_000;

/// The domains and ports that releases ask for, as far as the platform tells the caller of them. The query narrows it, as in
/// other lists.
pub async fn asked(client: &cli::Client, query: &str) -> Result<Vec<Name>, Failure> {
    let path = format!("/v1/names{query}");
    Ok(client.list(&path, ALL).await?.items)
}

/// Those of this machine's platform that do not lead where they are asked for. There are none where the load balancer runs
/// alone, and what a platform elsewhere says is not about it.
pub async fn waiting(global: &Global) -> Result<Vec<Name>, Failure> {
    if global.url().is_some() {
        return Ok(Vec::new());
    }
    let asked = match asked(&global.client()?, "").await {
        Err(failure) if failure.exit == Exit::Unreachable => Vec::new(),
        asked => asked?,
    };
    Ok(asked.into_iter().filter(|name| name.problem.is_some()).collect())
}

/// Sockets that names have for themselves, or would have.
fn of_names(names: Vec<Name>) -> impl Iterator<Item = OwnSeen> {
    names.into_iter().flat_map(|name| {
        let Name {
            name: host,
            place,
            listeners,
            problem,
            ..
        } = name;
        listeners.into_iter().map(move |listener| OwnSeen {
            address: listener.address,
            speaks: listener.speaks,
            hosts: vec![host.clone()],
            place: place.to_string(),
            problem: problem.clone(),
        })
    })
}

pub async fn names(client: &Client, output: &Output) -> Result<(), Failure> {
    let seen = client.names().await.map_err(failed)?;
    output.show(&seen, |seen| {
        let mut table = Table::new(["NAME", "TYPE", "TTL", "VALUES", "WHY"]);
        for record in seen {
            let answered = !record.kind.is_empty();
            let or_none = |text: String| if answered { text } else { "-".to_owned() };
            table.row([
                cell(&record.name),
                cell(or_none(record.kind.clone())),
                cell(or_none(record.ttl.to_string())),
                cell(or_none(record.values.join(" "))),
                (record.why.clone(), if answered { Tone::Plain } else { Tone::Bad }),
            ]);
        }
        table.render(output, "no names: platform.toml has no `[dns]`")
    });
    Ok(())
}

/// Of the load balancer of this machine, with those who wait for theirs. Of a platform elsewhere a caller sees what the
/// environments ask for that are the caller's to see.
pub async fn sockets(client: &Client, global: &Global, output: &Output) -> Result<(), Failure> {
    let seen = match global.url() {
        Some(_) => of_names(asked(&global.client()?, "").await?).collect(),
        None => {
            let mut seen = client.sockets().await.map_err(failed)?;
            seen.extend(of_names(waiting(global).await?));
            seen
        }
    };
    output.show(&seen, |seen| {
        let mut table = Table::new(["ADDRESS", "SPEAKS", "HOSTS", "WHERE", "PROBLEM"]);
        for socket in seen {
            table.row([
                cell(socket.address),
                cell(&socket.speaks),
                cell(any(&socket.hosts)),
                cell(&socket.place),
                match &socket.problem {
                    Some(problem) => (problem.clone(), Tone::Bad),
                    None => cell("-"),
                },
            ]);
        }
        table.render(output, "no sockets of their own")
    });
    Ok(())
}
