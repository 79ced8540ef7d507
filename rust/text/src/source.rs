//! From the bytes of tokenizer.json to the library's tokenizer.
//!
//! The library reads a model through untagged enums, which builds every token and merge of a large vocabulary three
//! times over before it is used. BPE models, which is what large vocabularies are, are read here: one pass finds the
//! vocabulary and the merges, and two threads read one each. All other parts, and all other models, are the library's
//! to read.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::Value;
use tokenizers::models::bpe::{BpeBuilder, Merges, Vocab};
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use crate::error::{malformed, Result};

/// What is read here beside the library's tokenizer.
pub struct Source {
    pub hf: HfTokenizer,
    pub added_tokens: Vec<AddedOutline>,
    pub decoder: Value,
    pub unk_token: Option<String>,
    pub unk_id: Option<u64>,
    pub words: Vec<(String, u32)>, // the model's own vocabulary, without added tokens
}

#[derive(serde::Deserialize)]
pub struct AddedOutline {
    pub id: u64,
    pub content: String,
}

#[derive(serde::Deserialize)]
struct Parts<'a> {
    #[serde(default)]
    version: Value,
    #[serde(default)]
    truncation: Value,
    #[serde(default)]
    padding: Value,
    #[serde(default)]
    added_tokens: Value,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(borrow)]
    model: Model<'a>,
}

/// Of any type; what is large is not looked into.
#[derive(serde::Deserialize)]
struct Model<'a> {
    #[serde(default, rename = "type")]
    kind: Value,
    #[serde(default)]
    dropout: Value,
    #[serde(default)]
    unk_token: Value,
    #[serde(default)]
    unk_id: Value,
    #[serde(default)]
    continuing_subword_prefix: Value,
    #[serde(default)]
    end_of_word_suffix: Value,
    #[serde(default)]
    fuse_unk: Value,
    #[serde(default)]
    byte_fallback: Value,
    #[serde(default)]
    ignore_merges: Value,
    #[serde(borrow, default)]
    vocab: Option<&'a RawValue>,
    #[serde(borrow, default)]
    merges: Option<&'a RawValue>,
}

