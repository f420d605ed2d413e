//! `[backup]` of the configuration: where backups are, which artifacts they have and which of them are kept, where no flag
//! says so.

use std::fs;

use serde_json::Value;

use crate::support::{Said, folder, mlops, sample};

/// A home with a database, a configuration and nothing else.
struct Home {
    home: tempfile::TempDir,
}

impl Home {
    fn new(backup: &str) -> Home {
        let home = folder();
        fs::copy(sample(2_000), home.path().join("mlflow.db")).unwrap();
        let made = Home { home };
        made.configure(backup);
        made
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).to_str().unwrap().to_owned()
    }

    /// The configuration with these lines in `[backup]`.
    fn configure(&self, backup: &str) {
        let database = self.path("mlflow.db");
        let text = format!("backend_store_uri = \"{database}\"\n[backup]\n{backup}\n");
        fs::write(self.path("config.toml"), text).unwrap();
    }

    fn mlops_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Said {
        let mut command = mlops(self.home.path());
        command.args(arguments).args(["--config", &self.path("config.toml"), "--progress", "none"]);
        Said::of(command.envs(variables.iter().copied()).output().unwrap())
    }

    fn mlops(&self, arguments: &[&str]) -> Said {
        self.mlops_with(&[], arguments)
    }

    fn result(&self, arguments: &[&str]) -> Value {
        self.mlops(&[arguments, &["--output", "json"]].concat()).expect(0).json()["result"].clone()
    }
}

fn rules(pruned: &Value) -> Vec<(String, String)> {
    let text = |rule: &Value, field: &str| rule[field].as_str().unwrap().to_owned();
    let rules = pruned["rules"].as_array().unwrap();
    rules.iter().map(|r| (format!("{} {}", text(r, "rule"), text(r, "value")), text(r, "origin"))).collect()
}

#[test]
fn the_table_says_where_and_what_and_a_flag_beats_it() {
    let home = Home::new("");
    let place = home.path("backups");
    home.configure(&format!("to = \"{place}\"\nartifacts = \"none\"\nkeep_last = 1"));
    let made = home.result(&["backup"]);
    assert_eq!((&made["artifacts"]["scope"], made["place"].as_str()), (&"none".into(), Some(place.as_str())));
    assert_eq!(home.result(&["backup", "list"])["backups"].as_array().unwrap().len(), 1);
    home.mlops(&["backup", "show", "latest"]).expect(0);
    home.mlops(&["backup", "verify", "--drill"]).expect(0);
    home.mlops(&["restore", "latest", "--to", &home.path("restored.db"), "--no-artifacts"]).expect(0);
    // The flag and the variable name another place.
    let other = home.path("other");
    home.mlops(&["backup", "list", "--from", &other]).expect(6);
    home.mlops(&["backup", "--to", &other, "--artifacts", "registered", "--artifact-root", &home.path("")]).expect(0);
    home.mlops_with(&[("MLOPS_BACKUP_TO", "/nowhere/at/all")], &["backup", "list"]).expect(6);
    let shown = home.mlops_with(&[("MLOPS_BACKUP_ARTIFACTS", "all")], &["config", "show"]).expect(0);
    for told in [&place, "environment MLOPS_BACKUP_ARTIFACTS", "backup.keep_last"] {
        assert!(shown.out.contains(told), "{told}: {}", shown.out);
    }
}

#[test]
fn limits_of_the_table_prune_and_one_flag_puts_them_aside() {
    let home = Home::new("");
    let table = format!("to = \"{}\"\nartifacts = \"none\"", home.path("backups"));
    home.configure(&table);
    home.result(&["backup"]);
    // No limit at all is refused, and nothing is made for a prune that cannot be.
    let said = home.mlops(&["backup", "prune"]).expect(2);
    assert!(said.err.contains("no rule says") && said.err.contains("[backup]"), "{}", said.err);
    home.mlops(&["backup", "--prune"]).expect(2);
    home.configure(&format!("{table}\nkeep_last = 0"));
    home.mlops(&["backup", "prune"]).expect(2);
    assert_eq!(home.result(&["backup", "list"])["backups"].as_array().unwrap().len(), 1);

    home.configure(&format!("{table}\nkeep_last = 2\nkeep_within = \"1h\""));
    let file = home.path("config.toml");
    let planned = home.result(&["backup", "prune"]);
    assert_eq!(planned["done"], false);
    assert_eq!(rules(&planned), [("keep_last 2".into(), file.clone()), ("keep_within 1h".into(), file.clone())]);
    let said = home.mlops(&["backup", "prune"]).expect(0);
    assert!(said.out.contains(&format!("Limits: keep_last 2, keep_within 1h ({file})")), "{}", said.out);
    // One flag, and none of the table's limits is left.
    let planned = home.result(&["backup", "prune", "--keep-daily", "1"]);
    assert_eq!(rules(&planned), [("keep_daily 1".into(), "flag".into())]);
    let said = home.mlops(&["backup", "prune", "--keep-last", "0"]).expect(2);
    assert!(said.err.contains("no rule says"), "{}", said.err);
    // A variable beats the key of its name alone.
    let said = home.mlops_with(&[("MLOPS_BACKUP_KEEP_LAST", "unlimited")], &["backup", "prune"]).expect(0);
    let told = format!("keep_last unlimited (environment MLOPS_BACKUP_KEEP_LAST); keep_within 1h ({file})");
    assert!(said.out.contains(&told), "{}", said.out);

    home.configure(&format!("{table}\nkeep_last = 1"));
    let line = home.result(&["backup", "--prune", "--yes"]);
    assert_eq!(line["pruned"]["done"], true);
    assert_eq!(rules(&line["pruned"]), [("keep_last 1".into(), file)]);
    assert_eq!(home.result(&["backup", "list"])["backups"].as_array().unwrap().len(), 1);
}

#[test]
fn what_makes_no_sense_there_is_told() {
    let home = Home::new("keep_dayly = 7");
    let said = home.mlops(&["backup", "prune"]).expect(3);
    assert!(said.err.contains("line 3: unknown key `keep_dayly`"), "{}", said.err);
    home.configure("keep_daily = \"some\"");
    assert!(home.mlops(&["backup", "prune"]).expect(3).err.contains("line 3: keep_daily: `some`"));
    home.configure("");
    for arguments in [&["backup"][..], &["backup", "list"], &["backup", "prune", "--keep-last", "1"]] {
        let said = home.mlops(arguments).expect(2);
        assert!(said.err.contains("where are the backups?") && said.err.contains("MLOPS_BACKUP_TO"), "{}", said.err);
    }
    let to = ("MLOPS_BACKUP_TO", home.path("backups"));
    let to = (to.0, to.1.as_str());
    home.mlops_with(&[to, ("MLOPS_BACKUP_ARTIFACTS", "some")], &["backup"]).expect(3);
    let said = home.mlops_with(&[to, ("MLOPS_BACKUP_KEEP_DAILY", "x")], &["backup", "prune"]).expect(3);
    assert!(said.err.contains("keep_daily (environment MLOPS_BACKUP_KEEP_DAILY)"), "{}", said.err);
}
