//! Route rules and pins. An input is the TOML of `[[rules]]` and `[pin]`, a line `===`, and requests, one a line:
//! `METHOD /target`, or a version, for which the cookie of a sticky pin is made and brought back.
//!
//! What must hold: no text panics; a rule that is accepted is written as it was read, and takes the requests that its own
//! words say, as an oracle reads them; each rule takes at least one request that a client can send, because one that takes
//! none does silently nothing; a client that was given a cookie is pinned to the version in it.

use std::collections::HashMap;

use handover_agent::gate::admission::Pin;
use handover_agent::gate::class::{Class, ClassRule, class_of};
use handover_agent::gate::pin::PinSettings;
use handover_proto::ids::Version;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use serde::Deserialize;
use serde_json::Value;

use super::{Outcome, must};

/// The code that is judged.
#[derive(Clone, Copy)]
pub struct Subject {
    /// Which class a request is of.
    pub class_of: fn(&[ClassRule], &str, &str) -> Class,
}

/// As it is shipped.
pub const REAL: Subject = Subject { class_of };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    rules: Vec<ClassRule>,
    #[serde(default)]
    pin: PinSettings,
}

/// The property.
///
/// # Errors
/// What is broken.
pub fn check(data: &[u8], subject: &Subject) -> Outcome {
    let Ok(text) = std::str::from_utf8(data) else { return Ok(()) };
    let (config, requests) = text.split_once("===\n").unwrap_or((text, ""));
    let Ok(config) = toml::from_str::<Config>(config) else { return Ok(()) };
    let written = serde_json::to_value(&config.rules).map_err(|error| format!("rules cannot be written: {error}"))?;
    let again: Vec<ClassRule> =
        serde_json::from_value(written.clone()).map_err(|error| format!("{error}: {written}"))?;
    must!(again == config.rules, "written as {written}, read as {again:?}");
    let rules = written.as_array().cloned().unwrap_or_default();
    for rule in &rules {
        is_alive(rule, subject)?;
    }
    for line in requests.lines() {
        match line.split_once(' ') {
            Some((method, target)) => {
                let Ok(uri) = target.parse::<Uri>() else { continue };
                let (said, meant) =
                    ((subject.class_of)(&config.rules, method, uri.path()), oracle(&rules, method, uri.path()));
                must!(said == meant, "{method} {} is a {said:?}, but {written} say {meant:?}", uri.path());
            }
            None => comes_back(&config.pin, line)?,
        }
    }
    Ok(())
}

/// There is a request that the rule takes: the one that its words spell, with an `x` for each star.
fn is_alive(rule: &Value, subject: &Subject) -> Outcome {
    let word = |field: &str| rule.get(field).and_then(Value::as_str);
    let grpc = word("grpc").map(|grpc| format!("/{grpc}"));
    let place = word("path").or(word("path_prefix")).or(grpc.as_deref()).unwrap_or_default();
    let path = if word("path_prefix").is_some() { place.to_owned() } else { place.replace('*', "x") };
    let method = word("method").unwrap_or(if grpc.is_some() { "POST" } else { "GET" });
    must!(Method::from_bytes(method.as_bytes()).is_ok(), "no request has the method of {rule}");
    let as_sent = path.parse::<Uri>().map(|uri| uri.path().to_owned());
    must!(as_sent.as_deref().is_ok_and(|sent| sent == path), "no request has the path of {rule}");
    let mut other = rule.clone();
    let class = if by_method(method) == Class::Read { Class::Write } else { Class::Read };
    other["class"] = serde_json::to_value(class).unwrap_or_default();
    let other: ClassRule = serde_json::from_value(other.clone()).map_err(|error| format!("{error}: {other}"))?;
    must!((subject.class_of)(&[other], method, &path) == class, "{method} {path} is not taken by {rule}");
    Ok(())
}

fn by_method(method: &str) -> Class {
    match method {
        "GET" | "HEAD" | "OPTIONS" => Class::Read,
        _ => Class::Write,
    }
}

