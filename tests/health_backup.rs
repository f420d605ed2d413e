//! The layer *backup* of `mlops health` on real backups: fresh, old, in part, unfinished, damaged, drilled and not, in a
//! folder and in S3; and places that are empty, gone, or no place.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use mlops::archive::layout::sha256_hex;
use mlops::backup::manifest::seal;
use serde_json::Value;

use crate::artifacts::{ObjectStore, object_store};
use crate::health::{Look, TIMEOUT, look};
use crate::support::{Said, folder, mlops, run, sample};

/// A database and a place for its backups.
struct Kept {
    home: tempfile::TempDir,
}

impl Kept {
    fn new() -> Kept {
        let home = folder();
        fs::copy(sample(2_000), home.path().join("mlflow.db")).unwrap();
        fs::create_dir(home.path().join("root")).unwrap();
        Kept { home }
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).to_str().unwrap().to_owned()
    }

    /// A backup that ends with this code; its id.
    fn back_up(&self, code: i32, more: &[&str]) -> String {
        let (to, database) = (self.path("backups"), self.path("mlflow.db"));
        let own = ["backup", "--to", &to, "--backend-store-uri", &database, "--output", "json", "--progress", "none"];
        let said = run(self.home.path(), &[&own, more].concat()).expect(code);
        said.json()["result"]["id"].as_str().unwrap().to_owned()
    }

    fn whole(&self) -> String {
        self.back_up(0, &["--artifacts", "none"])
    }

    /// One artifact cannot be read.
    fn partial(&self) -> String {
        let connection = rusqlite::Connection::open(self.path("mlflow.db")).unwrap();
        let sql = "SELECT artifact_uri FROM runs ORDER BY 1 LIMIT 1";
        let address: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
        let run = Path::new(&self.path("root")).join(address.trim_start_matches("mlflow-artifacts:/"));
        fs::create_dir_all(&run).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", run.join("dangling")).unwrap();
        self.back_up(4, &["--artifact-root", &self.path("root")])
    }

    fn verify(&self, more: &[&str]) {
        let place = self.path("backups");
        run(self.home.path(), &[&["backup", "verify", "--from", &place, "--progress", "none"], more].concat())
            .expect(0);
    }

    /// Sets the time that a backup states back, in its manifest and its seal.
    fn age(&self, id: &str, hours: i64) {
        let file = Path::new(&self.path("backups")).join(id).join("manifest.json");
        let mut manifest: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        manifest["started"] = moment(hours).into();
        let text = serde_json::to_vec_pretty(&manifest).unwrap();
        fs::write(&file, &text).unwrap();
        fs::write(file.with_file_name("manifest.sha256"), seal(&text)).unwrap();
    }

    /// The backup under another id, which says that it was begun so many hours ago.
    fn renamed(&self, id: &str, hours: i64) -> String {
        let begun = (Timestamp::now() - SignedDuration::from_hours(hours)).strftime("%Y%m%dT%H%M%SZ");
        let new = format!("{begun}-{}", &id[17..]);
        let backups = self.path("backups");
        let (from, to) = (Path::new(&backups).join(id), Path::new(&backups).join(&new));
        fs::rename(from, &to).unwrap();
        let file = to.join("manifest.json");
        if let Ok(text) = fs::read(&file) {
            let mut manifest: Value = serde_json::from_slice(&text).unwrap();
            manifest["id"] = new.clone().into();
            let text = serde_json::to_vec_pretty(&manifest).unwrap();
            fs::write(&file, &text).unwrap();
            fs::write(to.join("manifest.sha256"), seal(&text)).unwrap();
            self.age(&new, hours);
        }
        new
    }

    fn look_at(&self, place: &str, more: &[&str]) -> Look {
        let own = ["--backup-to", place, "--output", "json"];
        look(self.home.path(), TIMEOUT, &[&own, more].concat(), &[])
    }

    /// A look that writes nothing into the place.
    #[track_caller]
    fn look(&self) -> Look {
        let place = self.path("backups");
        let before = tree(Path::new(&place));
        let seen = self.look_at(&place, &[]);
        assert!(tree(Path::new(&place)) == before, "the place is another one");
        seen
    }

    fn configure(&self, text: &str) {
        fs::create_dir_all(self.path(".config/mlops")).unwrap();
        fs::write(self.path(".config/mlops/config.toml"), text).unwrap();
    }
}

/// So many hours ago.
fn moment(hours: i64) -> String {
    (Timestamp::now() - SignedDuration::from_hours(hours)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Every file and folder below with its bytes and its time of change.
fn tree(folder: &Path) -> BTreeMap<String, (Option<Vec<u8>>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().flatten().map(|e| e.path()));
        }
        found.insert(path.display().to_string(), (fs::read(&path).ok(), changed));
    }
    found
}

fn says(check: &Value, text: &str) {
    assert!(check["summary"].as_str().unwrap().contains(text), "{text}: {check:#}");
}

