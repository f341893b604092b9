//! Where hosts may stand beside a region's own zones, and what is missing there: a table of facts, each with its source.

use serde::{Deserialize, Serialize};

use super::{
    Error,
    config::{Engine, Environment, Network, Runtime},
    size::Architecture,
    word::{Arn, Region},
};

/// A region's own zones, unless one of these is named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    /// A Local Zone, such as `us-west-2-lax-1a`: one of the foundation's `network.local_zones`.
    pub local_zone: Option<String>,
    /// A Wavelength Zone, such as `eu-central-1-wl1-ber-wlz-1`.
    pub wavelength: Option<String>,
    /// The ARN of an Outpost.
    pub outpost: Option<Arn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    LocalZone,
    Wavelength,
    Outpost,
}

impl Place {
    fn key(self) -> &'static str {
        match self {
            Self::LocalZone => "local_zone",
            Self::Wavelength => "wavelength",
            Self::Outpost => "outpost",
        }
    }
}

/// What an environment may want of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Fargate,
    /// On hosts of the environment's own.
    Containers,
    Aurora,
    Mariadb,
    Database,
    Spot,
    Graviton,
    /// More than a name has room for.
    ManyHosts,
    /// To grow with the requests that a load balancer counts.
    Requests,
    /// Names with certificates, and port 80.
    BalancersNames,
    /// The foundation's load balancer.
    SharedBalancer,
    OwnBalancer,
    /// To be there at all.
    Hosts,
}

/// What is not there. The first that is wanted is said.
struct Fact {
    place: Place,
    want: Want,
    why: &'static str,
    /// Where AWS says so, and when that was read.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "people read it, and a test that each fact has one")
    )]
    source: &'static str,
}

const fn fact(place: Place, want: Want, why: &'static str, source: &'static str) -> Fact {
    Fact {
        place,
        want,
        why,
        source,
    }
}

const NO_FARGATE: &str = "Fargate runs in a region's own zones only";

const FACTS: [Fact; 17] = [
    fact(
        Place::LocalZone,
        Want::Fargate,
        NO_FARGATE,
        "ECS developer guide, Local Zones; 2025",
    ),
    fact(
        Place::LocalZone,
        Want::Aurora,
        "Aurora runs in a region's own zones only",
        "features of Local Zones; 2025",
    ),
    fact(
        Place::LocalZone,
        Want::Database,
        "of the Local Zones only Los Angeles has RDS, and none is made there: give the app a database of its own by variables",
        "features of Local Zones; 2025",
    ),
    fact(
        Place::LocalZone,
        Want::SharedBalancer,
        "the foundation's load balancer stands in the region's own zones, and one load balancer cannot stand in zones of two kinds: \
         say `dedicated_balancer = true`",
        "Application Load Balancers, subnets for your load balancer; 2026-11-21",
    ),
    fact(
        Place::Wavelength,
        Want::Fargate,
        NO_FARGATE,
        "VPC user guide, subnets in AWS Wavelength; 2026-11-21",
    ),
    fact(
        Place::Wavelength,
        Want::Containers,
        "a carrier address is a host's, and containers have addresses of their own: say `runtime = \"host\"`",
        "Wavelength developer guide, carrier IP addresses; 2026-11-22",
    ),
    fact(
        Place::Wavelength,
        Want::OwnBalancer,
        "traffic reaches a Wavelength Zone by carrier addresses and weighted DNS, not by a load balancer",
        "AWS Compute Blog, load balancing on AWS Wavelength: not in every Wavelength Zone; 2026-11-21",
    ),
    fact(
        Place::Wavelength,
        Want::BalancersNames,
        "`domains` and `plain_http` are a load balancer's, and there is none: the app answers on its own port by its own name",
        "AWS Compute Blog, load balancing on AWS Wavelength: not in every Wavelength Zone; 2026-11-21",
    ),
    fact(
        Place::Wavelength,
        Want::Requests,
        "`scaling.requests` is counted by a load balancer, and there is none: say `cpu` or `step`",
        "AWS Compute Blog, load balancing on AWS Wavelength: not in every Wavelength Zone; 2026-11-21",
    ),
    fact(
        Place::Wavelength,
        Want::Graviton,
        "Wavelength Zones have no Graviton: give `[sizes]` what is there, such as `t3.medium`",
        "Wavelength developer guide, considerations of Amazon EC2; 2025",
    ),
    fact(
        Place::Wavelength,
        Want::ManyHosts,
        "a name has room for 100 weighted records, and each half may have `scaling.max` of them: 49 hosts at most",
        "Route 53 developer guide, quotas on records; 2026-11-22",
    ),
    fact(
        Place::Wavelength,
        Want::Spot,
        "Wavelength Zones have no Spot market",
        "Wavelength developer guide; 2025",
    ),
    fact(
        Place::Outpost,
        Want::Fargate,
        NO_FARGATE,
        "ECS developer guide, Outposts; 2025",
    ),
    fact(
        Place::Outpost,
        Want::Aurora,
        "RDS on Outposts has no Aurora",
        "RDS user guide, RDS on Outposts; 2025",
    ),
    fact(
        Place::Outpost,
        Want::Mariadb,
        "RDS on Outposts has MySQL and PostgreSQL, not MariaDB",
        "RDS user guide, RDS on Outposts; 2025",
    ),
    fact(
        Place::Outpost,
        Want::Spot,
        "an Outpost has no Spot market: its capacity is bought",
        "Outposts user guide; 2025",
    ),
    fact(
        Place::Outpost,
        Want::Hosts,
        "its sizes, its local gateway and its pool of addresses are the rack's owner's, and there are no keys to say them: use a region's \
         own zones or a Local Zone",
        "Application Load Balancers on Outposts; 2026-11-21",
    ),
];

