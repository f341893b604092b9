//! A rack of AWS's in a customer's own building: what its owner knows of it and nobody else, and what follows from that.
//!
//! Sources: "Working with Amazon RDS on AWS Outposts", "Application Load Balancers: Outposts", "Local gateway route tables" of the
//! Outposts guide, and CloudFormation's schemas of 2026-10-20; read 2026-11-22.

use serde::{Deserialize, Serialize};

use super::Wanted;
use crate::synth::{
    Error,
    cidr::{Cidr, Onsite},
    config::{Database, Network},
    template::logical,
    word::{Arn, Region},
};

/// An Outpost on which environments may stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outpost {
    /// `arn:aws:outposts:REGION:ACCOUNT:outpost/op-…`
    pub arn: Arn,
    /// The region's zone that it belongs to, such as `eu-central-1a`.
    pub zone: String,
    /// Its local gateway, `lgw-…`.
    pub gateway: String,
    /// The gateway's table of routes, `lgw-rtb-…`, with direct VPC routing. The foundation's network is joined to it.
    pub routes: String,
    /// What is reached by the local gateway, and may reach load balancers there: `192.168.0.0/16`.
    pub local: Vec<Onsite>,
    /// The instance types that the rack has slots for.
    pub sizes: Vec<String>,
    /// What its disks are. Default `gp2`.
    #[serde(default)]
    pub volume: Volume,
    /// A pool of customer-owned addresses. Refused: CloudFormation gives none to subnets or load balancers.
    #[serde(default)]
    pub pool: Option<String>,
}

/// A kind of EBS's disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Volume {
    #[default]
    Gp2,
    /// What newer racks have.
    Gp3,
}

impl Volume {
    pub(in crate::synth) fn word(self) -> &'static str {
        match self {
            Self::Gp2 => "gp2",
            Self::Gp3 => "gp3",
        }
    }
}

/// Outposts of one foundation: so many parts the network has for them.
const MAX_OUTPOSTS: usize = 2;
/// Ranges behind one local gateway, so that a load balancer's rules stay few.
const MAX_LOCAL: usize = 5;
/// What a load balancer's machines are there, two of them at first.
const BALANCERS: [&str; 6] = ["c5", "c5d", "m5", "m5d", "r5", "r5d"];
/// What databases are there.
const DATABASES: [&str; 2] = ["m5", "r5"];
const DATABASE_SIZES: [&str; 6] = ["large", "xlarge", "2xlarge", "4xlarge", "12xlarge", "24xlarge"];

impl Network {
    pub(in crate::synth) fn outpost(&self, arn: &Arn) -> Option<&Outpost> {
        self.outposts.iter().find(|own| own.arn == *arn)
    }
}

impl Outpost {
    /// The beginning of the ids of what is made for it: `Op0123456789abcdef0`.
    pub(in crate::synth) fn id(&self) -> String {
        logical(&[name(&self.arn)])
    }

    /// What the rack has not of what is wanted.
    pub(super) fn lacks(&self, wanted: &Wanted<'_>) -> Option<String> {
        let has = |kind: &str| self.sizes.iter().any(|own| own == kind);
        if let Some(missing) = wanted.types.iter().find(|own| !has(own)) {
            return Some(format!(
                "`{missing}` is none of the `sizes` that the foundation says the Outpost has: give `[sizes]` one of {}",
                self.sizes.join(", ")
            ));
        }
        if !BALANCERS.iter().any(|family| has(&format!("{family}.large"))) {
            return Some(
                "a load balancer there is two machines at first, of `large` of c5, c5d, m5, m5d, r5 or r5d, and the foundation's `sizes` of the \
                 Outpost have none"
                    .to_owned(),
            );
        }
        wanted.engine?;
        let default = Database::default();
        self.lacks_database(wanted.options.database.as_ref().unwrap_or(&default))
    }

