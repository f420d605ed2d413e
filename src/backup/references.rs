//! What a snapshot of the database refers to: addresses of artifacts, each as a path below a root.
//!
//! The columns are those that the migration's rewriting of addresses knows (`domain::amend`); `runs:/` and `models:/`
//! name a run or a logged model of the same snapshot.

use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::cell::{Batch, Cell};
use crate::domain::failure::Outcome;
use crate::engine::{Part, RowSource};
use crate::store::sqlite::ledger::Ledger;

use super::manifest::{Scope, Unread};

/// What is referred to; the paths are in the ledger.
#[derive(Debug, Default)]
pub(super) struct References {
    /// Addresses that paths stand below, as they stand in the database, without a slash at their ends.
    pub roots: Vec<String>,
    /// Which of them is the artifact root.
    pub main: usize,
    /// Addresses that cannot be followed at all.
    pub unread: Vec<Unread>,
    /// How many there are of those.
    pub unreadable: u64,
}

/// Finds out what the snapshot refers to. `artifact_root`: what the operator says of it.
///
/// # Errors
/// Damaged: the archive's rows are. Configuration: no room in the work folder.
pub(super) fn collect(
    source: &dyn RowSource,
    scope: Scope,
    artifact_root: Option<&str>,
    ledger: &Ledger,
) -> Outcome<References> {
    let mut references = References::default();
    let mut own = None;
    each_row(source, "experiments", &["experiment_id", "artifact_location"], &mut |row| {
        if let [Some(id), Some(location)] = row {
            let root = location.trim_end_matches('/').strip_suffix(&format!("/{id}")).unwrap_or(location);
            references.add_root(root);
            if id == "0" {
                own = Some(root.trim_end_matches('/').to_owned());
            }
        }
        Ok(())
    })?;
    // One that the experiments lie below as they are written; behind the proxy none of them does.
    let above = artifact_root.map(|root| root.trim_end_matches('/'));
    if let Some(above) = above.filter(|above| references.roots.iter().any(|root| below(root, above).is_some())) {
        references.add_root(above);
    }
    references.settle(own.or(above.map(str::to_owned)));
    if scope == Scope::None {
        return Ok(references);
    }
    let name = |kind: &'static str| {
        move |row: &[Option<String>]| match row {
            [Some(id), Some(address)] => ledger.name(kind, id, address),
            _ => Ok(()),
        }
    };
    each_row(source, "runs", &["run_uuid", "artifact_uri"], &mut name("run"))?;
    each_row(source, "logged_models", &["model_id", "artifact_location"], &mut name("model"))?;
    if scope == Scope::All {
        ledger.addresses("run", &mut |address| references.refer(address, ledger))?;
        ledger.addresses("model", &mut |address| references.refer(address, ledger))?;
        each_row(source, "trace_tags", &["key", "value"], &mut |row| match row {
            [Some(key), Some(address)] if key == "mlflow.artifactLocation" => references.refer(address, ledger),
            _ => Ok(()),
        })?;
    }
    let columns = ["source", "storage_location", "run_id"];
    each_row(source, "model_versions", &columns, &mut |row| {
        for address in row.iter().take(2).flatten().filter(|a| !a.is_empty()) {
            references.version(address, ledger)?;
        }
        Ok(())
    })?;
    Ok(references)
}

impl References {
    fn add_root(&mut self, root: &str) {
        let root = root.trim_end_matches('/');
        if !root.is_empty() && !self.roots.iter().any(|known| known == root) {
            self.roots.push(root.to_owned());
        }
    }

    /// Drops roots that lie below others, and finds the main one.
    fn settle(&mut self, main: Option<String>) {
        let all = self.roots.clone();
        self.roots.retain(|root| !all.iter().any(|other| other != root && below(root, other).is_some()));
        let main = main.and_then(|m| self.roots.iter().position(|root| below(&m, root).is_some()));
        self.main = main.unwrap_or(0);
    }

    /// What a model version needs.
    fn version(&mut self, address: &str, ledger: &Ledger) -> Outcome<()> {
        match ArtifactAddress::parse(address) {
            ArtifactAddress::LoggedModel(id) => match ledger.named("model", &id)? {
                Some(address) => self.refer(&address, ledger),
                None => Ok(()),
            },
            ArtifactAddress::Run { id, path } => match ledger.named("run", &id)? {
                Some(run) if path.is_empty() => self.refer(&run, ledger),
                Some(run) => self.refer(&format!("{}/{path}", run.trim_end_matches('/')), ledger),
                None => Ok(()),
            },
            // Another version's files, which that version names itself.
            ArtifactAddress::Version { .. } => Ok(()),
            _ => self.refer(address, ledger),
        }
    }

