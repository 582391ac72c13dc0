use std::collections::BTreeMap;

use handover_proto::roles::Right;

use super::*;

fn env() -> Env {
    "prod".parse().expect("env")
}

fn services() -> BTreeSet<Service> {
    BTreeSet::from(["billing".parse().expect("service")])
}

/// What stands once all steps are taken.
fn carried_out(setup: &Setup, mut stands: Stands) -> Stands {
    for step in &setup.steps {
        let access = &mut stands.access;
        match step.clone() {
            Step::Auth(AuthChange::AddRole(role)) => assert_eq!(access.roles.insert(role, Grants::new()), None),
            Step::Auth(AuthChange::Grant { role, span, right }) => {
                access.roles.get_mut(&role).expect("the role").insert(span, right);
            }
            Step::Auth(AuthChange::Revoke { role, span }) => {
                assert!(access.roles.get_mut(&role).expect("the role").remove(&span).is_some());
            }
            Step::Auth(AuthChange::AddUser(user)) => assert_eq!(access.users.insert(user, BTreeSet::new()), None),
            Step::Auth(AuthChange::Give { user, role }) => {
                assert!(access.roles.contains_key(&role), "a role is there before it is given");
                assert!(access.users.get_mut(&user).expect("the user").insert(role));
            }
            Step::Auth(AuthChange::Take { user, role }) => {
                assert!(access.users.get_mut(&user).expect("the user").remove(&role));
            }
            Step::Auth(AuthChange::Enable) => {
                assert!(access.users[ROOT].contains(ROOT), "etcd refuses it without a root");
                stands.enabled = true;
            }
            Step::WriteGuard => {
                assert!(stands.enabled, "a guard without authentication guards nothing");
                stands.guarded = true;
            }
            Step::DeleteGuard => stands.guarded = false,
        }
    }
    stands
}

fn set_up() -> Stands {
    carried_out(&plan(&env(), &services(), &Stands::default()), Stands::default())
}

#[test]
fn an_empty_store_is_set_up_and_a_second_time_there_is_nothing_to_do() {
    let stands = set_up();
    assert!(stands.enabled && stands.guarded);
    assert_eq!(stands.access, wanted(&env(), &services()));
    assert_eq!(plan(&env(), &services(), &stands), Setup::default());
    assert_eq!(plan(&env(), &BTreeSet::new(), &stands), Setup::default(), "services are known by their roles");
}

#[test]
fn a_second_service_is_added_beside_the_first() {
    let mail = BTreeSet::from(["mail".parse().expect("service")]);
    let setup = plan(&env(), &mail, &set_up());
    assert!(setup.dangers.is_empty() && !setup.steps.contains(&Step::Auth(AuthChange::Enable)));
    let stands = carried_out(&setup, set_up());
    let both = services().into_iter().chain(mail).collect();
    assert_eq!(stands.access, wanted(&env(), &both));
}

#[test]
fn rights_that_do_not_belong_to_a_role_of_ours_are_taken_away() {
    let mut stands = set_up();
    let coordinator = RoleOf::Coordinator.name(&env());
    let holder = Span::key(EnvKeys::new(&env()).service(&"billing".parse().expect("name")).lease().holder());
    stands.access.roles.get_mut(&coordinator).expect("role").insert(holder.clone(), Right::Write);
    let agent = RoleOf::Agent("billing".parse().expect("name")).name(&env());
    stands.access.users.get_mut(&coordinator).expect("user").insert(agent.clone());
    let setup = plan(&env(), &services(), &stands);
    assert!(setup.steps.contains(&Step::Auth(AuthChange::Revoke { role: coordinator.clone(), span: holder })));
    assert!(setup.steps.contains(&Step::Auth(AuthChange::Take { user: coordinator, role: agent })));
    assert_eq!(carried_out(&setup, stands).access, wanted(&env(), &services()));
}

#[test]
fn a_foreign_role_that_reaches_the_lease_takes_the_guard_away_and_is_named_with_the_command() {
    let mut stands = set_up();
    let everything = Span { key: b"/".to_vec(), end: b"0".to_vec() };
    stands.access.roles.insert("backup".into(), BTreeMap::from([(everything, Right::ReadWrite)]));
    let elsewhere = BTreeMap::from([(Span::prefix("/patroni/"), Right::ReadWrite), (Span::prefix("/"), Right::Read)]);
    stands.access.roles.insert("harmless".into(), elsewhere);
    let setup = plan(&env(), &services(), &stands);
    assert_eq!(setup.steps, [Step::DeleteGuard]);
    let [danger] = &setup.dangers[..] else { panic!("{:?}", setup.dangers) };
    assert!(
        danger.contains("role backup") && danger.ends_with("role revoke-permission backup --prefix=true /"),
        "{danger}"
    );
}

#[test]
fn nobody_is_agent_and_coordinator_at_once_and_own_names_for_users_are_welcome() {
    let mut stands = set_up();
    let agent = RoleOf::Agent("billing".parse().expect("name")).name(&env());
    stands.access.users.insert("app-01".into(), BTreeSet::from([agent.clone(), "metrics".into()]));
    assert_eq!(plan(&env(), &services(), &stands), Setup::default());
    let both = BTreeSet::from([agent, RoleOf::Coordinator.name(&env())]);
    stands.access.users.insert("bob".into(), both);
    let setup = plan(&env(), &services(), &stands);
    assert!(setup.dangers[0].contains("user bob is agent and coordinator at once"), "{:?}", setup.dangers);
}

#[test]
fn every_step_is_a_command_for_a_shell() {
    let keys = EnvKeys::new(&env());
    let setup = plan(&env(), &services(), &Stands::default());
    let commands: Vec<_> = setup.steps.iter().map(|step| command(&keys, step, 7)).collect();
    for wanted in [
        "etcdctl role add handover.prod.coordinator",
        "etcdctl role grant-permission handover.prod.billing.agent readwrite /handover/v1/prod/billing/lease/holder",
        "etcdctl role grant-permission handover.prod.billing.agent read --prefix=true /handover/v1/prod/billing/lease/",
        "etcdctl user add handover.prod.coordinator --no-password",
        "etcdctl user grant-role root root",
        "etcdctl auth enable",
        "etcdctl put /handover/v1/prod/guard '{\"v\":1,\"at_ms\":7}'",
    ] {
        assert!(commands.iter().any(|command| command == wanted), "{wanted} in {commands:#?}");
    }
    let odd = Span { key: b"/it's".to_vec(), end: vec![0] };
    let odd = Step::Auth(AuthChange::Revoke { role: "r".into(), span: odd });
    assert_eq!(command(&keys, &odd, 0), r"etcdctl role revoke-permission r --from-key=true '/it'\''s'");
}
