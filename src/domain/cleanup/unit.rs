//! The places that MLflow makes below an artifact root: one for each run, logged model and trace. Only what lies in a
//! place of that shape is ever taken for MLflow's; all else is somebody's.

use super::belongings::Root;

/// The folder of an experiment, as far as the path of a place in it tells.
pub fn folder(unit: &str) -> &str {
    let above = |path: &'_ str| path.rsplit_once('/').map_or(0, |(above, _)| above.len());
    let own = unit.get(..above(unit)).unwrap_or_default();
    match own.rsplit('/').next() {
        Some("models" | "traces") => own.get(..above(own)).unwrap_or_default(),
        _ => own,
    }
}

/// The folder of a thing's files in its place.
pub const ARTIFACTS: &str = "artifacts";

/// The folder in quarantine with the paths that somebody put back by hand.
pub const KEPT: &str = "kept";

/// Where orphans are put below an artifact root before they are removed.
pub const QUARANTINE: &str = ".mlops-orphans";

/// The place of one thing's artifacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit<'a> {
    /// Its path below the root: up to the thing's id.
    pub path: &'a str,
    /// What it is.
    pub kind: Root,
    /// The thing's id.
    pub id: &'a str,
    /// Whether the file is one of its artifacts. MLflow puts nothing else there, but for the file store, whose rows lie
    /// beside the artifacts.
    pub inside: bool,
}

/// The place that a file lies in. MLflow makes `RUN/artifacts`, `models/MODEL/artifacts` and `traces/TRACE/artifacts` in
/// the folder of an experiment (store/tracking/sqlalchemy_store.py: `_get_run_artifact_location`, `create_logged_model`,
/// `_get_trace_artifact_location_tag`).
pub fn unit(path: &str) -> Option<Unit<'_>> {
    let mut above = "";
    let mut begin = 0;
    for (end, _) in path.match_indices('/') {
        let name = path.get(begin..end)?;
        if let Some(kind) = kind(above, name) {
            let inside = path.get(end..)?.starts_with("/artifacts/");
            return Some(Unit { path: path.get(..end)?, kind, id: name, inside });
        }
        above = name;
        begin = end + 1;
    }
    None
}

fn kind(above: &str, name: &str) -> Option<Root> {
    let hex = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match above {
        "models" => name.strip_prefix("m-").filter(|id| hex(id)).map(|_| Root::Model),
        // Of both kinds of ids: `tr-...`, and those of the releases before.
        "traces" => (hex(name) || name.strip_prefix("tr-").is_some_and(hex)).then_some(Root::Trace),
        _ => hex(name).then_some(Root::Run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mlflows_own_places_are_units() {
        let id = "0123456789abcdef0123456789abcdef";
        let found = |path: &str| unit(path).filter(|u| u.inside).map(|u| (u.path.to_owned(), u.kind, u.id.to_owned()));
        for (path, place, kind, own) in [
            (format!("1/{id}/artifacts/model/MLmodel"), format!("1/{id}"), Root::Run, id.to_owned()),
            (format!("{id}/artifacts/x"), id.to_owned(), Root::Run, id.to_owned()),
            (format!("a/b c/{id}/artifacts/x"), format!("a/b c/{id}"), Root::Run, id.to_owned()),
            (format!("1/models/m-{id}/artifacts/MLmodel"), format!("1/models/m-{id}"), Root::Model, format!("m-{id}")),
            (
                format!("1/traces/tr-{id}/artifacts/traces.json"),
                format!("1/traces/tr-{id}"),
                Root::Trace,
                format!("tr-{id}"),
            ),
            (format!("1/traces/{id}/artifacts/traces.json"), format!("1/traces/{id}"), Root::Trace, id.to_owned()),
            // A run's artifacts may hold what looks like another's.
            (format!("1/{id}/artifacts/{id}/artifacts/x"), format!("1/{id}"), Root::Run, id.to_owned()),
        ] {
            assert_eq!(found(&path), Some((place, kind, own)), "{path}");
        }
        for path in [
            format!("1/{id}/meta.yaml"),
            format!("1/{id}/artifacts"),
            format!("data/{id}/part.parquet"),
            format!("1/models/{id}/artifacts/x"),
            format!("1/{}/artifacts/x", id.get(1..).unwrap_or_default()),
            "notes/readme.md".to_owned(),
            "artifacts/x".to_owned(),
        ] {
            assert_eq!(found(&path), None, "{path}");
        }
        for (path, folder) in
            [("1/ID", "1"), ("1/models/ID", "1"), ("a/b/traces/ID", "a/b"), ("ID", ""), ("models/ID", "")]
        {
            assert_eq!(super::folder(path), folder);
        }
    }
}
