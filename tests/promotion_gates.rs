//! The gates of `mlops promote`: each refuses for its own reason, in a sentence, with 5; all of them are shown.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::promotions::{Registry, shared};
use crate::support::{Database, folder, wait_for};

const SIGNED: &str = "flavors: {}\nsignature:\n  inputs: '[{\"type\": \"double\", \"name\": \"x\"}]'\n";
const UNSIGNED: &str = "flavors: {}\n";

/// A model and its judges.
struct Court<'a> {
    registry: &'a Registry,
    home: tempfile::TempDir,
    model: String,
}

impl<'a> Court<'a> {
    fn of(registry: &'a Registry, model: &str) -> Court<'a> {
        Court { registry, home: folder(), model: model.to_owned() }
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    fn register(&self, what: Value) -> u64 {
        let mut asked = json!({"do": "register", "model": self.model});
        asked.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        self.registry.told(&asked)["version"].as_u64().unwrap()
    }

    /// A document of `mlops promote` of this version.
    #[track_caller]
    fn promote(&self, code: i32, version: u64, arguments: &[&str]) -> Value {
        let number = version.to_string();
        let own = ["promote", "--model", &self.model, "--version", &number, "--mode", "stage"];
        self.registry.json(self.home(), code, &[&own[..], arguments].concat())["result"].clone()
    }

    /// The gates that a version meets on its way into production, which it does not go: verdict and sentence of each.
    #[track_caller]
    fn gates(&self, code: i32, version: u64, arguments: &[&str]) -> Vec<(String, String, String)> {
        let result = self.promote(code, version, &[arguments, &["--dry-run"]].concat());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let gates = result["gates"].as_array().unwrap();
        gates.iter().map(|g| (text(&g["gate"]), text(&g["verdict"]), text(&g["reason"]))).collect()
    }

    /// That the last gate refuses, and says so.
    #[track_caller]
    fn refuses(&self, version: u64, arguments: &[&str], gate: &str, why: &str) {
        let gates = self.gates(5, version, arguments);
        let (name, verdict, said) = gates.last().unwrap();
        assert_eq!((name.as_str(), verdict.as_str()), (gate, "refused"), "{gates:?}");
        assert!(said.contains(why), "{arguments:?}: {said}");
        assert!(
            gates[..gates.len() - 1].iter().all(|(_, verdict, _)| verdict != "refused"),
            "for its own reason: {gates:?}"
        );
    }

    #[track_caller]
    fn passes(&self, version: u64, arguments: &[&str], why: &str) {
        let gates = self.gates(0, version, arguments);
        let (_, verdict, said) = gates.last().unwrap();
        assert_eq!(verdict, "passed", "{gates:?}");
        assert!(said.contains(why), "{arguments:?}: {said}");
    }

    /// Changes rows of its versions past the server.
    fn sql(&self, set: &str, version: u64) {
        let database: &Database = self.registry.database.as_ref().unwrap();
        let model = self.model.replace('\'', "''");
        database.execute(&format!("UPDATE model_versions SET {set} WHERE name = '{model}' AND version = {version}"));
    }
}

#[test]
fn metrics_are_judged_alone_and_beside_the_champions() {
    let court = Court::of(shared("3.17.2"), "metrics are judged");
    let first = court.register(json!({"metrics": {"rmse": 0.5, "r2": 0.9, "odd": "nan", "only": 1}}));
    let second = court.register(json!({"metrics": {"rmse": 0.6, "r2": 0.95, "odd": 1, "val loss": 2}}));
    court.refuses(first, &["--require", "mae < 1"], "require", "the challenger has no metric mae");
    for text in ["odd < 1", "odd >= 1", "odd != 1", "odd == odd"] {
        court.refuses(first, &["--require", text], "require", "odd of the challenger is not a number (NaN)");
    }
    court.refuses(first, &["--require", "r2 > 0.9"], "require", "r2 is 0.9");
    court.passes(first, &["--require", "r2 >= 0.9"], "r2 is 0.9");
    court.passes(second, &["--require", "\"val loss\" <= 2"], "val loss is 2");
    // Without a champion only what needs none is asked, and that is said.
    let gates = court.gates(0, first, &["--require", "rmse < champion", "--require", "r2 >= 0.9"]);
    assert_eq!((gates[1].1.as_str(), gates[2].1.as_str()), ("skipped", "passed"), "{gates:?}");
    assert!(gates[1].2.contains("no champion yet"), "{gates:?}");
    court.promote(0, first, &[]);
    court.refuses(second, &["--require", "rmse < champion"], "require", "rmse is 0.6, the champion's rmse is 0.5");
    court.refuses(second, &["--require", "rmse <= champion * 1.1"], "require", "0.6 against 0.55");
    court.passes(second, &["--require", "rmse <= champion * 1.3"], "0.6 against 0.65");
    court.passes(second, &["--require", "r2 >= champion + 0.01"], "0.95 against 0.91");
    court.refuses(second, &["--require", "odd > champion"], "require", "odd of the champion is not a number (NaN)");
    court.refuses(second, &["--require", "\"val loss\" < champion"], "require", "the champion has no metric val loss");
    court.refuses(second, &["--require", "only < champion"], "require", "the challenger has no metric only");
    court.refuses(second, &["--require", "rmse / (odd - 1) > 0"], "require", "is 0, and something is divided by it");
    let wrong = court.registry.mlops(court.home(), &["promote", "--model", &court.model, "--require", "rmse < < 2"]);
    let wrong = wrong.expect(2).err;
    assert!(wrong.contains("at character 8, `< 2`"), "{wrong}");
}

/// MLflow gives a NaN that was logged with a model's id back as 0.0, which would pass as the best of errors.
#[test]
fn a_logged_models_nan_is_no_zero() {
    let court = Court::of(shared("3.17.2"), "a logged model's");
    let version = court.register(json!({"metrics": {"run": 1}, "logged": {"odd": "nan", "zero": 0, "rmse": 0.25}}));
    court.refuses(version, &["--require", "odd <= 0"], "require", "odd of the challenger is not a number (NaN)");
    court.passes(version, &["--require", "zero <= 0"], "zero is 0");
    court.passes(version, &["--require", "rmse + run < 2"], "rmse is 0.25, run is 1, 1.25 against 2");
    court.promote(0, version, &["--require", "rmse < 1"]);
    let next = court.register(json!({"logged": {"odd": 1, "zero": 1, "rmse": 0.5}}));
    court.refuses(next, &["--require", "odd > champion"], "require", "odd of the champion is not a number (NaN)");
    // Of several datasets one has to be named; the one that there is needs no name.
    let several = court.register(json!({"logged": {"rmse[train]": 0.1, "rmse[val]": 0.9, "mae[val]": 0.5}}));
    court.refuses(several, &["--require", "rmse < 1"], "require", "measured on several datasets: name one of \"rmse[");
    court.passes(several, &["--require", "\"rmse[val]\" < 1"], "rmse[val] is 0.9");
    court.passes(several, &["--require", "mae < 1"], "mae is 0.5");
    court.refuses(several, &["--require", "\"rmse[val]\" < 0.5"], "require", "rmse[val] is 0.9");
}

/// What a tag said when the plan was made is asked once more before the switch.
#[test]
fn a_gate_that_changes_while_a_check_runs_is_heard() {
    let court = Court::of(shared("2.9.2"), "changing its mind");
    let version = court.register(json!({"tags": {"validation_status": "passed"}})).to_string();
    let program = court.registry.program(court.home(), &[]);
    let mind = format!(
        "{} promote -q --model '{}' --version {version} --set-validation-status --require 'none > 1' || true",
        program.get_program().to_str().unwrap(),
        court.model
    );
    let own = ["promote", "--model", &court.model, "--version", &version, "--yes"];
    let said = court
        .registry
        .mlops(court.home(), &[&own[..], &["--require-tag", "validation_status=passed", "--check", &mind]].concat());
    let said = said.expect(5);
    assert!(said.err.contains("since the plan was made a gate says no"), "{}", said.err);
    assert!(said.err.contains("validation_status is `failed`; nothing was done"), "{}", said.err);
    assert!(court.registry.view(&court.model).in_stage("Production").is_empty());
}

#[test]
fn tags_approval_signature_and_age_are_judged() {
    let court = Court::of(shared("3.17.2"), "tags and such");
    let version = court.register(json!({"tags": {"team": "grid", "empty": " "}, "mlmodel": SIGNED}));
    court.refuses(version, &["--require-tag", "owner"], "tag", "the version has no tag owner");
    court.refuses(version, &["--require-tag", "team=wind"], "tag", "its tag team is `grid`");
    court.passes(version, &["--require-tag", "team=grid"], "its tag team is `grid`");
    court.passes(version, &["--require-tag", "team"], "its tag team is `grid`");
    court.refuses(
        version,
        &["--approve-by-tag", "approved_by"],
        "approval",
        "nobody approved it: the version has no tag",
    );
    court.refuses(version, &["--approve-by-tag", "empty"], "approval", "nobody approved it: its tag empty is empty");
    court.passes(version, &["--approve-by-tag", "team"], "approved by grid");

    court.passes(version, &["--require-signature"], "its MLmodel has a signature");
    let without = court.register(json!({"mlmodel": UNSIGNED}));
    court.refuses(without, &["--require-signature"], "signature", "its MLmodel has no signature");
    let nothing = court.register(json!({}));
    court.refuses(nothing, &["--require-signature"], "signature", "there is no MLmodel at its place");
    let odd = court.register(json!({"mlmodel": "signature: ["}));
    court.refuses(odd, &["--require-signature"], "signature", "its MLmodel could not be read");

    court.passes(version, &["--max-age", "30d"], "it was made");
    court.sql("creation_time = creation_time - 40 * 86400000::bigint", version);
    court.refuses(version, &["--max-age", "30d"], "age", "it was made 40 days ago");
    court.passes(version, &["--max-age", "41d"], "it was made 40 days ago");
    // A registration that is not complete is refused without being asked for.
    court.sql("status = 'PENDING_REGISTRATION', status_message = 'copying'", without);
    court.refuses(without, &[], "ready", "it is PENDING_REGISTRATION: copying");
    court.sql("status = 'READY', status_message = ''", without);
    court.passes(without, &[], "it is READY");
}

#[test]
fn what_did_not_wait_long_enough_is_refused() {
    let court = Court::of(shared("3.17.2"), "soaking");
    let version = court.register(json!({}));
    court.registry.transition(&court.model, version, "Staging");
    court.refuses(version, &["--soak", "1s"], "soak", "since when it waits is not known");
    let unknown = court.register(json!({}));
    court.promote(0, version, &["--to", "Archived"]);
    court.promote(0, version, &["--to", "Staging"]);
    court.refuses(version, &["--soak", "24h"], "soak", "it has been in Staging for");
    wait_for("the end of a second", Duration::from_secs(20), || {
        let number = version.to_string();
        let soak = ["promote", "--model", &court.model, "--version", &number, "--soak", "1s", "--dry-run"];
        let code = court.registry.mlops(court.home(), &soak).code;
        assert!([0, 5].contains(&code), "{code}");
        (code == 0).then_some(())
    });
    // Another machine knows it by the tags.
    let elsewhere = Court { home: folder(), model: court.model.clone(), ..court };
    elsewhere.passes(version, &["--soak", "1s"], "it has been in Staging for");
    elsewhere.refuses(unknown, &["--soak", "1s"], "soak", "is not known");
    elsewhere.registry.transition(&elsewhere.model, version, "None");
    elsewhere.refuses(version, &["--soak", "1s"], "soak", "since when it waits is not known");
}

#[test]
fn a_command_is_a_judge() {
    let court = Court::of(shared("3.17.2"), "it's a \"judge\"");
    let champion = court.register(json!({}));
    court.promote(0, champion, &[]);
    let made = court.registry.told(&json!({"do": "register", "model": court.model}));
    let (version, run) = (made["version"].as_u64().unwrap(), made["run_id"].as_str().unwrap());
    let kept =
        "printf '%s|' \"$MODEL_NAME\" \"$VERSION\" \"$RUN_ID\" \"$MODEL_URI\" \"$CHAMPION_VERSION\" > \"$HOME/seen\"";
    court.passes(version, &["--check", kept], "exit code 0");
    let seen = fs::read_to_string(court.home().join("seen")).unwrap();
    assert_eq!(seen, format!("{0}|{version}|{run}|models:/{0}/{version}|{champion}|", court.model));
    court.refuses(
        version,
        &["--check", "echo fine; echo 'no answer from the model' >&2; exit 3"],
        "check",
        "exit code 3: no answer from the model",
    );
    court.refuses(version, &["--check", "no-such-program"], "check", "exit code 127");
    court.refuses(version, &["--check", "kill -9 $$"], "check", "signal: 9 (SIGKILL)");
    let begun = std::time::Instant::now();
    let slow = ["--check", "sleep 60 & sleep 60", "--check-timeout", "1s"];
    court.refuses(version, &slow, "check", "no end within 1.0 s");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn all_gates_are_shown_also_after_one_that_refuses() {
    let court = Court::of(shared("3.17.2"), "all are shown");
    let version = court.register(json!({"metrics": {"rmse": 0.5}}));
    let file = court.home().join("config.toml");
    fs::write(
        &file,
        format!(
            "[promote.models.\"{}\"]\nmode = \"both\"\nchampion = \"chief\"\nrequire = [\"rmse < 0.9\", \"mae < 1\"]\n\
             require_tag = [\"team=grid\"]\nsoak = \"1h\"\ncheck = [\"exit 7\"]\n",
            court.model
        ),
    )
    .unwrap();
    let number = version.to_string();
    let own = ["--config", file.to_str().unwrap(), "promote", "--model", &court.model, "--version", &number];
    let more = ["--require", "rmse < 0.4", "--require-tag", "owner", "--check", "true", "--approve-by-tag", "who"];
    let document = court.registry.json(court.home(), 5, &[&own[..], &more].concat());
    let gates = document["result"]["gates"].as_array().unwrap();
    let shown: Vec<(&str, &str)> =
        gates.iter().map(|g| (g["gate"].as_str().unwrap(), g["verdict"].as_str().unwrap())).collect();
    let (yes, no) = ("passed", "refused");
    let wanted = [
        ("ready", yes),
        ("require", yes),
        ("require", no),
        ("require", no),
        ("tag", no),
        ("tag", no),
        ("approval", no),
        ("soak", no),
        ("check", no),
        ("check", yes),
    ];
    assert_eq!(shown, wanted, "{document}");
    assert_eq!(document["result"]["to"], "Production and @chief", "the file says how this model is run");
    let people = court.registry.mlops(court.home(), &[&own[..], &more].concat()).expect(5).out;
    for words in ["mae < 1", "the challenger has no metric mae", "7 gates refuse it. Nothing was changed."] {
        assert!(people.contains(words), "{words}: {people}");
    }
    assert_eq!(people.matches("REFUSED").count(), 7, "{people}");
    // The way back is not barred by what is asked of the way there.
    court.registry.transition(&court.model, version, "Production");
    court.registry.alias(&court.model, "chief", version);
    let second = court.register(json!({})).to_string();
    let back = ["rollback", "--model", &court.model, "--to-version", &second, "--yes"];
    let back = court.registry.json(court.home(), 0, &[&own[..2], &back].concat());
    assert_eq!(back["result"]["gates"].as_array().unwrap().len(), 1, "{back}");
    let view = court.registry.view(&court.model);
    assert_eq!(view.under("chief").map(|v| v.to_string()), Some(second));
    // A file that asks for nonsense is refused before anybody is asked.
    fs::write(&file, "[promote.models.\"x\"]\nrequire = [\"rmse <\"]\n").unwrap();
    let wrong = court.registry.mlops(court.home(), &own).expect(3).err;
    assert!(wrong.contains("promote.models.x.require[0]") || wrong.contains("line 2"), "{wrong}");
}

#[test]
fn one_step_of_a_pipeline_judges_and_the_next_promotes() {
    let court = Court::of(shared("3.17.2"), "validated");
    let version = court.register(json!({"metrics": {"rmse": 0.5}}));
    let status = || court.registry.view(&court.model).tags(version).get("validation_status").cloned();
    let wanted = ["--require-tag", "validation_status=passed"];
    court.refuses(version, &wanted, "tag", "the version has no tag validation_status");
    let judge = |code, require, more: &[&str]| {
        court.promote(code, version, &[&["--require", require, "--set-validation-status"], more].concat())
    };
    judge(0, "rmse < 1", &["--dry-run"]);
    assert_eq!(status(), None);
    let failed = judge(5, "rmse < 0.1", &[]);
    assert_eq!((&failed["validation_status"], &failed["written"]), (&json!("failed"), &json!(true)));
    assert_eq!(status(), Some(json!("failed")));
    court.refuses(version, &wanted, "tag", "its tag validation_status is `failed`");
    judge(0, "rmse < 1", &[]);
    assert_eq!(status(), Some(json!("passed")));
    assert_eq!(court.registry.view(&court.model).in_stage("Production").len(), 0, "nothing is promoted by a verdict");
    court.promote(0, version, &wanted);
    assert!(court.registry.view(&court.model).in_stage("Production").contains(&version));
    // A champion is judged as well, where somebody asks for a verdict.
    judge(5, "rmse < 0.1", &[]);
    assert_eq!(status(), Some(json!("failed")));
}

#[test]
fn production_is_not_left_empty() {
    let court = Court::of(shared("3.17.2"), "not empty");
    let (version, other) = (court.register(json!({})), court.register(json!({})));
    court.promote(0, version, &[]);
    for to in ["Archived", "Staging", "None"] {
        court.refuses(version, &["--to", to], "champion", "it is the only one in Production");
    }
    let before = court.registry.view(&court.model);
    court.promote(5, version, &["--to", "Archived", "--yes"]);
    assert_eq!(court.registry.view(&court.model), before);
    // Two in Production, as a client without a lock may leave them: one may go.
    court.registry.told(&json!({"do": "transition", "model": court.model, "version": other, "stage": "Production"}));
    assert_eq!(court.registry.view(&court.model).in_stage("Production").len(), 2);
    court.promote(0, version, &["--to", "Archived", "--yes"]);
    assert_eq!(court.registry.view(&court.model).in_stage("Production"), [other].into());
}
