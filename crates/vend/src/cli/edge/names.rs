//! What the load balancer answers for, and where it listens beside the listeners that all share.

use edge::Client;

use super::{Failure, any, failed};
use crate::output::{Output, Table, Tone, cell};

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

pub async fn sockets(client: &Client, output: &Output) -> Result<(), Failure> {
    let seen = client.sockets().await.map_err(failed)?;
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
