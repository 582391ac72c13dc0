use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Args {
    Args::try_parse_from(line.split(' ')).expect(line)
}

#[test]
fn the_command_line_is_consistent_in_itself() {
    Args::command().debug_assert();
}

#[test]
fn global_options_are_taken_before_and_after_the_command() {
    for line in ["handover --json --env demo fleet", "handover fleet --json --env demo"] {
        let args = parse(line);
        assert!(args.global.json && args.global.env.as_str() == "demo", "{line}");
    }
}

#[test]
fn without_endpoints_the_embedded_store_is_asked() {
    assert_eq!(parse("handover fleet").global.store_access().expect("no files").endpoints, [STORE]);
    let given = parse("handover --store a:1,b:2 fleet").global;
    assert_eq!(given.store_access().expect("no files").endpoints, ["a:1", "b:2"]);
}

#[test]
fn a_time_without_a_unit_is_refused() {
    assert_eq!(parse("handover --timeout 1h30m why").global.timeout, Some(Duration::from_secs(5400)));
    for bad in ["30", "-5s", "soon"] {
        let error = Args::try_parse_from(["handover", &format!("--timeout={bad}"), "why"]).expect_err(bad);
        assert!(error.to_string().contains("30s, 5m or 1h30m"), "{error}");
    }
}

#[test]
fn names_are_checked_where_they_are_typed() {
    let error = Args::try_parse_from(["handover", "--service", "Bill/ing", "fleet"]).expect_err("a bad name");
    assert!(error.to_string().contains("lower-case letters"), "{error}");
    assert!(Args::try_parse_from(["handover", "rollout", "status", "xyz"]).is_err());
}

#[test]
fn start_watches_unless_it_is_told_to_detach() {
    let Command::Rollout(Rollout::Start { detach, .. }) = parse("handover rollout start up.toml").command else {
        panic!("not a start");
    };
    assert!(!detach);
    assert!(Args::try_parse_from(["handover", "rollout", "start", "x", "--detach", "--wait"]).is_err());
}

#[test]
fn every_command_that_people_know_is_there() {
    for line in [
        "plan a.toml",
        "doctor",
        "rollout start a.toml",
        "rollout status",
        "rollout watch 7f3a2c",
        "rollout pause",
        "rollout resume",
        "rollout abort --reason x",
        "rollout rollback",
        "rollout history",
        "fleet",
        "lease show",
        "why",
        "serve",
        "store --data d --listen 127.0.0.1:0",
        "completions bash",
    ] {
        parse(&format!("handover {line}"));
    }
}

#[test]
fn help_teaches_by_example_and_names_the_exit_codes() {
    let help = Args::command().render_help().to_string();
    for line in ["handover rollout start upgrade.toml", "6 timed out while still running", "HANDOVER_COORDINATOR"] {
        assert!(help.contains(line), "{line} is missing in\n{help}");
    }
}

fn help_of(path: &str) -> String {
    let mut command = Args::command();
    let found = path.split(' ').fold(&mut command, |command, name| command.find_subcommand_mut(name).expect(name));
    found.render_help().to_string()
}

#[test]
fn the_spec_in_the_help_of_start_is_one() {
    let help = help_of("rollout start");
    let spec = help.split("most often said:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a spec");
    let spec = crate::core::spec::Spec::parse("the help", spec).expect("a good spec");
    assert_eq!((spec.version.as_str(), spec.min_serving), ("1.1.0", Some(2)));
}

#[test]
fn every_order_and_every_look_has_an_example() {
    for path in ["rollout pause", "rollout resume", "rollout abort", "rollout rollback", "why", "fleet"] {
        let (help, last) = (help_of(path), path.split(' ').next_back().expect("a word"));
        let examples = help.split("Examples:").nth(1).unwrap_or_else(|| panic!("{path} has none"));
        assert!(examples.contains(last), "{path}: {help}");
    }
    assert!(help_of("rollout abort").contains("At the last step of the way back abort gives"));
}
