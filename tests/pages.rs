//! What can be asked of pages without following them: links, flags, lines, the README's picture.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::guides::{GUIDES, at_root, blocks};
use crate::support::{Said, folder, root};

/// Pages that another change brings; without them links to them are taken at their word.
const BESIDE: [&str; 3] = ["docs/json.md", "docs/benchmarks.md", "deploy/README.md"];
/// Flags of other programs.
const OTHERS: [&str; 12] = [
    "--all-targets",
    "--default-artifact-root",
    "--gc-runs",
    "--interval",
    "--mlflow",
    "--open",
    "--release",
    "--retry",
    "--retry-all-errors",
    "--retry-delay",
    "--rounds",
    "--test",
];

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

fn pages() -> Vec<String> {
    let mut pages: Vec<String> = ["README.md", "CONTRIBUTING.md"].map(str::to_owned).into();
    for entry in fs::read_dir(root().join("docs")).unwrap().flatten() {
        pages.push(format!("docs/{}", entry.file_name().into_string().unwrap()));
    }
    pages.retain(|page| page.ends_with(".md") && !BESIDE.contains(&page.as_str()));
    assert!(pages.len() > GUIDES.len(), "{pages:?}");
    pages
}

/// The README's picture comes from a script that still works, and asks nobody for fonts or pictures.
#[test]
fn the_picture_is_drawn_by_its_script() {
    let home = folder();
    let picture = home.path().join("terminal.svg");
    let mut command = Command::new("python3");
    command.arg(at_root("docs/terminal.py")).arg(env!("CARGO_BIN_EXE_mlops")).arg(&picture).args(["config", "show"]);
    command.env("HOME", home.path());
    Said::of(command.stdin(Stdio::null()).output().unwrap()).expect(0);
    let drawn = fs::read_to_string(picture).unwrap();
    assert!(drawn.contains(">$ mlops config show</text>") && drawn.contains(">backend_store_uri</text>"), "{drawn}");
    let kept = fs::read_to_string(root().join("docs/terminal.svg")).unwrap();
    for svg in [&drawn, &kept] {
        assert_eq!(svg.lines().nth(2), drawn.lines().nth(2), "draw it anew, as the script's head says");
        assert!(
            !svg.replace("xmlns=\"http://www.w3.org/2000/svg\"", "").replace("http://localhost", "").contains("http")
        );
    }
}

#[test]
fn what_is_a_command_is_followed() {
    for page in pages() {
        let text = read(&page);
        let commands = blocks(&text).iter().any(|(_, language, _)| !matches!(language.as_str(), "text" | "bash"));
        assert!(GUIDES.contains(&page.as_str()) || !commands, "{page} has commands that nothing runs");
        let long = text.lines().find(|l| l.chars().count() > 125 && !l.starts_with('|'));
        assert_eq!(long, None, "{page}");
    }
}

/// The anchors of a page, as GitHub makes them of its headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let text = read(page);
    let headings = text.lines().filter(|l| l.starts_with('#')).map(|l| l.trim_start_matches('#').trim().to_lowercase());
    headings
        .map(|h| h.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c)).collect::<String>().replace(' ', "-"))
        .collect()
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let text = read(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let beside = Path::new(&page).parent().unwrap().join(file);
            let target = if file.is_empty() { page.clone() } else { beside.to_str().unwrap().replace("docs/../", "") };
            if BESIDE.contains(&target.as_str()) {
                continue;
            }
            assert!(root().join(&target).exists(), "{page}: {link} leads nowhere");
            assert!(anchor.is_empty() || anchors(&target).contains(anchor), "{page}: {target} has no {anchor}");
        }
    }
}

#[test]
fn flags_that_are_named_are_there() {
    let mut known: BTreeSet<String> = OTHERS.map(str::to_owned).into();
    let flags = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
        let flags = words.filter(|w| w.starts_with("--") && w.len() > 3 && !w.ends_with('-') && !w.starts_with("---"));
        flags.map(str::to_owned).collect()
    };
    for entry in fs::read_dir(root().join("man")).unwrap().flatten() {
        known.extend(flags(&fs::read_to_string(entry.path()).unwrap().replace("\\-", "-")));
    }
    for page in pages() {
        let unknown: Vec<String> = flags(&read(&page)).into_iter().filter(|flag| !known.contains(flag)).collect();
        assert!(unknown.is_empty(), "{page} names {unknown:?}");
    }
}
