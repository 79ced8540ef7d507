//! A model's vocabulary, by id and by text: one buffer holds all the text, so that 128,000 tokens are a few allocations.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use crate::table::{prefetch, Slot, Table};

pub const MAX_TOKEN_ID: u32 = 1 << 24;

/// So many lookups overlap.
pub const BATCH: usize = 96;

/// Where a token's text lies. An id that no token has is `NOWHERE`.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    len: u32,
}

const NOWHERE: Span = Span { start: 0, len: u32::MAX };

#[derive(Clone, Copy)]
struct Known {
    tag: u32, // of its text's hash
    id: u32,
}

impl Slot for Known {
    const EMPTY: Known = Known { tag: 0, id: u32::MAX };

    fn is_empty(&self) -> bool {
        self.id == u32::MAX
    }
}

fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

pub struct Words {
    text: String,
    spans: Vec<Span>, // by id
    index: Table<Known>,
    hasher: RandomState, // unlike in each process: nobody can write a vocabulary whose tokens all collide
}

impl Words {
    /// Expects about so many tokens with so many bytes of text in all.
    pub fn with_capacity(tokens: usize, bytes: usize) -> Words {
        Words {
            text: String::with_capacity(bytes),
            spans: Vec::with_capacity(tokens),
            index: Table::with_capacity(tokens),
            hasher: RandomState::default(),
        }
    }

    /// A token that is there already gets the id, as in any map. What keeps it from getting it is said in words.
    pub fn insert(&mut self, word: &str, id: u32) -> Result<(), String> {
        if id > MAX_TOKEN_ID {
            return Err(format!("id {id} of `{word}` is out of range"));
        }
        if let Some(other) = self.text(id).filter(|other| *other != word) {
            return Err(format!("`{other}` and `{word}` have the same id {id}"));
        }
        let (Ok(start), Ok(len)) = (u32::try_from(self.text.len()), u32::try_from(word.len())) else {
            return Err("the vocabulary is larger than 4 GiB".into());
        };
        let hash = self.hasher.hash_one(word);
        let (text, spans, hasher) = (&self.text, &self.spans, &self.hasher);
        let text_of = |known: &Known| text_at(text, spans, known.id);
        let is_it = |known: &Known| known.tag == tag_of(hash) && text_of(known) == Some(word);
        let hash_of = |known: &Known| hasher.hash_one(text_of(known).unwrap_or_default());
        let before = self.index.insert(hash, Known { tag: tag_of(hash), id }, is_it, hash_of);
        if self.spans.len() <= id as usize {
            self.spans.resize(id as usize + 1, NOWHERE);
        }
        match before {
            Some(before) => self.spans.swap(before.id as usize, id as usize),
            None => {
                self.text.push_str(word);
                self.spans[id as usize] = Span { start, len };
            }
        }
        Ok(())
    }

    pub fn id(&self, word: &str) -> Option<u32> {
        self.find(word, self.hasher.hash_one(word))
    }

    fn find(&self, word: &str, hash: u64) -> Option<u32> {
        let is_it = |known: &Known| known.tag == tag_of(hash) && self.text(known.id) == Some(word);
        self.index.find(hash, is_it).map(|known| known.id)
    }

    /// The ids of up to `BATCH` words, faster than one by one where they are spread over a large vocabulary.
    pub fn ids<'a>(&self, words: impl Iterator<Item = &'a str> + Clone, ids: &mut Vec<Option<u32>>) {
        let mut hashes = [0; BATCH];
        for (word, hash) in words.clone().zip(&mut hashes) {
            *hash = self.hasher.hash_one(word);
            self.index.prefetch(*hash);
        }
        let mut guesses = [0; BATCH]; // ids whose text has the same tag
        for (_, (hash, guess)) in words.clone().zip(hashes.iter().zip(&mut guesses)) {
            *guess = self.index.find(*hash, |known| known.tag == tag_of(*hash)).map_or(0, |known| known.id);
            prefetch(self.spans.as_ptr().wrapping_add(*guess as usize));
        }
        for (_, guess) in words.clone().zip(guesses) {
            let start = self.spans.get(guess as usize).map_or(0, |span| span.start as usize);
            prefetch(self.text.as_ptr().wrapping_add(start));
        }
        ids.clear();
        ids.extend(words.zip(hashes.iter().zip(guesses)).map(|(word, (hash, guess))| {
            let is_it = self.text(guess) == Some(word);
            is_it.then_some(guess).or_else(|| self.find(word, *hash))
        }));
    }

    pub fn text(&self, id: u32) -> Option<&str> {
        text_at(&self.text, &self.spans, id)
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// One more than the largest id.
    pub fn end(&self) -> usize {
        self.spans.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        (0..self.end() as u32).filter_map(|id| Some((self.text(id)?, id)))
    }
}

fn text_at<'a>(text: &'a str, spans: &[Span], id: u32) -> Option<&'a str> {
    let span = spans.get(id as usize)?;
    let start = span.start as usize;
    text.get(start..start + span.len as usize)
}
