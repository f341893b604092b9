//! What `[Service]` may say.

use super::{Case, DID, STATE, WROTE, case, other};

pub fn types() -> Vec<Case> {
    const EARLY: &str = "systemctl start NAME; test -e /dev/shm/NAME || echo early; systemctl stop NAME";
    const SLOW: &str =
        "[Service]\nType=exec\nExecStart=/bin/sh -c 'sleep 0.5; touch /dev/shm/NAME; sleep 2'\n";
    const READY: &str = "[Service]\nType=notify\nExecStart=/usr/bin/perl -MIO::Socket::UNIX -e 'sleep 1; open F, \">/dev/shm/NAME\"; \
        close F; socket(S, AF_UNIX, SOCK_DGRAM, 0); send S, \"READY=1\", 0, pack_sockaddr_un($$ENV{NOTIFY_SOCKET}); sleep 99'\n\
        ExecReload=\n";
    vec![
        other(case("Type=exec", SLOW, EARLY, "early\n"), "Type=oneshot"),
        case(
            "Type=oneshot",
            "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'sleep 0.3; touch /dev/shm/NAME'\n",
            DID,
            "did\n",
        ),
        case("Type=notify", READY, DID, "did\n"),
        case(
            "Type=notify-reload",
            "[Service]\nType=notify-reload\nExecStart=/usr/bin/perl -MIO::Socket::UNIX -e '$$SIG{HUP} = sub { open F, \">/dev/shm/NAME\"; \
             close F }; socket(S, AF_UNIX, SOCK_DGRAM, 0); my $$to = $$ENV{NOTIFY_SOCKET} or sleep 99; \
             send S, \"READY=1\", 0, pack_sockaddr_un($$to); sleep 1 while 1'\n",
            "systemctl start NAME; systemctl reload NAME 2>/dev/null; sleep 0.5; test -e /dev/shm/NAME && echo reloaded",
            "reloaded\n",
        ),
        case(
            "Type=forking",
            "[Service]\nType=forking\nExecStart=/bin/sh -c 'sleep 99 & echo $$! >/dev/shm/NAME'\n",
            "systemctl start NAME; systemctl show -p MainPID --value NAME | cmp - /dev/shm/NAME && echo same",
            "same\n",
        ),
        case(
            "Type=dbus",
            "[Service]\nType=dbus\nExecStart=/bin/sleep 99\n",
            "systemctl start NAME; grep -c 'Type=dbus is not available: taken as simple' /run/vend/logs/NAME.log",
            "1\n",
        ),
        other(
            case(
                "Type=simple",
                "[Service]\nType=simple\nExecStart=/bin/sh -c 'sleep 0.5; touch /dev/shm/NAME; sleep 2'\n",
                EARLY,
                "early\n",
            ),
            "Type=oneshot",
        ),
        other(
            case(
                "Type=idle",
                "[Service]\nType=idle\nExecStart=/bin/sh -c 'sleep 0.5; touch /dev/shm/NAME; sleep 2'\n",
                EARLY,
                "early\n",
            ),
            "Type=oneshot",
        ),
    ]
}

