//! The operator's TOML.

use std::time::Duration;

use handover::core::spec::{Rate, Spec};
use handover_proto::assignment::AtDeadline;

use crate::world::SPEC;

/// The spec's error, as the operator reads it.
fn refused(text: &str) -> String {
    Spec::parse("rollout.toml", text).expect_err(text).to_string()
}

fn refused_with(more: &str) -> String {
    refused(&format!("{SPEC}{more}"))
}

#[test]
fn name_and_version_are_enough_and_the_rest_has_defaults() {
    let spec = Spec::parse("rollout.toml", SPEC).expect("a spec");
    assert_eq!((spec.service.as_str(), spec.version.as_str()), ("billing", "1.1.0"));
    assert_eq!((spec.wave_size, spec.min_serving, spec.shift.as_slice()), (1, None, [25, 100].as_slice()));
    assert_eq!((spec.step_soak, spec.soak), (Duration::from_secs(2), Duration::from_secs(30)));
    assert_eq!(spec.rules.start_deadline, Duration::from_secs(60));
    assert_eq!(spec.rules.health.max_error_rate, Rate { basis_points: 500 });
    assert_eq!((spec.rules.drain.deadline_ms, spec.rules.drain.at_deadline), (30_000, AtDeadline::Wait));
}

#[test]
fn every_field_is_read() {
    let more = r#"
        after = []
        [rollout]
        way = "start-first"
        wave_size = 2
        min_serving = 3
        shift = ["1%", "50%", "100%"]
        step_soak = "4s"
        soak = "5m"
        start_deadline = "6s"
        [health]
        max_error_rate = "0.5%"
        dwell = "7s"
        min_samples = 8
        unready_dwell = "900ms"
        [drain]
        deadline = "10s"
        at_deadline = "cut"
        [lease]
        quiesce_timeout = "11s"
        prefer_zone = "west"
    "#;
    let spec = Spec::parse("rollout.toml", &format!("{SPEC}{more}")).expect("a spec");
    assert_eq!((spec.wave_size, spec.min_serving, spec.shift.as_slice()), (2, Some(3), [1, 50, 100].as_slice()));
    assert_eq!((spec.step_soak.as_secs(), spec.soak.as_secs()), (4, 300));
    let rules = &spec.rules;
    assert_eq!((rules.start_deadline.as_secs(), rules.quiesce_timeout.as_secs()), (6, 11));
    assert_eq!((rules.health.max_error_rate.basis_points, rules.health.min_samples), (50, 8));
    assert_eq!((rules.health.dwell.as_secs(), rules.health.unready_dwell.as_millis()), (7, 900));
    assert_eq!(rules.prefer_zone.as_deref(), Some("west"));
    assert_eq!((rules.drain.deadline_ms, rules.drain.at_deadline), (10_000, AtDeadline::Cut));
}

#[test]
fn a_bare_number_for_a_duration_is_refused_with_file_line_field_and_fix() {
    let error = refused_with("[rollout]\nsoak = 30\n");
    assert!(error.starts_with("rollout.toml:6: soak: "), "{error}");
    assert!(error.contains("\"30s\""), "{error}");
}