/// What is asked of a place.
pub(super) struct Wanted<'w> {
    pub options: &'w Environment,
    pub engine: Option<Engine>,
    /// At most so many in a half.
    pub hosts: u32,
    pub types: Architecture,
}

/// Local Zones of one foundation: so many parts the network has for them.
pub(super) const MAX_LOCAL: usize = 4;
/// The same of Wavelength Zones.
const MAX_WAVES: usize = 4;
/// Hosts of a half: both halves', and nobody, have room for theirs in one name of 100 records.
const MAX_HOSTS: u32 = 49;

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

/// Refuses Local Zones that are none of the region, and one that is named twice.
pub(super) fn zones(at: &str, region: &Region, zones: &[String]) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::config(at, why));
    if zones.len() > MAX_LOCAL {
        return refuse(format!("a foundation has room for {MAX_LOCAL} Local Zones"));
    }
    for (n, zone) in zones.iter().enumerate() {
        let rest = zone
            .strip_prefix(region.as_str())
            .and_then(|rest| rest.strip_prefix('-'));
        let is_zone = |rest: &str| {
            let is_part = |part: &str| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            };
            rest.len() <= 20 && rest.split('-').count() == 2 && rest.split('-').all(is_part)
        };
        if !rest.is_some_and(is_zone) {
            return refuse(format!(
                "`{zone}` is no Local Zone of {region}, such as `{region}-xyz-1a`"
            ));
        }
        if zones[..n].contains(zone) {
            return refuse(format!("`{zone}` is named twice"));
        }
    }
    Ok(())
}

/// Refuses Wavelength Zones that are none of the region, and one that is named twice.
pub(super) fn waves(at: &str, region: &Region, zones: &[String]) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::config(at, why));
    if zones.len() > MAX_WAVES {
        return refuse(format!("a foundation has room for {MAX_WAVES} Wavelength Zones"));
    }
    let number = |text: &str, before: &str| {
        let rest = text.strip_prefix(before);
        rest.is_some_and(|rest| {
            !rest.is_empty() && rest.len() < 4 && rest.bytes().all(|b| b.is_ascii_digit())
        })
    };
    for (n, zone) in zones.iter().enumerate() {
        let rest = zone
            .strip_prefix(region.as_str())
            .and_then(|rest| rest.strip_prefix('-'));
        let parts: Vec<&str> = rest.into_iter().flat_map(|rest| rest.split('-')).collect();
        let is_zone = matches!(parts.as_slice(), [group, place, "wlz", last]
            if number(group, "wl") && number(last, "") && place.len() == 3 && place.bytes().all(|b| b.is_ascii_lowercase()));
        if !is_zone {
            return refuse(format!(
                "`{zone}` is no Wavelength Zone of {region}, such as `{region}-wl1-xyz-wlz-1`"
            ));
        }
        if zones[..n].contains(zone) {
            return refuse(format!("`{zone}` is named twice"));
        }
    }
    Ok(())
}

