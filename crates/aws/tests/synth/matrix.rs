//! Stacks of many combinations of options.

use aws::synth::{Config, Priorities, Stack, all_with, environment, flow, foundation};
use model::spec;

/// Every so many combinations of a foundation's options, and of an environment's, and all of the case `shop`.
pub fn matrix() -> &'static [Stack] {
    static ALL: std::sync::LazyLock<Vec<Stack>> = std::sync::LazyLock::new(|| {
        [
            foundations(),
            environments(),
            flows(),
            shop(),
            guestbook(),
            wave(),
            rack(),
            local(),
            pipelines(),
        ]
        .concat()
    });
    &ALL
}

/// Picks the item for combination `n`: digits of `n` in a mixed base.
struct Pick(usize);

impl Pick {
    fn one<T: Copy>(&mut self, items: &[T]) -> T {
        let item = items[self.0 % items.len()];
        self.0 /= items.len();
        item
    }
}

fn foundations() -> Vec<Stack> {
    let needed = "endpoints = ['codedeploy', 'codedeploy-commands-secure', 'ec2messages', 'logs', 'secretsmanager', 'ssm', 'ssmmessages'], ";
    let mut stacks = Vec::new();
    for n in 0..64 {
        let mut pick = Pick(n);
        let nat = pick.one(&["per-zone", "one", "instance", "none"]);
        let zones = pick.one(&["2", "3"]);
        let endpoints = if nat == "none" {
            needed
        } else {
            pick.one(&["", "endpoints = ['sts', 'ecr-dkr'], "])
        };
        let (trail, firewall) = pick.one(&[("true", "true"), ("false", "false")]);
        let more = pick.one(&[
            "",
            "zone = 'Z0ABC'\nprotected = false\nbudget = 0\nslack = { workspace = 'T01', channel = 'C01' }\n\
                                   mail = { operations = ['a@b.example', 'c@d.example'] }",
        ]);
        let text = format!(
            "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\ntrail = {trail}\nfirewall = {firewall}\n{more}\n\
             network = {{ {endpoints}cidr = '10.{}.0.0/16', nat = '{nat}', zones = '{zones}' }}\n",
            20 + n
        );
        let config: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut stack = foundation(&config, &"production".parse().unwrap()).unwrap();
        stack.name = format!("foundation-{n}");
        stacks.push(stack);
    }
    stacks
}

fn environments() -> Vec<Stack> {
    let mut stacks = Vec::new();
    // Prime to all the bases, so that the combinations are spread over all there are.
    for n in (0..3 * 4 * 7 * 2 * 2 * 2 * 3 * 5).step_by(61) {
        let mut pick = Pick(n);
        let runtime = pick.one(&["host", "fargate", "ec2"]);
        let strategy = pick.one(&["blue-green", "canary", "linear", "in-place"]);
        let engine = pick.one(&[
            "",
            "mariadb",
            "mysql",
            "postgres",
            "aurora-mysql",
            "aurora-postgres",
            "default",
        ]);
        let (dedicated, plain, bare) = (
            pick.one(&[true, false]),
            pick.one(&[true, false]),
            pick.one(&[true, false]),
        );
        let domains = pick.one(&[
            "",
            "{ host = 'x.example.org', zone = 'Z0DEF' }",
            "{ host = 'y.example.org', certificate = 'arn:aws:acm:eu-central-1:111111111111:certificate/a' }",
        ]);
        let scaling = pick.one(&[
            "",
            "cpu = 40, requests = 100",
            "spot = 1, schedule = [{ cron = '0 1 * * *', min = 1 }]",
            "drain = 300",
            "step = 70",
        ]);
        // Refused, which a law of its own holds.
        let scaling = if runtime == "ec2" {
            scaling.replace("spot = 1, ", "")
        } else {
            scaling.to_owned()
        };
        let scaling = match runtime {
            "host" => scaling,
            _ => scaling.replace("step = 70", "cpu = 70"),
        };
        let strategy = if runtime == "host" { strategy } else { "blue-green" };
        let database = match engine {
            "" | "default" => String::new(),
            engine => format!("database = {{ engine = '{engine}', multi_az = {dedicated} }}\n"),
        };
        let text = format!(
            "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n\
             [apps.shop.environments.live]\nruntime = '{runtime}'\nstrategy = '{strategy}'\nscaling = {{ {scaling} }}\n{database}\
             dedicated_balancer = {dedicated}\nplain_http = {plain}\nbare = {bare}\ndomains = [{domains}]\n"
        );
        let config: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let base = if engine.is_empty() {
            ""
        } else {
            "database: { engine: mariadb }\n"
        };
        let healthy = ["one-at-a-time", "half-at-a-time", "all-at-once", "60%", "1"][n % 5];
        // A number or a share of one host is all of it, which is refused.
        let least = if n % 5 < 3 { 1 } else { 3 };
        let size = ["small", "medium", "large", "nano"][n % 4];
        let yaml = format!(
            "app: shop\n{base}deploy: {{ minimum_healthy: {healthy} }}\nhost: {{ size: {size}, env: {{ A: '1', B: '{{{{secret:b}}}}' }} }}\n\
             environments:\n  live: {{ scaling: {{ min: {least}, max: {} }} }}\n",
            least + n % 3
        );
        let (app, _) =
            spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap_or_else(|problems| panic!("{problems:?}"));
        let label = "production".parse().unwrap();
        let mut stack = environment(
            &config,
            &app.app,
            &app.environments[0],
            &label,
            &mut Priorities::default(),
        )
        .unwrap();
        stack.name = format!("environment-{n}");
        stacks.push(stack);
    }
    stacks
}

