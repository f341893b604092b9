//! How alarms are, and what deployments mind of it.

use clap::{Subcommand, ValueEnum};
use model::{
    alarm::AlarmState,
    wire::{Alarm, Ignoring, NewAlarm},
};

use super::{Failure, Global, access::seconds, client::escape, now, target};
use crate::output::{Output, Table, Tone, ago, cell, clean, headline, maybe};

#[derive(Debug, Subcommand)]
pub enum Alarms {
    /// A tenant's alarms, as they were told.
    List {
        #[arg(env = target::VARIABLE)]
        tenant: String,
    },
    /// Tell how an alarm is: deployments that name it in `deploy.alarms` do not begin while it is in alarm, and go back.
    Set {
        /// TENANT/NAME
        alarm: String,
        #[arg(long, value_enum)]
        state: State,
        /// Why, in a sentence.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let deployments not mind an alarm for a while: the fix must go out while it rings.
    Ignore {
        /// TENANT/NAME
        alarm: String,
        /// For how long, such as 30m or 2h, seven days at most; 0s: they mind it again.
        #[arg(long = "for", value_name = "TIME", value_parser = seconds, default_value = "1h")]
        time: u64,
        #[arg(long)]
        reason: String,
    },
    /// Forget an alarm.
    Remove {
        /// TENANT/NAME
        alarm: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum State {
    Ok,
    Alarm,
}

pub async fn run(command: &Alarms, global: &Global) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    match command {
        Alarms::List { tenant } => {
            let path = format!("/v1/tenants/{}/alarms", target::tenant(Some(tenant))?);
            let page = client.list::<Alarm>(&path, 1000).await?;
            output.show(&page, |page| table(&page.items, &output));
        }
        Alarms::Set { alarm, state, reason } => {
            let new = NewAlarm {
                state: match state {
                    State::Ok => AlarmState::Ok,
                    State::Alarm => AlarmState::Alarm,
                },
                reason: reason.clone(),
            };
            let told: Alarm = client.put(&path_of(alarm)?, &new).await?;
            output.show(&told, |told| format!("{} is {}\n", told.name, told.state.word()));
        }
        Alarms::Ignore { alarm, time, reason } => {
            let wanted = Ignoring {
                for_s: u32::try_from(*time).unwrap_or(u32::MAX),
                reason: reason.clone(),
            };
            let path = format!("{}/ignore", path_of(alarm)?);
            let told: Alarm = client.post(&path, &wanted).await?;
            output.show(&told, |told| match told.ignored_until {
                Some(until) => format!("deployments do not mind {} until {until}\n", told.name),
                None => format!("deployments mind {}\n", told.name),
            });
        }
        Alarms::Remove { alarm } => {
            let removed: () = client.delete(&path_of(alarm)?).await?;
            output.show(&removed, |()| format!("{} is forgotten\n", clean(alarm)));
        }
    }
    Ok(())
}

/// Where the API has `TENANT/NAME`. A name may have slashes of its own.
fn path_of(text: &str) -> Result<String, Failure> {
    let Some((tenant, name)) = text.split_once('/') else {
        return Err(Failure::usage(format!("`{text}` does not name an alarm"))
            .cause("it is written TENANT/NAME")
            .next("vend alarms list TENANT"));
    };
    let tenant = target::tenant(Some(tenant))?;
    Ok(format!("/v1/tenants/{tenant}/alarms/{}", escape(name)))
}

fn table(alarms: &[Alarm], output: &Output) -> String {
    let mut table = Table::new(["ALARM", "STATE", "SINCE", "TOLD", "BY", "IGNORED UNTIL", "WHY"]);
    for alarm in alarms {
        let ignored = alarm.ignored_until.filter(|until| now() < *until);
        let tone = match (alarm.state, ignored) {
            (AlarmState::Ok, _) => Tone::Good,
            (AlarmState::Alarm, Some(_)) => Tone::Wait,
            (AlarmState::Alarm, None) => Tone::Bad,
        };
        table.row([
            cell(&alarm.name),
            (alarm.state.word().to_owned(), tone),
            cell(ago(alarm.since, now())),
            cell(ago(alarm.told_at, now())),
            cell(clean(&alarm.told_by)),
            maybe(ignored.as_ref()),
            maybe(alarm.reason.as_ref().map(|reason| headline(reason, 80))),
        ]);
    }
    table.render(output, "no alarms were told of")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_slashes() {
        assert_eq!(
            path_of("acme/shop/p99 > 1").unwrap(),
            "/v1/tenants/acme/alarms/shop%2Fp99%20%3E%201"
        );
        assert!(path_of("errors").is_err());
        assert!(path_of("../x").is_err());
    }
}
