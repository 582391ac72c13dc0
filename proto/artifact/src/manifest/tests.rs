use super::*;

fn manifest(version: &str, ranges: &[&str]) -> Manifest {
    let file = Entry::File { sha256: "00".repeat(32), size_bytes: 7, executable: true };
    let files = BTreeMap::from([("bin/billing".parse().expect("a path"), file)]);
    let version = version.parse().expect("a version");
    let mut manifest =
        Manifest::of("billing".parse().expect("a service"), version, "2026-11-22T00:00:00Z".into(), files);
    manifest.compatible_with = ranges.iter().map(|range| range.parse().expect("a range")).collect();
    manifest
}

fn with(path: &str, entry: Entry) -> Result<Vec<u8>, ManifestError> {
    let mut manifest = manifest("1.5.0", &[]);
    manifest.files.insert(path.parse().expect("a path"), entry);
    manifest.to_bytes()
}

#[test]
fn a_manifest_reads_back_as_it_was_written() {
    let mut one = manifest("1.5.0", &[">=1.4, <2"]);
    one.files.insert("current".parse().expect("a path"), Entry::Link { target: "bin/billing".into() });
    one.notes = "Faster.".into();
    let bytes = one.to_bytes().expect("bytes");
    assert_eq!(Manifest::parse(&bytes).expect("a manifest"), one);
    assert_eq!(one.size_bytes(), 7);
}

#[test]
fn what_a_newer_program_wrote_is_refused_and_not_guessed_at() {
    let bytes = br#"{"v": 2, "files": "another shape"}"#;
    let error = Manifest::parse(bytes).expect_err("too new").to_string();
    assert!(error.contains("form 2") && error.contains("upgrade"), "{error}");
}

#[test]
fn a_path_that_leads_out_is_refused_on_reading() {
    let text = String::from_utf8(manifest("1.5.0", &[]).to_bytes().expect("bytes")).expect("text");
    let error = Manifest::parse(text.replace("bin/billing", "../billing").as_bytes()).expect_err("outside");
    assert!(error.to_string().contains("../billing"), "{error}");
}

#[test]
fn what_stands_in_the_way_of_another_file_is_refused() {
    let file = || Entry::File { sha256: "00".repeat(32), size_bytes: 0, executable: false };
    for path in ["bin", MANIFEST, SIGNATURE, "bin/billing/config"] {
        assert!(matches!(with(path, file()), Err(ManifestError::InTheWay(_))), "{path}");
    }
    // A file below a link would be written wherever the link leads.
    let below = with("bin/billing/config", Entry::Link { target: "x".into() });
    assert!(matches!(below, Err(ManifestError::InTheWay(_))));
    let outside = with("current", Entry::Link { target: "../1.4.2".into() });
    assert!(matches!(outside, Err(ManifestError::LinkOutside { .. })));
}

#[test]
fn two_versions_run_beside_each_other_if_one_knows_the_other() {
    let beside = |a: (&str, &[&str]), b: (&str, &[&str])| {
        let (a, b) = (manifest(a.0, a.1), manifest(b.0, b.1));
        assert_eq!(a.may_run_beside(&b), b.may_run_beside(&a), "neither way round is another question");
        a.may_run_beside(&b)
    };
    assert!(beside(("1.4.2", &[]), ("1.5.0", &[])), "nothing is said");
    assert!(beside(("1.4.2", &["<=1.4"]), ("1.5.0", &[">=1.4"])), "the older one cannot know the newer");
    assert!(beside(("1.4.2", &[]), ("v1.5.0", &[">=1.4"])), "a letter before the number is usual");
    assert!(!beside(("1.3.9", &[]), ("1.5.0", &[">=1.4"])));
    assert!(!beside(("2026-11-21", &[]), ("1.5.0", &[">=1.4"])), "no number, in no range");
    assert!(beside(("2.0.0", &["=2.0.0"]), ("2.0.0", &["=1.0.0"])), "the same version");
    assert!(">= one".parse::<Range>().is_err());
}
