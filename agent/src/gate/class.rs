//! Is a request a read or a write? Pure.
//!
//! Reads and writes have weights of their own, so that a candidate can be given reads long before it is trusted with writes.

use serde::{Deserialize, Serialize};

/// What a request does to the service's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Changes nothing.
    Read,
    /// May change something.
    Write,
}

/// An exception from the rule that GET, HEAD and OPTIONS are reads and everything else is a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassRule {
    /// The method, in capitals as HTTP writes it; without one the rule is for every method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The beginning of the path, in whole segments: `/search` takes `/search` and `/search/x`, not `/searching`.
    pub path_prefix: String,
    /// What such a request is.
    pub class: Class,
}

impl ClassRule {
    fn takes(&self, method: &str, path: &str) -> bool {
        let prefix = self.path_prefix.trim_end_matches('/');
        let under = path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        under && self.method.as_deref().is_none_or(|wanted| wanted == method)
    }
}

/// The class of a request: the first rule that takes it, else by its method. A path with `..` in it is under no prefix,
/// because the service may read it as another path than the one that the rule names.
pub fn class_of(rules: &[ClassRule], method: &str, path: &str) -> Class {
    let rule = if climbs(path) { None } else { rules.iter().find(|rule| rule.takes(method, path)) };
    rule.map_or_else(|| by_method(method), |rule| rule.class)
}

fn by_method(method: &str) -> Class {
    if matches!(method, "GET" | "HEAD" | "OPTIONS") { Class::Read } else { Class::Write }
}

fn climbs(path: &str) -> bool {
    path.split('/').any(|segment| segment.len() <= 6 && segment.to_ascii_lowercase().replace("%2e", ".") == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(method: Option<&str>, path_prefix: &str, class: Class) -> ClassRule {
        ClassRule { method: method.map(str::to_owned), path_prefix: path_prefix.to_owned(), class }
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
        let rules = [rule(Some("POST"), "/search", Class::Read), rule(None, "/search/admin/", Class::Write)];
        assert_eq!(class_of(&rules, "POST", "/search"), Class::Read);
        assert_eq!(class_of(&rules, "POST", "/search/admin"), Class::Read);
        assert_eq!(class_of(&rules, "GET", "/search/admin/x"), Class::Write);
        assert_eq!(class_of(&rules, "GET", "/search/other"), Class::Read);
    }

    #[test]
    fn a_prefix_means_whole_segments_and_the_root_means_all() {
        assert_eq!(class_of(&[rule(Some("POST"), "/search", Class::Read)], "POST", "/searching"), Class::Write);
        assert_eq!(class_of(&[rule(None, "/", Class::Write)], "GET", "/any"), Class::Write);
    }

    #[test]
    fn a_path_that_climbs_out_of_its_prefix_gets_no_exception() {
        let rules = [rule(Some("POST"), "/search", Class::Read)];
        for path in ["/search/../pay", "/search/%2e%2E/pay", "/search/.%2e", "/search/.."] {
            assert_eq!(class_of(&rules, "POST", path), Class::Write, "{path}");
        }
        assert_eq!(class_of(&rules, "POST", "/search/a..b"), Class::Read);
    }
}