#[test]
fn a_fresh_backup_is_well_once_it_was_drilled() {
    let kept = Kept::new();
    let id = kept.whole();
    let seen = kept.look().turned(&[("backup.drill", "warning")], &[]);
    says(&seen.check("backup.age"), &format!("{id} is the newest complete one (artifacts: none)"));
    says(&seen.check("backup.drill"), "no backup was ever restored");
    let ids: Vec<String> = seen.checks().into_keys().collect();
    assert_eq!(ids, ["backup.age", "backup.complete", "backup.drill", "backup.place"]);
    // Checked is not restored.
    kept.verify(&[]);
    kept.look().turned(&[("backup.drill", "warning")], &[]);
    kept.verify(&["--drill"]);
    // Somebody who works on the place keeps nobody from looking.
    let lock = fs::File::options().write(true).open(Path::new(&kept.path("backups")).join("lock")).unwrap();
    lock.lock().unwrap();
    let seen = kept.look().well();
    drop(lock);
    says(&seen.check("backup.drill"), &id);
    let age = seen.check("backup.age")["value"].as_f64().unwrap();
    assert!((0.0..600.0).contains(&age), "{age}");
    // A later backup that was not drilled changes nothing: the last drill is that of any.
    let older = kept.renamed(&id, 20);
    kept.whole();
    says(&kept.look().well().check("backup.drill"), &older);
    // The drill ages as well.
    let proof = Path::new(&kept.path("backups")).join(&older).join("proof.json");
    let old = moment(32 * 24);
    let seal = sha256_hex(format!("{old} {old}").as_bytes());
    fs::write(&proof, format!(r#"{{"verified":"{old}","drilled":"{old}","seal":"{seal}"}}"#)).unwrap();
    kept.look().turned(&[("backup.drill", "warning")], &[]);
}

#[test]
fn an_old_backup_is_told_by_its_age_and_by_limits_of_ones_own() {
    let kept = Kept::new();
    let id = kept.whole();
    kept.verify(&["--drill"]);
    kept.age(&id, 25);
    kept.look().well();
    kept.age(&id, 27);
    kept.look().turned(&[("backup.age", "warning")], &[]);
    kept.age(&id, 51);
    // What is old was measured: the drill is judged all the same.
    let seen = kept.look().turned(&[("backup.age", "critical")], &[]);
    assert_eq!(seen.check("backup.drill")["status"], "ok");
    let place = kept.path("backups");
    let nagios = |code: i32| {
        let arguments = ["health", "--backup-to", &place, "--output", "nagios"];
        run(kept.home.path(), &arguments).expect(code).out
    };
    assert!(nagios(2).contains("backup.age"), "{}", nagios(2));
    let prometheus = run(kept.home.path(), &["health", "--backup-to", &place, "--output", "prometheus"]).expect(2).out;
    assert!(prometheus.contains("backup.age"), "{prometheus}");
    kept.configure(&format!(
        "[backup]\nto = \"{place}\"\n[health.backup.age]\nwarning = \"52h\"\n[health.backup.drill]\ncritical = 0.001\n"
    ));
    // The place comes from the configuration now.
    let seen = look(kept.home.path(), TIMEOUT, &["--output", "json"], &[]);
    seen.turned(&[("backup.drill", "critical")], &[]);
    // A clock of the future proves nothing.
    kept.age(&id, -3);
    let seen = look(kept.home.path(), TIMEOUT, &["--output", "json", "--skip", "backup.drill"], &[]);
    says(&seen.turned(&[("backup.age", "unknown")], &[]).check("backup.age"), "of the future");
}

#[test]
fn what_is_not_whole_is_told_apart() {
    let kept = Kept::new();
    // In part only: there is none to go back to.
    let part = kept.partial();
    let seen = kept.look().turned(&[("backup.age", "critical"), ("backup.complete", "warning")], &["backup.drill"]);
    says(&seen.check("backup.complete"), &format!("{part} lacks 1 artifact"));
    assert!(!seen.check("backup.complete")["evidence"].as_array().unwrap().is_empty(), "{}", seen.said.out);
    let part = kept.renamed(&part, 3);
    let whole = kept.whole();
    kept.verify(&["--drill"]);
    kept.look().well();
    // A newer one in part takes nothing from the older whole one, and is told.
    let whole = kept.renamed(&whole, 4);
    let seen = kept.look().turned(&[("backup.complete", "warning")], &[]);
    says(&seen.check("backup.complete"), &part);
    says(&seen.check("backup.age"), &whole);
    // One without a manifest may be at work, but not for days.
    let backups = kept.path("backups");
    let manifest = Path::new(&backups).join(&part).join("manifest.json");
    fs::remove_file(&manifest).unwrap();
    fs::remove_file(manifest.with_file_name("manifest.sha256")).unwrap();
    says(&kept.look().well().check("backup.complete"), "being made, or was interrupted");
    let stale = kept.renamed(&part, 25);
    let whole = kept.renamed(&whole, 26);
    kept.configure("[health.backup.age]\nwarning = \"40h\"\n");
    says(&kept.look().turned(&[("backup.complete", "warning")], &[]).check("backup.complete"), "never finished");
    // A flipped bit in the newest manifest.
    let older = Path::new(&backups).join(&whole).join("manifest.json");
    let whole = kept.whole();
    let newest = Path::new(&backups).join(&whole).join("manifest.json");
    let sound = fs::read(&newest).unwrap();
    let mut damaged = sound.clone();
    damaged[sound.len() / 2] ^= 4;
    fs::write(&newest, &damaged).unwrap();
    let seen = kept.look().turned(&[("backup.complete", "critical")], &[]);
    says(&seen.check("backup.complete"), &format!("the backup {whole}: `manifest.json` is not what"));
    // And in all of them: what is left is none.
    fs::write(&older, &damaged).unwrap();
    assert!(!Path::new(&backups).join(&stale).exists(), "the next backup removes what was interrupted");
    kept.look().turned(&[("backup.age", "critical"), ("backup.complete", "critical")], &["backup.drill"]);
}

#[test]
fn places_that_hold_nothing_or_are_none_are_told_apart() {
    let kept = Kept::new();
    let gone = kept.look_at(&kept.path("gone"), &[]);
    let follow = ["backup.age", "backup.complete", "backup.drill"];
    says(&gone.turned(&[("backup.place", "critical")], &follow).check("backup.place"), "is not there");
    let file = kept.look_at(&kept.path("mlflow.db"), &[]).turned(&[("backup.place", "critical")], &follow);
    says(&file.check("backup.place"), "a folder");
    let empty = kept.look_at(&kept.path("root"), &[]).turned(&[("backup.age", "critical")], &[]);
    says(&empty.check("backup.age"), "holds no backup");
    assert_eq!(empty.result()["skipped"].as_array().map(Vec::len), Some(2), "{}", empty.said.out);
    let said = run(kept.home.path(), &["health", "--backup-to", "ftp://user:hunter2@host/x"]).expect(3);
    assert!(said.err.contains("neither a folder") && !said.err.contains("hunter2"), "{}", said.err);
    // Nothing is asked of backups where nobody said where they are, and nothing else where nothing else is known.
    let database = kept.path("mlflow.db");
    let plan =
        |arguments: &[&str]| run(kept.home.path(), &[&["health", "--dry-run"], arguments].concat()).expect(0).out;
    assert!(!plan(&["--backend-store-uri", &database]).contains("backup."));
    let both = plan(&["--backend-store-uri", &database, "--backup-to", &kept.path("root")]);
    assert!(both.contains("backup.age") && both.contains("database.connect"), "{both}");
    run(kept.home.path(), &["health", "--skip", "backup.*", "--backup-to", &kept.path("root")]).expect(3);
}

#[test]
fn backups_in_s3_are_looked_at_as_well() {
    let kept = Kept::new();
    let ObjectStore { access, _process } = object_store(kept.home.path(), &[]);
    let key = access.key.clone().unwrap();
    let place = "s3://artifacts/backups/of-mlflow";
    let mlops = |arguments: &[&str]| {
        use secrecy::ExposeSecret;
        let mut command = mlops(kept.home.path());
        command.env("AWS_ACCESS_KEY_ID", &key.id).env("AWS_SECRET_ACCESS_KEY", key.secret.expose_secret());
        command.env("MLFLOW_S3_ENDPOINT_URL", access.endpoint.as_deref().unwrap());
        Said::of(command.env("MLOPS_BACKUP_TO", place).args(arguments).output().unwrap())
    };
    let look = || Look { said: mlops(&["health", "--output", "json", "--timeout", "20s"]) };
    says(&look().turned(&[("backup.age", "critical")], &[]).check("backup.age"), "holds no backup");
    let database = kept.path("mlflow.db");
    let back_up = ["backup", "--backend-store-uri", &database, "--artifacts", "none", "--progress", "none"];
    mlops(&back_up).expect(0);
    look().turned(&[("backup.drill", "warning")], &[]);
    mlops(&["backup", "verify", "--drill", "--progress", "none"]).expect(0);
    look().well();
    let said = Look { said: mlops(&["health", "--output", "json", "--backup-to", "s3://nobucket/x"]) };
    said.turned(&[("backup.place", "critical")], &["backup.age", "backup.complete", "backup.drill"]);
    drop(_process);
    look().turned(&[("backup.place", "critical")], &["backup.age", "backup.complete", "backup.drill"]);
}

#[test]
fn a_place_that_hangs_takes_no_more_than_the_time_given() {
    let kept = Kept::new();
    // Connections are taken by the system, and nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let environment =
        [("MLFLOW_S3_ENDPOINT_URL", endpoint.as_str()), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let arguments = ["--backup-to", "s3://artifacts/backups", "--output", "json"];
    let seen = look(kept.home.path(), 2, &arguments, &environment);
    let seen = seen.turned(&[("backup.place", "critical")], &["backup.age", "backup.complete", "backup.drill"]);
    says(&seen.check("backup.place"), "no answer within");
}