#[test]
fn a_duration_without_a_unit_is_refused_even_as_text() {
    let error = refused_with("[health]\ndwell = \"3\"\n");
    assert!(error.starts_with("rollout.toml:6: dwell: ") && error.contains("\"30s\""), "{error}");
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_known_ones() {
    let error = refused_with("[rollout]\nwave_sise = 2\n");
    assert!(error.starts_with("rollout.toml:6: wave_sise: "), "{error}");
    assert!(error.contains("unknown field") && error.contains("wave_size") && error.contains("delete"), "{error}");
    let error = refused_with("[rolout]\nwave_size = 2\n");
    assert!(error.starts_with("rollout.toml:5: ") && error.contains("rollout"), "{error}");
}

#[test]
fn ways_that_come_later_are_named_as_such() {
    let error = refused_with("[rollout]\nway = \"fresh\"\n");
    assert!(error.starts_with("rollout.toml:6: way: ") && error.contains("later"), "{error}");
    let error = refused_with("[rollout]\nway = \"yolo\"\n");
    assert!(error.contains("no way \"yolo\"") && error.contains("start-first"), "{error}");
}

#[test]
fn shares_make_no_sense_where_a_host_has_one_version_at_a_time() {
    let error = refused_with("[rollout]\nway = \"stop-first\"\nshift = [\"100%\"]\n");
    assert!(error.starts_with("rollout.toml:7: shift: ") && error.contains("delete the line"), "{error}");
}

#[test]
fn a_second_service_is_refused_at_its_own_line() {
    let error = refused_with("[[service]]\nname = \"mail\"\nversion = \"2\"\n");
    assert!(error.starts_with("rollout.toml:5: ") && error.contains("later"), "{error}");
    let error = refused("[[service]]\nname = \"mail\"\nversion = \"2\"\nafter = [\"billing\"]\n");
    assert!(error.starts_with("rollout.toml:4: after: "), "{error}");
}

#[test]
fn a_spec_without_a_service_or_without_a_version_is_refused() {
    for text in ["", "service = []\n"] {
        assert!(refused(text).contains("service"), "{}", refused(text));
    }
    let error = refused("[[service]]\nname = \"billing\"\n");
    assert!(error.contains("rollout.toml:1: ") && error.contains("version"), "{error}");
}

#[test]
fn shares_that_do_not_grow_to_100_percent_are_refused() {
    for shares in ["[]", "[\"25%\"]", "[\"50%\", \"25%\", \"100%\"]", "[\"0%\", \"100%\"]", "[\"12.5%\", \"100%\"]"] {
        let error = refused_with(&format!("[rollout]\nshift = {shares}\n"));
        assert!(error.starts_with("rollout.toml:6: shift: "), "{error}");
    }
    for shares in ["[25, 100]", "[\"25\", \"100%\"]", "[\"101%\"]"] {
        let error = refused_with(&format!("[rollout]\nshift = {shares}\n"));
        assert!(error.starts_with("rollout.toml:6: shift: ") && error.contains("25%"), "{error}");
    }
}

#[test]
fn rates_are_read_to_the_hundredth_of_a_percent() {
    for (text, basis_points) in [("5%", 500), ("0.5%", 50), ("0.05%", 5), ("100%", 10_000), ("0%", 0)] {
        let spec = Spec::parse("f", &format!("{SPEC}[health]\nmax_error_rate = \"{text}\"\n")).expect(text);
        assert_eq!(spec.rules.health.max_error_rate.basis_points, basis_points, "{text}");
    }
    for text in ["5", "5 %", "-1%", "0.005%", "%", ".5%", "100.01%"] {
        refused_with(&format!("[health]\nmax_error_rate = \"{text}\"\n"));
    }
}

#[test]
fn a_rate_is_crossed_only_above_the_limit() {
    let limit = Rate { basis_points: 500 };
    assert!(!limit.is_crossed_by(5, 100) && limit.is_crossed_by(6, 100));
    assert!(!limit.is_crossed_by(0, 0) && !Rate { basis_points: 0 }.is_crossed_by(0, 9));
    assert!(Rate { basis_points: 0 }.is_crossed_by(1, u64::MAX));
    assert_eq!((limit.to_string(), Rate { basis_points: 5 }.to_string()), ("5 %".into(), "0.05 %".into()));
}

#[test]
fn a_wave_of_no_hosts_and_a_broken_file_are_refused() {
    assert!(refused_with("[rollout]\nwave_size = 0\n").starts_with("rollout.toml:6: wave_size: "));
    assert!(refused_with("[rollout\n").starts_with("rollout.toml:5: "));
    assert!(refused("[[service]]\nname = \"A b\"\nversion = \"1\"\n").contains("service name"));
}
