//! Objects of S3 as a place of files.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt, path};
use tempfile::SpooledTempFile;
use tokio::runtime::Handle;

use super::download::Download;
use super::files::{Entry, Files, Kind, Lease, Met, Opened, Shelf, Staged, There, is_plain};
use super::lease;
use super::s3::{Bucket, Refusal, Why};
use super::upload::{self, Upload};
use super::waiting::{Patience, Waiting};
use crate::domain::address::shown;
use crate::domain::failure::{self, Failure, Outcome};
use crate::engine::cancel::Cancel;

/// Objects whose keys begin alike. Called from plain threads, never from within the runtime.
pub struct Objects {
    bucket: Bucket,
    waiting: Waiting,
    /// Where larger files are until they are written.
    work: PathBuf,
    patience: Patience,
    /// Whether the bucket has shown itself: the answer to HEAD does not tell a missing object from a missing bucket.
    shown: AtomicBool,
}

impl Objects {
    /// Objects of a bucket; nothing is asked yet. What is staged goes to `work` while it is large, without a name.
    pub fn new(bucket: Bucket, runtime: Handle, work: &Path, cancel: Cancel) -> Objects {
        Objects {
            bucket,
            waiting: Waiting::new(runtime, cancel),
            work: work.to_owned(),
            patience: Patience::default(),
            shown: AtomicBool::new(false),
        }
    }

    /// The same with another patience.
    #[must_use]
    pub fn patient(self, patience: Patience) -> Objects {
        Objects { patience, ..self }
    }

    /// What lies at a path, and the path that it is asked for with.
    fn object(&self, path: &str) -> Outcome<(Bucket, path::Path)> {
        let bucket = self.bucket.at(path);
        match bucket.object().filter(|_| is_plain(path)) {
            Some(object) => Ok((bucket, object)),
            None => {
                Err(Failure::source(format!("{}: `{}` is no path of an object", self.place(), path.escape_debug())))
            }
        }
    }

    /// HEAD; `None`: there is no such object.
    fn head(&self, bucket: &Bucket, object: &path::Path) -> Outcome<Option<GetResult>> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        let asked = bucket.within(self.patience.answer, bucket.store().get_opts(object, options));
        match self.waiting.on(asked)? {
            Ok(found) => {
                self.shown.store(true, Ordering::Relaxed);
                Ok(Some(found))
            }
            Err(refusal) if refusal.why == Why::Absent => {
                if !self.shown.load(Ordering::Relaxed) {
                    let page = self.waiting.on(self.bucket.list(Some(1), None, self.patience.answer))?;
                    page.map_err(as_source)?;
                    self.shown.store(true, Ordering::Relaxed);
                }
                Ok(None)
            }
            Err(refusal) => Err(as_source(refusal)),
        }
    }
}

/// A time of change, but in whole seconds: HEAD and GET tell no more, and a list does.
fn changed(etag: Option<&str>, seconds: i64) -> Option<String> {
    etag.map(|etag| format!("{} {seconds}", etag.trim_matches('"')))
}

fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

fn entry(path: &str, meta: &object_store::ObjectMeta) -> Entry {
    let changed = changed(meta.e_tag.as_deref(), meta.last_modified.timestamp());
    let modified = Some(moment(meta.last_modified.timestamp()));
    Entry { path: path.to_owned(), bytes: meta.size, changed, modified, since: modified }
}

/// A failure while reading. A server that answers was reached.
pub(super) fn as_source(refusal: Refusal) -> Failure {
    match (refusal.why, refusal.failure.kind) {
        (Why::Answered | Why::Unknown | Why::There | Why::Another, failure::Kind::Unreachable) => {
            Failure { kind: failure::Kind::Source, ..refusal.failure }
        }
        _ => refusal.failure,
    }
}

/// A failure while writing.
pub(super) fn as_target(refusal: Refusal) -> Failure {
    as_source(refusal).as_target()
}

impl Files for Objects {
    fn place(&self) -> String {
        self.bucket.to_string()
    }

