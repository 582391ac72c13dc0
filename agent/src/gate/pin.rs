//! Requests that belong to one version: a tester's header, or a client that is to stay with what it met first.
//!
//! A pin is followed only to an upstream that gets requests of that class anyway (ready, and with a weight above 0), so that
//! a pinned client cannot hold up a drain or write through a version that is trusted with reads only. Else the request goes
//! its usual way.

use handover_proto::ids::Version;
use hyper::header::{self, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::admission::Pin;
use super::settings::SettingsError;

/// How clients are bound to a version. Off unless a header or a cookie is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PinSettings {
    /// A request's header that names the version it wants; it goes before the cookie. Whoever can send requests can
    /// choose then.
    pub header: Option<String>,
    /// A cookie that names it.
    pub cookie: Option<String>,
    /// Gives each client the cookie of the version that answered it, so that it stays with it while that version has a
    /// weight.
    pub sticky: bool,
}

impl PinSettings {
    /// Checks the names.
    ///
    /// # Errors
    /// On a name that cannot be one, and on `sticky` without a cookie.
    pub fn check(&self) -> Result<(), SettingsError> {
        let unfit = |setting, given: &str, rule| SettingsError::Pin { setting, given: given.to_owned(), rule };
        if let Some(name) = self.header.as_ref().filter(|name| header::HeaderName::try_from(name.as_str()).is_err()) {
            return Err(unfit("pin.header", name, "is no name of a header"));
        }
        // RFC 6265 §4.1.1: a token.
        let is_token =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.!~".contains(&b));
        match &self.cookie {
            Some(name) if !is_token(name) => Err(unfit("pin.cookie", name, "must be letters, digits, '-', '_' or '.'")),
            None if self.sticky => Err(unfit("pin.sticky", "true", "needs a name for the cookie: set pin.cookie")),
            _ => Ok(()),
        }
    }

    fn is_off(&self) -> bool {
        self.header.is_none() && self.cookie.is_none()
    }

    /// Which version a request asks for.
    pub fn asked(&self, headers: &HeaderMap) -> Option<Pin> {
        if self.is_off() {
            return None;
        }
        let header = self.header.as_ref().and_then(|name| headers.get(name.as_str())?.to_str().ok());
        header.map(str::trim).or_else(|| cookie(self.cookie.as_deref()?, headers)).map(Pin::of)
    }

    /// The cookie for a client that was answered by `version` and had asked for `asked`.
    pub fn cookie_for(&self, version: &Version, asked: Option<Pin>) -> Option<HeaderValue> {
        let name = self.cookie.as_ref().filter(|_| self.sticky && asked != Some(Pin::of(version.as_str())))?;
        HeaderValue::try_from(format!("{name}={version}; Path=/; HttpOnly; SameSite=Lax")).ok()
    }
}

fn cookie<'h>(name: &str, headers: &'h HeaderMap) -> Option<&'h str> {
    let lists = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lists.flat_map(|list| list.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(given, _)| *given == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> PinSettings {
        PinSettings { header: Some("x-version".into()), cookie: Some("version".into()), sticky: true }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs =
            pairs.iter().map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn the_header_goes_before_the_cookie_and_other_cookies_are_not_it() {
        let asked = |pairs: &[_]| settings().asked(&headers(pairs));
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&[("cookie", "a=1; version=1.1.0;b=2")]), Some(Pin::of("1.1.0")));
        assert_eq!(asked(&[("cookie", "xversion=1.1.0; versions=2")]), None);
        let both = [("cookie", "version=1.0.0"), ("x-version", "1.1.0")];
        assert_eq!(asked(&both), Some(Pin::of("1.1.0")));
        assert_eq!(PinSettings::default().asked(&headers(&both)), None, "off unless it is named");
    }

    #[test]
    fn a_client_is_given_the_cookie_when_another_version_answered_than_it_asked_for() {
        let version: Version = "1.1.0".parse().expect("a version");
        let cookie = settings().cookie_for(&version, None).expect("a cookie");
        assert_eq!(cookie, "version=1.1.0; Path=/; HttpOnly; SameSite=Lax");
        assert!(settings().cookie_for(&version, Some(Pin::of("1.0.0"))).is_some());
        assert_eq!(settings().cookie_for(&version, Some(Pin::of("1.1.0"))), None);
        assert_eq!(PinSettings { sticky: false, ..settings() }.cookie_for(&version, None), None);
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        let error = |settings: PinSettings| settings.check().expect_err("unfit").to_string();
        assert!(error(PinSettings { header: Some("a b".into()), ..PinSettings::default() }).contains("pin.header"));
        assert!(error(PinSettings { cookie: Some("a;b".into()), ..PinSettings::default() }).contains("\"a;b\""));
        assert!(error(PinSettings { sticky: true, ..PinSettings::default() }).contains("set pin.cookie"));
        assert_eq!(settings().check(), Ok(()));
    }
}
