//! `mlops config`: a first file, what is set and where it comes from, whether it works; and secrets that stand elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::flows::Server;
use crate::support::{Said, folder, mlops, run};

fn tried<'a>(document: &'a Value, key: &str) -> &'a Value {
    let all = document["result"]["settings"].as_array().unwrap();
    all.iter().find(|t| t["key"] == key).unwrap_or_else(|| panic!("{key}: {document:#}"))
}

#[test]
fn a_first_file_is_written_tried_and_never_replaced() {
    let home = folder();
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (file, database, backups) = (at("etc/config.toml"), at("mlflow.db"), at("backups"));
    let server = Server::start("3.17.2", &format!("sqlite:///{database}"), home.path(), &["--serve-artifacts"]);
    fs::create_dir_all(&backups).unwrap();
    let arguments = [
        "config",
        "init",
        &file,
        "--tracking-uri",
        &server.url,
        "--backend-store-uri",
        &format!("sqlite:///{database}"),
        "--artifact-root",
        &at("artifacts"),
        "--backup-to",
        &backups,
    ];
    fs::create_dir_all(at("artifacts")).unwrap();
    let plan = run(home.path(), &[&arguments[..], &["--dry-run"]].concat()).expect(0).out;
    assert!(plan.contains(&format!("\ntracking_uri = \"{}\"\n", server.url)) && !fs::exists(&file).unwrap());
    let said = run(home.path(), &arguments).expect(0).out;
    assert!(said.contains(&format!("mlops config check --config {file}")), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&file).unwrap(), plan);
    run(home.path(), &arguments).expect(9);
    assert_eq!(fs::read_to_string(&file).unwrap(), plan);
    run(home.path(), &["config", "init", &at("other.toml")]).expect(2);
    run(home.path(), &["config", "init", &at("other.toml"), "--tracking-uri", "mlflow"]).expect(2);
    assert!(!fs::exists(at("other.toml")).unwrap());

    let check = ["config", "check", "--config", &file, "--output", "json"];
    let works = run(home.path(), &check).expect(0).json();
    for key in ["tracking_uri", "backend_store_uri", "artifact_root", "backup.to", "work_dir", "state_dir"] {
        assert_eq!(tried(&works, key)["status"], "ok", "{works:#}");
    }
    fs::write(&file, plan.replace(&server.url, "http://127.0.0.1:9")).unwrap();
    fs::rename(at("artifacts"), at("gone")).unwrap();
    let fails = run(home.path(), &check).expect(5).json();
    for (key, status) in [("tracking_uri", "failed"), ("backend_store_uri", "ok"), ("artifact_root", "failed")] {
        assert_eq!(tried(&fails, key)["status"], status, "{fails:#}");
    }
}

#[test]
fn secrets_stand_elsewhere_and_are_read_when_they_are_needed() {
    let home = folder();
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let config = |text: &str, mode: u32| {
        fs::write(at("c.toml"), text).unwrap();
        fs::set_permissions(at("c.toml"), fs::Permissions::from_mode(mode)).unwrap();
    };
    let ask = |what: &str| {
        let mut command = mlops(home.path());
        command.args(["config", what, "--config", &at("c.toml"), "--output", "json"]).env("HOOK", "https://h/hunter4");
        Said::of(command.output().unwrap())
    };
    fs::write(at("password"), "hunter2\n").unwrap();
    fs::set_permissions(at("password"), fs::Permissions::from_mode(0o600)).unwrap();
    config(
        &format!(
            "tracking_username = \"ada\"\ntracking_password_file = \"{}\"\nbackend_store_uri_command = \"touch {}; echo \
             sqlite:///{}\"\n[notify]\nwebhook_env = \"HOOK\"\n[s3]\naccess_key_id = \"k\"\nsecret_access_key = \"hunter3\"\n",
            at("password"),
            at("ran"),
            at("none.db")
        ),
        0o640,
    );
    let shown = ask("show").expect(0);
    assert!(!shown.out.contains("hunter") && !fs::exists(at("ran")).unwrap(), "{}", shown.out);
    let document = shown.json();
    let of = |key: &str| {
        let all = document["result"]["settings"].as_array().unwrap();
        all.iter().find(|s| s["key"] == key).unwrap_or_else(|| panic!("{key}"))
    };
    assert_eq!(
        (of("tracking_password")["value"].as_str(), of("tracking_username")["value"].as_str()),
        (Some("***"), Some("ada"))
    );
    assert!(of("tracking_password")["origin"].as_str().unwrap().starts_with("the file "), "{document:#}");
    assert_eq!(document["warnings"].as_array().map(Vec::len), Some(0), "a group may read it: {document:#}");

    let checked = ask("check").expect(5);
    assert!(!checked.out.contains("hunter") && fs::exists(at("ran")).unwrap(), "{}", checked.out);
    let document = checked.json();
    assert_eq!(tried(&document, "tracking_password")["status"], "ok", "{document:#}");
    assert_eq!(tried(&document, "notify.webhook")["status"], "ok");
    let database =
        document["result"]["settings"].as_array().unwrap().iter().filter(|t| t["key"] == "backend_store_uri");
    assert!(
        database.clone().any(|t| t["status"] == "ok") && database.clone().any(|t| t["status"] == "failed"),
        "{document:#}"
    );

    // What everybody can read is warned of: the file that holds a secret, and one that a secret is in.
    config("[s3]\naccess_key_id = \"k\"\nsecret_access_key = \"hunter3\"\n", 0o644);
    let warned = ask("show").expect(0).json();
    assert!(warned["warnings"][0].as_str().unwrap().contains("everybody on this machine can read it"), "{warned:#}");
    config("tracking_uri = \"http://localhost:5000\"\n", 0o644);
    assert_eq!(ask("show").expect(0).json()["warnings"].as_array().map(Vec::len), Some(0));

    let vault = format!("cat {}; echo the vault is locked for hunter2 >&2; exit 7", at("password"));
    config(&format!("tracking_token_command = \"{vault}\"\n"), 0o600);
    let failed = ask("check").expect(5);
    assert!(failed.out.contains("the command `cat`: exit status: 7"), "{}", failed.out);
    config("tracking_token = \"hunter2\"\ntracking_token_env = \"HOOK\"\n", 0o600);
    let twice = ask("show").expect(3);
    assert!(twice.out.contains("given in two ways") && !twice.out.contains("hunter2"), "{}", twice.out);
}
