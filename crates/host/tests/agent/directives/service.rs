//! What `[Service]` may say.

use super::{Case, DID, STATE, WROTE, case, other};

pub fn types() -> Vec<Case> {
    const EARLY: &str = "systemctl start NAME; test -e /dev/shm/NAME || echo early; systemctl stop NAME";
    const SLOW: &str = "[Service]\nType=exec\nExecStart=/bin/sh -c 'sleep 2; touch /dev/shm/NAME; sleep 1'\n";
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
            "systemctl start NAME; systemctl reload NAME 2>/dev/null; within 10 'test -e /dev/shm/NAME' && echo reloaded",
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
                "[Service]\nType=simple\nExecStart=/bin/sh -c 'sleep 2; touch /dev/shm/NAME; sleep 1'\n",
                EARLY,
                "early\n",
            ),
            "Type=oneshot",
        ),
        other(
            case(
                "Type=idle",
                "[Service]\nType=idle\nExecStart=/bin/sh -c 'sleep 2; touch /dev/shm/NAME; sleep 1'\n",
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
            "after killed TERM\n",
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
                "ExecStart=!!",
                "[Service]\nType=oneshot\nUser=nobody\nExecStart=!!/bin/touch /run/NAME\n",
                AS_ROOT,
                "did\n",
            ),
            "ExecStart=",
        ),
        other(
            case(
                "Type=oneshot",
                "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo a ; echo b' ; /bin/sh -c 'echo c >>/dev/shm/NAME'\nExecStart=/bin/sh -c 'echo d ; echo e >>/dev/shm/NAME'\n",
                "systemctl start NAME 2>/dev/null; echo $?; cat /dev/shm/NAME; grep -c '^[ab]$' /run/vend/logs/NAME.log",
                "0\nc\ne\n2\n",
            ),
            "Type=simple",
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
        other(
            case(
                "EnvironmentFile=-",
                "[Service]\nType=oneshot\nEnvironmentFile=-/dev/shm/none\nExecStart=/bin/touch /dev/shm/NAME\n",
                DID,
                "did\n",
            ),
            "EnvironmentFile=",
        ),
        other(
            case(
                "EnvironmentFile=/dev/shm/NAME-env",
                "[Service]\nType=oneshot\nEnvironment=A=unit\nEnvironmentFile=/dev/shm/NAME-env\nExecStart=/bin/sh -c 'printf \"%%s\" \"$$A\" >/dev/shm/NAME'\n",
                "echo 'A={\"b\":  \"c\"}' >/dev/shm/NAME-env; systemctl start NAME; cat /dev/shm/NAME",
                "{\"b\":  \"c\"}",
            ),
            "EnvironmentFile=-/dev/shm/none",
        ),
        other(
            case(
                "User=65534",
                "[Service]\nType=oneshot\nUser=65534\nGroup=1\nExecStart=/bin/sh -c 'id -u >/dev/shm/NAME; id -g >>/dev/shm/NAME'\n",
                WROTE,
                "65534\n1\n",
            ),
            "User=0",
        ),
        other(
            case(
                "WorkingDirectory=-",
                "[Service]\nType=oneshot\nWorkingDirectory=-/none\nExecStart=/bin/sh -c 'pwd >/dev/shm/NAME'\n",
                WROTE,
                "/\n",
            ),
            "WorkingDirectory=",
        ),
        other(
            case(
                "%H",
                "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo %H %i >/dev/shm/NAME'\n",
                "systemctl start NAME; test \"$(cat /dev/shm/NAME)\" = $(uname -n) && echo same",
                "same\n",
            ),
            "%%H",
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
                    concat!("systemctl start NAME; within 30 'test -s /dev/shm/NAME'; cat /dev/shm/NAME; stat -c '%U %a' ", $base, "/NAME 2>/dev/null"),
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
        "RuntimeDirectoryMode=2750",
        "[Service]\nUser=nobody\nGroup=daemon\nRuntimeDirectoryMode=2750\nRuntimeDirectory=NAME NAME-d/deep\nExecStart=/bin/sh -c 'echo $$RUNTIME_DIRECTORY >/dev/shm/NAME; sleep 99'\n",
        "systemctl start NAME; within 30 'test -s /dev/shm/NAME'; cat /dev/shm/NAME; cd /run; stat -c '%U %G %a' NAME NAME-d/deep; stat -c '%U' NAME-d; \
         systemctl stop NAME; ls -d NAME NAME-d/deep 2>/dev/null",
        "/run/NAME:/run/NAME-d/deep\nnobody daemon 2750\nnobody daemon 2750\nroot\n",
    ));
    cases.push(case(
        "RuntimeDirectoryPreserve",
        "[Service]\nRuntimeDirectory=NAME\nRuntimeDirectoryPreserve=yes\nExecStart=/bin/sleep 99\n",
        "systemctl start NAME; systemctl stop NAME; ls -d /run/NAME",
        "/run/NAME\n",
    ));
    cases
}

