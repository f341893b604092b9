//! The configuration of an environment, by key, as `vend.yaml` would write it.

use std::collections::BTreeMap;

use model::{
    AlarmName,
    spec::{
        Alarms, Analysis, Approval, Certificate, Deploy, Domain, Environment, Health, Host, Leads, Migrate,
        MinimumHealthy, Port, Scaling, Steps, Transport, Variable, Zones, written,
    },
};

use super::{
    login,
    traffic::{self, word},
};

/// Everything of the configuration that is not told elsewhere in the plan, by key, as `vend.yaml` would write it. A
/// field that is added to the spec must be put here or left out by name.
pub fn settings(environment: &Environment) -> BTreeMap<String, String> {
    let Environment {
        name: _,
        branch: _,
        image: _,
        build: _,
        deploy,
        host,
        database: _,
        checks,
        approval,
        scaling,
        listeners,
        domains,
        placement,
        sleep_after,
        preview,
        authenticate,
        access,
    } = environment;
    let mut all = BTreeMap::new();
    let mut set = |key: &str, value: String| drop(all.insert(key.to_owned(), value));
    for port in listeners {
        set(
            &format!("listeners.{}-{}", port.protocol, port.port),
            listener(port),
        );
    }
    for domain in domains {
        set(&format!("domains.{}", domain.host), named(domain));
    }
    let Deploy {
        appspec,
        strategy,
        minimum_healthy,
        keep_old,
        drain,
        steps,
        zones,
        migrate,
        ignore_stop_failures,
        alarms,
    } = deploy;
    set("deploy.strategy", strategy.word().to_owned());
    set("deploy.drain", written(*drain));
    if let Some(Steps {
        percent,
        interval,
        analysis,
    }) = steps
    {
        let Analysis {
            errors,
            slower,
            sample,
        } = analysis;
        set("deploy.percent", format!("{percent}%"));
        set("deploy.interval", written(*interval));
        set("deploy.analysis.errors", format!("{errors}%"));
        set("deploy.analysis.slower", format!("{slower}%"));
        set("deploy.analysis.sample", sample.to_string());
    }
    if let Some(zones) = zones {
        set("deploy.zones", zonal(zones));
    }
    if let Some(appspec) = appspec {
        set("deploy.appspec", appspec.to_string());
    }
    set("deploy.minimum_healthy", healthy(*minimum_healthy));
    set("deploy.keep_old", written(*keep_old));
    if let Some(migrate) = migrate {
        set("deploy.migrate", migration(migrate));
    }
    if *ignore_stop_failures {
        set("deploy.ignore_stop_failures", "true".to_owned());
    }
    if let Some(alarms) = alarms {
        set("deploy.alarms", watched(alarms));
    }
    let Host {
        size: _,
        port,
        health,
        traffic,
        env,
    } = host;
    set("host.port", port.to_string());
    for (key, value) in of_health(health) {
        set(key, value);
    }
    for (key, value) in traffic::told(traffic) {
        set(key, value);
    }
    for (key, value) in traffic::let_in(access) {
        set(key, value);
    }
    for (name, variable) in env {
        let text = match variable {
            Variable::Plain(value) => value.clone(),
            Variable::Secret(secret) => format!("{{{{secret:{secret}}}}}"),
        };
        set(&format!("env.{name}"), text);
    }
    for (name, value) in placement.iter().flat_map(|placement| &placement.registered) {
        set(&format!("placement.registered.{name}"), value.clone());
    }
    for (key, value) in authenticate.iter().flat_map(|login| login::told(login)) {
        set(key, value);
    }
    if let Some(after) = sleep_after {
        set("sleep_after", written(*after));
    }
    if let Some(preview) = preview {
        set("branches", preview.to_string());
    }
    if let Some(checks) = checks {
        set("checks", checks.to_string());
    }
    if let Some(approval) = approval {
        set("approval", asked(approval));
    }
    let Scaling { min, max } = scaling;
    set("scaling.min", min.to_string());
    set("scaling.max", max.to_string());
    all
}

