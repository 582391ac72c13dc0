use super::*;

fn rule(text: &str) -> ClassRule {
    toml::from_str(text).expect(text)
}

fn refused(text: &str) -> String {
    toml::from_str::<ClassRule>(text).expect_err(text).to_string()
}

fn post_search() -> ClassRule {
    rule("method = 'POST'\npath_prefix = '/search'\nclass = 'read'")
}

#[test]
fn without_rules_the_method_decides_and_an_unknown_method_is_a_write() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert_eq!(class_of(&[], method, "/"), Class::Read);
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "get", "PURGE"] {
        assert_eq!(class_of(&[], method, "/"), Class::Write);
    }
}

#[test]
fn the_first_rule_that_takes_the_request_wins() {
    let rules = [post_search(), rule("path_prefix = '/search/admin/'\nclass = 'write'")];
    assert_eq!(class_of(&rules, "POST", "/search"), Class::Read);
    assert_eq!(class_of(&rules, "POST", "/search/admin"), Class::Read);
    assert_eq!(class_of(&rules, "GET", "/search/admin/x"), Class::Write);
    assert_eq!(class_of(&rules, "GET", "/search/other"), Class::Read);
}

#[test]
fn a_prefix_means_whole_segments_and_the_root_means_all() {
    assert_eq!(class_of(&[post_search()], "POST", "/searching"), Class::Write);
    assert_eq!(class_of(&[rule("path_prefix = '/'\nclass = 'write'")], "GET", "/any"), Class::Write);
}

#[test]
fn a_path_that_climbs_gets_no_exception() {
    let rules = [post_search(), rule("path = '/search/**'\nclass = 'read'")];
    for path in ["/search/../pay", "/search/%2e%2E/pay", "/search/.%2e", "/search/.."] {
        assert_eq!(class_of(&rules, "POST", path), Class::Write, "{path}");
    }
    assert_eq!(class_of(&rules, "POST", "/search/a..b"), Class::Read);
}

#[test]
fn a_pattern_takes_the_whole_path_with_a_star_inside_a_segment_and_two_for_any_number() {
    let takes = |pattern: &str, path: &str| {
        class_of(&[rule(&format!("path = '{pattern}'\nclass = 'read'"))], "POST", path) == Class::Read
    };
    for (pattern, path) in [
        ("/a", "/a"),
        ("/a/*/report", "/a/7/report"),
        ("/a/q*y", "/a/query"),
        ("/a/q*e*y", "/a/query"),
        ("/a/*", "/a/"),
        ("/**", "/"),
        ("/**/report", "/report"),
        ("/**/report", "/a/b/report"),
        ("/a/**", "/a"),
        ("/**/b/**/d", "/b/b/c/b/d"),
    ] {
        assert!(takes(pattern, path), "{pattern} {path}");
    }
    for (pattern, path) in [
        ("/a", "/a/"),
        ("/a/*", "/a"),
        ("/a/*", "/a/b/c"),
        ("/a/q*y", "/a/q"),
        ("/a/q*qy", "/a/qy"),
        ("/**/report", "/a/reports"),
        ("/a/**", "/ab"),
    ] {
        assert!(!takes(pattern, path), "{pattern} {path}");
    }
}

#[test]
fn a_letter_that_need_not_be_encoded_is_itself_in_paths_and_in_rules() {
    for given in ["/run/*/now", "/%72un/*/now"] {
        let rules = [rule(&format!("path = '{given}'\nclass = 'write'"))];
        for path in ["/run/7/now", "/r%75n/7/%6eow", "/run/%2f/n%6Fw", "/run/100%/now", "/run/%zz/now", "/run/%ü/now"]
        {
            assert_eq!(class_of(&rules, "GET", path), Class::Write, "{given} {path}");
        }
        for path in ["/run%2f7/now", "/run/7%2Fnow", "/r%2575n/7/now", "/run/7/now%"] {
            assert_eq!(class_of(&rules, "GET", path), Class::Read, "{given} {path}: another path");
        }
    }
}

#[test]
fn a_pattern_made_to_cost_much_costs_little() {
    let pattern = "/**/*a*".repeat(40);
    let path = "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab".repeat(400);
    assert_eq!(class_of(&[rule(&format!("path = '{pattern}/c'\nclass = 'read'"))], "POST", &path), Class::Write);
}

#[test]
fn a_grpc_method_is_a_write_unless_a_rule_says_otherwise() {
    let rules = [rule("grpc = 'billing.v1.Invoices/Get*'\nclass = 'read'")];
    assert_eq!(class_of(&rules, "POST", "/billing.v1.Invoices/GetAll"), Class::Read);
    assert_eq!(class_of(&rules, "POST", "/billing.v1.Invoices/Pay"), Class::Write);
    assert_eq!(class_of(&rules, "PUT", "/billing.v1.Invoices/GetAll"), Class::Write);
    let encoded = [rule("grpc = 'billing.v1.Invoices/%47et*'\nclass = 'read'")];
    assert_eq!(class_of(&encoded, "POST", "/billing.v1.Invoices/GetAll"), Class::Read);
}

#[test]
fn a_rule_that_cannot_be_meant_is_refused_with_what_it_says() {
    assert!(refused("class = 'read'").contains("exactly one of"));
    assert!(refused("path = '/a'\npath_prefix = '/b'\nclass = 'read'").contains("exactly one of"));
    assert!(refused("path_prefix = 'search'\nclass = 'read'").contains("path_prefix \"search\""));
    assert!(refused("path = 'search'\nclass = 'read'").contains("path \"search\""));
    for path in ["/a?x=1", "/a#b", "/a b", "/a/../b", "/a/%2E%2e"] {
        assert!(refused(&format!("path = '{path}'\nclass = 'write'")).contains("as requests have it"), "{path}");
        assert!(refused(&format!("path_prefix = '{path}'\nclass = 'write'")).contains("as requests have it"), "{path}");
    }
    assert!(refused("method = ''\npath = '/'\nclass = 'read'").contains("capitals"));
    assert!(refused("method = 'Post'\npath = '/'\nclass = 'read'").contains("\"Post\""));
    for grpc in ["Get", "/billing.Invoices/Get", "billing.Invoices/", "a/b/c"] {
        assert!(refused(&format!("grpc = '{grpc}'\nclass = 'read'")).contains(grpc));
    }
    assert!(refused("grpc = 'a.B/C'\nmethod = 'POST'\nclass = 'read'").contains("takes no `method`"));
    assert!(refused("path = '/'\nclass = 'read'\nclas = 'read'").contains("clas"));
}

#[test]
fn a_rule_is_written_as_it_was_read() {
    for text in ["path_prefix = '/a'", "path = '/a/*'", "grpc = 'a.B/C*'", "method = 'POST'\npath = '/**'"] {
        let one = rule(&format!("{text}\nclass = 'read'"));
        let written = serde_json::to_string(&one).expect("text");
        assert_eq!(serde_json::from_str::<ClassRule>(&written).expect("a rule"), one);
    }
}
