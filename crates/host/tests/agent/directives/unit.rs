//! What units have to do with each other, with the host, and with time.

use super::{Case, DID, case, other};

pub fn links() -> Vec<Case> {
    const DEP: &str = "systemctl start NAME 2>/dev/null; systemctl is-active NAME-b";
    const GOES: &str = "systemctl start NAME; systemctl stop NAME-b; systemctl is-active NAME";
    const ORDER: &str = "systemctl start NAME; cat /dev/shm/NAME-b | tr '\\n' ' '";
    macro_rules! beside {
        ($own:literal, $line:literal) => {
            concat!(
                "[Unit]\n",
                $line,
                "\n[Service]\n",
                $own,
                "\n# NAME-b.service\n[Service]\nExecStart=/bin/sleep 99\n"
            )
        };
    }
    macro_rules! ordered {
        ($a:literal, $b:literal) => {
            concat!(
                "[Unit]\nWants=NAME-a.service NAME-b.service\n[Service]\nExecStart=/bin/sleep 99\n# NAME-a.service\n[Unit]\n", $a,
                "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo a >>/dev/shm/NAME-b'\n# NAME-b.service\n[Unit]\n", $b,
                "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo b >>/dev/shm/NAME-b'\n"
            )
        };
    }
    vec![
        case(
            "Requires",
            beside!("ExecStart=/bin/sleep 99", "Requires=NAME-b.service"),
            DEP,
            "active\n",
        ),
        other(
            case(
                "Requires=",
                "[Unit]\nRequires=NAME-b.service\nAfter=NAME-b.service\n[Service]\nExecStart=/bin/sleep 99\n# NAME-b.service\n[Service]\nType=oneshot\n\
                 ExecStart=/bin/false\n",
                "systemctl start NAME 2>/dev/null; echo $?; systemctl is-active NAME",
                "1\ninactive\n",
            ),
            "Wants=",
        ),
        case(
            "Wants",
            beside!("ExecStart=/bin/sleep 99", "Wants=NAME-b.service"),
            DEP,
            "active\n",
        ),
        case(
            "BindsTo",
            beside!("ExecStart=/bin/sleep 99", "BindsTo=NAME-b.service"),
            GOES,
            "inactive\n",
        ),
        case(
            "PartOf",
            beside!("ExecStart=/bin/sleep 99", "PartOf=NAME-b.service"),
            "systemctl start NAME NAME-b; systemctl stop NAME-b; systemctl is-active NAME",
            "inactive\n",
        ),
        case("After", ordered!("After=NAME-b.service\n", ""), ORDER, "b a "),
        case("Before", ordered!("", "Before=NAME-a.service\n"), ORDER, "b a "),
        case(
            "Conflicts",
            beside!("ExecStart=/bin/sleep 99", "Conflicts=NAME-b.service"),
            "systemctl start NAME-b; systemctl start NAME; systemctl is-active NAME-b NAME",
            "inactive\nactive\n",
        ),
        case(
            "ReloadPropagatedFrom",
            "[Unit]\nReloadPropagatedFrom=NAME-b.service\n[Service]\nExecStart=/bin/sleep 99\nExecReload=/bin/touch /dev/shm/NAME\n\
             # NAME-b.service\n[Service]\nExecStart=/bin/sleep 99\nExecReload=/bin/true\n",
            "systemctl start NAME NAME-b; systemctl reload NAME-b; test -e /dev/shm/NAME && echo reloaded",
            "reloaded\n",
        ),
        case(
            "WantedBy",
            "[Service]\nExecStart=/bin/sleep 99\n[Install]\nWantedBy=NAME-b.target\n# NAME-b.target\n[Unit]\nDescription=b\n",
            "systemctl enable NAME 2>/dev/null; systemctl start NAME-b.target; systemctl is-active NAME",
            "active\n",
        ),
        case(
            "RequiredBy",
            "[Service]\nExecStart=/bin/sleep 99\n[Install]\nRequiredBy=NAME-b.service\n# NAME-b.service\n[Service]\nExecStart=/bin/sleep 99\n",
            "systemctl enable NAME 2>/dev/null; systemctl start NAME-b; systemctl stop NAME; systemctl is-active NAME-b",
            "inactive\n",
        ),
        case(
            "Alias",
            "[Service]\nExecStart=/bin/sleep 99\n[Install]\nAlias=NAME-c.service\n",
            "systemctl enable NAME 2>/dev/null; systemctl start NAME-c 2>/dev/null; systemctl is-active NAME",
            "active\n",
        ),
        case(
            "Also",
            "[Service]\nExecStart=/bin/sleep 99\n[Install]\nWantedBy=multi-user.target\nAlso=NAME-b.service\n# NAME-b.service\n[Service]\n\
             ExecStart=/bin/sleep 99\n[Install]\nWantedBy=NAME-x.target\n",
            "systemctl enable NAME 2>/dev/null; systemctl is-enabled NAME-b",
            "enabled\n",
        ),
    ]
}

