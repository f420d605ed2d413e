//! Artifacts: those of a run, and any through the server's proxy (`mlflow server --serve-artifacts`).

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Body, Method, Response};

use super::fault::{Reply, Trouble, broken, known};
use super::send::Ask;
use super::{Client, Pages, wire};
use crate::domain::tracking::ArtifactFile;

const PROXY: &str = "/api/2.0/mlflow-artifacts/artifacts";
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One segment of a path.
pub(super) fn quoted(segment: &str) -> String {
    utf8_percent_encode(segment, PLAIN).to_string()
}

fn below(path: &str) -> String {
    path.split('/').filter(|s| !s.is_empty()).fold(PROXY.to_owned(), |place, s| format!("{place}/{}", quoted(s)))
}

/// A file on its way.
pub struct Download {
    client: Client,
    response: Response,
    /// Its size in bytes, where the server tells it.
    pub size: Option<u64>,
}

impl Download {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// Broken off, or silence for longer than a call may take.
    pub async fn chunk(&mut self) -> Reply<Option<Vec<u8>>> {
        let (connection, bounds) = (self.client.connection(), self.client.bounds);
        match tokio::time::timeout(bounds.call, self.response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk.map(Vec::from)),
            Ok(Err(error)) => Err(broken(connection, bounds.connect, &error)),
            Err(_) => Err(Trouble::late(connection, bounds.call)),
        }
    }
}

impl Client {
    /// What is in a folder of a run's artifacts; an empty path is their root.
    pub fn run_artifacts(&self, run: &str, path: &str) -> Pages<ArtifactFile> {
        let mut query = vec![("run_id", run.to_owned())];
        if !path.is_empty() {
            query.push(("path", path.to_owned()));
        }
        let open = |w: wire::Files| (wire::all(w.files), w.next_page_token);
        Pages::new(self, Ask::get("artifacts/list", query), open, |f: &ArtifactFile| f.path.clone())
    }

    /// A small file of a run, of at most so many bytes. The server reads it in whatever store it lies.
    ///
    /// # Errors
    /// Any fault; a file that is not there is 404, and 500 on releases up to 3.4 at least.
    pub async fn run_file(&self, run: &str, path: &str, most: usize) -> Reply<Vec<u8>> {
        let query = vec![("run_id", run.to_owned()), ("path", path.to_owned())];
        Ok(self.at_most(&Ask::plain("/get-artifact").with(query), most).await?.value)
    }

    /// The same of a model version. Where the version's source is `runs:/` and the run's artifacts lie behind the proxy,
    /// the server cannot (store/artifact/mlflow_artifacts_repo.py wants an http address, and the server's is its store's).
    ///
    /// # Errors
    /// As [`Client::run_file`].
    pub async fn version_file(&self, model: &str, version: u64, path: &str, most: usize) -> Reply<Vec<u8>> {
        let query = vec![("name", model.to_owned()), ("version", version.to_string()), ("path", path.to_owned())];
        Ok(self.at_most(&Ask::plain("/model-versions/get-artifact").with(query), most).await?.value)
    }

    /// The same of a logged model; `None`: there is none, or no such file, or the release has no logged models.
    ///
    /// # Errors
    /// As [`Client::run_file`].
    pub async fn logged_model_file(&self, id: &str, path: &str, most: usize) -> Reply<Option<Vec<u8>>> {
        let route = format!("/ajax-api/2.0/mlflow/logged-models/{}/artifacts/files", quoted(id));
        let ask = Ask::plain(&route).with(vec![("artifact_file_path", path.to_owned())]);
        Ok(known(self.at_most(&ask, most).await)?.map(|a| a.value))
    }

    /// What is in a folder of a logged model's files, by paths from their root, which is the empty path; `None`: there is
    /// no such model, or the release has none.
    ///
    /// # Errors
    /// Any other fault.
    pub async fn logged_model_artifacts(&self, id: &str, path: &str) -> Reply<Option<Vec<ArtifactFile>>> {
        let mut query = Vec::new();
        if !path.is_empty() {
            query.push(("artifact_directory_path", path.to_owned()));
        }
        let ask = Ask::get(&format!("logged-models/{}/artifacts/directories", quoted(id)), query);
        Ok(known(self.ask::<wire::GotFiles>(&ask).await)?.map(|a| wire::all(a.value.files)))
    }

    /// What is in a folder below the proxy's root, by bare names.
    ///
    /// # Errors
    /// Any fault; not found where the server passes no artifacts on.
    pub async fn proxied(&self, path: &str) -> Reply<Vec<ArtifactFile>> {
        let mut ask = Ask::plain(PROXY);
        if !path.is_empty() {
            ask.query.push(("path", path.to_owned()));
        }
        Ok(wire::all(self.ask::<wire::GotFiles>(&ask).await?.value.files))
    }

    /// A file below the proxy's root, piece by piece.
    ///
    /// # Errors
    /// Any fault; a file that is not there is 404, and 500 on releases up to 3.4 at least.
    pub async fn download(&self, path: &str) -> Reply<Download> {
        let ask = Ask::plain(&below(path));
        let (response, _) = self.bounded(self.open(&ask), self.bounds.call).await?;
        Ok(Download { client: self.clone(), size: response.content_length(), response })
    }

    /// Writes a file below the proxy's root, over one that is there, within that time. Never sent twice. Under a static
    /// prefix the client has to have read something before, to know where the API is.
    ///
    /// # Errors
    /// Any fault.
    pub async fn upload(&self, path: &str, body: impl Into<Body>, within: Duration) -> Reply<()> {
        let ask = Ask { method: Method::PUT, repeatable: false, ..Ask::plain(&below(path)) };
        let route = self.route(&ask.path);
        self.bounded(self.opened(&ask, &route, Some(body.into())), within).await.map(drop)
    }

    /// Deletes a folder or a file below the proxy's root. 2.9 can delete folders only, where the root is one.
    ///
    /// # Errors
    /// Any fault.
    pub async fn delete(&self, path: &str) -> Reply<()> {
        let ask = Ask { method: Method::DELETE, repeatable: false, ..Ask::plain(&below(path)) };
        self.bytes(&ask).await.map(drop)
    }

    async fn bounded<T>(&self, work: impl Future<Output = Reply<T>>, within: Duration) -> Reply<T> {
        let done = tokio::time::timeout(within, work).await;
        done.unwrap_or_else(|_| Err(Trouble::late(self.connection(), within)))
    }
}