/// `errors, latency; each told at least every 5m; unknown ones are ignored`
fn watched(alarms: &Alarms) -> String {
    let Alarms {
        names,
        ignore_unknown,
        stale_after,
    } = alarms;
    let names: Vec<&str> = names.iter().map(AlarmName::as_str).collect();
    let stale = stale_after.map(|stale| format!("; each told at least every {}", written(stale)));
    let unknown = if *ignore_unknown {
        "; unknown ones are ignored"
    } else {
        ""
    };
    format!("{}{}{unknown}", names.join(", "), stale.unwrap_or_default())
}

fn migration(migrate: &Migrate) -> String {
    let user = migrate.runas.as_deref().unwrap_or("root");
    let mark = if migrate.irreversible {
        ", irreversible"
    } else {
        ""
    };
    format!(
        "{} as {user}, at most {}{mark}",
        migrate.script,
        written(migrate.timeout)
    )
}

fn of_health(health: &Health) -> [(&'static str, String); 8] {
    let Health {
        protocol,
        path,
        interval,
        timeout,
        healthy,
        unhealthy,
        codes,
        within,
    } = health;
    let range = |(low, high): &(u16, u16)| match low == high {
        true => low.to_string(),
        false => format!("{low}-{high}"),
    };
    let codes: Vec<String> = codes.iter().map(range).collect();
    [
        ("host.health.protocol", word(protocol)),
        ("host.health.path", path.clone()),
        ("host.health.interval", written(*interval)),
        ("host.health.timeout", written(*timeout)),
        ("host.health.healthy", healthy.to_string()),
        ("host.health.unhealthy", unhealthy.to_string()),
        ("host.health.codes", codes.join(",")),
        ("host.health.within", written(*within)),
    ]
}

fn healthy(minimum: MinimumHealthy) -> String {
    match minimum {
        MinimumHealthy::OneAtATime => "one-at-a-time".into(),
        MinimumHealthy::HalfAtATime => "half-at-a-time".into(),
        MinimumHealthy::AllAtOnce => "all-at-once".into(),
        MinimumHealthy::Percent(percent) => format!("{percent}%"),
        MinimumHealthy::Count(count) => count.to_string(),
    }
}

/// `one after the other, 50% of each healthy, watched 5m, the first 30m`
fn zonal(zones: &Zones) -> String {
    let Zones {
        minimum_healthy,
        monitor,
        first_monitor,
    } = zones;
    format!(
        "one after the other, {} of each healthy, watched {}, the first {}",
        healthy(*minimum_healthy),
        written(*monitor),
        written(*first_monitor)
    )
}

/// `2 of ops@acme.example, cto@acme.example, within 24h`
fn asked(approval: &Approval) -> String {
    let Approval {
        by,
        required,
        author_may_approve,
        expires,
    } = approval;
    let who = match by.is_empty() {
        true => "the approvers".to_owned(),
        false => by.join(", "),
    };
    let author = if *author_may_approve {
        ", the author too"
    } else {
        ""
    };
    format!("{required} of {who}{author}, within {}", written(*expires))
}

fn listener(port: &Port) -> String {
    let mut text = format!("to port {}", port.host_port);
    if port.protocol == Transport::Udp {
        text += &format!(", idle {}", written(port.idle));
    }
    if let Leads::Hosts { ttl } = port.leads {
        text += &format!(", its name leads to hosts for {}", written(ttl));
    }
    text
}

fn named(domain: &Domain) -> String {
    let certificate = match &domain.certificate {
        Certificate::File => "certificate from a file".to_owned(),
        Certificate::Acme => "certificate from the authority".to_owned(),
        Certificate::Vault { chain, key } => format!("certificate from the secrets {chain} and {key}"),
    };
    match domain.dedicated_balancer {
        true => format!("{certificate}, listeners of its own"),
        false => certificate,
    }
}