pub fn conditions() -> Vec<Case> {
    macro_rules! unmet {
        ($($key:literal = $value:literal),*) => {
            vec![$(
                case(
                    $key,
                    concat!("[Unit]\n", $key, "=", $value, "\n[Service]\nType=oneshot\nExecStart=/bin/touch /dev/shm/NAME\n"),
                    DID,
                    "nothing\n",
                ),
            )*]
        };
    }
    let mut cases = unmet![
        "ConditionPathExists" = "/none",
        "ConditionPathIsDirectory" = "/etc/passwd",
        "ConditionDirectoryNotEmpty" = "/etc/passwd",
        "ConditionFileNotEmpty" = "/dev/null",
        "ConditionFileIsExecutable" = "/etc/passwd",
        "ConditionCapability" = "CAP_NONE",
        "ConditionVirtualization" = "!container",
        "ConditionUser" = "nobody"
    ];
    cases.push(case(
        "AssertPathExists",
        "[Unit]\nAssertPathExists=/none\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
        "systemctl start NAME 2>/dev/null; echo $?",
        "1\n",
    ));
    cases
}

pub fn timers() -> Vec<Case> {
    const ONCE: &str = "systemctl start NAME.timer; sleep 2; test -e /dev/shm/NAME && echo ran || echo waits; systemctl stop NAME.timer";
    const TWICE: &str = "systemctl start NAME.timer; within 8 'test $(wc -l </dev/shm/NAME) -gt 1' && echo again || echo once; systemctl stop NAME.timer";
    macro_rules! ticks {
        ($lines:literal) => {
            concat!(
                "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo x >>/dev/shm/NAME'\n# NAME.timer\n[Timer]\n",
                $lines
            )
        };
    }
    vec![
        case("OnCalendar", ticks!("OnCalendar=*-*-* *:*:*\n"), ONCE, "ran\n"),
        case("OnActiveSec", ticks!("OnActiveSec=100ms\n"), ONCE, "ran\n"),
        case("OnBootSec", ticks!("OnBootSec=1ms\n"), ONCE, "ran\n"),
        case(
            "OnUnitActiveSec",
            ticks!("OnActiveSec=10ms\nOnUnitActiveSec=100ms\n"),
            TWICE,
            "again\n",
        ),
        case(
            "OnUnitInactiveSec",
            ticks!("OnActiveSec=10ms\nOnUnitInactiveSec=100ms\n"),
            TWICE,
            "again\n",
        ),
        // Also of what others have started, and only it.
        case(
            "OnUnitActiveSec=1s",
            ticks!("OnUnitActiveSec=1s\nOnActiveSec=1h\n"),
            "systemctl start NAME.timer; systemctl start NAME; within 8 'test $(wc -l </dev/shm/NAME) -gt 1' && echo again || echo once; systemctl stop NAME.timer",
            "again\n",
        ),
        other(
            case(
                "OnActiveSec=10ms",
                ticks!("OnActiveSec=1h\nOnActiveSec=10ms\nOnActiveSec=2h\n"),
                ONCE,
                "ran\n",
            ),
            "OnActiveSec=3h",
        ),
        other(
            case(
                "OnCalendar=\n",
                ticks!("OnActiveSec=10ms\nOnCalendar=\nOnActiveSec=1h\n"),
                ONCE,
                "waits\n",
            ),
            "OnCalendar=yearly\n",
        ),
        case(
            "Persistent",
            ticks!("OnCalendar=daily\nPersistent=true\n"),
            "mkdir -p /var/lib/systemd/timers; touch -d '2 days ago' /var/lib/systemd/timers/stamp-NAME.timer; systemctl start NAME.timer; \
             within 8 'test -e /dev/shm/NAME' && echo ran || echo waits; find /var/lib/systemd/timers -name stamp-NAME.timer -mmin -5 | wc -l; \
             systemctl stop NAME.timer",
            "ran\n1\n",
        ),
        case(
            "RandomizedDelaySec",
            ticks!("OnCalendar=*-*-* *:*:*\nRandomizedDelaySec=52w\n"),
            ONCE,
            "waits\n",
        ),
        case(
            "RemainAfterElapse",
            ticks!("OnActiveSec=10ms\nRemainAfterElapse=no\n"),
            "systemctl start NAME.timer; within 5 '! systemctl is-active -q NAME.timer' && echo over || echo stays; systemctl stop NAME.timer",
            "over\n",
        ),
        case(
            "Unit",
            "[Service]\nExecStart=/bin/true\n# NAME-b.service\n[Service]\nType=oneshot\nExecStart=/bin/touch /dev/shm/NAME\n\
             # NAME.timer\n[Timer]\nOnActiveSec=10ms\nUnit=NAME-b.service\n",
            ONCE,
            "ran\n",
        ),
    ]
}