pub fn commands() -> Vec<Case> {
    const ALL: &str = "[Service]\nType=oneshot\nExecStartPre=/bin/sh -c 'echo pre >>/dev/shm/NAME'\nExecStart=/bin/sh -c 'echo \
        start >>/dev/shm/NAME'\nExecStartPost=/bin/sh -c 'echo post >>/dev/shm/NAME'\n";
    const STOPPED: &str = "systemctl start NAME; systemctl stop NAME; cat /dev/shm/NAME";
    const AS_ROOT: &str = "systemctl start NAME; test -e /run/NAME && echo did || echo nothing";
    vec![
        case(
            "ExecCondition",
            "[Service]\nType=oneshot\nExecCondition=/bin/false\nExecStart=/bin/touch /dev/shm/NAME\n",
            DID,
            "nothing\n",
        ),
        case("ExecStartPre", ALL, WROTE, "pre\nstart\npost\n"),
        case("ExecStart", ALL, WROTE, "pre\nstart\npost\n"),
        case("ExecStartPost", ALL, WROTE, "pre\nstart\npost\n"),
        case(
            "ExecReload",
            "[Service]\nExecStart=/bin/sleep 99\nExecReload=/bin/sh -c 'echo $$MAINPID >/dev/shm/NAME'\n",
            "systemctl start NAME; systemctl reload NAME 2>/dev/null; systemctl show -p MainPID --value NAME | cmp - /dev/shm/NAME && echo same",
            "same\n",
        ),
        case(
            "ExecStop",
            "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sh -c 'echo stop >>/dev/shm/NAME'\n",
            STOPPED,
            "stop\n",
        ),
        case(
            "ExecStopPost",
            "[Service]\nExecStart=/bin/sleep 99\nExecStopPost=/bin/sh -c 'echo after $$EXIT_CODE $$EXIT_STATUS >>/dev/shm/NAME'\n",
            STOPPED,
            "after killed 15\n",
        ),
        other(
            case(
                "ExecStart=-",
                "[Service]\nType=oneshot\nExecStart=-/bin/false\n",
                "systemctl start NAME 2>/dev/null; echo $?",
                "0\n",
            ),
            "ExecStart=",
        ),
        other(
            case(
                "ExecStart=@",
                "[Service]\nType=oneshot\nExecStart=@/bin/sh my-name -c 'echo $$0 >/dev/shm/NAME'\n",
                WROTE,
                "my-name\n",
            ),
            "ExecStart=",
        ),
        other(
            case(
                "ExecStart=:",
                "[Service]\nType=oneshot\nEnvironment=A=b\nExecStart=:/bin/touch /dev/shm/NAME-${A}\n",
                "systemctl start NAME; ls /dev/shm | grep ^NAME- | cut -d- -f2",
                "${A}\n",
            ),
            "ExecStart=",
        ),
        other(
            case(
                "ExecStart=+",
                "[Service]\nType=oneshot\nUser=nobody\nExecStart=+/bin/touch /run/NAME\n",
                AS_ROOT,
                "did\n",
            ),
            "ExecStart=",
        ),
        other(
            case(
                "ExecStart=!",
                "[Service]\nType=oneshot\nUser=nobody\nExecStart=!/bin/touch /run/NAME\n",
                AS_ROOT,
                "did\n",
            ),
            "ExecStart=",
        ),
    ]
}

pub fn processes() -> Vec<Case> {
    vec![
        case(
            "User",
            "[Service]\nType=oneshot\nUser=nobody\nExecStart=/bin/sh -c 'id -un >/dev/shm/NAME'\n",
            WROTE,
            "nobody\n",
        ),
        case(
            "Group",
            "[Service]\nType=oneshot\nGroup=daemon\nExecStart=/bin/sh -c 'id -gn >/dev/shm/NAME'\n",
            WROTE,
            "daemon\n",
        ),
        case(
            "UMask",
            "[Service]\nType=oneshot\nUMask=0077\nExecStart=/bin/sh -c 'umask >/dev/shm/NAME'\n",
            WROTE,
            "0077\n",
        ),
        case(
            "Environment",
            "[Service]\nType=oneshot\nEnvironment=A=1 \"B=two words\"\nExecStart=/bin/sh -c 'echo $$A ${B} >/dev/shm/NAME'\n",
            WROTE,
            "1 two words\n",
        ),
        case(
            "EnvironmentFile",
            "[Service]\nType=oneshot\nEnvironmentFile=/dev/shm/NAME-env\nEnvironmentFile=-/dev/shm/none\nExecStart=/bin/sh -c 'echo $$A >/dev/shm/NAME'\n",
            "echo 'A=\"from a file\"' >/dev/shm/NAME-env; systemctl start NAME; cat /dev/shm/NAME",
            "from a file\n",
        ),
        case(
            "UnsetEnvironment",
            "[Service]\nType=oneshot\nUnsetEnvironment=GREETING\nExecStart=/bin/sh -c 'echo $${GREETING-none} >/dev/shm/NAME'\n",
            WROTE,
            "none\n",
        ),
        case(
            "WorkingDirectory",
            "[Service]\nType=oneshot\nWorkingDirectory=/usr\nExecStart=/bin/sh -c 'pwd >/dev/shm/NAME'\n",
            WROTE,
            "/usr\n",
        ),
        case(
            "LimitNOFILE",
            "[Service]\nType=oneshot\nLimitNOFILE=123\nExecStart=/bin/sh -c 'ulimit -n >/dev/shm/NAME'\n",
            WROTE,
            "123\n",
        ),
        case(
            "Nice",
            "[Service]\nType=oneshot\nNice=7\nExecStart=/bin/sh -c 'nice >/dev/shm/NAME'\n",
            WROTE,
            "7\n",
        ),
        case(
            "OOMScoreAdjust",
            "[Service]\nType=oneshot\nOOMScoreAdjust=321\nExecStart=/bin/sh -c 'cat /proc/self/oom_score_adj >/dev/shm/NAME'\n",
            WROTE,
            "321\n",
        ),
        case(
            "PermissionsStartOnly",
            "[Service]\nType=oneshot\nUser=nobody\nPermissionsStartOnly=yes\nExecStartPre=/bin/sh -c 'id -un >>/dev/shm/NAME; chmod 666 /dev/shm/NAME'\n\
             ExecStart=/bin/sh -c 'id -un >>/dev/shm/NAME'\n",
            WROTE,
            "root\nnobody\n",
        ),
        case(
            "PrivateTmp",
            "[Service]\nType=oneshot\nPrivateTmp=yes\nExecStart=/bin/true\n",
            "systemctl start NAME; grep -c 'PrivateTmp= is ignored' /run/vend/logs/NAME.log",
            "1\n",
        ),
    ]
}

