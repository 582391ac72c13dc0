use super::*;

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
    kind = "process"
    builds = "/builds/billing"
    command = ["{builds}/{version}/billing", "--port", "{port}"]
    [[probe]]
    name = "ready"
    http = { path = "/ready" }
    affects = "ready"
    [lease]
    [[slot]]
    name = "a"
    port = 9001
    [[slot]]
    name = "b"
    port = 9002
"#;

fn error(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    let text = GOOD.replacen(from, to, 1);
    Config::parse(Path::new("billing.toml"), &text).expect_err(to).to_string()
}

#[test]
fn a_short_file_is_enough() {
    let config = Config::parse(Path::new("billing.toml"), GOOD).expect("a good config");
    assert_eq!(config.env.as_str(), "default");
    assert_eq!(config.gate.expect("a gate").control, Path::new("/tmp/run/gate.sock"));
    assert_eq!(config.slots.len(), 2);
    assert_eq!(config.store.endpoints, [handover_store::client::EMBEDDED_ADDRESS]);
}

#[test]
fn every_mistake_names_the_file_the_field_and_the_fix() {
    let cases = [
        ("agent = \"app-01\"", "agent = \"App 1\"", "lower-case"),
        ("listen = \"127.0.0.1:7101\"", "listen = \"localhost\"", "listen"),
        ("state_dir = \"/tmp/state\"", "state_dir = \"state\"", "absolute"),
        ("listen = \"127.0.0.1:7101\"", "listen = \"0.0.0.0:7101\"", "[tls]"),
        ("mode = \"proxy\"", "mode = \"both\"", "use \"proxy\""),
        ("mode = \"proxy\"", "", "gate.mode"),
        ("mode = \"proxy\"", "mode = \"signal\"", "there is no gate"),
        ("mode = \"proxy\"\n    listen = \"127.0.0.1:8080\"", "mode = \"signal\"", "it alone moves traffic"),
        ("[lease]", "[balancer]\nsettle = 3\n[lease]", "3s"),
        ("[lease]", "[balancer.agent_check]\nlisten = \"127.0.0.1:9002\"\n[lease]", "port of its own"),
        ("port = 9002", "port = 9001", "port of its own"),
        ("port = 9002", "port = 0", "name a port"),
        ("name = \"b\"", "name = \"a\"", "used twice"),
        ("port = 9002", "port = 9002\ncolour = \"blue\"", "colour"),
        ("[lease]", "[store]\nca = \"ca.pem\"\n[lease]", "store.cert"),
        ("[lease]", "[tls]\nca = \"ca.pem\"\ncert = \"c.pem\"\n[lease]", "tls.key"),
        ("[lease]", "[store]\nkee = 3\n[lease]", "endpoints, ca, cert and key"),
        ("port = 9002", "port = 9002\nuser = \"no-such-user\"", "slot.user"),
        ("[lease]", "[lease]\nservice = \"push\"", "pull"),
        ("[lease]", "[lease]\nttl = 10", "10s"),
        ("[lease]", "[lease]\nttl = \"3s\"", "6"),
        ("affects = \"ready\"", "affects = \"live\"", "affects = \"ready\""),
        ("kind = \"process\"", "kind = \"magic\"", "process"),
        ("builds = \"/builds/billing\"", "builds = \"/builds/billing\"\ngrace = 5", "5s"),
        ("listen = \"127.0.0.1:8080\"", "listen = \"127.0.0.1:8080\"\nhold = 3", "hold"),
    ];
    for (from, to, says) in cases {
        let error = error(from, to);
        assert!(error.contains("billing.toml") && error.contains(says), "{to}: {error}");
    }
}

#[test]
fn a_slots_user_and_group_are_names_or_numbers() {
    let text = GOOD.replacen("port = 9002", "port = 9002\nuser = \"root\"\ngroup = \"4711\"", 1);
    let config = Config::parse(Path::new("billing.toml"), &text).expect("a good config");
    let b: SlotId = "b".parse().expect("slot");
    assert_eq!(config.callers, [(b, SlotPeer { uid: Some(0), gid: Some(4711) })].into());
}

#[test]
fn in_mode_signal_there_is_no_gate_and_balancers_send_to_the_slots() {
    let proxy = Config::parse(Path::new("billing.toml"), GOOD).expect("a good config");
    assert_eq!(
        proxy.targets().into_iter().collect::<Vec<_>>(),
        [(Target::Host, "127.0.0.1:8080".parse().expect("it"))]
    );
    let signal = "mode = \"signal\"\n[balancer]\nsettle = \"3s\"";
    let text = GOOD.replacen("mode = \"proxy\"\n    listen = \"127.0.0.1:8080\"", signal, 1);
    let config = Config::parse(Path::new("billing.toml"), &text).expect("a good config");
    assert_eq!((config.gate.is_none(), config.by(), config.targets().len()), (true, By::Slot, 2));
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::read(Path::new("/nowhere/x.toml")).expect_err("missing").to_string();
    assert!(error.contains("/nowhere/x.toml") && error.contains("--config"));
}

#[test]
fn the_sample_for_units_is_a_good_config() {
    let text = include_str!("../../../systemd/examples/billing.toml");
    let config = Config::parse(Path::new("billing.toml"), text).expect("a good config");
    assert_eq!(config.grace(), std::time::Duration::from_secs(30));
    let unit = include_str!("../../../systemd/examples/billing@.service");
    for slot in ["slots/%i.env", "current@%i"] {
        assert!(unit.contains(slot), "the unit and the config belong together: {slot}");
    }
    let shared = text.replace("billing@{slot}.service", "billing.service");
    let error = Config::parse(Path::new("billing.toml"), &shared).expect_err("two slots in one unit").to_string();
    assert!(error.contains("2 slots") && error.contains("{slot}"), "{error}");
}

#[test]
fn the_sample_for_a_plain_unit_is_a_good_config_and_its_gate_may_hold() {
    let text = include_str!("../../../systemd/examples/single/billing.toml");
    let config = Config::parse(Path::new("billing.toml"), text).expect("a good config");
    assert_eq!(config.may_hold(), Some(std::time::Duration::from_secs(20)));
    let unit = include_str!("../../../systemd/examples/single/billing.service");
    for part in ["slots/a.env", "/builds/billing/current/"] {
        assert!(unit.contains(part), "the unit and the config belong together: {part}");
    }
    let holds = |more: &str| Config::parse(Path::new("x"), &format!("{text}{more}")).expect("a config").may_hold();
    assert_eq!(holds("[balancer]\nsettle = \"3s\"\n"), None, "balancers would be told to send elsewhere");
    let none = text.replace("time = \"20s\"", "count = 0\ncount_per_peer = 0");
    assert_eq!(Config::parse(Path::new("x"), &none).expect("a config").may_hold(), Some(std::time::Duration::ZERO));
}
