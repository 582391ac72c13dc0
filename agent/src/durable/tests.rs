use std::collections::BTreeMap;

use super::*;

type Value = BTreeMap<String, u64>;

fn value() -> Value {
    [("serial".to_owned(), 7), ("term".to_owned(), 3)].into()
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("state.json");
    (dir, path)
}

#[test]
fn what_is_saved_is_loaded_and_nothing_is_left_beside_it() {
    let (dir, path) = place();
    assert!(load::<Value>(&path).expect("no file is no error").is_none());
    save(&path, &value()).expect("saved");
    save(&path, &value()).expect("saved again");
    assert_eq!(load::<Value>(&path).expect("loaded"), Some(value()));
    let names: Vec<_> = fs::read_dir(dir.path()).expect("listing").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names, ["state.json"]);
}

#[test]
fn a_file_cut_off_at_any_byte_is_an_error_that_names_it_and_the_fix() {
    let (_dir, path) = place();
    save(&path, &value()).expect("saved");
    let whole = fs::read(&path).expect("bytes");
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).expect("cut");
        let error = load::<Value>(&path).expect_err("a cut file");
        assert!(matches!(error, DurableError::Damaged { .. }), "{length}: {error}");
        let text = error.to_string();
        assert!(text.contains("state.json is damaged") && text.contains("mv "), "{text}");
    }
}

#[test]
fn one_changed_byte_anywhere_is_noticed() {
    let (_dir, path) = place();
    save(&path, &value()).expect("saved");
    let whole = fs::read(&path).expect("bytes");
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).expect("changed");
        assert!(matches!(load::<Value>(&path), Err(DurableError::Damaged { .. })), "byte {at}");
    }
}

#[test]
fn a_whole_file_of_another_shape_is_told_apart_from_a_damaged_one() {
    let (_dir, path) = place();
    save(&path, &"text").expect("saved");
    let error = load::<Value>(&path).expect_err("another shape");
    assert!(matches!(error, DurableError::Foreign { .. }), "{error}");
}

#[test]
fn a_save_that_fails_leaves_the_old_value() {
    let (_dir, path) = place();
    save(&path, &value()).expect("saved");
    fs::create_dir(aside(&path)).expect("an obstacle where the new file would be written");
    let error = save(&path, &Value::new()).expect_err("cannot write aside");
    assert!(error.to_string().contains("state.json.new"), "{error}");
    assert_eq!(load::<Value>(&path).expect("loaded"), Some(value()));
}

#[test]
fn what_a_crash_left_aside_is_overwritten() {
    let (_dir, path) = place();
    fs::write(aside(&path), "half a fi").expect("leftover");
    save(&path, &value()).expect("saved");
    assert_eq!(load::<Value>(&path).expect("loaded"), Some(value()));
}
