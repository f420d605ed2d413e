//! Is the database that is looked at the one that the server runs on? An address of another one of the same release
//! would pass every other check.

use crate::domain::health::Reading;
use crate::domain::tracking::{Experiment, ExperimentMark};

pub(super) const ID: &str = "database.server";

/// Compares the experiments that a server shows with those that a database holds. `whole`: all that it holds. `None`:
/// nothing can be said, because one of them shows none.
pub(super) fn compare(server: &[Experiment], database: &[ExperimentMark], whole: bool) -> Option<Reading> {
    let held = |e: &&Experiment| {
        database.iter().any(|d| d.id == e.id && d.name == e.name && (d.created == e.created || d.created.is_none()))
    };
    let found = server.iter().filter(held).count();
    if server.is_empty() || found == 0 && !whole {
        return None;
    }
    if found > 0 {
        return Some(Reading::ok(ID, "it holds the experiments that the server shows"));
    }
    let names = server.iter().take(5).map(|e| format!("only on the server: {} (id {})", e.name, e.id));
    Some(
        Reading::critical(ID, "it holds none of the experiments that the server shows")
            .evidence(names)
            .cause("--backend-store-uri is not the address that the server was started with")
            .hint("compare it with the server's own --backend-store-uri; till then nothing said of the database is of this server"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::health::Status;

    #[test]
    fn one_experiment_in_common_is_enough_and_the_default_one_has_its_own_birthday() {
        let shown = |id: &str, created| Experiment {
            id: id.to_owned(),
            name: "Default".to_owned(),
            artifact_location: String::new(),
            deleted: false,
            created: Some(created),
            updated: None,
            tags: Vec::new(),
        };
        let held = |id: &str, created| ExperimentMark { id: id.to_owned(), name: "Default".to_owned(), created };
        let status = |server: &[Experiment], database: &[ExperimentMark], whole| {
            compare(server, database, whole).map(|r| r.status)
        };
        assert_eq!(status(&[shown("0", 5)], &[held("0", Some(5))], true), Some(Status::Ok));
        assert_eq!(status(&[shown("0", 5)], &[held("0", None)], true), Some(Status::Ok));
        assert_eq!(status(&[shown("0", 5)], &[held("0", Some(6))], true), Some(Status::Critical));
        assert_eq!(status(&[shown("0", 5)], &[held("1", Some(5))], false), None);
        assert_eq!(status(&[], &[held("1", Some(5))], true), None);
    }
}