/// Flows of every strategy, with and without a migration, an approval, containers, tests and a second account.
fn flows() -> Vec<Stack> {
    let mut stacks = Vec::new();
    for n in 0..32 {
        let mut pick = Pick(n);
        let strategy = pick.one(&["blue-green", "canary", "linear", "in-place"]);
        let migrate = pick.one(&["", ", migrate: { script: db/up.sh, runas: app, timeout: 2m }"]);
        let approval = pick
            .one(&["", "approval: { required: 1 }\n"])
            .replace('1', if n % 3 == 0 { "2" } else { "1" });
        let (runtime, also) = pick.one(&[("host", ", also = ['other']"), ("fargate", "")]);
        if runtime == "fargate" && (!migrate.is_empty() || strategy == "in-place") {
            // Refused, which a law of its own holds.
            continue;
        }
        let tests = if n % 2 == 0 {
            "tests = [{ name = 'smoke', buildspec = 's.yml' }]"
        } else {
            ""
        };
        let text = format!(
            "[foundations.production]\nregion = 'eu-central-1'\naccount = '111111111111'\ndomain = 'a.example.com'\n\
             [foundations.other]\nregion = 'eu-central-1'\naccount = '222222222222'\ndomain = 'b.example.com'\n\
             deploys_from = 'production'\nnetwork = {{ cidr = '10.7.0.0/16' }}\n\
             [apps.shop]\npipeline = 'production'\n{tests}\n\
             [apps.shop.environments]\nlive = {{ foundation = 'production', runtime = '{runtime}'{also} }}\n"
        );
        let config: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let yaml = format!(
            "app: shop\ndeploy: {{ strategy: {strategy}{migrate} }}\n{approval}environments:\n  live: {{ branch: main }}\n"
        );
        let (app, _) =
            spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap_or_else(|problems| panic!("{problems:?}"));
        let mut targets = vec!["production".parse().unwrap()];
        targets.extend(
            config.apps[&app.app].environments[&app.environments[0].name]
                .also
                .iter()
                .cloned(),
        );
        let mut stack = flow(&config, &app, &app.environments[0], &targets).unwrap();
        stack.name = format!("flow-{n}");
        stacks.push(stack);
    }
    stacks
}

