//! One backup as one file: a tar whose members lie as they do in a place of backups, so that `tar xf` makes such a place.
//! It is written as a place that only grows, and read as one that never changes.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::manifest::{AUTH, DATABASE, LIST, MANIFEST, SEAL};
use super::object;
use super::repository::is_id;
use crate::archive::frame::{BLOCK, Frame};
use crate::artifact::files::{Entry, Files, Lease, Met, Opened, Shelf, Staged, There};
use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;
use crate::newfile::NewFile;
use crate::store::sqlite::members::{Members, Stretch};

/// What is read at once.
const STEP: usize = 256 << 10;

/// A file that holds one backup. Clones are the same file.
#[derive(Clone)]
pub struct Bundle {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    file: File,
    members: Members,
    work_dir: PathBuf,
    /// Where the next member goes; `None`: the file is there already and stays as it is.
    growing: Mutex<Option<Growing>>,
}

struct Growing {
    new: NewFile,
    at: u64,
    seconds: u64,
}

impl Bundle {
    /// Begins a file, for its owner alone: it holds all that a store holds. Nothing of that name is there before
    /// [`Bundle::finish`].
    ///
    /// # Errors
    /// Refused: the name is taken. Target: its folder cannot be written to.
    pub fn create(path: &Path, work_dir: &Path) -> Outcome<Bundle> {
        let mut new = NewFile::create(path, 0o600)?;
        let file = new.file().try_clone().map_err(|e| unwritten(path, &e))?;
        let seconds = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        let growing = Mutex::new(Some(Growing { new, at: 0, seconds }));
        let members = Members::new(work_dir)?;
        Ok(Bundle {
            inner: Arc::new(Inner { path: path.to_owned(), file, members, work_dir: work_dir.to_owned(), growing }),
        })
    }

    /// Gives the file its name, after it has reached the disk.
    ///
    /// # Errors
    /// Refused: the name was taken meanwhile. Target: the disk failed.
    pub fn finish(&self) -> Outcome<()> {
        let growing = self.growing().take();
        let Some(Growing { mut new, .. }) = growing else {
            return Err(Failure::internal("a file of a backup was finished twice"));
        };
        new.file().write_all(&[0; 2 * BLOCK]).map_err(|e| unwritten(&self.inner.path, &e))?;
        new.publish()
    }

    /// Opens one. Every byte outside of its members is checked; the members' own are when they are read.
    ///
    /// # Errors
    /// Source: it cannot be read. Damaged: it is no such file, or not what was written.
    pub fn open(path: &Path, work_dir: &Path, cancel: &Cancel) -> Outcome<Bundle> {
        let unread = |e: io::Error| Failure::source(format!("{} cannot be read: {e}", shown(path)));
        let file = File::open(path).map_err(unread)?;
        let size = file.metadata().map_err(unread)?.len();
        let members = Members::new(work_dir)?;
        let damaged = |why: String| {
            Failure::damaged(format!("{} is damaged: {why}", shown(path))).hint("copy it again, or take another backup")
        };
        let read = |at: u64, bytes: usize| -> Outcome<Vec<u8>> {
            let mut block = vec![0; bytes];
            file.read_exact_at(&mut block, at).map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => damaged("it was cut".to_owned()),
                _ => unread(e),
            })?;
            Ok(block)
        };
        let (mut at, mut id) = (0, None::<String>);
        loop {
            cancel.check()?;
            let block = read(at, BLOCK)?;
            if block.iter().all(|b| *b == 0) {
                break;
            }
            let frame = Frame::parse(&block).map_err(|why| match at {
                0 => Failure::damaged(format!("{} is no backup that `mlops backup --file` wrote: {why}", shown(path))),
                _ => damaged(why),
            })?;
            let name = frame.name.escape_debug().to_string();
            match owner(&frame.name) {
                None => return Err(damaged(format!("it has the member `{name}`, which no backup has"))),
                Some("") => {}
                Some(of) if id.as_deref().is_none_or(|id| id == of) => id = Some(of.to_owned()),
                Some(_) => return Err(damaged(format!("`{name}` is of another backup"))),
            }
            at += BLOCK as u64;
            if !members.note(&frame.name, Stretch { at, bytes: frame.bytes })? {
                return Err(damaged(format!("it has `{name}` twice")));
            }
            at = at.saturating_add(frame.bytes);
            if at > size {
                return Err(damaged(format!("it ends in the middle of `{name}`")));
            }
            if read(at, frame.padding())?.iter().any(|b| *b != 0) {
                return Err(damaged(format!("what follows `{name}` is not zero")));
            }
            at += frame.padding() as u64;
        }
        if read(at, 2 * BLOCK)?.iter().any(|b| *b != 0) || size != at + 2 * BLOCK as u64 {
            return Err(damaged("it does not end where it should".to_owned()));
        }
        let inner =
            Inner { path: path.to_owned(), file, members, work_dir: work_dir.to_owned(), growing: Mutex::new(None) };
        Ok(Bundle { inner: Arc::new(inner) })
    }

    fn growing(&self) -> std::sync::MutexGuard<'_, Option<Growing>> {
        self.inner.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fixed(&self) -> Failure {
        Failure::usage(format!("{} is one backup in a file, which is never changed", self.place()))
            .hint("pins, rules and proofs belong to places of backups: `tar xf` makes one of it")
    }

    fn entry(path: &str, bytes: u64) -> Entry {
        Entry { path: path.to_owned(), bytes, changed: None, modified: None, since: None }
    }
}

