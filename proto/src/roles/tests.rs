use super::*;
use crate::ids::{AgentId, InstanceId, RolloutId};

fn env() -> Env {
    "prod".parse().expect("env")
}

fn service(name: &str) -> Service {
    name.parse().expect("service")
}

/// Whether the union of these roles may do this with this key.
fn may(roles: &[RoleOf], right: Right, key: &str) -> bool {
    let key = Span::key(key);
    roles
        .iter()
        .flat_map(|role| role.grants(&env()))
        .any(|(span, has)| span.overlaps(&key) && (has == Right::ReadWrite || has == right))
}

fn coordinator() -> Vec<RoleOf> {
    vec![RoleOf::Coordinator, RoleOf::CoordinatorFor(service("billing"))]
}

fn operator() -> Vec<RoleOf> {
    vec![RoleOf::Operator, RoleOf::OperatorFor(service("billing"))]
}

fn agent() -> Vec<RoleOf> {
    vec![RoleOf::Agent(service("billing"))]
}

/// Every key that there is, with who may write it: `a`gent, `c`oordinator, `o`perator.
fn key_space() -> Vec<(String, &'static str)> {
    let env = EnvKeys::new(&env());
    let service = env.service(&service("billing"));
    let (lease, rollout) = (service.lease(), env.rollout(&RolloutId::random()));
    let host: AgentId = "app-01".parse().expect("agent");
    vec![
        (env.leader(), "c"),
        (env.guard(), ""),
        (service.agent(&host), "a"),
        (service.alive(&host), "a"),
        (service.assigned(&host), "c"),
        (service.rollout(), "c"),
        (service.staging(), "c"),
        (service.order(1), "c"),
        (service.turn(1), "c"),
        (lease.holder(), "ao"),
        (lease.beat(), "ao"),
        (lease.candidate(&InstanceId::random()), "ao"),
        (lease.intent(), "c"),
        (lease.roster(), "a"),
        (lease.era(), "o"),
        (lease.freeze(), "c"),
        (rollout.spec(), "c"),
        (rollout.plan(), "c"),
        (rollout.event(1), "c"),
    ]
}

#[test]
fn every_key_is_written_by_exactly_those_who_should() {
    for (key, writers) in key_space() {
        for (who, roles) in [("a", agent()), ("c", coordinator()), ("o", operator())] {
            assert_eq!(may(&roles, Right::Write, &key), writers.contains(who), "{who} writes {key}");
        }
    }
}

#[test]
fn every_key_is_read_by_coordinators_and_operators_and_the_lease_by_agents() {
    let lease = EnvKeys::new(&env()).service(&service("billing")).lease().prefix();
    for (key, _) in key_space() {
        assert!(may(&coordinator(), Right::Read, &key) && may(&operator(), Right::Read, &key), "{key}");
        assert!(!key.starts_with(&lease) || may(&agent(), Right::Read, &key), "{key}");
    }
}

#[test]
fn no_role_reaches_into_another_service_or_environment() {
    let others = [
        EnvKeys::new(&"prod-2".parse().expect("env")).service(&service("billing")).lease(),
        EnvKeys::new(&"prod".parse().expect("env")).service(&service("billing-2")).lease(),
    ];
    for (number, lease) in others.into_iter().enumerate() {
        for roles in [agent(), coordinator(), operator()] {
            assert!(!may(&roles, Right::Write, &lease.holder()) && !may(&roles, Right::Write, &lease.intent()));
        }
        assert!(!may(&agent(), Right::Read, &lease.holder()));
        // Coordinators and operators see all services of their environment, and none of another.
        assert_eq!(may(&coordinator(), Right::Read, &lease.holder()), number == 1);
    }
}

#[test]
fn a_role_is_known_again_by_its_name() {
    let roles = [agent(), coordinator(), operator()].concat();
    for role in roles {
        assert_eq!(RoleOf::parse(&env(), &role.name(&env())), Some(role));
    }
    for name in ["root", "handover.prod.billing", "handover.other.coordinator", "handover.prod.a.b.agent", "prod"] {
        assert_eq!(RoleOf::parse(&env(), name), None, "{name}");
    }
}

#[test]
fn spans_overlap_as_etcd_ranges_do() {
    let (a, b, all) = (Span::key("/a/b"), Span::prefix("/a/"), Span { key: vec![0], end: vec![0] });
    let from = Span { key: b"/a".to_vec(), end: b"/a/b".to_vec() };
    assert!(a.overlaps(&b) && b.overlaps(&a) && a.overlaps(&all) && all.overlaps(&a) && a.overlaps(&a));
    assert!(!a.overlaps(&Span::key("/a/c")) && !Span::prefix("/a/").overlaps(&Span::prefix("/b/")));
    assert!(!a.overlaps(&from) && !from.overlaps(&a), "the end does not belong to it");
    assert!(!Span::key("/a0").overlaps(&b) && !b.overlaps(&Span::key("/a0")));
    assert!(b.is_prefix() && !a.is_prefix() && !all.is_prefix());
}

#[test]
fn users_have_the_roles_of_their_name_and_root_is_there() {
    let access = wanted(&env(), &[service("billing"), service("mail")].into());
    assert_eq!(access.users["handover.prod.mail.agent"], ["handover.prod.mail.agent".to_owned()].into());
    assert_eq!(access.users["handover.prod.coordinator"].len(), 3, "its own, and one for each service");
    assert!(access.users[ROOT].contains(ROOT) && access.roles.len() == 2 + 2 * 3 + 1);
    assert!(access.users.values().flatten().all(|role| access.roles.contains_key(role)));
}