    fn refer(&mut self, address: &str, ledger: &Ledger) -> Outcome<()> {
        match ArtifactAddress::parse(address) {
            ArtifactAddress::Placeholder => return Ok(()),
            ArtifactAddress::Elsewhere { shown, why } => {
                self.note(Unread { address: shown, reason: why.to_owned() });
                return Ok(());
            }
            _ => {}
        }
        let address = address.trim_end_matches('/');
        let found = self.roots.iter().enumerate().filter_map(|(n, root)| Some((n, root.len(), below(address, root)?)));
        let found = found.max_by_key(|(_, length, _)| *length).map(|(n, _, path)| (n, path.to_owned()));
        let (root, path) = match found {
            Some(found) => found,
            None => {
                let root = alone(address).to_owned();
                let path = below(address, &root).unwrap_or_default().to_owned();
                self.roots.push(root);
                (self.roots.len() - 1, path)
            }
        };
        if !path.is_empty() && !crate::artifact::files::is_plain(&path) {
            let shown = ArtifactAddress::parse(address).to_string();
            self.note(Unread { address: shown, reason: "its path leads elsewhere".to_owned() });
            return Ok(());
        }
        ledger.refer(u32::try_from(root).unwrap_or(u32::MAX), &path)
    }

    fn note(&mut self, unread: Unread) {
        self.unreadable += 1;
        if self.unread.len() < super::manifest::NAMED {
            self.unread.push(unread);
        }
    }
}

/// The rest of an address below a root; whole segments.
fn below<'a>(address: &'a str, root: &str) -> Option<&'a str> {
    let rest = address.strip_prefix(root)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// The root of a run that lies apart from its experiment: what stands before `/EXPERIMENT/RUN/artifacts`, else the
/// address itself.
fn alone(address: &str) -> &str {
    let run = address.strip_suffix("/artifacts").and_then(|a| a.rsplit_once('/'));
    let root = run.and_then(|(experiment, _)| experiment.rsplit_once('/')).map(|(root, _)| root);
    root.filter(|r| !r.is_empty() && !r.ends_with('/') && !r.ends_with(':')).unwrap_or(address)
}

/// Calls `each` with those columns of every row, as text. A table or a column that is not there has none.
fn each_row(
    source: &dyn RowSource,
    table: &str,
    columns: &[&str],
    each: &mut dyn FnMut(&[Option<String>]) -> Outcome<()>,
) -> Outcome<()> {
    let Some(shape) = source.shapes().iter().find(|s| s.name == table).cloned() else { return Ok(()) };
    let places: Vec<Option<usize>> =
        columns.iter().map(|name| shape.columns.iter().position(|c| c.name == *name)).collect();
    let text = |batch: &Batch, cell: Option<&Cell>| match cell {
        Some(Cell::Text(span)) => String::from_utf8(batch.bytes(*span).to_vec()).ok(),
        Some(Cell::Int(number)) => Some(number.to_string()),
        _ => None,
    };
    source.read(&shape, Part::ALL, &mut |batch| {
        for row in batch.iter() {
            let cells: Vec<Option<String>> = places.iter().map(|p| text(batch, row.get((*p)?))).collect();
            each(&cells)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_a_whole_segment() {
        assert_eq!(below("/a/b/c", "/a"), Some("b/c"));
        assert_eq!(below("/a", "/a"), Some(""));
        assert_eq!(below("/ab", "/a"), None);
        assert_eq!(below("mlflow-artifacts:/1/2", "mlflow-artifacts:"), Some("1/2"));
        assert_eq!(alone("/x/1/abc/artifacts"), "/x");
        assert_eq!(alone("s3://b/1/abc/artifacts"), "s3://b");
        assert_eq!(alone("s3://models/v1"), "s3://models/v1");
    }

    #[test]
    fn roots_within_others_are_none() {
        let mut it = References::default();
        for root in ["/srv/ml/", "/srv/ml/own", "s3://b/x", "mlflow-artifacts:/"] {
            it.add_root(root);
        }
        it.settle(Some("s3://b/x".to_owned()));
        assert_eq!((it.roots, it.main), (vec!["/srv/ml".into(), "s3://b/x".into(), "mlflow-artifacts:".into()], 1));
    }
}
