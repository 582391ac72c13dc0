//! Files that cannot be used are named before anything is dialled.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use handover_store::client::{Access, Store};
use handover_tests::pki::{Pki, Subject};
use handover_tls::validity::Alarm;
use handover_tls::{Tls, TlsFiles};
use tempfile::TempDir;

fn opening(files: TlsFiles) -> String {
    let access = Access { endpoints: vec!["https://127.0.0.1:1".to_owned()], tls: Some(files) };
    Store::open(&access).err().expect("files that cannot be used").to_string()
}

#[test]
fn every_bad_file_is_named_with_its_field_and_the_fix() -> Result<()> {
    let dir = TempDir::new()?;
    let pki = Pki::new(dir.path())?;
    let good = pki.issue("good", &Subject::named("good"))?;
    let other = pki.issue("other", &Subject::named("other"))?;
    let expired = pki.issue("expired", &Subject { days: Some((90, -1)), ..Subject::named("late") })?;
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "nothing\n")?;
    let (gone, with) = (Path::new("/nowhere/x.pem").to_owned(), || good.clone());
    let cases = [
        (TlsFiles { ca: gone.clone(), ..with() }, "`store.ca` = /nowhere/x.pem", "check the path"),
        (TlsFiles { key: gone, ..with() }, "`store.key` = /nowhere/x.pem", "check the path"),
        (TlsFiles { ca: empty.clone(), ..with() }, "`store.ca`", "BEGIN CERTIFICATE"),
        (TlsFiles { cert: empty.clone(), ..with() }, "`store.cert`", "BEGIN CERTIFICATE"),
        (TlsFiles { cert: good.key.clone(), ..with() }, "`store.cert`", "BEGIN CERTIFICATE"),
        (TlsFiles { key: empty, ..with() }, "`store.key`", "BEGIN PRIVATE KEY"),
        (TlsFiles { key: other.key, ..with() }, "good.pem and `store.key`", "do not belong together"),
        (expired, "`store.cert`", "have it renewed"),
    ];
    for (files, named, fix) in cases {
        let error = opening(files);
        assert!(error.contains(named) && error.contains(fix), "{named}, {fix}: {error}");
    }
    Ok(())
}

#[test]
fn how_long_a_certificate_lasts_is_known_and_known_anew_when_it_is_renewed() -> Result<()> {
    let dir = TempDir::new()?;
    let pki = Pki::new(dir.path())?;
    let alarm = |tls: &Tls| tls.validity().expect("readable").alarm(SystemTime::now());
    let issue = |days| pki.issue("ours", &Subject { days: Some(days), ..Subject::named("ours") });
    let tls = issue((10, 80))?.open()?;
    assert_eq!(alarm(&tls), None);
    for (days, expected) in [((61, 29), Some(Alarm::Third)), ((85, 5), Some(Alarm::Tenth)), ((1, 89), None)] {
        issue(days)?;
        assert_eq!(alarm(&tls), expected, "{days:?}");
    }
    Ok(())
}

#[test]
fn an_incomplete_set_of_files_names_the_missing_one() {
    let some = || Some("x".into());
    let missing = |ca, cert, key| TlsFiles::of("--store-", ca, cert, key).expect_err("incomplete").to_string();
    assert!(missing(None, some(), some()).contains("`--store-ca`"));
    assert!(missing(some(), None, some()).contains("`--store-cert`"));
    assert!(missing(some(), some(), None).contains("`--store-key`"));
    assert_eq!(TlsFiles::of("--store-", None, None, None).expect("none is fine"), None);
}
