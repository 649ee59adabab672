//! The structure that the documents promise.

use std::{collections::BTreeSet, env, fs, path::Path, process::Command};

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
    assert_eq!(dependencies(&metadata, "dtc-core"), ["dtc_locks", "dtc_protocol"]);
    assert_eq!(dependencies(&metadata, "dtc-locks"), ["dtc_protocol"]);
    assert_eq!(dependencies(&metadata, "dtc-protocol"), ["uuid"]);
    // Features unify over the workspace: with v4 or v7 on, uuid would draw
    // random numbers and read the clock here too.
    assert_eq!(node(&metadata, "uuid")["features"], Value::Array(vec![]));
    for folder in ["common/locks", "common/protocol", "coordinator/core"] {
        let root = format!("{folder}/src/lib.rs");
        let text = fs::read_to_string(Path::new(ROOT).join(&root)).unwrap();
        assert!(text.contains("#![no_std]"), "{root} may use the standard library");
    }
}

/// Every package of the workspace with the folder that it is in, and those of the workspace that
/// it is built with. `integration-tests` may use all.
const ARROWS: &[(&str, &str, &[&str])] = &[
    ("common/protocol", "dtc-protocol", &[]),
    ("common/locks", "dtc-locks", &["dtc-protocol"]),
    ("common/store", "dtc-store", &[]),
    ("common/runtime", "dtc-runtime", &["dtc-store"]),
    ("common/service", "dtc-service", &["dtc-runtime"]),
    (
        "common/participant",
        "dtc-participant",
        &["dtc-locks", "dtc-proto", "dtc-protocol", "dtc-runtime", "dtc-service", "dtc-store"],
    ),
    ("proto", "dtc-proto", &[]),
    ("proto/shop", "shop-proto", &["dtc-proto"]),
    ("coordinator/core", "dtc-core", &["dtc-locks", "dtc-protocol"]),
    (
        "coordinator/library",
        "dtc",
        &["dtc-core", "dtc-proto", "dtc-protocol", "dtc-runtime", "dtc-store"],
    ),
    (
        "coordinator",
        "coordinator",
        &[
            "dtc",
            "dtc-core",
            "dtc-proto",
            "dtc-protocol",
            "dtc-runtime",
            "dtc-service",
            "dtc-store",
        ],
    ),
    ("participant-inventory", "participant-inventory", &["dtc-participant", "shop-proto"]),
    ("participant-payment", "participant-payment", &["dtc-participant", "shop-proto"]),
    ("participant-order", "participant-order", &["dtc-participant", "shop-proto"]),
    ("cli", "dtc-cli", &["dtc-proto", "shop-proto"]),
    ("examples/shipping", "example-shipping", &["dtc-participant"]),
    ("integration-tests/model", "protocol-model", &["dtc-core", "dtc-protocol"]),
];

#[test]
fn arrows_point_one_way() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let ours = packages.filter(|package| package["source"].is_null());
    let root = Path::new(ROOT).canonicalize().unwrap();
    let mut found: Vec<(String, String, Vec<String>)> = ours
        .map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str().unwrap());
            let folder = manifest.parent().unwrap().strip_prefix(&root).unwrap();
            let name = package["name"].as_str().unwrap();
            (folder.to_str().unwrap().into(), name.into(), local_dependencies(&metadata, package))
        })
        .filter(|(_, name, _)| name != "integration-tests")
        .collect();
    let mut expected: Vec<(String, String, Vec<String>)> = ARROWS
        .iter()
        .map(|(folder, name, uses)| {
            let uses = uses.iter().map(|it| (*it).to_owned()).collect();
            ((*folder).into(), (*name).into(), uses)
        })
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

/// The workspace's packages that this one of it is built with, tests apart.
fn local_dependencies(metadata: &Value, package: &Value) -> Vec<String> {
    let names: Vec<_> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["source"].is_null())
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    let declared = package["dependencies"].as_array().unwrap().iter();
    let mut used: Vec<String> = declared
        .filter(|it| it["kind"] != "dev")
        .map(|it| it["name"].as_str().unwrap())
        .filter(|it| names.contains(it))
        .map(str::to_owned)
        .collect();
    used.sort();
    used
}

/// Features that put planted bugs, or places where the process is killed, into a program.
const TEST_FEATURES: [&str; 2] = ["mutants", "crash-points"];

#[test]
fn what_only_tests_may_do_is_turned_on_by_tests_only() {
    let metadata = metadata();
    let is_for_tests = |feature: &Value| {
        let name = feature.as_str().unwrap_or_default();
        TEST_FEATURES.contains(&name.rsplit('/').next().unwrap_or(name))
    };
    for package in metadata["packages"].as_array().unwrap().iter() {
        let name = &package["name"];
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["features"].as_array().unwrap().iter().any(is_for_tests);
            let to = &dependency["name"];
            assert!(!on || dependency["kind"] == "dev", "{name} turns it on for {to}");
        }
        let default = package["features"]["default"].as_array();
        assert!(!default.is_some_and(|all| all.iter().any(is_for_tests)), "{name} by default");
    }
}

#[test]
fn no_file_is_called_mod() {
    fn look(folder: &Path, problems: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "tests"].contains(&&*name) {
                    look(&path, problems);
                }
            } else if name == "mod.rs" {
                problems.push(path.display().to_string());
            }
        }
    }
    let mut problems = Vec::new();
    look(Path::new(ROOT), &mut problems);
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn the_library_is_light() {
    const MOST: usize = 90;
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let tree = |features: &str| {
        let output = Command::new(&cargo)
            .args(["tree", "--package", "dtc", "--edges", "normal", "--prefix", "none"])
            .args(["--format", "{lib}", "--locked", "--offline", "--features", features])
            .current_dir(ROOT)
            .output()
            .expect("cargo tree runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect::<BTreeSet<_>>()
    };
    let all = tree("");
    assert!(all.len() <= MOST, "{} packages, more than {MOST}: {all:#?}", all.len());
    assert!(!all.contains("tonic"), "without grpc-client it has no use for it");
    let with_links = tree("grpc-client");
    for forbidden in ["axum", "clap", "utoipa", "dtc_service", "tonic_reflection"] {
        assert!(!with_links.contains(forbidden), "a library has no use for {forbidden}");
    }
}

/// The words in backticks of a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn the_code_map_names_every_place_once_and_none_that_is_not_there() {
    let text = fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).unwrap();
    let map = text.split("## Code map").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = map.lines().filter(|line| line.starts_with("| `"));
    let mut named: Vec<String> = Vec::new();
    for row in rows {
        // A place is a path, or a name beside the path before it.
        let mut folder = Path::new("");
        for place in quoted(row.split('|').nth(1).unwrap()) {
            let beside = folder.join(place);
            let found =
                if Path::new(ROOT).join(place).exists() { Path::new(place) } else { &beside };
            assert!(Path::new(ROOT).join(found).exists(), "'{place}' of the code map is not there");
            named.push(found.to_str().unwrap().trim_end_matches('/').into());
            if place.contains('/') && found == Path::new(place) {
                folder = Path::new(place).parent().unwrap();
            }
        }
    }
    assert!(named.len() > 20, "{named:?}");
    let mut once = named.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), named.len(), "{named:#?}");
}
