use super::*;
use crate::gate::control::Upstream;
use crate::gate::settings::Forwarded;
use hyper::{Request, Response};
use proptest::prelude::*;

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

fn sent(head: request::Parts, forwarded: Forwarded) -> request::Parts {
    sent_by(head, forwarded, false, None)
}

fn sent_by(
    mut head: request::Parts,
    forwarded: Forwarded,
    http2: bool,
    upgrade: Option<&HeaderValue>,
) -> request::Parts {
    let origin = Origin::new(([192, 0, 2, 7], 5555).into(), http2);
    let hop = Hop { has_body: true, origin: &origin, forwarded, upstream: &upstream(), upgrade, http2 };
    to_upstream(&mut head, &hop);
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
    let ours = ["forwarded", "host", "te", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-kept"];
    assert_eq!(names, [&["connection", "content-length"][..], &ours].concat());
    // The gate's own, because the client takes trailers.
    assert_eq!((text(&head.headers, "connection"), text(&head.headers, "te")), (vec!["te"], vec!["trailers"]));
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
fn a_client_cannot_have_taken_away_what_a_balancer_says_of_it() {
    let fields = [
        ("host", "a"),
        ("connection", "X-Forwarded-For, x-forwarded-port, Forwarded"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-port", "443"),
        ("forwarded", "for=10.0.0.1"),
    ];
    let appended = sent(head("/", &fields), Forwarded::Append);
    assert_eq!(text(&appended.headers, "x-forwarded-for"), ["10.0.0.1, 192.0.2.7"]);
    assert_eq!(text(&appended.headers, "x-forwarded-port"), ["443"]);
    assert!(text(&appended.headers, "forwarded").concat().starts_with("for=10.0.0.1, "));
    let replaced = sent(head("/", &fields), Forwarded::Replace);
    assert_eq!(text(&replaced.headers, "x-forwarded-for"), ["192.0.2.7"]);
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
    assert_eq!(reason("http://user@a/", &[("host", "a")]), Err(Reason::BadRequest));
    for coding in ["gzip, chunked", "gzip", "chunked, chunked", ""] {
        let fields = [("host", "a"), ("transfer-encoding", coding)];
        assert_eq!(reason("/", &fields), Err(Reason::NotSupported), "{coding}");
    }
    let twice = [("host", "a"), ("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")];
    assert_eq!(reason("/", &twice), Err(Reason::NotSupported));
    assert_eq!(reason("/", &[("host", "a"), ("transfer-encoding", "Chunked")]), Ok(()));
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
    to_client(&mut plain, None, HeaderValue::from_static("id-1"), false);
    assert!(!plain.headers.contains_key("connection") && !plain.headers.contains_key("x-hop"));
    assert!(!plain.headers.contains_key("handover-gate"), "only the gate says that the gate answered");
    assert_eq!(text(&plain.headers, "etag"), ["e"]);
    let mut tagged = answer();
    to_client(&mut tagged, Some(&upstream()), HeaderValue::from_static("id-1"), true);
    assert_eq!(text(&tagged.headers, "handover-version"), ["1.4.2"]);
    assert_eq!(text(&tagged.headers, "handover-instance"), ["00000000000000aa"]);
    assert_eq!(text(&tagged.headers, "connection"), ["close"]);
}

#[test]
fn all_the_ways_to_name_the_client_say_the_same() {
    let plain = sent(head("/", &[("host", "shop.example")]), Forwarded::Replace);
    assert_eq!(text(&plain.headers, "forwarded"), ["for=192.0.2.7;proto=http;host=\"shop.example\""]);
    assert_eq!(text(&plain.headers, "x-forwarded-host"), ["shop.example"]);
    let origin = Origin::new("[2001:db8::1]:5".parse().expect("an address"), true);
    let mut six = HeaderMap::new();
    origin.tell(&mut six, Forwarded::Replace);
    assert_eq!(text(&six, "forwarded"), ["for=\"[2001:db8::1]\";proto=https"]);
    assert_eq!(text(&six, "x-forwarded-for"), ["2001:db8::1"]);
}

#[test]
fn what_earlier_proxies_said_is_added_to_when_they_are_trusted_and_forgotten_when_not() {
    let claimed = [("host", "a"), ("forwarded", "for=10.0.0.1"), ("x-forwarded-host", "shop")];
    let kept = sent(head("/", &claimed), Forwarded::Append);
    assert_eq!(text(&kept.headers, "forwarded"), ["for=10.0.0.1, for=192.0.2.7;proto=http;host=\"a\""]);
    assert_eq!(text(&kept.headers, "x-forwarded-host"), ["shop"]);
    let replaced = sent(head("/", &claimed), Forwarded::Replace);
    assert_eq!(text(&replaced.headers, "forwarded"), ["for=192.0.2.7;proto=http;host=\"a\""]);
    assert_eq!(text(&replaced.headers, "x-forwarded-host"), ["a"]);
}

#[test]
fn one_connection_with_two_hosts_tells_each() {
    let origin = Origin::new(([192, 0, 2, 7], 1).into(), false);
    for host in ["a", "b", "a"] {
        let mut headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
        origin.tell(&mut headers, Forwarded::Replace);
        assert_eq!(text(&headers, "forwarded"), [format!("for=192.0.2.7;proto=http;host=\"{host}\"")]);
    }
}

#[test]
fn a_sane_request_id_is_kept_only_from_one_who_is_trusted() {
    let ids = RequestIds::new("abc");
    let of = |given: &str, mode| {
        let value = HeaderValue::from_str(given).expect("a value");
        let mut headers = HeaderMap::from_iter([(REQUEST_ID, value)]);
        let id = ids.of(&mut headers, mode);
        assert_eq!(headers.get(REQUEST_ID), Some(&id), "the service gets the same");
        id.to_str().expect("text").to_owned()
    };
    assert_eq!(of("req-1", Forwarded::Append), "req-1");
    assert_eq!(of("req-1", Forwarded::Replace), "abc-1");
    for strange in ["", "a b", "a\"b", &"x".repeat(129)] {
        assert!(of(strange, Forwarded::Append).starts_with("abc-"), "{strange}");
    }
    let two = (of("", Forwarded::Replace), of("", Forwarded::Replace));
    assert_ne!(two.0, two.1);
}

#[test]
fn by_http2_the_authority_is_the_host_cookies_are_one_field_and_a_body_without_length_is_chunked() {
    let fields = [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("traceparent", "00-ab-cd-01")];
    let mut second = head("http://shop.example/p", &fields);
    second.version = Version::HTTP_2;
    let sent = sent(second, Forwarded::Replace);
    assert_eq!((sent.version, sent.uri.to_string()), (Version::HTTP_11, "/p".to_owned()));
    assert_eq!(text(&sent.headers, "host"), ["shop.example"]);
    assert_eq!(text(&sent.headers, "cookie"), ["a=1; b=2"]);
    assert_eq!(text(&sent.headers, "transfer-encoding"), ["chunked"]);
    assert_eq!(text(&sent.headers, "traceparent"), ["00-ab-cd-01"]);
}

#[test]
fn towards_http2_the_host_is_the_authority_and_no_field_of_a_connection_is_sent() {
    let fields =
        [("host", "shop.example:81"), ("connection", "close"), ("te", "trailers"), ("transfer-encoding", "chunked")];
    let sent = sent_by(head("/p?q", &fields), Forwarded::Replace, true, None);
    assert_eq!((sent.version, sent.uri.to_string()), (Version::HTTP_2, "http://shop.example:81/p?q".to_owned()));
    for gone in ["host", "connection", "transfer-encoding"] {
        assert!(!sent.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(text(&sent.headers, "te"), ["trailers"]);
    assert_eq!(text(&sent.headers, "x-forwarded-proto"), ["https"]);
}

#[test]
fn an_empty_host_does_not_take_the_target_away() {
    let sent = sent_by(head("/pay?q", &[("host", "")]), Forwarded::Replace, true, None);
    assert_eq!(sent.uri.to_string(), "http://127.0.0.1:9001/pay?q");
    let sent = sent_by(head("/pay?q", &[("host", "")]), Forwarded::Replace, false, None);
    assert_eq!((sent.uri.to_string(), text(&sent.headers, "host")), ("/pay?q".to_owned(), vec![""]));
}

#[test]
fn what_connection_names_beside_something_that_is_no_text_is_not_passed_either() {
    let mut head = head("/", &[("host", "a"), ("x-secret", "1")]);
    head.headers.insert("connection", HeaderValue::from_bytes(b"\xff, X-Secret").expect("a value"));
    assert!(!sent(head, Forwarded::Replace).headers.contains_key("x-secret"));
}

#[test]
fn an_http2_request_whose_two_hosts_differ_or_are_missing_is_refused() {
    let second = |target: &str, fields: &[(&str, &str)]| {
        let mut head = head(target, fields);
        head.version = Version::HTTP_2;
        check(&head).map_err(|(reason, _)| reason)
    };
    assert_eq!(second("http://a/", &[]), Ok(()));
    assert_eq!(second("http://a/", &[("host", "A")]), Ok(()));
    assert_eq!(second("/", &[("host", "a")]), Ok(()));
    assert_eq!(second("http://a/", &[("host", "b")]), Err(Reason::BadRequest));
    assert_eq!(second("http://u@a/", &[]), Err(Reason::BadRequest));
    assert_eq!(second("/", &[]), Err(Reason::BadRequest));
}

#[test]
fn an_offer_to_switch_is_passed_on_only_where_it_can_be_kept() {
    let offer =
        |fields: &[(&str, &str)], has_body| upgrade_offer(Version::HTTP_11, &head("/", fields).headers, has_body);
    let socket = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
    assert!(offer(&socket, false).is_some_and(|protocol| is_websocket(&protocol)));
    assert_eq!(offer(&socket, true), None, "with a body");
    assert_eq!(offer(&socket[1..], false), None, "not named in Connection");
    assert_eq!(offer(&[("connection", "upgrade"), ("upgrade", "h2c")], false), None);
    assert_eq!(offer(&[("connection", "upgrade"), ("upgrade", "a"), ("upgrade", "b")], false), None);
    assert_eq!(upgrade_offer(Version::HTTP_10, &head("/", &socket).headers, false), None);
    let protocol = HeaderValue::from_static("websocket");
    let sent = sent_by(head("/", &socket), Forwarded::Replace, false, Some(&protocol));
    assert_eq!(
        (text(&sent.headers, "connection"), text(&sent.headers, "upgrade")),
        (vec!["upgrade"], vec!["websocket"])
    );
}

#[test]
fn ids_are_the_processs_number_and_a_count_in_hex() {
    let ids = RequestIds::new("00ff");
    let of = |_| ids.of(&mut HeaderMap::new(), Forwarded::Replace);
    let made: Vec<HeaderValue> = (0..300).map(of).collect();
    let expected: Vec<String> = (1..=300).map(|count| format!("00ff-{count:x}")).collect();
    assert_eq!(made, expected);
}

const NAMES: [&str; 9] =
    ["Keep-Alive", "keep-alive", "TE", "upgrade", "Proxy-Connection", "transfer-encoding", "x-a", "X-B", "x-c"];

proptest! {
    #[test]
    fn a_host_that_is_taken_at_sight_would_be_taken_after_a_long_look_too(host in "[a-z0-9.:@%\\[\\]-]{0,12}") {
        if is_plain_host(host.as_bytes()) {
            prop_assert!(uri::Authority::try_from(host.as_str()).is_ok(), "{host:?}");
        }
    }

    #[test]
    fn nothing_of_one_connection_is_left_however_it_is_written(
        named in proptest::collection::vec(prop::sample::select(&NAMES[..]), 0..4),
        fields in proptest::collection::vec(prop::sample::select(&NAMES[..]), 0..8),
    ) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, named.join(", ").parse().expect("a value"));
        for name in &fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_static("1"));
        }
        strip_hop_by_hop(&mut headers);
        let is_named = |name: &str| named.iter().any(|other| other.eq_ignore_ascii_case(name));
        for name in ["x-a", "x-b", "x-c"] {
            let sent = fields.iter().filter(|field| field.eq_ignore_ascii_case(name)).count();
            prop_assert_eq!(headers.get_all(name).iter().count(), if is_named(name) { 0 } else { sent });
        }
        prop_assert!(headers.keys().all(|name| name.as_str().starts_with("x-")), "{:?}", headers);
    }
}
