use super::*;

const GOOD: &str = r#"
    name = "schema-gate"
    affects = "ready"
    http = { path = "/ready?full=1", field = "schema.gate", equals = "active", headers = { authorization = "k" } }
    interval = "2s"
    timeout = "300ms"
    start_interval = "20ms"
    rise = 2
    fall = 4
"#;

fn parse(text: &str) -> Result<ProbeSettings, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn everything_that_is_written_is_taken() {
    let probe = parse(GOOD).expect("settings");
    assert_eq!((probe.name.as_str(), probe.affects), ("schema-gate", Affects::Ready));
    assert_eq!((probe.interval.as_millis(), probe.timeout.as_millis()), (2000, 300));
    assert_eq!((probe.start_interval.as_millis(), probe.rise, probe.fall), (20, 2, 4));
    let Check::Http(http) = probe.check else { panic!("an HTTP check") };
    assert_eq!((http.path.as_str(), http.port, http.status), ("/ready?full=1", None, 200));
    let (path, value) = http.field.expect("a field");
    assert_eq!((path.to_string().as_str(), value), ("schema.gate", Value::from("active")));
    assert_eq!(http.headers.len(), 1);
}

#[test]
fn what_is_left_out_has_a_default_that_fits_the_rest() {
    let probe = parse("name = \"up\"\naffects = \"live\"\ntcp = {}\ninterval = \"30ms\"").expect("settings");
    assert_eq!(probe.timeout, probe.interval, "the usual timeout would be longer than this interval");
    assert_eq!(probe.start_interval, probe.interval);
    assert_eq!((probe.rise, probe.fall), (1, 3));
    let probe =
        parse("name = \"up\"\naffects = \"report\"\nexec = { command = [\"x\", \"{port}\"] }").expect("settings");
    assert_eq!(
        (probe.interval.as_millis(), probe.timeout.as_millis(), probe.start_interval.as_millis()),
        (1000, 500, 50)
    );
}

#[test]
fn a_field_without_a_value_must_be_true() {
    let probe = parse(&GOOD.replace(", equals = \"active\"", "")).expect("settings");
    let Check::Http(http) = probe.check else { panic!("an HTTP check") };
    assert_eq!(http.field.expect("a field").1, Value::Bool(true));
}

#[test]
fn each_mistake_is_refused_with_both_values_or_its_name() {
    for (from, to, expected) in [
        ("\"300ms\"", "\"3s\"", &["timeout 3s", "interval 2s", "schema-gate"][..]),
        ("\"20ms\"", "\"5s\"", &["start_interval 5s", "interval 2s"]),
        ("\"300ms\"", "300", &["write \"300s\""]),
        ("rise = 2", "rise = 0", &["rise is 0", "at least 1"]),
        ("fall = 4", "fall = 0", &["fall is 0"]),
        ("\"300ms\"", "\"0s\"", &["timeout is 0"]),
        ("fall = 4", "fell = 4", &["fell"]),
        ("path =", "paht =", &["paht"]),
        ("/ready?", "ready?", &["path", "begin it with /"]),
        ("/ready?", "/re ady?", &["percent-encode"]),
        ("schema.gate", "schema..gate", &["schema..gate"]),
        ("field = \"schema.gate\", ", "", &["`equals` is given without `field`"]),
        ("path", "status = 20, path", &["status", "20"]),
        ("authorization", "\"auth orization\"", &["header name", "auth orization"]),
        ("\"ready\"", "\"traffic\"", &["traffic", "ready"]),
        ("schema-gate", "schema gate", &["schema gate", "letters"]),
        ("rise = 2", "tcp = {}", &["exactly one of http, tcp and exec, not 2"]),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = parse(&GOOD.replacen(from, to, 1)).expect_err(to);
        for part in expected {
            assert!(error.contains(part), "{to}: {part:?} is missing in {error}");
        }
    }
    let error = parse("name = \"x\"\naffects = \"ready\"").expect_err("no kind");
    assert!(error.contains("exactly one of http, tcp and exec, not 0"), "{error}");
    let error = parse("name = \"x\"\naffects = \"ready\"\nexec = { command = [] }").expect_err("no command");
    assert!(error.contains("`command` is empty"), "{error}");
    let error = parse("name = \"x\"\naffects = \"ready\"\nexec = { command = [\"{prot}\"] }").expect_err("a typo");
    assert!(error.contains("unknown placeholder {prot}"), "{error}");
}

#[test]
fn probes_are_checked_together() {
    let ready = parse(GOOD).expect("settings");
    let live = ProbeSettings { affects: Affects::Live, name: "up".to_owned(), ..ready.clone() };
    check_together(&[ready.clone(), live.clone()]).expect("they fit");
    let error = check_together(&[ready.clone(), ready]).expect_err("one name").to_string();
    assert!(error.contains("two probes are named schema-gate"), "{error}");
    for probes in [&[live][..], &[]] {
        let error = check_together(probes).expect_err("nothing for ready").to_string();
        assert!(error.contains("affects = \"ready\""), "{error}");
    }
}