    fn walk(&self, below: &str, each: &mut dyn FnMut(Met) -> Outcome<()>) -> Outcome<()> {
        if !below.is_empty() && !is_plain(below) {
            let below = below.escape_debug();
            return Err(Failure::source(format!("{}: `{below}` is no path of objects", self.place())));
        }
        // An object may have the very key that others have before their slash.
        if let Some(own) = self.stat(below)? {
            each(Met::File(own))?;
        }
        let bucket = self.bucket.at(below);
        let mut token = None;
        loop {
            let page = self.waiting.on(bucket.list(None, token.clone(), self.patience.answer))?;
            let page = page.map_err(as_source)?;
            for listed in page.objects {
                let Some(path) = listed.key.get(self.bucket.below_from()..) else { continue };
                if listed.key.ends_with('/') && listed.bytes == 0 {
                    // A console makes such an object for a folder.
                    continue;
                }
                let path = path.to_owned();
                each(if !is_plain(&path) {
                    Met::Unreadable { path, why: "its key is no path of a file".to_owned() }
                } else if self.bucket.at(&path).object().is_none() {
                    Met::Unreadable { path, why: "its key cannot be asked for".to_owned() }
                } else {
                    let changed = changed(listed.etag.as_deref(), listed.modified);
                    let modified = Some(moment(listed.modified));
                    Met::File(Entry { path, bytes: listed.bytes, changed, modified, since: modified })
                })?;
            }
            match page.next {
                None => return Ok(()),
                next if next == token => {
                    return Err(Failure::source(format!("{bucket}: the list of objects goes round in a circle")));
                }
                next => token = next,
            }
        }
    }

    fn walk_folders(&self, each: &mut dyn FnMut(&str) -> Outcome<()>) -> Outcome<()> {
        let own = self.bucket.object();
        let asked = self.bucket.within(self.patience.answer, self.bucket.store().list_with_delimiter(own.as_ref()));
        let found = self.waiting.on(asked)?.map_err(as_source)?;
        found.common_prefixes.iter().filter_map(path::Path::filename).try_for_each(each)
    }

    fn open(&self, path: &str) -> Outcome<Option<Opened>> {
        if !is_plain(path) {
            return Ok(None);
        }
        let (bucket, object) = self.object(path)?;
        let asked = bucket.within(self.patience.answer, bucket.store().get(&object));
        match self.waiting.on(asked)? {
            Ok(got) => {
                let entry = entry(path, &got.meta);
                let reader = Download::of(got, bucket, object, self.waiting.clone(), self.patience);
                Ok(Some(Opened { entry, reader: Box::new(reader) }))
            }
            Err(refusal) if refusal.why == Why::Absent => Ok(None),
            Err(refusal) => Err(as_source(refusal)),
        }
    }

    fn stat(&self, path: &str) -> Outcome<Option<Entry>> {
        if !is_plain(path) {
            return Ok(None);
        }
        let (bucket, object) = self.object(path)?;
        Ok(self.head(&bucket, &object)?.map(|found| entry(path, &found.meta)))
    }
}

impl Shelf for Objects {
    fn stage(&self) -> Outcome<Staged> {
        Staged::apart(&self.work)
    }

    fn put(&self, staged: Staged, path: &str, there: There) -> Outcome<bool> {
        let Kind::Apart(mut spool, _) = staged.kind else {
            return Err(Failure::internal("a file that was staged elsewhere"));
        };
        let (bucket, object) = self.object(path).map_err(Failure::as_target)?;
        let length = spool.seek(SeekFrom::End(0)).and_then(|end| spool.rewind().map(|()| end));
        let length = length.map_err(|e| unwritten(&self.work, &e))?;
        let upload = Upload::new(&bucket, &object, &self.waiting, self.patience);
        let mut read = |most: u64| read_part(&mut spool, most).map_err(|e| unwritten(&self.work, &e));
        if length <= upload::SINGLE {
            upload.single(read(length)?, length, there)
        } else {
            upload.in_parts(&mut read, length, there)
        }
    }

    fn on_this_machine(&self, _: &str) -> Option<PathBuf> {
        None
    }

    fn remove(&self, path: &str) -> Outcome<()> {
        let (bucket, object) = self.object(path).map_err(Failure::as_target)?;
        let asked = bucket.within(self.patience.answer, bucket.store().delete(&object));
        match self.waiting.on(asked)? {
            Err(refusal) if refusal.why != Why::Absent => Err(as_target(refusal)),
            _ => Ok(()),
        }
    }

    fn settle(&self) -> Outcome<()> {
        // What S3 has answered for lasts.
        self.waiting.check()
    }

    fn lock(&self, who: &str) -> Outcome<Box<dyn Lease>> {
        lease::take(&self.bucket, &self.waiting, self.patience.lock, who)
    }
}

/// For what tidies up.
pub(super) const AFTERWARDS: Duration = Duration::from_secs(5);

/// So many of the next bytes, or all that are left.
fn read_part(spool: &mut SpooledTempFile, most: u64) -> io::Result<Vec<u8>> {
    let mut part = Vec::with_capacity(usize::try_from(most).unwrap_or_default());
    spool.take(most).read_to_end(&mut part)?;
    Ok(part)
}

fn unwritten(work: &Path, error: &io::Error) -> Failure {
    let hint = format!("df -h {}; TMPDIR names another folder", shown(work));
    Failure::target(format!("the work folder {} failed: {error}", shown(work))).hint(hint)
}
