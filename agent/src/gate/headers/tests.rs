use super::*;
use hyper::{Request, Response};

fn upstream() -> Upstream {
    Upstream {
        instance: "00000000000000aa".parse().expect("an id"),
        version: "1.4.2".parse().expect("a version"),
        address: ([127, 0, 0, 1], 9001).into(),
        reads: 1,
        writes: 1,
        ready: true,
    }
}

fn head(target: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

fn sent(mut head: request::Parts, forwarded: Forwarded) -> request::Parts {
    to_upstream(&mut head, true, ([192, 0, 2, 7], 5555).into(), forwarded, &upstream());
    head
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
}

#[test]
fn fields_of_one_connection_and_those_that_connection_names_are_not_passed() {
    let all = [
        ("host", "a"),
        ("connection", "keep-alive, X-Secret"),
        ("connection", "host, content-length"),
        ("x-secret", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
        ("content-length", "5"),
        ("x-kept", "2"),
    ];
    let head = sent(head("/x?y=1", &all), Forwarded::Replace);
    let mut names: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "host", "x-forwarded-for", "x-forwarded-proto", "x-kept"]);
}

#[test]
fn a_claimed_origin_is_replaced_unless_a_balancer_is_trusted() {
    let claimed = [("host", "a"), ("x-forwarded-for", "10.0.0.1"), ("x-forwarded-proto", "https")];
    let replaced = sent(head("/", &claimed), Forwarded::Replace);
    assert_eq!(text(&replaced.headers, "x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(text(&replaced.headers, "x-forwarded-proto"), ["http"]);
    let appended = sent(head("/", &claimed), Forwarded::Append);
    assert_eq!(text(&appended.headers, "x-forwarded-for"), ["10.0.0.1, 192.0.2.7"]);
    assert_eq!(text(&appended.headers, "x-forwarded-proto"), ["https"]);
}

#[test]
fn a_client_cannot_strip_the_forwarded_address_by_naming_it_in_connection() {
    let head = sent(head("/", &[("host", "a"), ("connection", "x-forwarded-for")]), Forwarded::Append);
    assert_eq!(text(&head.headers, "x-forwarded-for"), ["192.0.2.7"]);
}

#[test]
fn an_absolute_target_names_the_host_and_becomes_a_path() {
    let head = sent(head("http://real.example:81/p?q", &[("host", "other")]), Forwarded::Replace);
    assert_eq!(head.uri.to_string(), "/p?q");
    assert_eq!(text(&head.headers, "host"), ["real.example:81"]);
}

#[test]
fn an_http_1_0_request_without_a_host_is_given_the_upstreams() {
    let mut old = head("/", &[]);
    old.version = Version::HTTP_10;
    assert_eq!(check(&old), Ok(()));
    let old = sent(old, Forwarded::Replace);
    assert_eq!((old.version, text(&old.headers, "host")), (Version::HTTP_11, vec!["127.0.0.1:9001"]));
}

#[test]
fn a_chunked_body_stays_chunked_so_that_a_get_with_a_body_is_not_cut() {
    let head = sent(head("/", &[("host", "a"), ("transfer-encoding", "chunked")]), Forwarded::Replace);
    assert_eq!(text(&head.headers, "transfer-encoding"), ["chunked"]);
}

#[test]
fn requests_that_the_gate_cannot_serve_are_refused_with_the_right_reason() {
    let reason = |target: &str, fields: &[(&str, &str)]| check(&head(target, fields)).map_err(|(reason, _)| reason);
    assert_eq!(reason("/", &[]), Err(Reason::BadRequest));
    assert_eq!(reason("/", &[("host", "a"), ("host", "a")]), Err(Reason::BadRequest));
    for bad in ["a b", "a/b", "user@a", "a:b:c"] {
        assert_eq!(reason("/", &[("host", bad)]), Err(Reason::BadRequest), "{bad}");
    }
    for good in ["", "a", "a:80", "[::1]:80", "127.0.0.1:8080"] {
        assert_eq!(reason("/", &[("host", good)]), Ok(()), "{good}");
    }
    let socket = [("host", "a"), ("connection", "Upgrade"), ("upgrade", "WebSocket")];
    assert_eq!(reason("/", &socket), Err(Reason::NotSupported));
    let h2c = [("host", "a"), ("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c")];
    assert_eq!(reason("/", &h2c), Ok(()), "an offer that may be ignored (RFC 9110 §7.8)");
    let mut tunnel = head("a:443", &[("host", "a")]);
    tunnel.method = Method::CONNECT;
    assert_eq!(check(&tunnel).map_err(|(reason, _)| reason), Err(Reason::NotSupported));
}

#[test]
fn an_answer_loses_the_upstreams_connection_fields_and_gains_tag_and_dismissal() {
    let answer = || {
        let response = Response::builder().header("connection", "close, x-hop").header("x-hop", "1");
        let response =
            response.header("handover-gate", "connect").header("handover-version", "forged").header("etag", "e");
        response.body(()).expect("a response").into_parts().0
    };
    let mut plain = answer();
    to_client(&mut plain, None, false);
    assert!(!plain.headers.contains_key("connection") && !plain.headers.contains_key("x-hop"));
    assert!(!plain.headers.contains_key("handover-gate"), "only the gate says that the gate answered");
    assert_eq!(text(&plain.headers, "etag"), ["e"]);
    let mut tagged = answer();
    to_client(&mut tagged, Some(&upstream()), true);
    assert_eq!(text(&tagged.headers, "handover-version"), ["1.4.2"]);
    assert_eq!(text(&tagged.headers, "handover-instance"), ["00000000000000aa"]);
    assert_eq!(text(&tagged.headers, "connection"), ["close"]);
}
