//! `handover store setup`, as typed.

use anyhow::Result;
use handover_tests::pki::Subject;

use crate::site::{Site, env, programs, said};

#[tokio::test]
async fn setup_prints_applies_and_checks_and_a_second_time_there_is_nothing_to_do() -> Result<()> {
    for program in programs() {
        let site = Site::bare(&program)?;
        let setup = |args: &[&str]| site.setup(&site.root, args);
        let printed = setup(&["billing"])?;
        assert!(said(&printed).contains("etcdctl auth enable"), "{}", said(&printed));
        let check = setup(&["billing", "--check"])?;
        assert_eq!(check.status.code(), Some(2), "printing changes nothing: {}", said(&check));

        let applied = setup(&["billing", "--apply"])?;
        assert_eq!(applied.status.code(), Some(0), "{}", said(&applied));
        for args in [&["billing", "--check"][..], &["--check"], &["billing", "--apply"]] {
            let again = setup(args)?;
            assert_eq!(again.status.code(), Some(0), "{args:?}: {}", said(&again));
            assert!(said(&again).contains("nothing to do"), "{}", said(&again));
        }
        assert!(site.agent()?.get(&env().guard()).await?.is_some(), "agents see the guard key");

        // Another service beside it, and a right too much, which is found and taken away.
        let more = setup(&["mail", "--apply"])?;
        assert_eq!(more.status.code(), Some(0), "{}", said(&more));
        let holder = crate::site::lease().holder();
        site.cluster
            .etcdctl(&site.root, &["role", "grant-permission", "handover.prod.coordinator", "write", &holder])?;
        let check = setup(&["--check"])?;
        assert_eq!(check.status.code(), Some(2), "{}", said(&check));
        assert!(said(&check).contains("role revoke-permission handover.prod.coordinator"), "{}", said(&check));
        assert_eq!(setup(&["--apply"])?.status.code(), Some(0));
        assert_eq!(setup(&["--check"])?.status.code(), Some(0));
    }
    Ok(())
}

#[tokio::test]
async fn the_printed_commands_do_the_same_as_apply() -> Result<()> {
    for program in programs() {
        let site = Site::bare(&program)?;
        let printed = said(&site.setup(&site.root, &["billing"])?);
        for line in printed.lines() {
            let words = line.strip_prefix("etcdctl ").expect("a command").replace('\'', "");
            site.cluster.etcdctl(&site.root, &words.split(' ').collect::<Vec<_>>())?;
        }
        let check = site.setup(&site.root, &["--check"])?;
        assert_eq!(check.status.code(), Some(0), "{}", said(&check));
    }
    Ok(())
}

#[tokio::test]
async fn a_foreign_role_that_may_write_the_lease_takes_the_guard_away() -> Result<()> {
    for program in programs() {
        let site = Site::set_up(&program)?;
        site.cluster.etcdctl(&site.root, &["role", "add", "backup"])?;
        site.cluster.etcdctl(&site.root, &["role", "grant-permission", "backup", "--prefix=true", "readwrite", "/"])?;
        let found = site.setup(&site.root, &["--apply"])?;
        assert_eq!(found.status.code(), Some(5), "{}", said(&found));
        assert!(said(&found).contains("role backup may write the lease's keys"), "{}", said(&found));
        assert_eq!(site.agent()?.get(&env().guard()).await?, None, "agents wait the long quarantine again");
        site.cluster.etcdctl(&site.root, &["role", "revoke-permission", "backup", "--prefix=true", "/"])?;
        assert_eq!(site.setup(&site.root, &["--apply"])?.status.code(), Some(0));
        assert!(site.agent()?.get(&env().guard()).await?.is_some());
    }
    Ok(())
}

#[test]
fn whoever_is_not_root_is_told_which_certificate_is_needed() -> Result<()> {
    let Some(program) = programs().pop() else { return Ok(()) };
    let site = Site::bare(&program)?;
    let somebody = site.pki.issue("somebody", &Subject::named("somebody"))?;
    let refused = site.setup(&somebody, &["billing", "--apply"])?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("common name somebody; this needs one with the common name root"),
        "{}",
        said(&refused)
    );
    Ok(())
}
