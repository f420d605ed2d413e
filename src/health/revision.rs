//! Does the revision of a database fit the release of the server that runs on it.

use crate::domain::catalogue::{Catalogue, Line};
use crate::domain::health::{Reading, Status};

/// How database and server go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// Critical: the server cannot work; a warning: it has not met the database since one of them changed.
    pub status: Status,
    /// The sentence.
    pub summary: String,
    /// Why it probably is so.
    pub cause: Option<&'static str>,
    /// What to do.
    pub hint: Option<&'static str>,
}

impl Fit {
    /// The reading of `database.revision` with this in it. One that is worse already stays as it is.
    #[must_use]
    pub fn into(self, mut reading: Reading) -> Reading {
        if reading.status > self.status || reading.status != Status::Ok {
            return reading;
        }
        reading.status = self.status;
        reading.summary = if self.status == Status::Ok {
            format!("{}; {}", reading.summary, self.summary)
        } else {
            reading.evidence.push(reading.summary);
            self.summary
        };
        reading.cause = self.cause.map(str::to_owned);
        reading.hint = self.hint.map(str::to_owned);
        reading
    }
}

/// Compares a tracking revision with a server's release. `None`: one of them is not known here, so nothing can be said.
pub fn fits(revision: &str, server: &str, catalogue: &Catalogue) -> Option<Fit> {
    let place = catalogue.history(Line::Tracking).position(|r| r.id == revision)?;
    let server_release = release(server)?;
    // A patch release that the catalogue does not list lies between two that it does: then each revision between theirs
    // may be its own.
    let known = || {
        let numbered = catalogue.history(Line::Tracking).enumerate();
        numbered.flat_map(|(place, r)| r.releases.iter().filter_map(move |text| Some((release(text)?, place))))
    };
    let least = known().filter(|(release, _)| *release <= server_release).max()?.1;
    let most = known().filter(|(release, _)| *release >= server_release).min().map(|(_, place)| place);
    if place < least {
        return Some(Fit {
            status: Status::Warning,
            summary: format!("revision {revision} is older than the server's release, MLflow {server}"),
            cause: Some("an older database was put under a running server, or this is not the server's database"),
            hint: Some("a server upgrades its database in silence at its next start: take a backup before"),
        });
    }
    let Some(most) = most else {
        // Newer than all that is known here.
        return Some(Fit {
            status: Status::Ok,
            summary: format!("MLflow {server} is newer than this mlops, so whether it fits is not known"),
            cause: None,
            hint: None,
        });
    };
    if place > most {
        return Some(Fit {
            status: Status::Critical,
            summary: format!("revision {revision} is newer than the server's release, MLflow {server}"),
            cause: Some("a newer MLflow upgraded the database under this server"),
            hint: Some(
                "the server will not start again (\"Can't locate revision identified by\"): run the MLflow release of \
                 the database, or restore a backup of before the upgrade",
            ),
        });
    }
    Some(Fit { status: Status::Ok, summary: format!("fits MLflow {server}"), cause: None, hint: None })
}

/// `2.9.2`, `3.0.0rc1` (before `3.0.0`), as numbers that compare.
fn release(text: &str) -> Option<(u32, u32, u32, bool)> {
    let text = text.trim().split('+').next()?;
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (numbers, suffix) = text.split_at_checked(end)?;
    let mut parts = numbers.split('.').filter(|p| !p.is_empty()).map(|p| p.parse().ok());
    let major = parts.next()??;
    let minor = parts.next().unwrap_or(Some(0))?;
    let patch = parts.next().unwrap_or(Some(0))?;
    Some((major, minor, patch, suffix.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(revision: &str, server: &str) -> Option<Status> {
        fits(revision, server, Catalogue::embedded().unwrap()).map(|f| f.status)
    }

    #[test]
    fn a_server_and_a_database_of_one_release_fit() {
        for (revision, server) in [
            ("acf3f17fdcc7", "2.9.2"),
            ("71994744cf8e", "3.4.0"),
            ("dc11669786a5", "3.17.2"),
            ("97727af70f4d", "1.30.1"),
            ("acf3f17fdcc7", "2.9.99"),
        ] {
            assert_eq!(status(revision, server), Some(Status::Ok), "{revision} {server}");
        }
    }

    #[test]
    fn an_older_server_is_critical_and_a_newer_one_a_warning() {
        assert_eq!(status("dc11669786a5", "3.4.0"), Some(Status::Critical));
        assert_eq!(status("71994744cf8e", "2.9.2"), Some(Status::Critical));
        assert_eq!(status("acf3f17fdcc7", "3.17.2"), Some(Status::Warning));
        assert_eq!(status("acf3f17fdcc7", "99.0.0"), Some(Status::Warning));
        let newest = Catalogue::embedded().unwrap().newest(Line::Tracking).unwrap();
        assert_eq!(status(&newest.id, "99.0.0"), Some(Status::Ok));
        assert_eq!(status("ffffffffffff", "3.4.0"), None);
        assert_eq!(status("71994744cf8e", "unknown"), None);
        assert!(release("3.0.0rc1") < release("3.0.0") && release("2.22.5") > release("2.9.2"));
    }

    #[test]
    fn it_adds_to_a_reading_that_is_well_and_hides_nothing() {
        let fit = fits("dc11669786a5", "3.4.0", Catalogue::embedded().unwrap()).unwrap();
        let read = fit.clone().into(Reading::ok("database.revision", "dc11669786a5"));
        assert_eq!(read.status, Status::Critical);
        assert_eq!(read.evidence, ["dc11669786a5"]);
        let broken = Reading::critical("database.revision", "an interrupted creation");
        assert_eq!(fit.into(broken.clone()), broken);
    }
}