/// Pipelines of every source, of hosts and of containers, with and without branches, tests and a channel.
fn pipelines() -> Vec<Stack> {
    let mut stacks = Vec::new();
    for n in 0..8 {
        let mut pick = Pick(n);
        let forge = pick.one(&["", "github.com", "gitlab.com", "bitbucket.org"]);
        let runtime = pick.one(&["host", "fargate"]);
        let has_more = (n + n / 4) % 2 == 0;
        let (branches, tests, slack) = match has_more {
            true => (
                "  preview: { branches: 'feature/*', expires: 2h }\n",
                "tests = [{ name = 'smoke', buildspec = 's.yml' }, { name = 'load', buildspec = 'l.yml' }]\n",
                "slack = { workspace = 'T01', channel = 'C01' }\n",
            ),
            false => ("", "", ""),
        };
        let repository = forge.split_once('.').map_or_else(String::new, |(kind, _)| {
            format!(
                "repository = {{ kind = '{kind}', url = 'https://{forge}/acme/shop.git', connection = \
                 'arn:aws:codeconnections:eu-central-1:111111111111:connection/0a1b2c3d-0000-1111-2222-333344445555' }}\n"
            )
        });
        let text = format!(
            "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n{slack}\
             [apps.shop{n}]\n{tests}{repository}[apps.shop{n}.environments]\nlive = {{ runtime = '{runtime}' }}\n"
        );
        let config: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let yaml = format!(
            "app: shop{n}\nbuild: {{ env: {{ TOKEN: '{{{{secret:token}}}}' }} }}\nenvironments:\n  live: {{ branch: main }}\n{branches}"
        );
        let (app, _) =
            spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap_or_else(|problems| panic!("{problems:?}"));
        let all = all_with(&config, &app, None, &mut Priorities::default()).unwrap();
        let is_pipeline = |stack: &Stack| stack.name.contains("-pipeline-");
        stacks.extend(all.stacks.into_iter().filter(is_pipeline));
    }
    stacks
}

/// The stacks of the case `shop`, which has everything, an environment of a branch included.
fn shop() -> Vec<Stack> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/synth/cases");
    let config = toml::from_str(&std::fs::read_to_string(root.join("shop.toml")).unwrap()).unwrap();
    let yaml = std::fs::read_to_string(root.join("shop.yaml")).unwrap();
    let (app, _) = spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap();
    let own = app.following("feature/login").unwrap().remove(0);
    all_with(&config, &app, Some(&own), &mut Priorities::default())
        .unwrap()
        .stacks
}

/// An environment in a Wavelength Zone, below names of its own.
fn wave() -> Vec<Stack> {
    case("wave", "tests/synth/cases/wave.yaml", "wave")
}

/// An environment on an Outpost, below names of its own.
fn rack() -> Vec<Stack> {
    case("rack", "tests/synth/cases/rack.yaml", "rack")
}

/// The stacks of the example, below a name of its own.
fn guestbook() -> Vec<Stack> {
    case("guestbook", "../../examples/guestbook/vend.yaml", "example")
}

fn case(name: &str, yaml: &str, prefix: &str) -> Vec<Stack> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = std::fs::read_to_string(root.join(format!("tests/synth/cases/{name}.toml"))).unwrap();
    let yaml = std::fs::read_to_string(root.join(yaml)).unwrap();
    let (app, _) = spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap();
    let config = toml::from_str(&config).unwrap();
    let mut stacks = all_with(&config, &app, None, &mut Priorities::default())
        .unwrap()
        .stacks;
    for stack in &mut stacks {
        stack.name = format!("{prefix}-{}", stack.name);
    }
    stacks
}

/// A foundation with Local Zones, and an environment in one of them; two more people are asked, so that the loop of that is read too.
fn local() -> Vec<Stack> {
    let text = "[foundations.production]\nregion = 'us-west-2'\ndomain = 'a.example.com'\n\
         network = { local_zones = ['us-west-2-lax-1a', 'us-west-2-lax-1b'] }\n\
         [apps.shop.environments.live]\ndedicated_balancer = true\nplacement = { local_zone = 'us-west-2-lax-1b' }\n";
    let config: Config = toml::from_str(text).unwrap();
    let yaml = "app: shop\nenvironments:\n  live: { approval: { required: 2 } }\n";
    let (app, _) = spec::App::parse(yaml, "vend.yaml", &|_| true).unwrap();
    let mut stacks = all_with(&config, &app, None, &mut Priorities::default())
        .unwrap()
        .stacks;
    for stack in &mut stacks {
        stack.name = format!("local-{}", stack.name);
    }
    stacks
}
