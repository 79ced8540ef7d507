//! Byte pair encoding, as `tokenizers` does it, over tables that a large vocabulary fills in less time and memory: the
//! library has a string for each token in both of its maps, and reads each merge into two more.
//!
//! Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units" (2016). Dropout, which is
//! for training, is left to the library.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use tokenizers::Token;

use crate::table::{Slot, Table};
use crate::words::{Words, BATCH};

/// What stands beside the vocabulary and the merges in tokenizer.json, under the names it has there.
pub struct Options {
    pub unk_token: Option<String>,
    pub continuing_subword_prefix: Option<String>,
    pub end_of_word_suffix: Option<String>,
    pub fuse_unk: bool,
    pub byte_fallback: bool,
    pub ignore_merges: bool,
}

/// Of all pairs, the one with the lowest rank is merged first.
#[derive(Clone, Copy)]
struct Merge {
    left: u32,
    right: u32,
    rank: u32,
    id: u32, // of what the two become
}

impl Slot for Merge {
    const EMPTY: Merge = Merge { left: 0, right: 0, rank: u32::MAX, id: 0 };

    fn is_empty(&self) -> bool {
        self.rank == u32::MAX
    }
}

pub struct Bpe {
    words: Arc<Words>,
    merges: Table<Merge>,
    hasher: RandomState,
    bytes: Option<Box<[Option<u32>; 256]>>, // the tokens of single bytes, where a character may fall back on them
    options: Options,
}

/// A token of a word that is being merged, and its neighbours; one that went into the token before it has no bytes.
#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    previous: u32,
    next: u32,
    bytes: u32,
}

const NONE: u32 = u32::MAX;

fn hash(hasher: &RandomState, left: u32, right: u32) -> u64 {
    hasher.hash_one(u64::from(left) << 32 | u64::from(right))
}

impl Bpe {
    pub fn new(words: Arc<Words>, options: Options, merges: usize) -> Bpe {
        let byte = |b: usize| words.id(&format!("<0x{b:02X}>"));
        let bytes = options.byte_fallback.then(|| Box::new(std::array::from_fn(byte)));
        let merges = Table::with_capacity(merges);
        Bpe { words, merges, hasher: RandomState::default(), bytes, options }
    }

    pub fn words(&self) -> &Arc<Words> {
        &self.words
    }

    /// The tokens of a word with their places in it; their `value`s, which nobody here reads, are left empty.
    pub fn tokenize(&self, word: &str) -> Result<Vec<Token>, String> {
        if word.is_empty() {
            return Ok(Vec::new());
        }
        if self.options.ignore_merges {
            if let Some(id) = self.words.id(word) {
                return Ok(vec![Token::new(id, String::new(), (0, word.len()))]);
            }
        }
        let mut symbols = self.characters(word)?;
        self.merge(&mut symbols);
        let mut start = 0;
        let tokens = symbols.iter().filter(|symbol| symbol.bytes > 0).map(|symbol| {
            let end = start + symbol.bytes as usize;
            let token = Token::new(symbol.id, String::new(), (start, end));
            start = end;
            token
        });
        Ok(tokens.collect())
    }

    fn characters(&self, word: &str) -> Result<Vec<Symbol>, String> {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(word.len());
        let mut add = |id: u32, bytes: usize| {
            let at = symbols.len() as u32;
            if let Some(last) = symbols.last_mut() {
                last.next = at;
            }
            symbols.push(Symbol { id, previous: at.wrapping_sub(1), next: NONE, bytes: bytes as u32 });
        };
        let mut unknown: Option<(u32, usize)> = None; // read, but not added yet
        for (at, character) in word.char_indices() {
            let end = at + character.len_utf8();
            let text = self.decorated(word, at, end);
            if let Some(id) = self.words.id(&text) {
                if let Some((id, bytes)) = unknown.take() {
                    add(id, bytes);
                }
                add(id, end - at);
                continue;
            }
            if let Some(bytes) = &self.bytes {
                if text.bytes().all(|byte| bytes[byte as usize].is_some()) {
                    text.bytes().filter_map(|byte| bytes[byte as usize]).for_each(|id| add(id, 1));
                    continue;
                }
            }
            let Some(name) = &self.options.unk_token else { continue };
            let id = self.words.id(name).ok_or_else(|| format!("unk_token `{name}` is not in the vocabulary"))?;
            unknown = match unknown {
                Some((id, bytes)) if self.options.fuse_unk => Some((id, bytes + end - at)),
                Some((before, bytes)) => {
                    add(before, bytes);
                    Some((id, end - at))
                }
                None => Some((id, end - at)),
            };
        }
        if let Some((id, bytes)) = unknown {
            add(id, bytes);
        }
        Ok(symbols)
    }

