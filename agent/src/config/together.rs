//! Tables of the config that do not go together, though each is fine by itself.

use super::{ConfigError, File, Unfit};
use crate::driver::DriverSettings;
use crate::duration::render;

/// What the driver cannot do that another table counts on.
pub(super) fn check(file: &File, has_gate: bool, unfit: &Unfit<'_>) -> Result<(), ConfigError> {
    let DriverSettings::Exec(driver) = &file.driver else { return Ok(()) };
    if !has_gate {
        let problem = "is \"signal\": connections are counted in the network namespace of an instance's process, and driver.kind \
                       \"exec\" knows no process, so that no drain would ever end";
        let fix = "use mode \"proxy\" or \"tcp\", or another driver";
        return Err(unfit("gate.mode", problem.into(), fix));
    }
    if let Some(lease) = file.lease.as_ref().filter(|lease| lease.enabled) {
        let (takes, half) = (driver.kill_time(), lease.c_kill / 2);
        if takes > half {
            let problem = format!(
                "and `driver.every` let a kill take {}, which is more than half of `lease.c_kill` ({}): no instance would ever \
                 take the lease",
                render(takes),
                render(half)
            );
            let fix = format!("lower them, or write c_kill = \"{}\" or more into [lease]", render(takes * 2));
            return Err(unfit("driver.kill_limit", problem, &fix));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    const GOOD: &str = r#"
        agent = "app-01"
        service = "billing"
        listen = "127.0.0.1:7101"
        operations = "127.0.0.1:7102"
        state_dir = "/tmp/state"
        runtime_dir = "/tmp/run"
        [gate]
        mode = "proxy"
        listen = "127.0.0.1:8080"
        [driver]
        kind = "exec"
        builds = "/builds/billing"
        start = ["up", "{slot}"]
        stop = ["down", "{slot}"]
        status = ["look", "{slot}"]
        kill_limit = "2s"
        every = "500ms"
        [[probe]]
        name = "ready"
        http = { path = "/ready" }
        affects = "ready"
        [lease]
        ttl = "15s"
        c_kill = "5s"
        [[slot]]
        name = "a"
        port = 9001
    "#;

    fn refused(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        Config::parse(Path::new("x.toml"), &GOOD.replacen(from, to, 1)).expect_err(to).to_string()
    }

    #[test]
    fn commands_and_the_lease_go_together_if_a_kill_may_not_take_too_long() {
        Config::parse(Path::new("x.toml"), GOOD).expect("a good config");
        let error = refused("every = \"500ms\"", "every = \"600ms\"");
        for part in ["driver.kill_limit", "driver.every", "2600ms", "lease.c_kill", "2500ms", "c_kill = \"5200ms\""] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let off = GOOD.replace("ttl = \"15s\"\n        c_kill = \"5s\"", "enabled = false");
        Config::parse(Path::new("x.toml"), &off).expect("nobody takes it");
    }

    #[test]
    fn where_connections_are_counted_by_process_commands_are_refused() {
        let gate = "mode = \"proxy\"\n        listen = \"127.0.0.1:8080\"";
        let error = refused(gate, "mode = \"signal\"\n        [balancer]\n        settle = \"3s\"");
        assert!(error.contains("`gate.mode`") && error.contains("no drain would ever end"), "{error}");
    }

    #[test]
    fn with_two_slots_every_command_must_be_about_one_of_them() {
        let two = "[[slot]]\n        name = \"b\"\n        port = 9002\n        [[slot]]\n        name = \"a\"";
        let both = GOOD.replacen("[[slot]]\n        name = \"a\"", two, 1);
        let parse = |text: &str| Config::parse(Path::new("x.toml"), text).map_err(|error| error.to_string());
        parse(&both).expect("a good config");
        let shared = both.replace("[\"down\", \"{slot}\"]", "[\"down\"]");
        let error = parse(&shared).expect_err("one command for both");
        assert!(error.contains("`stop`") && error.contains("2 slots") && error.contains("{slot}"), "{error}");
        for own in ["[\"down\", \"{port}\"]", "[\"sh\", \"-c\", \"down $HANDOVER_SLOT\"]"] {
            parse(&shared.replace("[\"down\"]", own)).expect(own);
        }
        let variable = shared
            .replace("[[probe]]", "[driver.env]\n        COMPOSE_PROJECT_NAME = \"billing-{slot}\"\n        [[probe]]");
        parse(&variable).expect("its variables differ");
        parse(&GOOD.replace("{slot}", "it")).expect("of one slot there is nothing to tell apart");
    }
}
