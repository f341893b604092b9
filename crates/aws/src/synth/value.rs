//! Values of `aws.toml` that AWS would not take, or that would do something else than they say.

use model::{AppName, spec};

use super::{
    Error,
    config::{Environment, Retention, Runtime, Schedule},
};

/// GiB of the volume that a bake begins with: a host's cannot be smaller than its image.
const IMAGE: u32 = 10;
/// GiB of ECS's own image.
/// Source: "Amazon ECS-optimized Linux AMIs", storage configuration.
const ECS_IMAGE: u32 = 30;
/// GiB of a volume. Source: "Amazon EBS volume types", gp2.
const MAX_DISK: u32 = 16_384;

/// Fields of cron: what they are called, and the numbers that they take.
const FIELDS: [(&str, u32, u32); 5] = [
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
];

/// Refuses days of which there are none. `at`: the foundation.
pub(super) fn retention(at: &str, own: &Retention) -> Result<(), Error> {
    let all = [
        ("logs", own.logs),
        ("artifacts", own.artifacts),
        ("trail", own.trail),
    ];
    match all.iter().find(|(_, days)| *days == 0) {
        None => Ok(()),
        Some((key, _)) => Err(Error::config(
            format!("{at}.retention.{key}"),
            "nothing is kept for 0 days: say 1 or more".to_owned(),
        )),
    }
}

/// Refuses options of an environment that cannot be meant.
pub(super) fn environment(
    app: &AppName,
    own: &spec::Environment,
    options: &Environment,
) -> Result<(), Error> {
    let at = |key: &str| format!("apps.{app}.environments.{}.{key}", own.entry());
    let alarms = &options.alarms;
    for (key, value) in [
        ("errors", alarms.errors),
        ("latency", alarms.latency),
        ("log_errors", alarms.log_errors),
    ] {
        if value == 0 {
            let why = "it would ring always, since 0 is reached when nothing happens: say 1 or more";
            return Err(Error::config(at(&format!("alarms.{key}")), why.to_owned()));
        }
    }
    if options.scaling.requests == Some(0) {
        let why = "no number of hosts gets 0 requests a minute: say 1 or more";
        return Err(Error::config(at("scaling.requests"), why.to_owned()));
    }
    disk(options).map_err(|why| Error::config(at("disk"), why))?;
    for schedule in &options.scaling.schedule {
        scheduled(schedule).map_err(|why| Error::config(at("scaling.schedule"), why))?;
    }
    Ok(())
}

fn disk(options: &Environment) -> Result<(), String> {
    let Some(disk) = options.disk else {
        return Ok(());
    };
    let least = match options.runtime {
        Runtime::Host => IMAGE,
        Runtime::Ec2 => ECS_IMAGE,
        Runtime::Fargate => return Err("containers on Fargate have no disk of this size to say".to_owned()),
    };
    match (least..=MAX_DISK).contains(&disk) {
        true => Ok(()),
        false => Err(format!(
            "{disk} is not from {least}, which the image has, to {MAX_DISK} GiB"
        )),
    }
}

fn scheduled(own: &Schedule) -> Result<(), String> {
    for (text, (name, least, most)) in own.cron.split(' ').zip(FIELDS) {
        let is_out = |number: &&str| {
            let number = number.parse::<u32>();
            number.is_ok_and(|number| !(least..=most).contains(&number))
        };
        // What follows a slash is a step, and what follows a `#` is which week.
        let starts = text.split(',').filter_map(|part| part.split(['/', '#']).next());
        if let Some(number) = starts
            .flat_map(|part| part.split('-'))
            .find(|number| is_out(number))
        {
            return Err(format!(
                "`{}`: {number} is no {name}, which is from {least} to {most}",
                own.cron.escape_debug()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_has_times_that_there_are() {
        let said = |cron: &str| {
            let own = Schedule {
                cron: cron.to_owned(),
                min: 1,
                max: None,
            };
            scheduled(&own).err().unwrap_or_default()
        };
        for good in [
            "0 20 * * 1-5",
            "*/5 0,23 1 12 7",
            "59 23 31 JAN-DEC SUN",
            "0 6 ? * 5#3",
            "0/90 1 * * *",
        ] {
            assert_eq!(said(good), "", "{good}");
        }
        for (bad, why) in [
            ("0 25 * * *", "25 is no hour, which is from 0 to 23"),
            ("60 1 * * *", "60 is no minute"),
            ("0 1-24 * * *", "24 is no hour"),
            ("0 1 0 * *", "0 is no day of the month"),
            ("0 1 * 1,13 *", "13 is no month"),
            ("0 1 * * 8", "8 is no day of the week"),
        ] {
            assert!(said(bad).contains(why), "{bad}: {}", said(bad));
        }
    }
}
