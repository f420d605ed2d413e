//! What is generated is current, and the example configuration tells the truth.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mlops::config::KEYS;

use crate::support::{folder, programs, python, root, run};

fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.flatten().map(|e| (e.file_name().into_string().unwrap(), fs::read_to_string(e.path()).unwrap())).collect()
}

#[test]
fn man_pages_are_current() {
    let home = folder();
    let fresh = home.path().join("man");
    run(home.path(), &["man", fresh.to_str().unwrap()]).expect(0);
    assert!(files(&fresh) == files(&root().join("man")), "make them anew with: mlops man man");
}

#[test]
fn completions_are_current() {
    let home = folder();
    for (shell, file) in [("bash", "mlops.bash"), ("zsh", "_mlops"), ("fish", "mlops.fish")] {
        let fresh = run(home.path(), &["completions", shell]).expect(0).out;
        let there = fs::read_to_string(root().join("completions").join(file)).unwrap_or_default();
        assert!(fresh == there, "make it anew with: mlops completions {shell} > completions/{file}");
    }
}

#[test]
fn the_example_configuration_shows_every_key_with_its_default() {
    let text = fs::read_to_string(root().join("config.example.toml")).unwrap();
    let home = folder();
    let path = root().join("config.example.toml");
    let shown =
        run(home.path(), &["config", "show", "--output", "json", "--config", path.to_str().unwrap()]).expect(0).json();
    let settings = shown["result"]["settings"].as_array().unwrap().clone();
    for key in KEYS {
        // Tables stand in comments, with their keys.
        if let Some((table, name)) = key.name.split_once('.') {
            let of_table = text.split_once(&format!("\n# [{table}]\n")).unwrap_or_else(|| panic!("no [{table}]")).1;
            let line = key.default.map_or(format!("\n# {name} = "), |default| format!("\n# {name} = \"{default}\"\n"));
            assert!(format!("\n{of_table}").contains(&line), "{} is not shown", key.name);
            continue;
        }
        match key.default {
            Some(default) => {
                let setting = settings.iter().find(|s| s["key"] == key.name).unwrap();
                // TMPDIR and --output, which the test sets, beat the file.
                if key.name != "work_dir" && key.name != "output" {
                    assert_eq!(setting["value"], default, "{}", key.name);
                    assert!(setting["origin"].as_str().unwrap().ends_with("config.example.toml"), "{setting}");
                }
                assert!(text.contains(&format!("\n{} = ", key.name)), "{} is not set", key.name);
            }
            None => assert!(text.contains(&format!("\n# {} = ", key.name)), "{} is not shown", key.name),
        }
    }
}

/// Every setting and table of the example that stands in a comment is one: the lines that look like TOML are.
#[test]
fn every_table_of_the_example_configuration_means_something_when_it_is_no_comment() {
    let text = fs::read_to_string(root().join("config.example.toml")).unwrap();
    let is_setting = |line: &str| {
        line.starts_with('[') && line.trim_end().ends_with(']')
            || line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let live: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line))
        // The two exclude each other, as the comment beside one says.
        .filter(|line| !line.starts_with("insecure = "))
        .collect();
    let home = folder();
    let file = home.path().join("config.toml");
    fs::write(&file, live.join("\n")).unwrap();
    let arguments = ["config", "show", "--output", "json", "--config", file.to_str().unwrap()];
    let shown = run(home.path(), &arguments).expect(0).json();
    let settings = shown["result"]["settings"].as_array().unwrap();
    let value =
        |key: &str| settings.iter().find(|s| s["key"] == key).map_or("", |s| s["value"].as_str().unwrap_or_default());
    for (table, holds) in [
        ("health", "server.write"),
        ("activity", "nightly"),
        ("metric", "forecast, champion"),
        ("probe", "energy, weather, minio, restarts, balance"),
        ("registry", "energy-*"),
        ("tls", "ca_file, client_certificate"),
        ("notify.ping", "***"),
        ("notify.webhook", "***"),
        ("s3.endpoint_url", "http://minio:9000"),
        ("s3.secret_access_key", "***"),
        ("tracking_token", "***"),
        ("backup.to", "/backup/mlflow"),
        ("backup.keep_within", "2d"),
    ] {
        assert!(value(table).contains(holds), "{table}: {}", value(table));
    }
    assert!(!shown.to_string().contains("hooks.slack.com"), "a secret is shown");
    let with_profile = [&arguments[..], &["--profile", "production"]].concat();
    let shown = run(home.path(), &with_profile).expect(0).json();
    let of =
        |key: &str| shown["result"]["settings"].as_array().unwrap().iter().find(|s| s["key"] == key).unwrap().clone();
    assert_eq!(of("notify.ping")["value"], serde_json::Value::Null, "the profile's table stands for the whole one");
    let notify = of("notify.webhook");
    assert_eq!(notify["value"], "***");
    assert!(notify["origin"].as_str().unwrap().ends_with("[profile.production]"), "{notify}");
}

#[test]
fn the_catalogue_is_what_the_generator_makes_of_a_real_mlflow() {
    let bin = programs(15);
    let generator = root().join("src/domain/catalogue/generate.py");
    let output = std::process::Command::new(python("3.17.2"))
        .arg(generator)
        .arg("--postgres-bin")
        .arg(bin)
        .stderr(std::process::Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    let there = fs::read(root().join("src/domain/catalogue/catalogue.jsonl")).unwrap();
    assert!(output.stdout == there, "the catalogue is stale: run generate.py as its head says");
}
