//! The lock that keeps two mlops from promoting one model at once: in the database where its address is known, and in
//! the state folder of this machine in any case. A dead holder's lock is gone.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::domain::address::{StoreAddress, shown};
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::engine::cancel::Cancel;
use crate::state::lock;
use crate::store::postgres::connect::Postgres;
use crate::store::postgres::target;
use crate::store::sqlite;

/// How long another one is waited for; its switch takes a second.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is locked, for as long as this lives.
pub struct Lock {
    _here: Option<File>,
    _file: Option<File>,
    _session: Option<postgres::Client>,
    /// What tells it from others', one word for each of its parts.
    pub names: String,
}

/// Who wants it, and for what.
pub struct Claim<'a> {
    /// The run's id.
    pub id: &'a str,
    /// The model.
    pub model: &'a str,
    /// The server, for people.
    pub server: &'a str,
    /// The backend database, where its address is known.
    pub database: Option<&'a StoreAddress>,
    /// This machine's name.
    pub host: &'a str,
    /// The state folder.
    pub state_dir: &'a Path,
}

impl Claim<'_> {
    /// Takes it. A state folder that cannot be written to is a warning where the database is locked.
    ///
    /// # Errors
    /// Locked: another one holds it. Target: the database cannot be locked. Configuration: nor can the state folder, and
    /// there is nothing else.
    pub fn take(&self, cancel: &Cancel) -> Outcome<(Lock, Vec<String>)> {
        let name = format!("promote {}", self.model);
        let mut warnings = Vec::new();
        let held = format!("another mlops promotes {} on {}", self.model, self.server);
        let folder = self.state_dir.join("promote");
        let here = match lock::hold(&folder, &short(&format!("{} {name}", self.server)), &held, PATIENCE, cancel) {
            Ok(file) => Some(file),
            Err(failure) if failure.kind == Kind::Configuration && self.database.is_some() => {
                warnings.push(format!("{}: only the database keeps other mlops away", failure.message));
                None
            }
            Err(failure) => return Err(failure),
        };
        let (mut session, mut own) = (None, None);
        match self.database {
            None => {}
            Some(StoreAddress::Postgres(address)) => {
                let mut client = Postgres::new(address, self.id, cancel)?.connect().map_err(elsewhere)?;
                target::lock_on(&mut client, &name, &format!("promotes {}", self.model), cancel)?;
                session = Some(client);
            }
            Some(StoreAddress::Sqlite(path)) => {
                own = sqlite::lock::hold(path, PATIENCE, cancel).map_err(elsewhere)?;
            }
            Some(StoreAddress::Archive(path)) => {
                return Err(Failure::usage(format!("{} is no database", shown(path))));
            }
        }
        let mut names = Vec::new();
        names.extend(here.as_ref().map(|_| short(&format!("{} {}", self.host, shown(self.state_dir)))));
        names.extend(session.as_ref().and(self.database).map(|database| short(&database.to_string())));
        Ok((Lock { _here: here, _file: own, _session: session, names: names.join(" ") }, warnings))
    }
}

/// A short word for a text.
fn short(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn elsewhere(failure: Failure) -> Failure {
    let hint = "it keeps other mlops away while a version is promoted; on a machine that does not reach it leave \
                --backend-store-uri and MLFLOW_BACKEND_STORE_URI out";
    failure.hint(hint).on("locking the database")
}
