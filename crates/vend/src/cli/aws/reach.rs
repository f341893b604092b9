//! How each foundation is reached: with which credentials, and that they are those of its account.

use std::{collections::BTreeMap, sync::Arc};

use ::aws::{
    Client, Machine, Source,
    credentials::Role,
    site::{Found, Site},
    synth::{self, Access, Config},
};

use super::{Exit, Failure, broken};

/// A client for each foundation. Foundations that are reached alike share their credentials. `bound`: where the file names an
/// account, nothing is asked of another.
pub fn sites(config: &Config, profile: Option<&str>, bound: bool) -> BTreeMap<String, Site> {
    let machine = machine();
    let mut sources: BTreeMap<&Access, Arc<Source>> = BTreeMap::new();
    let mut sites = BTreeMap::new();
    for (label, foundation) in &config.foundations {
        let access = &foundation.access;
        let region = foundation.region.as_str();
        let source = sources.entry(access).or_insert_with(|| {
            let own = access.profile.as_deref().or(profile).map(str::to_owned);
            let chain = Source::chain(machine.clone(), own);
            let Some(arn) = &access.role else {
                return Arc::new(chain);
            };
            let role = Role {
                arn: arn.to_string(),
                external_id: access.external_id.clone(),
                ..Role::default()
            };
            let base = Client::new(machine.clone(), Arc::new(chain), region);
            Arc::new(Source::role(base, role))
        });
        let client = Client::new(machine.clone(), Arc::clone(source), region);
        let client = match foundation.account.as_ref().filter(|_| bound) {
            Some(account) => client.bound(account.as_str()),
            None => client,
        };
        sites.insert(label.to_string(), Site::new(client));
    }
    sites
}

fn machine() -> Machine {
    Machine {
        variable: Arc::new(|name| std::env::var(name).ok()),
        now: crate::clock::now,
        bits: crate::clock::bits,
    }
}

/// Refuses credentials of another account than the one that the file gives to this foundation, or to one that is reached
/// alike. Stacks that are there say whose they are; where there is none, STS is asked.
pub async fn refuse_account(
    config: &Config,
    label: &synth::Label,
    site: &Site,
    there: &[Found],
) -> Result<(), Failure> {
    let access = config.foundations.get(label).map(|own| &own.access);
    let alike = config
        .foundations
        .iter()
        .filter(|(_, own)| Some(&own.access) == access);
    let wanted: Vec<_> = alike
        .filter_map(|(label, own)| Some((label, own.account.as_ref()?)))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let told = there.iter().find_map(|found| found.stack.id.split(':').nth(4));
    let account = match told {
        Some(account) => account.to_owned(),
        None => site.caller().await.map_err(broken)?.account.clone(),
    };
    let Some((label, wanted)) = wanted.iter().find(|(_, own)| own.as_str() != account) else {
        return Ok(());
    };
    let what = format!("these are credentials of the account {account}, and nothing was done");
    Err(Failure::new(Exit::Refused, what)
        .cause(format!(
            "`account` of the foundation `{label}` is {wanted}"
        ))
        .next("another --profile or AWS_PROFILE, or `access` of the foundation: vend aws doctor, with the same files"))
}