pub fn life() -> Vec<Case> {
    // One that is not started again comes to rest.
    const TIMES: &str = "systemctl start NAME; \
        within 30 'test $(wc -l </dev/shm/NAME) -gt 1 || systemctl is-failed NAME | grep -qx \"inactive\\|failed\"'; \
        test $(wc -l </dev/shm/NAME) -gt 1 && echo again || echo once";
    const SOON: &str =
        "systemctl start NAME; within 5 'test $(wc -l </dev/shm/NAME) -gt 1' && echo again || echo once";
    const CHILD: &str = "systemctl start NAME; within 30 'test -s /dev/shm/NAME'; systemctl stop NAME; \
        within 5 '! kill -0 $(cat /dev/shm/NAME)' && echo gone || echo lives";
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
            SOON,
            "once\n",
        ),
        other(
            case(
                "RestartSec=1min 30s",
                "[Service]\nRestart=always\nRestartSec=1min 30s\nExecStart=/bin/sh -c 'echo x >>/dev/shm/NAME'\n",
                SOON,
                "once\n",
            ),
            "RestartSec=10ms",
        ),
        other(
            case(
                "RestartSec=0",
                "[Service]\nRestart=always\nRestartSec=0\nExecStart=/bin/sh -c 'echo x >>/dev/shm/NAME'\n",
                "systemctl start NAME; within 9 'systemctl is-failed -q NAME'; systemctl is-failed NAME; wc -l </dev/shm/NAME; \
                 systemctl start NAME; within 9 'systemctl is-failed -q NAME'; wc -l </dev/shm/NAME",
                "failed\n5\n10\n",
            ),
            "RestartSec=1h",
        ),
        case(
            "StartLimitBurst",
            "[Unit]\nStartLimitBurst=2\n[Service]\nRestart=always\nRestartSec=10ms\nExecStart=/bin/sh -c 'echo x >>/dev/shm/NAME'\n",
            "systemctl start NAME; within 5 'systemctl is-failed -q NAME'; systemctl is-failed NAME; wc -l </dev/shm/NAME",
            "failed\n2\n",
        ),
        case(
            "StartLimitIntervalSec",
            "[Unit]\nStartLimitIntervalSec=1min\n[Service]\nRestart=always\nRestartSec=10ms\nExecStart=/bin/sh -c 'echo x >>/dev/shm/NAME'\n",
            "systemctl start NAME; within 5 'systemctl is-failed -q NAME'; systemctl is-failed NAME; wc -l </dev/shm/NAME",
            "failed\n5\n",
        ),
        // A daemon that is asked to end and has no handler for it has ended well.
        other(
            case(
                "Restart=on-failure",
                "[Service]\nRestart=on-failure\nRestartSec=10ms\nExecStart=/bin/sh -c 'echo x >>/dev/shm/NAME; exec sleep 99'\n",
                "systemctl start NAME; within 30 'test -s /dev/shm/NAME'; systemctl kill -s TERM NAME; \
                 within 30 'systemctl is-failed NAME | grep -qx \"inactive\\|failed\"'; systemctl is-failed NAME; wc -l </dev/shm/NAME",
                "inactive\n1\n",
            ),
            "Restart=always",
        ),
        other(
            case(
                "Restart=on-abort",
                "[Service]\nRestart=on-abort\nExecStart=/bin/sh -c 'echo x >>/dev/shm/NAME; exit 1'\n",
                TIMES,
                "once\n",
            ),
            "Restart=on-failure",
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
            "systemctl start NAME; within 30 'systemctl is-failed NAME | grep -qx \"inactive\\|failed\"'; systemctl is-failed NAME",
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
            "timeout 10 systemctl start NAME 2>/dev/null; echo $?; systemctl is-failed NAME; systemctl stop NAME",
            "1\nfailed\n",
        ),
        other(
            case(
                "TimeoutStartSec=infinity",
                "[Service]\nTimeoutStartSec=infinity\nType=oneshot\nExecStart=/bin/sleep 2\n",
                "timeout 10 systemctl start NAME 2>/dev/null; echo $?",
                "0\n",
            ),
            "TimeoutStartSec=500ms",
        ),
        case(
            "TimeoutStopSec",
            "[Service]\nTimeoutStopSec=1\nExecStart=/bin/sh -c 'trap : TERM; touch /dev/shm/NAME; while :; do sleep 0.1; done'\n",
            "systemctl start NAME; within 30 'test -e /dev/shm/NAME'; timeout 15 systemctl stop NAME; echo $?",
            "0\n",
        ),
        case(
            "TimeoutSec",
            "[Service]\nTimeoutSec=1\nType=notify\nExecStart=/bin/sleep 99\n",
            "timeout 10 systemctl start NAME 2>/dev/null; echo $?; systemctl is-failed NAME; systemctl stop NAME",
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
                "[Service]\nKillMode=mixed\nExecStart=/bin/sh -c 'sh -c \"trap \\'touch /dev/shm/NAME; exit\\' TERM; touch /dev/shm/NAME-ready; while :; do sleep 0.1; done\" & \
                 trap \"exit 0\" TERM; wait'\n",
                "systemctl start NAME; within 30 'test -e /dev/shm/NAME-ready'; systemctl stop NAME; test -e /dev/shm/NAME && echo asked || echo killed",
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
            "[Service]\nKillSignal=SIGINT\nExecStart=/bin/sh -c 'trap \"echo int >/dev/shm/NAME; exit 0\" INT; touch /dev/shm/NAME-ready; while :; do sleep 0.1; done'\n",
            "systemctl start NAME; within 30 'test -e /dev/shm/NAME-ready'; systemctl stop NAME; cat /dev/shm/NAME",
            "int\n",
        ),
        other(
            case(
                "KillSignal=10",
                "[Service]\nKillSignal=10\nExecStart=/bin/sh -c 'trap \"echo usr1 >/dev/shm/NAME; exit 0\" USR1; touch /dev/shm/NAME-ready; while :; do sleep 0.1; done'\n",
                "systemctl start NAME; within 30 'test -e /dev/shm/NAME-ready'; systemctl stop NAME; cat /dev/shm/NAME",
                "usr1\n",
            ),
            "KillSignal=SIGTERM",
        ),
        case(
            "SendSIGKILL",
            "[Service]\nTimeoutStopSec=1\nSendSIGKILL=no\nExecStart=/bin/sh -c 'trap : TERM; echo $$$$ >/dev/shm/NAME; while :; do sleep 0.1; done'\n",
            CHILD,
            "lives\n",
        ),
    ]
}
