//! The grammar of `vend.yaml`, as a table: the parser and the JSON Schema are both read off it, so they cannot differ.

mod balancer;

use balancer::{ACCESS, AUTHENTICATE, DOMAIN, HEALTH, LISTENER, TRAFFIC};

/// A mapping of the file with the keys that may stand in it.
pub(super) struct Section {
    pub keys: &'static [Key],
}

pub(super) struct Key {
    pub name: &'static str,
    /// What it is for; becomes the description in the schema.
    pub about: &'static str,
    pub kind: Kind,
}

pub(super) enum Kind {
    Text,
    /// Text that may be a number or a boolean to YAML: taken as it is written.
    Branch,
    Path,
    Paths,
    Number(u64, u64),
    Flag,
    Duration,
    Percent,
    /// A percentage that may be more than 100.
    Slower,
    Word(&'static [&'static str]),
    /// A word, or such a mapping in its place.
    WordOr(&'static [&'static str], &'static Section),
    /// A [`super::Base`].
    Base,
    /// Only `embedded` so far.
    Engine,
    MinimumHealthy,
    /// A percentage or a number of hosts.
    Healthy,
    Codes,
    Variables,
    Texts,
    Section(&'static Section),
    /// A list of such mappings.
    List(&'static Section),
    Environments,
    /// Known and refused: not built yet.
    Later,
}

const fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, about, kind }
}

const fn later(name: &'static str) -> Key {
    key(name, Kind::Later, "Not available yet.")
}

/// The keys that an environment may override, which are also the top level's.
macro_rules! shared {
    ($($extra:expr),* $(,)?) => {
        &[
            $($extra,)*
            key("engine", Kind::Engine, "Where it runs: `embedded`, on the platform's own machine."),
            key("image", Kind::Section(&IMAGE), "The root file system that hosts start from."),
            key("build", Kind::Section(&BUILD), "How the source becomes what is deployed."),
            key("deploy", Kind::Section(&DEPLOY), "How a release is put on hosts."),
            key("host", Kind::Section(&HOST), "What a host is like."),
            key("database", Kind::Section(&DATABASE), "A database of the environment's own."),
            key("checks", Kind::Path, "Path of the goss file: what must hold on a host before it gets traffic."),
            key("approval", Kind::Section(&APPROVAL), "Who must say yes before a release goes on."),
            key("scaling", Kind::Section(&SCALING), "How many hosts."),
            key("listeners", Kind::List(&LISTENER), "TCP and UDP ports of the app, beside its HTTP."),
            key("domains", Kind::List(&DOMAIN), "Names of its own under which it is reached."),
            key("authenticate", Kind::Section(&AUTHENTICATE), "Who must have signed in before a request reaches the app, as ALB's `authenticate-oidc`."),
            key("access", Kind::Section(&ACCESS), "Who may ask, by their addresses. Others get 403; connections and datagrams of theirs have no answer."),
            later("tests"),
            later("notify"),
            later("runtime"),
            key("placement", Kind::Section(&PLACEMENT), "Where releases are deployed, when not on hosts of the platform."),
        ]
    };
}

pub(super) static TOP: Section = Section {
    keys: shared![
        key(
            "app",
            Kind::Text,
            "The app's name: a DNS label of at most 40 characters."
        ),
        key(
            "environments",
            Kind::Environments,
            "The stages of the app. Each may override any key above."
        ),
        later("include"),
    ],
};

pub(super) static ENVIRONMENT: Section = Section {
    keys: shared![
        key(
            "branch",
            Kind::Branch,
            "The branch whose pushes go here. Default: the environment's own name, `main` for `production`."
        ),
        key(
            "branches",
            Kind::Texts,
            "In the place of `branch`: patterns, `*` for any characters but `/` and `**` for all. Each branch that fits has an environment of its own, called after it, which comes with the first push and goes with the branch."
        ),
        key(
            "expires",
            Kind::Duration,
            "With `branches`: an environment goes when nothing was pushed to it for so long. Default `7d`, at most `90d`."
        ),
        key(
            "limit",
            Kind::Number(1, 50),
            "With `branches`: so many environments are there at the same time. Default 5."
        ),
        key(
            "sleep_after",
            Kind::Duration,
            "Its hosts are stopped when nobody has asked for it for so long, 10 s at least, and started by the next request. It never sleeps by default.",
        ),
    ],
};

