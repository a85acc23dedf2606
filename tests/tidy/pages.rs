//! Every page can be reached, and every link between pages leads to one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::files;
use crate::support::repository;

#[test]
fn the_summary_has_every_page_of_the_documentation_and_no_other() {
    let docs = repository().join("docs");
    let summary = docs.join("SUMMARY.md");
    let linked: BTreeSet<PathBuf> = read(&summary).into_iter().map(|link| normal(&docs.join(link))).collect();
    let pages: BTreeSet<PathBuf> = files(&docs, &["md"]).into_iter().filter(|path| *path != summary).collect();
    assert_eq!(pages.difference(&linked).collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "pages without a link");
    assert_eq!(linked.difference(&pages).collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "links without a page");
}

#[test]
fn links_between_pages_lead_to_files_that_exist() {
    let mut dead = Vec::new();
    for page in files(&repository(), &["md"]) {
        let folder = page.parent().expect("a file has a folder").to_owned();
        for link in read(&page) {
            if !folder.join(&link).exists() {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn files_that_pages_name_exist() {
    let mut dead = Vec::new();
    // What is dated names what was there.
    let is_dated = |page: &Path| page.ends_with("train/LOG.md") || page.ends_with("CHANGELOG.md");
    for page in files(&repository(), &["md"]).into_iter().filter(|page| !is_dated(page)) {
        let text = std::fs::read_to_string(&page).expect("pages are UTF-8");
        let named = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(|name| is_path(name));
        dead.extend(named.filter(|name| !repository().join(name).exists()).map(|n| format!("{}: {n}", page.display())));
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

/// Whether this is written as a path from the repository's root.
fn is_path(text: &str) -> bool {
    const FOLDERS: [&str; 9] =
        ["kernels/", "engine/", "eval/", "train/", "lsp/", "cargo-nanochat/", "tests/", "docs/", "editors/"];
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c));
    is_plain && FOLDERS.iter().any(|folder| text.starts_with(folder))
}

#[test]
fn links_are_read_from_text_not_from_code() {
    let text = "[a](x.md) and [b](../y.md#part \"title\") ![p](p.png)\n`[c](z.md)`\n```text\n[d](w.md)\n```\n\
                [e](https://x.example/a.md) [f](#part) [g](mailto:a@b.example)\n[h]: v.md\n[i][h]\n<img src=\"q.png\">\n";
    assert_eq!(links(text), ["x.md", "../y.md", "p.png", "v.md", "q.png"]);
}

/// The links of a page to files.
fn read(page: &Path) -> Vec<String> {
    links(&std::fs::read_to_string(page).expect("pages are UTF-8"))
}

/// Targets of relative links, without their parts (`#…`).
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        // What is between backticks shows a link and is none.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (start, end) in [("](", ')'), ("src=\"", '"'), ("href=\"", '"')] {
            let targets = prose.split(start).skip(1).filter_map(|rest| rest.split_once(end));
            found.extend(targets.map(|(target, _)| target.to_owned()));
        }
        if line.starts_with('[')
            && let Some((_, target)) = line.split_once("]: ")
        {
            found.push(target.to_owned());
        }
    }
    let is_file = |target: &String| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:");
    let without_part = |target: String| {
        let target = target.split_whitespace().next().unwrap_or_default();
        target.split('#').next().unwrap_or_default().to_owned()
    };
    found.into_iter().map(without_part).filter(is_file).collect()
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut normal, part| {
        match part {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            std::path::Component::CurDir => {}
            other => normal.push(other),
        }
        normal
    })
}