    fn lacks_database(&self, own: &Database) -> Option<String> {
        if own.version.is_none() {
            return Some(
                "RDS on Outposts has not every version: say `database.version`, one that `aws rds describe-orderable-db-instance-options` \
                 shows with `OutpostCapable`"
                    .to_owned(),
            );
        }
        let size = own.size.as_deref().unwrap_or(DATABASE);
        let is_class = size
            .split_once('.')
            .is_some_and(|(family, size)| DATABASES.contains(&family) && DATABASE_SIZES.contains(&size));
        if !is_class {
            return Some(format!(
                "RDS on Outposts has `m5` and `r5` from `large` on, not `{}`: say `database.size`",
                size.escape_debug()
            ));
        }
        let is_there = self.sizes.iter().any(|own| own == size);
        (!is_there).then(|| format!("a database of `{size}` takes a slot of it, which the Outpost's `sizes` have not: say `database.size`"))
    }
}

/// What a database there is, when nothing more is said.
pub(in crate::synth) const DATABASE: &str = "m5.large";

/// `op-0123456789abcdef0`
fn name(arn: &Arn) -> &str {
    arn.as_str().rsplit('/').next().unwrap_or_default()
}

/// Refuses Outposts that are none of the region, one that is said twice, and what is no id of theirs.
pub(in crate::synth) fn outposts(
    at: &str,
    region: &Region,
    range: Cidr,
    outposts: &[Outpost],
) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::config(at, why));
    if outposts.len() > MAX_OUTPOSTS {
        return refuse(format!("a foundation has room for {MAX_OUTPOSTS} Outposts"));
    }
    for (n, own) in outposts.iter().enumerate() {
        if let Some(why) = wrong(own, region, range) {
            return refuse(why);
        }
        if outposts[..n].iter().any(|other| other.arn == own.arn) {
            return refuse(format!("`{}` is named twice", own.arn));
        }
    }
    Ok(())
}

fn wrong(own: &Outpost, region: &Region, range: Cidr) -> Option<String> {
    let parts: Vec<&str> = own.arn.as_str().split(':').collect();
    let is_outpost = matches!(parts.as_slice(), ["arn", _, "outposts", there, _, rest]
        if *there == region.as_str() && rest.strip_prefix("outpost/").is_some_and(|rest| is_id(rest, "op-")));
    if !is_outpost {
        return Some(format!("`{}` is no Outpost of {region}", own.arn));
    }
    let letter = own.zone.strip_prefix(region.as_str());
    if !letter.is_some_and(|letter| letter.len() == 1 && letter.bytes().all(|b| b.is_ascii_lowercase())) {
        return Some(format!(
            "`{}` is no zone of {region}, such as `{region}a`",
            own.zone.escape_debug()
        ));
    }
    for (key, id, prefix) in [
        ("gateway", &own.gateway, "lgw-"),
        ("routes", &own.routes, "lgw-rtb-"),
    ] {
        if !is_id(id, prefix) {
            return Some(format!("`{key}` is not `{prefix}…`: `{}`", id.escape_debug()));
        }
    }
    if own.pool.is_some() {
        let why = "CloudFormation gives no subnet and no load balancer an address of a `pool`: let the gateway's table of routes have direct VPC \
                   routing, and leave `pool` out";
        return Some(why.to_owned());
    }
    if own.local.is_empty() || own.local.len() > MAX_LOCAL {
        return Some(format!("`local` has one to {MAX_LOCAL} ranges"));
    }
    if let Some(other) = own.local.iter().find(|local| local.0.overlaps(range)) {
        return Some(format!(
            "`local` has {other}, which overlaps the network's own {range}"
        ));
    }
    own.sizes.is_empty().then(|| {
        format!(
            "`sizes` is empty: `aws outposts get-outpost-instance-types --outpost-id {}` says what the rack has",
            name(&own.arn)
        )
    })
}

/// An id as AWS gives them: 17 digits of base 16 (8 in old ones).
fn is_id(text: &str, prefix: &str) -> bool {
    let digits = text.strip_prefix(prefix).unwrap_or_default();
    (8..=17).contains(&digits.len())
        && digits
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
