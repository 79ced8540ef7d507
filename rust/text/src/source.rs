//! From the bytes of tokenizer.json to the library's tokenizer.
//!
//! The library reads a model through untagged enums, which builds every token and merge of a large vocabulary three
//! times over before it is used. BPE models, which is what large vocabularies are, are read here (bpe.rs): one pass finds
//! the vocabulary and the merges, a second fills our tables from them. All other parts, and all other models, are the
//! library's to read.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::Value;
use tokenizers::{AddedToken, Model as _};

use crate::bpe::{Bpe, MergeReader, Options};
use crate::error::{malformed, Result};
use crate::model::{AnyModel, HfTokenizer};
use crate::words::Words;

/// What is read here beside the library's tokenizer.
pub struct Source {
    pub hf: HfTokenizer,
    pub added_tokens: Vec<AddedOutline>,
    pub decoder: Value,
    pub unk_token: Option<String>,
    pub unk_id: Option<u64>,
    pub words: Arc<Words>, // the model's own vocabulary, without added tokens
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

/// A string as it stands in the text, where nothing in it is escaped.
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a token")
            }
            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> std::result::Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

struct Vocabulary(Words);

impl<'de> Visitor<'de> for Vocabulary {
    type Value = Words;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tokens and their ids")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> std::result::Result<Words, M::Error> {
        while let Some((Text(token), id)) = map.next_entry()? {
            self.0.insert(&token, id).map_err(M::Error::custom)?;
        }
        Ok(self.0)
    }
}

struct Merges<'a, 'de>(MergeReader<'a, 'de>);

impl<'de> Visitor<'de> for Merges<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of merges")
    }

    fn visit_seq<S: SeqAccess<'de>>(mut self, mut list: S) -> std::result::Result<(), S::Error> {
        while list.next_element_seed(Merge(&mut self.0))?.is_some() {}
        self.0.finish().map_err(S::Error::custom)
    }
}

/// Of `"a b"`, as older files write a merge; nothing of their version line.
fn halves(line: &str) -> std::result::Result<Option<(&str, &str)>, String> {
    if line.starts_with("#version") {
        return Ok(None);
    }
    match line.split_once(' ') {
        Some((left, right)) if !right.contains(' ') => Ok(Some((left, right))),
        _ => Err("a merge is not two tokens with a space between them".into()),
    }
}

/// `["a", "b"]`, or `"a b"` as older files have it.
struct Merge<'a, 'b, 'de>(&'a mut MergeReader<'b, 'de>);

impl<'de> DeserializeSeed<'de> for Merge<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Merge<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a merge: two tokens, or both in one string with a space between them")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, line: &'de str) -> std::result::Result<(), E> {
        halves(line)
            .and_then(|halves| halves.map_or(Ok(()), |(left, right)| self.0.add(left.into(), right.into())))
            .map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, line: &str) -> std::result::Result<(), E> {
        halves(line)
            .and_then(|halves| halves.map_or(Ok(()), |(l, r)| self.0.add(l.to_owned().into(), r.to_owned().into())))
            .map_err(E::custom)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> std::result::Result<(), S::Error> {
        let short = || S::Error::custom("a merge has fewer than two tokens");
        let Text(left) = list.next_element()?.ok_or_else(short)?;
        let Text(right) = list.next_element()?.ok_or_else(short)?;
        if list.next_element::<IgnoredAny>()?.is_some() {
            return Err(S::Error::custom("a merge has more than two tokens"));
        }
        self.0.add(left, right).map_err(S::Error::custom)
    }
}

/// `vocab` and `merges` are where the model's are.
fn read_bpe(model: &Model, vocab: &str, merges: &str) -> serde_json::Result<Bpe> {
    // A token takes some 24 bytes of a file with a line for each, and a merge some 40.
    let empty = Words::with_capacity(vocab.len() / 24, vocab.len() / 2);
    let mut reader = serde_json::Deserializer::from_str(vocab);
    let words = reader.deserialize_map(Vocabulary(empty))?;
    reader.end()?;
    let options = Options {
        unk_token: Deserialize::deserialize(&model.unk_token)?,
        continuing_subword_prefix: Deserialize::deserialize(&model.continuing_subword_prefix)?,
        end_of_word_suffix: Deserialize::deserialize(&model.end_of_word_suffix)?,
        fuse_unk: Option::deserialize(&model.fuse_unk)?.unwrap_or(false),
        byte_fallback: Option::deserialize(&model.byte_fallback)?.unwrap_or(false),
        ignore_merges: Option::deserialize(&model.ignore_merges)?.unwrap_or(false),
    };
    let mut bpe = Bpe::new(Arc::new(words), options, merges.len() / 40);
    let mut reader = serde_json::Deserializer::from_str(merges);
    reader.deserialize_seq(Merges(MergeReader::new(&mut bpe)))?;
    reader.end()?;
    Ok(bpe)
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
    // Dropout, which makes tokenizing random, is left to the library.
    let read_here = model.dropout.is_null() || model.dropout == 0.0;
    let (hf, words) = match (model.kind.as_str(), model.vocab, model.merges) {
        (Some("BPE"), Some(vocab), Some(merges)) if read_here => {
            let bpe = read_bpe(model, vocab.get(), merges.get()).map_err(|e| failed(&e))?;
            let words = bpe.words().clone();
            let mut rest = serde_json::json!({
                "truncation": parts.truncation, "padding": parts.padding, "added_tokens": [],
                "normalizer": parts.normalizer, "pre_tokenizer": parts.pre_tokenizer,
                "post_processor": parts.post_processor, "decoder": parts.decoder,
                "model": {"type": "BPE", "vocab": {}, "merges": []},
            });
            if !parts.version.is_null() {
                rest["version"] = parts.version;
            }
            let mut hf: HfTokenizer = serde_json::from_value(rest).map_err(|e| failed(&e))?;
            hf.with_model(AnyModel::Ours(bpe));
            let added = match &parts.added_tokens {
                Value::Null => Vec::new(),
                list => Vec::<AddedToken>::deserialize(list).map_err(|e| failed(&e))?,
            };
            hf.add_tokens(added).map_err(|e| failed(&e))?;
            (hf, words)
        }
        _ => {
            let hf: HfTokenizer = serde_json::from_slice(tokenizer_json).map_err(|e| failed(&e))?;
            let mut words = Words::with_capacity(hf.get_model().get_vocab_size(), 0);
            for (word, id) in hf.get_model().get_vocab() {
                words.insert(&word, id).map_err(|e| failed(&e))?;
            }
            (hf, Arc::new(words))
        }
    };
    Ok(Source { hf, added_tokens, decoder: parts.decoder, unk_token, unk_id, words })
}
