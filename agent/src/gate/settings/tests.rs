use super::*;

const LEAST: &str = "listen = '127.0.0.1:0'\ncontrol = '/run/c.sock'\nstate_file = '/var/lib/s.json'\n";

#[test]
fn three_lines_are_enough_and_the_defaults_hold_together() {
    let settings: GateSettings = toml::from_str(LEAST).expect("settings");
    assert_eq!(settings.check(), Ok(()));
    assert_eq!(settings.limits, Limits::default());
}

#[test]
fn what_an_address_may_have_can_be_all_and_a_lower_total_needs_no_second_line() {
    for text in [
        "[limits]\nconnections = 100\nin_flight = 100\n[hold]\ncount = 1",
        "[limits]\nconnections_per_peer = 4096\nin_flight_per_peer = 2048\n[hold]\ncount_per_peer = 1024",
        "[hold]\ncount = 0\ncount_per_peer = 0",
    ] {
        let settings: GateSettings = toml::from_str(&format!("{LEAST}{text}")).expect(text);
        assert_eq!(settings.check(), Ok(()), "{text}");
    }
}

#[test]
fn a_balancer_asks_for_both_classes_or_for_one_and_everything_else_is_the_services() {
    let mut settings: GateSettings = toml::from_str(LEAST).expect("settings");
    let both: &[Class] = &[Class::Read, Class::Write];
    assert_eq!(settings.asks_ready("GET", "/handover/ready"), Some(both));
    assert_eq!(settings.asks_ready("HEAD", "/handover/ready/read"), Some(&both[..1]));
    assert_eq!(settings.asks_ready("GET", "/handover/ready/write"), Some(&both[1..]));
    for (method, path) in [
        ("POST", "/handover/ready"),
        ("GET", "/handover/readyx"),
        ("GET", "/handover/ready/"),
        ("GET", "/ready"),
        ("GET", "/"),
    ] {
        assert_eq!(settings.asks_ready(method, path), None, "{method} {path}");
    }
    settings.ready_path = String::new();
    assert!(settings.asks_ready("GET", "/read").is_none() && settings.check().is_ok());
}

#[test]
fn an_unknown_field_is_an_error_that_names_it() {
    for extra in ["holdtime = '3s'", "[limits]\nconections = 3", "[hold]\nfor = '3s'"] {
        toml::from_str::<GateSettings>(&format!("{LEAST}{extra}")).expect_err(extra);
    }
}

#[test]
fn settings_that_cannot_work_are_refused_with_the_values() {
    let check = |text: &str| {
        let settings: GateSettings = toml::from_str(&format!("{LEAST}{text}")).expect(text);
        settings.check().expect_err(text).to_string()
    };
    assert!(check("[limits]\nconnections = 0").contains("at least 1"));
    assert!(check("[limits]\nin_flight_per_peer = 0").contains("at least 1"));
    assert!(check("[http2]\nmax_age = '0s'").contains("too old"));
    assert!(check("[hold]\ncount_per_peer = 0").contains("nobody could wait"));
    for path in ["ready", "/ready?x", "/a b"] {
        assert!(check(&format!("ready_path = '{path}'")).contains(path));
    }
    assert!(check("mode = 'tcp'\n[tls]\ncertificate = 'a'\nkey = 'b'").contains("does not go with mode"));
    let of_a_peer = [
        (
            "[limits]\nconnections_per_peer = 5000",
            ["limits.connections_per_peer", "5000", "limits.connections", "4096"],
        ),
        (
            "[limits]\nin_flight = 9\nin_flight_per_peer = 10",
            ["limits.in_flight_per_peer", "10", "limits.in_flight", "9"],
        ),
        ("[hold]\ncount_per_peer = 1025", ["hold.count_per_peer", "1025", "hold.count", "1024"]),
    ];
    for (text, words) in of_a_peer {
        let error = check(text);
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let error = check("[limits]\nstop_time = '1s'\nleave_grace = '2s'");
    assert!(error.contains("1s") && error.contains("2s"), "{error}");
}

#[test]
fn a_state_file_under_the_name_that_new_states_are_written_to_is_refused() {
    let mut settings = GateSettings::new(([127, 0, 0, 1], 0).into(), "c.sock".into(), "/var/lib/gate.new".into());
    assert!(settings.check().expect_err("refused").to_string().contains("/var/lib/gate.new"));
    settings.state_file = "/var/lib/gate.new.json".into();
    assert_eq!(settings.check(), Ok(()));
}