/// The id of the backup that a member belongs to; empty: a content; `None`: no backup has such a member.
fn owner(name: &str) -> Option<&str> {
    if object::of_path(name).is_some() {
        return Some("");
    }
    let (id, file) = name.split_once('/')?;
    (is_id(id) && [DATABASE, AUTH, LIST, MANIFEST, SEAL].contains(&file)).then_some(id)
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::target(format!("{} cannot be written: {error}", shown(path)))
        .hint(format!("df -h {}", shown(&crate::newfile::folder_of(path))))
}

/// A member's bytes.
struct Member {
    inner: Arc<Inner>,
    at: u64,
    left: u64,
}

impl Read for Member {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(into) = into.get_mut(..most).filter(|into| !into.is_empty()) else { return Ok(0) };
        let read = self.inner.file.read_at(into, self.at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Files for Bundle {
    fn place(&self) -> String {
        shown(&self.inner.path)
    }

    fn walk(&self, below: &str, each: &mut dyn FnMut(Met) -> Outcome<()>) -> Outcome<()> {
        let mut last = below.to_owned();
        if let Some(own) = self.stat(below)? {
            each(Met::File(own))?;
        } else if !below.is_empty() {
            last.push('/');
        }
        let folder = last.clone();
        while let Some((path, place)) = self.inner.members.after(&last)? {
            if !path.starts_with(&folder) {
                break;
            }
            each(Met::File(Bundle::entry(&path, place.bytes)))?;
            last = path;
        }
        Ok(())
    }

    fn walk_folders(&self, each: &mut dyn FnMut(&str) -> Outcome<()>) -> Outcome<()> {
        let mut last = String::new();
        while let Some((path, _)) = self.inner.members.after(&last)? {
            let folder = path.split('/').next().unwrap_or_default();
            each(folder)?;
            // The character after `/`: all below the folder come before it.
            last = format!("{folder}0");
        }
        Ok(())
    }

    fn open(&self, path: &str) -> Outcome<Option<Opened>> {
        let Some(Stretch { at, bytes }) = self.inner.members.find(path)? else { return Ok(None) };
        let reader = Box::new(Member { inner: Arc::clone(&self.inner), at, left: bytes });
        Ok(Some(Opened { entry: Bundle::entry(path, bytes), reader }))
    }

    fn stat(&self, path: &str) -> Outcome<Option<Entry>> {
        Ok(self.inner.members.find(path)?.map(|place| Bundle::entry(path, place.bytes)))
    }
}

impl Shelf for Bundle {
    fn stage(&self) -> Outcome<Staged> {
        match *self.growing() {
            Some(_) => Staged::apart(&self.inner.work_dir),
            None => Err(self.fixed()),
        }
    }

    fn put(&self, mut staged: Staged, path: &str, there: There) -> Outcome<bool> {
        let mut growing = self.growing();
        let Some(growing) = growing.as_mut() else { return Err(self.fixed()) };
        if self.inner.members.find(path)?.is_some() {
            return match there {
                There::Stays => Ok(false),
                There::Replaced => Err(Failure::internal(format!("{path} is in the file already"))),
            };
        }
        let failed = |e: io::Error| unwritten(&self.inner.path, &e);
        let bytes = staged.seek(SeekFrom::End(0)).and_then(|end| staged.rewind().map(|()| end)).map_err(failed)?;
        let frame = Frame { name: path.to_owned(), bytes, seconds: growing.seconds };
        let file = growing.new.file();
        file.write_all(&frame.header()).map_err(failed)?;
        let mut buffer = vec![0; STEP];
        let mut written = 0;
        loop {
            let read = staged.read(&mut buffer).map_err(failed)?;
            if read == 0 {
                break;
            }
            file.write_all(buffer.get(..read).unwrap_or_default()).map_err(failed)?;
            written += read as u64;
        }
        if written != bytes {
            return Err(Failure::target(format!("the work folder lost a part of {path}")));
        }
        file.write_all(&vec![0; frame.padding()]).map_err(failed)?;
        let at = growing.at + BLOCK as u64;
        growing.at = at + bytes + frame.padding() as u64;
        self.inner.members.note(path, Stretch { at, bytes })
    }

    fn on_this_machine(&self, _: &str) -> Option<PathBuf> {
        None
    }

    fn remove(&self, _: &str) -> Outcome<()> {
        match *self.growing() {
            // The whole file goes away with whoever failed to finish it.
            Some(_) => Ok(()),
            None => Err(self.fixed()),
        }
    }

    fn settle(&self) -> Outcome<()> {
        self.inner.file.sync_data().map_err(|e| unwritten(&self.inner.path, &e))
    }

    fn lock(&self, _: &str) -> Outcome<Box<dyn Lease>> {
        match *self.growing() {
            Some(_) => Ok(Box::new(Alone)),
            None => Err(self.fixed()),
        }
    }
}

/// A file without a name is nobody else's.
struct Alone;

impl Lease for Alone {
    fn held(&self) -> Outcome<()> {
        Ok(())
    }
}

/// Whether a path names a file.
pub fn is_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file())
}
