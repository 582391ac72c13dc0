use super::*;

fn read(text: &str) -> Result<BalancerSettings, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

fn check(text: &str, by: By) -> Result<(), String> {
    let slots: Vec<SlotId> = ["a", "b"].map(|slot| slot.parse().expect("slot")).into();
    let settings = read(text).expect(text);
    settings.check(by, &slots.iter().collect()).map_err(|error| error.to_string())
}

const HAPROXY: &str = "[[haproxy]]\nsocket = '/run/haproxy/admin.sock'\nbackend = 'billing'\n";

#[test]
fn every_kind_is_read_with_its_defaults() {
    let settings = read(&format!(
        "settle = '3s'\n[agent_check]\nlisten = '0.0.0.0:7001'\nfrom = ['10.0.0.1', '2001:db8::1']\n{HAPROXY}server = 'app-01'\n\
         [[haproxy]]\nsocket = 'tcp:lb2:9999'\nbackend = 'billing'\nservers = {{ a = 'x' }}\n\
         [[envoy]]\npath = '/run/e.json'\ncluster = 'billing'"
    ))
    .expect("settings");
    assert_eq!(settings.settle, Duration::from_secs(3));
    let check = settings.agent_check.expect("a port");
    assert_eq!((check.settle, check.from.len()), (Duration::from_secs(5), 2));
    assert_eq!(settings.haproxy[0].socket, SocketPlace::Unix("/run/haproxy/admin.sock".into()));
    assert_eq!(settings.haproxy[1].socket.to_string(), "tcp:lb2:9999");
    assert_eq!(settings.haproxy[1].lines().len(), 1);
    assert_eq!(settings.envoy[0].settle, Duration::from_secs(1));
}

#[test]
fn what_could_end_a_command_is_no_name_and_no_socket() {
    for name in ["", "a b", "a;show", "a/b", "a\\nshut", "ü"] {
        let text = format!("{HAPROXY}server = \"{name}\"");
        assert!(read(&text).expect_err(name).contains("no name"), "{name}");
    }
    for place in ["admin.sock", "tcp:", "tcp:lb2", "tcp::99", "tcp:lb2:0", "tcp:lb2:x"] {
        let text = HAPROXY.replace("/run/haproxy/admin.sock", place);
        assert!(read(&text).expect_err(place).contains("no socket"), "{place}");
    }
}

#[test]
fn settings_that_cannot_work_are_refused_with_what_would_do() {
    let host = format!("{HAPROXY}server = 'app-01'");
    let slots = format!("{HAPROXY}servers = {{ a = 'x', b = 'y' }}");
    assert_eq!(check(&host, By::Host), Ok(()));
    assert_eq!(check(&slots, By::Slot), Ok(()));
    assert_eq!(check("", By::Host), Ok(()), "nobody is told");
    assert!(check("", By::Slot).expect_err("nothing moves traffic").contains("signal"));
    assert!(check(&host, By::Slot).expect_err("a host's line").contains("every slot"));
    assert!(check(&slots, By::Host).expect_err("lines of slots").contains("server = "));
    assert!(check(HAPROXY, By::Host).expect_err("no line at all").contains("server = "));
    let one = format!("{HAPROXY}servers = {{ a = 'x' }}");
    assert!(check(&one, By::Slot).expect_err("slot b has none").contains("every slot"));
    let both = format!("[agent_check]\nlisten = '127.0.0.1:1'\n{host}");
    assert!(check(&both, By::Host).expect_err("two channels").contains("choose one"));
    let envoy = "[[envoy]]\npath = '/e.json'\ncluster = 'c'\n";
    assert!(check(&envoy.repeat(2), By::Slot).expect_err("one file").contains("twice"));
    assert!(check(&envoy.replace("/e", "e"), By::Slot).expect_err("a relative path").contains("absolute"));
}