/// Each kind, owned by the unit's user, with a mode of its own.
pub fn directories() -> Vec<Case> {
    macro_rules! kinds {
        ($(($kind:literal, $base:literal, $variable:literal)),*) => {
            vec![$(
                case(
                    $kind,
                    concat!("[Service]\nUser=nobody\n", $kind, "=NAME\nExecStart=/bin/sh -c 'echo $$", $variable, " >/dev/shm/NAME; sleep 99'\n"),
                    concat!("systemctl start NAME; sleep 0.2; cat /dev/shm/NAME; stat -c '%U %a' ", $base, "/NAME 2>/dev/null"),
                    concat!($base, "/NAME\nnobody 755\n"),
                ),
                case(
                    concat!($kind, "Mode"),
                    concat!("[Service]\n", $kind, "Mode=0710\n", $kind, "=NAME\nExecStart=/bin/sleep 99\n"),
                    concat!("systemctl start NAME; stat -c %a ", $base, "/NAME"),
                    "710\n",
                ),
            )*]
        };
    }
    let mut cases = kinds![
        ("RuntimeDirectory", "/run", "RUNTIME_DIRECTORY"),
        ("StateDirectory", "/var/lib", "STATE_DIRECTORY"),
        ("CacheDirectory", "/var/cache", "CACHE_DIRECTORY"),
        ("LogsDirectory", "/var/log", "LOGS_DIRECTORY"),
        ("ConfigurationDirectory", "/etc", "CONFIGURATION_DIRECTORY")
    ];
    cases.push(case(
        "RuntimeDirectoryPreserve",
        "[Service]\nRuntimeDirectory=NAME\nRuntimeDirectoryPreserve=yes\nExecStart=/bin/sleep 99\n",
        "systemctl start NAME; systemctl stop NAME; ls -d /run/NAME",
        "/run/NAME\n",
    ));
    cases
}

