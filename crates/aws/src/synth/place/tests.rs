//! Which place lacks what, and which zones are a region's.

use model::spec;

use super::{super::cidr::Cidr, *};
use crate::synth::{
    Scaling,
    config::{Database, Engine, Environment, Runtime},
    size::Architecture,
};

/// An environment that says this.
fn spec(text: &str) -> spec::Environment {
    let text = format!("app: shop\nenvironments:\n  live: {{ {text} }}\n");
    let (app, _) = spec::App::parse(&text, "vend.yaml", &|_| true).unwrap();
    app.environments[0].clone()
}

fn network() -> Network {
    Network {
        local_zones: vec!["us-west-2-lax-1a".into()],
        wavelength_zones: vec![WAVE.into()],
        outposts: vec![outpost(RACK)],
        ..Network::default()
    }
}

fn said(placement: &Placement, wanted: &Environment, engine: Option<Engine>) -> Result<(), Error> {
    let wanted = Wanted {
        options: wanted,
        spec: &spec("scaling: { max: 4 }"),
        engine,
        types: &["m5.large".to_owned()],
        architecture: Architecture::X86_64,
    };
    placement.check("e", &wanted, &network())
}

const RACK: &str = "arn:aws:outposts:eu-central-1:123456789012:outpost/op-0123456789abcdef0";

/// A rack with slots for two sizes.
fn outpost(arn: &str) -> Outpost {
    Outpost {
        arn: arn.parse().unwrap(),
        zone: "eu-central-1b".to_owned(),
        gateway: "lgw-0123456789abcdef0".to_owned(),
        routes: "lgw-rtb-0123456789abcdef0".to_owned(),
        local: vec!["192.168.0.0/16".to_owned().try_into().unwrap()],
        sizes: vec!["m5.large".to_owned(), "m5.xlarge".to_owned()],
        volume: Volume::Gp2,
        pool: None,
    }
}

fn on_rack() -> Placement {
    Placement {
        outpost: Some(RACK.parse().unwrap()),
        ..Placement::default()
    }
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
    let said = |hosts: u32, architecture| {
        let wanted = Wanted {
            options: &options,
            spec: &spec(&format!("scaling: {{ max: {hosts} }}")),
            engine: None,
            types: &["t3.medium".to_owned()],
            architecture,
        };
        wave.check("e", &wanted, &network)
            .map_err(|error| error.to_string())
    };
    assert_eq!(said(49, Architecture::X86_64), Ok(()));
    assert!(said(1, Architecture::Arm64).unwrap_err().contains("no Graviton"));
    assert!(said(50, Architecture::X86_64).unwrap_err().contains("49 hosts"));
}

