//! What is not there: a table of facts, each with its source.

use model::spec;

use crate::synth::{
    config::{Engine, Environment, Runtime},
    size::Architecture,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    LocalZone,
    Wavelength,
    Outpost,
}

impl Place {
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::LocalZone => "local_zone",
            Self::Wavelength => "wavelength",
            Self::Outpost => "outpost",
        }
    }
}

/// What an environment may want of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
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
    /// Several types of hosts in one group.
    Several,
    /// Hosts that have started once and stand by.
    Warm,
    /// A first disk of more than 30 GiB.
    LargeDisk,
    /// A database that stands twice.
    Twice,
    /// The same host for the same visitor.
    Sticky,
    /// Visitors who have signed in.
    SignIn,
    /// Ports of TCP and UDP of the app's own.
    Ports,
}

/// What is not there. The first that is wanted is said.
pub(super) struct Fact {
    pub place: Place,
    pub want: Want,
    pub why: &'static str,
    /// Where AWS says so, and when that was read.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "people read it, and a test that each fact has one")
    )]
    pub source: &'static str,
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

/// The first that is wanted is said.
pub(super) const FACTS: [Fact; 26] = [
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
        Place::LocalZone,
        Want::Ports,
        "`listeners` want a Network Load Balancer, and that one stands in every Local Zone is written nowhere: an app with ports of its own stands \
         in the region's own zones",
        "features of Local Zones, and the EKS user guide on them, which name the Application Load Balancer; 2026-11-22",
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
        "RDS on Outposts has no Aurora: say `database.engine = \"mysql\"` or `\"postgres\"`",
        "RDS user guide, RDS on Outposts; 2026-11-22",
    ),
    fact(
        Place::Outpost,
        Want::Mariadb,
        "RDS on Outposts has MySQL and PostgreSQL, not MariaDB: say `database.engine = \"mysql\"` or `\"postgres\"`",
        "RDS user guide, RDS on Outposts; 2026-11-22",
    ),
    fact(
        Place::Outpost,
        Want::Twice,
        "the second machine of a database would stand on another Outpost, and an environment stands on one: say `multi_az = false`",
        "RDS user guide, Multi-AZ deployments for RDS on Outposts; 2026-11-22",
    ),
    fact(
        Place::Outpost,
        Want::Spot,
        "an Outpost has no Spot market: its capacity is bought",
        "Outposts user guide; 2025",
    ),
    fact(
        Place::Outpost,
        Want::Warm,
        "an Outpost's capacity is bought, and that hosts may stand by there in a warm pool is written nowhere",
        "EC2 Auto Scaling user guide, warm pools, where Outposts are not named; 2026-11-22",
    ),
    fact(
        Place::Outpost,
        Want::Graviton,
        "Outposts have no Graviton: give `[sizes]` what the rack has, such as `m5.large`",
        "AWS Compute Blog, insulating Outposts workloads from EC2 instance dependencies; 2026-11-22",
    ),
    fact(
        Place::Outpost,
        Want::Several,
        "an Outpost has so many slots of each type, and a group of hosts takes those of one: give `[sizes]` one type",
        "Outposts high availability design, capacity planning; 2026-11-22",
    ),
    fact(
        Place::Outpost,
        Want::LargeDisk,
        "the first disk of a host on an Outpost has 30 GiB at most: say less with `disk`",
        "EC2 user guide, launch instances on an Outpost; 2026-11-22",
    ),
    fact(
        Place::Outpost,
        Want::SharedBalancer,
        "the foundation's load balancer stands in the region's own zones and does not use what stands on an Outpost: say \
         `dedicated_balancer = true`",
        "Application Load Balancers, Outposts; 2026-11-22",
    ),
    fact(
        Place::Outpost,
        Want::Sticky,
        "a load balancer on an Outpost does not send a visitor to the same host again: take `host.traffic.stickiness` away",
        "Application Load Balancers, Outposts; 2026-11-22",
    ),
    fact(
        Place::Outpost,
        Want::SignIn,
        "a load balancer on an Outpost does not ask who somebody is: take `authenticate` away",
        "Application Load Balancers, Outposts; 2026-11-22",
    ),
    fact(
        Place::Outpost,
        Want::Ports,
        "`listeners` want a Network Load Balancer, and not every rack takes one: an app with ports of its own stands in the region's own zones",
        "API reference of Elastic Load Balancing, AvailabilityZone.OutpostId: Application Load Balancers; 2026-11-22",
    ),
];

/// What is asked of a place.
pub(in crate::synth) struct Wanted<'w> {
    pub options: &'w Environment,
    pub spec: &'w spec::Environment,
    pub engine: Option<Engine>,
    /// The types of its hosts, all of one architecture.
    pub types: &'w [String],
    pub architecture: Architecture,
}

/// Hosts of a half: both halves', and nobody, have room for theirs in one name of 100 records.
const MAX_HOSTS: u32 = 49;
/// GiB of an Outpost's first disk.
const MAX_DISK: u32 = 30;

impl Wanted<'_> {
    pub(super) fn all(&self) -> Vec<Want> {
        let (own, spec, engine) = (self.options, self.spec, self.engine);
        let is_twice = own
            .database
            .as_ref()
            .is_some_and(|own| own.multi_az == Some(true));
        let is_aurora = matches!(engine, Some(Engine::AuroraMysql | Engine::AuroraPostgres));
        let wants = [
            (Want::Fargate, own.runtime == Runtime::Fargate),
            (Want::Containers, own.runtime == Runtime::Ec2),
            (Want::Aurora, is_aurora),
            (Want::Mariadb, engine == Some(Engine::Mariadb)),
            (Want::Database, engine.is_some()),
            (Want::Twice, engine.is_some() && is_twice),
            (Want::Spot, own.scaling.spot.is_some()),
            (Want::Warm, own.scaling.warm.is_some()),
            (Want::Requests, own.scaling.requests.is_some()),
            (Want::BalancersNames, own.plain_http || !own.domains.is_empty()),
            (Want::Graviton, self.architecture == Architecture::Arm64),
            (Want::Several, self.types.len() > 1),
            (Want::LargeDisk, own.disk.is_some_and(|gib| gib > MAX_DISK)),
            (Want::ManyHosts, spec.scaling.max > MAX_HOSTS),
            (Want::OwnBalancer, own.dedicated_balancer),
            (Want::SharedBalancer, !own.dedicated_balancer),
            (Want::Sticky, spec.host.traffic.stickiness.is_some()),
            (Want::SignIn, spec.authenticate.is_some()),
            (Want::Ports, !spec.listeners.is_empty()),
        ];
        let wanted = wants.into_iter().filter(|(_, is_wanted)| *is_wanted);
        wanted.map(|(want, _)| want).collect()
    }
}
