//! A revision by what people call it: alembic's id, or a release of MLflow's.

use super::{Catalogue, Line, Revision};
use crate::domain::failure::{Failure, Outcome};

impl Catalogue {
    /// The revision of the tracking line that `text` names: `dc11669786a5`, `3.17.2` or `v3.17.2`.
    ///
    /// # Errors
    /// Usage, with the nearest name: neither a revision nor a release that is known.
    pub fn named(&self, text: &str) -> Outcome<&Revision> {
        let text = text.trim();
        let release = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let known = |r: &&Revision| r.id == text || r.releases.iter().any(|known| known == release);
        if let Some(revision) = self.history(Line::Tracking).find(known) {
            return Ok(revision);
        }
        let shown: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
        let failure =
            Failure::usage(format!("`{shown}` is neither a revision nor a release of MLflow's that is known"));
        let newest = self.newest(Line::Tracking);
        Err(match number(release) {
            Some(wanted) => match self.nearest_release(&wanted) {
                Some((near, true)) => failure.hint(format!("the nearest is {near}")),
                Some((near, false)) => failure.hint(format!(
                    "the newest is {near}, revision {}: a newer mlops may know more",
                    newest.map_or("", |r| r.id.as_str())
                )),
                None => failure,
            },
            None => match self.nearest_id(text) {
                Some(near) => failure.hint(format!("the nearest is {} ({})", near.id, near.releases_text())),
                None => failure.hint("a release such as 3.4.0, or what a database's alembic_version holds"),
            },
        })
    }

    /// The release next to a number, and whether any is as new.
    fn nearest_release(&self, wanted: &[u32]) -> Option<(&str, bool)> {
        let releases = self.history(Line::Tracking).flat_map(|r| &r.releases);
        let mut numbered: Vec<(Vec<u32>, &str)> = releases.filter_map(|r| Some((number(r)?, r.as_str()))).collect();
        numbered.sort();
        let newer = numbered.iter().find(|(n, _)| n.as_slice() > wanted);
        let older = numbered.iter().rfind(|(n, _)| n.as_slice() <= wanted);
        // `3.4` is 3.4.0 and not what came before it.
        let begins = newer.filter(|(n, _)| n.starts_with(wanted));
        Some((begins.or(older).or(newer)?.1, newer.is_some()))
    }

    fn nearest_id(&self, text: &str) -> Option<&Revision> {
        let of = |r: &&Revision| strsim::osa_distance(&r.id, text);
        self.history(Line::Tracking).min_by_key(of).filter(|r| of(r) <= 4)
    }
}

/// `3.17.2` as numbers; `None`: not a release's form. What follows the numbers (`rc1`) is left out.
fn number(text: &str) -> Option<Vec<u32>> {
    let digits: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let parts: Vec<u32> = digits.split('.').map(|p| p.parse().ok()).collect::<Option<_>>()?;
    (parts.len() > 1 && parts.len() < 5).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(text: &str) -> String {
        Catalogue::embedded().expect("sound").named(text).expect_err(text).hint.unwrap_or_default()
    }

    #[test]
    fn revisions_have_ids_and_releases() {
        let catalogue = Catalogue::embedded().expect("sound");
        for text in ["acf3f17fdcc7", "2.9.2", "v2.9.2", " 2.9.2 "] {
            assert_eq!(catalogue.named(text).expect(text).id, "acf3f17fdcc7");
        }
    }

    #[test]
    fn the_nearest_name_is_told() {
        assert_eq!(hint("2.9.7"), "the nearest is 2.9.2");
        assert_eq!(hint("3.4"), "the nearest is 3.4.0");
        assert_eq!(hint("0.9.1"), "the nearest is 1.0.0");
        assert!(hint("99.0.0").starts_with("the newest is 3."), "{}", hint("99.0.0"));
        assert!(hint("acf3f17fdcc8").starts_with("the nearest is acf3f17fdcc7"), "{}", hint("acf3f17fdcc8"));
        assert!(hint("latest").contains("a release such as"));
    }
}