    /// The character at [at, end) as the vocabulary writes it.
    fn decorated<'a>(&self, word: &'a str, at: usize, end: usize) -> Cow<'a, str> {
        let prefix = self.options.continuing_subword_prefix.as_ref().filter(|_| at > 0);
        let suffix = self.options.end_of_word_suffix.as_ref().filter(|_| end == word.len());
        if prefix.is_none() && suffix.is_none() {
            return Cow::Borrowed(&word[at..end]);
        }
        let parts = [prefix.map_or("", |prefix| prefix), &word[at..end], suffix.map_or("", |suffix| suffix)];
        Cow::Owned(parts.concat())
    }

    /// Merges the pair of the lowest rank, of equals the first, until none is left.
    fn merge(&self, symbols: &mut [Symbol]) {
        let of = |left: &Symbol, right: &Symbol| {
            let is_it = |merge: &Merge| merge.left == left.id && merge.right == right.id;
            self.merges.find(hash(&self.hasher, left.id, right.id), is_it)
        };
        let mut queue: BinaryHeap<Reverse<(u32, u32, u32)>> = BinaryHeap::with_capacity(symbols.len());
        let pairs = symbols.windows(2).enumerate();
        queue.extend(pairs.filter_map(|(at, pair)| of(&pair[0], &pair[1]).map(|m| Reverse((m.rank, at as u32, m.id)))));
        while let Some(Reverse((_, at, id))) = queue.pop() {
            let left = symbols[at as usize];
            if left.bytes == 0 || left.next == NONE {
                continue;
            }
            let right = symbols[left.next as usize];
            // One of the two may have become another since.
            if of(&left, &right).is_none_or(|merge| merge.id != id) {
                continue;
            }
            let merged = Symbol { id, bytes: left.bytes + right.bytes, next: right.next, ..left };
            symbols[at as usize] = merged;
            symbols[left.next as usize].bytes = 0;
            if let Some(next) = symbols.get_mut(merged.next as usize) {
                next.previous = at;
                queue.extend(of(&merged, next).map(|m| Reverse((m.rank, at, m.id))));
            }
            if let Some(previous) = symbols.get(merged.previous as usize) {
                queue.extend(of(previous, &merged).map(|m| Reverse((m.rank, merged.previous, m.id))));
            }
        }
    }
}

/// Takes the merges, the first of which has rank 0, in batches, whose lookups overlap: each merge takes five places in large tables.
pub struct MergeReader<'a, 'de> {
    bpe: &'a mut Bpe,
    rank: u32, // of the next
    batch: Vec<(Cow<'de, str>, Cow<'de, str>)>,
    joined: String,
    ends: Vec<usize>, // of what the batch's pairs become, in `joined`
    ids: Vec<Option<u32>>,
}

impl<'a, 'de> MergeReader<'a, 'de> {
    pub fn new(bpe: &'a mut Bpe) -> Self {
        MergeReader { bpe, rank: 0, batch: Vec::new(), joined: String::new(), ends: Vec::new(), ids: Vec::new() }
    }

    /// What keeps this or an earlier pair from being a merge is said in words.
    pub fn add(&mut self, left: Cow<'de, str>, right: Cow<'de, str>) -> Result<(), String> {
        let prefix = self.bpe.options.continuing_subword_prefix.as_ref().map_or(0, String::len);
        let tail = right.get(prefix..);
        let tail = tail.ok_or_else(|| format!("`{right}` of a merge does not have the continuing_subword_prefix"))?;
        self.joined.push_str(&left);
        self.joined.push_str(tail);
        self.ends.push(self.joined.len());
        self.batch.push((left, right));
        match self.batch.len() < BATCH / 3 {
            true => Ok(()),
            false => self.finish(),
        }
    }

    pub fn finish(&mut self) -> Result<(), String> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        let joined = starts.zip(&self.ends).map(|(start, end)| &self.joined[start..*end]);
        let words = self.batch.iter().zip(joined).flat_map(|((left, right), joined)| [left, right, joined]);
        self.bpe.words.ids(words.clone(), &mut self.ids);
        if let Some((word, _)) = words.zip(&self.ids).find(|(_, id)| id.is_none()) {
            return Err(format!("token `{word}` of a merge is not in the vocabulary"));
        }
        let bpe = &mut *self.bpe;
        let merges = self.ids.chunks_exact(3).filter_map(|ids| Some((ids[0]?, ids[1]?, ids[2]?)));
        for (left, right, _) in merges.clone() {
            bpe.merges.prefetch(hash(&bpe.hasher, left, right));
        }
        for (left, right, id) in merges {
            let is_it = |merge: &Merge| merge.left == left && merge.right == right;
            let hash_of = |merge: &Merge| hash(&bpe.hasher, merge.left, merge.right);
            let merge = Merge { left, right, rank: self.rank, id };
            bpe.merges.insert(hash_of(&merge), merge, is_it, hash_of);
            self.rank += 1;
        }
        self.batch.clear();
        self.joined.clear();
        self.ends.clear();
        Ok(())
    }
}
