//! The sections that are about the load balancer.

use super::{
    super::{
        sign::ON_UNAUTHENTICATED,
        traffic::{ALGORITHMS, HEALTH_PROTOCOLS, PROTOCOLS},
    },
    Kind, Section, key,
};

pub(super) static HEALTH: Section = Section {
    keys: &[
        key(
            "protocol",
            Kind::Word(HEALTH_PROTOCOLS),
            "`http` (default): one GET. `tcp`: a connection, for hosts that speak HTTP/2 alone. `grpc`: one call, the default where hosts speak it.",
        ),
        key(
            "path",
            Kind::Text,
            "Default `/`; of `grpc` the method, `/grpc.health.v1.Health/Check`.",
        ),
        key("interval", Kind::Duration, "Default `5s`."),
        key(
            "timeout",
            Kind::Duration,
            "Default `2s`; not more than the interval.",
        ),
        key(
            "healthy",
            Kind::Number(2, 10),
            "Successes in a row that make a host healthy. Default 2.",
        ),
        key(
            "unhealthy",
            Kind::Number(2, 10),
            "Failures in a row that make a host unhealthy. Default 3.",
        ),
        key(
            "within",
            Kind::Duration,
            "How long the app may take from its start to being healthy. Default `90s`, at most `10m`.",
        ),
        key(
            "codes",
            Kind::Codes,
            "Status codes that count as success. Default `200-399`; of `grpc`, which has 0 to 99, `0`.",
        ),
    ],
};

pub(super) static TRAFFIC: Section = Section {
    keys: &[
        key(
            "protocol",
            Kind::Word(PROTOCOLS),
            "`http1` (default), `http2` without TLS by prior knowledge, or `grpc`, which is the same with gRPC's own failures.",
        ),
        key(
            "algorithm",
            Kind::Word(ALGORITHMS),
            "Who gets the next request: each in turn (`round-robin`, default), who has the fewest under way, one by chance, or the same and less often one that fails much more than the others.",
        ),
        key(
            "slow_start",
            Kind::Duration,
            "How long the share of a host grows after it became healthy, `30s` to `15m`. It gets its share at once by default.",
        ),
        key(
            "stickiness",
            Kind::Section(&STICKINESS),
            "A visitor stays with the host that first answered.",
        ),
        key(
            "ejection",
            Kind::Section(&EJECTION),
            "A host that fails requests is left out for a while, before its health check finds out.",
        ),
    ],
};

static STICKINESS: Section = Section {
    keys: &[
        key(
            "duration",
            Kind::Duration,
            "For so long after the last request, `1s` to `7d`.",
        ),
        key(
            "cookie",
            Kind::Text,
            "For as long as the app's own cookie of this name lasts, and `duration` at most.",
        ),
    ],
};

static EJECTION: Section = Section {
    keys: &[
        key(
            "failures",
            Kind::Number(1, 1_000),
            "Failures in a row: no connection, no answer, or 5xx. Default 5.",
        ),
        key(
            "time",
            Kind::Duration,
            "How long it is left out. Default `30s`, at most `1h`.",
        ),
    ],
};

pub(super) static ACCESS: Section = Section {
    keys: &[
        key(
            "allow",
            Kind::Texts,
            "Addresses and networks, `192.0.2.0/24`: nobody else may ask. Everybody may by default.",
        ),
        key(
            "deny",
            Kind::Texts,
            "Addresses and networks that may not, also where they are allowed.",
        ),
    ],
};

pub(super) static LISTENER: Section = Section {
    keys: &[
        key("protocol", Kind::Word(&["tcp", "udp"]), "`tcp` or `udp`."),
        key(
            "port",
            Kind::Number(1024, 65_535),
            "Where the load balancer listens. One environment of the platform has a port.",
        ),
        key(
            "host_port",
            Kind::Number(1, 65_535),
            "Where the app listens. Default: the same port.",
        ),
        key(
            "idle",
            Kind::Duration,
            "UDP: a flow ends after so long without a datagram. Default `120s`.",
        ),
        key(
            "name",
            Kind::Word(&["balancer", "hosts"]),
            "What the name `PROTOCOL-PORT.` and the environment's leads to: the load balancer (default), or by weight and health the hosts themselves.",
        ),
        key(
            "ttl",
            Kind::Duration,
            "How long the addresses of hosts may be kept. Default `10s`.",
        ),
    ],
};

pub(super) static DOMAIN: Section = Section {
    keys: &[
        key("host", Kind::Text, "The name: `shop.example.com`."),
        key(
            "certificate",
            Kind::WordOr(&["file", "acme"], &VAULTED),
            "`file` (default): the operator has put one there. `acme`: the platform gets one from its authority. Or the secrets that hold one.",
        ),
        key(
            "dedicated_balancer",
            Kind::Flag,
            "Also at addresses of its own, which the operator gives in `platform.toml`, where nothing else is to be had.",
        ),
    ],
};

static VAULTED: Section = Section {
    keys: &[
        key(
            "chain",
            Kind::Text,
            "`{{secret:NAME}}`: the certificate and those that signed it, as PEM.",
        ),
        key("key", Kind::Text, "`{{secret:NAME}}`: its private key, as PEM."),
    ],
};

pub(super) static AUTHENTICATE: Section = Section {
    keys: &[
        key(
            "issuer",
            Kind::Text,
            "The OpenID Connect provider as it names itself: `https://id.example.com`.",
        ),
        key(
            "authorization_endpoint",
            Kind::Text,
            "Where browsers are sent to, an `https://` address.",
        ),
        key("token_endpoint", Kind::Text, "Where tokens are got."),
        key(
            "user_info_endpoint",
            Kind::Text,
            "Where the provider says who somebody is.",
        ),
        key(
            "client_id",
            Kind::Text,
            "What the provider knows this environment by.",
        ),
        key(
            "client_secret",
            Kind::Text,
            "`{{secret:NAME}}`: the secret that goes with it.",
        ),
        key("scope", Kind::Text, "Default `openid`."),
        key("session_cookie", Kind::Text, "Default `AWSELBAuthSessionCookie`."),
        key(
            "session_timeout",
            Kind::Duration,
            "How long somebody stays signed in. Default and at most `7d`.",
        ),
        key(
            "extra_parameters",
            Kind::Variables,
            "Added to the request for authorization.",
        ),
        key(
            "on_unauthenticated",
            Kind::Word(ON_UNAUTHENTICATED),
            "Who has not signed in is sent to the provider (`authenticate`, default), let in (`allow`) or turned away (`deny`).",
        ),
    ],
};
