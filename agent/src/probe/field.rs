//! One field of a JSON document, by the names on the way to it.

use std::fmt;

use serde_json::Value;

/// Names and array positions, joined by dots: `checks.schema.0.state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath(Vec<String>);

/// A text that is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {given:?} is not a path; write names joined by single dots, such as \"schema.gate\"")]
pub struct FieldPathError {
    given: String,
}

impl TryFrom<String> for FieldPath {
    type Error = FieldPathError;

    fn try_from(text: String) -> Result<Self, FieldPathError> {
        let names: Vec<String> = text.split('.').map(str::to_owned).collect();
        match names.iter().any(String::is_empty) {
            true => Err(FieldPathError { given: text }),
            false => Ok(Self(names)),
        }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

impl FieldPath {
    /// The field; none if some name on the way is missing.
    pub(super) fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(document, |value, name| match value {
            Value::Object(fields) => fields.get(name),
            Value::Array(items) => items.get(position(name)?),
            _ => None,
        })
    }
}

/// As it is usually written: `00` and `+0` are names that no array has.
fn position(name: &str) -> Option<usize> {
    name.parse::<usize>().ok().filter(|position| position.to_string() == name)
}

/// Equal as people mean it: 1 and 1.0 are one number. Two whole numbers are compared by every digit, which a float has not.
pub(super) fn equal(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
        _ => found == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn find(path: &str, document: &Value) -> Option<Value> {
        FieldPath::try_from(path.to_owned()).expect("a path").find(document).cloned()
    }

    #[test]
    fn a_field_is_found_through_objects_and_arrays() {
        let document = json!({"a": {"b": [{"c": null}, 7]}});
        assert_eq!(find("a.b.1", &document), Some(json!(7)));
        assert_eq!(find("a.b.0.c", &document), Some(Value::Null));
        for missing in ["x", "a.x", "a.b.2", "a.b.-1", "a.b.01", "a.b.+1", "a.b.1.c", "b"] {
            assert_eq!(find(missing, &document), None, "{missing}");
        }
    }

    #[test]
    fn a_path_with_an_empty_name_is_refused() {
        for bad in ["", ".", "a.", ".a", "a..b"] {
            FieldPath::try_from(bad.to_owned()).expect_err(bad);
        }
    }

    #[test]
    fn numbers_are_equal_by_value_and_nothing_else_is_converted() {
        assert!(equal(&json!(1), &json!(1.0)) && equal(&json!("a"), &json!("a")));
        assert!(!equal(&json!(9_007_199_254_740_993_u64), &json!(9_007_199_254_740_992_u64)), "one as floats");
        assert!(!equal(&json!("1"), &json!(1)) && !equal(&json!("true"), &json!(true)) && !equal(&json!(2), &json!(1)));
    }
}