static IMAGE: Section = Section {
    keys: &[
        key(
            "base",
            Kind::Base,
            "What the image stands on: a base of the platform, `oci:REGISTRY/NAME:TAG`, or of the source tree `layout:PATH` or `tar:PATH`. Default `debian-12`.",
        ),
        key(
            "login",
            Kind::Text,
            "`{{secret:NAME}}`: what the base's registry is asked with, `USER:PASSWORD` or a token alone.",
        ),
        key(
            "refresh",
            Kind::Word(&["manual", "release", "automatic"]),
            "When the base has become another one: only show it, make the release again as after a push (approvals included), or make it again without asking. Default `release`.",
        ),
        key("scripts", Kind::Paths, "Run as root in the image, in this order."),
        key(
            "inputs",
            Kind::Paths,
            "Globs of the files that the scripts see; the image is baked again only when one of them changes.",
        ),
    ],
};

static BUILD: Section = Section {
    keys: &[
        key(
            "buildspec",
            Kind::Path,
            "Default `buildspec.yml`, if the file is there.",
        ),
        key(
            "timeout",
            Kind::Duration,
            "Of one build, from when its commands begin. Default `1h`, at most `36h`.",
        ),
        key(
            "pass_rate",
            Kind::Percent,
            "The share of tests that must pass. Default 100 %.",
        ),
        key(
            "coverage",
            Kind::Percent,
            "The share of lines that tests must reach, as the reports tell it; of a batch all of them together. Nobody asks by default.",
        ),
        key(
            "image",
            Kind::Text,
            "What builds run in: `standard` (default), a base by its name, or an image of a registry, `oci:REGISTRY/NAME:TAG`.",
        ),
        key(
            "login",
            Kind::Text,
            "`{{secret:NAME}}`: what the registry of `image` is asked with, and no other, `USER:PASSWORD` or a token alone.",
        ),
        key(
            "batch",
            Kind::Flag,
            "Run the builds of the buildspec's `batch`, rather than one build of the whole.",
        ),
        key(
            "combine_artifacts",
            Kind::Flag,
            "The revision is what all builds of the batch leave, and not what the last of them does.",
        ),
        key(
            "batch_timeout",
            Kind::Duration,
            "How long all builds of a batch may take together, with what they wait for; `timeout` is each one's own. Default `8h`, at most `36h`.",
        ),
        key(
            "env",
            Kind::Variables,
            "Environment variables of builds, in the place of the buildspec's of the same names. `{{secret:NAME}}` is the value of a secret.",
        ),
        later("cache"),
    ],
};

static DEPLOY: Section = Section {
    keys: &[
        key(
            "appspec",
            Kind::Path,
            "Default `appspec.yml`, if the file is there; else a `Procfile` is needed.",
        ),
        key(
            "strategy",
            Kind::Word(&["blue-green", "in-place", "canary", "linear"]),
            "`blue-green` (default): new hosts beside the old ones, then the traffic moves. `in-place`: on the hosts that are there, some at a time. `canary`: a share of the traffic first, then all. `linear`: a share more with every step.",
        ),
        key(
            "minimum_healthy",
            Kind::MinimumHealthy,
            "`one-at-a-time` (default), `half-at-a-time`, `all-at-once`, a percentage, or a number of hosts.",
        ),
        key(
            "ignore_stop_failures",
            Kind::Flag,
            "Where a script of the revision before fails (`ApplicationStop`, `BeforeBlockTraffic`, `AfterBlockTraffic`), the deployment goes on: for the release that is to replace one that cannot be stopped.",
        ),
        key(
            "keep_old",
            Kind::Duration,
            "How long the old hosts stay after the traffic has moved: rolling back is then one route switch. Default `10m`.",
        ),
        key(
            "drain",
            Kind::Duration,
            "How long requests under way may go on after their host was taken out. Default `30s`, at most `1h`.",
        ),
        key(
            "percent",
            Kind::Percent,
            "Canary: the share of the traffic that comes first. Linear: what every step adds. Default 10 %.",
        ),
        key(
            "steps",
            Kind::Number(2, 100),
            "Linear: in so many steps, instead of `percent`.",
        ),
        key(
            "interval",
            Kind::Duration,
            "Canary and linear: how long a step is watched before the next. Default `10m` and `1m`.",
        ),
        key(
            "analysis",
            Kind::Section(&ANALYSIS),
            "Canary and linear: how much worse than the old hosts the new ones may be in the same minutes.",
        ),
        key(
            "zones",
            Kind::Section(&ZONES),
            "In place, and on registered machines, whose label `zone` says it: one zone after the other.",
        ),
        key(
            "alarms",
            Kind::Section(&ALARMS),
            "Alarms of somebody's monitoring: while one is in alarm no deployment begins, and one that is under way goes back.",
        ),
        key(
            "migrate",
            Kind::Section(&MIGRATE),
            "A script that runs once for each release, on one new host (in place: one more), before any host gets traffic.",
        ),
    ],
};