pub fn sockets() -> Vec<Case> {
    const CONNECT: &str = "systemctl start NAME.socket; perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(\"/dev/shm/NAME.sock\")'; \
        within 5 'test -s /dev/shm/NAME'; cat /dev/shm/NAME";
    const SEND: &str = "systemctl start NAME.socket; perl -MIO::Socket::UNIX -e 'socket(S, AF_UNIX, SOCK_DGRAM, 0); send S, \"x\", 0, \
        pack_sockaddr_un(\"/dev/shm/NAME.sock\")'; within 5 'test -s /dev/shm/NAME'; cat /dev/shm/NAME";
    const FOUR: &str = "systemctl start NAME.socket; perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(\"127.0.0.1:7171\") ? 4 : 6'; \
        systemctl stop NAME.socket";
    macro_rules! listens {
        ($lines:literal) => {
            concat!(
                "[Service]\nExecStart=/bin/sh -c 'env | sed -n s/^LISTEN_FDN.*=//p >/dev/shm/NAME; sleep 99'\n# NAME.socket\n[Socket]\n",
                $lines
            )
        };
    }
    vec![
        case(
            "ListenStream",
            listens!("ListenStream=/dev/shm/NAME.sock\n"),
            CONNECT,
            "NAME.socket\n",
        ),
        case(
            "ListenDatagram",
            listens!("ListenDatagram=/dev/shm/NAME.sock\n"),
            SEND,
            "NAME.socket\n",
        ),
        case(
            "FileDescriptorName",
            listens!("ListenStream=/dev/shm/NAME.sock\nFileDescriptorName=front\n"),
            CONNECT,
            "front\n",
        ),
        case(
            "SocketGroup",
            listens!("ListenStream=/dev/shm/NAME.sock\nSocketGroup=daemon\n"),
            "systemctl start NAME.socket; stat -c %G /dev/shm/NAME.sock",
            "daemon\n",
        ),
        case(
            "DirectoryMode",
            listens!("ListenStream=/dev/shm/NAME-d/sock\nDirectoryMode=0710\n"),
            "systemctl start NAME.socket; stat -c %a /dev/shm/NAME-d",
            "710\n",
        ),
        case(
            "RemoveOnStop",
            listens!("ListenStream=/dev/shm/NAME.sock\nRemoveOnStop=yes\n"),
            "systemctl start NAME.socket; systemctl stop NAME.socket; test -e /dev/shm/NAME.sock || echo gone",
            "gone\n",
        ),
        case(
            "BindIPv6Only",
            listens!("ListenStream=[::]:7171\nBindIPv6Only=ipv6-only\n"),
            FOUR,
            "6",
        ),
    ]
}