pub fn life() -> Vec<Case> {
    const TIMES: &str =
        "systemctl start NAME; sleep 1; n=$(wc -l </dev/shm/NAME); test $n -gt 1 && echo again || echo once";
    const CHILD: &str = "systemctl start NAME; sleep 0.3; systemctl stop NAME; sleep 0.3; kill -0 $(cat /dev/shm/NAME) 2>/dev/null && echo lives || echo gone";
    vec![
        case(
            "Restart",
            "[Service]\nRestart=on-failure\nExecStart=/bin/sh -c 'echo x >>/dev/shm/NAME; exit 1'\n",
            TIMES,
            "again\n",
        ),
        other(
            case(
                "Restart=on-success",
                "[Service]\nRestart=on-success\nExecStart=/bin/sh -c 'echo x >>/dev/shm/NAME; exit 1'\n",
                TIMES,
                "once\n",
            ),
            "Restart=always",
        ),
        other(
            case(
                "Restart=on-abnormal",
                "[Service]\nRestart=on-abnormal\nExecStart=/bin/sh -c 'echo x >>/dev/shm/NAME; kill -9 $$$$'\n",
                TIMES,
                "again\n",
            ),
            "Restart=on-success",
        ),
        case(
            "RestartSec",
            "[Service]\nRestart=always\nRestartSec=1h\nExecStart=/bin/sh -c 'echo x >>/dev/shm/NAME'\n",
            TIMES,
            "once\n",
        ),
        case(
            "RestartPreventExitStatus",
            "[Service]\nRestart=always\nRestartPreventExitStatus=3\nExecStart=/bin/sh -c 'echo x >>/dev/shm/NAME; exit 3'\n",
            TIMES,
            "once\n",
        ),
        case(
            "RestartForceExitStatus",
            "[Service]\nRestartForceExitStatus=3\nExecStart=/bin/sh -c 'echo x >>/dev/shm/NAME; exit 3'\n",
            TIMES,
            "again\n",
        ),
        case(
            "SuccessExitStatus",
            "[Service]\nSuccessExitStatus=3\nExecStart=/bin/sh -c 'exit 3'\n",
            "systemctl start NAME; sleep 0.3; systemctl is-failed NAME",
            "inactive\n",
        ),
        case(
            "RemainAfterExit",
            "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
            STATE,
            "active\n",
        ),
        case(
            "PIDFile",
            "[Service]\nType=forking\nPIDFile=/dev/shm/NAME\nExecStart=/bin/sh -c 'sleep 98 & sleep 99 & echo $$! >/dev/shm/NAME'\n",
            "systemctl start NAME; systemctl show -p MainPID --value NAME | cmp - /dev/shm/NAME && echo same",
            "same\n",
        ),
        case(
            "GuessMainPID",
            "[Service]\nType=forking\nGuessMainPID=no\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'sleep 99 &'\n",
            "systemctl start NAME; systemctl show -p MainPID --value NAME",
            "0\n",
        ),
        case(
            "TimeoutStartSec",
            "[Service]\nTimeoutStartSec=1\nType=oneshot\nExecStart=/bin/sleep 99\n",
            "timeout 4 systemctl start NAME 2>/dev/null; echo $?; systemctl is-failed NAME; systemctl stop NAME",
            "1\nfailed\n",
        ),
        case(
            "TimeoutStopSec",
            "[Service]\nTimeoutStopSec=1\nExecStart=/bin/sh -c 'trap : TERM; touch /dev/shm/NAME; while :; do sleep 0.1; done'\n",
            "systemctl start NAME; sleep 0.3; timeout 5 systemctl stop NAME; echo $?",
            "0\n",
        ),
        case(
            "TimeoutSec",
            "[Service]\nTimeoutSec=1\nType=notify\nExecStart=/bin/sleep 99\n",
            "timeout 4 systemctl start NAME 2>/dev/null; echo $?; systemctl is-failed NAME; systemctl stop NAME",
            "1\nfailed\n",
        ),
        case(
            "KillMode",
            "[Service]\nKillMode=process\nExecStart=/bin/sh -c 'sleep 99 & echo $$! >/dev/shm/NAME; wait'\n",
            CHILD,
            "lives\n",
        ),
        other(
            case(
                "KillMode=mixed",
                "[Service]\nKillMode=mixed\nExecStart=/bin/sh -c 'sh -c \"trap \\'touch /dev/shm/NAME; exit\\' TERM; while :; do sleep 0.1; done\" & \
                 trap \"exit 0\" TERM; wait'\n",
                "systemctl start NAME; sleep 0.5; systemctl stop NAME; test -e /dev/shm/NAME && echo asked || echo killed",
                "killed\n",
            ),
            "KillMode=control-group",
        ),
        case(
            "KillMode=none",
            "[Service]\nTimeoutStopSec=1\nKillMode=none\nExecStart=/bin/sh -c 'echo $$$$ >/dev/shm/NAME; exec sleep 99'\n",
            CHILD,
            "lives\n",
        ),
        case(
            "KillSignal",
            "[Service]\nKillSignal=SIGINT\nExecStart=/bin/sh -c 'trap \"echo int >/dev/shm/NAME; exit 0\" INT; while :; do sleep 0.1; done'\n",
            "systemctl start NAME; sleep 0.3; systemctl stop NAME; cat /dev/shm/NAME",
            "int\n",
        ),
        case(
            "SendSIGKILL",
            "[Service]\nTimeoutStopSec=1\nSendSIGKILL=no\nExecStart=/bin/sh -c 'trap : TERM; echo $$$$ >/dev/shm/NAME; while :; do sleep 0.1; done'\n",
            CHILD,
            "lives\n",
        ),
    ]
}