static ALARMS: Section = Section {
    keys: &[
        key(
            "names",
            Kind::Texts,
            "At most 50 alarms of the tenant, whose state is told with `vend alarms set` or by Alertmanager; on AWS those of CloudWatch.",
        ),
        key(
            "ignore_unknown",
            Kind::Flag,
            "An alarm of which nobody knows how it is hinders no deployment: CodeDeploy's `ignorePollAlarmFailure`. Default false.",
        ),
        key(
            "stale_after",
            Kind::Duration,
            "That an alarm is well must be told again within this time, or nobody knows how it is. `10s` to `7d`. Default: it holds until something else is told.",
        ),
    ],
};

static ZONES: Section = Section {
    keys: &[
        key(
            "minimum_healthy",
            Kind::Healthy,
            "A percentage or a number of hosts of each zone that stay healthy. Default `0%`.",
        ),
        key(
            "monitor",
            Kind::Duration,
            "How long a zone is watched when it is done, before the next is begun. Default `0s`, at most `24h`.",
        ),
        key(
            "first_monitor",
            Kind::Duration,
            "The same for the first zone. Default: as `monitor`.",
        ),
    ],
};

static ANALYSIS: Section = Section {
    keys: &[
        key(
            "errors",
            Kind::Percent,
            "Percentage points of requests that may fail more often. Default 1 %.",
        ),
        key(
            "slower",
            Kind::Slower,
            "Percent by which the 99th percentile of times may be longer. Default `100%`: twice as long.",
        ),
        key(
            "sample",
            Kind::Number(1, 1_000_000),
            "So many requests to the new hosts are needed to judge. Default 100.",
        ),
    ],
};

static MIGRATE: Section = Section {
    keys: &[
        key("script", Kind::Path, "Path of the script in what is deployed."),
        key("timeout", Kind::Duration, "Default `10m`, at most `4h`."),
        key("runas", Kind::Text, "The user who runs it. Default `root`."),
        key(
            "irreversible",
            Kind::Flag,
            "Earlier releases do not work with the data that it leaves: going back to one must be asked for with `--across-migrations`. Default false.",
        ),
    ],
};

static PLACEMENT: Section = Section {
    keys: &[key(
        "registered",
        Kind::Variables,
        "Labels: releases are deployed to the tenant's registered machines that have all of them.",
    )],
};

static HOST: Section = Section {
    keys: &[
        key(
            "size",
            Kind::Text,
            "A size class of the platform. Default `small`.",
        ),
        key(
            "port",
            Kind::Number(1, 65_535),
            "Where the app listens. Default 8080. The app finds it in `PORT`.",
        ),
        key(
            "health",
            Kind::Section(&HEALTH),
            "How the load balancer asks whether a host is well.",
        ),
        key(
            "traffic",
            Kind::Section(&TRAFFIC),
            "How the load balancer speaks to hosts and shares requests out among them. How long requests under way may go on is `deploy.drain`.",
        ),
        key(
            "env",
            Kind::Variables,
            "Environment variables of the app. `{{secret:NAME}}` is the value of a secret.",
        ),
    ],
};

static DATABASE: Section = Section {
    keys: &[
        key("engine", Kind::Word(&["mariadb"]), "`mariadb`."),
        later("version"),
        later("storage"),
        later("user"),
        later("name"),
        later("backup"),
        later("multi_az"),
        later("size"),
    ],
};

static APPROVAL: Section = Section {
    keys: &[
        key(
            "by",
            Kind::Texts,
            "Who may approve. Default: anybody with the approver's role.",
        ),
        key("required", Kind::Number(1, 20), "How many must. Default 1."),
        key(
            "author_may_approve",
            Kind::Flag,
            "May the author of a commit approve it? Default false.",
        ),
        key(
            "expires",
            Kind::Duration,
            "How long the question stands. Default `24h`.",
        ),
    ],
};

static SCALING: Section = Section {
    keys: &[
        key("min", Kind::Number(1, 100), "Default 1."),
        key("max", Kind::Number(1, 100), "Default: as `min`."),
        later("cpu"),
        later("requests"),
        later("schedule"),
    ],
};

/// Words that are known and not built, by the key that they may stand for.
pub(super) fn later_word(key: &str, word: &str) -> bool {
    match key {
        "engine" => matches!(word, "aws" | "postgres" | "postgresql" | "mysql"),
        _ => false,
    }
}
