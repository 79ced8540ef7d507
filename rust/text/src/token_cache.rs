//! Parts of texts and their tokens, so that what prompts share is not tokenized again.
//!
//! What a part is, and why its tokens do not depend on what stands around it, is parts.rs's to say. An entry is found by
//! a hash and then compared with the whole text: a hit is never wrong. Bounded in bytes and least recently used first;
//! several shards with a mutex each, held for one look-up, so that threads do not wait for each other.
//!
//! Rejected: whole texts alone (a chat that grows by one message would miss each time), and a trie of characters (an
//! entry is a part of a thousand bytes, for which one hash does).

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 8;
/// Shorter parts are tokenized about as fast as they are looked up.
const MIN_BYTES: usize = 48;
/// Of an entry besides its text and tokens: the node, its place in the map, and what the allocator adds to each piece.
const OVERHEAD: usize = 160;
const NONE: u32 = u32::MAX;

/// What besides the text decides: how control tokens are treated, and whose texts may be known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub mode: u8,
    pub salt: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counts {
    pub hits: u64,   // bytes of text
    pub misses: u64, // the same
    pub evictions: u64,
    pub bytes: u64,
}

struct Node {
    hash: u64,
    kind: Kind,
    text: Box<str>,
    ids: Arc<[u32]>,
    newer: u32,
    older: u32,
}

/// The map's keys are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

struct Shard {
    by_hash: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    bytes: usize,
    limit: usize,
}

pub struct TokenCache {
    shards: [Mutex<Shard>; SHARDS],
    hasher: foldhash::quality::RandomState, // whoever finds two texts of one hash makes them forget each other, no more
    salts: RandomState,
    limit: AtomicUsize,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

fn cost(text: &str, ids: &[u32]) -> usize {
    text.len() + std::mem::size_of_val(ids) + OVERHEAD
}

impl Shard {
    fn new() -> Shard {
        Shard {
            by_hash: HashMap::default(),
            nodes: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            bytes: 0,
            limit: 0,
        }
    }

    fn node(&mut self, at: u32) -> &mut Node {
        self.nodes[at as usize].as_mut().expect("a linked node is there")
    }

    fn unlink(&mut self, at: u32) {
        let (newer, older) = (self.node(at).newer, self.node(at).older);
        match newer {
            NONE => self.newest = older,
            other => self.node(other).older = older,
        }
        match older {
            NONE => self.oldest = newer,
            other => self.node(other).newer = newer,
        }
    }

    fn link_newest(&mut self, at: u32) {
        let second = self.newest;
        let node = self.node(at);
        node.newer = NONE;
        node.older = second;
        match second {
            NONE => self.oldest = at,
            other => self.node(other).newer = at,
        }
        self.newest = at;
    }

    fn find(&mut self, hash: u64, kind: Kind, text: &str) -> Option<Arc<[u32]>> {
        let at = *self.by_hash.get(&hash)?;
        let node = self.node(at);
        if node.kind != kind || &*node.text != text {
            return None;
        }
        let ids = node.ids.clone();
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
        Some(ids)
    }

    fn remove(&mut self, at: u32) {
        self.unlink(at);
        let node = self.nodes[at as usize].take().expect("a linked node is there");
        self.by_hash.remove(&node.hash);
        self.bytes -= cost(&node.text, &node.ids);
        self.free.push(at);
    }

    /// Returns how many made room.
    fn shrink_to(&mut self, limit: usize) -> u64 {
        let mut gone = 0;
        while self.bytes > limit {
            self.remove(self.oldest);
            gone += 1;
        }
        gone
    }

    fn insert(&mut self, hash: u64, kind: Kind, text: &str, ids: &[u32]) -> u64 {
        let bytes = cost(text, ids);
        if bytes > self.limit / 2 {
            return 0; // it would drive half of the others out
        }
        if let Some(&at) = self.by_hash.get(&hash) {
            self.remove(at); // another thread's, or another text with this hash
        }
        let gone = self.shrink_to(self.limit - bytes);
        let node = Node { hash, kind, text: text.into(), ids: ids.into(), newer: NONE, older: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = Some(node);
                at
            }
            None => {
                self.nodes.push(Some(node));
                (self.nodes.len() - 1) as u32
            }
        };
        self.by_hash.insert(hash, at);
        self.bytes += bytes;
        self.link_newest(at);
        gone
    }
}

impl TokenCache {
    /// Holds nothing before it has a limit.
    pub fn new() -> TokenCache {
        TokenCache {
            shards: std::array::from_fn(|_| Mutex::new(Shard::new())),
            hasher: foldhash::quality::RandomState::default(),
            salts: RandomState::new(),
            limit: AtomicUsize::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    pub fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.limit = bytes / SHARDS;
            let gone = shard.shrink_to(bytes / SHARDS);
            self.evictions.fetch_add(gone, Ordering::Relaxed);
        }
    }

    pub fn is_on(&self) -> bool {
        self.limit.load(Ordering::Relaxed) > 0
    }

    pub fn takes(&self, text: &str) -> bool {
        text.len() >= MIN_BYTES && self.is_on()
    }

    /// Who may share what; equal for equal salts of one tokenizer, and nothing that a client could aim at.
    pub fn salt(&self, salt: &[u8]) -> u64 {
        if salt.is_empty() {
            return 0;
        }
        self.salts.hash_one(salt) | 1
    }

    pub fn hash(&self, kind: Kind, text: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text.as_bytes());
        hasher.write_u64(kind.salt);
        hasher.write_u8(kind.mode);
        hasher.finish()
    }

    /// Appends the tokens of the part, where they are known.
    pub fn find(&self, hash: u64, kind: Kind, text: &str, out: &mut Vec<u32>) -> bool {
        let found = lock(&self.shards[shard_of(hash)]).find(hash, kind, text);
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(text.len() as u64, Ordering::Relaxed);
        match found {
            Some(ids) => {
                out.extend_from_slice(&ids);
                true
            }
            None => false,
        }
    }

    pub fn insert(&self, hash: u64, kind: Kind, text: &str, ids: &[u32]) {
        let gone = lock(&self.shards[shard_of(hash)]).insert(hash, kind, text, ids);
        if gone > 0 {
            self.evictions.fetch_add(gone, Ordering::Relaxed);
        }
    }

    pub fn counts(&self) -> Counts {
        Counts {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            bytes: self.shards.iter().map(|shard| lock(shard).bytes as u64).sum(),
        }
    }
}

/// By bits that the map within the shard does not begin with.
fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

/// A panic under the lock is a bug that its request reports; what is linked stays linked.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