/// What the rules say, read the slow and simple way.
fn oracle(rules: &[Value], method: &str, path: &str) -> Class {
    let path = &decoded(path);
    let climbs = path.split('/').any(|part| part == "..");
    let takes = |rule: &&Value| {
        let word = |field: &str| rule.get(field).and_then(Value::as_str);
        let place = match (word("path_prefix"), word("path"), word("grpc")) {
            (Some(prefix), ..) => {
                path == prefix
                    || path.starts_with(&format!("{}/", prefix.trim_end_matches('/')))
                    || path == prefix.trim_end_matches('/')
            }
            (_, Some(pattern), _) => fits(pattern, path),
            (.., grpc) => method == "POST" && fits(&format!("/{}", grpc.unwrap_or_default()), path),
        };
        place && word("method").is_none_or(|wanted| wanted == method)
    };
    match rules.iter().find(takes).filter(|_| !climbs) {
        Some(rule) if rule["class"] == "read" => Class::Read,
        Some(_) => Class::Write,
        None => by_method(method),
    }
}

/// With every letter as itself that need not be encoded.
fn decoded(path: &str) -> String {
    let codes = ('0'..='9').chain('a'..='z').chain('A'..='Z').chain("-._~".chars());
    let codes: HashMap<String, char> = codes.map(|letter| (format!("%{:02x}", u32::from(letter)), letter)).collect();
    let (mut decoded, mut rest) = (String::new(), path);
    while let Some(first) = rest.chars().next() {
        let letter = rest.get(..3).and_then(|code| codes.get(&code.to_ascii_lowercase()));
        decoded.push(*letter.unwrap_or(&first));
        rest = &rest[letter.map_or(first.len_utf8(), |_| 3)..];
    }
    decoded
}

fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    walk(
        &pattern,
        &path,
        &mut HashMap::new(),
        &|piece, segment| {
            let (piece, segment): (Vec<char>, Vec<char>) = (piece.chars().collect(), segment.chars().collect());
            walk(&piece, &segment, &mut HashMap::new(), &|one, other| one == other, &'*')
        },
        &"**",
    )
}

/// Whether `text` fits `pattern`, where `star` stands for any number of its items.
fn walk<T: PartialEq>(
    pattern: &[T],
    text: &[T],
    known: &mut HashMap<(usize, usize), bool>,
    same: &dyn Fn(&T, &T) -> bool,
    star: &T,
) -> bool {
    let at = (pattern.len(), text.len());
    if let Some(known) = known.get(&at) {
        return *known;
    }
    let fit = match (pattern.split_first(), text.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((first, others)), rest) if first == star => {
            walk(others, text, known, same, star)
                || rest.is_some_and(|(_, left)| walk(pattern, left, known, same, star))
        }
        (Some(_), None) => false,
        (Some((first, others)), Some((item, left))) => same(first, item) && walk(others, left, known, same, star),
    };
    known.insert(at, fit);
    fit
}

/// A client that was answered by this version brings its cookie back.
fn comes_back(pin: &PinSettings, version: &str) -> Outcome {
    let (Ok(()), Ok(version)) = (pin.check(), version.parse::<Version>()) else { return Ok(()) };
    let pinned = Some(Pin::of(version.as_str()));
    if let Some(cookie) = pin.cookie_for(&version, None) {
        must!(pin.cookie_for(&version, pinned).is_none(), "who has the cookie of {version} is given it again");
        let cookie = cookie.to_str().map_err(|error| format!("{cookie:?}: {error}"))?;
        let pair = cookie.split(';').next().unwrap_or_default();
        let sent = HeaderValue::from_str(&format!("a=b; {pair};c=d")).map_err(|error| error.to_string())?;
        let headers = HeaderMap::from_iter([(header::COOKIE, sent)]);
        let by_cookie = pin.header.as_deref().is_none_or(|name| !name.eq_ignore_ascii_case("cookie"));
        must!(!by_cookie || pin.asked(&headers) == pinned, "the cookie {pair} of {version} pins to something else");
    }
    if let Some(name) = &pin.header {
        let name = HeaderName::try_from(name.as_str()).map_err(|error| format!("{name:?} was accepted: {error}"))?;
        let value = HeaderValue::from_str(version.as_str()).map_err(|error| error.to_string())?;
        must!(pin.asked(&HeaderMap::from_iter([(name, value)])) == pinned, "the header does not pin to {version}");
    }
    Ok(())
}
