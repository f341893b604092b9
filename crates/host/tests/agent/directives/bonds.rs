//! What becomes of a unit when another one ends, fails, is stopped or started again: as `systemd.unit(5)` has it.

use super::{Case, case, other};

/// A unit with these lines that stays, and one that it has to do with.
macro_rules! two {
    ($links:literal, $other:literal) => {
        concat!(
            "[Unit]\n",
            $links,
            "[Service]\nExecStart=/bin/sleep 99\n# NAME-b.service\n",
            $other
        )
    };
}

pub fn of_what_ended() -> Vec<Case> {
    const DIES: &str = "systemctl start NAME; systemctl kill -s KILL NAME-b; \
        within 3 '[ $(systemctl is-active NAME) = inactive ]'; systemctl is-active NAME";
    const BOTH: &str = "systemctl start NAME; systemctl kill -s KILL NAME-b; \
        within 3 '[ $(systemctl is-active NAME) = inactive ]'; \
        within 9 'systemctl is-active -q NAME-b'; systemctl is-active NAME NAME-b";
    // It goes on while the other one waits, and is started again with it.
    const AGAIN: &str = "systemctl start NAME; pid() { systemctl show -p MainPID --value NAME; }; old=$(pid); \
        systemctl kill -s KILL NAME-b; within 9 '[ $(systemctl show -p SubState --value NAME-b) = auto-restart ]' && \
        systemctl is-active NAME; within 4 'new=$(pid); test $new -gt 0 && test $new != $old' && echo again";
    vec![
        other(
            case(
                "BindsTo=",
                two!("BindsTo=NAME-b.service\n", "[Service]\nExecStart=/bin/sleep 99\n"),
                DIES,
                "inactive\n",
            ),
            "Requires=",
        ),
        // Its end was not asked for, and nobody asks for its start.
        other(
            case(
                "BindsTo=",
                two!(
                    "BindsTo=NAME-b.service\n",
                    "[Service]\nExecStart=/bin/sleep 99\nRestart=always\nRestartSec=1s\n"
                ),
                BOTH,
                "inactive\nactive\n",
            ),
            "Requires=",
        ),
        other(
            case(
                "Requires=",
                two!(
                    "Requires=NAME-b.service\nAfter=NAME-b.service\n",
                    "[Service]\nExecStart=/bin/sleep 99\nRestart=always\nRestartSec=1s\n"
                ),
                AGAIN,
                "active\nagain\n",
            ),
            "Wants=",
        ),
        other(
            case(
                "PartOf=",
                two!(
                    "Wants=NAME-b.service\nPartOf=NAME-b.service\n",
                    "[Service]\nExecStart=/bin/sleep 99\nRestart=on-failure\nRestartSec=1s\n"
                ),
                AGAIN,
                "active\nagain\n",
            ),
            "After=",
        ),
        // What it needs is started with it, and until that is up it waits longer.
        other(
            case(
                "Requires=",
                "[Unit]\nRequires=NAME-b.service\nAfter=NAME-b.service\n[Service]\nExecStart=/bin/sleep 99\nRestart=always\n\
                 # NAME-b.service\n[Service]\nExecStartPre=/usr/bin/test ! -e /dev/shm/NAME\nExecStart=/bin/sleep 99\n",
                "systemctl start NAME; touch /dev/shm/NAME; systemctl kill -s KILL NAME-b; \
                 within 9 'systemctl is-failed -q NAME-b'; systemctl kill -s KILL NAME; \
                 within 3 'grep -q \"did not start: a unit that\" /run/vend/logs/NAME.log' && echo waits; \
                 rm /dev/shm/NAME; within 9 'systemctl is-active -q NAME NAME-b' && echo up",
                "waits\nup\n",
            ),
            "Wants=",
        ),
        // One that waits for its own start runs as little as one that is stopped.
        other(
            case(
                "Requires=",
                "[Unit]\nRequires=NAME-b.service\n[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=60\n\
                 # NAME-b.service\n[Service]\nExecStart=/bin/sleep 99\n",
                "systemctl start NAME; within 9 '[ $(systemctl show -p SubState --value NAME) = auto-restart ]'; \
                 systemctl stop NAME-b; systemctl is-active NAME",
                "inactive\n",
            ),
            "Wants=",
        ),
    ]
}

pub fn of_starts_and_stops() -> Vec<Case> {
    const STARTED: &str = "systemctl start NAME 2>/dev/null; echo $?; systemctl is-active NAME";
    const RESTARTED: &str = "systemctl start NAME; pid() { systemctl show -p MainPID --value NAME; }; old=$(pid); \
        systemctl restart NAME-b; new=$(pid); test $new -gt 0 && test $new != $old && echo again";
    vec![
        // The failure of what it does not wait for comes too late for it.
        case(
            "After=",
            two!(
                "Requires=NAME-b.service\nAfter=NAME-b.service\n",
                "[Service]\nType=oneshot\nExecStart=/bin/false\n"
            ),
            STARTED,
            "1\ninactive\n",
        ),
        // A condition fails nothing, but there is nothing to be bound to.
        case(
            "BindsTo=",
            two!(
                "Wants=NAME-b.service\nBindsTo=NAME-b.service\nAfter=NAME-b.service\n",
                "[Unit]\nConditionPathExists=/none\n[Service]\nExecStart=/bin/sleep 99\n"
            ),
            STARTED,
            "1\ninactive\n",
        ),
        case(
            "Requisite",
            two!("Requisite=NAME-b.service\n", ""),
            STARTED,
            "1\ninactive\n",
        ),
        other(
            case(
                "Requires=",
                two!(
                    "Requires=NAME-b.service\n",
                    "[Service]\nExecStart=/bin/sleep 99\n"
                ),
                RESTARTED,
                "again\n",
            ),
            "Wants=",
        ),
        other(
            case(
                "BindsTo=",
                two!("BindsTo=NAME-b.service\n", "[Service]\nExecStart=/bin/sleep 99\n"),
                RESTARTED,
                "again\n",
            ),
            "Wants=",
        ),
        // Those that need each other in a circle go down together, once.
        case(
            "Requires=NAME-b.service",
            two!(
                "Requires=NAME-b.service\n",
                "[Unit]\nRequires=NAME.service\n[Service]\nExecStart=/bin/sleep 99\n"
            ),
            "systemctl start NAME; systemctl stop NAME-b; systemctl is-active NAME NAME-b; echo answers",
            "inactive\ninactive\nanswers\n",
        ),
        // By way of another one, which is no service.
        case(
            "PartOf=",
            "[Unit]\nPartOf=NAME-b.target\n[Service]\nExecStart=/bin/sleep 99\n# NAME-b.target\n[Unit]\n\
             Requires=NAME-c.service\n# NAME-c.service\n[Service]\nExecStart=/bin/sleep 99\n",
            "systemctl start NAME NAME-b.target; systemctl stop NAME-c; systemctl is-active NAME",
            "inactive\n",
        ),
    ]
}
