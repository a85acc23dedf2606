//! Every package that is built in has a licence and a source that `deny.toml` allows.

use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use super::{is_ours, metadata};
use crate::support::repository;

/// The part of `deny.toml` that is checked here.
#[derive(Debug, Deserialize)]
struct Deny {
    licenses: Licenses,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

fn deny() -> Deny {
    let text = std::fs::read_to_string(repository().join("deny.toml")).expect("deny.toml");
    toml::from_str(&text).expect("deny.toml has licences and sources")
}

/// Whether `expression` is met by licences of the list alone. Exceptions (`WITH`) are not among them.
fn is_allowed(expression: &str, allow: &[String]) -> bool {
    let list: Vec<Licensee> = allow.iter().map(|name| Licensee::parse(name).expect("an SPDX identifier")).collect();
    // Old manifests separate licences by a slash.
    let expression = Expression::parse_mode(expression, ParseMode::LAX);
    expression.is_ok_and(|expression| expression.evaluate(|needed| list.iter().any(|has| has.satisfies(needed))))
}

#[test]
fn every_package_has_a_licence_that_is_allowed() {
    let allow = deny().licenses.allow;
    let metadata = metadata();
    let others: Vec<String> = metadata
        .packages
        .iter()
        .filter(|package| !package.license.as_deref().is_some_and(|licence| is_allowed(licence, &allow)))
        .map(|package| format!("{} {}: {:?}", package.name, package.version, package.license))
        .collect();
    assert!(metadata.packages.len() > 100 && others.is_empty(), "deny.toml does not allow {others:#?}");
}

#[test]
fn every_package_comes_from_a_registry_that_is_allowed_or_from_this_repository() {
    let registries: Vec<String> = deny().sources.allow_registry.iter().map(|url| format!("registry+{url}")).collect();
    for package in metadata().packages {
        match &package.source {
            Some(source) => assert!(registries.contains(&source.repr), "{} is from {source}", package.name),
            None => {
                let is_inside = package.manifest_path.starts_with(repository().canonicalize().expect("it exists"));
                assert!(is_ours(&package.name) && is_inside, "{} is from {}", package.name, package.manifest_path);
            }
        }
    }
}

#[test]
fn a_licence_that_is_not_on_the_list_is_refused() {
    let allow = ["MIT".to_owned(), "Zlib".to_owned()];
    for expression in ["MIT", "MIT/Apache-2.0", "GPL-3.0-only OR Zlib", "MIT AND Zlib"] {
        assert!(is_allowed(expression, &allow), "{expression}");
    }
    for expression in ["Apache-2.0", "MIT AND GPL-3.0-only", "MIT WITH LLVM-exception", "", "nonsense"] {
        assert!(!is_allowed(expression, &allow), "{expression}");
    }
}