impl Placement {
    /// Says which service an environment wants that is not there: nothing is placed elsewhere than it was asked for.
    pub(super) fn check(&self, at: &str, wanted: &Wanted<'_>, network: &Network) -> Result<(), Error> {
        let refuse = |key: &str, why: String| Err(Error::config(format!("{at}.placement.{key}"), why));
        let named = [
            (Place::LocalZone, self.local_zone.is_some()),
            (Place::Wavelength, self.wavelength.is_some()),
            (Place::Outpost, self.outpost.is_some()),
        ];
        let mut named = named.iter().filter(|(_, named)| *named).map(|(place, _)| *place);
        let Some(place) = named.next() else {
            return Ok(());
        };
        if let Some(other) = named.next() {
            let why = format!(
                "`{}` is named too: an environment stands in one place",
                place.key()
            );
            return refuse(other.key(), why);
        }
        let wants = wants(wanted);
        let mut facts = FACTS.iter().filter(|fact| fact.place == place);
        if let Some(fact) = facts.find(|fact| wants.contains(&fact.want)) {
            return refuse(place.key(), fact.why.to_owned());
        }
        for (place, zone, known, key) in [
            (
                Place::LocalZone,
                &self.local_zone,
                &network.local_zones,
                "local_zones",
            ),
            (
                Place::Wavelength,
                &self.wavelength,
                &network.wavelength_zones,
                "wavelength_zones",
            ),
        ] {
            if let Some(zone) = zone.as_ref().filter(|zone| !known.contains(zone)) {
                let why = format!("`{zone}` is none of the foundation's: add it to `network.{key}` there");
                return refuse(place.key(), why);
            }
        }
        Ok(())
    }
}

