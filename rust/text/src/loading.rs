//! What is checked and put together when a tokenizer is loaded: added tokens of two files, and what is found in text.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use tokenizers::{AddedToken, Model, Normalizer};

use crate::added::{Entry, Matcher};
use crate::error::{malformed, Result};
use crate::model::HfTokenizer;
use crate::source::AddedOutline;
use crate::words::{Words, MAX_TOKEN_ID};

pub fn check_added(added: &[AddedOutline]) -> Result<()> {
    let mut ids = HashSet::new();
    let mut contents = HashSet::new();
    for token in added {
        if token.id > u64::from(MAX_TOKEN_ID) {
            return Err(malformed(format!("tokenizer.json: id {} of `{}` is out of range", token.id, token.content)));
        }
        if !ids.insert(token.id) {
            return Err(malformed(format!("tokenizer.json: two added tokens have the id {}", token.id)));
        }
        if !contents.insert(&token.content) {
            return Err(malformed(format!("tokenizer.json: the added token `{}` is there twice", token.content)));
        }
    }
    Ok(())
}

/// What `transformers` adds on top of tokenizer.json: the config's added tokens (their flags win) and the named special
/// tokens that are not there yet.
pub fn add_from_config(hf: &mut HfTokenizer, config: &Value) -> Result<()> {
    let failed = |e: tokenizers::Error| malformed(format!("tokenizer_config.json: {e}"));
    let mut listed: Vec<(u64, AddedToken)> = Vec::new();
    if let Some(map) = config["added_tokens_decoder"].as_object() {
        for (id, value) in map {
            let id = id
                .parse::<u64>()
                .map_err(|_| malformed(format!("tokenizer_config.json: added_tokens_decoder: `{id}` is no id")))?;
            let token = added_token(value)
                .ok_or_else(|| malformed(format!("tokenizer_config.json: added_tokens_decoder: {id} has no content")))?;
            listed.push((id, token));
        }
    }
    listed.sort_by_key(|(id, _)| *id);
    let mut tokens: Vec<AddedToken> = listed.into_iter().map(|(_, token)| token).collect();
    let known = hf.get_added_tokens_decoder();
    for name in SPECIAL_NAMES {
        let value = &config[*name];
        let content = special_content(value);
        let Some(content) = content.filter(|content| !content.is_empty()) else {
            continue;
        };
        let there = tokens.iter().any(|token| token.content == content)
            || known.values().any(|token| token.content == content);
        if !there {
            tokens.push(added_token(value).unwrap_or_else(|| AddedToken::from(content, true)));
        }
    }
    tokens.retain(|token| !token.content.is_empty());
    hf.add_tokens(tokens).map_err(failed)?;
    Ok(())
}

pub const SPECIAL_NAMES: &[&str] =
    &["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A special token's text, whether the config gives a string or an object.
pub fn special_content(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

fn added_token(value: &Value) -> Option<AddedToken> {
    let flag = |name: &str, default: bool| value[name].as_bool().unwrap_or(default);
    let special = flag("special", false);
    Some(AddedToken {
        content: value["content"].as_str()?.to_owned(),
        single_word: flag("single_word", false),
        lstrip: flag("lstrip", false),
        rstrip: flag("rstrip", false),
        normalized: flag("normalized", !special),
        special,
    })
}

/// Every id has one text, whether the model or the added tokens give it; the number of ids.
pub fn check_pieces(words: &Words, hf: &HfTokenizer) -> Result<usize> {
    let mut end = words.end();
    let mut added: HashMap<u32, &str> = HashMap::new();
    // An added token may be one of the model's own.
    for (text, &id) in hf.get_added_vocabulary().get_vocab() {
        if id > MAX_TOKEN_ID {
            return Err(malformed(format!("tokenizer.json: id {id} of `{text}` is out of range")));
        }
        let other = words.text(id).or_else(|| added.get(&id).copied());
        if let Some(other) = other.filter(|other| other != text) {
            return Err(malformed(format!("tokenizer.json: `{other}` and `{text}` have the same id {id}")));
        }
        added.insert(id, text);
        end = end.max(id as usize + 1);
    }
    match end {
        0 => Err(malformed("tokenizer.json: the vocabulary is empty")),
        _ => Ok(end),
    }
}

pub fn list_entries(hf: &HfTokenizer, template: &str) -> HashMap<u32, Entry> {
    let blank = |text: &str| text.chars().all(|c| c.is_whitespace() || c == '\u{2581}');
    let mut entries = HashMap::new();
    let added = hf.get_added_vocabulary();
    for (id, token) in added.get_added_tokens_decoder() {
        let in_model = hf.get_model().token_to_id(&token.content).is_some();
        let control = token.special
            || (!blank(&token.content) && (!in_model || template.contains(token.content.as_str())));
        let special = added.is_special_token(&token.content);
        entries.insert(*id, Entry { token: token.clone(), special, control });
    }
    entries
}

pub fn build_matchers(hf: &HfTokenizer, entries: &HashMap<u32, Entry>) -> Result<(Matcher, Matcher)> {
    let mut raw = Vec::new();
    let mut normalized = Vec::new();
    for (id, entry) in entries {
        let content = &entry.token.content;
        if !entry.token.normalized {
            raw.push((content.clone(), *id));
            continue;
        }
        let mut text = tokenizers::NormalizedString::from(content.as_str());
        if let Some(normalizer) = hf.get_normalizer() {
            normalizer.normalize(&mut text).map_err(|e| malformed(format!("tokenizer.json: normalizer: {e}")))?;
        }
        if !text.get().is_empty() {
            normalized.push((text.get().to_owned(), *id));
        }
    }
    for patterns in [&mut raw, &mut normalized] {
        // Two tokens may normalize to one pattern; the smaller id keeps it, whatever the map's order.
        patterns.sort();
        patterns.dedup_by(|later, earlier| later.0 == earlier.0);
    }
    Ok((Matcher::new(raw, entries)?, Matcher::new(normalized, entries)?))
}
