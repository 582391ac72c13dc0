use super::*;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_bus_that_takes_connections_and_says_nothing_is_given_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bus");
    let _backlog = std::os::unix::net::UnixListener::bind(&path).expect("a socket that nobody accepts from");
    let builder = Builder::address(format!("unix:path={}", path.display()).as_str());
    let given_up = timeout(LONG, open(builder, SHORT)).await.expect("it has a limit").expect_err("nobody answers");
    assert!(given_up.to_string().contains("does not answer") && !given_up.is_refusal(), "{given_up}");
}

fn job_removed(unit: &str) -> Message {
    let signal = Message::signal(MANAGER_PATH, MANAGER, "JobRemoved");
    let order: zbus::ObjectPath<'_> = "/org/freedesktop/systemd1/job/7".try_into().expect("a path");
    signal.build(&(7_u32, order, unit, "done")).expect("a message")
}

#[test]
fn of_orders_only_those_of_the_unit_are_heard() {
    let rule = rule(MANAGER_PATH, "JobRemoved", Some("billing@a.service")).expect("a rule");
    assert!(rule.matches(&job_removed("billing@a.service")).expect("compared"));
    assert!(!rule.matches(&job_removed("logrotate.service")).expect("compared"));
    let text = rule.to_string();
    assert!(text.contains("arg2='billing@a.service'"), "the bus itself keeps the others away: {text}");
}
