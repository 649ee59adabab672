//! The structure that the documents promise.

use std::{env, fs, path::Path, process::Command};

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The platform that this was built for: packages of others may not be at hand.
fn host() -> String {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().expect("rustc runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host line").into()
}

fn metadata() -> Value {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", &host()])
        .current_dir(ROOT)
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// A package's node in the graph that the whole workspace is built with.
fn node<'a>(metadata: &'a Value, name: &str) -> &'a Value {
    let package = metadata["packages"].as_array().unwrap().iter().find(|it| it["name"] == name);
    let id = &package.unwrap_or_else(|| panic!("no package {name}"))["id"];
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["id"] == *id).unwrap()
}

/// What a package depends on, tests apart.
fn dependencies(metadata: &Value, name: &str) -> Vec<String> {
    let all = node(metadata, name)["deps"].as_array().unwrap().iter();
    let built = |dep: &&Value| {
        dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] != "dev")
    };
    let mut names: Vec<_> =
        all.filter(built).map(|dep| dep["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_protocol_depends_on_nothing_that_does_io_reads_a_clock_or_draws_a_random_number() {
    let metadata = metadata();
    assert_eq!(dependencies(&metadata, "coordinator-core"), ["common"]);
    assert_eq!(dependencies(&metadata, "common"), ["uuid"]);
    // Features unify over the workspace: with v4 or v7 on, uuid would draw
    // random numbers and read the clock here too.
    assert_eq!(node(&metadata, "uuid")["features"], Value::Array(vec![]));
    for root in ["common/src/lib.rs", "coordinator/core/src/lib.rs"] {
        let text = fs::read_to_string(Path::new(ROOT).join(root)).unwrap();
        assert!(text.contains("#![no_std]"), "{root} may use the standard library");
    }
}

#[test]
fn arrows_point_one_way() {
    let metadata = metadata();
    let ours = |name: &str| {
        let ours = ["common", "common_kit", "common_service", "common_store", "coordinator"];
        let mine = |it: &String| {
            ours.contains(&it.as_str())
                || it.starts_with("participant_")
                || it == "proto"
                || it == "coordinator_core"
        };
        dependencies(&metadata, name).into_iter().filter(mine).collect::<Vec<_>>()
    };
    assert_eq!(ours("common-store"), Vec::<String>::new());
    assert_eq!(ours("common-service"), ["common_store", "proto"]);
    assert_eq!(ours("common-kit"), ["common", "common_service", "common_store", "proto"]);
    assert_eq!(ours("protocol-model"), ["common", "coordinator_core"]);
    assert_eq!(ours("cli"), ["proto"]);
    let coordinator = ["common", "common_service", "common_store", "coordinator_core", "proto"];
    assert_eq!(ours("coordinator"), coordinator);
    for participant in ["participant-inventory", "participant-payment", "participant-order"] {
        assert_eq!(ours(participant), ["common_kit", "proto"], "{participant}");
    }
    assert_eq!(ours("example-shipping"), ["common_kit"]);
}

#[test]
fn files_are_small_and_none_is_called_mod() {
    fn look(folder: &Path, problems: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "tests"].contains(&&*name) {
                    look(&path, problems);
                }
            } else if name.ends_with(".rs") {
                let lines = fs::read_to_string(&path).unwrap().lines().count();
                if name == "mod.rs" || lines > 600 {
                    problems.push(format!("{}: {lines} lines", path.display()));
                }
            }
        }
    }
    let mut problems = Vec::new();
    look(Path::new(ROOT), &mut problems);
    assert!(problems.is_empty(), "{problems:#?}");
}
