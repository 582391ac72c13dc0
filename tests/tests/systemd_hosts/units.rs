//! What happens to units past the agent, and without it.

use crate::site::{Site, config, until};

fn main_pid(site: &Site, slot: &str) -> String {
    let unit = format!("billing@{slot}");
    site.hosts.host(0).must(&["systemctl", "show", "--value", "--property=MainPID", &unit]).expect("shown")
}

#[test]
fn a_unit_outlives_its_agent_is_adopted_and_may_not_be_restarted_past_it() {
    let Some(site) = Site::serving(1) else { return };
    let (host, pid) = (site.hosts.host(0), main_pid(&site, "a"));
    host.must(&["systemctl", "restart", "handover-agent@billing"]).expect("restarted");
    until("the adoption", || site.logs().contains("adopted a running instance"));
    assert_eq!(main_pid(&site, "a"), pid, "the process goes on");

    // Without a word of it in its state file the agent knows it by its variables.
    host.must(&["systemctl", "stop", "handover-agent@billing"]).expect("stopped");
    host.must(&["python3", "-c", FORGET, "/var/lib/handover/billing/agent.json"]).expect("forgotten");
    host.must(&["systemctl", "start", "handover-agent@billing"]).expect("started");
    until("the find", || site.logs().contains("found a running instance that the state file does not know"));
    until("it to serve again", || site.serving_count("1.0.0") == 1);
    assert_eq!(main_pid(&site, "a"), pid, "the process goes on");

    // Somebody restarts the unit: that process is none that the lease knows.
    // It may be told that its order was taken back: the agent stops what it began.
    host.run(&["systemctl", "restart", "billing@a"]).expect("a command");
    // Whether the agent sees the end of its own process or the start of the other one first is chance.
    until("the end of the instance", || site.logs().contains("ended slot=a"));
    until("a new instance to serve", || main_pid(&site, "a").trim() != "0" && site.serving_count("1.0.0") == 1);
    let marks =
        host.must(&["sh", "-c", "tr '\\0' '\\n' </proc/$0/environ", main_pid(&site, "a").trim()]).expect("read");
    let variables = host.must(&["cat", "/run/handover/billing/slots/a.env"]).expect("read");
    let id = marks.lines().find_map(|line| line.strip_prefix("HANDOVER_INSTANCE=")).expect("marked");
    assert!(
        variables.contains(&format!("HANDOVER_INSTANCE=\"{id}\"")),
        "it runs as the instance that the agent started"
    );
}

/// What outlives its main process under `KillMode=process`.
const HELPER: &str = "[Service]\nKillMode=process\nExecStartPost=/bin/sh -c 'setsid sleep 4711 >/dev/null 2>&1 &'\n";

#[test]
fn what_a_unit_left_while_no_agent_watched_is_ended_and_proven_gone_before_the_next_start() {
    let Some(site) = Site::start(1) else { return };
    let host = site.hosts.host(0);
    host.put("/etc/systemd/system/billing@.service.d/helper.conf", HELPER).expect("written");
    host.must(&["systemctl", "daemon-reload"]).expect("reloaded");
    site.bring_up();
    let helpers = || host.run(&["pgrep", "-f", "sleep 4711"]).expect("asked").out;
    let left = helpers().trim().to_owned();
    assert!(!left.is_empty(), "it has a helper");
    host.must(&["systemctl", "stop", "handover-agent@billing"]).expect("stopped");
    host.must(&["kill", "-KILL", main_pid(&site, "a").trim()]).expect("killed");
    until("the unit to be at rest", || {
        host.run(&["systemctl", "is-failed", "billing@a"]).is_ok_and(|said| said.code == 0)
    });
    assert_eq!(helpers().trim(), left, "it outlives the main process");
    host.must(&["systemctl", "start", "handover-agent@billing"]).expect("started");
    until("the proven end", || site.logs().contains("ended slot=a") && site.logs().contains("proven=true"));
    assert!(!helpers().contains(&left), "nothing of it is left");
    until("a new instance to serve", || site.serving_count("1.0.0") == 1);
}

/// Leaves everything in the state file but what runs; its first line is a checksum of the rest.
const FORGET: &str = "
import hashlib, json, sys
head, rest = open(sys.argv[1]).read().split('\\n', 1)
state = json.loads(rest)
state['instances'] = {}
body = json.dumps(state)
head = head.rsplit(' ', 1)[0] + ' ' + hashlib.sha256(body.encode()).hexdigest()
open(sys.argv[1], 'w').write(head + '\\n' + body + '\\n')
";

#[test]
fn a_unit_that_would_kill_a_draining_service_early_is_refused_with_both_numbers() {
    let Some(site) = Site::start(1) else { return };
    let host = site.hosts.host(0);
    let run = ["timeout", "10", "handover-agent", "run", "--config", "/etc/handover/billing.toml"];
    let jobs = "[[drain.jobs]]\nname = \"runs\"\nhttp = { path = \"/jobs\", count = \"active\" }\ndeadline = \"90s\"\nat_deadline = \"wait\"\n";
    host.put("/etc/handover/billing.toml", &config(host, jobs)).expect("written");
    let said = host.run(&run).expect("run");
    assert!(said.code == 1 && said.err.contains("TimeoutStopSec=20s") && said.err.contains("90s"), "{said:?}");
    host.put("/etc/handover/billing.toml", &config(host, "")).expect("written");
    host.put("/etc/systemd/system/billing@.service.d/x.conf", "[Service]\nRestart=always\n").expect("written");
    host.must(&["systemctl", "daemon-reload"]).expect("reloaded");
    let said = host.run(&run).expect("run");
    assert!(said.code == 1 && said.err.contains("Restart=always"), "{said:?}");
}

/// Holds up whoever starts after it, until it is stopped.
const HOLD: &str = "[Service]\nType=oneshot\nExecStart=/bin/sleep 4712\n";

#[test]
fn an_order_that_waits_for_its_turn_while_an_agent_begins_is_taken_back() {
    let Some(site) = Site::serving(1) else { return };
    let host = site.hosts.host(0);
    host.must(&["systemctl", "stop", "handover-agent@billing"]).expect("stopped");
    host.put("/etc/systemd/system/hold.service", HOLD).expect("written");
    host.put("/etc/systemd/system/billing@.service.d/hold.conf", "[Unit]\nAfter=hold.service\n").expect("written");
    host.must(&["systemctl", "daemon-reload"]).expect("reloaded");
    for unit in ["hold", "billing@b"] {
        host.must(&["systemctl", "start", "--no-block", unit]).expect("ordered");
    }
    let ordered = || host.must(&["systemctl", "list-jobs", "--no-legend"]).expect("listed").contains("billing@b");
    assert!(ordered(), "an agent that ended here would leave this to the next one");
    host.must(&["systemctl", "start", "handover-agent@billing"]).expect("started");
    until("the order to be taken back", || !ordered());
    until("what serves to be adopted", || site.serving_count("1.0.0") == 1);
    host.must(&["systemctl", "stop", "hold"]).expect("stopped");
    let said = host.run(&["systemctl", "is-active", "billing@b"]).expect("asked");
    assert_eq!(said.out.trim(), "inactive", "nothing runs that no agent knows of");
}
