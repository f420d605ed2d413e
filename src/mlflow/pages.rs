//! A list that comes in pages. MLflow's page tokens are offsets: what is made in between shifts them, and a row comes
//! twice. What was seen is remembered, so that nothing is told twice. What is deleted in between can hide another row
//! from the next page; no client can mend that.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::fault::{Reply, Trouble};
use super::send::Ask;
use super::{Client, Exchange};

/// No list that this client asks for is longer; a server that goes on has lost its way.
const MOST: usize = 100_000;

/// What a page holds, and the token of the next; an empty one ends the list.
pub(super) type Page<T> = (Vec<T>, String);

/// A list to its end.
pub struct Pages<T> {
    client: Client,
    ask: Ask,
    read: Read<T>,
    /// Keeps what was not told before.
    sift: Sift<T>,
    /// A first page that was asked for already.
    ahead: Option<Vec<T>>,
    token: Option<String>,
    tokens: HashSet<String>,
    last: Option<Exchange>,
}

type Sift<T> = Box<dyn FnMut(&mut Vec<T>) + Send>;
type Read<T> = Box<dyn Fn(&Client, &str, &[u8]) -> Reply<Page<T>> + Send + Sync>;

impl<T: Send + 'static> Pages<T> {
    /// The pages of an answer of the form `W`, whose items are told from each other by an id.
    pub(super) fn new<W: DeserializeOwned + 'static>(
        client: &Client,
        ask: Ask,
        open: fn(W) -> Page<T>,
        id: fn(&T) -> String,
    ) -> Pages<T> {
        let mut seen: HashSet<[u8; 16]> = HashSet::new();
        Pages::sifted(client, ask, open, move |page| page.retain(|item| seen.insert(digest(&id(item)))))
    }

    pub(super) fn sifted<W: DeserializeOwned + 'static>(
        client: &Client,
        ask: Ask,
        open: fn(W) -> Page<T>,
        sift: impl FnMut(&mut Vec<T>) + Send + 'static,
    ) -> Pages<T> {
        Pages {
            client: client.clone(),
            ask,
            read: Box::new(move |client, path, bytes| client.decoded(path, bytes).map(open)),
            sift: Box::new(sift),
            ahead: None,
            token: Some(String::new()),
            tokens: HashSet::new(),
            last: None,
        }
    }

    /// The same list with only those items.
    pub(super) fn only(self, keep: impl Fn(&T) -> bool + Send + 'static) -> Pages<T> {
        let mut sift = self.sift;
        Pages {
            sift: Box::new(move |page| {
                page.retain(&keep);
                sift(page);
            }),
            ..self
        }
    }

    /// The next page, never an empty one; `None` at the end.
    ///
    /// # Errors
    /// Any fault of a call; malformed: a list that does not end.
    pub async fn next(&mut self) -> Reply<Option<Vec<T>>> {
        if let Some(page) = self.ahead.take().filter(|p| !p.is_empty()) {
            return Ok(Some(page));
        }
        while let Some(token) = self.token.take() {
            let mut ask = self.ask.clone();
            if !token.is_empty() {
                match ask.json.as_mut().and_then(|j| j.as_object_mut()) {
                    Some(json) => drop(json.insert("page_token".to_owned(), token.clone().into())),
                    None => ask.query.push(("page_token", token.clone())),
                }
            }
            let endless =
                |what: &str| Trouble::malformed(self.client.connection(), format_args!("{}: {what}", self.ask.path));
            if !self.tokens.insert(token) {
                return Err(endless("the pages of the list go round in a circle"));
            }
            if self.tokens.len() > MOST {
                return Err(endless("the pages of the list do not end"));
            }
            let answer = self.client.bytes(&ask).await?;
            let (mut page, next) = (self.read)(&self.client, &ask.path, &answer.value)?;
            self.last = Some(answer.exchange);
            self.token = Some(next).filter(|t| !t.is_empty());
            (self.sift)(&mut page);
            if !page.is_empty() {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    /// Asks for the first page now, so that a fault shows.
    pub(super) async fn started(mut self) -> Reply<Pages<T>> {
        self.ahead = self.next().await?;
        Ok(self)
    }

    /// How the last page came.
    pub fn exchange(&self) -> Option<Exchange> {
        self.last
    }
}

/// Sixteen bytes for an id of any length: a list of a million runs is remembered in a few dozen MB.
fn digest(id: &str) -> [u8; 16] {
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().zip(Sha256::digest(id.as_bytes())) {
        *to = from;
    }
    short
}