fn wants(wanted: &Wanted<'_>) -> Vec<Want> {
    let mut all = vec![Want::Hosts];
    let mut add = |want, is_wanted| all.extend(Some(want).filter(|_| is_wanted));
    let (own, engine) = (wanted.options, wanted.engine);
    add(Want::Fargate, own.runtime == Runtime::Fargate);
    add(Want::Containers, own.runtime == Runtime::Ec2);
    add(
        Want::Aurora,
        matches!(engine, Some(Engine::AuroraMysql | Engine::AuroraPostgres)),
    );
    add(Want::Mariadb, engine == Some(Engine::Mariadb));
    add(Want::Database, engine.is_some());
    add(Want::Spot, own.scaling.spot.is_some());
    add(Want::Requests, own.scaling.requests.is_some());
    add(Want::BalancersNames, own.plain_http || !own.domains.is_empty());
    add(Want::Graviton, wanted.types == Architecture::Arm64);
    add(Want::ManyHosts, wanted.hosts > MAX_HOSTS);
    add(Want::OwnBalancer, own.dedicated_balancer);
    add(Want::SharedBalancer, !own.dedicated_balancer);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(placement: &Placement, wanted: &Environment, engine: Option<Engine>) -> Result<(), Error> {
        let network = Network {
            local_zones: vec!["us-west-2-lax-1a".into()],
            wavelength_zones: vec![WAVE.into()],
            ..Network::default()
        };
        let wanted = Wanted {
            options: wanted,
            engine,
            hosts: 4,
            types: Architecture::X86_64,
        };
        placement.check("e", &wanted, &network)
    }

    const WAVE: &str = "eu-central-1-wl1-ber-wlz-1";

    fn why(placement: &Placement, wanted: &Environment, engine: Option<Engine>) -> String {
        said(placement, wanted, engine).unwrap_err().to_string()
    }

    fn local(zone: &str) -> Placement {
        Placement {
            local_zone: Some(zone.into()),
            ..Placement::default()
        }
    }

    #[test]
    fn the_reason_is_the_missing_service() {
        let host = Environment::default();
        let own = Environment {
            dedicated_balancer: true,
            ..host.clone()
        };
        let fargate = Environment {
            runtime: Runtime::Fargate,
            ..host.clone()
        };
        let lax = local("us-west-2-lax-1a");
        let wave = Placement {
            wavelength: Some(WAVE.into()),
            ..Placement::default()
        };
        let munich = Placement {
            wavelength: Some("eu-central-1-wl1-muc-wlz-1".into()),
            ..Placement::default()
        };
        let counted = Environment {
            plain_http: true,
            ..host.clone()
        };
        let docks = Environment {
            runtime: Runtime::Ec2,
            ..host.clone()
        };
        let arn = "arn:aws:outposts:eu-central-1:123456789012:outpost/op-0123456789abcdef0";
        let outpost = Placement {
            outpost: Some(arn.parse().unwrap()),
            ..Placement::default()
        };
        assert!(said(&Placement::default(), &host, Some(Engine::Mysql)).is_ok());
        assert!(said(&lax, &own, None).is_ok());
        // A database there is one of the region.
        assert!(said(&wave, &host, Some(Engine::Mariadb)).is_ok());
        for (place, wanted, engine, part) in [
            (&lax, &fargate, None, "Fargate"),
            (&lax, &own, Some(Engine::AuroraMysql), "Aurora"),
            (&lax, &own, Some(Engine::Mysql), "Los Angeles"),
            (&lax, &host, None, "dedicated_balancer = true"),
            (&local("us-west-2-den-1a"), &own, None, "network.local_zones"),
            (&wave, &own, None, "weighted DNS"),
            (&wave, &fargate, None, "Fargate"),
            (&wave, &docks, None, "runtime = \"host\""),
            (&wave, &counted, None, "own port"),
            (&munich, &host, None, "network.wavelength_zones"),
            (&outpost, &host, Some(Engine::Mariadb), "MariaDB"),
            (&outpost, &host, None, "pool of addresses"),
        ] {
            let said = why(place, wanted, engine);
            assert!(said.contains(part), "{said}");
        }
        let both = Placement {
            wavelength: wave.wavelength.clone(),
            ..lax
        };
        assert!(why(&both, &host, None).contains("one place"));
    }

    #[test]
    fn a_wavelength_zone_has_no_graviton_and_a_name_has_an_end() {
        let wave = Placement {
            wavelength: Some(WAVE.into()),
            ..Placement::default()
        };
        let network = Network {
            wavelength_zones: vec![WAVE.into()],
            ..Network::default()
        };
        let options = Environment::default();
        let said = |hosts, types| {
            let wanted = Wanted {
                options: &options,
                engine: None,
                hosts,
                types,
            };
            wave.check("e", &wanted, &network)
                .map_err(|error| error.to_string())
        };
        assert_eq!(said(MAX_HOSTS, Architecture::X86_64), Ok(()));
        assert!(said(1, Architecture::Arm64).unwrap_err().contains("no Graviton"));
        assert!(
            said(MAX_HOSTS + 1, Architecture::X86_64)
                .unwrap_err()
                .contains("49 hosts")
        );
    }

    #[test]
    fn wavelength_zones_are_the_regions_own() {
        let region: Region = "eu-central-1".parse().unwrap();
        let told = |all: &[&str]| {
            let all: Vec<String> = all.iter().map(|zone| (*zone).to_owned()).collect();
            waves("f", &region, &all)
        };
        assert!(told(&[WAVE, "eu-central-1-wl1-muc-wlz-1"]).is_ok());
        for bad in [
            "eu-central-1a",
            "us-east-1-wl1-bos-wlz-1",
            "eu-central-1-wl-ber-wlz-1",
            "eu-central-1-wl1-ber-wlz-",
            "eu-central-1-wl1-BER-wlz-1",
            "eu-central-1-wl1-ber-wlz-1-2",
        ] {
            assert!(told(&[bad]).is_err(), "{bad}");
        }
        assert!(told(&[WAVE, WAVE]).is_err());
    }

    #[test]
    fn every_fact_has_its_source_and_its_date_and_is_said_once() {
        for (n, fact) in FACTS.iter().enumerate() {
            let date = fact.source.rsplit("; ").next().unwrap();
            assert!(date.starts_with("202") && fact.source.len() > 15, "{}", fact.why);
            assert!(
                !FACTS[..n]
                    .iter()
                    .any(|other| (other.place, other.want) == (fact.place, fact.want))
            );
        }
    }

    #[test]
    fn local_zones_are_the_regions_own() {
        let region: Region = "us-west-2".parse().unwrap();
        let zones = |all: &[&str]| {
            let all: Vec<String> = all.iter().map(|zone| (*zone).to_owned()).collect();
            zones("f", &region, &all)
        };
        assert!(zones(&["us-west-2-lax-1a", "us-west-2-lax-1b"]).is_ok());
        for bad in [
            "us-west-2a",
            "us-west-2-",
            "us-west-2-lax",
            "eu-west-1-lax-1a",
            "us-west-2-wl1-las-wlz-1",
            "us-west-2-LAX-1a",
        ] {
            assert!(zones(&[bad]).is_err(), "{bad}");
        }
        assert!(zones(&["us-west-2-lax-1a", "us-west-2-lax-1a"]).is_err());
        assert!(
            zones(&[
                "us-west-2-a-1",
                "us-west-2-b-1",
                "us-west-2-c-1",
                "us-west-2-d-1",
                "us-west-2-e-1"
            ])
            .is_err()
        );
    }
}