/// The vocabulary twice: the library keeps its own, and a list is wanted as well.
struct Words(Vocab, Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Words;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tokens and their ids")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<Words, M::Error> {
                let mut words = Vocab::default();
                while let Some((token, id)) = map.next_entry::<String, u32>()? {
                    words.insert(token, id);
                }
                let list = words.iter().map(|(token, id)| (token.clone(), *id)).collect();
                Ok(Words(words, list))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

struct Pairs(Merges);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of merges")
            }
            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> std::result::Result<Pairs, S::Error> {
                let mut pairs = Merges::new();
                while let Some(Pair(pair)) = list.next_element()? {
                    pairs.extend(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

/// `["a", "b"]`, or `"a b"` as older files have it; nothing for their version line.
struct Pair(Option<(String, String)>);

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pair;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a merge: two tokens, or both in one string with a space between them")
            }
            fn visit_str<E: serde::de::Error>(self, line: &str) -> std::result::Result<Pair, E> {
                if line.starts_with("#version") {
                    return Ok(Pair(None));
                }
                match line.split_once(' ') {
                    Some((left, right)) if !right.contains(' ') => Ok(Pair(Some((left.into(), right.into())))),
                    _ => Err(E::custom("a merge is not two tokens with a space between them")),
                }
            }
            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> std::result::Result<Pair, S::Error> {
                let short = || S::Error::custom("a merge has fewer than two tokens");
                let left = list.next_element()?.ok_or_else(short)?;
                let right = list.next_element()?.ok_or_else(short)?;
                if list.next_element::<serde::de::IgnoredAny>()?.is_some() {
                    return Err(S::Error::custom("a merge has more than two tokens"));
                }
                Ok(Pair(Some((left, right))))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

type Listed = (tokenizers::models::bpe::BPE, Vec<(String, u32)>);

/// `vocab` and `merges` are where the model's are.
fn read_bpe(model: &Model, vocab: &RawValue, merges: &RawValue) -> std::result::Result<Listed, Box<dyn fmt::Display>> {
    fn display<E: fmt::Display + 'static>(e: E) -> Box<dyn fmt::Display> {
        Box::new(e)
    }
    fn option<T: for<'de> Deserialize<'de>>(value: &Value) -> std::result::Result<Option<T>, Box<dyn fmt::Display>> {
        Option::<T>::deserialize(value).map_err(display)
    }
    let (words, pairs) = std::thread::scope(|scope| {
        let words = scope.spawn(|| serde_json::from_str::<Words>(vocab.get()));
        let pairs = serde_json::from_str::<Pairs>(merges.get());
        (words.join(), pairs)
    });
    let Words(vocab, list) = words.map_err(|_| display("the vocabulary's thread died"))?.map_err(display)?;
    let mut builder = BpeBuilder::new()
        .vocab_and_merges(vocab, pairs.map_err(display)?.0)
        // The library would remember words per thread and per tokenizer, up to 10,000 of them, and forget them only when
        // the thread ends: each load of a model would leave them behind on every thread that tokenized for it. Without
        // that words are tokenized no slower.
        .cache_capacity(0)
        .fuse_unk(option(&model.fuse_unk)?.unwrap_or(false))
        .byte_fallback(option(&model.byte_fallback)?.unwrap_or(false))
        .ignore_merges(option(&model.ignore_merges)?.unwrap_or(false));
    if let Some(dropout) = option(&model.dropout)? {
        builder = builder.dropout(dropout);
    }
    if let Some(unk_token) = option(&model.unk_token)? {
        builder = builder.unk_token(unk_token);
    }
    if let Some(prefix) = option(&model.continuing_subword_prefix)? {
        builder = builder.continuing_subword_prefix(prefix);
    }
    if let Some(suffix) = option(&model.end_of_word_suffix)? {
        builder = builder.end_of_word_suffix(suffix);
    }
    Ok((builder.build().map_err(display)?, list))
}

/// `check` sees the added tokens before they are given to the library.
pub fn read(tokenizer_json: &[u8], check: impl FnOnce(&[AddedOutline]) -> Result<()>) -> Result<Source> {
    let failed = |e: &dyn fmt::Display| malformed(format!("tokenizer.json: {e}"));
    let parts: Parts = serde_json::from_slice(tokenizer_json).map_err(|e| failed(&e))?;
    let added_tokens = match &parts.added_tokens {
        Value::Null => Vec::new(),
        list => Vec::<AddedOutline>::deserialize(list).map_err(|e| failed(&e))?,
    };
    check(&added_tokens)?;
    let model = &parts.model;
    let unk_token = model.unk_token.as_str().map(str::to_owned);
    let unk_id = model.unk_id.as_u64();
    let (hf, words) = match (model.kind.as_str(), model.vocab, model.merges) {
        (Some("BPE"), Some(vocab), Some(merges)) => {
            let (bpe, words) = read_bpe(model, vocab, merges).map_err(|e| failed(&e))?;
            let mut rest = serde_json::json!({
                "truncation": parts.truncation, "padding": parts.padding, "added_tokens": [],
                "normalizer": parts.normalizer, "pre_tokenizer": parts.pre_tokenizer,
                "post_processor": parts.post_processor, "decoder": parts.decoder,
                "model": {"type": "BPE", "vocab": {}, "merges": []},
            });
            if !parts.version.is_null() {
                rest["version"] = parts.version;
            }
            let mut hf = HfTokenizer::from_bytes(rest.to_string()).map_err(|e| failed(&e))?;
            hf.with_model(bpe);
            let added = match &parts.added_tokens {
                Value::Null => Vec::new(),
                list => Vec::<AddedToken>::deserialize(list).map_err(|e| failed(&e))?,
            };
            hf.add_tokens(added).map_err(|e| failed(&e))?;
            (hf, words)
        }
        _ => {
            let hf = HfTokenizer::from_bytes(tokenizer_json).map_err(|e| failed(&e))?;
            let words = hf.get_vocab(false).into_iter().collect();
            (hf, words)
        }
    };
    Ok(Source { hf, added_tokens, decoder: parts.decoder, unk_token, unk_id, words })
}
