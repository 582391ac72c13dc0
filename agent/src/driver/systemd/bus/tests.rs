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

#[test]
fn an_order_that_waits_is_seen() {
    let job = |number: u32| {
        let order: OwnedObjectPath = "/org/freedesktop/systemd1/job/7".try_into().expect("a path");
        let value = OwnedVariant::try_from(Variant::new((number, order))).expect("a value");
        Properties::from([("Job".to_owned(), value)])
    };
    assert!(is_ordered(&job(7)) && !is_ordered(&job(0)) && !is_ordered(&Properties::new()));
    let seen = Seen { ordered: true, ..Seen::default() };
    assert!(seen.awaits_its_turn() && !Seen { active: State::Up, ..seen.clone() }.awaits_its_turn());
    assert!(!Seen::default().awaits_its_turn());
}

#[test]
fn a_denial_is_an_answer_and_a_silence_is_none() {
    let of = |error| BusError { operation: "start".into(), source: zbus::Error::FDO(Box::new(error)) };
    let denied = of(zbus::fdo::Error::AccessDenied("polkit".into()));
    assert!(denied.is_refusal() && denied.is_denial());
    let silent = of(zbus::fdo::Error::NoReply("late".into()));
    assert!(!silent.is_refusal() && !silent.is_denial());
    let gone = BusError { operation: "start".into(), source: late() };
    assert!(!gone.is_refusal() && !gone.is_denial());
}
