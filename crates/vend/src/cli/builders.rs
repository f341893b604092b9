//! Machines that build beside the platform's own.

use clap::Subcommand;
use model::wire::{Builder, Invitation, NewBuilder};

use super::{
    Failure, Global,
    client::escape,
    hosts::{joining, label},
    now,
};
use crate::output::{Output, Table, Tone, ago, cell, clean, headline, maybe};

#[derive(Debug, Subcommand)]
pub enum Builders {
    /// All machines that build, with their labels and what they build.
    List,
    /// Let one machine in that builds for this platform: gives what it runs to join.
    Invite {
        /// What it is beside its `arch` and `os`, such as fleet=big: builds ask for these.
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// Whose builds it gets; of all tenants without it.
        #[arg(long = "tenant", value_name = "TENANT")]
        tenants: Vec<String>,
        /// Minutes until nobody is let in with it any more.
        #[arg(long, value_name = "MINUTES", default_value_t = 60)]
        expires: u32,
    },
    /// Remove a builder: it gets no new build, and once it has none its key is nobody's any more.
    Remove {
        id: String,
        /// Do not wait for its builds: they are given to others, and it is a stranger at once.
        #[arg(long)]
        now: bool,
    },
}

pub async fn run(command: &Builders, global: &Global) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    match command {
        Builders::List => {
            let page = client.list::<Builder>("/v1/builders?", 10_000).await?;
            output.show(&page, |page| table(&page.items, &output));
        }
        Builders::Invite {
            labels,
            tenants,
            expires,
        } => {
            let tenant = |name: &String| {
                name.parse()
                    .map_err(|_| Failure::usage(format!("`{name}` is not the name of a tenant")))
            };
            let new = NewBuilder {
                labels: labels.iter().cloned().collect(),
                tenants: tenants.iter().map(tenant).collect::<Result<_, _>>()?,
                expires_in: Some(expires.saturating_mul(60)),
            };
            let invitation: Invitation = client.post("/v1/builders/invitations", &new).await?;
            output.show(&invitation, |invitation| {
                joining(invitation, "vend agent --builder")
            });
        }
        Builders::Remove { id, now } => {
            let query = if *now { "?now=true" } else { "" };
            let path = format!("/v1/builders/{}{query}", escape(id));
            let builder: Builder = client.delete(&path).await?;
            output.show(&builder, |builder| removed(builder, *now));
        }
    }
    Ok(())
}

fn removed(builder: &Builder, now: bool) -> String {
    let name = clean(&builder.name);
    match builder.builds.len() {
        _ if now => format!("{name} is removed\n"),
        0 => format!("{name} leaves\n"),
        1 => format!("{name} leaves when its build has ended\n"),
        builds => format!("{name} leaves when its {builds} builds have ended\n"),
    }
}

fn table(builders: &[Builder], output: &Output) -> String {
    let mut table = Table::new([
        "BUILDER", "NAME", "STATE", "LABELS", "FOR", "BUILDS", "ADDRESS", "SEEN",
    ]);
    for builder in builders {
        let labels = builder.labels.iter();
        let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value}")).collect();
        let tenants: Vec<String> = builder.tenants.iter().map(ToString::to_string).collect();
        let builds = builder.builds.iter();
        let builds: Vec<String> = builds
            .map(|build| format!("{} #{}", build.place, build.number))
            .collect();
        let tone = match builder.state.as_str() {
            "connected" => Tone::Good,
            "leaving" => Tone::Wait,
            _ => Tone::Bad,
        };
        table.row([
            maybe(builder.id.as_ref()),
            cell(headline(&builder.name, 40)),
            (builder.state.clone(), tone),
            cell(labels.join(" ")),
            cell(match tenants.is_empty() {
                true => "all tenants".to_owned(),
                false => tenants.join(" "),
            }),
            maybe((!builds.is_empty()).then(|| headline(&builds.join(", "), 80))),
            maybe(builder.address.as_ref()),
            match builder.state.as_str() {
                "connected" => cell("now"),
                _ => maybe(builder.seen_at.map(|at| ago(at, now()))),
            },
        ]);
    }
    table.render(output, "")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use model::wire::Building;

    use super::*;

    fn builder(state: &str, builds: u64) -> Builder {
        let place: model::Place = "acme/shop/dev".parse().unwrap();
        let building = |number| Building {
            place: place.clone().into(),
            number,
            started_at: Timestamp::UNIX_EPOCH,
        };
        Builder {
            id: None,
            name: "second".to_owned(),
            labels: Default::default(),
            tenants: Default::default(),
            state: state.to_owned(),
            builds: (1..=builds).map(building).collect(),
            address: None,
            joined_at: None,
            seen_at: Some(Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn one_that_is_removed_says_for_how_many_builds_it_stays() {
        let removed = |builds, now| removed(&builder("leaving", builds), now);
        assert_eq!(removed(0, false), "second leaves\n");
        assert_eq!(removed(1, false), "second leaves when its build has ended\n");
        assert_eq!(removed(2, false), "second leaves when its 2 builds have ended\n");
        assert_eq!(removed(2, true), "second is removed\n");
    }

    #[test]
    fn one_that_is_connected_is_seen_now() {
        let output = Output::new(false, String::new());
        let row = |state| {
            let text = table(&[builder(state, 1)], &output);
            text.lines().last().unwrap().trim_end().to_owned()
        };
        assert!(row("connected").ends_with(" now"), "{}", row("connected"));
        assert!(row("away").ends_with(" d ago"), "{}", row("away"));
    }
}
