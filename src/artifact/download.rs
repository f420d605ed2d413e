//! The bytes of an object, to the last one: where the connection ends before them, it goes on from there.

use std::io::{self, Read};
use std::ops::Range;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, path};

use super::objects::as_source;
use super::s3::{Bucket, Why};
use super::waiting::{Patience, Waiting};
use crate::domain::failure::{Failure, Outcome};

/// Times that a download goes on, until it has got on by `PROGRESS`.
const TRIES: u32 = 3;
/// Bytes after which the tries are counted anew.
const PROGRESS: u64 = 8 << 20;
/// Before the first new try; twice as long before each further one.
const PAUSE_MS: u64 = 200;

type Pieces = BoxStream<'static, object_store::Result<Piece>>;
type Piece = <object_store::PutPayload as IntoIterator>::Item;

/// An object that is being read. Its errors carry a [`Failure`].
pub(super) struct Download {
    bucket: Bucket,
    object: path::Path,
    waiting: Waiting,
    patience: Patience,
    etag: Option<String>,
    left: Range<u64>,
    pieces: Option<Pieces>,
    piece: Piece,
    tries: u32,
    /// Where the tries were last counted from.
    counted: u64,
}

impl Download {
    pub(super) fn of(
        got: GetResult,
        bucket: Bucket,
        object: path::Path,
        waiting: Waiting,
        patience: Patience,
    ) -> Download {
        let (etag, left) = (got.meta.e_tag.clone(), got.range.clone());
        let pieces = Some(got.into_stream());
        Download { bucket, object, waiting, patience, etag, left, pieces, piece: Piece::new(), tries: 0, counted: 0 }
    }

    /// The next bytes; none are left only at the object's end.
    fn fetch(&mut self) -> Outcome<()> {
        while self.piece.is_empty() && !self.left.is_empty() {
            let why = match &mut self.pieces {
                Some(pieces) => {
                    let most = self.patience.bytes;
                    match self.waiting.on(async { tokio::time::timeout(most, pieces.next()).await })? {
                        Ok(Some(Ok(piece))) => {
                            self.take(piece);
                            continue;
                        }
                        Ok(Some(Err(error))) => as_source(self.bucket.refusal(&error)),
                        Ok(None) => self.broken("the answer ended"),
                        Err(_) => self.broken(&format!("nothing came for {} s", self.patience.bytes.as_secs())),
                    }
                }
                None => self.broken("no answer"),
            };
            self.pieces = None;
            self.again(why)?;
        }
        Ok(())
    }

    fn broken(&self, what: &str) -> Failure {
        let Range { start, end } = self.left;
        Failure::unreachable(format!("{}: {what} at byte {start} of {end}", self.bucket))
    }

    fn take(&mut self, mut piece: Piece) {
        let most = self.left.end - self.left.start;
        // No server should send more than it announced.
        piece.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        self.left.start += piece.len() as u64;
        self.piece = piece;
        if self.left.start - self.counted >= PROGRESS {
            (self.counted, self.tries) = (self.left.start, 0);
        }
    }

    /// Asks for the rest of the very same object.
    fn again(&mut self, why: Failure) -> Outcome<()> {
        let Some(etag) = &self.etag else { return Err(why) };
        if self.tries >= TRIES {
            return Err(why);
        }
        let pause = super::waiting::pause(PAUSE_MS << self.tries);
        self.tries += 1;
        let options = GetOptions {
            range: Some(GetRange::Bounded(self.left.clone())),
            if_match: Some(etag.clone()),
            ..GetOptions::default()
        };
        let bucket = &self.bucket;
        let asked = async {
            tokio::time::sleep(pause).await;
            bucket.within(self.patience.answer, bucket.store().get_opts(&self.object, options)).await
        };
        match self.waiting.on(asked)? {
            Ok(got) if got.meta.e_tag.as_ref() == Some(etag) && got.range == self.left => {
                self.pieces = Some(got.into_stream());
                Ok(())
            }
            Ok(_) => Err(Failure::source(format!("{bucket} is another object by now"))),
            Err(refusal) if matches!(refusal.why, Why::Absent | Why::Another) => {
                Err(Failure::source(format!("{bucket} was changed while it was read")))
            }
            // It is tried again from the loop above.
            Err(refusal) if self.tries < TRIES && refusal.why != Why::Unknown => Ok(()),
            Err(refusal) => Err(as_source(refusal)),
        }
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fetch().map_err(io::Error::other)?;
        let length = buffer.len().min(self.piece.len());
        let (now, _) = buffer.split_at_mut(length);
        now.copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}
