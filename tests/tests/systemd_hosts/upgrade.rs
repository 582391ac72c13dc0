//! The main job on booted hosts.

use handover_tests::load::{Load, LoadSpec};

use crate::site::{Site, until};

fn load(site: &Site) -> Load {
    let load = Load::start(LoadSpec::new(site.gates(), 60.0)).expect("load");
    until("the load to be answered", || load.answered_well() > 50);
    load
}

#[test]
fn three_hosts_are_upgraded_under_load_while_agents_restart_and_nothing_is_lost() {
    let Some(site) = Site::serving(3) else { return };
    site.install("1.1.0", "");
    let load = load(&site);
    let (code, said) = std::thread::scope(|scope| {
        let rollout = scope.spawn(|| site.roll(&site.spec("1.1.0")));
        until("the first host to serve the new version", || site.serving_count("1.1.0") >= 1);
        // One agent is restarted, another one upgraded: its program is replaced first.
        site.hosts.host(1).must(&["systemctl", "restart", "handover-agent@billing"]).expect("restarted");
        let replace =
            "cp --dereference /usr/bin/handover-agent /usr/bin/newer && mv /usr/bin/newer /usr/bin/handover-agent";
        site.hosts.host(2).must(&["sh", "-c", replace]).expect("replaced");
        site.hosts.host(2).must(&["systemctl", "restart", "handover-agent@billing"]).expect("restarted");
        rollout.join().expect("the rollout's command")
    });
    assert_eq!(code, 0, "{said}{}", site.logs());
    assert_eq!(site.serving_count("1.1.0"), 3);
    let receipt = load.stop().expect("the load's numbers");
    let versions = &receipt.total.versions;
    assert!(versions.get("1.0.0") > Some(&0) && versions.get("1.1.0") > Some(&0), "{versions:?}");
    assert_eq!(receipt.total.ours(), 0, "{:?}\n{}", receipt.failures, site.logs());
}

#[test]
fn a_host_that_lost_its_power_boots_and_serves_what_it_served() {
    let Some(mut site) = Site::serving(2) else { return };
    site.hosts
        .host(0)
        .must(&["systemctl", "enable", "handover-gate@billing", "handover-agent@billing"])
        .expect("enabled");
    site.hosts.cut_power(0).expect("cut");
    until("the lost host to be noticed", || site.serving_count("1.0.0") == 1);
    site.hosts.boot(0).expect("booted");
    until("both hosts to serve again", || site.serving_count("1.0.0") == 2);
}
