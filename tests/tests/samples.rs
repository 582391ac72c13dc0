//! Every configuration that is shown to people, read by the real parsers: systemd/ and the fences of README.md and docs/.
//! Takes a second.
#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};
use handover::cli::args::Args;
use handover::core::spec::Spec;
use handover_agent::config::Config;
use toml::{Table, Value};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a directory whose names end so.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// What stands in fences of that kind.
fn fences(text: &str, kind: &str) -> Vec<String> {
    let opening = format!("```{kind}\n");
    let inside = text.split(&opening).skip(1).filter_map(|rest| rest.split_once("\n```"));
    inside.map(|(inside, _)| format!("{inside}\n")).collect()
}

fn readme() -> Vec<String> {
    fences(&read(&root().join("README.md")), "toml")
}

/// The agent's config of README.md, on which the fragments of docs/ stand.
fn base() -> Table {
    let all = readme();
    all.iter().find(|text| text.starts_with("agent = ")).expect("an agent's config").parse().expect("TOML")
}

fn merge(into: &mut Table, over: Table) {
    for (key, value) in over {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(known)), Value::Table(more))
                if !more.contains_key("mode") && is_of_its_kind(&more, known) =>
            {
                merge(known, more)
            }
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// From minisign's own documentation.
const PUBLIC_KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

/// The fields of a driver are those of its kind.
fn is_of_its_kind(more: &Table, known: &Table) -> bool {
    more.get("kind").is_none_or(|kind| known.get("kind") == Some(kind))
}

/// The fragment as part of a whole config, on this host.
fn whole(fragment: &Table) -> String {
    let mut config = base();
    merge(&mut config, fragment.clone());
    if let Some(keys) = config.get_mut("artifact").and_then(|artifact| artifact.get_mut("keys")) {
        // A key of nobody's: the parser reads the files that are named.
        *keys = Value::Array(vec![Value::String(PUBLIC_KEY.to_owned())]);
    }
    if let Some(Value::Array(slots)) = config.get_mut("slot") {
        for slot in slots.iter_mut().filter_map(Value::as_table_mut).filter(|slot| slot.contains_key("user")) {
            // A user of this machine: the parser looks it up.
            slot.insert("user".to_owned(), Value::String("root".to_owned()));
        }
    }
    config.iter().map(|(key, value)| format!("{key:?} = {}\n", inline(value))).collect()
}

/// As TOML on one line: the parser that is shipped cannot write.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(all) => format!("[{}]", all.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Table(table) => {
            let pairs = table.iter().map(|(key, value)| format!("{key:?} = {}", inline(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

fn judge(place: &Path, text: &str) {
    let table: Table = text.parse().unwrap_or_else(|error| panic!("{}: {error}\n{text}", place.display()));
    let failed = |error: &dyn std::fmt::Display| panic!("{}: {error}\n{text}", place.display());
    if table.contains_key("rollout") {
        Spec::parse(&place.display().to_string(), text).map(drop).unwrap_or_else(|error| failed(&error));
    } else if table.contains_key("agent") {
        Config::parse(place, text).map(drop).unwrap_or_else(|error| failed(&error));
    } else {
        Config::parse(place, &whole(&table)).map(drop).unwrap_or_else(|error| failed(&error));
    }
}

#[test]
fn every_whole_config_and_every_fragment_in_the_documents_is_read_by_the_parser_that_it_is_for() {
    let mut seen = 0;
    let documents = files(&root().join("docs"), ".md").into_iter().chain([root().join("README.md")]);
    for document in documents {
        for text in fences(&read(&document), "toml") {
            judge(&document, &text);
            seen += 1;
        }
    }
    assert!(seen >= 15, "only {seen} were found: the fences are written otherwise now");
}

#[test]
fn every_sample_that_is_installed_is_a_whole_config() {
    let samples = files(&root().join("systemd/examples"), ".toml");
    assert!(!samples.is_empty());
    for sample in samples {
        Config::parse(&sample, &read(&sample)).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_mistake_in_a_fragment_is_found() {
    let fragment = "[balancer]\nsettel = \"1s\"\n".parse().expect("TOML");
    assert!(Config::parse(Path::new("x"), &whole(&fragment)).is_err());
}

/// Also what is commented out: that is what people take the comment sign from.
fn variables(package: &str) -> Vec<(String, String)> {
    let text = read(&root().join("systemd/default").join(package));
    let pair = |line: &str| {
        let (name, value) = line.trim_start_matches('#').split_once('=')?;
        name.starts_with("HANDOVER_").then(|| (name.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

#[test]
fn the_variables_of_the_units_are_ones_that_the_programs_read() {
    let mut command = Args::command();
    command.build();
    let known: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    let logs = ["HANDOVER_LOG", "HANDOVER_LOG_FORMAT"];
    let found = variables("handover");
    assert!(found.len() >= 6, "{found:?}");
    for (name, value) in found {
        if name == "HANDOVER_SERVE" {
            Args::try_parse_from(["handover", "serve"].into_iter().chain(value.split(' '))).expect("its words");
        } else {
            assert!(known.contains(&name.as_str()) || logs.contains(&name.as_str()), "{name}");
        }
    }
    assert!(variables("handover-agent").iter().all(|(name, _)| logs.contains(&name.as_str())));
}