#[test]
fn an_outpost_takes_what_its_rack_has_and_refuses_the_rest_with_the_reason() {
    let own = Environment {
        dedicated_balancer: true,
        ..Environment::default()
    };
    let database = |engine, version: Option<&str>, size: Option<&str>, multi_az| Environment {
        database: Some(Database {
            engine: Some(engine),
            version: version.map(str::to_owned),
            size: size.map(str::to_owned),
            multi_az,
            ..Database::default()
        }),
        ..own.clone()
    };
    let (my, pg) = (Engine::Mysql, Engine::Postgres);
    let check = |options: &Environment, engine, own: &str, types: &[&str]| {
        let types: Vec<String> = types.iter().map(|kind| (*kind).to_owned()).collect();
        let wanted = Wanted {
            options,
            spec: &spec(own),
            engine,
            types: &types,
            architecture: if types[0].contains('g') && !types[0].contains("large") {
                Architecture::Arm64
            } else {
                Architecture::X86_64
            },
        };
        let done = on_rack().check("e", &wanted, &network());
        done.map_err(|error| error.to_string())
    };
    let large = ["m5.large"];
    assert_eq!(check(&own, None, "", &large), Ok(()));
    assert_eq!(
        check(&database(my, Some("8.0"), None, None), Some(my), "", &large),
        Ok(())
    );
    assert_eq!(
        check(
            &database(pg, Some("15"), Some("m5.xlarge"), Some(false)),
            Some(pg),
            "",
            &large
        ),
        Ok(())
    );
    let docks = Environment {
        runtime: Runtime::Ec2,
        ..own.clone()
    };
    assert_eq!(check(&docks, None, "", &large), Ok(()));
    let scaled = |scaling| Environment {
        scaling,
        ..own.clone()
    };
    let spot = scaled(Scaling {
        spot: Some(1),
        ..Scaling::default()
    });
    let warm = scaled(Scaling {
        warm: Some(1),
        ..Scaling::default()
    });
    let fargate = Environment {
        runtime: Runtime::Fargate,
        ..own.clone()
    };
    let wide = Environment {
        disk: Some(31),
        ..own.clone()
    };
    let sticky = "host: { traffic: { stickiness: { duration: 5m } } }";
    let login = "authenticate: { issuer: 'https://a.example', authorization_endpoint: 'https://a.example/a', token_endpoint: \
                 'https://a.example/t', user_info_endpoint: 'https://a.example/u', client_id: a, client_secret: '{{secret:b}}' }";
    for (options, engine, yaml, types, part) in [
        (
            &Environment::default(),
            None,
            "",
            &large[..],
            "dedicated_balancer = true",
        ),
        (&fargate, None, "", &large, "Fargate"),
        (&spot, None, "", &large, "Spot"),
        (&warm, None, "", &large, "warm pool"),
        (&wide, None, "", &large, "30 GiB"),
        (&own, None, "", &["t4g.small"], "Graviton"),
        (&own, None, "", &["m5.large", "m5.xlarge"], "one type"),
        (&own, None, "", &["c5.large"], "none of the `sizes`"),
        (&own, None, sticky, &large, "stickiness"),
        (&own, None, login, &large, "authenticate"),
        (&own, Some(Engine::Mariadb), "", &large, "MariaDB"),
        (&own, Some(Engine::AuroraMysql), "", &large, "Aurora"),
        (&own, Some(my), "", &large, "database.version"),
        (
            &database(my, Some("8.0"), None, Some(true)),
            Some(my),
            "",
            &large,
            "multi_az = false",
        ),
        (
            &database(my, Some("8.0"), Some("t4g.small"), None),
            Some(my),
            "",
            &large,
            "`m5` and `r5`",
        ),
        (
            &database(my, Some("8.0"), Some("r5.large"), None),
            Some(my),
            "",
            &large,
            "takes a slot",
        ),
    ] {
        let why = check(options, engine, yaml, types).unwrap_err();
        assert!(
            why.contains(part) && why.starts_with("e.placement.outpost"),
            "{why}"
        );
    }
    let none = Network::default();
    let wanted = Wanted {
        options: &own,
        spec: &spec(""),
        engine: None,
        types: &["m5.large".to_owned()],
        architecture: Architecture::X86_64,
    };
    let why = on_rack().check("e", &wanted, &none).unwrap_err().to_string();
    assert!(why.contains("network.outposts"), "{why}");
    let mut bare = network();
    bare.outposts[0].sizes = vec!["g4dn.xlarge".to_owned(), "m5.2xlarge".to_owned()];
    let wanted = Wanted {
        types: &["g4dn.xlarge".to_owned()],
        ..wanted
    };
    let why = on_rack().check("e", &wanted, &bare).unwrap_err().to_string();
    assert!(why.contains("two machines at first"), "{why}");
}

#[test]
fn an_outpost_is_the_regions_and_its_gateways_are_ids() {
    let region: Region = "eu-central-1".parse().unwrap();
    let range: Cidr = "10.3.0.0/16".parse().unwrap();
    let told = |all: &[Outpost]| outposts("f", &region, range, all).map_err(|error| error.to_string());
    let good = outpost(RACK);
    let other = outpost(&RACK.replace("abcdef0", "abcdef1"));
    assert_eq!(told(&[good.clone(), other.clone()]), Ok(()));
    let third = outpost(&RACK.replace("abcdef0", "abcdef2"));
    for (all, part) in [
        (vec![good.clone(), other, third], "room for 2"),
        (vec![good.clone(), good.clone()], "named twice"),
        (vec![outpost(&RACK.replace("central", "west"))], "no Outpost of"),
        (vec![outpost(&RACK.replace("op-", "site-"))], "no Outpost of"),
        (
            vec![Outpost {
                zone: "eu-west-1a".into(),
                ..good.clone()
            }],
            "no zone",
        ),
        (
            vec![Outpost {
                gateway: "lgw-rtb-0123456789abcdef0".into(),
                ..good.clone()
            }],
            "`gateway`",
        ),
        (
            vec![Outpost {
                routes: "${AWS::Region}".into(),
                ..good.clone()
            }],
            "`routes`",
        ),
        (
            vec![Outpost {
                pool: Some("ipv4pool-coip-0123456789abcdef0".into()),
                ..good.clone()
            }],
            "direct VPC routing",
        ),
        (
            vec![Outpost {
                local: Vec::new(),
                ..good.clone()
            }],
            "`local`",
        ),
        (
            vec![Outpost {
                local: vec!["10.3.9.0/24".to_owned().try_into().unwrap()],
                ..good.clone()
            }],
            "overlaps",
        ),
        (
            vec![Outpost {
                sizes: Vec::new(),
                ..good.clone()
            }],
            "get-outpost-instance-types",
        ),
    ] {
        let why = told(&all).unwrap_err();
        assert!(why.contains(part), "{why}");
    }
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
