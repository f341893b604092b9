//! Where hosts may stand beside a region's own zones, and why not yet.
//!
//! Source: the service lists of AWS Local Zones, AWS Wavelength and AWS Outposts, as of 2025.

use serde::{Deserialize, Serialize};

use super::{
    Error,
    config::{Engine, Environment, Runtime},
    word::Arn,
};

/// A region's own zones, unless one of these is named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    /// A Local Zone, such as `us-west-2-lax-1a`.
    pub local_zone: Option<String>,
    /// A Wavelength Zone, such as `eu-central-1-wl1-ber-wlz-1`.
    pub wavelength: Option<String>,
    /// The ARN of an Outpost.
    pub outpost: Option<Arn>,
}

/// Refuses machines of a customer's own: they dial a platform, and there is none.
pub(super) fn registered(at: &str, own: &model::spec::Environment) -> Result<(), Error> {
    match own.placement {
        None => Ok(()),
        Some(_) => {
            let why = "registered machines dial the platform that they were joined to, so its own engine deploys to them, not AWS";
            Err(Error::config(at, why.to_owned()))
        }
    }
}

impl Placement {
    /// Says which service an environment wants that is not there. What has all its services is refused too, because
    /// its subnets are not made yet: nothing is placed elsewhere than it was asked for.
    pub(super) fn check(&self, at: &str, wanted: &Environment, engine: Option<Engine>) -> Result<(), Error> {
        let refuse = |key: &str, why: String| Err(Error::config(format!("{at}.placement.{key}"), why));
        let named = [
            ("local_zone", self.local_zone.is_some()),
            ("wavelength", self.wavelength.is_some()),
            ("outpost", self.outpost.is_some()),
        ];
        let mut named = named.iter().filter(|(_, named)| *named).map(|(key, _)| *key);
        let Some(key) = named.next() else {
            return Ok(());
        };
        if let Some(other) = named.next() {
            return refuse(
                other,
                format!("`{key}` is named too: an environment stands in one place"),
            );
        }
        let missing = match key {
            "local_zone" => self.not_in_local_zone(wanted, engine),
            "wavelength" => not_in_wavelength(wanted, engine),
            _ => not_on_outpost(wanted, engine),
        };
        let why = match missing {
            Some(missing) => missing.to_owned(),
            None => "hosts are placed in the zones of a region only; subnets elsewhere are not made yet"
                .to_owned(),
        };
        refuse(key, why)
    }

    fn not_in_local_zone(&self, wanted: &Environment, engine: Option<Engine>) -> Option<&'static str> {
        let los_angeles = self
            .local_zone
            .as_deref()
            .is_some_and(|zone| zone.starts_with("us-west-2-lax-1"));
        match (wanted.runtime, engine) {
            (Runtime::Fargate, _) => Some("Fargate runs in a region's own zones only"),
            (_, Some(Engine::AuroraMysql | Engine::AuroraPostgres)) => {
                Some("Aurora runs in a region's own zones only")
            }
            (_, Some(_)) if !los_angeles => Some("of the Local Zones only Los Angeles has RDS"),
            _ => None,
        }
    }
}

fn not_in_wavelength(wanted: &Environment, engine: Option<Engine>) -> Option<&'static str> {
    match (wanted.runtime, engine) {
        (Runtime::Fargate, _) => Some("Fargate runs in a region's own zones only"),
        (_, Some(_)) => Some("Wavelength Zones have no RDS"),
        _ if wanted.dedicated_balancer => Some(
            "traffic reaches a Wavelength Zone by carrier addresses and weighted DNS, not by a load balancer",
        ),
        _ if wanted.scaling.spot.is_some() => Some("Wavelength Zones have no Spot market"),
        _ => None,
    }
}

fn not_on_outpost(wanted: &Environment, engine: Option<Engine>) -> Option<&'static str> {
    match (wanted.runtime, engine) {
        (Runtime::Fargate, _) => Some("Fargate runs in a region's own zones only"),
        (_, Some(Engine::Mariadb)) => Some("RDS on Outposts has MySQL and PostgreSQL, not MariaDB"),
        (_, Some(Engine::AuroraMysql | Engine::AuroraPostgres)) => Some("RDS on Outposts has no Aurora"),
        _ if wanted.scaling.spot.is_some() => Some("an Outpost has no Spot market: its capacity is bought"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(placement: Placement, wanted: &Environment, engine: Option<Engine>) -> String {
        placement.check("e", wanted, engine).unwrap_err().to_string()
    }

    #[test]
    fn the_reason_is_the_missing_service() {
        let host = Environment::default();
        let fargate = Environment {
            runtime: Runtime::Fargate,
            ..host.clone()
        };
        let lax = || Placement {
            local_zone: Some("us-west-2-lax-1a".into()),
            ..Placement::default()
        };
        let wave = || Placement {
            wavelength: Some("eu-central-1-wl1-ber-wlz-1".into()),
            ..Placement::default()
        };
        let arn = "arn:aws:outposts:eu-central-1:123456789012:outpost/op-0123456789abcdef0";
        let outpost = || Placement {
            outpost: Some(arn.parse().unwrap()),
            ..Placement::default()
        };
        assert!(
            Placement::default()
                .check("e", &host, Some(Engine::Mysql))
                .is_ok()
        );
        assert!(why(lax(), &fargate, None).contains("Fargate"));
        assert!(why(lax(), &host, Some(Engine::AuroraMysql)).contains("Aurora"));
        assert!(why(lax(), &host, Some(Engine::Mysql)).contains("not made yet"));
        assert!(why(wave(), &host, Some(Engine::Mysql)).contains("no RDS"));
        assert!(why(outpost(), &host, Some(Engine::Mariadb)).contains("MariaDB"));
        let both = Placement {
            wavelength: wave().wavelength,
            ..lax()
        };
        assert!(why(both, &host, None).contains("one place"));
    }
}
